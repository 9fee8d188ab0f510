"""A dataset's image files, in order and with their classes; many of them decoded in parallel."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from glob import glob
from itertools import product
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from biggan.classes import normal_name
from biggan.data.arrays import list_arrays, read_numpy, to_pnm
from biggan.data.dataset import Resize, fit_square, to_array
from biggan.data.decoding import (
    WHITE,
    CorruptImageError,
    decode_image,
    image_endings,
    strict_pillow,
)
from biggan.data.folders import (
    Choice,
    Reader,
    is_image,
    is_system_file,
    read_folder,
    read_zip,
    walk_files,
)
from biggan.data.layout import Item, number_folders, number_labels, part_of_dataset
from biggan.data.parquet import read_parquet
from biggan.data.tars import is_compressed, read_tars
from biggan.errors import InputError, most_similar, quoted, whole_number
from biggan.hub import is_dataset, obtain_dataset

logger = logging.getLogger("biggan.data")

_NAMED = 5  # corrupt files, reasons, and endings that a message names
_DARK = 16  # times darker than white is nearly black
_KINDS = (".tar", ".parquet")
_BRACES = re.compile(r"\{(\d+\.\.\d+|[^{}]*,[^{}]*)\}")  # as in a shell
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_NUMBERED = re.compile(r"(.+?)-\d+-of-\d+(-[0-9a-f]+)?")  # "train-00000-of-00002" of Hugging Face
_WAITING = 4  # pieces of work for each thread that are begun or wait to be fetched

_Piece = TypeVar("_Piece")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Source:
    """The images of a dataset in order: by class, then by name."""

    reader: Reader = field(repr=False)
    name: str  # for people: the basename of the folder or file, and the part
    resize: Resize  # what becomes of images that are not square
    handles: Sequence[Any] = field(repr=False)  # what the reader needs for each image
    members: Sequence[str] = field(repr=False)  # a unique name of each: a relative path, as a rule
    labels: Sequence[int] = field(repr=False)  # all 0 without classes
    class_names: tuple[str, ...]  # in order; none for a dataset without classes
    order: NDArray[np.int64] = field(repr=False)  # positions in the order that is fastest to read

    @property
    def files(self) -> Sequence[Path]:
        """The files that the images are in, or are."""
        return self.handles if self.reader.containers is None else self.reader.containers

    def __len__(self) -> int:
        return len(self.members)

    def read(self, position: int) -> bytes:
        """The bytes of an image file; see `Reader.read`."""
        return self.reader.read(self.handles[position])


@contextlib.contextmanager
def open_source(
    path: Path,
    *,
    unconditional: bool = False,
    label_column: str | None = None,
    resize: Resize = "crop",
) -> Iterator[Source]:
    """Open images with classes: a folder, a zip or tar, arrays, parquet files or shards.

    Parquet files and shards are one, a folder of them, or a pattern with {0000..0009}, {a,b} or *.
    "PATH::FOLDER" is a folder inside of an archive; "hf://datasets/owner/name" a data set of the
    Hub, whose parquet files are fetched. The other arguments are those of `Reading`.

    Raises:
        InputError: There is no image, or something about the source must be corrected.
    """
    if resize not in get_args(Resize):
        raise InputError(f"resize must be one of {get_args(Resize)}, not {quoted(resize)}")
    name = None
    if is_dataset(path):
        name, path = re.sub("^hf:/+", "hf://", str(path)), obtain_dataset(path)
    whole, part = split_part(path)
    choice = Choice(unconditional, None if unconditional else label_column, part)
    with ExitStack() as opened:
        try:
            reader = _open_reader(whole, choice, opened)
        except PermissionError as error:
            raise InputError(f"{path}: no permission to read {error.filename}") from error
        name = name or whole.resolve().name + (f"::{part}" if part else "")
        yield _arrange(path, name, reader, resize, unconditional=unconditional)


def split_part(path: Path) -> tuple[Path, str | None]:
    """An archive, and the folder in it: of "set.zip::train" or "set.zip/train"."""
    whole, separator, part = str(path).rpartition("::")
    if path.exists():
        return path, None
    if separator:
        return Path(whole), part.strip("/")
    archive = next((above for above in path.parents if above.is_file()), None)
    return (archive, path.relative_to(archive).as_posix()) if archive else (path, None)


def _open_reader(path: Path, choice: Choice, opened: ExitStack) -> Reader:
    found = containers(path)
    if found and found[0].suffix.lower() == ".parquet":
        return read_parquet(found, path, choice, opened)
    if found:
        own = {shard.stem for shard in found}  # img2dataset writes a table beside each shard
        tables = sorted(found[0].parent.glob("*.parquet")) if path.is_dir() else ()
        if others := [table for table in tables if table.stem not in own]:
            logger.warning(
                f"using the {len(found)} shards, not the parquet files beside them, such as "
                f"{others[0]}: name the parquet files if they are the data"
            )
        return read_tars(found, path, choice, opened)
    if path.is_dir():
        return read_folder(path, choice)
    check_exists(path)
    if path.suffix.lower() == ".zip":
        return read_zip(path, choice, opened)
    if path.suffix.lower() in (".npy", ".npz"):
        items = read_numpy(path)
        return Reader(items, to_pnm, [path], labelled=items[0].label is not None)
    if list_arrays([path.name]):  # its labels lie beside it
        return read_folder(path.parent, choice._replace(part=path.name))
    raise InputError(f"{path} is neither a folder of class folders nor a .zip or .tar of one")


def _arrange(
    path: Path, name: str, reader: Reader, resize: Resize, *, unconditional: bool
) -> Source:
    """Give the images of a reader their classes, names and order.

    The order is that of a folder of class folders, so the same images make the same dataset, down
    to its fingerprint, whichever way they are stored.
    """
    items = reader.items
    if not items:
        others = f", only {_by_ending(reader.left_out)}" if reader.left_out else ""
        kinds = " ".join(sorted(ending[1:] for ending in image_endings()))
        archives = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"}
        way_out = "; unpack it first" if archives & set(reader.left_out) else ""
        raise InputError(f"{path} holds no images{others} (looked for {kinds}){way_out}")
    labels: list[int | None] = [0] * len(items)
    class_names: tuple[str, ...] = ()
    key: Callable[[str], str] = str
    if not unconditional and reader.labelled:
        found = {item.label: item.place for item in reversed(items)}  # the first place of each
        numbers, class_names = number_labels(path, found, reader.class_table)
        labels = [numbers[item.label] for item in items]
    elif not unconditional:
        names = [item.place for item in items]
        in_zip = reader.containers is not None
        labels, class_names = number_folders(names, path, folders=reader.folders, in_zip=in_zip)
        key = normal_name
    if reader.unclear_names and not all(map(str.isascii, class_names)):
        raise InputError(reader.unclear_names)
    names = _names(items, labels, class_names)
    ranked = sorted(
        (label, key(name), name, place)
        for place, (label, name) in enumerate(zip(labels, names, strict=True))
        if label is not None
    )
    places = [place for *_, place in ranked]
    return Source(
        reader,
        name=name,
        resize=resize,
        handles=[items[place].handle for place in places],
        members=[name for _, _, name, _ in ranked],
        labels=[label for label, *_ in ranked],
        class_names=class_names,
        order=np.argsort(np.array(places, np.int64)),
    )


def _names(
    items: Sequence[Item], labels: Sequence[int | None], class_names: Sequence[str]
) -> list[str]:
    """A unique name for each image."""
    known = [item.name for item in items if item.name]
    if class_names and len(set(known)) < len(known) == len(items):
        # Hugging Face drops the folders: "0001.png" occurs once in every class.
        known = [f"{class_names[n or 0]}/{name}" for n, name in zip(labels, known, strict=True)]
    return known if len(set(known)) == len(items) else [item.place for item in items]


def check_exists(path: Path) -> None:
    """Refuse a path where nothing is, and say what is called nearly so; patterns and hf:// pass."""
    path, _ = split_part(path)
    if path.exists() or is_dataset(path) or _is_pattern(path):
        return
    missing = path
    while not missing.parent.is_dir():
        missing = missing.parent
    siblings = [
        s.name for s in missing.parent.iterdir() if not s.name.startswith(".") and s.exists()
    ]
    spellings = {normal_name(name): name for name in siblings}
    nearest = most_similar(normal_name(missing.name), spellings)
    hint = f"; did you mean {missing.parent / spellings[nearest]}?" if nearest else ""
    raise InputError(f"no such file or folder: {path}{hint}")


