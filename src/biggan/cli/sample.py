"""`biggan sample`: pictures of a class, as PNG files that say how they were made."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from biggan.cli import options
from biggan.errors import InputError, quoted

if TYPE_CHECKING:
    from PIL.Image import Image

    from biggan.directions import Directions
    from biggan.gan import Gan
    from biggan.latents import NoiseKind
    from biggan.provenance import LatentProvenance, Provenance

    Picture = Provenance | LatentProvenance
    Plan = tuple[Gan, list[Picture], "Output"]


class Output(NamedTuple):
    """Where pictures are written."""

    out: Path
    """A folder, or the one file."""
    ending: str
    columns: int | None
    """Of a grid; None for a file for each picture."""
    folders: list[str] | None
    """One for each class; None for none."""

    @property
    def file(self) -> Path | None:
        """The one file that `out` names; None for a folder."""
        return self.out if _ending_of(self.out) else None


_SETTINGS = ("classes", "num", "truncation", "seed", "noise")
_COLUMNS = 5  # of a grid


@click.command(context_settings={"allow_extra_args": True})
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
    type=options.PATH,
    default=Path("samples"),
    help="Folder of the files; for one grid or one image also a file, .png or .jpg, which is "
    "replaced.",
)
@click.option(
    "--sweep",
    metavar="T,T,...",
    help="Instead of --truncation: a grid with a row for each of these, as the paper's Figure 2 "
    "(2,1,0.5,0.04); 5 columns unless -n says otherwise, and --noise paper.",
)
@click.option(
    "--latents",
    metavar="FILE",
    multiple=True,
    type=options.PATH,
    help="Instead of a class: latents of biggan invert; repeatable.",
)
@click.option(
    "--direction",
    "directions",
    metavar="FILE:NUMBER=AMOUNT",
    multiple=True,
    help="Move the noise along a direction of biggan directions, by its number or name; sefa "
    "instead of a file: those of --method sefa --layers 0. Repeatable.",
)
@click.option(
    "--format",
    "ending",
    type=click.Choice(["png", "jpg"]),
    default="png",
    help="jpg: quality 95.",
)
@click.option(
    "--folders",
    is_flag=True,
    help="A folder for each class, as biggan train --data and biggan evaluate --images take them.",
)
@click.option(
    "--grid",
    is_flag=True,
    help="Write one grid.png instead of one file per image; grid-2.png if grid.png exists with "
    "other contents; or the file of --out.",
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
    sweep: str | None,
    latents: tuple[Path, ...],
    directions: tuple[str, ...],
    ending: str,
    folders: bool,
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
      biggan sample --class banana --class kiwi --num 5 --grid
      biggan sample --like pictures/fruits-032-red-apple-hub0.4-seed0-0003.png --out again
      biggan sample --class 3 --sweep 2,1.5,1,0.5,0.04 --out sweep.png
      biggan sample --class 3 --direction sefa:0=2.5
      biggan sample --class 3 --direction directions.safetensors:turn=2.5
      biggan sample -n 1000 --format jpg --folders --out generated
      torchrun --nproc-per-node 8 -m biggan sample -n 50000 --out pictures

    Every file contains its provenance; --like generates the image again.
    """
    if words := click.get_current_context().args:
        meant = shlex.join(["--class", " ".join(words)[:100]])
        raise InputError(f"{quoted(' '.join(words))} is no option: did you mean {meant}?")
    options.set_environment()
    from biggan.atomic_write import make_folder
    from biggan.devices import keep_freed_memory
    from biggan.latents import check_truncation

    def plan(device: str | None) -> Plan:
        """The model, its pictures, and where they are written."""
        is_file = _ending_of(out) is not None
        if not is_file and out.suffix.lower() in options.PICTURE_ENDINGS:
            raise InputError(
                f"cannot write {out}: a file ends in .png or .jpg, a folder in no such ending"
            )
        options.check_writable(out.parent if is_file else out)
        if is_file and out.is_dir():
            raise InputError(f"cannot write to {out}: it is a folder")
        if is_file and folders:
            raise InputError(
                f"--folders writes a file for each image: --out is a folder, not {out}"
            )
        if is_file and options.given_option(["ending"]) and _ending_of(out) != ending:
            raise InputError(f"{out} is no file of --format {ending}: omit one of them")
        check_truncation(truncation, noise)
        if latents and (option := options.given_option((*_SETTINGS, "sweep", "like"))):
            raise InputError(f"--latents takes all settings from the file: omit {option}")
        if sweep is not None and (option := options.given_option(("truncation", "folders"))):
            raise InputError(f"--sweep makes a grid of its own truncations: omit {option}")
        if grid and folders:
            raise InputError("--folders writes a file for each image: omit --grid")
        read = [_read_direction(text) for text in directions]
        planned, columns = ([], None) if like is None else _read_like(like)
        rows = [] if sweep is None else options.parse_truncations(sweep)
        gan = options.load_gan(device=device, **how)
        if latents:
            planned = _read_latents(gan, latents)
        elif sweep is not None:
            each = num if options.given_option(["num"]) else _COLUMNS
            columns = max(1, len(classes)) * each
            kind: NoiseKind = noise if options.given_option(["noise"]) else "paper"
            for row in rows:
                planned += gan.plan(classes or (None,), each, row, seed, noise=kind)
        elif not planned:
            planned = [*gan.plan(classes or (None,), num, truncation, seed, noise=noise)]
        if read:
            from biggan.directions import default_directions, plan_moved

            moves = [(found or default_directions(gan), moved) for found, moved in read]
            planned = [*plan_moved(gan, planned, moves)]
        names = _folders(gan, planned) if folders else None
        _ = gan.engine  # what cannot be had is refused before a folder is made
        keep_freed_memory()  # not before: what OpenVINO compiles with would be kept, too
        if grid and columns is None:
            several = len(classes) > 1
            columns = 1 if like else num if several else min(len(planned), _COLUMNS)
        if is_file and columns is None and len(planned) > 1:
            raise InputError(
                f"{out} is one file for {len(planned)} images: add --grid, or give a folder"
            )
        make_folder(out.parent if is_file else out)
        return gan, planned, Output(out, _ending_of(out) or ending, columns, names)

    if os.environ.get("WORLD_SIZE", "1") == "1":
        gan, planned, output = plan(device)
        pictures = options.progress(gan.draw(planned), len(planned), "picture")
        files = write_pictures(pictures, planned, output)
    else:
        from biggan.cli.torchrun import sample_together

        planned, files = sample_together(plan, device)
    if files:
        _report(files, planned, how["model"], as_json=as_json)


