"""A user's word for a model -> a verified network: locate, sniff, read, build.

A word is, in this order: nothing (the default model), the name of a bundled model, a name of
DeepMind's published weights, an address (`https://`, `hf://owner/repo`, `file://`), or a path. What
is there under a path goes before a published name. The format is found from the contents:

    ours          a safetensors file, or the folder of a training run
    Hugging Face  pytorch_model.bin with config.json beside it, or their folder
    ajbrock       G_ema.pth, G.pth or D.pth, or their folder
    ivclab        biggan{128,256,512}-release.pt
    TF Hub        a module's folder, or its archive (.tar.gz)
"""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from biggan.classes import default_class_names
from biggan.errors import DamagedFileError, InputError, printable, quoted
from biggan.models import PRESETS, Discriminator, Generator
from biggan.weights.addresses import is_address, obtain_address
from biggan.weights.cache import cache_dir
from biggan.weights.containers.archives import unpacked
from biggan.weights.containers.pickles import load_state_dict
from biggan.weights.containers.tensor_bundle import VARIABLES, TensorBundle
from biggan.weights.files import (
    EPSILONS_KNOWN,
    FORMAT,
    MAX_HEADER_BYTES,
    RUN_DISCRIMINATOR,
    RUN_GENERATOR,
    Description,
    LoadedModel,
    assemble,
    build_network,
    network_sha256,
    open_regular,
    read_safetensors,
)
from biggan.weights.published import BUNDLED, BUNDLED_FOLDER, PUBLISHED, cached_path, obtain

Kind = Literal["generator", "discriminator"]

# In a folder of several files: the names that each software gives to what one samples from.
_PREFERRED: dict[Kind, tuple[str, ...]] = {
    "generator": (RUN_GENERATOR, "pytorch_model.bin", "G_ema.pth", "G_ema_*.pth", "G.pth"),
    "discriminator": (RUN_DISCRIMINATOR, "D.pth", "D_[!o]*.pth"),  # not D_optim
}
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".tar.gz", ".tgz", ".tar")
_HEAD_BYTES = 512


def load_generator(
    word: str | Path | None,
    *,
    offline: bool = False,
    bn_eps: float | None = None,
    sn_eps: float | None = None,
) -> LoadedModel[Generator]:
    """Load a generator.

    Args:
        word: What a user calls it; None for the default model.
        offline: Whether to fetch nothing: what was fetched before is found in the cache.
        bn_eps: Epsilon of BatchNorm, for ajbrock's files, which do not say it; None for 1e-5.
        sn_eps: Epsilon of spectral normalization, likewise; None for 1e-6.

    Raises:
        InputError: Nothing loadable is there, it is damaged, or it is something else.
    """
    return _load(word, "generator", offline, bn_eps, sn_eps)


def load_discriminator(
    word: str | Path, *, offline: bool = False, sn_eps: float | None = None
) -> LoadedModel[Discriminator]:
    """Load a discriminator; see `load_generator`. Of a repository, its file has to be named."""
    return _load(word, "discriminator", offline, None, sn_eps)


def load_network(
    word: str | Path,
    *,
    offline: bool = False,
    bn_eps: float | None = None,
    sn_eps: float | None = None,
) -> LoadedModel[Generator | Discriminator]:
    """Load whichever network is there, of a folder its generator; see `load_generator`."""
    return _load(word, None, offline, bn_eps, sn_eps)


def _load(
    word: str | Path | None,
    kind: Kind | None,
    offline: bool,
    bn_eps: float | None,
    sn_eps: float | None,
) -> LoadedModel[Any]:
    path = locate(word, kind or "generator", offline=offline)
    with _way_out(path):
        file = _weights_file(path, kind or "generator")
        loaded = read_network(file, bn_eps=bn_eps, sn_eps=sn_eps)
        if kind not in (None, loaded.kind):
            raise InputError(f"{file} holds a {loaded.kind}, not a {kind}")
    return loaded


# --- locate ---


def locate(word: str | Path | None, kind: Kind = "generator", *, offline: bool = False) -> Path:
    """The file or folder that a user's word leads to, fetched if it has to be.

    Raises:
        InputError: Nothing is there.
    """
    if not isinstance(word, str | Path | None):
        raise InputError(f"a model is a name, a path or an address, not {quoted(word)}")
    name = BUNDLED[0] if word is None else str(word)
    if name in BUNDLED:
        bundled = f"{name}.safetensors" if kind == "generator" else f"{name}-{kind}.safetensors"
        if kind == "generator" or (BUNDLED_FOLDER / bundled).is_file():
            return BUNDLED_FOLDER / bundled
    if not name:
        raise InputError("the model's name is empty: leave it out for the bundled one")
    if kind == "generator" and means_published(name):
        return obtain(name, read_network, offline=offline)
    if is_address(name):
        return obtain_address(name, offline=offline)
    try:
        path = Path(name).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError) as error:  # no permission, too long a name, no such user
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot open {quoted(name)}: {reason}") from None
    raise InputError(_nothing_there(name, kind))


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
    if not path.is_dir():
        return not path.exists()
    names = {file.name for file in _listing(path)}
    return "saved_model.pb" not in names and not any(n.endswith(_ENDINGS) for n in names)


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror or error}") from None


