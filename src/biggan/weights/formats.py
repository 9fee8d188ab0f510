"""What a path holds: the format of a weights file or folder, found from its contents.

    ours          a safetensors file, or the folder of a training run
    Hugging Face  pytorch_model.bin with config.json beside it, or their folder
    ajbrock       G_ema.pth, G.pth or D.pth, or their folder
    ivclab        biggan{128,256,512}-release.pt
    TF Hub        a module's folder, or its archive (.tar.gz)

Nothing is asked of the user and nothing is guessed from a name: the container is known by its first
bytes, the format by the names of the tensors in it.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from biggan.classes import default_class_names
from biggan.errors import DamagedFileError, InputError, printable
from biggan.models import DiscriminatorConfig, GeneratorConfig
from biggan.weights import archives, brock, files, huggingface, ivclab, pickles, tfhub
from biggan.weights.files import (
    RUN_DISCRIMINATOR,
    RUN_GENERATOR,
    Description,
    LoadedDiscriminator,
    LoadedGenerator,
)
from biggan.weights.foreign import DEEPMIND_LICENCE, Converted, ForeignTensors

Kind = Literal["generator", "discriminator"]

# In a folder of several files: the names that each software gives to what one samples from.
_PREFERRED: dict[Kind, tuple[str, ...]] = {
    "generator": (RUN_GENERATOR, "pytorch_model.bin", "G_ema.pth", "G_ema_*.pth", "G.pth"),
    "discriminator": (RUN_DISCRIMINATOR, "D.pth", "D_[!o]*.pth"),  # not D_optim
}
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".tar.gz", ".tgz", ".tar")
_CONFIG = "config.json"
_CONFIG_BYTES = 1 << 20  # at most
_HEAD_BYTES = 512
_HEADER_BYTES = 100_000_000  # of a safetensors file, at most: that library's own limit

_BROCK_LICENCE = "not established: the code that they come with is MIT"


def read_generator(
    path: Path, *, bn_eps: float | None = None, sn_eps: float | None = None
) -> LoadedGenerator:
    """Read a generator in any known format.

    Args:
        path: A file or a folder.
        bn_eps: Epsilon of BatchNorm, for ajbrock's files, which do not say it; None for 1e-5.
        sn_eps: Epsilon of spectral normalization, likewise; None for 1e-6.

    Raises:
        InputError: Nothing loadable is there, it is damaged, or it is something else.
    """
    loaded = read_network(path, bn_eps=bn_eps, sn_eps=sn_eps)
    if isinstance(loaded, LoadedDiscriminator):
        raise InputError(f"{path} holds a discriminator, not a generator")
    return loaded


def read_discriminator(path: Path, *, sn_eps: float | None = None) -> LoadedDiscriminator:
    """Read a discriminator: ours or ajbrock's. DeepMind published none.

    Args:
        path: A file or a folder.
        sn_eps: Epsilon of spectral normalization, for ajbrock's files; None for 1e-6.

    Raises:
        InputError: As `read_generator`.
    """
    path = _weights_file(path, "discriminator")
    loaded = read_network(path, sn_eps=sn_eps)
    if isinstance(loaded, LoadedGenerator):
        raise InputError(f"{path} holds a generator, not a discriminator")
    return loaded


def read_network(
    path: Path, *, bn_eps: float | None = None, sn_eps: float | None = None
) -> LoadedGenerator | LoadedDiscriminator:
    """Read whichever network a file holds, of a folder its generator; see `read_generator`."""
    path = _weights_file(path, "generator")
    try:
        return _read(path, bn_eps, sn_eps)
    except InputError as error:  # that of a shape that cannot be built knows no file
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from None


def _read(
    path: Path, bn_eps: float | None, sn_eps: float | None
) -> LoadedGenerator | LoadedDiscriminator:
    container = _container(path)
    if container == "safetensors" and files.is_ours(path):
        _refuse_epsilons(path, bn_eps, sn_eps)
        return files.load_network(path)
    if container == "tfhub":
        _refuse_epsilons(path, bn_eps, sn_eps)
        with ExitStack() as stack:
            folder = path if path.is_dir() else stack.enter_context(archives.unpacked(path))
            return _generator(tfhub.convert_generator(folder), DEEPMIND_LICENCE, path)
    tensors = (
        files.read_tensors(path) if container == "safetensors" else pickles.load_state_dict(path)
    )
    return _read_state_dict(path, tensors, bn_eps, sn_eps)


def _read_state_dict(
    path: Path, tensors: dict[str, Tensor], bn_eps: float | None, sn_eps: float | None
) -> LoadedGenerator | LoadedDiscriminator:
    source = ForeignTensors(_without_parallel_prefix(tensors), str(path))
    if brock.is_known(source):
        sn_eps = brock.SN_EPS if sn_eps is None else sn_eps
        if brock.is_discriminator(source):
            if bn_eps is not None:
                raise InputError(f"{path} holds a discriminator, which has no BatchNorm: no bn_eps")
            return _discriminator(brock.convert_discriminator(source, sn_eps=sn_eps), path)
        bn_eps = brock.BN_EPS if bn_eps is None else bn_eps
        converted = brock.convert_generator(source, bn_eps=bn_eps, sn_eps=sn_eps)
        return _generator(converted, _BROCK_LICENCE, path)
    _refuse_epsilons(path, bn_eps, sn_eps)
    if huggingface.is_known(source):
        converted = huggingface.convert_generator(source, _settings(path))
    elif ivclab.is_known(source):
        converted = ivclab.convert_generator(source)
    else:
        names = printable(", ".join(list(tensors)[:3]))[:100]
        raise InputError(
            f"{path} holds tensors of no format known here (such as {names}); known are those of "
            "biggan, pytorch_pretrained_biggan, ajbrock/BigGAN-PyTorch, ivclab and TF Hub"
        )
    return _generator(converted, DEEPMIND_LICENCE, path)


def _without_parallel_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as they are without `DataParallel`, which puts "module." before every one."""
    prefix = "module."
    if all(name.startswith(prefix) for name in tensors):
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _generator(converted: Converted[GeneratorConfig], licence: str, path: Path) -> LoadedGenerator:
    config = converted.config
    generator = files.assemble_generator(config, converted.grid, converted.tensors, path)
    description = _description(converted, licence)
    return LoadedGenerator(generator, description, files.generator_sha256(generator, description))


