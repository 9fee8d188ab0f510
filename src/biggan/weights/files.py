"""Weight files of our own, and the cache folder.

Files are safetensors that hold all that is needed to rebuild the network. The metadata say what it
is (configuration, truncations of its statistics), what it makes (class names) and where it comes
from (source, licence, training), and are read without torch. A sha256 over all of this and over
every tensor's bytes finds a file that was cut short or changed in a single bit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar

from biggan._version import __version__
from biggan.atomic_write import replaced_atomically
from biggan.errors import DamagedFileError, InputError, first_line, printable, quoted
from biggan.locks import locked

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from biggan.models import Discriminator, Generator

_LOG = logging.getLogger("biggan.weights")

FORMAT = "biggan 1"

BUNDLED = ("fruits", "cifar10", "digits")
"""Names of the models that come with the package, the default first. They precede equal paths."""
BUNDLED_FOLDER = Path(__file__).parent / "bundled"

# In a run folder:
RUN_REAL_PREVIEW = "previews/real.png"
RUN_GENERATOR = "generator.safetensors"  # the newest EMA generator
RUN_KEPT = "generators"  # the folder of the generators of earlier steps that are kept
RUN_BEST = "best.safetensors"  # the best generator
RUN_DISCRIMINATOR = "discriminator.safetensors"  # the newest one

MAX_HEADER_BYTES = 100_000_000  # of a safetensors file: the safetensors library's own limit
_MOST_AXES = 1000
# The format's types, torch's, and bytes: in the order in which the library stores them.
_DTYPES = {
    "I64": ("int64", 8),
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "I32": ("int32", 4),
    "BF16": ("bfloat16", 2),
    "F16": ("float16", 2),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
_Record = TypeVar("_Record")


@dataclass(frozen=True)
class Description:
    """What a weights file says of itself besides the network's shape."""

    name: str  # as shown to users
    class_names: tuple[str, ...] = ()  # empty for an unconditional network
    source: str = ""  # where the weights come from
    licence: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)  # recipe, step, data, statistics


Kind = Literal["generator", "discriminator"]


@dataclass(frozen=True)
class LoadedModel:
    """A generator or a discriminator as read from a file, in eval mode."""

    network: Any
    description: Description
    sha256: str  # of the file's contents, in hex

    @property
    def kind(self) -> Kind:
        """Which of the two networks it is."""
        return _kind(self.network)


@dataclass(frozen=True)
class Header:
    """What a file of ours says of its network, not yet checked against the tensors."""

    kind: Any
    config: dict[str, Any]
    grid: list[float]  # truncations of a generator's statistics
    description: Description


# --- networks ---


def kept_generator(run: Path, step: int) -> Path:
    """The file of the generator of a step that is kept in a run folder."""
    return run / RUN_KEPT / f"step-{step:08d}.safetensors"


def save_network(
    path: Path,
    network: Generator | Discriminator,
    description: Description,
    dtype: torch.dtype | None = None,
) -> str:
    """Write a network to a file, atomically; returns the sha256 of the contents.

    Parameters are stored as float32, or as `dtype`: torch.float16 halves the file; statistics stay
    float32, for some exceed its range. Loading makes all of them float32 again.
    """
    state = network.state_dict()
    for name, parameter in network.named_parameters():
        state[name] = parameter.detach().float() if dtype is None else parameter.detach().to(dtype)
        if not state[name].isfinite().all():
            raise InputError(f"cannot write {path}: {name} is not finite as {state[name].dtype}")
    return save_tensors(path, _metadata(network, description), state)


def network_sha256(network: Generator | Discriminator, description: Description) -> str:
    """The digest that saving a network would return, without writing anything."""
    return _digest(_metadata(network, description), _on_cpu(network.state_dict()))


