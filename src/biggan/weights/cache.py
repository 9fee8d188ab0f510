"""The folder that keeps what was fetched, and who may write there.

It is `$BIGGAN_CACHE`, else `$XDG_CACHE_HOME/biggan`, else `~/.cache/biggan`:

    biggan-deep-256.safetensors   published weights, converted
    pt_inception-2015-12-05-6726825d.pth   TF-Inception's weights, as published
    addresses/                    files given by address, a folder each
    downloads/                    unfinished downloads: resumed the next time
    *.lock, *.lock.held           held by the process that fetches; safe to delete when none runs

What is there is used as it is and never asked for again; to fetch it anew, delete it.
With BIGGAN_OFFLINE=1 in the environment nothing is fetched.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from biggan.errors import InputError
from biggan.locks import locked

_LOG = logging.getLogger("biggan.weights")


def cache_dir() -> Path:
    """The cache's folder, which need not exist yet."""
    if chosen := os.environ.get("BIGGAN_CACHE"):
        folder = Path(chosen)
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "biggan"
    try:
        return folder.expanduser()
    except RuntimeError as error:
        raise _unusable(folder, error) from None


def is_offline(asked: bool) -> bool:
    """Whether nothing may be fetched: the caller says so, or BIGGAN_OFFLINE is set and not 0."""
    return asked or os.environ.get("BIGGAN_OFFLINE", "") not in ("", "0")


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Be the only process that makes a file in the cache; wait for one that already does.

    The file may be there after waiting: look again inside.

    Args:
        path: What is to be made. Its folder is created.
        what: What to call it in the log.
    """
    lock = path.with_name(f"{path.name}.lock")
    busy = f"another process is downloading {what}; waiting for it"
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(lock, busy, wait=_LOG.info))
        except OSError as error:
            raise _unusable(path.parent, error) from None
        yield


def _unusable(folder: Path, error: Exception) -> InputError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return InputError(
        f"cannot write to the cache {folder}: {reason}; set BIGGAN_CACHE to a writable folder"
    )
