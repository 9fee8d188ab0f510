"""Images in WebDataset shards: tar files in which the files of one sample follow each other.

The files of a sample share a name up to the first dot: `0001.jpg` with `0001.cls` (the number or
name of the class as text) or `0001.json` (an object with the key `label`). Unlike in the library, a
number after a dot belongs to the name: `cat.0.jpg` and `cat.1.jpg` are two samples. A file
`classes.txt` beside the shards names the numbers of classes, one class a line.
https://github.com/webdataset/webdataset
"""

import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

import numpy as np

from biggan.data.decoding import CorruptImageError, image_endings
from biggan.data.labelled import Label, arrange_labelled
from biggan.data.sources import ImageFiles, check_size, is_system_file, raise_disk_fault
from biggan.errors import InputError

CLASS_TABLE = "classes.txt"
BLOCK = 512  # of a tar; two empty ones end it
_NUMBER = re.compile(r"[+-]?\d{1,18}")
_File = TypeVar("_File")


class _Place(NamedTuple):
    """Where the bytes of a file lie inside a shard."""

    shard: Path
    offset: int
    size: int

    def read(self) -> bytes:
        check_size(self.size)
        try:
            with self.shard.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise_disk_fault(self.shard, error)
            raise
        if len(data) < self.size:
            raise InputError(f"{self.shard} became shorter while it was read: start again")
        return data


class TarFiles(ImageFiles):
    """The images of some shards, read in place; see `ImageFiles`.

    Args:
        path: What the user named, for messages.
        shards: The tar files in order.
        unconditional: Ignore labels.

    Attributes:
        layout: The images in order with their classes.
        order: Positions in the layout, in the order of the shards: the fastest to read.

    Raises:
        InputError: A shard is no whole tar, or a sample has no image or no label.
    """

    def __init__(self, path: Path, shards: Sequence[Path], *, unconditional: bool) -> None:
        self.path = path
        names: list[str | None] = []
        places: list[str] = []
        labels: list[Label] = []
        images: list[_Place] = []
        self.left_out = Counter()
        for shard in shards:
            for key, files in _samples(shard):
                suffix = image_suffix(f"{shard.name}/{key}", files, self.left_out)
                if suffix is None:
                    continue  # a shard may hold a table or a text besides
                names.append(f"{key}.{suffix}")
                places.append(f"{shard.name}/{key}.{suffix}")
                images.append(files[suffix])
                if not unconditional:
                    labels.append(_label(files, places[-1]))
        if not images:
            raise InputError(f"{path} holds no images")
        if len(set(places)) < len(places):
            raise InputError(f"{path}: two images are called {_first_double(places)}")
        self.layout, found = arrange_labelled(
            path, names, places, None if unconditional else labels, read_class_table(shards[0])
        )
        self.members = self.layout.members
        self.order = np.argsort(np.array(found, np.int64))
        self._places = dict(zip(self.members, (images[image] for image in found), strict=True))

    def read(self, member: str) -> bytes:
        """The bytes of one image; see `ImageFiles`."""
        return self._places[member].read()


def split_name(name: str) -> tuple[str | None, str]:
    """The name of a file's sample and the file's suffix.

    "a/0001.seg.png" is "seg.png" of "a/0001", and "a/cat.1.png" is "png" of "a/cat.1". The name is
    None for files of the system and for the library's own notes.
    """
    path = PurePosixPath(name)
    if path.name.startswith("__") or is_system_file(name):
        return None, ""
    stem, *parts = path.name.split(".")
    numbers = 0
    while numbers < len(parts) - 1 and parts[numbers][:1].isdecimal():
        numbers += 1
    stem = ".".join([stem, *parts[:numbers]])
    return str(path.parent / stem), ".".join(parts[numbers:])


