"""Easy and hard classes: ranked by intra-class distance, with images of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from biggan.atomic_write import make_folder
from biggan.errors import InputError
from biggan.evaluation.images import ImageSet
from biggan.evaluation.scores import INTRA_FID
from biggan.images import save_png, to_pil

_RANKED = 8  # classes of each kind in the picture
_SAMPLES = 8  # images of a class
_SIDE, _GAP, _TEXT = 64, 2, 190  # pixels: of a drawn image at least, between them, beside them


class RankedClass(NamedTuple):
    """A class and how far its images are from the data's."""

    label: int
    name: str
    distance: float


def rank_classes(row: Mapping[str, Any]) -> list[RankedClass]:
    """The classes of an evaluation's row by intra-class distance, the easiest first.

    Raises:
        InputError: The row has no such distances.
    """
    lines = row.get("per_class", [])
    key = next((key for key in INTRA_FID if lines and key in lines[0]), None)
    if key is None:
        raise InputError("a ranking of classes needs the metric intra-fid")
    ranked = [RankedClass(line["class"], line["name"], line[key]) for line in lines]
    return sorted(ranked, key=lambda ranked: ranked.distance)


def draw_ranking(images: ImageSet, ranked: Sequence[RankedClass]) -> Image.Image:
    """Draw a row for each of the easiest and the hardest classes: name, distance, images."""
    hardest = ranked[max(_RANKED, len(ranked) - _RANKED) :]
    rows = [*ranked[:_RANKED], *hardest]
    numbers = [(images.labels == each.label).nonzero().flatten()[:_SAMPLES] for each in rows]
    shown = [_pictures(images, some) for some in numbers]
    cell = max(len(row) for row in shown), shown[0][0].width
    step = cell[1] + _GAP
    page = Image.new("RGB", (_TEXT + cell[0] * step, len(rows) * step + _GAP), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for place, (each, row) in enumerate(zip(rows, shown, strict=True)):
        top = place * step + (_GAP if place >= _RANKED else 0)
        rank = ranked.index(each) + 1
        text = f"{rank}  {each.name.split(',')[0][:24]}\n{each.distance:.4g}"
        draw.text((4, top + 4), text, fill="black", font=font)
        for column, picture in enumerate(row):
            page.paste(picture, (_TEXT + column * step, top))
    if hardest:
        line = _RANKED * step
        draw.line((0, line, page.width, line), fill="black")
    return page


def _pictures(images: ImageSet, numbers: Tensor) -> list[Image.Image]:
    made = [picture for batch in images.batches(numbers) for picture in to_pil(batch)]
    side = made[0].width * -(-_SIDE // made[0].width)
    return [p.convert("RGB").resize((side, side), Image.Resampling.NEAREST) for p in made]


def write_ranking(images: ImageSet, row: Mapping[str, Any], path: Path) -> None:
    """Rank the classes of a row and draw them as a PNG file.

    Raises:
        InputError: The row has no distances of classes, or the file cannot be written.
    """
    make_folder(path.parent)
    save_png(draw_ranking(images, rank_classes(row)), path)
