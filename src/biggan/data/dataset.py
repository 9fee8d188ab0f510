"""A dataset in memory: every image decoded once, as uint8 at the training resolution.

Decoding is what makes small training runs slow, and at 32 to 128 pixels whole datasets fit in
memory: CIFAR-10 takes 150 MB. What does not fit is refused before any work is done; packed, it is
mapped from the disk instead.
"""

import contextlib
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from biggan.data.decoding import MODES, WHITE, strict_pillow
from biggan.data.digits import CLASS_NAMES, load_digits
from biggan.data.layout import Layout
from biggan.data.packed import (
    fingerprint_start,
    is_packed,
    open_images,
    read_header,
    read_labels,
)
from biggan.data.reading import (
    Findings,
    Source,
    check_findings,
    decode_chunk,
    in_parallel,
    open_source,
)
from biggan.errors import InputError

DIGITS = "digits"  # the word that means the built-in dataset
_MEMORY_SHARE = 0.6  # of the machine's memory; the rest is for the networks and the system
_CHUNK = 64  # images a thread takes at a time: small ones cost less than handing out work


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Images and their classes.

    Attributes:
        images: uint8 (N, C, R, R).
        labels: int64 (N,), indices into `class_names`; all 0 without classes.
        class_names: The classes in order; empty for an unconditional dataset.
        source: A name for people: the folder's or file's own, without the way to it.
        skipped: Corrupt files that were left out, as relative paths.
        recorded_fingerprint: The fingerprint, where it is known without reading everything.
    """

    images: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    class_names: tuple[str, ...]
    source: str
    skipped: tuple[str, ...] = ()
    recorded_fingerprint: str | None = field(default=None, repr=False)

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
        if self.recorded_fingerprint is not None:
            return self.recorded_fingerprint
        digest = fingerprint_start(tuple(self.images.shape), self.class_names)
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
    """Load a whole dataset into memory, or map a packed one.

    Args:
        source: A packed dataset; a folder of class folders, or a .zip of one; parquet files or
            WebDataset shards (one, a folder of them, or a pattern); or the word "digits" for the
            built-in dataset ("./digits", or a Path, is a folder of that name).
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
    if is_packed(path):
        return _packed(path, resolution, image_channels, strict=strict, unconditional=unconditional)
    with open_source(path, unconditional=unconditional) as opened:
        layout = opened.layout
        shape = (len(layout.members), image_channels, resolution, resolution)
        check_memory(path, shape, memory_limit)
        images = np.empty(shape, np.uint8)
        findings = _decode_all(opened, images, WHITE, workers, progress=progress)
        if findings.range_used < WHITE:  # which only all images together tell
            findings = _decode_all(opened, images, findings.range_used, workers, progress=progress)
    check_findings(path, opened, findings, strict=strict)
    return _assemble(path.resolve().name, layout, images, sorted(findings.corrupt))


def _digits(resolution: int, channels: int, *, unconditional: bool) -> ImageDataset:
    images, labels = load_digits(resolution, channels)
    if unconditional:
        return ImageDataset(images, torch.zeros_like(labels), (), DIGITS)
    return ImageDataset(images, labels, CLASS_NAMES, DIGITS)


def _packed(
    path: Path, resolution: int, channels: int, *, strict: bool, unconditional: bool
) -> ImageDataset:
    header = read_header(path)
    if (header.resolution, header.image_channels) != (resolution, channels):
        raise InputError(
            f"{path} was packed at {header.resolution} px with {header.image_channels} channels, "
            f"and {resolution} px with {channels} are needed: pack it again, `biggan data pack "
            f"SOURCE OUT --resolution {resolution} --channels {channels}`"
        )
    if strict and header.skipped:
        raise InputError(
            f"{path} was packed without {len(header.skipped)} corrupt images, such as "
            f"{header.skipped[0]}"
        )
    if not header.class_names and not unconditional:
        raise InputError(
            f"{path} was packed without classes: pack it again without --unconditional, or train "
            "without classes (--set unconditional=true)"
        )
    images, labels = open_images(path, header), read_labels(path, header)
    if unconditional and header.class_names:
        labels = torch.zeros_like(labels)
        return ImageDataset(images, labels, (), header.source, header.skipped)
    return ImageDataset(
        images, labels, header.class_names, header.source, header.skipped, header.fingerprint
    )


def check_memory(path: Path, shape: tuple[int, ...], limit: int | None) -> None:
    """Refuse a dataset that memory cannot hold, before it is decoded.

    Args:
        path: Where it is, for the message.
        shape: (N, C, R, R) of its uint8 images.
        limit: Bytes; None for a share of this machine's memory.

    Raises:
        InputError: It needs more than that.
    """
    needed = int(np.prod(shape, dtype=np.int64))
    limit = _default_memory_limit() if limit is None else limit
    if limit is not None and needed > limit:
        raise InputError(
            f"{path}: {shape[0]} images at {shape[-1]} px need {_gib(needed)} of memory and the "
            f"limit is {_gib(limit)}: choose a smaller resolution or fewer images, or pack them "
            "(`biggan data pack`), or stream tar shards (--set stream=true)"
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
    source: Source,
    images: NDArray[np.uint8],
    white: int,
    workers: int | None,
    *,
    progress: bool,
) -> Findings:
    """Decode every image into its place."""
    findings = Findings(white)
    order = source.order
    chunks = [order[start : start + _CHUNK] for start in range(0, len(order), _CHUNK)]
    bar = tqdm(
        total=len(order),
        desc="decoding",
        unit=" images",
        delay=2,
        disable=None if progress else True,  # None: only on a terminal
    )
    _, channels, resolution, _ = images.shape
    decode = functools.partial(decode_chunk, source, channels, resolution, white=white)
    with (
        strict_pillow(),
        bar,
        contextlib.closing(in_parallel(decode, chunks, workers)) as results,
    ):
        for chunk, (pixels, found) in zip(chunks, results, strict=True):
            images[chunk] = pixels
            findings.update(found)
            bar.update(len(chunk))
    return findings


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