def _discriminator(converted: Converted[DiscriminatorConfig], path: Path) -> LoadedDiscriminator:
    discriminator = files.assemble_discriminator(converted.config, converted.tensors, path)
    description = _description(converted, _BROCK_LICENCE)
    sha256 = files.discriminator_sha256(discriminator, description)
    return LoadedDiscriminator(discriminator, description, sha256)


def _description(
    converted: Converted[GeneratorConfig] | Converted[DiscriminatorConfig], licence: str
) -> Description:
    """What the file did not say of itself.

    It depends on the contents alone, so that a file under any name, and what it is converted to,
    are the same model with the same digest.
    """
    config = converted.config
    return Description(
        name=f"{config.family}-{config.resolution}",
        class_names=default_class_names(config.num_classes),
        source=f"weights of {converted.origin}",
        licence=licence,
    )


def _refuse_epsilons(path: Path, bn_eps: float | None, sn_eps: float | None) -> None:
    if (bn_eps, sn_eps) != (None, None):
        raise InputError(
            f"{path}: the epsilons of this format are known; bn_eps and sn_eps are for ajbrock's "
            "files alone, which do not say theirs"
        )


def has_weights(folder: Path) -> bool:
    """Whether a folder has anything in it that might be loaded.

    Raises:
        InputError: It cannot be read.
    """
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror or error}") from None
    return "saved_model.pb" in names or any(name.endswith(_ENDINGS) for name in names)


def _weights_file(path: Path, kind: Kind) -> Path:
    """The file that a path means: itself, or the right one of a folder.

    Returns:
        A file; or the folder itself, if that is a TF Hub module.
    """
    if not path.is_dir() or (path / "saved_model.pb").exists():
        return path
    try:
        for pattern in _PREFERRED[kind]:
            if len(found := list(path.glob(pattern))) == 1:
                return found[0]
        found = sorted(file for file in path.iterdir() if file.name.endswith(_ENDINGS))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:5])
        raise InputError(f"{path} holds several weights files ({names}): name one of them")
    if not found:
        raise InputError(
            f"{path} holds no {_PREFERRED[kind][0]} (a run folder has one after its first "
            "checkpoint) and no weights of another format"
        )
    return found[0]


def _container(path: Path) -> Literal["safetensors", "pickle", "tfhub"]:
    """How the tensors of a file are stored, by its first bytes."""
    if path.is_dir():
        return "tfhub"
    head = _head(path)
    # First, for the bytes of the header's size may be anything.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _HEADER_BYTES:
        return "safetensors"
    if head.startswith(b"\x1f\x8b") or head[257:262] == b"ustar":
        return "tfhub"
    if head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "pickle"
    raise DamagedFileError(f"{path} {_nature(head, path)}")


def _head(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for ever
            raise InputError(f"{path} is no regular file")
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _nature(head: bytes, path: Path) -> str:
    text = head.lstrip().lower()
    if not head:
        return "is empty: fetch it again"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not a weights file: its download met an error page or a login"
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights: fetch them with `git lfs pull`"
    if path.suffix == ".json":
        return "is a configuration: give the weights file beside it"
    return "is no weights file: neither safetensors, nor a torch file, nor a TF Hub archive"


def _settings(path: Path) -> dict[str, Any]:
    """The config.json beside a `pytorch_model.bin`; empty where there is none.

    Hugging Face published both with the model's name before theirs.
    """
    beside = path.with_name(path.name.replace("pytorch_model.bin", _CONFIG))
    for file in (beside, path.with_name(_CONFIG)):
        if file != path and file.is_file():
            try:
                text = file.read_bytes()[: _CONFIG_BYTES + 1]
                settings = json.loads(text) if len(text) <= _CONFIG_BYTES else None
            except (OSError, ValueError, RecursionError):
                settings = None
            if not isinstance(settings, dict):
                raise InputError(f"{file}, beside {path.name}, is no JSON object")
            return settings
    return {}
