"""What a reader is; folders and zips, which are read in place and never unpacked."""

from __future__ import annotations

import contextlib
import difflib
import errno
import itertools
import logging
import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from biggan.data.arrays import choose_arrays, list_arrays, read_arrays, to_pnm
from biggan.data.decoding import MOST_BYTES, CorruptImageError, image_endings
from biggan.data.layout import Item, Label
from biggan.data.tables import is_table, read_tables
from biggan.errors import InputError, quoted

logger = logging.getLogger("biggan.data")

# Folders and files that systems put beside people's own, in small letters; and all hidden ones.
_SYSTEM_NAMES = frozenset(
    """
    __macosx|network trash folder|temporary items|thevolumesettingsfolder|icon\r
    $recycle.bin|recycler|recycled|system volume information|config.msi|thumbs.db|ehthumbs.db
    desktop.ini|found.000|lost+found|lost.dir|__pycache__
    @eadir|@transcode|@synoresource|@synoeastream|#recycle|#snapshot|@tmp|@sharebin|@recycle|@recently-snapshot|@__thumb|~snapshot|$extend|_gsdata_|_vti_cnf
    """.replace("\n    ", "|")
    .strip("|")
    .split("|")
)
_UTF8 = 0x800  # the flag of names in UTF-8
_UNICODE_PATH = 0x7075  # Info-ZIP's field for the name in UTF-8
# What systems of Western and Eastern Europe, Japan, China, Korea and Taiwan wrote into zips.
_OLD_ENCODINGS = ("cp437", "cp850", "cp1252", "cp866", "cp1251", "cp932", "gbk", "cp949", "big5")
_EAST_ASIAN = frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"})
# The errors of broken links. All others are of the disk, and may pass.
_OF_LINKS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


class Choice(NamedTuple):
    """What is wanted of a source."""

    unconditional: bool = False  # without classes
    column: str | None = None  # of the labels; None for the one that is meant
    part: str | None = None  # the folder of an archive, or "test" of arrays; None for all


@dataclass
class Reader:
    """The images in one place, listed once and read from several threads at a time.

    `read` gives the bytes of an image file by its item's handle. It raises CorruptImageError where
    the file is damaged, and InputError where the disk or network fails, which says nothing about
    the file. What a reader holds open is closed by the `ExitStack` of those who opened it.
    """

    items: list[Item]  # in the order that is fastest to read
    read: Callable[[Any], bytes]
    containers: Sequence[Path] | None  # the files that the images are in; None: each is a file
    left_out: Counter[str] = field(default_factory=Counter)  # files that are not used, by ending
    labelled: bool = True  # else folders are the classes
    class_table: Sequence[str] | None = None  # the names of labels that are numbers
    folders: Sequence[str] = ()  # those that may be classes, with images in them or without
    unclear_names: str | None = None  # why names that are not ASCII may be wrong, and the way out


def read_files(
    path: Path,
    files: Mapping[str, Any],
    choice: Choice,
    read: Callable[[Any], bytes],
    containers: Sequence[Path] | None,
    folders: Sequence[str],
) -> Reader:
    """The images among files that have relative paths: those of a folder, a zip or a tar.

    Their labels are in a table (`tables`), or their folders are the classes. Where there are no
    image files, there may be arrays (`arrays`). `read` gives a file's bytes by its handle.
    """
    prefix, part = _find_part(path, files, choice.part)
    inside, folders = (
        [name for name in names if name.startswith(prefix) and not is_system_file(name)]
        for names in (files, folders)
    )
    known = sorted(filter(is_image, files))
    images = [name for name in known if name.startswith(prefix)]

    def read_named(name: str) -> bytes:
        return read(files[name])

    if not images and (arrays := choose_arrays(path, inside, part)):
        items, table = read_arrays(path, arrays, files.keys(), choice.column, read_named)
        places = containers or [path / name for name in arrays]
        return Reader(items, to_pnm, places, class_table=table)
    tables = set(filter(is_table, files))
    labels: list[Label] | None = None
    if images and not choice.unconditional:
        labels = read_tables(path, tables, images, known, choice.column, read_named)
    others = set(inside) - tables - set(images)
    return Reader(
        [
            Item(short := name.removeprefix(prefix), short, files[name], label)
            for name, label in zip(images, labels or itertools.repeat(None), strict=False)
        ],
        read,
        containers,
        left_out=Counter(PurePosixPath(name).suffix.lower() for name in others),
        labelled=labels is not None,
        folders=tuple(name.removeprefix(prefix) for name in folders),
    )


