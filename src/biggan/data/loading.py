"""Loading: every image decoded once into memory.

Decoding is what makes small training runs slow, and at 32 to 128 pixels whole datasets fit in
memory: CIFAR-10 takes 150 MB. What does not fit is refused before any work is done.
"""

import contextlib
import math
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from biggan.data.dataset import (
    DIGITS,
    DatasetOutline,
    ImageDataset,
    Reading,
    check_form,
    load_dataset,
)
from biggan.data.decoding import WHITE
from biggan.data.packed import is_packed, load_packed
from biggan.data.sources import (
    Findings,
    Source,
    check_findings,
    decode,
    open_source,
    progress_bar,
    warn_of_other_files,
)
from biggan.devices import total_memory
from biggan.errors import InputError

_MEMORY_SHARE = 0.6  # of the machine's memory; the rest is for the networks and the system
_CHUNK = 64  # images a thread takes at a time: small ones cost less than handing out work


def load_files(
    path: Path,
    shape: tuple[int, int, int],
    reading: Reading,
    *,
    strict: bool,
    workers: int | None,
    progress: bool,
) -> ImageDataset:
    """`load_dataset` of anything but the built-in digits; `shape` is (C, R, R)."""
    if is_packed(path):
        return load_packed(path, shape, reading, strict=strict)
    with open_source(path, **reading) as opened:
        check_memory(path, (len(opened), *shape))
        images = np.empty((len(opened), *shape), np.uint8)
        findings = _decode_all(opened, images, WHITE, workers, progress=progress)
        if findings.range_used < WHITE:  # which only all images together show
            findings = _decode_all(opened, images, findings.range_used, workers, progress=progress)
    check_findings(path, opened, findings, strict=strict)
    corrupt = sorted(findings.corrupt)
    good = np.delete(np.arange(len(images)), corrupt)
    for target, position in enumerate(good):  # in place: a copy would need the memory twice
        if target != position:
            images[target] = images[position]
    return ImageDataset(
        images=torch.from_numpy(images[: len(good)]),
        labels=torch.tensor(opened.labels, dtype=torch.int64)[torch.from_numpy(good)],
        class_names=opened.class_names,
        source=opened.name,
        skipped=tuple(opened.members[position] for position in corrupt),
    )


def outline_dataset(
    source: str | Path,
    resolution: int,
    image_channels: int,
    *,
    strict: bool = False,
    **reading: Unpack[Reading],
) -> DatasetOutline:
    """List a dataset's files, or read the header of a packed one; the arguments of `load_dataset`.

    Raises:
        InputError: What `load_dataset` would refuse; but corrupt images only if `strict`, for which
            all of them are decoded.
    """
    check_form(resolution, image_channels)
    path = Path(source).expanduser()
    is_mapped = source != DIGITS and is_packed(path)
    if strict or is_mapped or source == DIGITS:
        data = load_dataset(source, resolution, image_channels, strict=strict, **reading)
        fingerprint = data.recorded_fingerprint if is_mapped else data.fingerprint
        return DatasetOutline(len(data), data.class_names, data.source, fingerprint, is_mapped)
    with open_source(path, **reading) as opened:
        warn_of_other_files(opened.reader.left_out)
    check_memory(path, (len(opened), image_channels, resolution, resolution))
    return DatasetOutline(len(opened), opened.class_names, opened.name, None, False)


def check_memory(path: Path, shape: tuple[int, ...]) -> None:
    """Refuse images, uint8 (N, C, R, R), that memory cannot hold, before they are decoded."""
    needed, limit = math.prod(shape), memory_limit()
    if limit is not None and needed > limit:
        raise InputError(
            f"{path}: {shape[0]} images at {shape[-1]} px need {needed / 2**30:.2f} GiB of memory "
            f"and the limit is {limit / 2**30:.2f} GiB: choose a smaller resolution or fewer "
            "images, or pack them (`biggan data pack`), or stream tar shards (--set stream=true)"
        )


def memory_limit() -> int | None:
    """Bytes that images in memory may take; None where the system does not say what it has."""
    # All memory and not the free part: what the system uses as a file cache it gives back.
    total = total_memory(torch.device("cpu"))
    return None if total is None else int(_MEMORY_SHARE * total)


def _decode_all(
    source: Source, images: NDArray[np.uint8], white: int, workers: int | None, *, progress: bool
) -> Findings:
    """Decode every image into its place."""
    findings = Findings(white)
    _, channels, resolution, _ = images.shape
    chunks = np.split(source.order, range(_CHUNK, len(source), _CHUNK))
    bar = progress_bar(len(source), "decoding", progress, unit=" images")
    pixels = decode(source, chunks, channels, resolution, white, workers)
    with bar, contextlib.closing(pixels) as decoded:
        for chunk, (made, found) in zip(chunks, decoded, strict=True):
            images[chunk] = made
            findings.update(found)
            bar.update(len(chunk))
    return findings
