"""Where a model's name leads: the bundled weights, a path, an address, a published model.

The one place that decides what a user's word for a model means, in this order: an address
(`scheme://`), whatever is there under that path, one of DeepMind's published names.
"""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from biggan.errors import DamagedFileError, InputError, quoted
from biggan.models import PRESETS
from biggan.weights import formats
from biggan.weights.addresses import is_address, obtain_address
from biggan.weights.cache import cache_dir
from biggan.weights.files import LoadedDiscriminator, LoadedGenerator
from biggan.weights.published import PUBLISHED, cached_path, obtain

BUNDLED = ("digits",)
"""Names of the models that come with the package, the default first. They precede equal paths."""

_BUNDLED_FOLDER = Path(__file__).parent / "bundled"


def find_generator(
    name_or_path: str | Path | None,
    *,
    offline: bool = False,
    bn_eps: float | None = None,
    sn_eps: float | None = None,
) -> LoadedGenerator:
    """Read a generator by the name, path or address that a user gives.

    Args:
        name_or_path: None for the default model; a bundled name; a weights file of any known
            format; a run folder; an address (see `biggan.weights.addresses`); a published name.
        offline: Whether to fetch nothing: what was fetched before is found in the cache.
        bn_eps: See `biggan.weights.formats.read_generator`.
        sn_eps: Likewise.

    Raises:
        InputError: Nothing loadable is there.
    """
    path = _locate(name_or_path, offline=offline)
    with _way_out(path):
        return formats.read_generator(path, bn_eps=bn_eps, sn_eps=sn_eps)


def find_network(
    name_or_path: str | Path,
    *,
    offline: bool = False,
    bn_eps: float | None = None,
    sn_eps: float | None = None,
) -> LoadedGenerator | LoadedDiscriminator:
    """Read whichever network is there, of a folder its generator; see `find_generator`."""
    path = _locate(name_or_path, offline=offline)
    with _way_out(path):
        return formats.read_network(path, bn_eps=bn_eps, sn_eps=sn_eps)


def find_discriminator(
    path: str | Path, *, offline: bool = False, sn_eps: float | None = None
) -> LoadedDiscriminator:
    """Read a discriminator from a weights file, a run folder or an address.

    Args:
        path: Where it is, or a bundled name. Of a repository, its file has to be named.
        offline: See `find_generator`.
        sn_eps: See `biggan.weights.formats.read_discriminator`.

    Raises:
        InputError: Nothing loadable is there.
    """
    name = _as_text(path)
    bundled = _BUNDLED_FOLDER / f"{name}-discriminator.safetensors"
    if name in BUNDLED and bundled.is_file():
        found: Path | None = bundled
    else:
        found = _addressed_or_local(name, offline=offline)
    if found is None and name in PUBLISHED:
        raise InputError(
            f"{name} has no discriminator: DeepMind published none. Give a weights file that has "
            "one, such as ajbrock's D.pth, or the folder of a training run"
        )
    if found is None:
        raise InputError(
            f"no discriminator {quoted(name)}: give a weights file, or the folder of a training run"
        )
    with _way_out(found):
        return formats.read_discriminator(found, sn_eps=sn_eps)


def means_published(name: str) -> bool:
    """Whether a name means DeepMind's published weights.

    What is there under that path goes before the name; but not a folder without weights, such as
    one of samples that is called like their model.

    Raises:
        InputError: The folder cannot be read.
    """
    if name not in PUBLISHED:
        return False
    path = Path(name)
    return not path.exists() or (path.is_dir() and not formats.has_weights(path))


def _locate(name_or_path: str | Path | None, *, offline: bool) -> Path:
    """The file or folder that a generator's name, path or address leads to."""
    name = BUNDLED[0] if name_or_path is None else _as_text(name_or_path)
    if name in BUNDLED:
        return _BUNDLED_FOLDER / f"{name}.safetensors"
    if not name:
        raise InputError("the model's name is empty: leave it out for the bundled one")
    if means_published(name):
        return obtain(name, offline=offline)
    found = _addressed_or_local(name, offline=offline)
    if found is None:
        raise _no_generator(name)
    return found


def _as_text(name_or_path: object) -> str:
    if not isinstance(name_or_path, str | Path):
        raise InputError(f"a model is a name, a path or an address, not {quoted(name_or_path)}")
    return str(name_or_path)


def _addressed_or_local(name: str, *, offline: bool) -> Path | None:
    """The path that an address leads to, or that a name is; None where there is nothing."""
    if is_address(name):
        return obtain_address(name, offline=offline)
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError) as error:  # no permission, too long a name, no such user
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot open {quoted(name)}: {reason}") from None


def _no_generator(name: str) -> InputError:
    if name in PRESETS:
        return InputError(
            f"{name} is an architecture without published weights. Give a weights file or a run "
            f"folder, or leave the model out for {BUNDLED[0]!r}"
        )
    bundled = " or ".join(map(repr, BUNDLED))
    written = re.sub(r"[\s_]+", "-", name[:100].lower())
    near = difflib.get_close_matches(written, (*BUNDLED, *PUBLISHED), n=1, cutoff=0.8)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    return InputError(
        f"no model {quoted(name)}{meant}: give {bundled} (bundled), a weights file, the folder of "
        f"a training run, an address (https://, hf://owner/repo), or one of {', '.join(PUBLISHED)}"
    )


@contextmanager
def _way_out(path: Path) -> Iterator[None]:
    """Let a mistake in a bundled or cached file say how to replace it.

    What was fetched and is damaged is deleted, and nothing else that may lie in the cache's folder.
    """
    try:
        yield
    except InputError as error:
        if path.parent == _BUNDLED_FOLDER:
            raise InputError(
                f"{error} (a part of this installation: install biggan again)"
            ) from None
        if not path.is_relative_to(cache_dir()):
            raise
        addresses = cache_dir() / "addresses"
        entry = path
        if path.is_relative_to(addresses):  # one folder for each
            entry = addresses / path.relative_to(addresses).parts[0]
        fetched = entry.parent == addresses or path in map(cached_path, PUBLISHED)
        if fetched and isinstance(error, DamagedFileError):
            with suppress(OSError):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            raise InputError(f"{error} (the copy in the cache is deleted: try again)") from None
        raise InputError(
            f"{error} (a copy in the cache; if it is damaged, delete {entry} to have it fetched "
            "again)"
        ) from None
