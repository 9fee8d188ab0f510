"""`biggan data`: pack images once for training, check them, describe them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from biggan.cli import options

if TYPE_CHECKING:
    from biggan.data.dataset import Resize
    from biggan.data.packed import PackedHeader

_packed_argument = click.argument("packed", metavar="PACKED", type=options.PATH)


@click.group(invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Pack, verify and describe datasets.

    A packed dataset holds decoded images of one resolution and is memory-mapped.

    \b
    Examples:
      biggan data pack photos.zip photos-128 --resolution 128
      biggan data verify photos-128
      biggan train small-folder --data photos-128 --out runs/photos
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command.command
@click.argument("source", metavar="SOURCE", type=options.SOURCE)
@click.argument("out", metavar="OUT", type=options.PATH)
@click.option(
    "--resolution",
    type=click.IntRange(min=1),
    required=True,
    help="Width and height of the images in pixels.",
)
@click.option(
    "--channels", type=click.Choice(["1", "3"]), default="3", help="1 for grey, 3 for colour."
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Number of decoding threads.  [default: one per processor]",
)
@click.option("--unconditional", is_flag=True, help="Ignore classes.")
@options.label_column
@options.resize
@click.option("--strict", is_flag=True, help="Fail at a corrupt image instead of skipping it.")
def pack(
    source: str,
    out: Path,
    resolution: int,
    channels: str,
    workers: int | None,
    unconditional: bool,
    label_column: str | None,
    resize: Resize,
    strict: bool,
) -> None:
    """Pack the images of SOURCE into the folder OUT.

    SOURCE is a folder, .zip, .tar or .tgz of class folders, or of images with labels.csv,
    metadata.csv or metadata.jsonl; CIFAR's .tar.gz; MNIST's idx files; Hugging Face .parquet files
    or WebDataset .tar shards: one file, a folder of them, or a pattern in quotes. SET.zip::FOLDER
    is a folder inside of an archive, hf://datasets/owner/name a data set of the Hub. After an
    interruption the same command continues.

    \b
    Examples:
      biggan data pack photos photos-128 --resolution 128
      biggan data pack archive.zip::train photos-128 --resolution 128 --resize pad
      biggan data pack "data/train-*.parquet" cifar100 --resolution 32 --label-column coarse_label
      biggan data pack "train-{0000..0009}.tar" imagenet-256 --resolution 256 --workers 16
    """
    options.check_writable(out.parent)

    from biggan.data.packed import pack_dataset

    header = pack_dataset(
        source,
        out,
        resolution,
        int(channels),
        unconditional=unconditional,
        label_column=label_column,
        resize=resize,
        strict=strict,
        workers=workers,
    )
    click.echo(_summary(header), err=True)
    click.echo(out)
    _name_training(out)


@command.command
@_packed_argument
def verify(packed: Path) -> None:
    """Verify all checksums of a packed dataset.

    \b
    Example:
      biggan data verify photos-128
    """
    from biggan.data.packed import verify as verify_packed

    header = verify_packed(packed)
    click.echo(f"{packed} is whole: {_summary(header)}")
    _name_training(packed)


@command.command
@_packed_argument
@options.as_json
def info(packed: Path, as_json: bool) -> None:
    """Describe a packed dataset without reading its images.

    \b
    Examples:
      biggan data info photos-128
      biggan data info photos-128 --json
    """
    from biggan.data.packed import read_header

    header = read_header(packed)
    if as_json:
        about = {
            "images": header.num_images,
            "channels": header.image_channels,
            "resolution": header.resolution,
            "bytes": header.num_bytes,
            "source": header.source,
            "skipped": header.skipped,
            "fingerprint": header.fingerprint,
            "classes": dict(zip(header.class_names, header.histogram, strict=True)),
        }
        click.echo(json.dumps(about, indent=2, ensure_ascii=False))
        return
    click.echo(_summary(header))
    click.echo(f"{header.num_bytes / 2**20:.1f} MiB, fingerprint {header.fingerprint}")
    if header.skipped:
        click.echo(f"skipped {len(header.skipped)}: {', '.join(header.skipped)}")
    for name, count in zip(header.class_names, header.histogram, strict=True):
        click.echo(f"{count:8}  {name}")
    _name_training(packed)


def _name_training(packed: Path) -> None:
    options.name_next("biggan", "train", "small-folder", "--data", packed, "--dry-run")


def _summary(header: PackedHeader) -> str:
    classes = f"{len(header.class_names)} classes" if header.class_names else "no classes"
    colour = "colour" if header.image_channels == 3 else "grey"
    size = f"{header.resolution} px, {colour}"
    return f"{header.num_images} images of {header.source}, {size}, {classes}"
