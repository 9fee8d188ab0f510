"""A dataset in memory: uint8 images of one size; and the built-in digits."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from biggan.errors import InputError, quoted, require, whole_number
from biggan.images import form_of

Resize = Literal["crop", "pad", "stretch"]
MODES = {1: "L", 3: "RGB"}  # by number of channels
DIGITS = "digits"  # the name of the built-in dataset
_DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Reading(TypedDict, total=False):
    """How the images and labels of a source are read."""

    unconditional: bool  # ignore classes: class folders are not needed
    label_column: str | None  # the column of the labels, where a table has several
    resize: Resize  # what becomes of images that are not square; "crop" by default


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Images and their classes.

    Attributes:
        images: uint8 (N, C, R, R).
        labels: int64 (N,), indices into `class_names`; all 0 without classes.
        class_names: The classes in order; empty for an unconditional dataset.
        source: A name for people: the basename of the folder or file.
        skipped: Corrupt files that were left out, as relative paths.
        recorded_fingerprint: The fingerprint, where it is known without reading everything.
    """

    images: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    class_names: tuple[str, ...]
    source: str
    skipped: tuple[str, ...] = ()
    recorded_fingerprint: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        require(
            isinstance(images, Tensor)
            and isinstance(labels, Tensor)
            and (images.dtype, images.ndim, labels.dtype) == (torch.uint8, 4, torch.int64)
            and images.shape[2] == images.shape[3]
            and labels.shape == images.shape[:1],
            "a dataset has images uint8 (N, C, R, R) and labels int64 (N,), not "
            f"{form_of(images)} and {form_of(labels)}",
        )
        least, most = labels.aminmax() if len(self) else (0, 0)
        require(
            0 <= int(least) <= int(most) < max(1, self.num_classes),
            f"the labels {int(least)} to {int(most)} are not those of {self.num_classes} classes",
        )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 for an unconditional dataset."""
        return len(self.class_names)

    def histogram(self) -> list[int]:
        """Images per class, in the order of `class_names`."""
        return torch.bincount(self.labels, minlength=self.num_classes)[: self.num_classes].tolist()

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 over pixels, labels and class names: shows on resuming that the data changed."""
        if self.recorded_fingerprint is not None:
            return self.recorded_fingerprint
        digest = fingerprint_start(tuple(self.images.shape), self.class_names)
        digest.update(self.images.contiguous().numpy().data)
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True)
class DatasetOutline:
    """What is known of a dataset before it is loaded; see `ImageDataset`."""

    num_images: int  # with the corrupt ones where they are not decoded
    class_names: tuple[str, ...]
    source: str
    fingerprint: str | None  # None where only the pixels could tell
    is_mapped: bool  # whether the images stay on the disk

    def __len__(self) -> int:
        return self.num_images

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 for an unconditional dataset."""
        return len(self.class_names)


def load_dataset(
    source: str | Path,
    resolution: int,
    image_channels: int,
    *,
    strict: bool = False,
    workers: int | None = None,
    progress: bool = True,
    **reading: Unpack[Reading],
) -> ImageDataset:
    """Load a whole dataset into memory, or map a packed one; sorted by class, then by path.

    Args:
        source: A packed dataset; what `sources.open_source` opens; or the word "digits" for the
            built-in dataset ("./digits", or a Path, is a folder of that name).
        resolution: The side of the images in pixels.
        image_channels: 1 for grey, 3 for colour.
        strict: Refuse corrupt images; without it they are left out with one warning.
        workers: Decoding threads; one per processor by default.
        progress: Show a bar where loading takes over two seconds, on a terminal.
        reading: See `Reading`.

    Raises:
        InputError: Something about the source must be corrected; the message says what.
    """
    check_form(resolution, image_channels)
    if source == DIGITS:
        column = reading.get("label_column")
        require(column is None, f"the built-in {DIGITS} have no label columns: choose none")
        without_classes = reading.get("unconditional", False)
        return _digits(resolution, image_channels, unconditional=without_classes)
    from biggan.data.loading import load_files  # here, because the digits need no readers

    path, shape = Path(source).expanduser(), (image_channels, resolution, resolution)
    return load_files(path, shape, reading, strict=strict, workers=workers, progress=progress)


def fingerprint_start(shape: tuple[int, ...], class_names: tuple[str, ...]) -> Any:
    """A running sha256 for a dataset's fingerprint: add the pixels, then the labels."""
    return hashlib.sha256(repr((tuple(shape), tuple(class_names))).encode())


def is_address(url: str) -> bool:
    """Whether shards are anywhere but in files: https://, s3://, or "pipe:" with a command."""
    return "://" in url or url.startswith("pipe:")


def _digits(resolution: int, channels: int, *, unconditional: bool) -> ImageDataset:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise InputError(
            "the built-in digits need scikit-learn: pip install 'biggan[train]'"
        ) from error
    bunch = datasets.load_digits()
    levels = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), from 0..16
    digits = [fit_square(Image.fromarray(digit), resolution) for digit in levels]
    images = torch.from_numpy(np.stack([to_array(one.convert(MODES[channels])) for one in digits]))
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    if unconditional:
        return ImageDataset(images, torch.zeros_like(labels), (), DIGITS)
    return ImageDataset(images, labels, _DIGIT_NAMES, DIGITS)


def check_form(resolution: int, channels: int) -> None:
    """Refuse a resolution or a number of channels that images cannot have."""
    if channels not in MODES:
        raise InputError(f"images have 1 channel (grey) or 3 (colour), not {quoted(channels)}")
    if whole_number(resolution, "the resolution") < 1:
        raise InputError(f"the resolution must be at least 1 pixel, not {resolution}")


def fit_square(image: Image.Image, resolution: int, resize: Resize = "crop") -> Image.Image:
    """Scale an image to a square: crop it to the centre, pad it with black, or stretch it.

    Lanczos shrinks: it does not alias, because Pillow widens the filter by the factor, and it keeps
    edges that the paper's area averaging blurs. Bicubic enlarges. An image of the right size is
    unchanged.
    """
    width, height = image.size
    side = min(image.size) if resize == "crop" else max(image.size)
    if width != height and resize != "stretch":
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))  # outside of an image is black
    if image.size == (resolution, resolution):
        return image
    shrinks = side > resolution
    resampling = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    return image.resize((resolution, resolution), resampling)


def to_array(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an image in mode L or RGB as uint8 (C, H, W)."""
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
