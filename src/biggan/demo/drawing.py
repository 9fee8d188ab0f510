"""From provenance to pictures, their files, and the words beside them. No Gradio here.

What is written to a file is the grid that `biggan sample --grid` and `biggan interpolate` write, to
the bit: to enlarge small pictures for the screen is left to the page and the notebook.
"""

from __future__ import annotations

import html
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from biggan.classes import class_choices
from biggan.demo.forms import SheetProvenance
from biggan.demo.request_queue import Job
from biggan.gan import Gan
from biggan.images import make_grid, to_png
from biggan.provenance import GridProvenance, MorphProvenance, VideoProvenance
from biggan.video import make_frame, save_video
from biggan.weights.published import BUNDLED


def draw_sheet(gan: Gan, sheet: SheetProvenance) -> Iterator[Image.Image]:
    """Make the pictures of a sheet one after the other, row by row; raises as `Gan.draw`."""
    if isinstance(sheet, GridProvenance):
        return gan.draw(sheet.pictures)
    return gan.draw_morph(sheet)


def draw_grid(gan: Gan, sheet: SheetProvenance) -> Image.Image:
    """Make the whole picture; raises as `draw_sheet`."""
    return make_grid(list(draw_sheet(gan, sheet)), columns(sheet))


def draw_png(gan: Gan, sheet: SheetProvenance, job: Job) -> bytes:
    """Make the file of a picture with its provenance inside, as a job of the request queue."""
    for picture in draw_sheet(gan, sheet):
        job.add(picture)
    return to_png(make_grid(job.parts, columns(sheet)), sheet)


def draw_film(
    gan: Gan, video: VideoProvenance, files: Sequence[Path], report: Callable[[int], object]
) -> None:
    """Write the files of a video.

    Args:
        gan: The model.
        video: What is shown.
        files: The first is a WebP, which is lossless: the frames of the others are read from it.
        report: Called with the number of frames that are drawn, again and again. If it raises, no
            file is left that was begun.

    Raises:
        InputError: The model cannot make it, or a file cannot be written.
    """

    def drawn() -> Iterator[Image.Image]:
        for number, pictures in enumerate(gan.draw_video(video), 1):
            report(number)
            yield make_frame(pictures)

    def copied() -> Iterator[Image.Image]:
        with Image.open(files[0]) as webp:
            for number in range(getattr(webp, "n_frames", 1)):
                report(video.frames)
                webp.seek(number)
                yield webp.convert("RGB")

    for file in files:
        frames = drawn() if file == files[0] else copied()
        save_video(frames, file, video.fps, provenance=video)


def unfinished(done: Sequence[Image.Image], sheet: SheetProvenance) -> Image.Image:
    """The RGBA grid, transparent where its pictures are missing; one must be there."""
    missing = Image.new("RGBA", done[0].size)
    shown = [picture.convert("RGBA") for picture in done]
    return make_grid([*shown, *[missing] * (count(sheet) - len(done))], columns(sheet))


def count(sheet: SheetProvenance) -> int:
    """Pictures in the grid."""
    return len(sheet.pictures) if isinstance(sheet, GridProvenance) else sheet.num * sheet.steps


def columns(sheet: SheetProvenance) -> int:
    """Pictures in a row."""
    return sheet.columns if isinstance(sheet, GridProvenance) else sheet.steps


# The words beside a picture.


def caption(gan: Gan, sheet: SheetProvenance, file: str, model: str | None) -> str:
    """The shell command that makes a picture again, as HTML.

    Args:
        gan: The model that made it.
        sheet: What it shows.
        file: Its name when it is downloaded.
        model: What `biggan sample --model` takes; None if visitors may not see it.
    """
    if model is None:
        return ""
    words: list[Any] = [] if model == BUNDLED[0] else ["--model", model]
    entries, where, verb = class_choices(gan.class_names), "In a shell", "sample"
    if isinstance(sheet, MorphProvenance):
        verb = "interpolate"
        if sheet.class_a is not None and sheet.class_b is not None:
            words += ["--from", entries[sheet.class_a], "--to", entries[sheet.class_b]]
        words += ["--num", sheet.num, "--steps", sheet.steps, "--truncation", sheet.truncation]
        words += ["--seed-a", sheet.seed_a, "--seed-b", sheet.seed_b]
    elif _is_sweep(sheet):
        words += ["--grid", "--like", file]
        where = "In a shell, in the folder of the downloaded picture"
    else:
        first = sheet.pictures[0]
        if first.class_index is not None and len({p.class_index for p in sheet.pictures}) == 1:
            words += ["--class", entries[first.class_index]]
        words += ["--num", len(sheet.pictures), "--truncation", first.truncation]
        words += ["--seed", first.seed, "--grid"]
    command = shlex.join(["biggan", verb, *map(str, words)])
    return f"{where}: <code>{html.escape(command)}</code>"


def column_heads(sheet: SheetProvenance) -> str:
    """What the columns of a picture are, one HTML span each; empty where all are alike."""
    if isinstance(sheet, MorphProvenance):
        ends = [
            (n or end).split(",")[0]
            for n, end in ((sheet.class_a_name, "A"), (sheet.class_b_name, "B"))
        ]
        labels = [ends[0], *[""] * (sheet.steps - 2), ends[1]]
    elif _is_sweep(sheet):
        labels = [f"{picture.truncation:g}" for picture in sheet.pictures[: sheet.columns]]
    else:
        return ""
    return "".join(f"<span>{html.escape(label)}</span>" for label in labels)


def describe(sheet: SheetProvenance) -> str:
    """What a picture shows, as its alternative text."""
    if isinstance(sheet, MorphProvenance):
        a, b = (name or end for name, end in _ends(sheet, "one picture", "another"))
        return f"{sheet.num} paths from {a} to {b} in {sheet.steps} steps, by {sheet.model}"
    first = sheet.pictures[0]
    of = f" of {first.class_name}" if first.class_name else ""
    return f"{len(sheet.pictures)} pictures{of}, {sheet.columns} a row, by {first.model}"


def _ends(morph: MorphProvenance, a: str, b: str) -> list[tuple[str | None, str]]:
    return [(morph.class_a_name, a), (morph.class_b_name, b)]


def _is_sweep(grid: GridProvenance) -> bool:
    return len({picture.truncation for picture in grid.pictures}) > 1
