"""WebDataset shards as a stream, for data that no disk holds.

A shard can be read in one direction only, so the order of the images is a compromise: every epoch
shuffles the shards, and then shuffles the samples inside windows of a fixed size. Both are pure
functions of (seed, epoch), and so what stands at a position of the stream depends on nothing but
(seed, position): a run resumes from the number of images it has seen, and several processes can
each take their slice of a batch. Shards whose samples are sorted by class are mixed too little by
this; whoever makes shards shuffles them once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from biggan.atomic_write import write_atomically
from biggan.data.decoding import MODES, CorruptImageError, decode_image, strict_pillow
from biggan.data.packed import is_packed
from biggan.data.reading import containers, expand, in_parallel
from biggan.data.tars import BLOCK, image_suffix, parse_label
from biggan.data.transforms import fit_square, to_array
from biggan.errors import InputError

logger = logging.getLogger("biggan.data")

INDEX = "shards-index.json"
_FORMAT = "biggan shard index, version 1"
# What the random numbers are for: keeps the streams of one seed apart.
_SHARDS = 0x5344
_WINDOW = 0x574E
_AHEAD = 4  # batches that are decoded, or being decoded, before they are asked for
_PIECE = 8  # images that a thread decodes at a time


@dataclass(frozen=True)
class _Sample:
    """An image as it is stored, and its class as it is stored."""

    name: str
    data: bytes
    label: int | str | None


@dataclass(frozen=True)
class _Window:
    """Samples that are shuffled together, in the order of the stream."""

    number: int
    samples: list[_Sample]


class ShardStream:
    """An endless stream of images from shards; every epoch is a permutation of its own.

    Args:
        urls: Shards as a pattern with {0000..0009} or *, a folder of them, or a list. What the
            `webdataset` library opens may be among them: https://, s3:// by its programs, and
            "pipe:" with a shell command, which is run.
        resolution: The side of the images in pixels.
        image_channels: 1 for grey, 3 for colour.
        class_names: The classes in the order of the numbers in the shards; none for a stream
            without classes.
        seed: Selects the order; 0 or more.
        index: Where the number of samples in each shard is remembered. They are counted by reading
            each shard once. By default beside the first shard, if that is a file.
        window: Samples that are shuffled together. They are in memory as they are stored, twice:
            the window in use, and the next one.
        workers: Decoding threads; one per processor by default.
        strict: Refuse a corrupt image. Without it the next good one of its window stands in for it.
        progress: Show a bar where counting takes over two seconds, on a terminal.

    Attributes:
        counts: Samples in each shard.

    Raises:
        InputError: `webdataset` is missing, or shards are missing, damaged or empty.
    """

    def __init__(
        self,
        urls: str | Path | Sequence[str | Path],
        resolution: int,
        image_channels: int,
        class_names: Sequence[str],
        seed: int,
        *,
        index: str | Path | None = None,
        window: int = 4096,
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
        self.class_names = tuple(class_names)
        self._numbers = {name: number for number, name in enumerate(self.class_names)}
        self._seed = seed
        self._window = window
        self._workers = workers or os.cpu_count() or 1
        self._strict = strict
        self._replaced: set[str] = set()
        self._urls = _expand(urls)
        self.counts = _counts(self._urls, index, workers, progress=progress)
        if len(self) == 0:
            raise InputError(f"{self._urls[0]} and the other shards hold no images")

    def __len__(self) -> int:
        """Images in an epoch."""
        return sum(self.counts)

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 for a stream without classes."""
        return len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """sha256 over what the order depends on: tells on resuming that the shards changed."""
        names = [Path(url).name for url in self._urls]
        about = (names, self.counts, self.class_names, self._window)
        return hashlib.sha256(repr(about).encode()).hexdigest()

    def batches(
        self, start: int, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> Generator[tuple[Tensor, Tensor]]:
        """The stream from a position on, in batches, decoded ahead in threads.

        Each process reads all the shards and decodes its own part.

        Args:
            start: The position of the first image: how many the run has seen.
            batch_size: Images in a batch of all processes together.
            rank: Which process this is.
            world_size: How many there are; each has its contiguous slice of every batch.

        Yields:
            uint8 images (batch_size / world_size, C, R, R) and int64 labels.

        Raises:
            InputError: A shard cannot be read or changed; a label is none of the classes.
        """
        if start < 0 or batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"no such slice: {start=} {batch_size=} {rank=} {world_size=}")
        if batch_size % world_size:
            raise InputError(
                f"a batch of {batch_size} cannot be divided among {world_size} processes: choose "
                f"a multiple of {world_size}"
            )
        size = batch_size // world_size
        reader, decoders = ThreadPoolExecutor(1), ThreadPoolExecutor(self._workers)
        waiting: deque[list[Future[Any]]] = deque()
        try:
            with strict_pillow():
                first = start + rank * size
                windows = _InOrder(self._windows(self._place(first)[0]), reader)
                for position in _steps(first, batch_size):
                    waiting.append(self._decode_ahead(windows, position, size, decoders))
                    if len(waiting) > _AHEAD:
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

    def _epoch(self, epoch: int, skip: int) -> Iterator[_Sample]:
        """An epoch's samples in the order of its shards, without the first few."""
        for shard in _generator(self._seed, _SHARDS, epoch, 0).permutation(len(self._urls)):
            count = self.counts[shard]
            if skip >= count:
                skip -= count
                continue
            read = 0
            for read, sample in enumerate(_read_shard(self._urls[shard]), 1):
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
        self, windows: _InOrder, position: int, size: int, decoders: ThreadPoolExecutor
    ) -> list[Future[tuple[NDArray[np.uint8], list[int]]]]:
        places = []
        for at in range(position, position + size):
            number, place = self._place(at)
            places.append((windows.get(number), place))
        return [
            decoders.submit(self._decode, places[begin : begin + _PIECE])
            for begin in range(0, size, _PIECE)
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
                image = fit_square(decode_image(sample.data, self.image_channels), self.resolution)
            except CorruptImageError as error:
                if self._strict:
                    raise InputError(f"{sample.name} is corrupt: {error}") from error
                if sample.name not in self._replaced:
                    self._replaced.add(sample.name)
                    logger.warning("skipped the corrupt image %s", sample.name)
            else:
                return to_array(image), self._label(sample)
        raise InputError(f"{window.samples[0].name} and all images near it are corrupt")

    def _label(self, sample: _Sample) -> int:
        if not self.class_names:
            return 0
        label = sample.label
        number = self._numbers.get(label, -1) if isinstance(label, str) else label
        if number is None or not 0 <= number < self.num_classes:
            fault = "no label" if label is None else f"the label {label!r}"
            raise InputError(
                f"{sample.name} has {fault}, and the classes are {self.num_classes}: mend the "
                "shard or the class names"
            )
        return number


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


def _steps(first: int, step: int) -> Iterator[int]:
    while True:
        yield first
        first += step


def _joined(pieces: Sequence[Future[tuple[NDArray[np.uint8], list[int]]]]) -> tuple[Tensor, Tensor]:
    results = [piece.result() for piece in pieces]
    images = np.concatenate([images for images, _ in results])
    labels = [label for _, labels in results for label in labels]
    return torch.from_numpy(images), torch.tensor(labels, dtype=torch.int64)


def _generator(seed: int, purpose: int, epoch: int, window: int) -> np.random.Generator:
    sequence = np.random.SeedSequence([seed, purpose, epoch, window])
    return np.random.Generator(np.random.PCG64(sequence))


def _is_address(url: str) -> bool:
    return "://" in url or url.startswith("pipe:")


def _expand(urls: str | Path | Sequence[str | Path]) -> list[str]:
    """The shards that are meant, in order; files among them exist."""
    found: list[str] = []
    for url in [urls] if isinstance(urls, (str, Path)) else urls:
        if _is_address(str(url)):
            found += _webdataset().shardlists.expand_urls(str(url))
            continue
        path = Path(url).expanduser()
        if path.is_dir():
            if is_packed(path):
                raise InputError(f"{path} is packed: it is loaded, not streamed")
            shards = [file for file in containers(path) if file.suffix.lower() == ".tar"]
            if not shards:
                raise InputError(f"{path} holds no .tar shards")
        else:
            shards = expand(str(path))
        found += map(str, shards)
    if not found:
        raise InputError("no shards are named")
    return found


def _counts(
    urls: Sequence[str], index: str | Path | None, workers: int | None, *, progress: bool
) -> list[int]:
    """Samples in each shard, from the index or by reading it once."""
    file = _index_file(urls, index)
    known = _read_index(file)
    missing = [url for url in urls if _key(url) not in known]
    if missing:
        bar = tqdm(
            total=len(missing),
            desc="counting",
            unit=" shards",
            delay=2,
            disable=None if progress else True,  # None: only on a terminal
        )
        with bar, contextlib.closing(in_parallel(_count, missing, workers)) as counted:
            for url, count in zip(missing, counted, strict=True):
                known[_key(url)] = count
                bar.update()
                _write_index(file, known)
    return [known[_key(url)] for url in urls]


def _index_file(urls: Sequence[str], index: str | Path | None) -> Path:
    if index is not None:
        return Path(index).expanduser()
    if _is_address(urls[0]):
        raise InputError(f"say where the samples' count shall be remembered (index=...{INDEX})")
    return Path(urls[0]).parent / INDEX


def _key(url: str) -> str:
    """What the index calls a shard: another file of the same name and size is another shard."""
    if _is_address(url):
        return url
    about = Path(url).stat()
    return f"{Path(url).name} {about.st_size} {about.st_mtime_ns}"


def _read_index(file: Path) -> dict[str, int]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        shards = values["shards"] if values["format"] == _FORMAT else None
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        shards = None
    if not isinstance(shards, dict) or not all(isinstance(n, int) for n in shards.values()):
        raise InputError(f"{file} is no index of shards or is damaged: delete it to count again")
    return shards


def _write_index(file: Path, counts: dict[str, int]) -> None:
    text = json.dumps({"format": _FORMAT, "shards": counts}, indent=1)
    if not file.parent.is_dir():
        raise InputError(f"cannot write {file}: there is no such folder")
    write_atomically(file, text.encode())


def _count(url: str) -> int:
    return sum(1 for _ in _read_shard(url))


class _Watched:
    """A stream that remembers its last block, which in a whole tar is empty."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.last = b"\1"

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size)
        if data:
            self.last = (self.last + data)[-BLOCK:]
        return data


def _read_shard(url: str) -> Iterator[_Sample]:
    """The samples of a shard that have an image, in order."""
    library = _webdataset()
    stream = None
    try:
        # The library's own dataset is these three, and leaves the file open.
        stream = library.gopen(url)
        watched = _Watched(stream)
        files = library.tariterators.tar_file_expander([{"url": url, "stream": watched}])
        for sample in library.tariterators.group_by_keys(files):
            stored = {key: data for key, data in sample.items() if not key.startswith("__")}
            suffix = image_suffix(stored)
            if suffix is not None:
                name = f"{Path(url).name}/{sample['__key__']}.{suffix}"
                yield _Sample(name, stored[suffix], parse_label(stored))
        stream.close()  # a program that was reading from afar says only here that it failed
        if any(watched.last):  # a tar that is cut between two blocks reads without an error
            raise EOFError("it may be truncated, copy or download it again")
    except Exception as error:  # a damaged tar, a lost connection, a missing program
        reason = " ".join(str(error).split())
        raise InputError(f"cannot read the shard {url}: {reason}") from error
    finally:
        if stream is not None:
            with contextlib.suppress(Exception):
                stream.close()


def _webdataset() -> Any:
    try:
        import webdataset  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError("streams of shards need webdataset: pip install 'biggan[data]'") from error
    return webdataset