def read_folder(path: Path, choice: Choice) -> Reader:
    """The image files of a folder and all folders below it, following links."""

    def read(file: Path) -> bytes:
        try:
            about = file.stat()
            if not stat.S_ISREG(about.st_mode):
                raise CorruptImageError("not a regular file")
            check_size(about.st_size)
            return file.read_bytes()
        except OSError as error:
            if error.errno in _OF_LINKS and file.is_symlink():
                raise CorruptImageError("a broken link") from error
            raise_disk_fault(file, error)
            raise

    files = {name: path / name for name in walk_files(path)}
    folders: list[str] = []
    if choice.part is None:
        with os.scandir(path) as entries:
            folders = sorted(entry.name for entry in entries if _is_folder(entry))
    return read_files(path, files, choice, read, None, folders)


def read_zip(path: Path, choice: Choice, opened: ExitStack) -> Reader:
    """The image files in a zip."""
    try:
        archive = opened.enter_context(zipfile.ZipFile(path))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise InputError(
            f"{path} is not a whole zip: it may be truncated, copy or download it again"
        ) from error
    infos = archive.infolist()
    names, unclear_names = _zip_names(path, infos)
    # Some Windows programs write "\\" between folders.
    entries = {n.replace("\\", "/"): info for n, info in zip(names, infos, strict=True)}
    files = {name: info for name, info in entries.items() if not name.endswith("/")}
    if any(info.flag_bits & 1 and is_image(name) for name, info in files.items()):
        raise InputError(f"{path} is encrypted: zip the images without a password")

    def read(info: zipfile.ZipInfo) -> bytes:
        check_size(info.file_size)
        try:
            return archive.read(info)
        except Exception as error:  # every compression has its own errors for damage
            raise_disk_fault(path, error)
            raise CorruptImageError(error) from error

    folders = folders_above(f"{name}*" for name in entries)  # "cat/" too
    reader = read_files(path, files, choice, read, (path,), folders)
    return replace(reader, unclear_names=unclear_names)


def folders_above(names: Iterable[str]) -> list[str]:
    """All folders that files with relative paths are in."""
    above = {name.rpartition("/")[0] for name in names}
    paths = [PurePosixPath(f"{name}/*") for name in above if name]
    return sorted({str(folder) for path in paths for folder in path.parents if folder.parts})


def _find_part(path: Path, files: Iterable[str], part: str | None) -> tuple[str, str | None]:
    """What the names of files in a part begin with; or "train" or "test", which arrays may have."""
    if part is None:
        return "", None
    names = {name for name in files if not is_system_file(name)}
    folders = folders_above(names)
    if part in names or part in folders:
        return part + "/" * (part in folders), None
    found = [name for name in folders if name.endswith(f"/{part}")]
    if len(found) == 1:
        return f"{found[0]}/", None
    if part in list_arrays(names) and not found:
        return "", part
    near = found or difflib.get_close_matches(part, folders, 3, 0) or sorted(names)
    raise InputError(
        f"{path} has {'several folders' if found else 'no folder'} {quoted(part)}: name one, such "
        f"as {path}::{near[0]}"
    )


def is_system_file(name: str) -> bool:
    """Whether a relative path is hidden, or leads to or through what a system keeps for itself."""
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") or part.casefold() in _SYSTEM_NAMES for part in parts)


def is_image(name: str) -> bool:
    """Whether a file is an image of a dataset, by its relative path."""
    return PurePosixPath(name).suffix.lower() in image_endings() and not is_system_file(name)