def _weights_file(path: Path, kind: Kind) -> Path:
    """The file that a path means: itself, or the right one of a folder; or a TF Hub module."""
    if not path.is_dir() or (path / "saved_model.pb").exists():
        return path
    listed = _listing(path)
    for pattern in _PREFERRED[kind]:
        if len(found := [file for file in listed if file.match(pattern)]) == 1:
            return found[0]
    found = [file for file in listed if file.name.endswith(_ENDINGS)]
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:5])
        raise InputError(f"{path} holds several weights files ({names}): name one of them")
    if not found:
        raise InputError(
            f"{path} holds no {_PREFERRED[kind][0]} (a run folder has one after its first "
            "checkpoint) and no weights of another format"
        )
    return found[0]


def _nothing_there(name: str, kind: Kind) -> str:
    if kind == "discriminator" and name in PUBLISHED:
        return (
            f"{name} has no discriminator: DeepMind published none. Give a weights file that has "
            "one, such as ajbrock's D.pth, or the folder of a training run"
        )
    if kind == "discriminator":
        return (
            f"no discriminator {quoted(name)}: give a weights file, or the folder of a training run"
        )
    if name in PRESETS:
        return (
            f"{name} is an architecture without published weights. Give a weights file or a run "
            f"folder, or leave the model out for {BUNDLED[0]!r}"
        )
    bundled = " or ".join(map(repr, BUNDLED))
    written = re.sub(r"[\s_]+", "-", name[:100].lower())
    near = difflib.get_close_matches(written, (*BUNDLED, *PUBLISHED), n=1, cutoff=0.8)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    return (
        f"no model {quoted(name)}{meant}: give {bundled} (bundled), a weights file, the folder of "
        f"a training run, an address (https://, hf://owner/repo), or one of {', '.join(PUBLISHED)}"
    )


@contextmanager
def _way_out(path: Path) -> Iterator[None]:
    """Add to a mistake in a bundled or cached file how to replace it.

    What was fetched and is damaged is deleted, and nothing else that may lie in the cache's folder.
    """
    try:
        yield
    except InputError as error:
        if path.parent == BUNDLED_FOLDER:
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


# --- sniff, read, build ---


def read_network(
    path: Path, *, bn_eps: float | None = None, sn_eps: float | None = None
) -> LoadedModel[Any]:
    """Read a network in any known format; of a folder its generator. See `load_generator`.

    Raises:
        InputError: It is damaged, or something else.
    """
    path = _weights_file(path, "generator")
    epsilons = {"bn_eps": bn_eps, "sn_eps": sn_eps}
    try:
        if path.is_dir():
            return _convert(TensorBundle(path / VARIABLES), path, epsilons)
        with open_regular(path) as file:
            container = _sniff(file.read(_HEAD_BYTES), path)
            file.seek(0)
            if container == "archive":
                with unpacked(file, path) as folder:
                    return _convert(TensorBundle(folder / VARIABLES), folder, epsilons)
            if container == "pickle":
                return _convert(load_state_dict(file, path), path, epsilons)
            metadata, tensors = read_safetensors(file, path)
        if metadata.get("format") != FORMAT:
            return _convert(tensors, path, epsilons)
        if (bn_eps, sn_eps) != (None, None):
            raise InputError(f"{path}: {EPSILONS_KNOWN}")
        return build_network(metadata, tensors, path)
    except InputError as error:  # that of a shape that cannot be built knows no file
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from None


def _sniff(head: bytes, path: Path) -> Literal["safetensors", "archive", "pickle"]:
    """How the tensors of a file are stored, by its first bytes."""
    # First, for the bytes of the header's size may be anything.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER_BYTES:
        return "safetensors"
    if head.startswith(b"\x1f\x8b") or head[257:262] == b"ustar":
        return "archive"
    if head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "pickle"
    text = head.lstrip().lower()
    if not head:
        nature = "is empty: fetch it again"
    elif text.startswith((b"<!doctype", b"<html", b"<?xml")):
        nature = "is a web page, not a weights file: its download met an error page or a login"
    elif text.startswith(b"version https://git-lfs"):
        nature = "is a Git LFS pointer, not the weights: fetch them with `git lfs pull`"
    elif path.suffix == ".json":
        nature = "is a configuration: give the weights file beside it"
    else:
        nature = "is no weights file: neither safetensors, nor a torch file, nor a TF Hub archive"
    raise DamagedFileError(f"{path} {nature}")


def _convert(
    tensors: Mapping[str, Tensor], path: Path, epsilons: Mapping[str, float | None]
) -> LoadedModel[Any]:
    """The network that foreign tensors are, described by their contents alone.

    So a file under any name, and what it is converted to, are one model with one digest.
    """
    from biggan.weights.formats import FORMATS
    from biggan.weights.formats.conversion import ForeignTensors

    if all(name.startswith("module.") for name in tensors):  # put there by `DataParallel`
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    source = ForeignTensors(tensors, path, epsilons)
    known = next((known for known in FORMATS if known.matches(source)), None)
    if known is None:
        names = printable(", ".join(list(tensors)[:3]))[:100]
        raise InputError(
            f"{path} holds tensors of no format known here (such as {names}); known are those of "
            "biggan, pytorch_pretrained_biggan, ajbrock/BigGAN-PyTorch, ivclab and TF Hub"
        )
    converted = known.convert(source)
    config = converted.config
    network = assemble(config, converted.grid, converted.tensors, path)
    description = Description(
        name=f"{config.family}-{config.resolution}",
        class_names=default_class_names(config.num_classes),
        source=f"weights of {converted.origin}",
        licence=converted.licence,
    )
    return LoadedModel(network, description, network_sha256(network, description))
