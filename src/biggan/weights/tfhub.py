"""DeepMind's TF Hub modules: `biggan-{128,256,512}` and `biggan-deep-{128,256,512}`.

A module is a folder of a graph and its variables. The variables say all but the epsilons, which
are 1e-4, and the place of the attention. Beside every weight is its moving average, which alone is
used. The BatchNorm statistics for each truncation are no variables but constants of the graph: a
table for every mean and every variance, in the order of the layers.

Where this differs from ours: dense weights are (in, out), kernels (height, width, in, out), and a
kernel's `v` runs over height, width and channels in this order; the first linear layer's output is
viewed as (4, 4, channels). The deep modules store `u` alone.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise, takewhile
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from biggan.errors import InputError
from biggan.models import GeneratorConfig
from biggan.weights.archives import GRAPH, INDEX
from biggan.weights.foreign import (
    Converted,
    ForeignTensors,
    attention_by_channels,
    base_width,
    channel_first_linear,
    converged_vectors,
    hub_grid,
    recorded_statistics,
)
from biggan.weights.graph_def import Table, find_tables, read_graph
from biggan.weights.tensor_bundle import TensorBundle

_LOG = logging.getLogger("biggan.weights")

_ORIGIN = "DeepMind's TF Hub modules"
_EPS = 1e-4
_ROWS = (50, 51)  # of a table of statistics
_DEEP_ATTENTION = 64  # pixels, whatever the image's resolution
_FIRST, _DEEP_FIRST = "Generator/G_Z/G_linear", "Generator/GenZ/G_linear"
_EMA, _DEEP_EMA = "ema_b999900", "ema_0.9999"


def convert_generator(folder: Path) -> Converted[GeneratorConfig]:
    """Convert a generator.

    Args:
        folder: Holds `saved_model.pb` and `variables`.

    Raises:
        InputError: A file is damaged, or what the files hold fits no network.
    """
    bundle = TensorBundle((folder / INDEX).with_suffix(""))
    families = _table_families(folder / GRAPH)
    # A rehearsal without data finds all that does not fit, before anything is read or allocated.
    with torch.device("meta"):
        _network(_WithoutData(bundle), str(folder), recorded=bool(families))
    network = _network(bundle, str(folder), recorded=bool(families))
    if not families:
        _LOG.warning(
            "%s has no BatchNorm statistics for each truncation in its graph: its accumulated "
            "ones are taken for all",
            folder,
        )
        return Converted(network.config, network.tensors, _ORIGIN)
    tables = _statistics_tables(families, network.norms, folder / GRAPH)
    for norm, mean, variance in zip(network.norms, tables[::2], tables[1::2], strict=True):
        network.tensors.update(recorded_statistics(norm.ours, mean.tensor(), variance.tensor()))
    return Converted(network.config, network.tensors, _ORIGIN, hub_grid(tables[0].rows))


class _WithoutData(Mapping[str, Tensor]):
    """The variables of a checkpoint as shapes and types."""

    def __init__(self, bundle: TensorBundle) -> None:
        self._bundle = bundle

    def __iter__(self) -> Iterator[str]:
        return iter(self._bundle)

    def __len__(self) -> int:
        return len(self._bundle)

    def __getitem__(self, name: str) -> Tensor:
        return self._bundle.on_meta(name)


@dataclass(frozen=True)
class _Norm:
    """A BatchNorm."""

    ours: str
    channels: int
    accumulated: str = ""
    """The scope of its accumulated statistics; only the original modules have them."""


@dataclass(frozen=True)
class _Network:
    """A generator in our layout, but for the statistics of the graph."""

    config: GeneratorConfig
    tensors: dict[str, Tensor]
    norms: list[_Norm]
    """In the order in which they are applied."""


def _network(variables: Mapping[str, Tensor], name: str, *, recorded: bool) -> _Network:
    """The network that the variables are; with the accumulated statistics if none are recorded."""
    source = ForeignTensors(variables, name)
    if f"{_DEEP_FIRST}/w/{_DEEP_EMA}" in source:
        if not recorded:
            raise InputError(f"{source.source}/{GRAPH} has no BatchNorm statistics")
        network = _deep_network(_LayerReader(source, variables, _DEEP_EMA))
    elif f"{_FIRST}/w/{_EMA}" in source:
        network = _original_network(_LayerReader(source, variables, _EMA))
    else:
        raise InputError(
            f"{source.source} holds TensorFlow variables, but no BigGAN of DeepMind's: neither "
            f"{_FIRST}/w/{_EMA} nor {_DEEP_FIRST}/w/{_DEEP_EMA}"
        )
    if not recorded:
        for norm in network.norms:
            network.tensors.update(_accumulated(source, norm))
    source.leave(r"(?!Generator/|linear/).*")  # of the training
    source.leave(r".*/(w|b|gamma|beta|offset|scale)")  # not averaged
    source.leave(r".*/(accumulated_mean|accumulated_var|accumulation_counter)")
    source.finish()
    return network


# --- the two kinds ---


def _original_network(reader: _LayerReader) -> _Network:
    source, ema = reader.source, reader.ema
    blocks = reader.blocks()
    widths = [
        source.shape(f"{blocks[0]}/conv0/w/{ema}", 4)[2],
        *(source.shape(f"{name}/conv0/w/{ema}", 4)[3] for name in blocks),
    ]
    attention = 0
    if f"Generator/attention/theta/w/{ema}" in source:
        channels = source.shape(f"Generator/attention/theta/w/{ema}", 4)[2]
        attention = attention_by_channels(channels, widths, source.source)
    chunk_dim = source.shape(f"{_FIRST}/w/{ema}", 2)[0]
    rgb = source.shape(f"Generator/conv_2d/w/{ema}", 4)[3]
    config = _config(reader, "biggan", widths, chunk_dim * len(widths), attention, rgb)

    condition_dim = config.condition_dim
    tensors = reader.embedding(config) | reader.first_linear(_FIRST, chunk_dim, widths[0])
    norms: list[_Norm] = []
    for i, (name, (before, after)) in enumerate(zip(blocks, pairwise(widths), strict=True)):
        ours = f"blocks.{i}"
        for suffix, to, channels in (("", "bn1", before), ("_1", "bn2", after)):
            norm, to = f"{name}/HyperBN{suffix}", f"{ours}.{to}"
            norms.append(_Norm(to, channels, f"{name}/CrossReplicaBN{suffix}"))
            tensors |= reader.dense(f"{norm}/gamma", f"{to}.gain", condition_dim, channels)
            tensors |= reader.dense(f"{norm}/beta", f"{to}.bias", condition_dim, channels)
        for part, to, shape in (
            ("conv0", "conv1", (after, before, 3)),
            ("conv1", "conv2", (after, after, 3)),
            ("conv_sc", "shortcut", (after, before, 1)),
        ):
            tensors |= reader.convolution(f"{name}/{part}", f"{ours}.{to}", *shape)
    if attention:
        tensors |= reader.attention(widths[config.stage_resolutions.index(attention) + 1])
    name = "Generator/ScaledCrossReplicaBN"
    norms.append(_Norm("head.bn", widths[-1], f"{name}bn"))
    tensors["head.bn.gain"] = reader.vector(f"{name}/gamma", widths[-1])
    tensors["head.bn.bias"] = reader.vector(f"{name}/beta", widths[-1])
    tensors |= reader.convolution("Generator/conv_2d", "head.conv", rgb, widths[-1], 3)
    return _Network(config, tensors, norms)


def _deep_network(reader: _LayerReader) -> _Network:
    source, ema = reader.source, reader.ema
    blocks = reader.blocks()
    if len(blocks) % 2:
        raise InputError(f"{source.source} has {len(blocks)} blocks, not two for each resolution")
    widths = [
        source.shape(f"{blocks[0]}/conv0/w/{ema}", 4)[2],
        *(source.shape(f"{name}/conv3/w/{ema}", 4)[3] for name in blocks[1::2]),
    ]
    attention = _DEEP_ATTENTION if f"Generator/attention/theta/w/{ema}" in source else 0
    condition_dim = source.shape(f"{_DEEP_FIRST}/w/{ema}", 2)[0]
    z_dim = condition_dim - source.shape(f"linear/w/{ema}", 2)[1]
    rgb = source.shape(f"Generator/conv_to_rgb/w/{ema}", 4)[3]
    config = _config(reader, "biggan-deep", widths, z_dim, attention, rgb)

    tensors = reader.embedding(config) | reader.first_linear(_DEEP_FIRST, condition_dim, widths[0])
    norms: list[_Norm] = []
    made = [width for before, after in pairwise(widths) for width in (before, after)]
    for i, (name, (before, after)) in enumerate(
        zip(blocks, pairwise([widths[0], *made]), strict=True)
    ):
        ours, hidden = f"blocks.{i}", before // 4
        for j, shape in enumerate(
            [(hidden, before, 1), (hidden, hidden, 3), (hidden, hidden, 3), (after, hidden, 1)]
        ):
            norm, to, channels = f"{name}/BatchNorm{_suffix(j)}", f"{ours}.bn{j + 1}", shape[1]
            norms.append(_Norm(to, channels))
            tensors |= reader.dense(f"{norm}/scale", f"{to}.gain", condition_dim, channels)
            tensors |= reader.dense(f"{norm}/offset", f"{to}.bias", condition_dim, channels)
            tensors |= reader.convolution(f"{name}/conv{j}", f"{ours}.conv{j + 1}", *shape)
    if attention:
        tensors |= reader.attention(widths[config.stage_resolutions.index(attention) + 1])
    norms.append(_Norm("head.bn", widths[-1]))
    tensors["head.bn.gain"] = reader.vector("Generator/BatchNorm/scale", widths[-1])
    tensors["head.bn.bias"] = reader.vector("Generator/BatchNorm/offset", widths[-1])
    tensors |= reader.convolution("Generator/conv_to_rgb", "head.conv", rgb, widths[-1], 3)
    return _Network(config, tensors, norms)


def _config(
    reader: _LayerReader,
    family: Literal["biggan", "biggan-deep"],
    widths: Sequence[int],
    z_dim: int,
    attention: int,
    rgb: int,
) -> GeneratorConfig:
    channels, multiples = base_width(widths)
    num_classes, class_dim = reader.source.shape(f"linear/w/{reader.ema}", 2)
    return GeneratorConfig(
        family=family,
        resolution=4 * 2 ** (len(widths) - 1),
        channels=channels,
        widths=multiples,
        z_dim=z_dim,
        num_classes=num_classes,
        attention_resolution=attention,
        class_dim=class_dim,
        image_channels=1 if rgb == 1 else 3,
        rgb_channels=rgb if rgb > 3 else 0,
        bn_eps=_EPS,
        sn_eps=_EPS,
    )


# --- layers ---


class _LayerReader:
    """Takes whole layers from a module and names them as we do.

    Every tensor is copied: the module's are maps of files, which may be gone tomorrow.

    Args:
        source: The module's variables.
        variables: The same, for the shapes that vary from module to module.
        ema: The last part of an averaged variable's name.
    """

    def __init__(self, source: ForeignTensors, variables: Mapping[str, Tensor], ema: str) -> None:
        self.source = source
        self.ema = ema
        self._variables = variables
        self._stores_v = f"{_FIRST}/u1" in source

    def blocks(self) -> list[str]:
        """The names of the residual blocks, at least one."""
        self.source.shape(f"Generator/GBlock/conv0/w/{self.ema}", 4)
        names = (f"Generator/GBlock{_suffix(i)}" for i in count())
        return list(takewhile(lambda name: f"{name}/conv0/w/{self.ema}" in self.source, names))

    def vector(self, name: str, size: int) -> Tensor:
        """An averaged vector, which may have axes of length 1 before its own."""
        name = f"{name}/{self.ema}"
        shape: tuple[int, ...] = (size,)
        if name in self._variables:
            found = tuple(self._variables[name].shape)
            if math.prod(found) == size and found[-1:] in ((size,), ()):
                shape = found
        return self.source.take(name, *shape).reshape(size).clone()

    def embedding(self, config: GeneratorConfig) -> dict[str, Tensor]:
        """The class embedding."""
        table = self.source.take(f"linear/w/{self.ema}", config.num_classes, config.class_dim)
        return {"class_embedding.table.weight": table.clone()}

    def first_linear(self, theirs: str, columns: int, channels: int) -> dict[str, Tensor]:
        """The linear layer that makes the first image."""
        state = self.dense(theirs, "linear", columns, 16 * channels)
        state["linear.bias"] = self.vector(f"{theirs}/b", 16 * channels)
        return channel_first_linear(state)

    def dense(self, theirs: str, ours: str, columns: int, rows: int) -> dict[str, Tensor]:
        """A linear layer without a bias."""
        weight = self.source.take(f"{theirs}/w/{self.ema}", columns, rows)
        return self._normalized(theirs, ours, weight.T)

    def convolution(
        self, theirs: str, ours: str, out_channels: int, in_channels: int, size: int
    ) -> dict[str, Tensor]:
        """A convolution with a bias."""
        state = self._kernel(theirs, ours, out_channels, in_channels, size)
        state[f"{ours}.bias"] = self.vector(f"{theirs}/b", out_channels)
        return state

    def attention(self, channels: int) -> dict[str, Tensor]:
        """The self-attention."""
        theirs = "Generator/attention"
        state = {"attention.gamma": self.vector(f"{theirs}/gamma", 1).reshape(())}
        for name in ("theta", "phi", "g"):
            out = channels // (2 if name == "g" else 8)
            state |= self._kernel(f"{theirs}/{name}", f"attention.{name}", out, channels, 1)
        return state | self._kernel(f"{theirs}/o_conv", "attention.o", channels, channels // 2, 1)

    def _kernel(
        self, theirs: str, ours: str, out_channels: int, in_channels: int, size: int
    ) -> dict[str, Tensor]:
        shape = (size, size, in_channels, out_channels)
        kernel = self.source.take(f"{theirs}/w/{self.ema}", *shape)
        return self._normalized(theirs, ours, kernel.permute(3, 2, 0, 1))

    def _normalized(self, theirs: str, ours: str, weight: Tensor) -> dict[str, Tensor]:
        """A spectrally normalized weight (out, in, ...)."""
        weight = weight.clone(memory_format=torch.contiguous_format)
        u = self.source.take(f"{theirs}/u0", 1, weight.shape[0])[0].clone()
        if self._stores_v:
            stored = self.source.take(f"{theirs}/u1", 1, weight[0].numel())
            v = stored.reshape(-1, weight.shape[1]).T.flatten().clone()
        else:
            u, v = converged_vectors(weight, u, _EPS)
        return {f"{ours}.weight": weight, f"{ours}.u": u, f"{ours}.v": v}


def _suffix(i: int) -> str:
    """What TensorFlow appends to a name that is used again."""
    return f"_{i}" if i else ""


# --- statistics ---


def _accumulated(source: ForeignTensors, norm: _Norm) -> dict[str, Tensor]:
    """A BatchNorm's state with one set of statistics and an empty table."""
    mean = source.take(f"{norm.accumulated}/accumulated_mean", norm.channels)
    variance = source.take(f"{norm.accumulated}/accumulated_var", norm.channels)
    return {
        f"{norm.ours}.running_mean": mean.clone(),
        f"{norm.ours}.running_var": variance.clone(),
        f"{norm.ours}.table_mean": mean.new_empty(0, norm.channels),
        f"{norm.ours}.table_var": variance.new_empty(0, norm.channels),
    }