def _is_pattern(path: Path) -> bool:
    return path.suffix.lower() in _KINDS and any(mark in str(path) for mark in "{*?")


def expand(pattern: str) -> list[Path]:
    """The paths that a pattern means: {0000..0009} and {a,b} in order, then * and ? by name.

    Raises:
        InputError: A path that the braces name does not exist, or nothing matches.
    """
    pieces = _BRACES.split(pattern)
    choices = []
    for number, piece in enumerate(pieces):
        if span := number % 2 and _RANGE.fullmatch(piece):
            first, last = span.groups()
            choices.append([f"{n:0{len(first)}}" for n in range(int(first), int(last) + 1)])
        else:
            choices.append(piece.split(",") if number % 2 else [piece])
    found: list[Path] = []
    for name in map("".join, product(*choices)):
        # Only * and ? have a meaning: [ may be in the name of a folder.
        matches = sorted(glob(name.replace("[", "[[]"))) if "*" in name or "?" in name else [name]  # noqa: PTH207
        if not matches or not Path(matches[0]).exists():
            raise InputError(f"no such file: {name}")
        found += map(Path, matches)
    return found


def containers(path: Path) -> tuple[Path, ...]:
    """The parquet files or shards that a path means; none where it means image files.

    They may be below a folder, as in a dataset's repository on the Hub, if no images are.

    Raises:
        InputError: They are of several parts of a dataset, or in several folders.
    """
    if path.is_file():
        return (path,) if path.suffix.lower() in _KINDS or is_compressed(path) else ()
    if _is_pattern(path):
        found = tuple(expand(str(path)))
        if not _BRACES.search(str(path)):  # braces may name several parts on purpose
            _check_one_part(path, found)
        return found
    if not path.is_dir():
        return ()
    visible = sorted(entry for entry in path.iterdir() if not is_system_file(entry.name))
    shards, tables = (
        [entry for entry in visible if entry.suffix.lower() == kind] for kind in _KINDS
    )
    if any(is_image(entry.name) for entry in visible):
        tables = []  # they describe the images
    found = tuple(shards or tables)
    if found and not any(entry.is_dir() for entry in visible):
        _check_one_part(path, found)
        return found
    # Class folders may be beside the archives they came from.
    if any(map(is_image, walk_files(path))) or list_arrays(names := list(walk_files(path))):
        return ()
    files = [path / name for name in names]
    places = {file.parent for file in files if file.suffix.lower() in _KINDS}
    places |= {file for file in files if file.suffix.lower() == ".zip" or is_compressed(file)}
    if not places:
        return ()
    if places == {path}:  # beside folders that hold nothing
        _check_one_part(path, found)
        return found
    if len(places) == 1 and (only := min(places)).is_dir():
        return containers(only)

    def unlikely(place: Path) -> tuple[bool, Path]:
        names = (*place.relative_to(path).parts[:-1], place.stem)
        return "train" not in map(part_of_dataset, names), place

    likely = sorted(places, key=unlikely)
    named = ", ".join(str(place.relative_to(path)) for place in likely[:_NAMED])
    more = ", ..." * (len(likely) > _NAMED)
    raise InputError(
        f"{path} contains no images, but data in {named}{more}: did you mean {likely[0]}?"
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
            f"{path} contains the splits of a dataset ({', '.join(sorted(patterns))}): name one, "
            f"such as {files[0].parent / patterns[best]}"
        )


