"""What the foreign formats share: an account of the tensors of a file, and names by a table.

A format infers the network's configuration from the shapes of some tensors. Then `take_network`
takes every tensor that such a network has, by its foreign name and in its foreign shape. A file is
refused once, with everything that is wrong with it.
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
from biggan.weights.load import EPSILONS_KNOWN
from biggan.weights.networks import empty_network, listed_faults, tensor_fault

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
    tensors: Mapping[str, Tensor]
    """The network's whole state, by our names."""
    origin: str
    """Whose format it was, such as "ajbrock's BigGAN-PyTorch"."""
    licence: str
    grid: tuple[float, ...] = ()
    """Truncations of the BatchNorm statistics; empty for one set of statistics."""


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
        """A size that several tensors have: the first of them that is there decides.

        So a network can be laid out though some tensors are missing, and `finish` names them all. A
        place is a tensor's name, its number of dimensions, and the axis.
        """
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

        What is wrong is remembered for `finish`; zeros stand in for it until then.
        """
        self._left.pop(name, None)
        tensor = self.tensors.get(name)
        if tensor is None:
            self._wrong.append(f"missing {name}")
        elif fault := tensor_fault(name, tensor, shape, _FLOATS):
            self._wrong.append(fault)
        else:
            return tensor.detach().float()
        return torch.zeros(()).expand(shape)

    def leave(self, pattern: str) -> None:
        """Leave the tensors whose whole name matches: their format has them, and we need not."""
        self._left = {name: None for name in self._left if not re.fullmatch(pattern, name)}

    def finish(self) -> None:
        """Make sure that all tensors were there, were right, and were wanted."""
        wrong = self._wrong + [f"unexpected {printable(name)[:100]}" for name in self._left]
        if wrong:
            raise InputError(f"{self.path} does not match its network: {listed_faults(wrong)}")
        if self._unused:
            raise InputError(f"{self.path}: {EPSILONS_KNOWN}")


def renamed(name: str, names: Names) -> str:
    """A format's name of our tensor; empty if the format does not store it."""
    for pattern, replacement in names:
        name = re.sub(pattern, replacement, name)
    return name


def take_network(
    source: ForeignTensors,
    config: GeneratorConfig | DiscriminatorConfig,
    foreign_name: Callable[[str], str],
    stored: Callable[[str, Mapping[str, tuple[int, ...]]], Stored],
    grid: Sequence[float] = (),
) -> dict[str, Tensor]:
    """A network's tensors by our names, but for those that the format does not store.

    BatchNorm statistics of which it stores a table or a single set are complete.

    Args:
        source: Of which all that is taken is accounted for.
        config: The network's.
        foreign_name: The format's name of ours; empty for what it does not store.
        stored: How the format lays out the tensor of our name; also gets all our shapes by name.
        grid: Truncations of the BatchNorm statistics that it stores.
    """
    state = empty_network(config, grid).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    layouts = {name: stored(name, shapes) for name in shapes if foreign_name(name)}
    taken = {name: source.take(foreign_name(name), *layouts[name][0]) for name in layouts}
    source.finish()  # before anything is made of what a file claims
    tensors = {}
    for name, (_, ours) in layouts.items():
        tensor = taken.pop(name)
        tensors[name] = tensor if ours is None else ours(tensor)
    add_other_statistics(tensors)
    return tensors


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


def channels_first(v: Tensor, in_channels: int) -> Tensor:
    """The `v` of a kernel, of TensorFlow's order (height, width, channel), in ours."""
    return v.reshape(-1, in_channels).T.flatten()


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


def generator_config(family: str, widths: Sequence[int], **values: Any) -> GeneratorConfig:
    """The configuration of a generator with these channels at 4x4 pixels and each doubling."""
    channels, multiples = base_width(widths)
    resolution = 4 * 2 ** (len(widths) - 1)
    return GeneratorConfig(family, resolution, channels, multiples, **values)  # type: ignore[arg-type]