def _table_families(path: Path) -> dict[str, dict[int, Table]]:
    """The tables in a graph that may be statistics.

    Those of one network have one name but for the number that TensorFlow appends: `stack_1`,
    `stack_3`, ... rise in the order in which the layers were built.

    Returns:
        By that name, then by number.

    Raises:
        InputError: The graph is damaged.
    """
    families: dict[str, dict[int, Table]] = {}
    for table in find_tables(read_graph(path), _ROWS):
        match = re.fullmatch(r"(.*?)(?:_(\d{1,9}))?", table.name)
        assert match is not None, "a name is printable, so that it has no line breaks"
        families.setdefault(match[1], {})[int(match[2] or 0)] = table
    return families


def _statistics_tables(
    families: Mapping[str, Mapping[int, Table]], norms: Sequence[_Norm], path: Path
) -> list[Table]:
    """A table of means and one of variances for every BatchNorm, in turn.

    Raises:
        InputError: There are none, or more than one choice of them.
    """
    chosen = {name: _in_order(family, len(norms)) for name, family in families.items()}
    faults = {name: _fault(tables, norms) for name, tables in chosen.items()}
    fitting = [name for name, fault in faults.items() if fault is None]
    if len(fitting) == 1:
        return chosen[fitting[0]]
    if len(families) == 1:
        raise InputError(f"{path} {next(iter(faults.values()))}")
    raise InputError(
        f"{path}: tables of BatchNorm statistics have different names "
        f"({', '.join(sorted(families)[:5])}), and {len(fitting)} of these fit the layers"
    )


def _in_order(family: Mapping[int, Table], layers: int) -> list[Table]:
    """Tables of one name as the layers use them.

    In the published deep modules every layer has five stacks, of which the second is the table of
    means and the fourth that of variances. Elsewhere, all tables there are.
    """
    published = [5 * layer + place for layer in range(layers) for place in (1, 3)]
    if set(published) <= set(family):
        return [family[number] for number in published]
    return [family[number] for number in sorted(family)]


def _fault(tables: Sequence[Table], norms: Sequence[_Norm]) -> str | None:
    """Why tables cannot be those of the layers."""
    if len(tables) != 2 * len(norms):
        return (
            f"has {len(tables)} tables of BatchNorm statistics, not a mean and a variance "
            f"for each of the {len(norms)} layers"
        )
    for i, table in enumerate(tables):
        shape = (tables[0].rows, norms[i // 2].channels)
        if (table.rows, table.width) != shape:
            return (
                f"has a table of BatchNorm statistics, {table.name}, of "
                f"{(table.rows, table.width)}, not {shape}"
            )
    return None
