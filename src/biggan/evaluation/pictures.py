"""Pictures of an evaluation: samples beside their nearest neighbours, and a ranking of classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from biggan.atomic_write import make_folder
from biggan.data import ImageDataset
from biggan.data.sources import progress_bar
from biggan.errors import InputError
from biggan.evaluation.images import GeneratedImages, ImageSet, Protocol, with_channels
from biggan.evaluation.reference import Reference
from biggan.evaluation.scores import INTRA_FID
from biggan.gan import Gan
from biggan.images import save_png, to_pil
from biggan.metrics.extractor import FeatureExtractor
from biggan.metrics.nearest_neighbors import Neighbors, nearest_neighbors

_SAMPLES = 10  # rows of the picture
_NEAREST = 4  # of each kind, for every sample
_BATCH = 1024  # images of the data whose features are held
_SIDE = 96  # pixels of a drawn image, at least
_TEXT, _GAP = 16, 4  # height of a line and the space between images, in pixels
_RANKED, _EACH = 8, 8  # easiest and hardest classes, and images of each
_CELL, _LINE, _NAME = 64, 2, 190  # pixels of such an image at least, between them, beside them


class Samples(NamedTuple):
    """Images uint8 (N, C, R, R) to find neighbours of, and a name for each."""

    images: Tensor
    names: tuple[str, ...]


def samples_of_generator(gan: Gan, protocol: Protocol, truncation: float | None) -> Samples:
    """Ten images of an evaluation at one truncation, of classes far apart."""
    generated = GeneratedImages(gan, protocol, truncation)
    classes = max(1, len(gan.class_names))
    numbers = _spread(min(protocol.num, max(classes, _SAMPLES)))
    names = tuple(
        gan.class_names[label].split(",")[0] if gan.class_names else f"#{number}"
        for number, label in zip(numbers.tolist(), generated.labels[numbers].tolist(), strict=True)
    )
    return Samples(torch.cat([*generated.batches(numbers)]), names)


def samples_of_images(dataset: ImageDataset) -> Samples:
    """Ten images from all over a dataset."""
    numbers = _spread(len(dataset))
    return Samples(dataset.images[numbers], tuple(f"#{number}" for number in numbers.tolist()))


def _spread(num: int) -> Tensor:
    """Up to ten of the numbers below `num`, evenly spread: int64."""
    return torch.linspace(0, num - 1, min(num, _SAMPLES)).round().long()


def find_neighbors(
    samples: Samples, dataset: ImageDataset, extractor: FeatureExtractor
) -> tuple[Neighbors, Neighbors]:
    """The nearest images of a dataset of the same size, by pixels and by features."""

    def features() -> Iterator[Tensor]:
        title = f"neighbours in {dataset.source}"
        with progress_bar(len(dataset), title, shown=True, unit="image") as bar:
            for some in dataset.images.split(_BATCH):
                yield extractor.extract(with_channels(some, extractor.channels)).features
                bar.update(len(some))

    k = min(_NEAREST, len(dataset))
    by_pixels = nearest_neighbors(samples.images.flatten(1), dataset.images.flatten(1), k)
    query = extractor.extract(with_channels(samples.images, extractor.channels)).features
    return by_pixels, nearest_neighbors(query, features(), k)


def write_neighbors(
    samples: Samples, reference: Reference, extractor: FeatureExtractor, path: Path
) -> None:
    """Draw samples beside their nearest neighbours as a PNG file.

    Raises:
        InputError: The reference holds statistics, or the file cannot be written.
    """
    if not isinstance(reference, ImageDataset):
        raise InputError(
            f"{reference.source} contains statistics, not images, so there are no neighbours"
        )
    make_folder(path.parent)
    found = find_neighbors(samples, reference, extractor)
    save_png(draw_neighbors(samples, found, reference, extractor.name), path)


def label_font() -> Any:
    """The font with the widest coverage that is here: Matplotlib's, or Pillow's, which is ASCII."""
    try:
        from matplotlib import get_data_path

        return ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 11)
    except (ImportError, OSError):
        return ImageFont.load_default(11)


def drawable(text: str, font: Any) -> str:
    """The text with escapes, as Python writes them, for characters that a font does not have."""
    missing = bytes(font.getmask("\U0010ffff"))
    found = (
        c if c.isspace() or bytes(font.getmask(c)) != missing else ascii(c)[1:-1] for c in text
    )
    return "".join(found)


def draw_neighbors(
    samples: Samples, found: tuple[Neighbors, Neighbors], dataset: ImageDataset, extractor: str
) -> Image.Image:
    """Draw a row a sample: itself, its nearest by pixels, its nearest by features.

    Below each image stands its name, or its distance and its number in the dataset.
    """
    cell = _enlarge(samples.images[:1], _SIDE)[0].width
    titles = ("nearest by pixels", f"nearest by features of {extractor}")
    k = found[0].indices.shape[1]
    step_x, step_y = cell + _GAP, cell + _TEXT + _GAP
    starts = [(1 + group * k) * step_x + 3 * _GAP * (group + 1) for group in range(2)]
    size = (starts[1] + k * step_x, _TEXT + len(samples.images) * step_y)
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    font = label_font()

    def write(x: int, y: int, text: str, room: int) -> None:
        text = drawable(text, font)
        while text and draw.textlength(text, font=font) > room:
            text = text[:-2] + "…" if text[-1] == "…" else text[:-1] + "…"
        draw.text((x, y), text, fill="black", font=font)

    def paste(x: int, y: int, pixels: Tensor, text: str) -> None:
        page.paste(_enlarge(pixels[None], _SIDE)[0], (x, y))
        write(x, y + cell, text, cell)

    write(0, 0, "sample", cell)
    for row, (image, name) in enumerate(zip(*samples, strict=True)):
        paste(0, _TEXT + row * step_y, image, name)
    for start, title, neighbors in zip(starts, titles, found, strict=True):
        write(start, 0, title, k * step_x)
        for row in range(len(samples.images)):
            pairs = zip(neighbors.indices[row].tolist(), neighbors.distances[row], strict=True)
            for place, (index, distance) in enumerate(pairs):
                x, y = start + place * step_x, _TEXT + row * step_y
                paste(x, y, dataset.images[index], f"{distance.item():.4g}  #{index}")
    return page


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
    numbers = [(images.labels == each.label).nonzero().flatten()[:_EACH] for each in rows]
    shown = [_enlarge(torch.cat([*images.batches(some)]), _CELL) for some in numbers]
    step = shown[0][0].width + _LINE
    columns = max(len(row) for row in shown)
    page = Image.new("RGB", (_NAME + columns * step, len(rows) * step + _LINE), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for place, (each, row) in enumerate(zip(rows, shown, strict=True)):
        top = place * step + (_LINE if place >= _RANKED else 0)
        rank = ranked.index(each) + 1
        text = f"{rank}  {each.name.split(',')[0][:24]}\n{each.distance:.4g}"
        draw.text((4, top + 4), text, fill="black", font=font)
        for column, picture in enumerate(row):
            page.paste(picture, (_NAME + column * step, top))
    if hardest:
        line = _RANKED * step
        draw.line((0, line, page.width, line), fill="black")
    return page


def _enlarge(images: Tensor, least: int) -> list[Image.Image]:
    """Pictures of images, uint8 (N, C, R, R), a whole number of times larger, of `least` pixels."""
    side = images.shape[-1] * -(-least // images.shape[-1])
    nearest = Image.Resampling.NEAREST
    return [p.convert("RGB").resize((side, side), nearest) for p in to_pil(images)]


def write_ranking(images: ImageSet, row: Mapping[str, Any], path: Path) -> None:
    """Rank the classes of a row and draw them as a PNG file.

    Raises:
        InputError: The row has no distances of classes, or the file cannot be written.
    """
    make_folder(path.parent)
    save_png(draw_ranking(images, rank_classes(row)), path)
