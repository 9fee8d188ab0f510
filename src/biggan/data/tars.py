"""Images in WebDataset shards: tar files in which the files of one sample follow each other.

The files of a sample share a name up to the first dot: `0001.jpg` with `0001.cls` (the number or
name of the class as text) or `0001.json` (an object with the key `label`). Unlike in the library, a
number after a dot belongs to the name: `cat.0.jpg` and `cat.1.jpg` are two samples. A file
`classes.txt` beside the shards names the numbers of classes, one class a line.
https://github.com/webdataset/webdataset
"""

import contextlib
import functools
import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from biggan.data.decoding import MOST_BYTES, image_endings
from biggan.data.folders import Item, Reader, check_size, is_system_file, raise_disk_fault
from biggan.data.layout import Label, check_class_names
from biggan.errors import InputError

CLASS_TABLE = "classes.txt"
_MOST_LABEL_BYTES = 2**24  # of a label's file
_NUMBER = re.compile(r"[+-]?\d{1,18}")


class _Place(NamedTuple):
    """Where the bytes of an image are inside a shard."""

    shard: Path
    offset: int
    size: int


class TarReader(Reader):
    """The images of some shards, read in place.

    Raises:
        InputError: A shard is no whole tar, or a sample has several images.
    """

    def __init__(self, shards: Sequence[Path], path: Path) -> None:
        self.left_out = Counter()
        self.class_table = read_class_table(shards[0])
        self.items = []
        for shard in shards:
            try:
                with tarfile.open(shard, "r:", tarinfo=_Header) as archive:
                    handle = functools.partial(_place, shard)
                    self.items += read_samples(archive, shard.name, self.left_out, handle)
            except tarfile.TarError as error:
                raise InputError(
                    f"{shard} is not a whole tar: it may be truncated, copy or download it again"
                ) from error
            except OSError as error:
                raise_disk_fault(shard, error)
                raise
        doubles = Counter(item.place for item in self.items)
        for place, count in doubles.items():
            if count > 1:
                raise InputError(f"{path}: two images are named {place}")

    def read(self, handle: _Place) -> bytes:
        """The bytes of one image file; see `Reader`."""
        check_size(handle.size)
        try:
            with handle.shard.open("rb") as file:
                file.seek(handle.offset)
                data = file.read(handle.size)
        except OSError as error:
            raise_disk_fault(handle.shard, error)
            raise
        if len(data) < handle.size:
            raise InputError(f"{handle.shard} was truncated while it was read: start again")
        return data


def read_stream(url: str, name: str, left_out: Counter[str]) -> Iterator[Item]:
    """The images of a shard in order, read once, with their bytes as handles.

    Args:
        url: What the `webdataset` library opens: a file, an address, or "pipe:" with a command.
        name: What the shard is called.
        left_out: Counts files that are not used, by ending.

    Raises:
        InputError: The shard cannot be read to its end.
    """
    library = webdataset()
    stream = None
    try:
        stream = library.gopen(url)
        with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Header) as archive:
            yield from read_samples(archive, name, left_out, _contents)
        stream.close()  # a program that failed to read an address says so only here
    except Exception as error:  # a damaged tar, a lost connection, a missing program
        said = error if isinstance(error, OSError) or not error.args else error.args[0]
        reason = " ".join(str(said).split())
        raise InputError(f"cannot read the shard {url}: {reason}") from error
    finally:
        if stream is not None:
            with contextlib.suppress(Exception):
                stream.close()


def webdataset() -> Any:
    """The `webdataset` library."""
    try:
        import webdataset  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError("streams of shards need webdataset: pip install 'biggan[data]'") from error
    return webdataset


