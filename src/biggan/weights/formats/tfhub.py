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
from itertools import count, takewhile
from pathlib import Path

import torch
from torch import Tensor

from biggan.errors import InputError
from biggan.models import Discriminator, Generator, GeneratorConfig
from biggan.nn import StandingBatchNorm2d
from biggan.weights.containers.graph_def import GRAPH, Table, find_tables, read_graph
from biggan.weights.containers.tensor_bundle import TensorBundle
from biggan.weights.formats.conversion import (
    Converted,
    ForeignTensors,
    Layout,
    add_converged_vectors,
    add_other_statistics,
    attention_by_channels,
    base_width,
    reorder_first_linear,
)
from biggan.weights.networks import empty_network, hub_grid
from biggan.weights.published import DEEPMIND_LICENCE

_LOG = logging.getLogger("biggan.weights")

_EPS = 1e-4
_ROWS = (50, 51)  # of a table of statistics
_DEEP_ATTENTION = 64  # pixels, whatever the image's resolution
_EMA, _DEEP_EMA = "ema_b999900", "ema_0.9999"

_BOTH = (  # kinds of module; all of it is under Generator/, but for the class embedding
    (r"\.", "/"),
    (r".*/table_(mean|var)$", ""),
    (r"^blocks/0/", "GBlock/"),
    (r"^blocks/(\d+)/", r"GBlock_\1/"),
    (r"^attention/o/", "attention/o_conv/"),
    (r"/weight$", "/w"),
    (r"/u$", "/u0"),
    (r"/v$", "/u1"),
)
_NAMES = (
    *_BOTH,
    (r"^linear/", "G_Z/G_linear/"),
    (r"/gain", "/gamma"),
    (r"/bn(\d?)/bias", r"/bn\1/beta"),
    (r"/bias$", "/b"),
    (r"/bn1/running_", "/CrossReplicaBN/accumulated_"),
    (r"/bn2/running_", "/CrossReplicaBN_1/accumulated_"),
    (r"/bn1/", "/HyperBN/"),
    (r"/bn2/", "/HyperBN_1/"),
    (r"/conv1/", "/conv0/"),
    (r"/conv2/", "/conv1/"),
    (r"/shortcut/", "/conv_sc/"),
    (r"^head/bn/running_", "ScaledCrossReplicaBNbn/accumulated_"),
    (r"^head/bn/", "ScaledCrossReplicaBN/"),
    (r"^head/conv/", "conv_2d/"),
)
_DEEP_NAMES = (
    *_BOTH,
    (r".*/running_(mean|var)$", ""),
    (r"^linear/", "GenZ/G_linear/"),
    (r"/gain", "/scale"),
    (r"/bn(\d?)/bias", r"/bn\1/offset"),
    (r"/bias$", "/b"),
    (r"/bn1/", "/BatchNorm/"),
    *((rf"/bn{i + 1}/", f"/BatchNorm_{i}/") for i in range(1, 4)),
    *((rf"/conv{i + 1}/", f"/conv{i}/") for i in range(4)),
    (r"^head/bn/", "BatchNorm/"),
    (r"^head/conv/", "conv_to_rgb/"),
)


def matches(source: ForeignTensors) -> bool:
    """Whether tensors are named as in this format."""
    return source.has_any("Generator/G")


def convert(source: ForeignTensors) -> Converted:
    """Convert a generator.

    Args:
        source: The module's variables; its path is a folder with the graph.

    Raises:
        InputError: A file is damaged, or what the files hold fits no network.
    """
    graph = source.path / GRAPH
    families = _table_families(graph)
    # A rehearsal without data finds all that does not fit, before anything is read or allocated.
    shapes = ForeignTensors(_WithoutData(source.tensors), source.path, source.epsilons)
    with torch.device("meta"):
        _take_network(shapes, recorded=bool(families))
    config, tensors, norms = _take_network(source, recorded=bool(families))
    grid: tuple[float, ...] = ()
    if families:
        tables = _statistics_tables(families, list(norms.values()), graph)
        for norm, mean, variance in zip(norms, tables[::2], tables[1::2], strict=True):
            tensors[f"{norm}.table_mean"] = mean.tensor()
            tensors[f"{norm}.table_var"] = variance.tensor()
        grid = hub_grid(tables[0].rows)
    else:
        _LOG.warning(
            "%s has no BatchNorm statistics for each truncation in its graph: its accumulated "
            "ones are taken for all",
            source.path,
        )
    add_other_statistics(tensors)
    return Converted(config, tensors, "DeepMind's TF Hub modules", DEEPMIND_LICENCE, grid)


class _WithoutData(Mapping[str, Tensor]):
    """Variables as shapes and types."""

    def __init__(self, variables: Mapping[str, Tensor]) -> None:
        self._variables = variables

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __getitem__(self, name: str) -> Tensor:
        if isinstance(self._variables, TensorBundle):
            return self._variables.on_meta(name)
        return self._variables[name].to("meta")


def _take_network(
    source: ForeignTensors, *, recorded: bool
) -> tuple[GeneratorConfig, dict[str, Tensor], dict[str, int]]:
    """The network that the variables are, and the names and widths of its BatchNorms in order.

    Args:
        source: The variables.
        recorded: Whether the statistics are in the graph; otherwise the accumulated ones are taken.
    """
    deep = source.has_any("Generator/GenZ/")
    if deep and not recorded:
        raise InputError(f"{source.path}/{GRAPH} has no BatchNorm statistics")
    config = _config(source, deep=deep)
    network = empty_network(config)
    layout = _Layout(network, source, deep=deep, recorded=recorded)
    tensors = layout.take_all(source)
    if not layout.stores_v:
        add_converged_vectors(tensors, _EPS)
    reorder_first_linear(tensors)
    source.leave(r"(?!Generator/|linear/).*")  # of the training
    source.leave(r".*/(w|b|gamma|beta|offset|scale)")  # not averaged
    source.leave(r".*/(accumulated_mean|accumulated_var|accumulation_counter)")
    source.finish()
    norms = {
        name: layer.channels
        for name, layer in network.named_modules()
        if isinstance(layer, StandingBatchNorm2d)
    }
    return config, tensors, norms