@dataclass
class Findings:
    """What decoding found out about images, by position.

    `white` is the level that became white in those with more than 8 bits, `corrupt` says why images
    are corrupt, and `levels` is the brightest level of those that do not state their range.
    """

    white: int = WHITE
    corrupt: dict[int, str] = field(default_factory=dict)
    levels: dict[int, int] = field(default_factory=dict)

    def update(self, other: Findings) -> None:
        """Add what was found about other images."""
        self.corrupt |= other.corrupt
        self.levels |= other.levels

    @property
    def range_used(self) -> int:
        """The highest level of the bits that the images use: what should become white."""
        bits = max(self.levels.values(), default=WHITE).bit_length()
        return int(2 ** max(8, bits) - 1)


def decode(
    source: Source,
    chunks: Sequence[NDArray[np.int64]],
    channels: int,
    resolution: int,
    white: int,
    workers: int | None,
) -> Generator[tuple[NDArray[np.uint8], Findings]]:
    """Read and decode images at chunks of positions, in threads.

    Yields for each chunk uint8 pixels (N, channels, resolution, resolution), 0 where an image is
    corrupt; and what was found out about the images.
    """

    def decode_chunk(positions: NDArray[np.int64]) -> tuple[NDArray[np.uint8], Findings]:
        images = np.zeros((len(positions), channels, resolution, resolution), np.uint8)
        findings = Findings(white)
        for image, position in zip(images, positions.tolist(), strict=True):
            try:
                decoded, brightest = decode_image(source.read(position), channels, white)
                image[:] = to_array(fit_square(decoded, resolution, source.resize))
            except CorruptImageError as error:
                findings.corrupt[position] = str(error)
            else:
                if brightest is not None:
                    findings.levels[position] = brightest
        return images, findings

    with strict_pillow(), contextlib.closing(in_parallel(decode_chunk, chunks, workers)) as decoded:
        yield from decoded


