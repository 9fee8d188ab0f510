"""Weight files of our own: safetensors that hold all that is needed to rebuild the network.

The metadata says what the network is (configuration, truncations of its statistics), what it makes
(class names) and where it comes from (source, licence, training). A sha256 over all of this and
over every tensor's bytes finds a file that was cut short or changed in a single bit.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from biggan.atomic_write import replaced_atomically
from biggan.classes import default_class_names
from biggan.errors import DamagedFileError, InputError, printable, quoted
from biggan.models import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
    make_discriminator,
    make_generator,
)
from biggan.nn import OffGrid, StandingBatchNorm2d

FORMAT = "biggan 1"

RUN_GENERATOR = "generator.safetensors"
"""Name of the newest EMA generator in a run folder."""

RUN_DISCRIMINATOR = "discriminator.safetensors"
"""Name of the newest discriminator in a run folder."""

EPSILONS_KNOWN = (
    "its epsilons are known; bn_eps and sn_eps are for ajbrock's files alone, which do not say "
    "theirs (and a discriminator has no bn_eps)"
)
"""What is said where a user gives epsilons of weights that have their own."""

MAX_HEADER_BYTES = 100_000_000
"""Of a safetensors file: that library's own limit."""

_MOST_AXES = 1000
_HALF = (torch.float16, torch.bfloat16)
_LISTED = 20  # faults that one message names
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Description:
    """What a weights file says of itself besides the network's shape."""

    name: str
    """Short name, as shown to users."""
    class_names: tuple[str, ...] = ()
    """One per class; empty for an unconditional network."""
    source: str = ""
    """Where the weights come from."""
    licence: str = ""
    """What may be done with them."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Summary of the training: recipe, step, data, statistics."""


Network_co = TypeVar("Network_co", bound=Generator | Discriminator, covariant=True)


@dataclass(frozen=True)
class LoadedModel(Generic[Network_co]):
    """A generator or a discriminator as read from a file, in eval mode."""

    network: Network_co
    description: Description
    sha256: str
    """Digest of the file's contents, in hex."""

    @property
    def kind(self) -> Literal["generator", "discriminator"]:
        """Which of the two networks it is."""
        return "generator" if isinstance(self.network, Generator) else "discriminator"


# --- networks to files ---


def save_generator(
    path: Path, generator: Generator, description: Description, dtype: torch.dtype = torch.float32
) -> str:
    """Write a generator to a file, atomically.

    Args:
        path: The file; its folder exists.
        generator: All parameters and statistics are written.
        description: What else the file says.
        dtype: Of the parameters. torch.float16 halves the file; statistics stay float32, for some
            exceed its range. Loading makes all of them float32 again.

    Returns:
        The sha256 of the contents.

    Raises:
        InputError: A parameter exceeds the range of float16, or the file cannot be written.
    """
    state = _state_in(generator, dtype, path)
    return save_tensors(path, _metadata(generator, description), state)