def _metadata(network: Generator | Discriminator, description: Description) -> dict[str, str]:
    header: dict[str, Any] = {"kind": _kind(network), "config": network.config.to_dict()}
    if header["kind"] == "generator":
        header["grid"] = list(network.head.bn.grid)  # type: ignore[union-attr, arg-type]
    return {"format": FORMAT, "header": json.dumps({**header, "description": vars(description)})}


def _kind(network: Generator | Discriminator) -> Kind:
    from biggan.models import Generator

    return "generator" if isinstance(network, Generator) else "discriminator"


def parse_header(metadata: Mapping[str, str], path: Path) -> Header:
    """The header in the metadata of a file of ours, with texts that can be printed."""
    try:
        header = json.loads(metadata["header"], object_pairs_hook=_without_duplicates)
        said = Description(**header["description"])
        names: Any = said.class_names
        texts = said.name, said.source, said.licence, *names
        if not isinstance(names, list) or not all(isinstance(text, str) for text in texts):
            raise TypeError
        name, source, licence, *names = map(printable, texts)
        description = Description(name, tuple(names), source, licence, dict(said.training))
        grid = [float(truncation) for truncation in header.get("grid", ())]
        return Header(header["kind"], dict(header["config"]), grid, description)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise InputError(f"{path} is a file of biggan, but contains no network") from None


# --- tensors ---


def save_tensors(path: Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Write tensors and metadata, whole or not at all; returns their digest.

    The library writes metadata in the order of a hash table; here equal models are equal files.
    """
    tensors = _on_cpu(tensors)
    sha256 = _digest(metadata, tensors)
    codes = {dtype: code for code, (dtype, _) in _DTYPES.items()}
    types = {name: codes[str(t.dtype).removeprefix("torch.")] for name, t in tensors.items()}
    order = sorted(tensors, key=lambda name: (list(_DTYPES).index(types[name]), name))
    header: dict[str, Any] = {"__metadata__": dict(sorted({**metadata, "sha256": sha256}.items()))}
    end = 0
    for name in order:
        begin, end = end, end + tensors[name].nbytes
        shape = list(tensors[name].shape)
        header[name] = {"dtype": types[name], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)  # the tensors begin at a multiple of 8
    with replaced_atomically(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(_bytes(tensors[name]))
    return sha256


def load_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor], str]:
    """Read what `save_tensors` wrote: the metadata, the tensors and their verified digest."""
    with open_regular(path) as file:
        metadata, tensors = read_safetensors(file, path)
    return metadata, tensors, verify(metadata, tensors, path)


def save_record(
    path: Path, key: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write tensors with plain data about them, under this key of the metadata."""
    text = json.dumps({"version": __version__, **about})
    save_tensors(path, {"format": FORMAT, key: text}, tensors)


def load_record(
    path: str | Path,
    key: str,
    build: Callable[[dict[str, Any], dict[str, Tensor]], _Record],
    advice: str,
) -> _Record:
    """Read a file of `save_record`, or say where such files come from.

    `build` makes a value of the plain data and the tensors; any error of it says that they do not
    fit.
    """
    path = Path(path).expanduser()
    metadata, tensors, _ = load_tensors(path)
    try:
        return build(json.loads(metadata[key]), tensors)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path} contains no {key}: {advice}") from None