def in_parallel(
    work: Callable[[_Piece], _Result], pieces: Sequence[_Piece], workers: int | None
) -> Generator[_Result]:
    """Map a function over pieces in threads, in order, a few pieces ahead of the caller.

    Pillow decodes outside of Python's lock. `workers` is one thread per processor by default.
    """
    count = count_workers(workers)
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


def count_workers(workers: int | None) -> int:
    """The number of threads: one per processor by default."""
    if workers is not None and whole_number(workers, "the number of workers") < 1:
        raise InputError(f"the number of workers must be at least 1, not {workers}")
    return workers or os.cpu_count() or 1


def progress_bar(total: int, title: str, shown: bool, **options: Any) -> tqdm[Any]:
    """A bar that appears after two seconds, on a terminal only."""
    return tqdm(total=total, desc=title, delay=2, disable=None if shown else True, **options)


def check_findings(path: Path, source: Source, findings: Findings, *, strict: bool) -> None:
    """Warn of images that are left out or nearly black.

    Raises:
        InputError: There are corrupt images and `strict` is set, or no image of a class is left.
    """
    warn_of_other_files(source.reader.left_out)
    if corrupt := findings.corrupt:
        alike: dict[str, list[int]] = defaultdict(list)  # those with the same reason
        for position, reason in sorted(corrupt.items()):
            alike[re.sub(r"\d+", "0", reason)].append(position)  # how much is missing differs
        reasons = []
        for positions in sorted(alike.values(), key=len, reverse=True)[:_NAMED]:
            named = ", ".join(source.members[position] for position in positions[:_NAMED])
            more = f" and {len(positions) - _NAMED} more" if len(positions) > _NAMED else ""
            reasons.append(f"{named}{more} ({corrupt[positions[0]]})")
        reasons += ["..."] * (len(alike) > _NAMED)
        plural = "s" * (len(corrupt) > 1)
        what = f"{len(corrupt)} corrupt image{plural} of {len(source)}: {'; '.join(reasons)}"
        if strict:
            raise InputError(f"{path} has {what}")
        left = np.delete(source.labels, sorted(corrupt)).tolist()
        if lost := set(source.labels) - set(left):
            of_class = f" of class {source.class_names[min(lost)]!r}" if left else ""
            raise InputError(f"{path}: no image{of_class} can be read, {what}")
        logger.warning("skipped %s", what)
    white, levels = findings.white, findings.levels
    if white < WHITE:
        logger.warning(
            f"the {len(levels)} images with 16 bits use {white.bit_length()} bits, up to level "
            f"{white}: that level is white"
        )
    if dark := {place: level for place, level in levels.items() if level * _DARK <= white + 1}:
        logger.warning(
            f"{len(dark)} of {len(levels)} images with 16 bits are nearly black, with no level "
            f"over {max(dark.values())} of {white}, such as {source.members[min(dark)]}: if they "
            "use fewer bits than the others, save them with 8"
        )


def warn_of_other_files(left_out: Counter[str]) -> None:
    """Say how many files of which endings are left out, if any."""
    if left_out:
        files = f"{left_out.total()} file" + "s" * (left_out.total() > 1)
        logger.warning("skipped %s that are not images: %s", files, _by_ending(left_out))


def _by_ending(left_out: Counter[str]) -> str:
    ordered = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    named = [
        f"{count} {ending[:20] or 'without an extension'}" for ending, count in ordered[:_NAMED]
    ]
    others = sum(count for _, count in ordered[_NAMED:])
    return ", ".join(named + [f"{others} others"] * (others > 0))
