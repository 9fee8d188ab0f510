"""Make what the card of a trained model shows: grids, training curves, and a file of facts.

    python scripts/model_card.py RUN --data cifar10-train.zip --out card

Writes into the folder `card`:

    real-and-generated.png  real images on the left, untruncated samples on the right, a row a class
    curves.png              losses, D's mean logits and speed over the steps, from metrics.jsonl
    facts.json              steps, images, parameters, last metrics, digests of recipe and weights

It runs from a clone with torch and the package's other requirements, also without installing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a clone will do

import torch
from PIL import Image, ImageDraw

import biggan
from biggan.data import ImageDataset, load_dataset
from biggan.images import make_grid, to_pil
from biggan.training import TrainConfig, load_recipe

CLASSES = 10  # rows of a grid, at most
COLUMNS = 10

_CURVES = (  # one plot each
    ("loss", ("d_loss", "g_loss")),
    ("mean logit of D", ("d_real", "d_fake")),
    ("steps per second", ("steps_per_second",)),
)
_COLOURS = ("#1f77b4", "#d62728")
_WIDTH, _HEIGHT, _MARGIN = 900, 220, 60


def make_card(run_dir: Path, dataset: ImageDataset, out: Path, facts: dict[str, Any]) -> None:
    """Write the pictures and the facts.

    Args:
        run_dir: A run's folder, with an exported generator.
        dataset: The real images that it was trained on.
        out: Where to write; created if needed.
        facts: What only the caller knows, such as the device; added to `facts.json`.
    """
    out.mkdir(parents=True, exist_ok=True)
    gan = biggan.load(run_dir)
    real, generated = real_grid(dataset), generated_grid(gan)
    side_by_side(real, generated).save(out / "real-and-generated.png", optimize=True)
    lines = read_metrics(run_dir)
    draw_curves(lines).save(out / "curves.png", optimize=True)
    config = load_recipe(run_dir / "config.toml")
    text = json.dumps(collect_facts(run_dir, gan, config, lines) | facts, indent=2) + "\n"
    (out / "facts.json").write_text(text, encoding="utf-8")


def collect_facts(
    run_dir: Path, gan: biggan.Gan, config: TrainConfig, lines: Sequence[dict[str, float]]
) -> dict[str, Any]:
    """What the run's own files say about the model."""
    step = int(gan.description.training["step"])
    return {
        "name": gan.name,
        "steps": step,
        "discriminator_updates": step * config.d_steps,
        "real_images_shown": step * config.d_steps * config.batch_size,
        "images_in_the_data": gan.description.training["images"],
        "data_fingerprint": gan.description.training["data_fingerprint"],
        "generator_parameters": _count(gan.generator),
        "discriminator_parameters": _count(biggan.load_discriminator(run_dir)),
        "recipe": gan.description.training["recipe"],  # without the folders of data and sources
        "recipe_sha256": hashlib.sha256((run_dir / "config.toml").read_bytes()).hexdigest(),
        "generator_sha256": gan.sha256,
        "last_metrics": lines[-1] if lines else {},
        "torch": torch.__version__,
    }


def real_grid(dataset: ImageDataset) -> Image.Image:
    """The first real images of each class, a row a class."""
    rows = []
    for label in range(min(max(dataset.num_classes, 1), CLASSES)):
        indices = (dataset.labels == label).nonzero()[:COLUMNS, 0]
        rows += _padded(to_pil(dataset.images[indices]))
    return make_grid(rows, columns=COLUMNS)


def generated_grid(gan: biggan.Gan) -> Image.Image:
    """Untruncated samples of the same classes, seed 0: what the model does at its most varied."""
    classes: list[int | None] = list(range(min(len(gan.class_names), CLASSES))) or [None]
    recipes = gan.recipes(classes, COLUMNS, truncation=None, seed=0)
    return make_grid(list(gan.draw(recipes)), columns=COLUMNS)


def side_by_side(left: Image.Image, right: Image.Image, gap: int = 8) -> Image.Image:
    """Two pictures on white."""
    size = (left.width + gap + right.width, max(left.height, right.height))
    both = Image.new("RGB", size, "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + gap, 0))
    return both


def read_metrics(run_dir: Path) -> list[dict[str, float]]:
    """The lines of `metrics.jsonl`, in the order of their steps."""
    text = (run_dir / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def draw_curves(lines: Sequence[dict[str, float]]) -> Image.Image:
    """Plots of the metrics over the steps, one below the other."""
    picture = Image.new("RGB", (_WIDTH, _HEIGHT * len(_CURVES)), "white")
    for i, (title, names) in enumerate(_CURVES):
        picture.paste(_plot(lines, title, names), (0, i * _HEIGHT))
    return picture


def _plot(lines: Sequence[dict[str, float]], title: str, names: Sequence[str]) -> Image.Image:
    picture = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    box = (_MARGIN, 24, _WIDTH - 12, _HEIGHT - 24)  # left, top, right, bottom
    draw.rectangle(box, outline="#999999")
    draw.text((_MARGIN, 6), title, fill="black")
    shown = [line for line in lines if all(name in line for name in names)]
    if not shown:
        return picture
    first, last = shown[0]["step"], shown[-1]["step"]
    values = [line[name] for line in shown for name in names]
    low, high = min(values), max(values)

    def point(step: float, value: float) -> tuple[float, float]:
        across = (step - first) / max(last - first, 1)
        up = (value - low) / (high - low) if high > low else 0.5
        return box[0] + across * (box[2] - box[0]), box[3] - up * (box[3] - box[1])

    for i, name in enumerate(names):
        points = [point(line["step"], line[name]) for line in shown]
        # A line needs two points; a run of one logged step has a line of no length.
        draw.line([*points, points[-1]], fill=_COLOURS[i], width=1)
        draw.text((_MARGIN + 160 * (i + 1), 6), name, fill=_COLOURS[i])
    draw.text((4, box[1]), f"{high:.3g}", fill="black")
    draw.text((4, box[3] - 12), f"{low:.3g}", fill="black")
    draw.text((box[0], box[3] + 6), f"step {first:,}", fill="black")
    draw.text((box[2], box[3] + 6), f"{last:,}", fill="black", anchor="ra")
    return picture


def _padded(pictures: list[Image.Image]) -> list[Image.Image]:
    """A full row: a class of few images ends in white."""
    if not pictures:
        raise biggan.InputError("a class has no real images to show")
    blank = Image.new(pictures[0].mode, pictures[0].size, "white")
    return [*pictures, *[blank] * (COLUMNS - len(pictures))]


def _count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def main() -> None:
    """Read the command line and write the card's pictures and facts."""
    parser = argparse.ArgumentParser(description="Make what a trained model's card shows.")
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--data", required=True, help="what it was trained on")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    arguments = parser.parse_args()
    config = load_recipe(arguments.run / "config.toml")
    dataset = load_dataset(
        arguments.data,
        config.generator.resolution,
        config.generator.image_channels,
        unconditional=config.unconditional,
    )
    make_card(arguments.run, dataset, arguments.out, {})
    print(arguments.out)


if __name__ == "__main__":
    try:
        main()
    except biggan.InputError as error:
        sys.exit(f"error: {error}")
