"""TF Hub modules as they are downloaded: `.tar.gz` files (or `.tar`) of a module's folder.

An archive is a stranger's. Its members are read in one pass, nothing is written under a name of its
own choosing, and the bytes that leave the decompressor are counted as they come.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from biggan.errors import DamagedFileError, InputError, first_line
from biggan.weights.containers.graph_def import GRAPH
from biggan.weights.containers.tensor_bundle import VARIABLES

_INDEX = f"{VARIABLES}.index"
_WANTED = re.compile(
    r"(?:(?P<top>[^/]+)/)?(?P<file>saved_model\.pb|variables/variables\."
    r"(?:index|data-[0-9]{5}-of-[0-9]{5}))"
)
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_RATIO = 50  # of unpacked to packed bytes; weights hardly shrink at all
_MAX_SPARE = 16 << 20
_MAX_BYTES = 4 << 30
_MAX_HEADERS = 1 << 20  # before any one member; tarfile keeps them in memory
_MAX_MEMBERS = 1000
_CHUNK = 1 << 20


# What gzip and tarfile make of damaged files; BadGzipFile is an OSError, but one of the contents.
_DAMAGE = (
    *(tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError),
    *(ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError),
)


@contextmanager
def unpacked(file: BinaryIO, path: Path) -> Iterator[Path]:
    """A TF Hub module's folder, made of an archive, for as long as the context lasts.

    The `.tar.gz` or `.tar` file is open at its start, with the module at its top or in one folder.
    Nothing but the graph and the variables is unpacked.
    """
    with ExitStack() as stack:
        try:
            temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="biggan-"))
            folder = Path(temporary) / "module"
            _unpack(file, path, folder)
        except InputError:
            raise
        except _DAMAGE as error:
            raise DamagedFileError(
                f"{path} is not a whole .tar.gz or .tar ({first_line(error)}): download it again"
            ) from None
        except OSError as error:
            raise InputError(f"cannot unpack {path}: {error.strerror or error}") from None
        try:
            yield folder
        except InputError as error:  # the user knows the archive, not where it was unpacked
            raise type(error)(str(error).replace(str(folder), str(path))) from None


class _Counted:
    """A stream that refuses to give more bytes than it is allowed to, whatever its headers say."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, path: Path, limit: int) -> None:
        self._stream = stream
        self._path = path
        self._limit = limit
        self._read = 0
        self.allow(_MAX_HEADERS)

    def allow(self, more: int) -> None:
        """Allow so many bytes from here on, but never more than the limit in all."""
        self._allowed = min(self._limit, self._read + more)

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._read += len(data)
        if self._read > self._allowed:
            raise InputError(f"{self._path} is refused: its contents are too large for a module")
        return data


def _unpack(file: BinaryIO, path: Path, folder: Path) -> None:
    """Write a module's files."""
    is_gzip = file.read(2) == _GZIP_MAGIC
    file.seek(0)
    limit = min(_MAX_BYTES, _MAX_RATIO * os.fstat(file.fileno()).st_size + _MAX_SPARE)
    source = _Counted(gzip.GzipFile(fileobj=file) if is_gzip else file, path, limit)
    tops: dict[str, str] = {}  # by file, the folder that it was in
    unread = 0
    with tarfile.open(fileobj=source, mode="r|") as archive:  # type: ignore[call-overload]
        for number in count(1):
            source.allow(unread + _MAX_HEADERS)
            member = archive.next()
            if member is None:
                break
            if fault := _fault(member, number, limit):
                name = ascii(member.name)[:80]
                raise InputError(f"{path} is refused: its member {name} {fault}")
            unread = member.size
            wanted = _WANTED.fullmatch(str(PurePosixPath(member.name)))
            if wanted and (contents := archive.extractfile(member)):
                if wanted["file"] in tops:
                    raise InputError(f"{path} is refused: it holds more than one {wanted['file']}")
                tops[wanted["file"]] = wanted["top"] or ""
                source.allow(member.size + _MAX_HEADERS)
                target = folder / wanted["file"]
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as written:
                    shutil.copyfileobj(contents, written, _CHUNK)
                unread = 0
        source.allow(limit)
        while source.read(_CHUNK):  # to gzip's own checksum, which is at the very end
            pass
    # Checked last: damage to the archive is reported first.
    if len(set(tops.values())) > 1:
        raise InputError(f"{path} is refused: it holds parts of a module in more than one folder")
    if not {GRAPH, _INDEX} <= set(tops):
        raise InputError(f"{path} holds no TF Hub module: no {GRAPH} with {_INDEX}")


def _fault(member: tarfile.TarInfo, number: int, limit: int) -> str | None:
    """Why a member is none of a module's."""
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        return "is outside of the archive's folder"
    if not (member.isfile() or member.isdir()) or member.issparse():
        return "is neither a plain file nor a folder"
    if not 0 <= member.size <= limit:
        return f"claims to have {member.size} bytes"
    return f"is one of more than {_MAX_MEMBERS}" if number > _MAX_MEMBERS else None
