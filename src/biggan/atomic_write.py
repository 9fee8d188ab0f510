"""Writing a file so that it is never seen half written."""

from __future__ import annotations

import contextlib
import os
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
    # In the same folder, so that the replacement is a rename and not a copy.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise InputError(f"cannot write {path}: {error.strerror}") from None