def base_width(widths: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """Write a network's widths as `channels` and multiples of it, as its paper does.

    The widest is 16 times `channels`, or 4 times in a network of one width throughout (those for
    32 px).
    """
    widest = max(widths)
    channels = widest // (4 if min(widths) == widest else 16)
    if channels == 0 or any(width % channels for width in widths):
        channels = math.gcd(*widths)
    return channels, tuple(width // channels for width in widths)


def halvings(widths: Sequence[int]) -> tuple[int, int]:
    """How often a discriminator of these widths halves the resolution, and that of its images.

    All formats' halve down to 4x4 pixels, the last block (of BigGAN) keeping them; but those of one
    width throughout, for 32 px, halve twice.
    """
    if min(widths) == max(widths):
        return 2, 32
    return len(widths) - 1, 4 * 2 ** (len(widths) - 1)


def attention_by_channels(channels: int, widths: Sequence[int], path: Path) -> int:
    """The resolution at which a generator's attention sits, in formats that do not say it.

    It is where the channels of its input fit: widths are those at 4x4 pixels and after each stage.
    """
    fitting = [4 * 2**i for i, width in enumerate(widths) if i and width == channels]
    if len(fitting) != 1:
        where = f"at {', '.join(map(str, fitting))} pixels alike" if fitting else "nowhere"
        raise InputError(f"{path}: its attention on {channels} channels fits {where}")
    return fitting[0]


# --- formats with one list of blocks, in which attention has a place of its own ---


@dataclass(frozen=True)
class Blocks:
    """Such a list: where its residual blocks are, and where its attention is."""

    residual: tuple[int, ...]
    attention: int | None

    @classmethod
    def find(cls, source: ForeignTensors, blocks: str, attention: str) -> Blocks:
        """Find them by patterns whose group is the place in the list; one is of attention alone."""
        found = source.numbers(attention)
        if len(found) > 1:
            raise InputError(f"{source.path} has attention in {len(found)} places, not in one")
        residual = tuple(i for i in source.numbers(blocks) if i not in found)
        return cls(residual, found[0] if found else None)

    @property
    def before_attention(self) -> int:
        """The number of residual blocks before the attention; 0 for no attention."""
        return sum(i < (self.attention or 0) for i in self.residual)

    def names(self, block: str, attention: str) -> Names:
        """The renaming of our blocks and our attention, by the beginnings of theirs."""
        places = dict(enumerate(self.residual))
        return (
            (r"^blocks\.(\d+)\.", lambda match: block.format(places.get(int(match[1]), 0))),
            (r"^attention\.", attention.format(self.attention)),
        )


def generator_in_list(
    source: ForeignTensors,
    foreign_name: Callable[[str], str],
    blocks: Blocks,
    condition: int,
    *,
    has_tables: bool,
    **values: Any,
) -> GeneratorConfig:
    """The shape of a generator whose blocks are such a list.

    `condition` is the width of what conditions its BatchNorms, or the number of classes of which
    they have tables.
    """
    size = partial(_layer_size, source, foreign_name)
    deep = source.has_any(foreign_name("blocks.0.conv4."))
    number = len(blocks.residual)
    made = [size(f"blocks.{i}.conv{4 if deep else 2}", 4, 0) for i in range(number)]
    widths = [size("linear", 2, 0) // 16, *(made[1::2] if deep else made)]
    stages = 3 if len(set(widths)) == 1 else min(len(widths) - 1, _MOST_STAGES)
    if deep and (made[::2] != widths[:-1] or number != 2 * stages):
        raise InputError(f"{source.path} does not have two blocks per resolution")
    if has_tables:
        values["num_classes"] = condition
    if shared := (table := foreign_name("class_embedding.table.weight")) in source:
        values["num_classes"], values["class_dim"] = source.shape(table, 2)
    noise = 0 if has_tables else condition - (values["class_dim"] if shared else 0)
    if noise < 0 or (deep and noise == 0):
        raise InputError(
            f"{source.path}: conditions of {condition} numbers, of which {noise} are noise, are "
            "not supported"
        )
    z_dim = noise * (1 if deep else len(widths)) or size("linear", 2, 1)
    before = blocks.before_attention
    if deep and before % 2:
        raise InputError(f"{source.path} has attention between two blocks of a resolution")
    return generator_config(
        "biggan-deep" if deep else "biggan",
        widths,
        z_dim=z_dim,
        attention_resolution=4 * 2 ** (before // 2 if deep else before) if before else 0,
        shared_embedding=not has_tables,
        skip_z=noise > 0,
        **{"num_classes": 0, **values},
    )


def _layer_size(
    source: ForeignTensors,
    foreign_name: Callable[[str], str],
    layer: str,
    dimensions: int,
    axis: int,
) -> int:
    """A size of a layer's weight; its outputs (axis 0) are known by its bias, too."""
    places = [(foreign_name(f"{layer}.weight"), dimensions, axis)]
    if axis == 0:
        places.append((foreign_name(f"{layer}.bias"), 1, 0))
    return source.size(*places)


def discriminator_in_list(
    source: ForeignTensors,
    foreign_name: Callable[[str], str],
    blocks: Blocks,
    **values: Any,
) -> DiscriminatorConfig:
    """As `generator_in_list`, of a discriminator."""
    size = partial(_layer_size, source, foreign_name)
    deep = source.has_any(foreign_name("stem."))
    number = len(blocks.residual)
    made = [size(f"blocks.{i}.conv{4 if deep else 2}", 4, 0) for i in range(number)]
    widths = [size("stem", 4, 0), *made[1::2]] if deep else made
    if not made or (deep and made[::2] != made[1::2]):
        raise InputError(f"{source.path} does not have two blocks per resolution")
    down, resolution = halvings(widths)
    before = blocks.before_attention
    after, between = divmod(before, 2) if deep else (before, 0)
    if between or after > down:
        raise InputError(
            f"{source.path} has attention after block {before}, which does not halve the resolution"
        )
    has_classes = source.has_any(foreign_name("head.embedding."))
    channels, multiples = base_width(widths)
    return DiscriminatorConfig(
        family="biggan-deep" if deep else "biggan",
        resolution=resolution,
        channels=channels,
        widths=multiples,
        down_blocks=down,
        num_classes=source.shape(foreign_name("head.embedding.weight"), 2)[0] if has_classes else 0,
        attention_resolution=resolution // 2**after if after else 0,
        image_channels=size("stem" if deep else "blocks.0.conv1", 4, 1),
        **values,
    )
