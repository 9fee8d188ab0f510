"""Models as they are published: a folder, or a repository of the Hugging Face Hub.

model.safetensors           the network, with all that is needed to rebuild it
discriminator.safetensors   the discriminator of the same training, if it is given
config.json                 its shape; the Hub counts downloads by this file
README.md                   the model card
samples.png                 pictures of several classes, with their provenance
recipe.toml                 the recipe of the training, if the model has one
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from biggan._version import __version__
from biggan.atomic_write import make_folder, write_atomically
from biggan.errors import InputError
from biggan.hub import check_push, is_dataset, push_folder
from biggan.images import make_grid, save_png
from biggan.models import Discriminator, Generator
from biggan.provenance import as_grid
from biggan.sampling import draw_pictures, plan_pictures
from biggan.toml import to_toml
from biggan.weights.files import Description, save_network

if TYPE_CHECKING:
    from biggan.gan import Gan

WEIGHTS, DISCRIMINATOR = "model.safetensors", "discriminator.safetensors"
_CARD, _CONFIG, _RECIPE, _SAMPLES = "README.md", "config.json", "recipe.toml", "samples.png"
_ROWS, _COLUMNS = 6, 4  # of the card's picture
_TRUNCATION = 0.5
_CLASSES_NAMED = 20
# Of the Hub's identifiers those that are likely; others are "other", with an identifier.
_LICENCES = (
    *("apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0"),
    *("cc-by-nc-sa-4.0", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "openrail", "unlicense"),
)
SCORES = {
    "fid": "FID",
    "is": "Inception Score",
    "kid": "KID",
    "frechet_distance": "Fréchet distance",
    "classifier_score": "classifier score",
}
"""Figures of an evaluation, by their keys."""


def save_pretrained(
    gan: Gan,
    folder: str | Path,
    *,
    discriminator: Discriminator | None = None,
    repo: str = "OWNER/NAME",
) -> Path:
    """Write a model, its card and pictures of it to a folder, as `push_to_hub` publishes them.

    Args:
        gan: The model.
        folder: Created if it does not exist; files of the same names are replaced.
        discriminator: That of the same training, for others to train on.
        repo: The repository that the card's example loads.

    Returns:
        The folder.

    Raises:
        InputError: The folder has a discriminator or a recipe that would not be replaced.
    """
    out = Path(folder).expanduser()
    written = {DISCRIMINATOR: discriminator, _RECIPE: gan.description.training.get("recipe")}
    for name, content in written.items():
        if content is None and (out / name).exists():
            raise InputError(
                f"{out} has the {name} of another model: remove it, or give another folder"
            )
    make_folder(out)
    count = len(gan.class_names)
    rows: list[int | None] = [count * row // min(_ROWS, count) for row in range(min(_ROWS, count))]
    planned = plan_pictures(gan, rows or [None], _COLUMNS, _TRUNCATION, 0)
    drawn = draw_pictures(gan, planned)
    bar = tqdm(drawn, "pictures", len(planned), leave=False, delay=2, disable=None)
    pictures = make_grid(list(bar), _COLUMNS)
    save_png(pictures, out / _SAMPLES, as_grid(_COLUMNS, planned))
    if discriminator is not None:
        save_network(out / DISCRIMINATOR, discriminator, gan.description)
    save_network_pretrained(gan.generator, gan.description, out, repo)
    return out


def push_to_hub(
    gan: Gan, repo: str, *, discriminator: Discriminator | None = None, private: bool = False
) -> str:
    """Publish a model on the Hugging Face Hub; needs a login (`hf auth login`) or HF_TOKEN.

    Args:
        gan: The model.
        repo: The repository, "owner/name"; created if it does not exist.
        discriminator: See `save_pretrained`.
        private: Create a repository that only its owner can see.

    Returns:
        The repository's address.

    Raises:
        InputError: The Hub refuses, or cannot be reached.
    """
    check_push(repo)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(gan, folder, discriminator=discriminator, repo=repo)
        return push_folder(Path(folder), repo, private=private)


def save_network_pretrained(
    network: Generator | Discriminator, description: Description, folder: Path, repo: str
) -> None:
    """Write a network and its card to a folder, without pictures; see `save_pretrained`."""
    make_folder(folder)
    is_generator = isinstance(network, Generator)
    sha256 = save_network(folder / WEIGHTS, network, description)
    config = {
        "library_name": "biggan",
        "biggan_version": __version__,
        "model_type": network.config.family,
        "kind": "generator" if is_generator else "discriminator",
        "name": description.name,
        "sha256": sha256,
        **network.config.to_dict(),
        "class_names": list(description.class_names),
    }
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / _CONFIG, text.encode())
    recipe = description.training.get("recipe")
    if isinstance(recipe, Mapping):
        write_atomically(folder / _RECIPE, to_toml(recipe).encode())
    about = {**config, "parameters": sum(p.numel() for p in network.parameters())}
    about["discriminator"] = is_generator and (folder / DISCRIMINATOR).exists()
    about["recipe"] = isinstance(recipe, Mapping)
    write_atomically(folder / _CARD, model_card(description, about, repo).encode())


def model_card(description: Description, about: Mapping[str, Any], repo: str) -> str:
    """A model's card, as Markdown with a YAML head.

    Args:
        description: The model.
        about: The contents of config.json; "parameters", a number; whether there are a
            "discriminator" and a "recipe".
        repo: The repository that the example loads.
    """
    training, is_generator = description.training, about["kind"] == "generator"
    data = str(training.get("data", ""))
    scores = _scores(training)
    licence = description.licence.strip().lower()
    head: dict[str, Any] = {"library_name": "biggan"}
    if licence:
        head["license"] = licence if licence in _LICENCES else "other"
        if licence not in _LICENCES:
            words = re.findall(r"[a-z0-9.]+", licence)
            head["license_name"] = "-".join(words)[:100] or "other"
    if is_generator:
        head["pipeline_tag"] = "unconditional-image-generation"
    head["tags"] = sorted({"biggan", "gan", "image-generation", about["model_type"]})
    if scores:
        head["metrics"] = [key for key in training["evaluation"]["scores"] if key in SCORES]
    if is_dataset(data):
        head["datasets"] = ["/".join(data.partition("datasets/")[2].split("@")[0].split("/")[:2])]
    size, classes = about["resolution"], description.class_names
    family = "BigGAN-deep" if about["model_type"] == "biggan-deep" else "BigGAN"
    of = f"{len(classes)} classes" if classes else "no classes"
    facts = {
        "Model": f"{family} {about['kind']}, {size}x{size} pixels, {of}",
        "Parameters": f"{about['parameters']:,}",
        "Source": description.source,
        "Licence": description.licence or "not stated",
        "Training data": f"{data}, {training['images']:,} images" if "images" in training else data,
        "Training": f"{training['step']:,} steps" if "step" in training else "",
        "Weights": str(training.get("weights", "")),
        "BatchNorm statistics": str(training.get("statistics", "")) if is_generator else "",
        "sha256": f"`{about['sha256']}`",
    }
    parts = [
        f"---\n{_yaml(head)}---",
        f"# {_plain(description.name)}",
        *[f"![Pictures of {min(_ROWS, len(classes)) or 'one'} classes]({_SAMPLES})"] * is_generator,
        _table({name: _plain(text) for name, text in facts.items() if text}),
        "## Use",
        "    pip install biggan",
        _example(is_generator, classes, repo),
    ]
    if about["discriminator"]:
        parts.append(
            f"`{DISCRIMINATOR}` is the discriminator of the same training: "
            f'`biggan.load_discriminator("hf://{repo}")`.'
        )
    if classes:
        named = ", ".join(map(_plain, classes[:_CLASSES_NAMED]))
        more = f" and {len(classes) - _CLASSES_NAMED} more (`config.json`)"
        parts += ["## Classes", named + more * (len(classes) > _CLASSES_NAMED)]
    if is_generator:
        parts += [
            "## Figures",
            scores or "Not measured. `biggan evaluate` measures FID and others.",
        ]
    if about["recipe"]:
        parts += [
            "## Recipe",
            f"`biggan train {_RECIPE} --data DATA --out RUN` trains with the settings of "
            f"[{_RECIPE}]({_RECIPE}).",
        ]
    return "\n\n".join(parts) + "\n"


def _example(is_generator: bool, classes: tuple[str, ...], repo: str) -> str:
    if not is_generator:
        return (
            "```python\nimport biggan\n\n"
            f'discriminator = biggan.load_discriminator("hf://{repo}")\n```'
        )
    of = f"{json.dumps(classes[0], ensure_ascii=False)}, " if classes else ""
    return (
        "```python\nimport biggan\n\n"
        f'gan = biggan.Gan.from_pretrained("{repo}")\n'
        f'gan.sample({of}num=4, truncation={_TRUNCATION})[0].save("picture.png")\n```'
    )


def measured(training: Mapping[str, Any]) -> tuple[dict[str, float], str]:
    """The figures that the training kept with its best generator, and what decides them."""

    def part(of: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = of.get(key)
        return value if isinstance(value, Mapping) else {}

    evaluation = part(training, "evaluation")
    scores, num = part(evaluation, "scores"), evaluation.get("num")
    named = ((SCORES[key], value) for key, value in scores.items() if key in SCORES)
    figures = {name: value for name, value in named if isinstance(value, int | float)}
    of = [f"{num:,} untruncated images"] if isinstance(num, int) else []
    for key, words in (("reference", "against"), ("extractor", "features of")):
        if name := part(evaluation, key).get("name"):
            of.append(f"{words} {name}")
    return figures, ", ".join(of)


def _scores(training: Mapping[str, Any]) -> str:
    """The figures of `measured` as a table; empty without any."""
    figures, of = measured(training)
    if not figures:
        return ""
    return f"{_plain(of)}:\n\n{_table({name: f'{value:.4g}' for name, value in figures.items()})}"


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in rows.items())])


def _yaml(values: Mapping[str, Any]) -> str:
    """Texts and lists of texts as YAML, of which JSON's strings are a part."""
    lines = []
    for key, value in values.items():
        if isinstance(value, list):
            lines += [f"{key}:", *(f"- {json.dumps(text, ensure_ascii=False)}" for text in value)]
        else:
            lines.append(f"{key}: {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text of a file in a table of Markdown: one line, without HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