def raise_disk_fault(path: Path, error: Exception) -> None:
    """Refuse to go on where a disk or network drive fails: its images may be whole."""
    # An invalid argument is a place that a damaged file names.
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        raise InputError(
            f"cannot read {path}: {error.strerror}; check the disk and start again"
        ) from error


def check_size(num_bytes: int) -> None:
    """Raise CorruptImageError for a file too large to be an image."""
    if num_bytes > MOST_BYTES:
        raise CorruptImageError(f"{num_bytes} bytes are too many")


def walk_files(folder: Path, prefix: str = "", above: tuple[str, ...] = ()) -> Iterator[str]:
    """All files below a folder but those of the system, relative to where the walk began."""
    here = os.path.realpath(folder)
    if here in above:
        return  # a link back to a folder above: it would never end
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_system_file(entry.name):
                continue  # not even entered: lost+found may belong to the system alone
            if _is_folder(entry):
                yield from walk_files(Path(entry.path), f"{prefix}{entry.name}/", (*above, here))
            else:
                yield prefix + entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with contextlib.suppress(OSError):  # a link to itself: reading it will find it corrupt
        return entry.is_dir()
    return False


def _zip_names(path: Path, infos: Sequence[zipfile.ZipInfo]) -> tuple[list[str], str | None]:
    """The names in a zip, and what is unclear about them.

    `zipfile` takes names that are not marked as UTF-8 for cp437. Old programs of macOS and Linux
    wrote UTF-8 without the mark; those of Windows wrote the encoding of the country.
    """
    names: list[str] = []
    old: dict[int, bytes] = {}  # by place
    for place, info in enumerate(infos):
        name = info.filename if info.flag_bits & _UTF8 else _unicode_path(info)
        if name is None and not info.filename.isascii():
            old[place] = info.orig_filename.partition("\0")[0].encode("cp437")
        names.append(name or info.filename)
    if not old:
        return names, None
    readings: dict[tuple[str, ...], str] = {}  # the encodings that make sense of the names
    for encoding in ("utf-8", *_OLD_ENCODINGS):
        with contextlib.suppress(UnicodeDecodeError):
            decoded = tuple(name.decode(encoding) for name in old.values())
            if encoding == "utf-8":
                readings = {decoded: encoding}
                break
            if all(map(_reads_well, decoded)):
                readings.setdefault(decoded, encoding)
    if len(readings) != 1:
        tries = (f"{encoding}: {decoded[0]:.40}" for decoded, encoding in readings.items())
        shown = ", ".join(itertools.islice(tries, 3)) or ascii(next(iter(old.values())))[:100]
        return names, (
            f"{path} does not state the encoding of its names ({shown}): unpack it with the "
            "right one (unzip -O ENCODING) and give the folder, or zip it again with UTF-8 names"
        )
    [(decoded, encoding)] = readings.items()
    for place, name in zip(old, decoded, strict=True):
        names[place] = name
    if encoding != "utf-8":
        note = "%s does not state the encoding of its names: read as %s, such as %s"
        logger.info(note, path, encoding, decoded[0])
    return names, None


def _unicode_path(info: zipfile.ZipInfo) -> str | None:
    """The name in Info-ZIP's Unicode Path field, where it belongs to this entry."""
    extra = info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and len(field) > 5:
            crc = int.from_bytes(field[1:5], "little")
            if crc == zlib.crc32(info.orig_filename.encode("cp437", "replace")):
                return field[5:].decode("utf-8", "replace")
    return None


def _reads_well(text: str) -> bool:
    """Whether a decoded name consists of words of one script each, with usual capitals."""
    for word in re.findall(r"[^\W\d_]+", text):
        if word.isascii():
            continue
        scripts = {unicodedata.name(letter, "").split(" ")[0] for letter in word}
        if len(scripts - _EAST_ASIAN) + bool(scripts & _EAST_ASIAN) > 1:
            return False
        if not (word.istitle() or word.isupper() or word == word.lower()):
            return False
    others = set(re.sub(r"[^\W_]", "", text))
    return all(mark.isascii() or unicodedata.category(mark)[0] == "M" for mark in others)
