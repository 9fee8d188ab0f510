"""Networks made of tensors that were read: strictly, with every fault named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from biggan.errors import InputError, printable, quoted
from biggan.models import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
    make_discriminator,
    make_generator,
)
from biggan.nn import OffGrid, StandingBatchNorm2d
from biggan.weights.files import LoadedModel, network_sha256

_HALF = (torch.float16, torch.bfloat16)
_LISTED = 20  # faults that one message names


def assemble(
    config: GeneratorConfig | DiscriminatorConfig,
    grid: Sequence[float],
    tensors: Mapping[str, Tensor],
    path: Path,
) -> Generator | Discriminator:
    """A network in eval mode that is made of these tensors, without a copy of them.

    They are its whole state by name; the grid are the truncations of a generator's statistics.
    """
    ascending = all(before < after for before, after in pairwise(grid))
    if not ascending or not all(0 <= truncation < math.inf for truncation in grid):
        raise InputError(f"{path}: the truncations of its statistics do not ascend from 0")
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
            return make_discriminator(config).float()  # whatever torch's default is
        generator = make_generator(config).float()
        set_statistics_grid(generator, list(grid))
        return generator


def load_strictly(network: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Make tensors the parameters and buffers of a network, all of them and no others.

    Half-precision tensors become float32.
    """
    expected = network.state_dict()
    tensors = {
        name: value.float() if value.dtype in _HALF else value for name, value in tensors.items()
    }
    wrong = [f"missing {name}" for name in expected if name not in tensors]
    wrong += [f"unexpected {printable(name)[:100]}" for name in tensors if name not in expected]
    for name, value in expected.items():
        if name in tensors:
            fault = tensor_fault(name, tensors[name], tuple(value.shape), (value.dtype,))
            wrong += [fault] if fault else []
    if wrong:
        raise InputError(f"{path} does not match its network: {listed_faults(wrong)}")
    # Assigned, not copied: the network takes no memory besides the tensors'.
    network.load_state_dict(tensors, assign=True)


def tensor_fault(
    name: str, tensor: Tensor, shape: tuple[int, ...], dtypes: Sequence[torch.dtype]
) -> str | None:
    """Why a tensor cannot be taken; `dtypes` are those it may have, the usual one first."""
    if tuple(tensor.shape) != shape:
        return f"{name} is {quoted(tuple(tensor.shape))}, not {shape}"
    if tensor.dtype not in dtypes:
        return f"{name} is {tensor.dtype}, not {dtypes[0]}".replace("torch.", "")
    if not tensor.is_meta and not bool(tensor.isfinite().all()):
        return f"{name} has values that are not finite numbers"
    return None


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
    """
    return tuple(round(0.02 * (i + 51 - rows), 2) for i in range(rows))


def with_off_grid(loaded: LoadedModel, off_grid: OffGrid) -> LoadedModel:
    """The same generator with another interpolation between two rows of its statistics.

    It makes other pictures, so it has another digest. The network is changed, not copied.
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
            "off_grid 'hub' is for statistics of 0.02, 0.04, ... 1.00, as in the published "
            f"modules, not for {len(grid)} truncations"
        )
