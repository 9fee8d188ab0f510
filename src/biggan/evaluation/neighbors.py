"""Generated images beside their nearest neighbours in the data, by pixels and by features."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from biggan.atomic_write import make_folder
from biggan.data import ImageDataset
from biggan.errors import InputError
from biggan.evaluation.features import image_bar, with_channels
from biggan.evaluation.generation import Generation, Protocol
from biggan.evaluation.reference import Reference
from biggan.gan import Gan
from biggan.images import save_png, to_pil
from biggan.metrics.extractor import FeatureExtractor
from biggan.metrics.nearest_neighbors import Neighbors, nearest_neighbors

_SAMPLES = 10  # rows of the picture
_NEAREST = 4  # of each kind, for every sample
_BATCH = 1024  # images of the data whose features are held
_SIDE = 96  # pixels of a drawn image, at least
_TEXT, _GAP = 16, 4  # height of a line and the space between images, in pixels


class Samples(NamedTuple):
    """Images uint8 (N, C, R, R) to find neighbours of, and a name for each."""

    images: Tensor
    names: tuple[str, ...]


class Neighborhood(NamedTuple):
    """The nearest images of a dataset, by pixels and by an extractor's features."""

    by_pixels: Neighbors
    by_features: Neighbors


def samples_of_generator(gan: Gan, protocol: Protocol, truncation: float | None) -> Samples:
    """Ten images of an evaluation at one truncation, of classes far apart."""
    generation = Generation(gan, protocol, truncation)
    classes = max(1, len(gan.class_names))
    numbers = _spread(min(protocol.num, max(classes, _SAMPLES)), _SAMPLES)
    images = torch.cat([images for _, images in generation.make(numbers)])
    names = tuple(
        gan.class_names[label].split(",")[0] if gan.class_names else f"#{number}"
        for number, label in zip(numbers.tolist(), generation.labels[numbers].tolist(), strict=True)
    )
    return Samples(images, names)


def samples_of_images(dataset: ImageDataset) -> Samples:
    """Ten images from all over a dataset."""
    numbers = _spread(len(dataset), _SAMPLES)
    return Samples(dataset.images[numbers], tuple(f"#{number}" for number in numbers.tolist()))


def find_neighbors(
    samples: Samples,
    dataset: ImageDataset,
    extractor: FeatureExtractor,
    *,
    progress: bool = True,
) -> Neighborhood:
    """Search a dataset, of the samples' size and channels, for the images nearest to them."""
    k = min(_NEAREST, len(dataset))
    by_pixels = nearest_neighbors(samples.images.flatten(1), dataset.images.flatten(1), k)
    query = extractor.extract(with_channels(samples.images, extractor.channels)).features
    best: Neighbors | None = None
    with image_bar(len(dataset), f"neighbours in {dataset.source}", progress) as bar:
        for start in range(0, len(dataset), _BATCH):
            some = with_channels(dataset.images[start : start + _BATCH], extractor.channels)
            found = nearest_neighbors(query, extractor.extract(some).features, min(k, len(some)))
            found = Neighbors(found.distances, found.indices + start)
            best = found if best is None else _nearest_of_both(best, found, k)
            bar.update(len(some))
    assert best is not None  # no dataset is empty
    return Neighborhood(by_pixels, best)


def write_neighbors(
    samples: Samples, reference: Reference, extractor: FeatureExtractor, path: Path
) -> None:
    """Draw samples beside their nearest neighbours as a PNG file.

    Raises:
        InputError: The reference holds statistics, or the file cannot be written.
    """
    if not isinstance(reference, ImageDataset):
        raise InputError(f"{reference.source} holds statistics, and no neighbours")
    make_folder(path.parent)
    found = find_neighbors(samples, reference, extractor)
    save_png(draw_neighbors(samples, found, reference, extractor.name), path)


def draw_neighbors(
    samples: Samples, found: Neighborhood, dataset: ImageDataset, extractor: str
) -> Image.Image:
    """Draw a row a sample: itself, its nearest by pixels, its nearest by features.

    Below each image stands its name, or its distance and its number in the dataset.
    """
    side = samples.images.shape[-1]
    cell = side * -(-_SIDE // side)
    groups = (
        ("nearest by pixels", found.by_pixels),
        (f"nearest by features of {extractor}", found.by_features),
    )
    k = found.by_pixels.indices.shape[1]
    step_x, step_y = cell + _GAP, cell + _TEXT + _GAP
    starts = [0] + [(1 + group * k) * step_x + 3 * _GAP * (group + 1) for group in range(2)]
    width = starts[2] + k * step_x
    page = Image.new("RGB", (width, _TEXT + len(samples.images) * step_y), "white")
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(11)

    def write(x: int, y: int, text: str, room: int) -> None:
        while text and draw.textlength(text, font=font) > room:
            text = text[:-2] + "…" if text[-1] == "…" else text[:-1] + "…"
        draw.text((x, y), text, fill="black", font=font)

    def paste(x: int, y: int, pixels: Tensor, text: str) -> None:
        [image] = to_pil(pixels[None])
        page.paste(image.convert("RGB").resize((cell, cell), Image.Resampling.NEAREST), (x, y))
        write(x, y + cell, text, cell)

    write(0, 0, "sample", cell)
    for start, (title, _) in zip(starts[1:], groups, strict=True):
        write(start, 0, title, k * step_x)
    for row, (image, name) in enumerate(zip(*samples, strict=True)):
        y = _TEXT + row * step_y
        paste(0, y, image, name)
        for start, (_, neighbors) in zip(starts[1:], groups, strict=True):
            for place in range(k):
                index = int(neighbors.indices[row, place])
                distance = neighbors.distances[row, place].item()
                x = start + place * step_x
                paste(x, y, dataset.images[index], f"{distance:.4g}  #{index}")
    return page


def _spread(num: int, count: int) -> Tensor:
    """Up to `count` of the numbers below `num`, evenly spread: int64."""
    return torch.linspace(0, num - 1, min(num, count)).round().long()


def _nearest_of_both(a: Neighbors, b: Neighbors, k: int) -> Neighbors:
    distances = torch.cat([a.distances, b.distances], 1)
    order = distances.argsort(dim=1, stable=True)[:, :k]
    indices = torch.cat([a.indices, b.indices], 1)
    return Neighbors(distances.gather(1, order), indices.gather(1, order))
