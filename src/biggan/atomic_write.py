"""Writing a file so that it is never seen half written, and the folder for it."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import stat
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from biggan.errors import InputError

TEMPORARY_SUFFIX = ".tmp"
_TEMPORARY = re.compile(r"\.biggan-([0-9a-f]{8})-(\d{1,9})-[0-9a-z_]{8}\.tmp")
_ABANDONED = 24 * 3600.0  # seconds without a write


def write_atomically(path: Path, contents: bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, finds the old one or the new one."""
    with replaced_atomically(path) as temporary:
        temporary.write_bytes(contents)


def make_folder(folder: Path) -> None:
    """Create a folder to write to, and the folders above it, if they are not there.

    Temporary files that killed processes of this package left in the folder are removed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create {folder}: {error.strerror}") from None
    except RecursionError:
        raise InputError(f"cannot create {folder}: its path is too long") from None
    with contextlib.suppress(OSError):  # what is left over does no harm
        _remove_abandoned(folder)


@contextlib.contextmanager
def replaced_atomically(path: Path) -> Iterator[Path]:
    """Give a file, in a folder that exists, contents that the caller writes.

    What is written to the path that this yields becomes the file when the context ends, and
    nothing if it fails. An OSError within becomes an InputError.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"cannot write {path}: it exists and is not a file")
    # In the same folder, so that the replacement is a rename and not a copy.
    name = f"{temporary_prefix()}{os.urandom(4).hex()}{TEMPORARY_SUFFIX}"
    temporary = path.with_name(name)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)  # those of any new file
        os.close(descriptor)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) != mode:  # a library's choice
                temporary.chmod(mode)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def temporary_prefix() -> str:
    """What the names of this process's temporary files begin with.

    They end in `TEMPORARY_SUFFIX`, after eight characters that no other file has. `make_folder`
    removes files and folders of such names once their process is dead.
    """
    return f".biggan-{_machine()}-{os.getpid()}-"


def _machine() -> str:
    """This machine, of those that share a disk."""
    return f"{zlib.crc32(platform.node().encode(errors='replace')):08x}"


def _remove_abandoned(folder: Path) -> None:
    for entry in list(os.scandir(folder)):
        named = _TEMPORARY.fullmatch(entry.name)
        if named is None:
            continue
        with contextlib.suppress(OSError):
            is_dead = named[1] == _machine() and not _is_alive(int(named[2]))
            written = entry.stat(follow_symlinks=False).st_mtime
            if is_dead or time.time() - written > _ABANDONED:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    Path(entry.path).unlink()


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # where signal 0 is Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _sync_folder(folder: Path) -> None:
    """Have the rename on the disk before anything that relies on it, in a power cut too."""
    if os.name == "nt":  # where folders cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
