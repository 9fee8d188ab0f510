"""`biggan sample`: pictures of a class, as PNG files that say how they were made."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from biggan.cli import options
from biggan.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from biggan.gan import Gan
    from biggan.latents import NoiseKind
    from biggan.provenance import LatentProvenance, Provenance

    Picture = Provenance | LatentProvenance
    Plan = tuple[Gan, list[Picture], int | None]

_PATIENCE = timedelta(days=1)  # the fastest process waits for the slowest


@click.command
@options.model
@options.offline
@click.option(
    "--class",
    "classes",
    metavar="NAME|INDEX",
    multiple=True,
    help="A class; repeatable.  [default: all classes in turn]",
)
@click.option("-n", "--num", default=1, help="Number of images (of each given class).")
@click.option(
    "--truncation",
    type=options.TRUNCATION,
    default=0.4,
    help="Small for typical images, 1 for varied ones, none for untruncated noise.",
)
@click.option("--seed", default=0, help="Seed of the noise.")
@options.noise
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("samples"),
    help="Folder of the PNG files.",
)
@click.option(
    "--grid",
    is_flag=True,
    help="Write one grid.png instead of one file per image; grid-2.png if grid.png exists with "
    "other contents.",
)
@options.like
@options.device
@options.engine
@options.precision
@click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON list of the files with their provenance."
)
def command(
    classes: tuple[str, ...],
    num: int,
    truncation: float | None,
    seed: int,
    noise: NoiseKind,
    out: Path,
    grid: bool,
    like: Path | None,
    device: str | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Generate images of a class.

    \b
    Examples:
      biggan sample --class "red apple" --num 10 --truncation 0.4 --out pictures
      biggan sample --class three --class eight --num 5 --grid
      biggan sample --like pictures/fruits-032-red-apple-hub0.4-seed0-0003.png --out again
      torchrun --nproc-per-node 8 -m biggan sample -n 50000 --out pictures

    Every PNG contains its provenance; --like generates the image again.
    """
    options.share_processor()
    from biggan.atomic_write import make_folder
    from biggan.latents import check_truncation

    def plan(device: str | None) -> Plan:
        """The model, its pictures, and how many of them a grid's row has, if they make one."""
        options.check_writable(out)
        check_truncation(truncation, noise)
        planned, columns = ([], None) if like is None else _read_like(like)
        gan = options.load_gan(device=device, **how)
        if not planned:
            planned = [*gan.plan(classes or (None,), num, truncation, seed, noise=noise)]
        _ = gan.engine  # what cannot be had is refused before a folder is made
        if grid and columns is None:
            columns = 1 if like else num if len(classes) > 1 else min(num, 5)
        make_folder(out)
        return gan, planned, columns

    if os.environ.get("WORLD_SIZE", "1") == "1":
        gan, planned, columns = plan(device)
        pictures = options.progress(gan.draw(planned), len(planned), "picture")
        files = _write(pictures, planned, columns, out)
    else:
        planned, files = _sample_together(plan, device, out)
    if files:
        _report(files, planned, as_json=as_json)


def _read_like(path: Path) -> tuple[list[Picture], int | None]:
    """The provenance of the pictures in a PNG file; of a grid also its number of columns."""
    from biggan.provenance import (
        GridProvenance,
        LatentGridProvenance,
        LatentProvenance,
        Provenance,
        read_provenance,
    )

    if option := options.given_option(("classes", "num", "truncation", "seed", "noise")):
        raise InputError(f"--like takes all settings from the picture: omit {option}")
    wanted = read_provenance(path)
    if isinstance(wanted, GridProvenance):
        return list(wanted.pictures), wanted.columns
    if isinstance(wanted, LatentGridProvenance):
        return list(wanted.latents), wanted.columns
    if isinstance(wanted, Provenance | LatentProvenance):
        return [wanted], None
    raise InputError(f"{path} was made by biggan interpolate: use biggan interpolate --like")


def _sample_together(
    plan: Callable[[str | None], Plan], device: str | None, out: Path
) -> tuple[list[Picture], list[Path]]:
    """Make this process's part of the pictures, beside the other processes of torchrun.

    Returns:
        What was planned, and the files of all processes, once all are there; no files on the other
        processes than the first.
    """
    import torch

    from biggan.distributed import (
        gather,
        is_first,
        num_processes,
        own_device,
        own_range,
        process_group,
        raising_together,
    )

    # Joined on the CPU even if the networks are on GPUs: pictures meet there, if they meet at all.
    with process_group(torch.device("cpu"), _PATIENCE):
        signal.signal(signal.SIGTERM, _on_sigterm)
        with raising_together():
            gan, planned, columns = plan(
                str(own_device(torch.device(options.choose_device(device))))
            )
        part = own_range(len(planned))
        own_planned = planned[part.start : part.stop]
        bar = {"desc": f"process 1 of {num_processes()}", "disable": None if is_first() else True}
        pictures = options.progress(gan.draw(own_planned), len(part), "picture", **bar)
        if columns is None:
            written = gather(_write(pictures, own_planned, None, out))
            return planned, [file for files in written for file in files]
        everything = [picture for part in gather(list(pictures)) for picture in part]
        return planned, _write(everything, planned, columns, out) if is_first() else []


def _on_sigterm(_number: int, _frame: object) -> None:
    """What torchrun sends to the other processes when one has died, and to all when it is ended."""
    raise InputError(
        "torchrun stopped all processes because one failed or the run was stopped; run the same "
        "command again"
    )


def _write(
    pictures: Iterable[Image], planned: Sequence[Picture], columns: int | None, out: Path
) -> list[Path]:
    """Write a file for each picture, or one grid of all of them."""
    from biggan.images import make_grid, save_png
    from biggan.provenance import as_grid, file_stem

    if columns is None:
        files = []
        for picture, provenance in zip(pictures, planned, strict=True):
            files.append(options.unused_picture(out / f"{file_stem(provenance)}.png", provenance))
            save_png(picture, files[-1], provenance)
        return files
    grid = as_grid(columns, planned)
    image = make_grid(list(pictures), columns)
    # Named at the end: another command may have written its grid meanwhile.
    path = options.unused_picture(out / "grid.png", grid)
    save_png(image, path, grid)
    return [path]


def _report(files: list[Path], planned: list[Picture], *, as_json: bool) -> None:
    if not as_json:
        click.echo("\n".join(map(str, files)))
        return
    import json

    plain = [json.loads(provenance.to_json()) for provenance in planned]
    if len(files) < len(planned):  # a grid
        entries: list[dict[str, Any]] = [{"file": str(files[0]), "recipes": plain}]
    else:
        entries = [{"file": str(f), "recipe": r} for f, r in zip(files, plain, strict=True)]
    click.echo(json.dumps(entries, indent=2))
