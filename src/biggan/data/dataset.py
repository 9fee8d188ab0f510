"""A dataset in memory: every image decoded once, as uint8 at the training resolution.

Decoding is what makes small training runs slow, and at 32 to 128 pixels whole datasets fit in
memory: CIFAR-10 takes 150 MB. What does not fit is refused before any work is done.
"""

import functools
import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from biggan.data.decoding import MODES, CorruptImageError, decode_image, strict_pillow
from biggan.data.digits import CLASS_NAMES, load_digits
from biggan.data.layout import Layout, arrange
from biggan.data.sources import ImageFiles, open_files
from biggan.data.transforms import fit_square, to_array
from biggan.errors import InputError

logger = logging.getLogger("biggan.data")

DIGITS = "digits"  # the word that means the built-in dataset
_MEMORY_SHARE = 0.6  # of the machine's memory; the rest is for the networks and the system
_CHUNK = 64  # images a thread takes at a time: small ones cost less than handing out work
_NAMED = 5  # corrupt files that a message names


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Images and their classes.

    Attributes:
        images: uint8 (N, C, R, R).
        labels: int64 (N,), indices into `class_names`; all 0 without classes.
        class_names: The classes in order; empty for an unconditional dataset.
        source: A name for people: the folder's or file's own, without the way to it.
        skipped: Corrupt files that were left out, as relative paths.
    """

    images: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    class_names: tuple[str, ...]
    source: str
    skipped: tuple[str, ...] = ()

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
        """sha256 over pixels, labels and class names: tells on resuming that the data changed."""
        digest = hashlib.sha256(repr((tuple(self.images.shape), self.class_names)).encode())
        digest.update(self.images.contiguous().numpy().data)
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()


def load_dataset(
    source: str | Path,
    resolution: int,
    image_channels: int,
    *,
    strict: bool = False,
    unconditional: bool = False,
    workers: int | None = None,
    progress: bool = True,
    memory_limit: int | None = None,
) -> ImageDataset:
    """Load a whole dataset into memory.

    Args:
        source: A folder of class folders, a .zip of one, or the word "digits" for the built-in
            dataset ("./digits", or a Path, is a folder of that name).
        resolution: The side of the images in pixels.
        image_channels: 1 for grey, 3 for colour.
        strict: Refuse corrupt images; without it they are left out with one warning.
        unconditional: Ignore classes: class folders are not needed.
        workers: Decoding threads; one per processor by default.
        progress: Show a bar where loading takes over two seconds, on a terminal.
        memory_limit: Bytes that the images may take; 0.6 of the machine's memory by default.

    Returns:
        The dataset, sorted by class, then by path.

    Raises:
        InputError: Something about the source must be mended; the message says what.
    """
    if image_channels not in MODES:
        raise InputError(f"images have 1 channel (grey) or 3 (colour), not {image_channels}")
    if resolution < 1:
        raise InputError(f"the resolution must be at least 1 pixel, not {resolution}")
    if source == DIGITS:
        return _digits(resolution, image_channels, unconditional=unconditional)
    path = Path(source).expanduser()
    with open_files(path) as files:
        layout = arrange(files.members, path, in_zip=path.is_file(), unconditional=unconditional)
        shape = (len(layout.members), image_channels, resolution, resolution)
        _check_memory(path, shape, memory_limit)
        images, corrupt = _decode_all(files, layout.members, shape, workers, progress=progress)
    _check_corrupt(path, layout, corrupt, strict=strict)
    return _assemble(path.resolve().name, layout, images, corrupt)


def _digits(resolution: int, channels: int, *, unconditional: bool) -> ImageDataset:
    images, labels = load_digits(resolution, channels)
    if unconditional:
        return ImageDataset(images, torch.zeros_like(labels), (), DIGITS)
    return ImageDataset(images, labels, CLASS_NAMES, DIGITS)


def _check_memory(path: Path, shape: tuple[int, ...], limit: int | None) -> None:
    needed = int(np.prod(shape, dtype=np.int64))
    limit = _default_memory_limit() if limit is None else limit
    if limit is not None and needed > limit:
        raise InputError(
            f"{path}: {shape[0]} images at {shape[-1]} px need {_gib(needed)} of memory and the "
            f"limit is {_gib(limit)}: choose a smaller resolution or fewer images"
        )


def _default_memory_limit() -> int | None:
    # All memory and not the free part: what the system uses as a file cache it gives back.
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None  # Windows has no sysconf
    return int(_MEMORY_SHARE * total)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _decode_all(
    files: ImageFiles,
    members: Sequence[str],
    shape: tuple[int, ...],
    workers: int | None,
    *,
    progress: bool,
) -> tuple[NDArray[np.uint8], list[int]]:
    """Decode every member; also the positions of those that could not be."""
    images = np.empty(shape, np.uint8)
    corrupt: list[int] = []
    chunks = [range(i, min(i + _CHUNK, len(members))) for i in range(0, len(members), _CHUNK)]
    bar = tqdm(
        total=len(members),
        desc="decoding",
        unit=" images",
        delay=2,
        disable=None if progress else True,  # None: only on a terminal
    )
    decode = functools.partial(_decode_chunk, files, members, images)
    with strict_pillow(), bar, ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        # An interrupt ends the loop, and the end of `map` cancels what has not begun.
        for chunk, failed in zip(chunks, pool.map(decode, chunks), strict=True):
            corrupt += failed
            bar.update(len(chunk))
    return images, corrupt


def _decode_chunk(
    files: ImageFiles, members: Sequence[str], images: NDArray[np.uint8], chunk: range
) -> list[int]:
    channels, resolution = images.shape[1], images.shape[2]
    failed = []
    for position in chunk:
        try:
            image = decode_image(files.read(members[position]), channels)
        except CorruptImageError:
            failed.append(position)
        else:
            images[position] = to_array(fit_square(image, resolution))
    return failed


def _check_corrupt(path: Path, layout: Layout, corrupt: Sequence[int], *, strict: bool) -> None:
    if not corrupt:
        return
    total = len(layout.members)
    named = ", ".join(layout.members[position] for position in corrupt[:_NAMED])
    if len(corrupt) > _NAMED:
        named += f" and {len(corrupt) - _NAMED} more"
    plural = "s" if len(corrupt) > 1 else ""
    what = f"{len(corrupt)} corrupt image{plural} of {total}: {named}"
    if strict:
        raise InputError(f"{path} has {what}")
    if len(corrupt) == total:
        raise InputError(f"{path}: no image can be read, {what}")
    lost = set(layout.labels) - set(np.delete(layout.labels, corrupt).tolist())
    if lost:
        raise InputError(
            f"{path}: no image of class {layout.class_names[min(lost)]!r} can be read, {what}"
        )
    logger.warning("skipped %s", what)


def _assemble(
    name: str, layout: Layout, images: NDArray[np.uint8], corrupt: Sequence[int]
) -> ImageDataset:
    good = np.delete(np.arange(len(images)), corrupt)
    # In place: a copy of what is left would need the memory twice.
    for target, position in enumerate(good):
        if target != position:
            images[target] = images[position]
    return ImageDataset(
        images=torch.from_numpy(images[: len(good)]),
        labels=torch.tensor(layout.labels, dtype=torch.int64)[torch.from_numpy(good)],
        class_names=layout.class_names,
        source=name,
        skipped=tuple(layout.members[position] for position in corrupt),
    )