def save_discriminator(
    path: Path,
    discriminator: Discriminator,
    description: Description,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write a discriminator to a file, atomically; see `save_generator`."""
    state = _state_in(discriminator, dtype, path)
    return save_tensors(path, _metadata(discriminator, description), state)


def _state_in(network: torch.nn.Module, dtype: torch.dtype, path: Path) -> dict[str, Tensor]:
    state = network.state_dict()
    for name, parameter in network.named_parameters():
        state[name] = parameter.detach().to(dtype)
        if not state[name].isfinite().all():
            raise InputError(f"cannot write {path}: {name} is not finite as {dtype}")
    return state


def network_sha256(network: Generator | Discriminator, description: Description) -> str:
    """The digest that saving a network would return, without writing anything."""
    return _digest(_metadata(network, description), _on_cpu(network.state_dict()))


def _metadata(network: Generator | Discriminator, description: Description) -> dict[str, str]:
    header: dict[str, Any] = {"kind": "discriminator", "config": network.config.to_dict()}
    if isinstance(network, Generator):
        header |= {"kind": "generator", "grid": list(statistics_grid(network))}
    return {"format": FORMAT, "header": json.dumps({**header, "description": vars(description)})}


# --- files to networks ---


def build_network(
    metadata: dict[str, str], tensors: dict[str, Tensor], path: Path
) -> LoadedModel[Any]:
    """The network of a file of ours, after its contents are verified.

    Raises:
        InputError: It is damaged, or holds no network.
    """
    sha256 = _verify(metadata, tensors, path)
    try:
        header = json.loads(metadata["header"], object_pairs_hook=_without_duplicates)
        kind, description = header["kind"], _description(header["description"])
        values = dict(header["config"])
        grid = [float(truncation) for truncation in header.get("grid", ())]
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise InputError(f"{path} is one of biggan's files, but holds no network") from None
    if kind == "generator":
        config = GeneratorConfig.from_dict(values)
        network: Generator | Discriminator = assemble(config, grid, tensors, path)
        names = description.class_names or default_class_names(config.num_classes)
        if len(names) != config.num_classes:
            raise InputError(
                f"{path} names {len(names)} classes of its network's {config.num_classes}"
            )
        description = replace(description, class_names=names)
    elif kind == "discriminator":
        network = assemble(DiscriminatorConfig.from_dict(values), (), tensors, path)
    else:
        raise InputError(f"{path} holds a {quoted(kind)}, not a generator or a discriminator")
    return LoadedModel(network, description, sha256)


def _description(values: Mapping[str, Any]) -> Description:
    """The description in a file's header, with texts that can be printed.

    Raises:
        TypeError, KeyError, ValueError: It is none.
    """
    found = Description(**values)
    texts = {"name": found.name, "source": found.source, "licence": found.licence}
    names = values["class_names"]
    if not isinstance(names, list) or not all(
        isinstance(t, str) for t in (*names, *texts.values())
    ):
        raise TypeError
    return Description(
        **{key: printable(text) for key, text in texts.items()},
        class_names=tuple(map(printable, names)),
        training=dict(found.training),
    )


def assemble(
    config: GeneratorConfig | DiscriminatorConfig,
    grid: Sequence[float],
    tensors: Mapping[str, Tensor],
    path: Path,
) -> Generator | Discriminator:
    """A network in eval mode that is made of these tensors, without a copy of them.

    Args:
        config: Its shape.
        grid: The truncations of a generator's statistics.
        tensors: Its whole state, by name.
        path: Where they come from, for messages.

    Raises:
        InputError: Naming every missing, unexpected or misshapen tensor.
    """
    ascending = all(before < after for before, after in pairwise(grid))
    if not ascending or not all(0 <= truncation < math.inf for truncation in grid):
        raise InputError(f"{path}: the truncations of its statistics do not ascend from 0 on")
    if isinstance(config, GeneratorConfig) and config.off_grid == "hub":
        _require_hub_grid(grid)
    network = empty_network(config, grid)
    load_strictly(network, tensors, path)
    for name, layer in network.named_modules():
        if isinstance(layer, StandingBatchNorm2d):
            for variance in (layer.running_var, layer.table_var):
                if bool((variance + layer.eps <= 0).any()):
                    raise InputError(f"{path}: a variance of {name} is negative")
    return network.eval()


def empty_network(
    config: GeneratorConfig | DiscriminatorConfig, grid: Sequence[float] = ()
) -> Generator | Discriminator:
    """A network on torch's `meta` device: names and shapes, without values or memory."""
    with torch.device("meta"):
        if isinstance(config, DiscriminatorConfig):
            return make_discriminator(config)
        generator = make_generator(config)
        set_statistics_grid(generator, list(grid))
        return generator


def load_strictly(network: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Make tensors the parameters and buffers of a network, all of them and no others.

    Half-precision tensors become float32.

    Raises:
        InputError: Naming the tensors that are missing, unexpected, of another shape or type, or
            not finite.
    """
    expected = network.state_dict()
    tensors = {
        name: value.float() if value.dtype in _HALF else value for name, value in tensors.items()
    }
    wrong = [f"missing {name}" for name in expected if name not in tensors]
    wrong += [f"unexpected {printable(name)[:100]}" for name in tensors if name not in expected]
    for name, value in expected.items():
        found = tensors.get(name, value)
        if found.shape != value.shape:
            wrong.append(f"{name} is {quoted(tuple(found.shape))}, not {tuple(value.shape)}")
        elif found.dtype != value.dtype:
            wrong.append(f"{name} is {found.dtype}, not {value.dtype}".replace("torch.", ""))
        elif name in tensors and not bool(found.isfinite().all()):
            wrong.append(f"{name} has values that are not finite numbers")
    if wrong:
        raise InputError(f"{path} does not fit its network: {listed_faults(wrong)}")
    # Assigned, not copied: the network takes no memory besides the tensors'.
    network.load_state_dict(tensors, assign=True)


def listed_faults(faults: Sequence[str]) -> str:
    """Faults of tensors as one line holds them: the first twenty, and how many others."""
    more = f"; and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
    return "; ".join(faults[:_LISTED]) + more


# --- truncations of a generator's statistics ---


def statistics_grid(generator: Generator) -> tuple[float, ...]:
    """The truncations for which a generator has statistics; empty if for none."""
    return generator.head.bn.grid


def set_statistics_grid(generator: Generator, grid: list[float]) -> None:
    """Give every BatchNorm of a generator an empty table for these truncations, ascending."""
    for layer in generator.modules():
        if isinstance(layer, StandingBatchNorm2d):
            layer.set_grid(grid)


def hub_grid(rows: int) -> tuple[float, ...]:
    """The truncations of a published table: 0.02, 0.04, ... 1.00, or with 0.00 before them.

    Args:
        rows: 50 (DeepMind's BigGAN) or 51 (BigGAN-deep).

    Raises:
        InputError: Another number of rows.
    """
    if rows not in (50, 51):
        raise InputError(f"BatchNorm statistics for {rows} truncations; published are 50 or 51")
    return tuple(round(0.02 * (i + 51 - rows), 2) for i in range(rows))


def with_off_grid(loaded: LoadedModel[Generator], off_grid: OffGrid) -> LoadedModel[Generator]:
    """The same generator with another interpolation between two rows of its statistics.

    It makes other pictures, so it has another digest. The network is changed, not copied.

    Raises:
        InputError: Its statistics are not for the truncations of the published modules, which
            `hub` is about.
    """
    generator = loaded.network
    if generator.config.off_grid == off_grid:
        return loaded
    if off_grid == "hub":
        _require_hub_grid(statistics_grid(generator))
    generator.config = generator.config.updated({"off_grid": off_grid})
    for layer in generator.modules():
        if isinstance(layer, StandingBatchNorm2d):
            layer.off_grid = off_grid
    return replace(loaded, sha256=network_sha256(generator, loaded.description))


def _require_hub_grid(grid: Sequence[float]) -> None:
    if tuple(grid) not in (hub_grid(50), hub_grid(51)):
        raise InputError(
            "off_grid 'hub' is for statistics of 0.02, 0.04, ... 1.00, as the published modules "
            f"have them; here are {len(grid)} truncations"
        )


# --- safetensors ---


def save_tensors(path: Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Write tensors and metadata with their digest; the file appears whole or not at all.

    Returns:
        The digest.

    Raises:
        InputError: The file cannot be written.
    """
    tensors = _on_cpu(tensors)
    sha256 = _digest(metadata, tensors)
    with replaced_atomically(path) as temporary:
        try:
            save_file(tensors, temporary, {**metadata, "sha256": sha256})
        except SafetensorError as error:  # as it reports an OSError
            raise InputError(f"cannot write {path}: {error}") from None
        _sort_metadata(temporary)
    return sha256


def _sort_metadata(path: Path) -> None:
    """Bring a file's metadata into an order, so that equal models are equal files.

    The library writes them in the order of a hash table, another one each time.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= size:  # spaces after it are part of the format
            file.seek(8)
            file.write(text.ljust(size))


def load_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor], str]:
    """Read what `save_tensors` wrote: the metadata, the tensors and their verified digest.

    Raises:
        InputError: The file is missing, cut short, changed, or not of ours.
    """
    with open_regular(path) as file:
        metadata, tensors = read_safetensors(file, path)
    return metadata, tensors, _verify(metadata, tensors, path)


def is_ours(path: Path) -> bool:
    """Whether a safetensors file says that it is one of ours.

    Raises:
        InputError: It is no whole safetensors file.
    """
    with open_regular(path) as file:
        return _read_header(file, path)[0].get("format") == FORMAT


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; what goes wrong while it is read is reported as well.

    Raises:
        InputError: There is none, or it cannot be read.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for ever
            raise InputError(f"{path} is no regular file")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def read_safetensors(file: BinaryIO, path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a safetensors file, anybody's, that is open at its start.

    Read into memory of their own: a map of the file would be aligned as the file happens to be,
    which changes rounding, and would take its size twice.

    Raises:
        InputError: It is no whole safetensors file, or does not fit the memory.
    """
    metadata, entries = _read_header(file, path)
    tensors: dict[str, Tensor] = {}
    for name, (dtype, shape) in entries.items():
        try:
            tensors[name] = torch.empty(shape, dtype=dtype)
        except (RuntimeError, MemoryError, TypeError) as error:  # or a shape beyond 64 bits
            reason = printable(str(error).split("\n")[0])[:100]
            raise InputError(f"{path} does not fit the memory: {reason}") from None
        values = tensors[name].reshape(-1).view(torch.uint8).numpy()
        if file.readinto(values.data) < len(values):  # type: ignore[attr-defined]
            raise _not_whole(path, f"{quoted(name)} is cut short")
    return metadata, tensors


def _read_header(
    file: BinaryIO, path: Path
) -> tuple[dict[str, str], dict[str, tuple[torch.dtype, list[int]]]]:
    """The metadata, and the type and shape of every tensor in the order of their bytes.

    The tensors must fill the file without a hole, and no name may be there twice: programs differ
    in which of the two they read.
    """
    size = os.fstat(file.fileno()).st_size
    header_size = int.from_bytes(file.read(8), "little")
    if header_size > min(size - 8, MAX_HEADER_BYTES):
        raise _not_whole(path, "its header is cut short")
    try:
        header = json.loads(file.read(header_size), object_pairs_hook=_without_duplicates)
        metadata = header.pop("__metadata__", {})
        if not all(isinstance(text, str) for text in metadata.values()):
            raise ValueError("its metadata are no texts")
        end = 0
        entries = {}
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
            if len(shape) > _MOST_AXES or any(type(n) is not int or n < 0 for n in shape):
                raise ValueError(f"{quoted(name)} has the shape {quoted(shape)}")
            begin, end = end, end + math.prod(shape) * dtype.itemsize
            if entry["data_offsets"] != [begin, end]:
                raise ValueError(f"the place of {quoted(name)} is not that of its shape")
            entries[name] = dtype, shape
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise _not_whole(path, printable(str(error).split("\n")[0])[:100]) from None
    if end != size - 8 - header_size:
        raise _not_whole(path, f"it has {size - 8 - header_size:,} bytes of {end:,}")
    return metadata, entries


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(name for name, number in Counter(n for n, _ in pairs).items() if number > 1)
        raise ValueError(f"its header has {quoted(twice)} twice")
    return values


def _not_whole(path: Path, reason: str) -> DamagedFileError:
    return DamagedFileError(
        f"{path} is not a whole safetensors file ({reason}); it may be cut short: fetch it again"
    )


def _verify(metadata: dict[str, str], tensors: Mapping[str, Tensor], path: Path) -> str:
    """Compare a file's contents with the digest in its metadata, which is taken out.

    Returns:
        The digest.
    """
    sha256 = metadata.pop("sha256", None)
    if sha256 is None or metadata.get("format") != FORMAT:
        raise InputError(f"{path} is a safetensors file, but not one of biggan's")
    if _digest(metadata, tensors) != sha256:
        raise DamagedFileError(
            f"{path} is damaged: its contents do not have the sha256 that it states; fetch it again"
        )
    return sha256


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
