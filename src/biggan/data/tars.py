"""Images in WebDataset shards: tar files in which the files of one sample follow each other.

The files of a sample share a name up to the first dot: `0001.jpg` with `0001.cls` (the number or
name of the class as text) or `0001.json` (an object with the key `label`). Unlike in the library, a
number after a dot belongs to the name: `cat.0.jpg` and `cat.1.jpg` are two samples. A file
`classes.txt` beside the shards names the numbers of classes, one class a line.
https://github.com/webdataset/webdataset
"""

import bz2
import contextlib
import gzip
import json
import lzma
import re
import tarfile
import tempfile
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, TypeVar

from biggan.data.dataset import is_address
from biggan.data.decoding import MOST_BYTES, image_endings
from biggan.data.folders import (
    Choice,
    Reader,
    check_size,
    folders_above,
    is_image,
    is_system_file,
    raise_disk_fault,
    read_files,
)
from biggan.data.layout import Item, Label, check_class_names, parse_label
from biggan.data.tables import is_table
from biggan.errors import InputError

CLASS_TABLE = "classes.txt"
_MOST_LABEL_BYTES = 2**24  # of a label's file
_PIECE = 2**24  # bytes that are unpacked at a time
_COMPRESSED = re.compile(r".+\.(tgz|tbz2?|txz|tar\.(gz|bz2|xz))", re.IGNORECASE)

_File = TypeVar("_File")


class _Place(NamedTuple):
    """Where the bytes of a file are inside a tar."""

    tar: Path | IO[bytes]
    offset: int
    size: int


