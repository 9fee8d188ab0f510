"""From provenance to pictures and videos. No Gradio here.

What is written to a file is the grid that `biggan sample --grid` and `biggan interpolate` write, to
the bit: to enlarge small pictures for the screen is left to the page and the notebook.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from biggan.demo.forms import FPS, SheetProvenance
from biggan.errors import InputError
from biggan.gan import Gan
from biggan.images import make_grid, to_png
from biggan.provenance import GridProvenance, MorphProvenance, VideoProvenance
from biggan.provenance_files import read_provenance
from biggan.video import check_video, make_frame, save_video

SMALL = 64
"""Up to this many pixels a side pictures are enlarged for the screen."""

_MOST_ENLARGED = 2**24  # pixels
_THUMBNAIL = 128  # pixels a side, at most


def draw_sheet(gan: Gan, sheet: SheetProvenance) -> Iterator[Image.Image]:
    """Make the pictures of a sheet one after the other, row by row; raises as `Gan.draw`."""
    if isinstance(sheet, MorphProvenance):
        return gan.draw_morph(sheet)
    return gan.draw(sheet.pictures if isinstance(sheet, GridProvenance) else sheet.latents)


def draw_grid(gan: Gan, sheet: SheetProvenance) -> Image.Image:
    """Make the whole picture; raises as `draw_sheet`."""
    return make_grid(list(draw_sheet(gan, sheet)), columns(sheet))


def unfinished(done: Sequence[Image.Image], sheet: SheetProvenance) -> Image.Image:
    """The RGBA grid, transparent where its pictures are missing; one must be there."""
    missing = Image.new("RGBA", done[0].size)
    shown = [picture.convert("RGBA") for picture in done]
    return make_grid([*shown, *[missing] * (count(sheet) - len(done))], columns(sheet))


def enlarged(file: Path, factor: int) -> bytes:
    """A PNG whose pixels are repeated in both directions, with the provenance of the original.

    Raises:
        InputError: It would be too large.
    """
    provenance = read_provenance(file)
    assert isinstance(provenance, SheetProvenance)
    with Image.open(file) as picture:
        width, height = picture.width * factor, picture.height * factor
        if width * height > _MOST_ENLARGED:
            text = f"the enlarged picture would have {width} x {height} pixels"
            raise InputError(f"{text}, more than {_MOST_ENLARGED}")
        return to_png(picture.resize((width, height), Image.Resampling.NEAREST), provenance)


def thumbnail(picture: Image.Image) -> str:
    """A small picture as the address that an <img> takes."""
    small = picture.convert("RGB")
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    webp = io.BytesIO()
    small.save(webp, "webp", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(webp.getvalue()).decode()}"


def count(sheet: SheetProvenance) -> int:
    """Pictures in the grid."""
    if isinstance(sheet, MorphProvenance):
        return sheet.num * sheet.steps
    return len(sheet.pictures if isinstance(sheet, GridProvenance) else sheet.latents)


def columns(sheet: SheetProvenance) -> int:
    """Pictures in a row."""
    return sheet.steps if isinstance(sheet, MorphProvenance) else sheet.columns


def video_endings() -> list[str]:
    """Of the files of a video: a WebP, and an MP4 where it can be written."""
    try:
        check_video(Path("video.mp4"), FPS)
    except InputError:
        return [".webp"]
    return [".webp", ".mp4"]


def draw_video(
    gan: Gan, video: VideoProvenance, files: Sequence[Path], report: Callable[[int], object]
) -> None:
    """Write the files of a video; all but the first, a lossless WebP, get their frames from it.

    `report` is called with the number of frames that are drawn; if it raises, no file is left that
    was begun.

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
        save_video(drawn() if file == files[0] else copied(), file, video.fps, provenance=video)