class _Layout(Layout):
    """Every tensor is copied: the module's are maps of files, which may be gone tomorrow."""

    def __init__(
        self,
        network: Generator | Discriminator,
        source: ForeignTensors,
        *,
        deep: bool,
        recorded: bool,
    ) -> None:
        super().__init__(network, _DEEP_NAMES if deep else _NAMES)
        self.stores_v = "Generator/G_Z/G_linear/u1" in source
        self._recorded = recorded
        self._ema = _DEEP_EMA if deep else _EMA
        self._source = source

    def foreign_name(self, name: str) -> str:
        if name == "class_embedding.table.weight":
            return f"linear/w/{self._ema}"
        foreign = super().foreign_name(name)
        last = foreign.rpartition("/")[2]
        if not last or (last == "u1" and not self.stores_v):
            return ""
        if last.startswith("accumulated_"):
            return "" if self._recorded else f"Generator/{foreign}"
        ending = "" if last in ("u0", "u1") else f"/{self._ema}"
        return f"Generator/{foreign}{ending}"

    def foreign_shape(self, name: str) -> tuple[int, ...]:
        shape = self.shapes[name]
        if name == "class_embedding.table.weight":
            return shape
        if name.endswith((".u", ".v")):
            return (1, *shape)
        if len(shape) > 1:
            return (*shape[2:], shape[1], shape[0])
        foreign, size = self.foreign_name(name), math.prod(shape)
        if foreign.endswith(self._ema) and foreign in self._source:
            # A vector may have axes of length 1 before its own.
            found = tuple(self._source.tensors[foreign].shape)
            if math.prod(found) == size and found[-1:] in ((size,), ()):
                return found
        return (size,)

    def to_ours(self, name: str, tensor: Tensor) -> Tensor:
        if name.endswith(".v"):
            in_channels = self.shapes[f"{name.removesuffix('v')}weight"][1]
            return tensor.reshape(-1, in_channels).T.flatten().clone()
        if name.endswith(".weight") and name != "class_embedding.table.weight":
            axes = tensor.ndim - 1, tensor.ndim - 2, *range(tensor.ndim - 2)
            return tensor.permute(axes).clone(memory_format=torch.contiguous_format)
        return tensor.reshape(self.shapes[name]).clone()


def _config(source: ForeignTensors, *, deep: bool) -> GeneratorConfig:
    """The network's shape, of which the variables that say it have to be there."""
    ema = _DEEP_EMA if deep else _EMA

    def shape(name: str, dimensions: int) -> tuple[int, ...]:
        return source.shape(f"{name}/w/{ema}", dimensions)

    last = "conv3" if deep else "conv0"
    widths = [shape("Generator/GBlock/conv0", 4)[2]]
    names = (f"Generator/GBlock_{i}" if i else "Generator/GBlock" for i in count())
    blocks = list(takewhile(lambda name: f"{name}/conv0/w/{ema}" in source, names))
    if deep and len(blocks) % 2:
        raise InputError(f"{source.path} has {len(blocks)} blocks, not two for each resolution")
    ends = blocks[1::2] if deep else blocks  # the last blocks of each resolution
    widths += [shape(f"{name}/{last}", 4)[3] for name in ends]
    attention = 0
    if f"Generator/attention/theta/w/{ema}" in source:
        channels = shape("Generator/attention/theta", 4)[2]
        attention = (
            _DEEP_ATTENTION if deep else attention_by_channels(channels, widths, source.path)
        )
    num_classes, class_dim = shape("linear", 2)
    if deep:
        z_dim = shape("Generator/GenZ/G_linear", 2)[0] - class_dim
    else:
        z_dim = shape("Generator/G_Z/G_linear", 2)[0] * len(widths)
    rgb = shape("Generator/conv_to_rgb" if deep else "Generator/conv_2d", 4)[3]
    multiplier, multiples = base_width(widths)
    return GeneratorConfig(
        family="biggan-deep" if deep else "biggan",
        resolution=4 * 2 ** (len(widths) - 1),
        channels=multiplier,
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


# --- statistics ---


def _table_families(path: Path) -> dict[str, dict[int, Table]]:
    """The tables in a graph that may be statistics, by name and number.

    Those of one network have one name but for the number that TensorFlow appends: `stack_1`,
    `stack_3`, ... rise in the order in which the layers were built.

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
    families: Mapping[str, Mapping[int, Table]], widths: Sequence[int], path: Path
) -> list[Table]:
    """A table of means and one of variances for every BatchNorm, in turn.

    Raises:
        InputError: There are none, or more than one choice of them.
    """
    chosen = {name: _in_order(family, len(widths)) for name, family in families.items()}
    faults = {name: _fault(tables, widths) for name, tables in chosen.items()}
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


def _fault(tables: Sequence[Table], widths: Sequence[int]) -> str | None:
    """Why tables cannot be those of the layers."""
    if len(tables) != 2 * len(widths):
        return (
            f"has {len(tables)} tables of BatchNorm statistics, not a mean and a variance "
            f"for each of the {len(widths)} layers"
        )
    for i, table in enumerate(tables):
        shape = (tables[0].rows, widths[i // 2])
        if (table.rows, table.width) != shape:
            return (
                f"has a table of BatchNorm statistics, {table.name}, of "
                f"{(table.rows, table.width)}, not {shape}"
            )
    return None