def read_tars(tars: Sequence[Path], path: Path, choice: Choice, opened: ExitStack) -> Reader:
    """The images in some tars, read in place: WebDataset shards, or any files.

    Tars without labels are any files: class folders, arrays, or, if there are several tars, a tar
    for each class. Tars inside a tar are folders. A compressed tar is unpacked to a temporary file.
    """
    lock = threading.Lock()

    def read(place: _Place) -> bytes:
        check_size(place.size)
        is_path = isinstance(place.tar, Path)
        try:  # a temporary file is one for all threads
            with _opened(place.tar) as file, contextlib.nullcontext() if is_path else lock:
                file.seek(place.offset)
                data = file.read(place.size)
        except OSError as error:
            raise_disk_fault(path, error)
            raise
        if len(data) < place.size:
            raise InputError(f"{path} was truncated while it was read: start again")
        return data

    def read_label(place: _Place) -> bytes:
        return read(place._replace(size=min(place.size, _MOST_LABEL_BYTES)))

    members: dict[Path, list[tuple[str, _Place]]] = {}
    is_packed = False
    for tar in tars:
        try:
            unpacked = _unpack(tar, opened)
            is_packed |= unpacked is not None
            members[tar] = list(_members(unpacked or tar))
        except (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
            raise_disk_fault(tar, error)
            raise InputError(
                f"{tar} is not a whole tar: it may be truncated, copy or download it again"
            ) from error
    plain = choice.unconditional and not is_packed
    if choice.part is None and _are_shards(members, without_labels=plain):
        table = read_class_table(tars[0])
        left_out, items = Counter[str](), list[Item]()
        for tar, listed in members.items():
            items += read_samples(listed, tar.name, left_out, choice.column, read_label)
        for name, count in Counter(item.place for item in items).items():
            if count > 1:
                raise InputError(f"{path}: two images are named {name}")
        return Reader(items, read, tars, left_out, class_table=table)
    files = {
        f"{tar.stem}/{name}" if len(tars) > 1 else name: place
        for tar, listed in members.items()
        for name, place in listed
    }
    return read_files(path, files, choice, read, tars, folders_above(files))


def is_compressed(path: Path) -> bool:
    """Whether a file is a compressed tar, by its name."""
    return _COMPRESSED.fullmatch(path.name) is not None


def _unpack(path: Path, opened: ExitStack) -> IO[bytes] | None:
    """A compressed tar as a temporary file that is not; None for any other file."""
    kinds: dict[bytes, Callable[[Path], Any]]
    kinds = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
    with path.open("rb") as file:
        opener = kinds.get(file.read(2))
    if opener is None:
        return None
    unpacked = opened.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    with opener(path) as packed:
        while data := packed.read(_PIECE):
            try:
                unpacked.write(data)
            except OSError as error:
                raise InputError(
                    f"cannot unpack {path} to {tempfile.gettempdir()}: {error.strerror}; set "
                    "TMPDIR to a folder with space, or unpack it yourself and give the folder"
                ) from error
    return unpacked


def _opened(tar: Path | IO[bytes]) -> AbstractContextManager[IO[bytes]]:
    return tar.open("rb") if isinstance(tar, Path) else contextlib.nullcontext(tar)


def _members(tar: Path | IO[bytes]) -> Iterator[tuple[str, _Place]]:
    """The names and places of a tar's files, and of those in tars inside it."""
    with _opened(tar) as file:
        waiting = [("", 0)]
        while waiting:
            prefix, start = waiting.pop()
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:", tarinfo=_Header) as archive:
                for info in _infos(archive):
                    name = info.name.removeprefix("./")
                    if name.lower().endswith(".tar") and not prefix:
                        waiting.append((f"{name[:-4]}/", info.offset_data))
                    else:
                        yield prefix + name, _Place(tar, info.offset_data, info.size)


def _infos(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The regular files of a tar in order."""
    for info in iter(archive.next, None):
        archive.members = []  # type: ignore[attr-defined]  # else it keeps them all
        if info.isfile():
            yield info


def _are_shards(
    members: Mapping[Path, Sequence[tuple[str, _Place]]], *, without_labels: bool
) -> bool:
    """Whether tars are WebDataset shards: some images have labels, or all lie at the top."""
    names = [name for listed in members.values() for name, _ in listed if not is_system_file(name)]
    keys = {split_name(name)[0] for name in names if is_image(name)}
    labels = (name for name in names if name.endswith((".cls", ".json")) and not is_table(name))
    if (keys and without_labels) or any(split_name(name)[0] in keys for name in labels):
        return True
    is_flat = len(members) == 1 and not any("/" in name for name in names if is_image(name))
    return is_flat and bool(keys) and not any(map(is_table, names))


def read_stream(
    url: str, name: str, left_out: Counter[str], column: str | None = None
) -> Iterator[Item]:
    """The images of a shard in order, read once, with their bytes as handles.

    The url is what the `webdataset` library opens: a file, an address, or "pipe:" with a command.
    `left_out` counts files that are not used, by ending. `column` is the key of the labels in .json
    files; None for `label`, or a .cls file.

    Raises:
        InputError: The shard cannot be read to its end.
    """
    library = webdataset()
    stream = None
    try:
        stream = library.gopen(url)
        with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Header) as archive:
            yield from read_samples(_contents(archive), name, left_out, column, bytes)
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


def _contents(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """The files of a tar in order; those that are neither images nor labels without contents."""
    for info in _infos(archive):
        suffix = info.name.rpartition(".")[2].lower()
        most = _MOST_LABEL_BYTES if suffix in ("cls", "json") else MOST_BYTES * _is_image(suffix)
        file = archive.extractfile(info)
        assert file is not None  # it is a regular one
        yield info.name, file.read(min(info.size, most))  # what is cut turns out corrupt


def read_samples(
    members: Iterable[tuple[str, _File]],
    shard: str,
    left_out: Counter[str],
    column: str | None,
    read: Callable[[_File], bytes],
) -> Iterator[Item]:
    """The samples of a shard that have an image, in order; see `read_stream`.

    `members` are the names and handles of its files, `read` gives the bytes of a label's file.

    Raises:
        InputError: A sample has several images, and none is called by the sample's name alone.
    """
    for key, files in _samples(members):
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
            yield Item(name, f"{shard}/{name}", files[image], _label(files, column, read))


def _samples(members: Iterable[tuple[str, _File]]) -> Iterator[tuple[str, dict[str, _File]]]:
    """The names of samples, and their files by suffix."""
    key, files = "", dict[str, _File]()
    for name, member in members:
        own, suffix = split_name(name)
        if own is None:
            continue
        if own != key or suffix in files:
            yield from _split_sample(key, files)
            key, files = own, {}
        files[suffix] = member
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


def _split_sample(key: str, files: dict[str, _File]) -> Iterable[tuple[str, dict[str, _File]]]:
    """The samples in files that share a name up to a dot: one, as a rule.

    `st.paul.jpg` and `st.petersburg.jpg` are two, each with what else has its name.
    """
    if sum(map(_is_image, files)) < 2 or not all("." in suffix for suffix in files):
        return [(key, files)]
    samples: dict[str, dict[str, _File]] = {}
    for suffix, file in files.items():
        stem, _, last = suffix.rpartition(".")
        samples.setdefault(f"{key}.{stem}", {})[last] = file
    return samples.items()


def _is_image(suffix: str) -> bool:
    return f".{suffix.rpartition('.')[2]}" in image_endings()


def _label(files: Mapping[str, _File], column: str | None, read: Callable[[_File], bytes]) -> Label:
    """The class of a sample: a number or a name; None where none is given."""
    if "cls" in files and column is None:  # what is not UTF-8 is refused later
        return parse_label(read(files["cls"]).decode("utf-8", "surrogateescape"))
    about = read(files["json"]) if "json" in files else b""
    try:
        return parse_label(json.loads(about).get(column or "label"))
    except (ValueError, RecursionError, AttributeError):
        return None


def read_class_table(shard: str | Path) -> tuple[str, ...] | None:
    """The class names beside a shard; None where there is no such file, or it is an address."""
    file = Path(shard).parent / CLASS_TABLE
    return read_class_names(file) if not is_address(str(shard)) and file.exists() else None


def read_class_names(file: Path) -> tuple[str, ...]:
    """The class names in a text file, one a line."""
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
