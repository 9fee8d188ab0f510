"""`biggan classifier`: train a classifier on the data at hand, as a feature extractor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from biggan.cli import options
from biggan.errors import InputError

if TYPE_CHECKING:
    from biggan.data import ImageDataset
    from biggan.data.dataset import Resize


@click.command
@click.argument("data", metavar="DATA", type=options.SOURCE)
@click.option(
    "--out", required=True, metavar="FILE.safetensors", type=options.FILE, help="The file to write."
)
@click.option(
    "--resolution",
    type=click.IntRange(min=1),
    help="Side of the images in pixels.  [default: 32 for `digits`; else the size of the images, "
    "if all are squares of one size]",
)
@click.option(
    "--channels",
    type=click.Choice(["1", "3"]),
    help="1 for grey, 3 for colour.  [default: those of packed data; 1 for `digits`; else 3]",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Training steps with batches of 64 images.  [default: 10 epochs, at least 300]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    help="Seed of the held-out images and of all other random numbers.",
)
@click.option(
    "--flip/--no-flip",
    default=None,
    help="Mirror half of the images, and average the features of an image and its mirror image.  "
    "[default: yes, except for `digits`]",
)
@click.option(
    "--width",
    type=click.IntRange(min=1),
    help="Channels of the first stage; the features are four times as wide.  [default: half the "
    "resolution, from 16 to 64]",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    help="Precision of training; bfloat16 is faster on GPUs, and on CPUs with AMX or AVX-512 BF16.",
)
@options.label_column
@options.resize
@options.as_json
@options.device
def command(
    data: str,
    out: Path,
    resolution: int | None,
    channels: str | None,
    steps: int | None,
    seed: int,
    flip: bool | None,
    width: int | None,
    precision: Literal["float32", "bfloat16"],
    label_column: str | None,
    resize: Resize,
    as_json: bool,
    device: str | None,
) -> None:
    """Train a classifier as a feature extractor for evaluate.

    DATA is a packed dataset, `digits`, or what `biggan data pack` packs. A tenth of each class is
    held out; the accuracy on these images is printed. After an interruption the same command
    continues.

    \b
    Examples:
      biggan classifier digits --out digits-classifier.safetensors
      biggan classifier cifar10-train.zip --resolution 32 --out cifar10-classifier.safetensors
      biggan classifier photos-128 --steps 20000 --device cuda --out photos-classifier.safetensors
    """
    if out.suffix != ".safetensors":
        raise InputError(f"{out} must end in .safetensors")
    options.check_writable(out.parent)
    options.set_environment()

    from biggan.classifier import train_classifier
    from biggan.data import DIGITS
    from biggan.devices import find_device, keep_freed_memory

    keep_freed_memory()
    device = str(find_device(device))
    dataset = _load(data, resolution, channels, label_column, resize)
    classifier = train_classifier(
        dataset,
        out,
        steps=steps,
        seed=seed,
        flip=data != DIGITS if flip is None else flip,
        width=width,
        precision=precision,
        device=device,
    )
    about = {
        "file": str(out),
        "name": classifier.name,
        "sha256": classifier.sha256,
        "resolution": classifier.config.resolution,
        "channels": classifier.config.image_channels,
        "classes": classifier.num_classes,
        "features": classifier.dim,
        **classifier.training,
    }
    if as_json:
        click.echo(json.dumps(about, indent=2, ensure_ascii=False))
        return
    click.echo(
        f"{out}: {classifier.name}, {about['steps']:,} steps, {about['accuracy']:.2%} of "
        f"{about['held_out']:,} held-out images correct"
    )
    options.name_next("biggan", "evaluate", "--data", data, "--extractor", out)


def _load(
    data: str,
    resolution: int | None,
    channels: str | None,
    label_column: str | None,
    resize: Resize,
) -> ImageDataset:
    """Load the data in the size that was asked for, or that they have anyway."""
    from biggan.data import DIGITS, load_dataset
    from biggan.data.packed import is_packed, read_header
    from biggan.evaluation.reference import common_resolution

    path = Path(data).expanduser()
    own_channels = 3
    if data == DIGITS:
        own_channels = 1
        resolution = resolution or 32
    elif is_packed(path):
        own_channels = read_header(path).image_channels
    return load_dataset(
        data,
        resolution or common_resolution(data),
        int(channels) if channels else own_channels,
        label_column=label_column,
        resize=resize,
    )
