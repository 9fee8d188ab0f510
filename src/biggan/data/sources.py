"""Where image files lie: a folder, or a zip that is read in place and never unpacked.

Both look the same from outside: a list of relative paths and a way to read one. What the paths
mean is the business of `layout`.
"""

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
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Self

from biggan.classes import normal_name
from biggan.data.decoding import MOST_BYTES, CorruptImageError, image_endings
from biggan.errors import InputError

logger = logging.getLogger("biggan.data")

LABEL_FILE = "dataset.json"  # in which StyleGAN's tools keep the labels

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

_NAMED = 5  # endings that a message names
# The faults of links that lead nowhere. All others are of the disk, and may pass.
_OF_LINKS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


class ImageFiles(ABC):
    """A place with image files, used from several threads at once; a context manager closes it.

    Attributes:
        path: Where it is, as the user wrote it.
        members: The image files in it, as sorted relative paths with "/" on every system.
        folders: The folders that may be classes, with images in them or without.
        left_out: Files that are no images, by ending.
        label_file: The `dataset.json` above all images, as a relative path; None where none is.
        unclear_names: Why names that are not ASCII may be wrong, and the way out; None where they
            are right.
    """

    path: Path
    members: tuple[str, ...]
    folders: tuple[str, ...]
    left_out: Counter[str]
    label_file: str | None = None
    unclear_names: str | None = None

    @abstractmethod
    def read(self, member: str) -> bytes:
        """The bytes of one file.

        Raises:
            CorruptImageError: The file is damaged.
            InputError: The disk or network fails, which says nothing about the file.
        """

    def close(self) -> None:  # noqa: B027  # nothing is the right thing for most
        """Let go of what is held open; by default nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class FolderFiles(ImageFiles):
    """The image files of a folder and all folders below it, links followed.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members, self.left_out = _image_members(walk_files(path))
        with os.scandir(path) as entries:
            self.folders = _visible(entry.name for entry in entries if _is_folder(entry))
        self.label_file = LABEL_FILE if (path / LABEL_FILE).is_file() else None

    def read(self, member: str) -> bytes:
        """The bytes of one file; see `ImageFiles`."""
        path = self.path / member
        try:
            about = path.stat()
            if not stat.S_ISREG(about.st_mode):
                raise CorruptImageError("not a regular file")
            check_size(about.st_size)
            return path.read_bytes()
        except OSError as error:
            if error.errno in _OF_LINKS and path.is_symlink():
                raise CorruptImageError("a link that leads to no file") from error
            raise_disk_fault(path, error)
            raise


