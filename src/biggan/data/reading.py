"""From whatever a user names to images with classes, and from those to pixels.

Five forms look the same from here on: a folder of class folders, a zip of one, parquet files,
WebDataset shards; and each of the last two as one file, a folder of them, or a pattern.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from glob import glob
from itertools import product
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from biggan.data.decoding import WHITE, CorruptImageError, decode_image
from biggan.data.labelled import arrange_labelled, read_label_file
from biggan.data.layout import Layout, arrange, part_of_dataset
from biggan.data.parquet import ParquetFiles
from biggan.data.sources import (
    ImageFiles,
    by_ending,
    is_image,
    is_system_file,
    open_files,
    walk_files,
)
from biggan.data.tars import TarFiles
from biggan.data.transforms import fit_square, to_array
from biggan.errors import InputError

logger = logging.getLogger("biggan.data")

_NAMED = 5  # corrupt files, and reasons, that a message names
_DARK = 16  # times darker than white is nearly black
_KINDS = (".tar", ".parquet")
_BRACES = re.compile(r"\{(\d+\.\.\d+|[^{}]*,[^{}]*)\}")  # as in a shell
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_NUMBERED = re.compile(r"(.+?)-\d+-of-\d+(-[0-9a-f]+)?")  # "train-00000-of-00002" of Hugging Face
_WAITING = 4  # pieces of work per thread that are begun or wait to be fetched

_Piece = TypeVar("_Piece")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Source:
    """Images that are ready to be read; a context manager, as its files are.

    Attributes:
        files: Reads an image by its name.
        layout: The images in the order of the dataset.
        order: int64 (N,): positions in the layout, in the order that is the fastest to read.
        containers: The files that hold the images; None where each image is a file of its own.
    """

    files: ImageFiles
    layout: Layout
    order: NDArray[np.int64]
    containers: tuple[Path, ...] | None

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *error: object) -> None:
        self.files.close()


@dataclass
class Findings:
    """What decoding found out about the images at some positions of the layout.

    Attributes:
        white: The level that became white in images with more than 8 bits.
        corrupt: Why images are corrupt.
        levels: The brightest level of images with more than 8 bits that do not state their range.
    """

    white: int = WHITE
    corrupt: dict[int, str] = field(default_factory=dict)
    levels: dict[int, int] = field(default_factory=dict)

    def update(self, other: Findings) -> None:
        """Add what was found about other images."""
        self.corrupt.update(other.corrupt)
        self.levels.update(other.levels)

    @property
    def range_used(self) -> int:
        """The highest level of the bits that the images use: what should become white."""
        bits = max(self.levels.values(), default=WHITE).bit_length()
        return int(2 ** max(8, bits) - 1)


def open_source(path: Path, *, unconditional: bool = False) -> Source:
    """Open images with classes, in any of the known forms.

    Args:
        path: A folder of class folders, or a .zip of one; or parquet files or shards: one, a
            folder of them, or a pattern with {0000..0009}, {a,b} or *.
        unconditional: Ignore classes.

    Returns:
        At least one image.

    Raises:
        InputError: Something about the source must be mended; the message says what.
    """
    try:
        found = containers(path)
        if found and found[0].suffix.lower() == ".parquet":
            parquet = ParquetFiles(path, found, unconditional=unconditional)
            return Source(parquet, parquet.layout, parquet.order, found)
        if found:
            if path.is_dir():
                _warn_of_tables(found)
            shards = TarFiles(path, found, unconditional=unconditional)
            return Source(shards, shards.layout, shards.order, found)
    except PermissionError as error:
        raise InputError(f"{path}: no permission to read {error.filename}") from error
    files = open_files(path)
    try:
        labels = None if unconditional else read_label_file(files)
        if labels is not None:
            nameless = [None] * len(labels)
            layout, _ = arrange_labelled(path, nameless, files.members, labels, None)
        else:
            layout = arrange(
                files.members,
                path,
                folders=files.folders,
                in_zip=path.is_file(),
                unconditional=unconditional,
            )
        if files.unclear_names and not all(map(str.isascii, layout.class_names)):
            raise InputError(files.unclear_names)
    except InputError:
        files.close()
        raise
    return Source(
        files, layout, np.arange(len(layout.members)), (path,) if path.is_file() else None
    )


def expand(pattern: str) -> list[Path]:
    """The paths that a pattern means: {0000..0009} and {a,b} in order, then * and ? by name.

    Raises:
        InputError: A path that the braces name is not there, or nothing matches.
    """
    pieces = _BRACES.split(pattern)
    choices = [_choices(piece) if inside % 2 else [piece] for inside, piece in enumerate(pieces)]
    found: list[Path] = []
    for parts in product(*choices):
        name = "".join(parts)
        # Only * and ? have a meaning: [ may stand in the name of a folder.
        matches = sorted(glob(name.replace("[", "[[]"))) if "*" in name or "?" in name else [name]  # noqa: PTH207
        if not matches or not Path(matches[0]).exists():
            raise InputError(f"no such file: {name}")
        found += map(Path, matches)
    return found


def _choices(inside: str) -> list[str]:
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        return inside.split(",")
    first, last = int(numbers[1]), int(numbers[2])
    return [f"{number:0{len(numbers[1])}}" for number in range(first, last + 1)]


def containers(path: Path) -> tuple[Path, ...]:
    """The parquet files or shards that a path means; none where it means image files.

    They may lie below a folder, as in a dataset's repository on the Hub, if no images do.

    Raises:
        InputError: They are of several parts of a dataset, or in several folders.
    """
    if path.suffix.lower() in _KINDS:
        text = str(path)
        if path.is_file():
            return (path,)
        if any(mark in text for mark in "{*?"):
            found = tuple(expand(text))
            if not _BRACES.search(text):  # those name the parts
                _check_one_part(path, found)
            return found
    if not path.is_dir():
        return ()
    visible = [entry for entry in path.iterdir() if not is_system_file(entry.name)]
    if not any(entry.is_dir() for entry in visible):
        shards, tables = (
            sorted(entry for entry in visible if entry.suffix.lower() == kind) for kind in _KINDS
        )
        if any(is_image(entry.name) for entry in visible):
            tables = []  # what they tell of the images
        if shards or tables:
            _check_one_part(path, shards or tables)
            return tuple(shards or tables)
    # Class folders may lie beside the archives they came from.
    return () if any(map(is_image, walk_files(path))) else _containers_below(path)


def _containers_below(path: Path) -> tuple[Path, ...]:
    files = [path / name for name in walk_files(path)]
    places = {file.parent for file in files if file.suffix.lower() in _KINDS}
    places |= {file for file in files if file.suffix.lower() == ".zip"}
    if len(places) == 1 and (only := next(iter(places))).is_dir():
        return containers(only)
    if places:
        likely = sorted(places, key=lambda place: (not _is_to_train_on(place, path), place))
        named = ", ".join(str(place.relative_to(path)) for place in likely[:_NAMED])
        raise InputError(
            f"{path} holds no images, but data in {named}{', ...' * (len(likely) > _NAMED)}: did "
            f"you mean {likely[0]}?"
        )
    return ()


def _is_to_train_on(place: Path, above: Path) -> bool:
    names = (*place.relative_to(above).parts[:-1], place.stem)
    return "train" in map(part_of_dataset, names)


def _warn_of_tables(shards: Sequence[Path]) -> None:
    own = {shard.stem for shard in shards}  # img2dataset writes a table beside each shard
    tables = sorted(shards[0].parent.glob("*.parquet"))
    others = [table for table in tables if table.stem not in own]
    if others:
        logger.warning(
            "took the %d shards and not the parquet files beside them, such as %s: name those, "
            "if they are the data",
            len(shards),
            others[0],
        )


def _check_one_part(path: Path, files: Sequence[Path]) -> None:
    patterns = {}
    for file in files:
        if match := _NUMBERED.fullmatch(file.stem):
            patterns[match[1]] = f"{match[1]}-*{file.suffix}"
        elif part := part_of_dataset(file.stem):
            patterns[part] = re.sub(r"\d+$", "*", file.stem) + file.suffix
    if len(patterns) > 1:
        best = min(patterns, key=lambda part: (part_of_dataset(part) != "train", part))
        raise InputError(
            f"{path} holds the parts of a dataset ({', '.join(sorted(patterns))}): name one, such "
            f"as {files[0].parent / patterns[best]}"
        )


def decode_chunk(
    source: Source, channels: int, resolution: int, positions: NDArray[np.int64], white: int
) -> tuple[NDArray[np.uint8], Findings]:
    """Read and decode some images.

    Args:
        source: Where from.
        channels: 1 for grey, 3 for colour.
        resolution: The side in pixels.
        positions: Which images, as positions in the layout, (N,).
        white: The level that becomes white in images with more than 8 bits.

    Returns:
        uint8 pixels (N, channels, resolution, resolution), 0 where the image is corrupt, and what
        was found out about the images.
    """
    images = np.zeros((len(positions), channels, resolution, resolution), np.uint8)
    findings = Findings(white)
    for image, position in zip(images, positions.tolist(), strict=True):
        try:
            data = source.files.read(source.layout.members[position])
            decoded, brightest = decode_image(data, channels, white)
            image[:] = to_array(fit_square(decoded, resolution))
        except CorruptImageError as error:
            findings.corrupt[position] = str(error)
        else:
            if brightest is not None:
                findings.levels[position] = brightest
    return images, findings


def in_parallel(
    work: Callable[[_Piece], _Result], pieces: Sequence[_Piece], workers: int | None
) -> Generator[_Result]:
    """Do work in threads, a few pieces ahead of whoever takes the results, in order.

    Args:
        work: What to do to each piece. Pillow decodes outside of Python's lock.
        pieces: What to do it to.
        workers: Threads; one per processor by default.

    Yields:
        The results in the order of the pieces.
    """
    count = workers or os.cpu_count() or 1
    pool = ThreadPoolExecutor(count)
    waiting: deque[Future[_Result]] = deque()
    try:
        for piece in pieces:
            waiting.append(pool.submit(work, piece))
            # Unlike the pool's own map: what is done and not yet taken stays small.
            if len(waiting) >= _WAITING * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def check_findings(path: Path, source: Source, findings: Findings, *, strict: bool) -> None:
    """Warn of images that are left out or nearly black, or refuse them.

    Args:
        path: The source, for messages.
        source: What was decoded.
        findings: What decoding found.
        strict: Refuse corrupt images.

    Raises:
        InputError: There are corrupt images and `strict` is set, or no image of a class is left.
    """
    warn_of_other_files(source.files.left_out)
    _check_corrupt(path, source.layout, findings.corrupt, strict=strict)
    white, levels = findings.white, findings.levels
    if white < WHITE:
        logger.warning(
            "the %d images with 16 bits use %d bits, up to level %d: that level is white",
            len(levels),
            white.bit_length(),
            white,
        )
    dark = [position for position, level in sorted(levels.items()) if level * _DARK <= white + 1]
    if dark:
        logger.warning(
            "%d of %d images with 16 bits are nearly black, with no level over %d of %d, such as "
            "%s: if they use fewer bits than the others, save them with 8",
            len(dark),
            len(levels),
            max(levels[position] for position in dark),
            white,
            source.layout.members[dark[0]],
        )


def warn_of_other_files(left_out: Counter[str]) -> None:
    """Say how many files of which endings are left out, if any."""
    if left_out:
        logger.warning(
            "left out %s not used as images: %s",
            f"{left_out.total()} files" if left_out.total() > 1 else "1 file",
            by_ending(left_out),
        )


def _check_corrupt(path: Path, layout: Layout, corrupt: dict[int, str], *, strict: bool) -> None:
    if not corrupt:
        return
    total = len(layout.members)
    plural = "s" if len(corrupt) > 1 else ""
    what = f"{len(corrupt)} corrupt image{plural} of {total}: {_by_reason(layout, corrupt)}"
    if strict:
        raise InputError(f"{path} has {what}")
    if len(corrupt) == total:
        raise InputError(f"{path}: no image can be read, {what}")
    lost = set(layout.labels) - set(np.delete(layout.labels, sorted(corrupt)).tolist())
    if lost:
        raise InputError(
            f"{path}: no image of class {layout.class_names[min(lost)]!r} can be read, {what}"
        )
    logger.warning("skipped %s", what)


def _by_reason(layout: Layout, corrupt: dict[int, str]) -> str:
    """The names of corrupt images, those with the same reason together."""
    alike: dict[str, list[int]] = defaultdict(list)
    for position, reason in sorted(corrupt.items()):
        alike[re.sub(r"\d+", "0", reason)].append(position)  # how much is missing differs
    groups = sorted(alike.values(), key=len, reverse=True)
    parts = []
    for positions in groups[:_NAMED]:
        named = ", ".join(layout.members[position] for position in positions[:_NAMED])
        if len(positions) > _NAMED:
            named += f" and {len(positions) - _NAMED} more"
        parts.append(f"{named} ({corrupt[positions[0]]})")
    if others := sum(map(len, groups[_NAMED:])):
        parts.append(f"{others} for other reasons")
    return "; ".join(parts)
