"""WebDataset shards as a stream, for data that no disk holds.

A shard can be read in one direction only: every epoch shuffles the shards, and then the samples
inside windows of a fixed size. What is at a position of the stream depends on nothing but (seed,
position): a run resumes from the number of images it has seen, and several processes can each take
their share of a batch. Shards whose samples are sorted by class are mixed too little by this: their
samples should be shuffled once, when they are made.

A stream must know the length of an epoch, where in it each shard begins, and the classes. Each
shard is read once for that, and its contents are kept in an index beside the shards.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import math
import operator
import os
import re
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biggan.atomic_write import write_atomically
from biggan.data.dataset import Resize, check_form, fit_square, is_address, to_array
from biggan.data.decoding import WHITE, CorruptImageError, decode_image, strict_pillow
from biggan.data.layout import Item, Label, number_labels
from biggan.data.packed import is_packed
from biggan.data.sampler import generator
from biggan.data.sources import (
    containers,
    count_workers,
    expand,
    in_parallel,
    progress_bar,
    warn_of_other_files,
)
from biggan.data.tars import read_class_table, read_stream, webdataset
from biggan.errors import InputError, whole_number

logger = logging.getLogger("biggan.data")

INDEX = "shards-index.json"
WINDOW = 4096
_FORMAT = "biggan shard index, version 2"
_SAVE_EVERY = 5.0  # seconds: the file grows with the shards, and is written whole
# Around a shard's name in an address or a shell command.
_NAME = re.compile(r"[^/\\\s'\"=&?]+\.tar(?![\w.])")
# What the random numbers are for: keeps the streams of one seed apart.
_SHARDS = 0x5344
_WINDOW = 0x574E
_AHEAD = 4  # batches that are decoded, or being decoded, before they are asked for
_PIECE = 8  # images that a thread decodes at a time

_Samples = list[Item]  # of a window, in the order of the stream; their handles are bytes
_Decoded = list[tuple[NDArray[np.uint8], int]]


class ShardStream:
    """An endless stream of images from shards; every epoch is a permutation of its own.

    Args:
        urls: Shards as a pattern with `{0000..0009}` or `*`, a folder of them, or a list. What the
            `webdataset` library opens may be among them: https://, s3:// by its programs, and
            "pipe:" with a shell command, which is run.
        class_names: The classes in the order of the numbers in the shards; none for a stream
            without classes. If it is None, those of `classes.txt` beside the first shard, or else
            the labels that were found.
        seed: Selects the order; 0 or more.
        index: The file that keeps how many samples each shard has, and of which labels. They are
            counted by reading each shard once. By default beside the first shard, if that is a
            file.
        window: Samples that are shuffled together. They are in memory as they are stored, twice:
            the window in use, and the next one.
        strict: Refuse a corrupt image. Without it the next good one of its window replaces it.
        label_column: The key of the labels in .json files; None for `label`, or .cls files.

    The other arguments are those of `load_dataset`.

    Attributes:
        class_names: The classes in order; empty for a stream without classes.
        counts: Samples in each shard.
        source: A name for people: the basename of the shards.

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
        label_column: str | None = None,
        resize: Resize = "crop",
        progress: bool = True,
    ) -> None:
        check_form(resolution, image_channels)
        if whole_number(window, "the window") < 1 or whole_number(seed, "the seed") < 0:
            raise InputError(
                f"the window is at least 1 and the seed at least 0, not {window} and {seed}"
            )
        self.resolution = resolution
        self.image_channels = image_channels
        self._seed = seed
        self._window = window
        self._workers = count_workers(workers)
        self._strict = strict
        self._label_column, self._resize = label_column, resize
        self._replaced: set[str] = set()
        self._warned_of_range = False
        self._urls = expand_shards(urls)
        self.source = shard_name(str(urls if isinstance(urls, (str, Path)) else self._urls[0]))
        file = index_file(self._urls) if index is None else Path(index).expanduser()
        contents = count_shards(self._urls, file, label_column, workers=workers, progress=progress)
        if contents is None:
            raise InputError(f"the shards of {self.source} changed during counting")
        self._contents = contents
        self.counts = [shard.samples for shard in contents]
        if len(self) == 0:
            raise InputError(f"{self._urls[0]} and the other shards hold no images")
        self._windows_per_epoch = -(-len(self) // window)
        self._numbers, self.class_names = number_classes(self._urls, contents, class_names)

    def __len__(self) -> int:
        """Images in an epoch."""
        return sum(self.counts)

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 for a stream without classes."""
        return len(self.class_names)

    def histogram(self) -> list[int]:
        """Images per class, in the order of `class_names`; corrupt ones are among them."""
        counts = [0] * self.num_classes
        for label, count in (pair for shard in self._contents for pair in shard.labels):
            if label in self._numbers:
                counts[self._numbers[label]] += count
        return counts

    @property
    def window_bytes(self) -> int:
        """Memory that the waiting images take, as they are stored."""
        stored = sum(shard.stored_bytes for shard in self._contents)
        return 2 * min(self._window, len(self)) * stored // len(self)

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 over what the order depends on: shows on resuming that the shards changed."""
        names = [shard_name(url) for url in self._urls]
        labels = [shard.labels for shard in self._contents]
        about = (names, labels, self.class_names, self._window)
        return hashlib.sha256(repr(about).encode()).hexdigest()

    def batches(self, positions: Iterable[NDArray[np.int64]]) -> Generator[tuple[Tensor, Tensor]]:
        """Images of the stream, decoded ahead in threads.

        The positions (N,) of each batch's images in the stream are ascending, and beyond those of
        the batch before; the first image that a run has not seen is at the number of those that it
        has seen. Where several processes share a batch, each reads all the shards and decodes its
        part.

        Yields:
            uint8 images (N, C, R, R) and int64 labels (N,), for each batch.

        Raises:
            InputError: A shard cannot be read or changed; a label is none of the classes.
        """
        reader, decoders = ThreadPoolExecutor(1), ThreadPoolExecutor(self._workers)
        waiting: deque[list[Future[_Decoded]]] = deque()
        windows, number, samples = None, -1, _Samples()
        try:
            with strict_pillow():
                for batch in positions:
                    found = []
                    for position in batch.tolist():
                        epoch, offset = divmod(position, len(self))
                        window, place = divmod(offset, self._window)
                        window += epoch * self._windows_per_epoch
                        if windows is None:
                            windows, number = _one_ahead(self._windows(window), reader), window - 1
                        while number < window:
                            number, samples = number + 1, next(windows)
                        found.append((samples, place))
                    pieces = (found[i : i + _PIECE] for i in range(0, len(found), _PIECE))
                    waiting.append([decoders.submit(self._decode, piece) for piece in pieces])
                    if len(waiting) > _AHEAD:
                        yield _joined(waiting.popleft())
                while waiting:
                    yield _joined(waiting.popleft())
        finally:
            reader.shutdown(cancel_futures=True)
            decoders.shutdown(cancel_futures=True)

    def _windows(self, number: int) -> Iterator[_Samples]:
        """The windows from one on, without end."""
        samples: Iterator[Item] = iter(())
        for current in itertools.count(number):
            epoch, window = divmod(current, self._windows_per_epoch)
            if window == 0 or current == number:
                samples = self._epoch(epoch, skip=window * self._window)
            size = min(self._window, len(self) - window * self._window)
            stored = [next(samples) for _ in range(size)]
            order = generator(self._seed, _WINDOW, epoch, window).permutation(size)
            yield [stored[place] for place in order]

    def _epoch(self, epoch: int, skip: int) -> Iterator[Item]:
        """An epoch's samples in the order of its shards, without the first few."""
        for shard in generator(self._seed, _SHARDS, epoch, 0).permutation(len(self._urls)):
            url, count = self._urls[shard], self.counts[shard]
            if skip >= count:
                skip -= count
                continue
            read = 0
            stream = read_stream(url, shard_name(url), Counter(), self._label_column)
            for read, sample in enumerate(stream, 1):
                if read > count:
                    break
                if read > skip:
                    yield sample
            if read != count:
                raise InputError(
                    f"{url} no longer contains the {count} samples that were counted: delete the "
                    f"index ({INDEX}) to count again, and start a new run"
                )
            skip = 0

    def _decode(self, places: Sequence[tuple[_Samples, int]]) -> _Decoded:
        return [self._decode_one(samples, place) for samples, place in places]

    def _decode_one(self, samples: _Samples, place: int) -> tuple[NDArray[np.uint8], int]:
        """The image at a place of a window, or the next good one."""
        for sample in samples[place:] + samples[:place]:
            try:
                image, brightest = decode_image(sample.handle, self.image_channels)
            except CorruptImageError as error:
                if self._strict:
                    raise InputError(f"{sample.place} is corrupt: {error}") from error
                if sample.place not in self._replaced:
                    self._replaced.add(sample.place)
                    logger.warning("skipped the corrupt image %s (%s)", sample.place, error)
                continue
            # All images together cannot be seen.
            if brightest is not None and 4 * brightest <= WHITE and not self._warned_of_range:
                self._warned_of_range = True
                logger.warning(
                    f"{sample.place} has no level over {brightest} of {WHITE} and becomes dark: if "
                    "these images use fewer than 16 bits, load or pack the shards, which finds the "
                    "range that they use"
                )
            if self.class_names and sample.label not in self._numbers:
                raise InputError(
                    f"{sample.place} has the label {sample.label!r:.100}, which did not exist "
                    f"when the samples were counted: delete the index ({INDEX}), and start a new "
                    "run"
                )
            square = fit_square(image, self.resolution, self._resize)
            return np.ascontiguousarray(to_array(square)), self._numbers.get(sample.label, 0)
        raise InputError(f"{samples[0].place} and all images of its window are corrupt")


def _one_ahead(windows: Iterator[_Samples], reader: ThreadPoolExecutor) -> Iterator[_Samples]:
    """Windows one after another, the next one always being read."""
    following = reader.submit(next, windows)
    while True:
        current, following = following.result(), reader.submit(next, windows)
        yield current


def _joined(pieces: Sequence[Future[_Decoded]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*(pair for piece in pieces for pair in piece.result()), strict=True)
    return torch.from_numpy(np.stack(images)), torch.tensor(labels, dtype=torch.int64)


class ShardContents(NamedTuple):
    """How many samples of a shard have each label, in a fixed order; and bytes of its images."""

    labels: tuple[tuple[Label, int], ...]
    stored_bytes: int

    @property
    def samples(self) -> int:
        """Images in the shard."""
        return sum(count for _, count in self.labels)


def shard_name(url: str) -> str:
    """The basename of a shard or a pattern of them, without any password in an address."""
    names = _NAME.findall(url)
    if names:
        return str(names[-1])
    return "shards" if is_address(url) else Path(url).expanduser().resolve().name


def expand_shards(urls: str | Path | Sequence[str | Path]) -> list[str]:
    """The shards that a pattern, a folder, an address, or a list of these means, in order."""
    found: list[str] = []
    for url in [urls] if isinstance(urls, (str, Path)) else urls:
        if is_address(str(url)):
            found += webdataset().shardlists.expand_urls(str(url))
            continue
        path = Path(url).expanduser()
        if path.is_dir() and is_packed(path):
            raise InputError(
                f"{path} is a packed dataset, which cannot be streamed: leave out stream=true"
            )
        files = containers(path) if path.is_dir() else expand(str(path))
        others = [file for file in files if file.suffix.lower() != ".tar"]
        if others or not files:
            raise InputError(
                f"{(*others, path)[0]} is not a .tar shard, and only those are streamed"
            )
        found += map(str, files)
    if not found:
        raise InputError("no shards are named")
    return found


def index_file(urls: Sequence[str], otherwise: Path | None = None) -> Path:
    """Where the contents of shards are kept: beside the first one, or in another folder.

    The other folder is for addresses, and for where nothing can be written.

    Raises:
        InputError: The shards are addresses, and there is no other folder.
    """
    if not is_address(urls[0]):
        folder = Path(urls[0]).parent
        if otherwise is None or (folder / INDEX).is_file() or os.access(folder, os.W_OK):
            return folder / INDEX
    if otherwise is None:
        raise InputError(f"give a path for the index of the shards (index=...{INDEX})")
    return otherwise / INDEX


def read_index(
    urls: Sequence[str], file: Path, column: str | None = None
) -> list[ShardContents] | None:
    """The contents of shards, as the index has them; None where some are missing.

    `column` is that of the labels, as in `ShardStream`.
    """
    return _look_up(_read(file), urls, column)


def _look_up(
    known: Mapping[str, ShardContents], urls: Sequence[str], column: str | None
) -> list[ShardContents] | None:
    found = [known[key] for url in urls if (key := _key(url, column)) in known]
    return found if len(found) == len(urls) else None


def count_shards(
    urls: Sequence[str],
    file: Path,
    column: str | None = None,
    *,
    workers: int | None = None,
    seconds: float = math.inf,
    progress: bool = True,
) -> list[ShardContents] | None:
    """Read the shards that are not in the index yet, and add them to it.

    After an interruption of any kind, what was counted stays counted. It stops at the first shard
    that is counted after `seconds`.

    Returns:
        The contents of the shards; None where some are not counted yet.

    Raises:
        InputError: A shard cannot be read, or the index not be written.
    """
    known = _read(file)
    missing = [url for url in urls if _key(url, column) not in known]
    if missing and not file.parent.is_dir():
        raise InputError(f"cannot write {file}: there is no such folder")
    begun = saved = time.monotonic()
    left_out = Counter[str]()
    bar = progress_bar(
        len(urls), "counting", progress, unit=" shards", initial=len(urls) - len(missing)
    )
    counting = in_parallel(functools.partial(_count, column), missing, workers)
    try:
        with bar, contextlib.closing(counting) as counted:
            for url, (contents, others) in zip(missing, counted, strict=True):
                known[_key(url, column)] = contents
                left_out += others
                bar.update()
                now = time.monotonic()
                if now - begun > seconds:
                    break
                if now - saved > _SAVE_EVERY:
                    _write(file, known)
                    saved = now
    finally:
        if missing:
            _write(file, known)
        warn_of_other_files(left_out)
    return _look_up(known, urls, column)


def number_classes(
    urls: Sequence[str], contents: Sequence[ShardContents], given: Sequence[str] | None
) -> tuple[dict[Label, int], tuple[str, ...]]:
    """The class of each label in shards, and the class names; see `layout.number_labels`.

    `given` are the class names in the order of the numbers in the shards; none for shards without
    classes. If it is None they are those of `classes.txt` beside the first shard, or else the
    labels themselves.
    """
    if given is not None and not given:
        return {}, ()
    found: dict[Label, str] = {}  # and a shard that has it
    for url, shard in zip(urls, contents, strict=True):
        for label, _ in shard.labels:
            found.setdefault(label, shard_name(url))
    return number_labels("the shards", found, read_class_table(urls[0]) if given is None else given)


def _key(url: str, column: str | None) -> str:
    """The key of a shard in the index: another file of the same name is another shard."""
    labels = "" if column is None else f" {column}"
    if is_address(url):
        return url + labels
    about = Path(url).stat()
    return f"{Path(url).name} {about.st_size} {about.st_mtime_ns}{labels}"


def _count(column: str | None, url: str) -> tuple[ShardContents, Counter[str]]:
    """The contents of a shard, and its files that are left out, by ending."""
    left_out = Counter[str]()
    labels: Counter[Label] = Counter()
    stored_bytes = 0
    for sample in read_stream(url, shard_name(url), left_out, column):
        labels[sample.label] += 1
        stored_bytes += len(sample.handle)
    ordered = sorted(labels.items(), key=lambda item: (str(type(item[0])), item[0] or 0))
    return ShardContents(tuple(ordered), stored_bytes), left_out


def _read(file: Path) -> dict[str, ShardContents]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values["format"] != _FORMAT:
            raise ValueError
        known = {}
        for key, shard in values["shards"].items():
            labels = tuple((label, operator.index(count)) for label, count in shard["labels"])
            if not all(isinstance(label, (int, str, type(None))) for label, _ in labels):
                raise ValueError
            known[key] = ShardContents(labels, operator.index(shard["bytes"]))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{file} is not an index of shards, of another version, or damaged: delete it to count "
            "again"
        ) from None
    return known


def _write(file: Path, known: Mapping[str, ShardContents]) -> None:
    shards = {key: {"bytes": size, "labels": labels} for key, (labels, size) in known.items()}
    write_atomically(file, json.dumps({"format": _FORMAT, "shards": shards}).encode())