class ZipFiles(ImageFiles):
    """The image files in a zip, read where they are.

    Args:
        path: The zip.

    Raises:
        InputError: It is no whole zip, or is encrypted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise InputError(
                f"{path} is not a whole zip: it may be truncated, copy or download it again"
            ) from error
        infos = self._archive.infolist()
        names, self.unclear_names = _zip_names(path, infos)
        # Some Windows programs write "\" between folders.
        names = [name.replace("\\", "/") for name in names]
        self._infos = dict(zip(names, infos, strict=True))
        self.members, self.left_out = _image_members(
            name for name in names if not name.endswith("/")
        )
        self.folders = _visible(_folders_above(self._infos))
        self.label_file = next(filter(self._is_above_all, sorted(self._infos, key=len)), None)
        if any(self._infos[member].flag_bits & 1 for member in self.members):
            self._archive.close()
            raise InputError(f"{path} is encrypted: zip the images without a password")

    def read(self, member: str) -> bytes:
        """The bytes of one file; see `ImageFiles`."""
        info = self._infos[member]
        check_size(info.file_size)
        try:
            return self._archive.read(info)
        except Exception as error:  # every compression has its own way to complain of damage
            raise_disk_fault(self.path, error)
            raise CorruptImageError(error) from error

    def _is_above_all(self, name: str) -> bool:
        path = PurePosixPath(name)
        folder = name.removesuffix(path.name)
        ends = (*self.members[:1], *self.members[-1:])  # sorted: the others lie between
        return path.name == LABEL_FILE and all(member.startswith(folder) for member in ends)

    def close(self) -> None:
        """Close the zip."""
        self._archive.close()


def is_system_file(name: str) -> bool:
    """Whether a relative path leads to or through what a system keeps there for itself."""
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") or part.casefold() in _SYSTEM_NAMES for part in parts)


def open_files(path: Path) -> ImageFiles:
    """Open a folder or a zip.

    Args:
        path: A folder, or a file that ends in .zip.

    Returns:
        Its image files; at least one.

    Raises:
        InputError: The path does not exist, is something else, or holds no image.
    """
    try:
        files = _open(path)
    except PermissionError as error:
        raise InputError(f"{path}: no permission to read {error.filename}") from error
    if not files.members:
        files.close()
        others = f", only {by_ending(files.left_out)}" if files.left_out else ""
        kinds = " ".join(sorted(ending[1:] for ending in image_endings()))
        raise InputError(f"{path} holds no images{others} (looked for {kinds})")
    return files


def raise_disk_fault(path: Path, error: Exception) -> None:
    """Tell a failing disk or network drive from damage: images that it does not give are whole.

    Raises:
        InputError: The error comes from the system, and not from who read a damaged file.
    """
    # An invalid argument is a place that a damaged file names.
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        raise InputError(
            f"cannot read {path}: {error.strerror}; see to the disk and start again"
        ) from error


def check_size(num_bytes: int) -> None:
    """Refuse to read a file that cannot be an image.

    Raises:
        CorruptImageError: It is too large.
    """
    if num_bytes > MOST_BYTES:
        raise CorruptImageError(f"{num_bytes} bytes are too many")


def by_ending(left_out: Counter[str]) -> str:
    """Files counted by ending, in words."""
    ordered = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{count} {ending[:20] or 'without an ending'}" for ending, count in ordered[:_NAMED]]
    if others := sum(count for _, count in ordered[_NAMED:]):
        named.append(f"{others} others")
    return ", ".join(named)


def _open(path: Path) -> ImageFiles:
    if path.is_dir():
        return FolderFiles(path)
    if not path.exists():
        raise InputError(_not_found(path))
    if path.suffix.lower() == ".zip":
        return ZipFiles(path)
    raise InputError(f"{path} is neither a folder of class folders nor a .zip of one")


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
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: it turns out corrupt when it is read
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
    readings: dict[tuple[str, ...], str] = {}
    for encoding in ("utf-8", *_OLD_ENCODINGS):
        try:
            decoded = tuple(name.decode(encoding) for name in old.values())
        except UnicodeDecodeError:
            continue
        if encoding == "utf-8":
            readings = {decoded: encoding}
            break
        if all(map(_reads_well, decoded)):
            readings.setdefault(decoded, encoding)
    if len(readings) != 1:
        tries = (f"{encoding}: {decoded[0]:.40}" for decoded, encoding in readings.items())
        shown = ", ".join(itertools.islice(tries, 3)) or ascii(next(iter(old.values())))[:100]
        return names, (
            f"{path} does not say in which encoding its names are ({shown}): unpack it with the "
            "right one (unzip -O ENCODING) and give the folder, or zip it again with UTF-8 names"
        )
    [(decoded, encoding)] = readings.items()
    for place, name in zip(old, decoded, strict=True):
        names[place] = name
    if encoding != "utf-8":
        logger.info(
            "%s does not say in which encoding its names are: read as %s, such as %s",
            path,
            encoding,
            decoded[0],
        )
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
    """Whether a decoded name consists of words of one script each, with capitals in their place."""
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


def _image_members(names: Iterable[str]) -> tuple[tuple[str, ...], Counter[str]]:
    """The images among the files that are not hidden, sorted, and the others by ending."""
    members, left_out = [], Counter[str]()
    for name in names:
        path = PurePosixPath(name)
        if is_image(name):
            members.append(name)
        elif not is_system_file(name) and path.name != LABEL_FILE:
            left_out[path.suffix.lower()] += 1
    return tuple(sorted(members)), left_out


def _folders_above(names: Iterable[str]) -> set[str]:
    """All folders that the names of a zip's entries say, those of folders themselves included."""
    found: set[str] = set()
    for name in names:
        above = PurePosixPath(f"{name}*").parents  # a file's; of "cat/" too
        found.update(str(folder) for folder in above if folder.parts)
    return found


def _visible(folders: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in folders if not is_system_file(name)))


def is_image(name: str) -> bool:
    """Whether a file is an image of a dataset, by its relative path."""
    return not is_system_file(name) and PurePosixPath(name).suffix.lower() in image_endings()


def _not_found(path: Path) -> str:
    missing = path
    while not missing.parent.is_dir():
        missing = missing.parent
    siblings = [s.name for s in missing.parent.iterdir() if not s.name.startswith(".")]
    spellings = {normal_name(name): name for name in siblings}
    nearest = difflib.get_close_matches(normal_name(missing.name), spellings, n=1)
    hint = f"; did you mean {missing.parent / spellings[nearest[0]]}?" if nearest else ""
    return f"no such file or folder: {path}{hint}"
