"""What the foreign formats share: an account of the tensors of a file, and names by a table.

A format infers the network's configuration from the sizes of some layers (`Layers`). Then
`take_network` takes every tensor that such a network has, by its foreign name and in its foreign
shape. A file is refused once, with everything that is wrong with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from biggan.errors import InputError, printable, quoted
from biggan.models import DiscriminatorConfig, GeneratorConfig
from biggan.weights.load import EPSILONS_KNOWN, empty_network, refuse_faults, tensor_fault

_MOST_ITERATIONS = 500
_MOST_STAGES = 7  # to 512 px
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)

Names = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]
"""Patterns in our names and what replaces them, one after the other."""

Stored = tuple[tuple[int, ...], Callable[[Tensor], Tensor] | None]
"""The shape in which a format stores a tensor, and how it is brought to ours; None for as it is."""


@dataclass(frozen=True)
class Converted:
    """A network's weights in our layout."""

    config: GeneratorConfig | DiscriminatorConfig
    tensors: Mapping[str, Tensor]  # the network's whole state, by our names
    grid: tuple[float, ...] = ()  # truncations of the BatchNorm statistics; empty for one set


class ForeignTensors:
    """The tensors of a foreign file, to be taken one by one.

    Args:
        tensors: By their foreign names. Values may be read from the file when they are asked for.
        path: Of the file or folder.
        epsilons: `bn_eps` and `sn_eps` as the user gave them.
        kind: Which network to convert, of a format whose files hold several.
        beside: What a file holds besides its tensors.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        path: Path,
        epsilons: Mapping[str, float | None] | None = None,
        *,
        kind: str = "generator",
        beside: Mapping[str, Any] | None = None,
    ) -> None:
        self.tensors = tensors
        self.path = path
        self.epsilons = epsilons or {}
        self.kind = kind
        self.beside = beside or {}
        self._unused = {name for name, value in self.epsilons.items() if value is not None}
        self._left = dict.fromkeys(tensors)
        self._wrong: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def has_any(self, *prefixes: str) -> bool:
        """Whether any tensor's name begins with one of these."""
        return any(name.startswith(prefixes) for name in self.tensors)

    def numbers(self, pattern: str) -> list[int]:
        """What the pattern's group matches in tensors' names: numbers, ascending."""
        found = (re.match(pattern, name) for name in self.tensors)
        return sorted({int(match[1]) for match in found if match})

    def size(self, *places: tuple[str, int, int]) -> int:
        """The size of the first tensor that is there: its name, number of dimensions, and axis."""
        for name, dimensions, axis in places:
            if name in self.tensors and self.tensors[name].ndim == dimensions:
                return self.shape(name, dimensions)[axis]
        return self.shape(*places[0][:2])[places[0][2]]

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """The shape of a tensor without which the network's own shape cannot be known."""
        if name not in self.tensors:
            raise InputError(f"{self.path} lacks {name}, which is required")
        shape = tuple(self.tensors[name].shape)
        if len(shape) != dimensions or 0 in shape:
            raise InputError(
                f"{self.path}: {name} is {quoted(shape)}; it should have {dimensions} axes, "
                "none of them empty"
            )
        return shape

    def epsilon(self, name: str, default: float) -> float:
        """An epsilon that the file does not say: the user's, or the default."""
        self._unused.discard(name)
        value = self.epsilons.get(name)
        return default if value is None else value

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of this shape, as float32; half precision is widened.

        Axes of length 1 before its own are dropped. What is wrong is remembered for `finish`; zeros
        stand in for it until then.
        """
        self._left.pop(name, None)
        tensor = self.tensors.get(name)
        if tensor is None:
            self._wrong.append(f"missing {name}")
            return torch.zeros(()).expand(shape)
        if tuple(tensor.shape) == (1,) * (tensor.ndim - len(shape)) + shape:
            tensor = tensor.reshape(shape)
        if fault := tensor_fault(name, tensor, shape, _FLOATS):
            self._wrong.append(fault)
            return torch.zeros(()).expand(shape)
        return tensor.detach().float()

    def leave(self, pattern: str) -> None:
        """Leave the tensors whose whole name matches: their format has them, and we need not."""
        self._left = {name: None for name in self._left if not re.fullmatch(pattern, name)}

    def finish(self) -> None:
        """Make sure that all tensors were there, were right, and were wanted."""
        unexpected = [f"unexpected {printable(name)[:100]}" for name in self._left]
        refuse_faults(self._wrong + unexpected, self.path)
        if self._unused:
            raise InputError(f"{self.path}: {EPSILONS_KNOWN}")

    def take_network(
        self,
        config: GeneratorConfig | DiscriminatorConfig,
        foreign_name: Callable[[str], str],
        stored: Callable[[str, Mapping[str, tuple[int, ...]]], Stored],
        grid: Sequence[float] = (),
    ) -> dict[str, Tensor]:
        """A network's tensors by our names, but for those that the format does not store.

        BatchNorm statistics of which it stores a table or a single set are complete. `foreign_name`
        is empty for what the format does not store; `stored`, its layout of a tensor by our name,
        also gets all our shapes; `grid` are the truncations of the statistics that it stores.
        """
        state = empty_network(config, grid).state_dict()
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        layouts = {name: stored(name, shapes) for name in shapes if foreign_name(name)}
        taken = {name: self.take(foreign_name(name), *layouts[name][0]) for name in layouts}
        self.finish()  # before anything is made of what a file claims
        tensors = {}
        for name, (_, ours) in layouts.items():
            tensor = taken.pop(name)
            tensors[name] = tensor if ours is None else ours(tensor)
        add_other_statistics(tensors)
        return tensors

    def listed_layers(self, names: Names, block: str, attention: str) -> Layers:
        """The layers of a network with one list of blocks, in which the attention is an entry.

        `names` rename all but blocks and attention. Names in an entry begin with `block`, "{}" for
        its place, which in an attention the pattern `attention` follows.
        """
        entry = re.escape(block).replace(r"\{\}", r"(\d{1,3})")
        place = self.attention_place(entry + attention)
        entries = 1 + max(self.numbers(entry), default=-1)

        def block_name(ours: re.Match[str]) -> str:
            number = int(ours[1])
            return block.format(number + (place is not None and number >= place))

        own = ((r"^blocks\.(\d+)\.", block_name), (r"^attention\.", block.format(place)))
        foreign_name = partial(renamed, names=(*names, *own))
        return Layers(self, foreign_name, entries - (place is not None), place or 0)

    def attention_place(self, pattern: str) -> int | None:
        """The one number that a pattern of attention's names finds; None for no attention."""
        found = self.numbers(pattern)
        if len(found) > 1:
            raise InputError(
                f"{self.path} has attention in {len(found)} places, {found}: only one is supported"
            )
        return found[0] if found else None


