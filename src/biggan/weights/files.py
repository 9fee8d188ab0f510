"""Weight files of our own: safetensors that hold all that is needed to rebuild the network.

The metadata says what the network is (configuration, truncations of its statistics), what it makes
(class names) and where it comes from (source, licence, training). A sha256 over all of this and
over every tensor's bytes finds a file that was cut short or changed in a single bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from biggan._version import __version__
from biggan.atomic_write import write_atomically
from biggan.errors import InputError
from biggan.models import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
    make_discriminator,
    make_generator,
)
from biggan.nn import StandingBatchNorm2d

FORMAT = "biggan 1"


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


@dataclass(frozen=True)
class LoadedGenerator:
    """A generator as read from a file, in eval mode."""

    generator: Generator
    description: Description
    sha256: str
    """Digest of the file's contents, in hex."""


@dataclass(frozen=True)
class LoadedDiscriminator:
    """A discriminator as read from a file, in eval mode."""

    discriminator: Discriminator
    description: Description
    sha256: str


def save_generator(path: Path, generator: Generator, description: Description) -> str:
    """Write a generator to a file, atomically.

    Args:
        path: The file; its folder exists.
        generator: All parameters and statistics are written, as float32.
        description: What else the file says.

    Returns:
        The sha256 of the contents.

    Raises:
        InputError: The file cannot be written.
    """
    header = {
        "kind": "generator",
        "config": generator.config.to_dict(),
        "grid": list(statistics_grid(generator)),
    }
    return _save_network(path, generator, header, description)


def save_discriminator(path: Path, discriminator: Discriminator, description: Description) -> str:
    """Write a discriminator to a file, atomically; see `save_generator`."""
    header = {"kind": "discriminator", "config": discriminator.config.to_dict()}
    return _save_network(path, discriminator, header, description)


def load_generator(path: Path) -> LoadedGenerator:
    """Read a generator, verifying every byte.

    Raises:
        InputError: The file is missing, damaged, or holds something else.
    """
    metadata, tensors, sha256 = load_tensors(path)
    header = _header(path, metadata, "generator")
    generator = make_generator(GeneratorConfig.from_dict(header["config"]))
    set_statistics_grid(generator, header["grid"])
    load_strictly(generator, tensors, path)
    return LoadedGenerator(generator.eval(), _description(header), sha256)


def load_discriminator(path: Path) -> LoadedDiscriminator:
    """Read a discriminator, verifying every byte.

    Raises:
        InputError: The file is missing, damaged, or holds something else.
    """
    metadata, tensors, sha256 = load_tensors(path)
    header = _header(path, metadata, "discriminator")
    discriminator = make_discriminator(DiscriminatorConfig.from_dict(header["config"]))
    load_strictly(discriminator, tensors, path)
    return LoadedDiscriminator(discriminator.eval(), _description(header), sha256)


def statistics_grid(generator: Generator) -> tuple[float, ...]:
    """The truncations for which a generator has statistics; empty if for none."""
    return generator.head.bn.grid


def set_statistics_grid(generator: Generator, grid: list[float]) -> None:
    """Give every BatchNorm of a generator an empty table for these truncations, ascending."""
    for layer in generator.modules():
        if isinstance(layer, StandingBatchNorm2d):
            layer.set_grid(grid)


def load_strictly(network: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into a network, all of them and no others.

    Raises:
        InputError: Naming every missing, unexpected or misshapen tensor.
    """
    expected = network.state_dict()
    wrong = [f"missing {name}" for name in expected if name not in tensors]
    wrong += [f"unexpected {name}" for name in tensors if name not in expected]
    wrong += [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(value.shape)}"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if wrong:
        raise InputError(f"{path.name} does not fit its network: {'; '.join(wrong)}")
    network.load_state_dict(dict(tensors))


def save_tensors(path: Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Write tensors and metadata with their digest; the file appears whole or not at all.

    Returns:
        The digest.

    Raises:
        InputError: The file cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    sha256 = _digest(metadata, tensors)
    write_atomically(path, save(tensors, {**metadata, "sha256": sha256}))
    return sha256


def load_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor], str]:
    """Read what `save_tensors` wrote: the metadata, the tensors and their verified digest.

    Raises:
        InputError: The file is missing, cut short, changed, or not of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({error}); it may be cut short: fetch it again"
        ) from None
    sha256 = metadata.pop("sha256", None)
    if sha256 is None or metadata.get("format") != FORMAT:
        raise InputError(f"{path} is a safetensors file, but not one of biggan's")
    if _digest(metadata, tensors) != sha256:
        raise InputError(
            f"{path} is damaged: its contents do not have the sha256 that it states; fetch it again"
        )
    return metadata, tensors, sha256


def _save_network(
    path: Path, network: torch.nn.Module, header: dict[str, Any], description: Description
) -> str:
    metadata = {
        "format": FORMAT,
        "biggan_version": __version__,
        "header": json.dumps({**header, "description": vars(description)}),
    }
    return save_tensors(path, metadata, network.state_dict())


def _header(path: Path, metadata: Mapping[str, str], kind: str) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(metadata["header"]) if "header" in metadata else {}
    if header.get("kind") != kind:
        found = header.get("kind", "something else")
        raise InputError(f"{path} holds a {found}, not a {kind}")
    return header


def _description(header: Mapping[str, Any]) -> Description:
    values = dict(header["description"])
    return Description(**{**values, "class_names": tuple(values["class_names"])})


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
