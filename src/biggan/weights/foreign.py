"""What the readers of other software's weights share.

A reader is a pure function from foreign tensors to ours: it infers the network's shape, then takes
tensor after tensor, saying what shape it must have. `ForeignTensors` keeps the account, so that a
file that does not fit is refused once, with everything that is wrong with it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from biggan.errors import InputError, printable, quoted
from biggan.models import DiscriminatorConfig, GeneratorConfig

DEEPMIND_LICENCE = "not established: DeepMind's module pages state none"
"""Licence of DeepMind's weights, whoever converted them."""

_ALIKE = 20  # so many tensors of one wrong type are told apart
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_LISTED = 20  # faults that one message names

Config = TypeVar("Config", GeneratorConfig, DiscriminatorConfig)


@dataclass(frozen=True)
class Converted(Generic[Config]):
    """A network's weights in our layout."""

    config: Config
    tensors: dict[str, Tensor]
    """The network's whole state, by our names."""
    origin: str
    """Whose format it was, such as "Hugging Face's pytorch_pretrained_biggan"."""
    grid: tuple[float, ...] = ()
    """Truncations of the BatchNorm statistics; empty for one set of statistics."""


class ForeignTensors:
    """The tensors of a foreign file, to be taken one by one.

    Args:
        tensors: By their foreign names. Values may be read from the file when they are asked for.
        source: What the file is called in messages.
    """

    def __init__(self, tensors: Mapping[str, Tensor], source: str) -> None:
        self.source = source
        self._tensors = tensors
        self._left = dict.fromkeys(tensors)
        self._wrong: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """The shape of a tensor without which the network's own shape cannot be known.

        Raises:
            InputError: It is missing, or has another number of dimensions.
        """
        if name not in self._tensors:
            raise InputError(f"{self.source} lacks {name}, without which nothing can be built")
        shape = tuple(self._tensors[name].shape)
        if len(shape) != dimensions:
            raise InputError(
                f"{self.source}: {name} is {quoted(shape)}; it should have {dimensions} axes"
            )
        if 0 in shape:
            raise InputError(f"{self.source}: {name} is {quoted(shape)}: it is empty")
        return shape

    def size(self, *places: tuple[str, int, int]) -> int:
        """A size that several tensors tell: the first of them that is there decides.

        So a network can be laid out though some tensors are missing, and `finish` names them all.

        Args:
            places: A tensor's name, how many dimensions it has, and which of them is meant.

        Raises:
            InputError: As `shape`.
        """
        for name, dimensions, axis in places:
            if name in self._tensors and self._tensors[name].ndim == dimensions:
                return self.shape(name, dimensions)[axis]
        return self.shape(*places[0][:2])[places[0][2]]

    def has_any(self, prefix: str) -> bool:
        """Whether any tensor's name begins so."""
        return any(name.startswith(prefix) for name in self._tensors)

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of this shape, as float32; half precision is widened.

        What is wrong is remembered for `finish`; zeros stand in for it until then.
        """
        self._left.pop(name, None)
        fault = self._fault(name, shape)
        if fault is None:
            return self._tensors[name].detach().float()
        self._wrong.append(fault)
        return torch.zeros(()).expand(shape)

    def leave(self, pattern: str) -> None:
        """Leave the tensors whose whole name matches: their format has them, and we need not."""
        self._left = {name: None for name in self._left if not re.fullmatch(pattern, name)}

    def finish(self) -> None:
        """Make sure that all tensors were there, were right, and were wanted.

        Raises:
            InputError: Naming those that were not.
        """
        wrong = _summarized(self._wrong)
        wrong += [f"unexpected {printable(name)[:100]}" for name in self._left]
        if wrong:
            raise InputError(f"{self.source} does not fit its network: {listed_faults(wrong)}")

    def _fault(self, name: str, shape: tuple[int, ...]) -> str | None:
        if name not in self._tensors:
            return f"missing {name}"
        tensor = self._tensors[name]
        if tuple(tensor.shape) != shape:
            return f"{name} is {quoted(tuple(tensor.shape))}, not {shape}"
        if tensor.dtype not in _FLOATS:
            return f"{name} is {tensor.dtype}, not float32".replace("torch.", "")
        if not tensor.is_meta and not bool(tensor.isfinite().all()):
            return f"{name} has values that are not finite numbers"
        return None


def listed_faults(faults: Sequence[str]) -> str:
    """Faults of tensors as one line holds them: the first twenty, and how many others."""
    more = f"; and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
    return "; ".join(faults[:_LISTED]) + more


def _summarized(faults: Sequence[str]) -> list[str]:
    """The same, but a wrong type of very many tensors in one entry."""
    types = Counter(fault.partition(" is ")[2] for fault in faults if fault.endswith("not float32"))
    many = {kind: number for kind, number in types.items() if number > _ALIKE}
    told_apart = [fault for fault in faults if fault.partition(" is ")[2] not in many]
    return told_apart + [f"{number} tensors are {kind}" for kind, number in many.items()]


def converged_vectors(weight: Tensor, u: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The vectors that a format without `v` uses in eval mode.

    DeepMind's graphs and ajbrock's layers store `u` alone, and every forward, in eval mode too,
    makes one power iteration from it whose result it does not keep. Stored once and for all, the
    result gives the same sigma.

    Args:
        weight: (out, ...), taken as the matrix (out, rest).
        u: (out,) as stored.
        eps: Lower bound of the norms.

    Returns:
        `u` (out,) and `v` (rest,) after that iteration.
    """
    matrix = weight.flatten(1)
    v = F.normalize(matrix.mT @ u, dim=0, eps=eps)
    return F.normalize(matrix @ v, dim=0, eps=eps), v


