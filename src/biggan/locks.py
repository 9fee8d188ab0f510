"""Lock files, also on disks that have no file locks."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from biggan.errors import InputError

_NO_FILE_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS)


@contextlib.contextmanager
def locked(file: Path, busy: str, wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a lock file until the context ends.

    The lock is the operating system's and ends with its process. Network and FUSE disks may have
    none; there a second file, named `.held`, says who holds the lock. If its process was killed, it
    is removed by the next one on the same machine, and by the user on another.

    Args:
        file: Created if needed, in a folder that exists.
        busy: The message for the case that another process holds the lock.
        wait: Called with that message before waiting for the other process; None refuses instead.

    Raises:
        InputError: Another process holds the lock.
        OSError: The file cannot be written.
    """
    lock: BaseFileLock = FileLock(file, fallback_to_soft=False)
    try:
        if not _try(lock):
            lock = SoftFileLock(file.with_name(f"{file.name}.held"))
            _try(lock)
    except Timeout:
        if isinstance(lock, SoftFileLock):
            busy += f". If it was killed on another machine, delete {lock.lock_file}"
        if wait is None:
            raise InputError(busy) from None
        wait(busy)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _try(lock: BaseFileLock) -> bool:
    """Take a lock if it is free; False where the disk has no such locks."""
    try:
        # In most versions of filelock, the first attempt only removes the file of a killed process.
        lock.acquire(timeout=0.1, poll_interval=0.05)
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in _NO_FILE_LOCKS:
            raise
        return False
    return True
