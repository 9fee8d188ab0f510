"""Writing a file so that it is never seen half written, and the folder for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from biggan.errors import InputError


def write_atomically(path: Path, contents: bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, finds the old one or the new one.

    Args:
        path: The file; its folder exists. An older file is replaced.
        contents: All of it.

    Raises:
        InputError: The file cannot be written.
    """
    with replaced_atomically(path) as temporary:
        temporary.write_bytes(contents)


def make_folder(folder: Path) -> None:
    """Create a folder and the folders above it, if they are not there.

    Raises:
        InputError: It cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create {folder}: {error.strerror}") from None


@contextlib.contextmanager
def replaced_atomically(path: Path) -> Iterator[Path]:
    """Give a file new contents that somebody else writes; see `write_atomically`.

    Args:
        path: The file; its folder exists.

    Yields:
        Where to write. It becomes the file when the context ends, and nothing if it fails.

    Raises:
        InputError: The file cannot be written.
    """
    # In the same folder, so that the replacement is a rename and not a copy.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(_new_files_mode())  # whoever wrote it may have chosen another
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _new_files_mode() -> int:
    """The permissions that `open` gives a new file."""
    mask = os.umask(0)  # the only way to ask for it
    os.umask(mask)
    return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    """Have the rename on the disk before anything that relies on it, in a power cut too."""
    if os.name == "nt":  # where folders cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
