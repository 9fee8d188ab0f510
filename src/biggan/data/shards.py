"""WebDataset shards as a stream, for data that no disk holds.

A shard can be read in one direction only, so the order of the images is a compromise: every epoch
shuffles the shards, and then shuffles the samples inside windows of a fixed size. Both are pure
functions of (seed, epoch), and so what stands at a position of the stream depends on nothing but
(seed, position): a run resumes from the number of images it has seen, and several processes can
each take their share of a batch. Shards whose samples are sorted by class are mixed too little by
this; whoever makes shards shuffles them once.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biggan.data.decoding import MODES, WHITE, CorruptImageError, decode_image, strict_pillow
from biggan.data.shard_files import Sample, expand_shards, read_shard, shard_name
from biggan.data.shard_index import (
    INDEX,
    class_table,
    count_shards,
    index_file,
    number_labels,
    read_index,
)
from biggan.data.transforms import fit_square, to_array
from biggan.errors import InputError

logger = logging.getLogger("biggan.data")

WINDOW = 4096
# What the random numbers are for: keeps the streams of one seed apart.
_SHARDS = 0x5344
_WINDOW = 0x574E
_AHEAD = 4  # batches that are decoded, or being decoded, before they are asked for
_PIECE = 8  # images that a thread decodes at a time


@dataclass(frozen=True)
class _Window:
    """Samples that are shuffled together, in the order of the stream."""

    number: int
    samples: list[Sample]


class ShardStream:
    """An endless stream of images from shards; every epoch is a permutation of its own.

    Args:
        urls: Shards as a pattern with {0000..0009} or *, a folder of them, or a list. What the
            `webdataset` library opens may be among them: https://, s3:// by its programs, and
            "pipe:" with a shell command, which is run.
        resolution: The side of the images in pixels.
        image_channels: 1 for grey, 3 for colour.
        class_names: The classes in the order of the numbers in the shards; none for a stream
            without classes. If it is None, those of `classes.txt` beside the first shard, or else
            the labels that were found.
        seed: Selects the order; 0 or more.
        index: Where it is remembered how many samples each shard has, and of which labels. They
            are counted by reading each shard once. By default beside the first shard, if that is a
            file.
        window: Samples that are shuffled together. They are in memory as they are stored, twice:
            the window in use, and the next one.
        workers: Threads that decode, and count; one per processor by default.
        strict: Refuse a corrupt image. Without it the next good one of its window stands in for it.
        progress: Show a bar where counting takes over two seconds, on a terminal.

    Attributes:
        class_names: The classes in order; empty for a stream without classes.
        counts: Samples in each shard.
        source: A name for people: that of the shards, without the way to them.

    Raises:
        InputError: `webdataset` is missing, or shards are missing, damaged or empty, or their
            labels and the classes do not belong together.
    """

    def __init__(
        self,
        urls: str | Path | Sequence[str | Path],
        resolution: int,
        image_channels: int,
        class_names: Sequence[str] | None,
        seed: int,
        *,
        index: str | Path | None = None,
        window: int = WINDOW,
        workers: int | None = None,
        strict: bool = False,
        progress: bool = True,
    ) -> None:
        if image_channels not in MODES:
            raise InputError(f"images have 1 channel (grey) or 3 (colour), not {image_channels}")
        if resolution < 1 or window < 1 or seed < 0:
            raise InputError(
                "the resolution and the window are at least 1 and the seed at least 0, not "
                f"{resolution}, {window} and {seed}"
            )
        self.resolution = resolution
        self.image_channels = image_channels
        self._seed = seed
        self._window = window
        self._workers = workers or os.cpu_count() or 1
        self._strict = strict
        self._replaced: set[str] = set()
        self._warned_of_range = False
        self._urls = expand_shards(urls)
        self.source = shard_name(str(urls if isinstance(urls, (str, Path)) else self._urls[0]))
        file = index_file(self._urls) if index is None else Path(index).expanduser()
        count_shards(self._urls, file, workers=workers, progress=progress)
        contents = read_index(self._urls, file)
        if contents is None:
            raise InputError(f"the shards of {self.source} changed while they were counted")
        self._contents = contents
        self.counts = [shard.samples for shard in contents]
        if len(self) == 0:
            raise InputError(f"{self._urls[0]} and the other shards hold no images")
        self.class_names = class_table(self._urls, contents, class_names)
        labels = {label for shard in contents for label, _ in shard.labels}
        self._numbers = number_labels(labels, self.class_names)

    def __len__(self) -> int:
        """Images in an epoch."""
        return sum(self.counts)

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 for a stream without classes."""
        return len(self.class_names)

    def histogram(self) -> list[int]:
        """Images per class, in the order of `class_names`; corrupt ones are among them."""
        return list(self._histogram)

    @functools.cached_property
    def _histogram(self) -> list[int]:
        found = [0] * self.num_classes  # asked for in every step, and labels may be many
        for shard in self._contents:
            for label, count in shard.labels:
                if label in self._numbers:
                    found[self._numbers[label]] += count
        return found

    @property
    def window_bytes(self) -> int:
        """Memory that the images in waiting take, as they are stored."""
        stored = sum(shard.stored_bytes for shard in self._contents)
        return 2 * min(self._window, len(self)) * stored // len(self)

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 over what the order depends on: tells on resuming that the shards changed."""
        names = [shard_name(url) for url in self._urls]
        labels = [shard.labels for shard in self._contents]
        about = (names, labels, self.class_names, self._window)
        return hashlib.sha256(repr(about).encode()).hexdigest()

    def batches(self, positions: Iterable[NDArray[np.int64]]) -> Generator[tuple[Tensor, Tensor]]:
        """Images of the stream, decoded ahead in threads.

        Where several processes share a batch, each reads all the shards and decodes what it asks
        for.

        Args:
            positions: Of each batch's images in the stream, (N,), ascending, and beyond those of
                the batch before. The first image that a run has not seen stands at the number of
                those that it has seen.

        Yields:
            uint8 images (N, C, R, R) and int64 labels (N,), for each batch.

        Raises:
            InputError: A shard cannot be read or changed; a label is none of the classes.
        """
        reader, decoders = ThreadPoolExecutor(1), ThreadPoolExecutor(self._workers)
        waiting: deque[list[Future[Any]]] = deque()
        windows: _InOrder | None = None
        try:
            with strict_pillow():
                for batch in positions:
                    if windows is None:
                        first, _ = self._place(int(batch[0]))
                        windows = _InOrder(self._windows(first), reader)
                    waiting.append(self._decode_ahead(windows, batch.tolist(), decoders))
                    if len(waiting) > _AHEAD:
                        yield _joined(waiting.popleft())
                while waiting:
                    yield _joined(waiting.popleft())
        finally:
            reader.shutdown(cancel_futures=True)
            decoders.shutdown(cancel_futures=True)

    def _place(self, position: int) -> tuple[int, int]:
        """The window, counted through all epochs, and the place in it, of a position."""
        epoch, offset = divmod(position, len(self))
        window, place = divmod(offset, self._window)
        return epoch * self._windows_per_epoch + window, place

    @property
    def _windows_per_epoch(self) -> int:
        return -(-len(self) // self._window)

    def _windows(self, number: int) -> Iterator[_Window]:
        """The windows from one on, without end."""
        epoch, window = divmod(number, self._windows_per_epoch)
        while True:
            samples = self._epoch(epoch, skip=window * self._window)
            while window < self._windows_per_epoch:
                size = min(self._window, len(self) - window * self._window)
                stored = [next(samples) for _ in range(size)]
                order = _generator(self._seed, _WINDOW, epoch, window).permutation(size)
                shuffled = [stored[place] for place in order]
                yield _Window(epoch * self._windows_per_epoch + window, shuffled)
                window += 1
            epoch, window = epoch + 1, 0

    def _epoch(self, epoch: int, skip: int) -> Iterator[Sample]:
        """An epoch's samples in the order of its shards, without the first few."""
        for shard in _generator(self._seed, _SHARDS, epoch, 0).permutation(len(self._urls)):
            count = self.counts[shard]
            if skip >= count:
                skip -= count
                continue
            read = 0
            for read, sample in enumerate(read_shard(self._urls[shard], Counter()), 1):
                if read > count:
                    break
                if read > skip:
                    yield sample
            if read != count:
                raise InputError(
                    f"{self._urls[shard]} no longer holds the {count} samples that were counted: "
                    f"delete the index ({INDEX}) to count again, and start a new run"
                )
            skip = 0

    def _decode_ahead(
        self, windows: _InOrder, positions: Sequence[int], decoders: ThreadPoolExecutor
    ) -> list[Future[tuple[NDArray[np.uint8], list[int]]]]:
        places = []
        for position in positions:
            number, place = self._place(position)
            places.append((windows.get(number), place))
        return [
            decoders.submit(self._decode, places[begin : begin + _PIECE])
            for begin in range(0, len(places), _PIECE)
        ]

    def _decode(self, places: Sequence[tuple[_Window, int]]) -> tuple[NDArray[np.uint8], list[int]]:
        shape = (len(places), self.image_channels, self.resolution, self.resolution)
        images, labels = np.empty(shape, np.uint8), []
        for image, (window, place) in zip(images, places, strict=True):
            image[:], label = self._decode_one(window, place)
            labels.append(label)
        return images, labels

    def _decode_one(self, window: _Window, place: int) -> tuple[NDArray[np.uint8], int]:
        """The image at a place of a window, or the next good one."""
        for turn in range(len(window.samples)):
            sample = window.samples[(place + turn) % len(window.samples)]
            try:
                image, brightest = decode_image(sample.data, self.image_channels)
            except CorruptImageError as error:
                if self._strict:
                    raise InputError(f"{sample.name} is corrupt: {error}") from error
                if sample.name not in self._replaced:
                    self._replaced.add(sample.name)
                    logger.warning("skipped the corrupt image %s (%s)", sample.name, error)
            else:
                if brightest is not None and not self._warned_of_range:
                    self._warn_of_range(sample.name, brightest)
                return to_array(fit_square(image, self.resolution)), self._label(sample)
        raise InputError(f"{window.samples[0].name} and all images near it are corrupt")

    def _warn_of_range(self, name: str, brightest: int) -> None:
        """Say that a 16-bit image seems to use fewer bits; all images together cannot be seen."""
        if 4 * brightest <= WHITE:
            self._warned_of_range = True
            logger.warning(
                "%s has no level over %d of %d and becomes dark: if these images use fewer than 16 "
                "bits, load or pack the shards, which finds the range that they use",
                name,
                brightest,
                WHITE,
            )

    def _label(self, sample: Sample) -> int:
        if not self.class_names:
            return 0
        if sample.label not in self._numbers:  # when the shards were counted all had a class
            raise InputError(
                f"{sample.name} has the label {sample.label!r}, which was not there when the "
                f"samples were counted: delete the index ({INDEX}), and start a new run"
            )
        return self._numbers[sample.label]


class _InOrder:
    """Windows one after another, the next one always being read."""

    def __init__(self, windows: Iterator[_Window], reader: ThreadPoolExecutor) -> None:
        self._windows = windows
        self._reader = reader
        self._next = reader.submit(next, windows)
        self._current = _Window(-1, [])

    def get(self, number: int) -> _Window:
        """A window that is not before the last one asked for."""
        while self._current.number < number:
            self._current = self._next.result()
            self._next = self._reader.submit(next, self._windows)
        return self._current


def _joined(pieces: Sequence[Future[tuple[NDArray[np.uint8], list[int]]]]) -> tuple[Tensor, Tensor]:
    results = [piece.result() for piece in pieces]
    images = np.concatenate([images for images, _ in results])
    labels = [label for _, labels in results for label in labels]
    return torch.from_numpy(images), torch.tensor(labels, dtype=torch.int64)


def _generator(seed: int, purpose: int, epoch: int, window: int) -> np.random.Generator:
    sequence = np.random.SeedSequence([seed, purpose, epoch, window])
    return np.random.Generator(np.random.PCG64(sequence))