def renamed(name: str, names: Names) -> str:
    """A format's name of our tensor; empty if the format does not store it."""
    for pattern, replacement in names:
        name = re.sub(pattern, replacement, name)
    return name


def add_other_statistics(tensors: dict[str, Tensor]) -> None:
    """Complete BatchNorm statistics, of which a format has a table or a single set.

    The published tables have no row for untruncated noise; their last, truncation 1, is nearest.
    """
    for name, tensor in list(tensors.items()):
        if name.endswith((".table_mean", ".table_var")):
            tensors[name.replace(".table_", ".running_")] = tensor[-1].clone()
        elif name.endswith((".running_mean", ".running_var")):
            tensors[name.replace(".running_", ".table_")] = tensor.new_empty(0, len(tensor))


def add_converged_vectors(tensors: dict[str, Tensor], eps: float) -> None:
    """Add the `v` of spectral norms to formats without it, with the `u` that belongs to it.

    DeepMind's graphs and ajbrock's layers store `u` alone, and every forward, in eval mode too,
    makes one power iteration from it whose result it does not keep. Stored once and for all, the
    result gives the same sigma. Weights (out, ...) are taken as matrices (out, rest).
    """
    for name in [name for name in tensors if name.endswith(".u")]:
        layer = name.removesuffix(".u")
        matrix = tensors[f"{layer}.weight"].flatten(1)
        v = F.normalize(matrix.mT @ tensors[name], dim=0, eps=eps)
        tensors[name], tensors[f"{layer}.v"] = F.normalize(matrix @ v, dim=0, eps=eps), v