def _ending_of(out: Path) -> str | None:
    """The format of a file of this name; None for a folder."""
    return {".png": "png", ".jpg": "jpg", ".jpeg": "jpg"}.get(out.suffix.lower())


def _folders(gan: Gan, planned: Sequence[Picture]) -> list[str]:
    """The folder of each class."""
    from biggan.provenance import Provenance, class_folders

    if not gan.class_names:
        raise InputError(f"{gan.name} has no classes: omit --folders")
    if not all(isinstance(picture, Provenance) for picture in planned):
        raise InputError("images of latents and directions have no class: omit --folders")
    return class_folders(gan.class_names)


def _read_direction(text: str) -> tuple[Directions | None, dict[int | str, float]]:
    """Directions, and the amount of one of them, of a text such as "file.safetensors:3=2.0".

    None for the model's own, "sefa:3=2.0".
    """
    from biggan.directions import load_directions

    file, _, move = text.rpartition(":")
    direction, _, amount = move.rpartition("=")
    try:
        if not (file and direction):
            raise ValueError
        moved: dict[int | str, float] = {direction: float(amount)}
    except ValueError:
        raise InputError(
            "--direction is a file or sefa, a number or name, and an amount, such as "
            f"directions.safetensors:3=2.0, not {quoted(text)}"
        ) from None
    if file == "sefa":
        return None, moved
    directions = load_directions(file)
    directions.index(direction)
    return directions, moved


def _read_latents(gan: Gan, files: Sequence[Path]) -> list[Picture]:
    """The pictures of files of latents."""
    from biggan.inversion import load_latents
    from biggan.sampling import plan_latents

    planned: list[Picture] = []
    for file in files:
        found = load_latents(file)
        found.check_model(gan)
        name = found.name or file.stem
        names = [name] if len(found) == 1 else [f"{name}-{k:04d}" for k in range(len(found))]
        planned += plan_latents(gan, found.z, found.class_vectors, found.truncation, names)
    return planned


def _read_like(path: Path) -> tuple[list[Picture], int | None]:
    """The provenance of the pictures in a PNG file; of a grid also its number of columns."""
    from biggan.provenance import GridProvenance, LatentGridProvenance, LatentProvenance, Provenance
    from biggan.provenance_files import read_provenance

    if option := options.given_option((*_SETTINGS, "sweep")):
        raise InputError(f"--like takes all settings from the picture: omit {option}")
    wanted = read_provenance(path)
    if isinstance(wanted, GridProvenance):
        return list(wanted.pictures), wanted.columns
    if isinstance(wanted, LatentGridProvenance):
        return list(wanted.latents), wanted.columns
    if isinstance(wanted, Provenance | LatentProvenance):
        return [wanted], None
    raise InputError(f"{path} was made by biggan interpolate: use biggan interpolate --like")


def write_pictures(
    pictures: Iterable[Image], planned: Sequence[Picture], output: Output
) -> list[Path]:
    """Write a file for each picture, or one grid of all of them."""
    from biggan.atomic_write import make_folder
    from biggan.images import make_grid, save_jpeg, save_png
    from biggan.provenance import Provenance, as_grid, file_stem

    save = save_png if output.ending == "png" else save_jpeg
    if output.columns is None:
        files = []
        for picture, provenance in zip(pictures, planned, strict=True):
            folder = output.out
            if output.folders is not None and isinstance(provenance, Provenance):
                folder /= output.folders[provenance.class_index or 0]
                make_folder(folder)
            name = folder / f"{file_stem(provenance)}.{output.ending}"
            files.append(output.file or options.unused_picture(name, provenance))
            save(picture, files[-1], provenance)
        return files
    grid = as_grid(output.columns, planned)
    image = make_grid(list(pictures), output.columns)
    # Named at the end: another command may have written its grid meanwhile.
    path = output.file or options.unused_picture(output.out / f"grid.{output.ending}", grid)
    save(image, path, grid)
    return [path]


def _report(files: list[Path], planned: list[Picture], model: str | None, *, as_json: bool) -> None:
    if not as_json:
        click.echo("\n".join(map(str, files)))
        options.name_next("biggan", "sample", "--like", files[0], "--out", "again", model=model)
        return
    import json

    plain = [json.loads(provenance.to_json()) for provenance in planned]
    if len(files) < len(planned):  # a grid
        entries: list[dict[str, Any]] = [{"file": str(files[0]), "recipes": plain}]
    else:
        entries = [{"file": str(f), "recipe": r} for f, r in zip(files, plain, strict=True)]
    click.echo(json.dumps(entries, indent=2))
