"""`biggan invert`: the noise and class vector of pictures."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from biggan.cli import options
from biggan.errors import InputError

if TYPE_CHECKING:
    from biggan.gan import Gan
    from biggan.inversion import Latents, Metric

_LEAST_FOR_LPIPS = 64  # pixels a side
_PAIRS = 5  # a row of the sheet


@click.command
@click.argument("images", nargs=-1, required=True, type=options.PATH)
@options.model
@options.offline
@click.option(
    "--class",
    "class_",
    metavar="NAME|INDEX",
    help="The class of all pictures.  [default: it is searched for]",
)
@click.option(
    "--truncation",
    type=options.TRUNCATION,
    default=1.0,
    help="Bounds the noise and chooses the statistics; none for untruncated noise.",
)
@click.option(
    "--fit", is_flag=True, help="Crop to a square, resize and convert pictures, as in training."
)
@click.option(
    "--features",
    type=click.Choice(["auto", "lpips", "discriminator", "none"]),
    default="auto",
    help="What is compared beside pixels at all scales; auto: LPIPS if it is installed, else the "
    "discriminator of a bundled model or run folder, else nothing.",
)
@click.option("--starts", default=12, help="Points that a search starts from.")
@click.option("--steps", default=220, help="Gradient steps of a search.")
@click.option("--seconds", default=300.0, help="Time limit for a picture, and for the starts.")
@click.option("--seed", default=0, help="Seed of the starts.")
@click.option(
    "--out",
    type=options.FOLDER,
    default=Path("inverted"),
    help="Folder of the latents and the reconstructions.",
)
@click.option(
    "--sheet",
    metavar="PNG",
    type=options.FILE,
    help="Draw each picture with its reconstruction on the right.",
)
@options.device
@options.as_json
def command(
    images: tuple[Path, ...],
    model: str | None,
    offline: bool,
    class_: str | None,
    truncation: float | None,
    fit: bool,
    features: str,
    starts: int,
    steps: int,
    seconds: float,
    seed: int,
    out: Path,
    sheet: Path | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Find the noise and class vector of pictures.

    Writes for each picture NAME.safetensors with the latents, and NAME.png, what the model makes of
    them. The same command goes on where it was interrupted: at the first picture without latents.

    \b
    Examples:
      biggan invert apple.png --out inverted
      biggan invert photos/*.jpg --fit --model runs/pets --truncation 0.8
      biggan sample --latents inverted/apple.safetensors
    """
    options.set_environment()
    options.check_writable(out)
    if sheet is not None:
        options.check_writable(sheet.parent)
        if sheet.suffix.lower() != ".png":
            raise InputError(f"{sheet} must end in .png")
        if any(options.is_same_file(sheet, path) for path in images):
            raise InputError(f"{sheet} is one of the pictures: choose another --sheet")
    import torch

    from biggan.atomic_write import make_folder
    from biggan.devices import keep_freed_memory
    from biggan.images import make_grid, save_png, to_pil
    from biggan.inversion import Inverter, load_latents, read_picture, save_latents
    from biggan.sampling import plan_latents

    gan = options.load_gan(model, device=device, offline=offline, engine="pytorch")
    keep_freed_memory()
    pictures = [read_picture(path, gan, fit=fit) for path in images]
    compared, metric = _metric(features, model, gan, offline=offline)
    inverter = Inverter(
        gan,
        class_,
        truncation,
        features=metric,
        starts=starts,
        steps=steps,
        seconds=seconds,
        seed=seed,
    )
    settings = {
        "class": None if class_ is None else gan.class_index(class_),
        "features": compared,
        "starts": starts,
        "steps": steps,
        "seconds": seconds,
        "seed": seed,
    }
    make_folder(out)
    entries, made = [], []
    for path, picture in zip(images, pictures, strict=True):
        digest = hashlib.sha256(picture.numpy().tobytes()).hexdigest()
        asked = {"picture": digest, "settings": settings}

        def is_same(file: Path, asked: dict[str, Any] = asked) -> bool:
            try:
                found = load_latents(file)
            except InputError:
                return False
            same = (found.sha256, found.truncation) == (gan.sha256, truncation)
            return same and asked.items() <= found.details.items()

        file = options.unused_name(out / f"{path.stem}.safetensors", is_same)
        if not file.is_file():
            began = time.monotonic()
            found = inverter.invert(picture, path.stem)
            took = {"seconds": round(time.monotonic() - began, 1)}
            found = dataclasses.replace(found, details={**found.details, **asked, **took})
            save_latents(found, file)
        found = load_latents(file)
        vectors = found.class_vectors
        [provenance] = plan_latents(gan, found.z, vectors, found.truncation, [found.name])
        png = options.unused_picture(out / f"{file.stem}.png", provenance)
        if not png.is_file():
            save_png(next(gan.draw([provenance])), png, provenance)
        made.append(provenance)
        entries.append(_entry(path, file, png, found))
        if not as_json:
            click.echo(_line(entries[-1]))
    if sheet is not None:
        make_folder(sheet.parent)
        both = zip(to_pil(torch.stack(pictures)), gan.draw(made), strict=True)
        columns = 2 * min(_PAIRS, len(pictures))
        save_png(make_grid([image for pair in both for image in pair], columns), sheet)
    if as_json:
        click.echo(json.dumps(entries, indent=2))
        return
    if sheet is not None:
        click.echo(sheet)
    options.name_next("biggan", "sample", "--latents", entries[0]["latents"], model=model)


def _metric(
    features: str, model: str | None, gan: Gan, *, offline: bool
) -> tuple[str, Metric | None]:
    """What is compared beside the pyramid: its name, and the function."""
    from biggan.inversion import discriminator_metric, lpips_metric
    from biggan.weights.files import BUNDLED
    from biggan.weights.load import load_network

    is_large = gan.config.resolution >= _LEAST_FOR_LPIPS
    if features == "lpips" and not is_large:
        raise InputError(f"LPIPS needs images of at least {_LEAST_FOR_LPIPS} pixels a side")
    if features == "lpips" or (features == "auto" and is_large and find_spec("lpips")):
        return "lpips", lpips_metric()
    word = BUNDLED[0] if model is None else model
    if features == "discriminator":
        return features, discriminator_metric(
            load_network(word, "discriminator", offline=offline).network
        )
    if features == "auto" and (word in BUNDLED or Path(word).is_dir()):
        try:
            return "discriminator", discriminator_metric(
                load_network(word, "discriminator").network
            )
        except InputError:  # it has none
            pass
    return "none", None


def _entry(path: Path, file: Path, png: Path, found: Latents) -> dict[str, Any]:
    keys = ("class_index", "class_name", "psnr", "distances", "seconds")
    about = {key: found.details[key] for key in keys}
    return {"picture": str(path), "latents": str(file), "image": str(png), **about}


def _line(entry: dict[str, Any]) -> str:
    name = entry["class_name"] or ""
    distances = "  ".join(f"{key} {value:.4f}" for key, value in entry["distances"].items())
    return f"{entry['latents']}  {name}  {entry['psnr']:.1f} dB  {distances}"
