"""`biggan sample`: pictures of a class, as PNG files that say how they were made."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

from biggan.atomic_write import make_folder
from biggan.cli.options import (
    TruncationType,
    check_alone_with_like,
    check_writable,
    choose_device,
    device_option,
    engine_options,
    like_option,
    model_option,
    noise_option,
    offline_option,
    share_processor,
    unused_picture,
)
from biggan.errors import InputError

if TYPE_CHECKING:
    from biggan.gan import Gan
    from biggan.inference import EngineName, Precision
    from biggan.latents import NoiseKind
    from biggan.provenance import Provenance

_PATIENCE = timedelta(days=1)  # the fastest process waits for the slowest


@click.command
@model_option
@offline_option
@click.option(
    "--class",
    "classes",
    metavar="NAME|INDEX",
    multiple=True,
    help="A class; may be given several times. All classes in turn if left out.",
)
@click.option("-n", "--num", default=1, show_default=True, help="Pictures (of each class given).")
@click.option(
    "--truncation",
    type=TruncationType(),
    default=0.4,
    show_default=True,
    help="Small for typical pictures, 1 for varied ones, none for untruncated noise.",
)
@click.option("--seed", default=0, show_default=True, help="The same seed, the same pictures.")
@noise_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("samples"),
    show_default=True,
    help="Folder for the PNG files.",
)
@click.option(
    "--grid",
    is_flag=True,
    help="Write one grid.png instead of a file a picture; grid-2.png if that shows something else.",
)
@like_option
@device_option
@engine_options
@click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON list of files with their provenance."
)
def command(
    model: str | None,
    offline: bool,
    classes: tuple[str, ...],
    num: int,
    truncation: float | None,
    seed: int,
    noise: NoiseKind,
    out: Path,
    grid: bool,
    like: Path | None,
    device: str | None,
    engine: EngineName,
    precision: Precision,
    as_json: bool,
) -> None:
    """Make pictures of a class.

    \b
    Examples:
      biggan sample --class "red apple" --num 10 --truncation 0.4 --out pictures
      biggan sample --class three --class eight --num 5 --grid
      biggan sample --like pictures/fruits-032-red-apple-hub0.4-seed0-0003.png --out again
      torchrun --nproc-per-node 8 -m biggan sample -n 50000 --out pictures

    Every PNG says in its metadata how it was made, and --like makes it again.
    """
    share_processor()
    import torch

    from biggan.distributed import (
        is_first,
        num_processes,
        own_device,
        process_group,
        raising_together,
    )
    from biggan.gan import load
    from biggan.latents import check_truncation

    # Joined on the CPU even if the networks are on GPUs: pictures meet there, if they meet at all.
    with process_group(torch.device("cpu"), _PATIENCE):
        if num_processes() > 1:
            signal.signal(signal.SIGTERM, _on_sigterm)
        with raising_together():
            check_writable(out)
            check_truncation(truncation, noise)
            planned, columns = ([], None) if like is None else _read_like(like)
            own = own_device(torch.device(choose_device(device)))
            gan = load(model, device=str(own), offline=offline, engine=engine, precision=precision)
            if not planned:
                planned = gan.plan(classes or (None,), num, truncation, seed, noise=noise)
            _ = gan.engine  # what cannot be had is refused before a folder is made
            if grid and columns is None:
                columns = _columns(classes, num) if like is None else 1
            make_folder(out)
        files = _draw(gan, planned, columns, out)
        first = is_first()
    if first:
        _report(files, planned, as_json=as_json)


def _on_sigterm(_number: int, _frame: FrameType | None) -> None:
    """What torchrun sends to the other processes when one has died, and to all when it is ended."""
    raise InputError(
        "torchrun ends all processes: one has died, or somebody stops the run; give the same "
        "command again"
    )


def _read_like(path: Path) -> tuple[list[Provenance], int | None]:
    """The provenance of the pictures in a PNG file; of a grid also its number of columns."""
    from biggan.provenance import GridProvenance, Provenance, read_provenance

    check_alone_with_like("classes", "num", "truncation", "seed", "noise")
    wanted = read_provenance(path)
    if isinstance(wanted, GridProvenance):
        return list(wanted.pictures), wanted.columns
    if isinstance(wanted, Provenance):
        return [wanted], None
    raise InputError(f"{path} is of biggan interpolate, which makes it again with --like")


def _draw(gan: Gan, planned: list[Provenance], columns: int | None, out: Path) -> list[Path]:
    """Make this process's part of the pictures; with columns, one grid of all of them.

    Returns:
        The files of all processes, once all are there.
    """
    from biggan.distributed import gather, is_first, num_processes, own_range, raising_together
    from biggan.images import make_grid, save_png
    from biggan.provenance import GridProvenance, file_stem

    own = own_range(len(planned))
    pictures = tqdm(
        gan.draw(planned[own.start : own.stop]),
        desc=f"process 1 of {num_processes()}" if num_processes() > 1 else None,
        total=len(own),
        unit="picture",
        delay=2,
        disable=None if is_first() else True,
    )
    if columns is None:
        with raising_together():
            files = [
                unused_picture(out / f"{file_stem(provenance)}.png", provenance)
                for provenance in planned
            ]
        for i, picture in zip(own, pictures, strict=True):
            save_png(picture, files[i], planned[i])
        gather(None)  # waits for all
        return files
    parts = gather(list(pictures))
    grid = GridProvenance(columns, tuple(planned))
    # Named at the end: another command may have written its grid meanwhile.
    path = unused_picture(out / "grid.png", grid)
    if is_first():
        save_png(make_grid([picture for part in parts for picture in part], columns), path, grid)
    return [path]


def _columns(classes: Sequence[str], num: int) -> int:
    return num if len(classes) > 1 else min(num, 5)


def _report(files: list[Path], planned: list[Provenance], *, as_json: bool) -> None:
    if not as_json:
        for path in files:
            click.echo(path)
        return
    plain = [json.loads(provenance.to_json()) for provenance in planned]
    if len(files) < len(planned):  # a grid
        click.echo(json.dumps([{"file": str(files[0]), "recipes": plain}], indent=2))
        return
    entries = [{"file": str(f), "recipe": r} for f, r in zip(files, plain, strict=True)]
    click.echo(json.dumps(entries, indent=2))
