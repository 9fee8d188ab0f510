"""Weight files of our own: safetensors that hold all that is needed to rebuild the network.

The metadata says what the network is (configuration, truncations of its statistics), what it makes
(class names) and where it comes from (source, licence, training). A sha256 over all of this and
over every tensor's bytes finds a file that was cut short or changed in a single bit.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from safetensors import SafetensorError, safe_open
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
from biggan.weights.foreign import hub_grid, listed_faults

FORMAT = "biggan 1"

RUN_GENERATOR = "generator.safetensors"
"""Name of the newest EMA generator in a run folder."""

RUN_DISCRIMINATOR = "discriminator.safetensors"
"""Name of the newest discriminator in a run folder."""

_MAPPED_BYTES = 1 << 24

_HALF = (torch.float16, torch.bfloat16)


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
    metadata = _metadata(generator, description)
    return save_tensors(path, metadata, _stored(generator, dtype, path))


def save_discriminator(
    path: Path,
    discriminator: Discriminator,
    description: Description,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write a discriminator to a file, atomically; see `save_generator`."""
    metadata = _metadata(discriminator, description)
    return save_tensors(path, metadata, _stored(discriminator, dtype, path))


def _stored(network: torch.nn.Module, dtype: torch.dtype, path: Path) -> dict[str, Tensor]:
    """The state of a network with its parameters in another precision."""
    state = network.state_dict()
    for name, parameter in network.named_parameters():
        state[name] = parameter.detach().to(dtype)
        if not state[name].isfinite().all():
            raise InputError(f"cannot write {path}: {name} is not finite as {dtype}")
    return state


def network_sha256(network: Generator | Discriminator, description: Description) -> str:
    """The digest that saving a network would return, without writing anything."""
    return _digest(_metadata(network, description), _on_cpu(network.state_dict()))


def load_network(path: Path) -> LoadedModel[Any]:
    """Read whichever network a file holds, verifying every byte.

    Raises:
        InputError: The file is missing, damaged, or holds no network.
    """
    metadata, tensors, sha256 = load_tensors(path)
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
        description = _with_class_names(description, config.num_classes, path)
    elif kind == "discriminator":
        network = assemble(DiscriminatorConfig.from_dict(values), (), tensors, path)
    else:
        raise InputError(f"{path} holds a {quoted(kind)}, not a generator or a discriminator")
    return LoadedModel(network, description, sha256)


def is_ours(path: Path) -> bool:
    """Whether a safetensors file says that it is one of ours.

    Raises:
        InputError: It is no whole safetensors file.
    """
    with _opened(path) as file:
        return (file.metadata() or {}).get("format") == FORMAT


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file of others, which states no digest.

    Raises:
        InputError: It is no whole safetensors file.
    """
    return _read(path)[1]


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
    if isinstance(config, DiscriminatorConfig):
        with torch.device("meta"):
            discriminator = make_discriminator(config)
        load_strictly(discriminator, tensors, path)
        return discriminator.eval()
    ascending = all(before < after for before, after in pairwise(grid))
    if not ascending or not all(0 <= truncation < math.inf for truncation in grid):
        raise InputError(f"{path}: the truncations of its statistics do not ascend from 0 on")
    if config.off_grid == "hub":
        _require_hub_grid(grid)
    with torch.device("meta"):
        generator = make_generator(config)
        set_statistics_grid(generator, list(grid))
    load_strictly(generator, tensors, path)
    for name, layer in generator.named_modules():
        if isinstance(layer, StandingBatchNorm2d):
            for variance in (layer.running_var, layer.table_var):
                if bool((variance + layer.eps <= 0).any()):
                    raise InputError(f"{path}: a variance of {name} is negative")
    return generator.eval()


def statistics_grid(generator: Generator) -> tuple[float, ...]:
    """The truncations for which a generator has statistics; empty if for none."""
    return generator.head.bn.grid


def set_statistics_grid(generator: Generator, grid: list[float]) -> None:
    """Give every BatchNorm of a generator an empty table for these truncations, ascending."""
    for layer in generator.modules():
        if isinstance(layer, StandingBatchNorm2d):
            layer.set_grid(grid)


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
    wrong += [
        f"{name} is {quoted(tuple(tensors[name].shape))}, not {tuple(value.shape)}"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    wrong += [
        f"{name} is {tensors[name].dtype}, not {value.dtype}".replace("torch.", "")
        for name, value in expected.items()
        if name in tensors and tensors[name].dtype != value.dtype
    ]
    wrong += [
        f"{name} has values that are not finite numbers"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape == value.shape
        if tensors[name].dtype == value.dtype and not bool(tensors[name].isfinite().all())
    ]
    if wrong:
        raise InputError(f"{path} does not fit its network: {listed_faults(wrong)}")
    # Assigned, not copied: the network takes no memory besides the tensors'.
    network.load_state_dict(tensors, assign=True)


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
    metadata, tensors = _read(path)
    sha256 = metadata.pop("sha256", None)
    if sha256 is None or metadata.get("format") != FORMAT:
        raise InputError(f"{path} is a safetensors file, but not one of biggan's")
    if _digest(metadata, tensors) != sha256:
        raise DamagedFileError(
            f"{path} is damaged: its contents do not have the sha256 that it states; fetch it again"
        )
    return metadata, tensors, sha256


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a safetensors file, in memory of their own.

    `safe_open` maps the file, so that its pages stay resident as long as it is open: it is opened
    anew after every so many bytes, or loading would take the file's size twice. The tensors are
    copied because those of a map are aligned as the file happens to be, which changes rounding.
    """
    tensors: dict[str, Tensor] = {}
    with _opened(path) as file:
        metadata = dict(file.metadata() or {})
        names = list(file.keys())
        _check_header(path)
    while len(tensors) < len(names):
        with _opened(path) as file:
            read = 0
            for name in names[len(tensors) :]:
                tensors[name] = file.get_tensor(name).clone()
                read += tensors[name].nbytes
                if read >= _MAPPED_BYTES:
                    break
    return metadata, tensors


def _check_header(path: Path) -> None:
    """Refuse a header with a name twice: programs differ in which of the two they read."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        json.loads(file.read(size), object_pairs_hook=_without_duplicates)


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(name for name, number in Counter(n for n, _ in pairs).items() if number > 1)
        raise ValueError(f"its header has {quoted(twice)} twice")
    return values


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    # A TypeError is that of a shape beyond 64 bits.
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        reason = printable(str(error).split("\n")[0])[:100]
        raise DamagedFileError(
            f"{path} is not a whole safetensors file ({reason}); it may be cut short: fetch it "
            "again"
        ) from None
    except (RuntimeError, MemoryError) as error:  # of a map, or of a copy
        reason = printable(str(error).split("\n")[0])[:100]
        raise InputError(f"{path} does not fit the memory: {reason}") from None


def _metadata(network: Generator | Discriminator, description: Description) -> dict[str, str]:
    header: dict[str, Any] = {"kind": "discriminator", "config": network.config.to_dict()}
    if isinstance(network, Generator):
        header |= {"kind": "generator", "grid": list(statistics_grid(network))}
    return {"format": FORMAT, "header": json.dumps({**header, "description": vars(description)})}


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


def _with_class_names(description: Description, num_classes: int, path: Path) -> Description:
    """The same, with names for classes that have none: 1000 of them are ImageNet's."""
    if not description.class_names:
        return replace(description, class_names=default_class_names(num_classes))
    if len(description.class_names) != num_classes:
        raise InputError(
            f"{path} names {len(description.class_names)} classes of its network's {num_classes}"
        )
    return description


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
