"""The data's side of an evaluation: looked at once, then kept by content."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from biggan.data import ImageDataset, load_dataset
from biggan.data.packed import is_packed, read_header
from biggan.data.reading import open_source
from biggan.errors import InputError
from biggan.evaluation.collection import Task

_AT_ONCE = 64


def open_reference(
    path: str | Path, resolution: int, channels: int, *, with_classes: bool
) -> ImageDataset:
    """Read the images of a folder, an archive, a packed dataset or the built-in one.

    Classes are read only where they are needed, so any folder of images will do.

    Raises:
        InputError: See `load_dataset`.
    """
    return load_dataset(path, resolution, channels, unconditional=not with_classes)


def reference_task(
    dataset: ImageDataset, extractor: dict[str, Any], what: str, *, per_class: bool = False
) -> Task:
    """Looking at the images of a dataset."""

    def batches(numbers: range) -> Iterator[tuple[int, Tensor]]:
        for start in range(numbers.start, numbers.stop, _AT_ONCE):
            yield start, dataset.images[start : min(start + _AT_ONCE, numbers.stop)]

    return Task(
        total=len(dataset),
        labels=dataset.labels,
        batches=batches,
        provenance={"fingerprint": dataset.fingerprint, "extractor": extractor},
        what=what,
        per_class=per_class,
    )


def describe_dataset(dataset: ImageDataset) -> dict[str, Any]:
    """What an evaluation says of images that it was given."""
    return {
        "name": dataset.source,
        "fingerprint": dataset.fingerprint,
        "num": len(dataset),
        "resolution": dataset.images.shape[-1],
        "channels": dataset.images.shape[1],
        "skipped": len(dataset.skipped),
    }


def common_resolution(path: Path) -> int:
    """The side of the square images in a place, in pixels.

    Raises:
        InputError: They are not square or differ in size: somebody has to say what to do.
    """
    if is_packed(path):
        return read_header(path).resolution
    sizes: Counter[tuple[int, int]] = Counter()
    with open_source(path, unconditional=True) as source:
        for member in source.layout.members:
            try:
                with Image.open(io.BytesIO(source.files.read(member))) as image:
                    sizes[image.size] += 1
            except Exception:  # noqa: S112  # of many kinds; reading the images will complain
                continue
    if len(sizes) == 1:
        width, height = next(iter(sizes))
        if width == height:
            return width
    found = ", ".join(f"{n} of {w}x{h}" for (w, h), n in sizes.most_common(3)) or "none readable"
    raise InputError(
        f"the images of {path} are not all squares of one size ({found}): say with --resolution "
        "to which size they shall be cropped and scaled"
    )