def verify(metadata: dict[str, str], tensors: Mapping[str, Tensor], path: Path) -> str:
    """Compare contents with the digest in a file's metadata, which is taken out and returned."""
    sha256 = metadata.pop("sha256", None)
    if sha256 is None or metadata.get("format") != FORMAT:
        raise InputError(f"{path} is a safetensors file, but not a file of biggan")
    if _digest(metadata, tensors) != sha256:
        raise DamagedFileError(
            f"{path} is damaged: its contents do not match its sha256; download or export it again"
        )
    return sha256


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a file; an OSError then, or while it is read, becomes an InputError."""
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for ever
            raise InputError(f"{path} is not a regular file")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def read_safetensors(file: BinaryIO, path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of any safetensors file that is open at its start.

    Read into memory of their own: a map of the file would be aligned as the file happens to be,
    which changes rounding, and would take its size twice.
    """
    import torch

    metadata, entries = _read_header(file, path)
    tensors: dict[str, Tensor] = {}
    for name, (dtype, shape) in entries.items():
        try:
            tensors[name] = torch.empty(shape, dtype=getattr(torch, dtype), device="cpu")
        except (RuntimeError, MemoryError, TypeError) as error:  # or a shape beyond 64 bits
            raise InputError(f"{path} does not fit into memory: {first_line(error)}") from None
        values = _bytes(tensors[name])
        if file.readinto(values) < len(values):  # type: ignore[attr-defined]
            raise _not_whole(path, f"{quoted(name)} is truncated")
    return metadata, tensors


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of any safetensors file, without its tensors."""
    with open_regular(path) as file:
        return _read_header(file, path)[0]


def _read_header(
    file: BinaryIO, path: Path
) -> tuple[dict[str, str], dict[str, tuple[str, list[int]]]]:
    """The metadata, and the type and shape of every tensor in the order of their bytes.

    The tensors must fill the file without a hole, and no name may be there twice: programs differ
    in which of the two they read.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(9)
    header_size = int.from_bytes(start[:8], "little")
    if start[8:] not in (b"", b"{"):
        raise DamagedFileError(f"{path} is not a safetensors file")
    file.seek(8)
    if header_size > min(size - 8, MAX_HEADER_BYTES):
        raise _not_whole(path, "its header is truncated")
    try:
        header = json.loads(file.read(header_size), object_pairs_hook=_without_duplicates)
        metadata = header.pop("__metadata__", {})
        if not all(isinstance(text, str) for text in metadata.values()):
            raise ValueError("its metadata are not strings")
        end = 0
        entries = {}
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            (dtype, itemsize), shape = _DTYPES[entry["dtype"]], entry["shape"]
            if len(shape) > _MOST_AXES or any(type(n) is not int or n < 0 for n in shape):
                raise ValueError(f"{quoted(name)} has the shape {quoted(shape)}")
            begin, end = end, end + math.prod(shape) * itemsize
            if entry["data_offsets"] != [begin, end]:
                raise ValueError(f"the offsets of {quoted(name)} do not match its shape")
            entries[name] = dtype, shape
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise _not_whole(path, first_line(error)) from None
    if end != size - 8 - header_size:
        raise _not_whole(path, f"it has {size - 8 - header_size:,} bytes of {end:,}")
    return metadata, entries


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"its header has {quoted(name)} twice")
        values[name] = value
    return values


def _not_whole(path: Path, reason: str) -> DamagedFileError:
    return DamagedFileError(
        f"{path} is not a whole safetensors file ({reason}); it may be cut short: download it again"
    )


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


# --- the cache folder ---
#
#     biggan-deep-256.safetensors   published weights, converted
#     published-lock.json           the digests of their first downloads
#     pt_inception-2015-12-05-6726825d.pth   TF-Inception's weights, as published
#     engines.json                  what `biggan bench` measured
#     addresses/                    files given by address, a folder each
#     downloads/                    unfinished downloads: resumed the next time
#     onnxruntime-web-1.30.0/       what an exported page runs on
#     *.lock, *.lock.held           held by the process that fetches; safe to delete when none runs
#
# What is there is used as it is and never asked for again; to fetch it anew, delete it.


def cache_dir() -> Path:
    """`$BIGGAN_CACHE`, else `$XDG_CACHE_HOME/biggan`, else `~/.cache/biggan`; it need not exist."""
    above = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(os.environ.get("BIGGAN_CACHE") or f"{above}/biggan")
    try:
        return folder.expanduser()
    except RuntimeError as error:
        raise _unusable(folder, error) from None


def measurements_file() -> Path:
    """Where the speed of engines on this machine is kept."""
    return cache_dir() / "engines.json"


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Be the only process that makes a file in the cache; wait for one that already does.

    The file may be there after waiting: look again inside. Its folder is created.
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