def split_sample(key: str, files: Mapping[str, _File]) -> Iterator[tuple[str, dict[str, _File]]]:
    """The samples in files that share a name up to a dot: one, as a rule.

    `st.paul.jpg` and `st.petersburg.jpg` are two, each with what else has its name.
    """
    if sum(map(_is_image, files)) < 2 or not all("." in suffix for suffix in files):
        yield key, dict(files)
        return
    samples: dict[str, dict[str, _File]] = {}
    for suffix, file in files.items():
        stem, _, last = suffix.rpartition(".")
        samples.setdefault(f"{key}.{stem}", {})[last] = file
    yield from samples.items()


def image_suffix(place: str, sample: Mapping[str, object], left_out: Counter[str]) -> str | None:
    """Which of a sample's files is the image; None where none is.

    Args:
        place: Where the sample is, for the message.
        sample: Its files by suffix.
        left_out: Counts images beside the one, such as a mask `seg.png`, and files without any.

    Raises:
        InputError: It has several images, and none is called by the sample's name alone.
    """
    images = [suffix for suffix in sample if _is_image(suffix)]
    plain = [suffix for suffix in images if "." not in suffix]
    if len(images) > 1 and not plain:
        raise InputError(
            f"{place} has several images ({', '.join(images[:5])}): keep one, or rename it to "
            f"{place.rpartition('/')[2]}.{images[0].rpartition('.')[2]}"
        )
    image = next(iter(plain or images), None)
    others = images if images else sample
    left_out.update(f".{suffix}" if suffix else "" for suffix in others if suffix != image)
    return image


def _is_image(suffix: str) -> bool:
    return f".{suffix.rpartition('.')[2]}" in image_endings()


def parse_label(sample: Mapping[str, bytes]) -> Label:
    """The class of a sample: a number or a name; None where none is given."""
    if "cls" in sample:
        text = (
            sample["cls"].decode("utf-8", "surrogateescape").strip()
        )  # what is not UTF-8 is refused later
    elif "json" in sample:
        try:
            about = json.loads(sample["json"])
        except (ValueError, RecursionError):
            return None
        label = about.get("label") if isinstance(about, dict) else None
        if isinstance(label, bool) or not isinstance(label, (int, str)):
            return None
        text = str(label)
    else:
        return None
    return int(text) if _NUMBER.fullmatch(text) else text or None


def read_class_table(shard: Path) -> list[str] | None:
    """The class names beside a shard; None where there is no such file."""
    file = shard.parent / CLASS_TABLE
    return read_names(file) if file.exists() else None


def read_names(file: Path) -> list[str]:
    """The class names in a text file, one a line.

    Raises:
        InputError: It cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read the class names in {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{file} is not a text file in UTF-8, one class name a line") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _samples(shard: Path) -> Iterator[tuple[str, dict[str, _Place]]]:
    """The samples of a shard: their names, and where their files lie by suffix."""
    key, files = "", dict[str, _Place]()
    for name, place in _files(shard):
        own, suffix = split_name(name)
        suffix = suffix.lower()
        if own is None:
            continue
        if own != key or suffix in files:
            yield from split_sample(key, files)
            key, files = own, {}
        files[suffix] = place
    yield from split_sample(key, files)


def _files(shard: Path) -> Iterator[tuple[str, _Place]]:
    cut = InputError(f"{shard} is not a whole tar: it may be truncated, copy or download it again")
    try:
        with tarfile.open(shard, "r:") as archive:
            for info in archive:
                archive.members = []  # type: ignore[attr-defined]  # else it keeps them all
                if info.isfile():
                    yield info.name, _Place(shard, info.offset_data, info.size)
            # A tar that is cut between two files reads without an error.
            if archive.offset + BLOCK > shard.stat().st_size:
                raise cut
    except tarfile.TarError as error:
        raise cut from error


def _label(files: Mapping[str, _Place], place: str) -> Label:
    try:
        wanted = {suffix: files[suffix].read() for suffix in ("cls", "json") if suffix in files}
        return parse_label(wanted)
    except CorruptImageError as error:
        raise InputError(f"{place}: {error}") from error


def _first_double(places: Sequence[str]) -> str:
    seen: set[str] = set()
    for place in places:
        if place in seen:
            return place
        seen.add(place)
    raise AssertionError