class _Header(tarfile.TarInfo):
    """The header of a file in a tar. Damaged and missing ones raise; `tarfile` ignores them."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):  # the end of the tar
                raise
            raise tarfile.ReadError(str(error)) from error


def _place(shard: Path, _: tarfile.TarFile, info: tarfile.TarInfo) -> _Place:
    return _Place(shard, info.offset_data, info.size)


def _contents(archive: tarfile.TarFile, info: tarfile.TarInfo, most: int = MOST_BYTES) -> bytes:
    file = archive.extractfile(info)
    assert file is not None  # it is a regular one
    return file.read(min(info.size, most))  # what is cut turns out corrupt


def read_samples(
    archive: tarfile.TarFile,
    shard: str,
    left_out: Counter[str],
    handle: Callable[[tarfile.TarFile, tarfile.TarInfo], Any],
) -> Iterator[Item]:
    """The samples of a shard that have an image, in order.

    Raises:
        InputError: A sample has several images, and none is called by the sample's name alone.
    """
    for key, files in _samples(archive, handle):
        images = [suffix for suffix in files if _is_image(suffix)]
        plain = [suffix for suffix in images if "." not in suffix]
        if len(images) > 1 and not plain:
            raise InputError(
                f"{shard}/{key} has several images ({', '.join(images[:5])}): keep one, or rename "
                f"it to {key.rpartition('/')[2]}.{images[0].rpartition('.')[2]}"
            )
        image = next(iter(plain or images), None)
        others = images or files  # a shard may hold a table or a text besides
        left_out.update(f".{suffix}" if suffix else "" for suffix in others if suffix != image)
        if image is not None:
            name = f"{key}.{image}"
            yield Item(name, f"{shard}/{name}", files[image], _label(files))


def _samples(
    archive: tarfile.TarFile, handle: Callable[[tarfile.TarFile, tarfile.TarInfo], Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The names of samples, and their files by suffix: a handle of images, contents of labels."""
    key, files = "", dict[str, Any]()
    for info in iter(archive.next, None):
        archive.members = []  # type: ignore[attr-defined]  # else it keeps them all
        own, suffix = split_name(info.name)
        if own is None or not info.isfile():
            continue
        if own != key or suffix in files:
            yield from _split_sample(key, files)
            key, files = own, {}
        if _is_image(suffix):
            files[suffix] = handle(archive, info)
        elif suffix.rpartition(".")[2] in ("cls", "json"):
            files[suffix] = _contents(archive, info, _MOST_LABEL_BYTES)
        else:
            files[suffix] = None
    yield from _split_sample(key, files)


def split_name(name: str) -> tuple[str | None, str]:
    """The name of a file's sample and the file's suffix in small letters.

    "a/0001.seg.PNG" is "seg.png" of "a/0001", and "a/cat.1.png" is "png" of "a/cat.1". The name is
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
    return str(path.parent / stem), ".".join(parts[numbers:]).lower()


def _split_sample(key: str, files: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    """The samples in files that share a name up to a dot: one, as a rule.

    `st.paul.jpg` and `st.petersburg.jpg` are two, each with what else has its name.
    """
    if sum(map(_is_image, files)) < 2 or not all("." in suffix for suffix in files):
        return [(key, files)]
    samples: dict[str, dict[str, Any]] = {}
    for suffix, file in files.items():
        stem, _, last = suffix.rpartition(".")
        samples.setdefault(f"{key}.{stem}", {})[last] = file
    return samples.items()


def _is_image(suffix: str) -> bool:
    return f".{suffix.rpartition('.')[2]}" in image_endings()


def _label(files: Mapping[str, Any]) -> Label:
    """The class of a sample: a number or a name; None where none is given."""
    if "cls" in files:  # what is not UTF-8 is refused later
        text = files["cls"].decode("utf-8", "surrogateescape").strip()
    elif "json" in files:
        try:
            about = json.loads(files["json"])
        except (ValueError, RecursionError):
            return None
        label = about.get("label") if isinstance(about, dict) else None
        if isinstance(label, bool) or not isinstance(label, (int, str)):
            return None
        text = str(label)
    else:
        return None
    return int(text) if _NUMBER.fullmatch(text) else text or None


def read_class_table(shard: Path) -> tuple[str, ...] | None:
    """The class names beside a shard; None where there is no such file."""
    file = shard.parent / CLASS_TABLE
    return read_class_names(file) if file.exists() else None


def read_class_names(file: Path) -> tuple[str, ...]:
    """The class names in a text file, one a line.

    Raises:
        InputError: It cannot be read, or names fewer than two classes, or one twice.
    """
    try:
        text = file.expanduser().read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read the class names in {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(
            f"{file} is not a text file in UTF-8, with one class name per line"
        ) from None
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    check_class_names(file, names)
    return names