def channel_first_linear(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reorder the outputs of the first linear layer from (height, width, channel).

    TensorFlow views its output as (4, 4, C), we as (C, 4, 4).

    Args:
        state: `linear.weight` (4 * 4 * C, in), `linear.bias`, `linear.u` and `linear.v`.

    Returns:
        The same for outputs in the order (channel, height, width); `v` belongs to the input.
    """
    return {
        name: tensor if name == "linear.v" else _channel_first(tensor)
        for name, tensor in state.items()
    }


def _channel_first(rows: Tensor) -> Tensor:
    by_place = rows.unflatten(0, (16, -1))  # (16, C, ...)
    return by_place.transpose(0, 1).flatten(0, 1)


def recorded_statistics(prefix: str, means: Tensor, variances: Tensor) -> dict[str, Tensor]:
    """A BatchNorm's state from a table (S, C) whose last row is for truncation 1.

    The published tables have no row for untruncated noise; truncation 1 is the nearest.
    """
    return {
        f"{prefix}.table_mean": means,
        f"{prefix}.table_var": variances,
        f"{prefix}.running_mean": means[-1].clone(),
        f"{prefix}.running_var": variances[-1].clone(),
    }


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


def base_width(widths: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """Write a network's widths as `channels` and multiples of it, as its paper does.

    Args:
        widths: Channels from 4x4 pixels on, in either direction, widest at the 4x4 side.

    Returns:
        `channels` and the multiples. The widest is 16 times `channels`, or 4 times in a network
        of one width throughout (those for 32 px).
    """
    widest = max(widths)
    channels = widest // (4 if min(widths) == widest else 16)
    if channels == 0 or any(width % channels for width in widths):
        channels = math.gcd(*widths)
    return channels, tuple(width // channels for width in widths)


def attention_by_channels(channels: int, widths: Sequence[int], source: str) -> int:
    """The resolution at which a generator's attention sits, in formats that do not say it.

    Args:
        channels: Of the attention's input.
        widths: The generator's channels at 4x4 pixels, then after each stage.
        source: What the file is called in messages.

    Raises:
        InputError: No stage, or more than one, has so many channels.
    """
    fitting = [4 * 2**i for i, width in enumerate(widths) if i and width == channels]
    if len(fitting) != 1:
        where = f"at {', '.join(map(str, fitting))} pixels alike" if fitting else "nowhere"
        raise InputError(f"{source}: its attention on {channels} channels fits {where}")
    return fitting[0]
