"""Freed memory kept by the process, for training on a CPU."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD = -1  # names of mallopt's parameters in glibc's malloc.h
_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Let the C library keep what large tensors free, instead of handing it back to the system.

    Handed back, it is asked for again a moment later, and the system clears it page by page: at
    biggan-128 on two cores that is a tenth to a fifth of a step. It holds for the whole process, so
    a program calls it and a library does not. Where the C library is not glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc; Windows
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