def add_leading_vectors(tensors: dict[str, Tensor]) -> None:
    """Replace the vectors of spectral norms by the leading singular vectors of the weights.

    For software that goes on with the power iteration when it evaluates. Eight vectors are iterated
    together, so that singular values that lie close together converge as well.
    """
    random = torch.Generator().manual_seed(0)
    for name in [name for name in tensors if name.endswith(".u")]:
        layer = name.removesuffix(".u")
        matrix = tensors[f"{layer}.weight"].flatten(1)
        others = torch.randn(len(matrix), min(7, len(matrix) - 1), generator=random)
        block = torch.cat([tensors[name][:, None], others], dim=1)  # (out, up to 8)
        norm = torch.zeros(())
        for iteration in range(_MOST_ITERATIONS):
            basis = torch.linalg.qr(block).Q
            image = matrix.mT @ basis
            if iteration % 10 == 9:
                before, norm = norm, torch.linalg.matrix_norm(image, 2)
                if norm <= before * (1 + 2e-7):
                    break
            block = matrix @ image
        right, _, coordinates = torch.linalg.svd(image, full_matrices=False)
        tensors[name] = basis @ coordinates[0]
        tensors[f"{layer}.v"] = right[:, 0].clone()


def channels_first(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Stored:
    """How TensorFlow lays out the `v` of a kernel: by height, width and channel."""
    in_channels = shapes[f"{name.removesuffix('v')}weight"][1]
    return shapes[name], lambda v: v.reshape(-1, in_channels).T.flatten().clone()


def noise_first(weight: Tensor, class_dim: int) -> Tensor:
    """A weight or `v` (..., condition), of which the class comes first, with the noise first."""
    return torch.cat([weight[..., class_dim:], weight[..., :class_dim]], dim=-1)


def reorder_first_linear(tensors: dict[str, Tensor]) -> None:
    """Reorder the outputs of the first linear layer from (height, width, channel).

    TensorFlow views its output as (4, 4, C), we as (C, 4, 4).
    """
    for name in ("linear.weight", "linear.bias", "linear.u"):
        by_place = tensors[name].unflatten(0, (16, -1))  # (16, C, ...)
        tensors[name] = by_place.transpose(0, 1).flatten(0, 1)


# --- the shape of a network, by the sizes of its layers ---


@dataclass(frozen=True)
class Layers:
    """The layers of a foreign network by our names.

    A size is found though some tensors are missing, so that `ForeignTensors.finish` names them all.
    """

    source: ForeignTensors
    foreign_name: Callable[[str], str]
    blocks: int
    before_attention: int | None  # blocks; 0 without one, None where the format does not say
    outputs_last: bool = False  # weights are (..., in, out), not (out, in, ...)

    def outputs(self, layer: str, axes: int = 4) -> int:
        """The outputs of a layer whose weight has so many axes."""
        weight, bias, u = (self.foreign_name(f"{layer}.{name}") for name in ("weight", "bias", "u"))
        axis = axes - 1 if self.outputs_last else 0
        return self.source.size((weight, axes, axis), (bias, 1, 0), (u, 1, 0), (u, 2, 1))

    def inputs(self, *layers: str, axes: int = 4) -> int:
        """The inputs that several layers have."""
        axis = axes - 2 if self.outputs_last else 1
        weights = (self.foreign_name(f"{layer}.weight") for layer in layers)
        return self.source.size(*((weight, axes, axis) for weight in weights))

    def generator_config(
        self, *, deep: bool, embedding: Sequence[int] = (), tables: int = 0, **values: Any
    ) -> GeneratorConfig:
        """The configuration of a generator; `values` are further fields of it.

        `embedding` is the shape of the shared embedding, (classes, class_dim), empty without one;
        `tables` the number of classes if every BatchNorm has a table of gains and biases, else 0.
        """
        path, number = self.source.path, self.blocks
        measured = range(0 if deep and number % 2 else number)
        made = [self.outputs(f"blocks.{i}.conv{4 if deep else 2}") for i in measured]
        # Channels at 4x4 pixels, then after each doubling of the resolution.
        widths = [self.outputs("linear", 2) // 16, *(made[1::2] if deep else made)]
        # The first block of a stage keeps its channels. The networks of one width throughout are
        # those for 32 px, of three stages.
        stages = 3 if len(set(widths)) == 1 else min(len(widths) - 1, _MOST_STAGES)
        if not made or (deep and (made[::2] != widths[:-1] or number != 2 * stages)):
            raise InputError(
                f"{path} has {number} blocks, not two per resolution (in ajbrock's software: it "
                "was trained with a --G_depth other than 2), which is not supported"
            )
        num_classes, class_dim = embedding or (tables, 0)
        condition = tables or self.inputs("blocks.0.bn1.gain", "blocks.0.bn1.bias", axes=2)
        noise = 0 if tables else condition - class_dim
        if noise < 0 or (deep and noise == 0):
            raise InputError(
                f"{path}: conditions of {condition} numbers, of which {noise} are noise, are not "
                "supported"
            )
        if embedding:
            values["class_dim"] = class_dim
        rgb = self.outputs("head.conv")
        channels, multiples = _base_width(widths)
        return GeneratorConfig(
            "biggan-deep" if deep else "biggan",
            4 * 2 ** (len(widths) - 1),
            channels,
            multiples,
            z_dim=noise * (1 if deep else len(widths)) or self.inputs("linear", axes=2),
            num_classes=num_classes,
            attention_resolution=self._attention_resolution(widths, deep=deep),
            shared_embedding=not tables,
            skip_z=noise > 0,
            image_channels=1 if rgb == 1 else 3,
            rgb_channels=rgb if rgb > 3 else 0,
            **values,
        )

    def _attention_resolution(self, widths: Sequence[int], *, deep: bool) -> int:
        """The resolution at which a generator's attention is; 0 without attention."""
        path, before = self.source.path, self.before_attention
        if before is not None:
            if deep and before % 2:
                raise InputError(f"{path} has attention between two blocks of a resolution")
            return 4 * 2 ** (before // 2 if deep else before) if before else 0
        inner = [f"attention.{name}" for name in ("theta", "phi", "g")]
        if not any(self.foreign_name(f"{name}.weight") in self.source for name in inner):
            return 0
        channels = self.inputs(*inner)  # where these fit
        fitting = [4 * 2**i for i, width in enumerate(widths) if i and width == channels]
        if len(fitting) != 1:
            where = f"at {', '.join(map(str, fitting))} pixels alike" if fitting else "nowhere"
            raise InputError(f"{path}: its attention on {channels} channels fits {where}")
        return fitting[0]

    def discriminator_config(self, *, deep: bool, **values: Any) -> DiscriminatorConfig:
        """The configuration of a discriminator; see `generator_config`.

        All formats' discriminators halve the resolution down to 4x4 pixels, and the last block (of
        BigGAN) keeps it; but those of one width throughout, for 32 px, halve it twice.
        """
        source = self.source
        made = [self.outputs(f"blocks.{i}.conv{4 if deep else 2}") for i in range(self.blocks)]
        if not made or (deep and made[::2] != made[1::2]):
            raise InputError(f"{source.path} does not have two blocks per resolution")
        widths = [self.outputs("stem"), *made[1::2]] if deep else made
        down = 2 if len(set(widths)) == 1 else len(widths) - 1
        resolution = 32 if len(set(widths)) == 1 else 4 * 2**down
        before = self.before_attention or 0
        after, between = divmod(before, 2) if deep else (before, 0)
        if between or after > down:
            raise InputError(
                f"{source.path} has attention after block {before}, which does not halve the "
                "resolution"
            )
        has_classes = source.has_any(self.foreign_name("head.embedding."))
        channels, multiples = _base_width(widths)
        return DiscriminatorConfig(
            "biggan-deep" if deep else "biggan",
            resolution,
            channels,
            multiples,
            down_blocks=down,
            num_classes=self.outputs("head.embedding", 2) if has_classes else 0,
            attention_resolution=resolution // 2**after if after else 0,
            image_channels=self.inputs(
                *(["stem"] if deep else ["blocks.0.conv1", "blocks.0.shortcut"])
            ),
            **values,
        )


def _base_width(widths: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """Write a network's widths as `channels` and multiples of it, as its paper does.

    The widest is 16 times `channels`, or 4 times in a network of one width throughout (those for
    32 px).
    """
    widest = max(widths)
    channels = widest // (4 if min(widths) == widest else 16)
    if channels == 0 or any(width % channels for width in widths):
        channels = math.gcd(*widths)
    return channels, tuple(width // channels for width in widths)
