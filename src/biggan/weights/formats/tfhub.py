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
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from biggan.errors import InputError
from biggan.models import hub_grid
from biggan.nn import StandingBatchNorm2d
from biggan.weights.containers.graph_def import GRAPH, Table, find_tables
from biggan.weights.formats.conversion import (
    Converted,
    ForeignTensors,
    Layers,
    Stored,
    add_converged_vectors,
    add_other_statistics,
    channels_first,
    renamed,
    reorder_first_linear,
)
from biggan.weights.load import empty_network
from biggan.weights.published import DEEPMIND_LICENCE

_LOG = logging.getLogger("biggan.weights")

ORIGIN = "DeepMind's TF Hub modules"
LICENCE = DEEPMIND_LICENCE
MARKS = ("Generator/G",)

_EPS = 1e-4
_EMBEDDING = "class_embedding.table.weight"
_ROWS = (50, 51)  # of a table of statistics
_DEEP_BLOCKS = 8  # before the attention, which is at 64 pixels whatever the image's resolution
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


def convert(source: ForeignTensors) -> Converted:
    """Convert a generator, of a module's variables; the source's path has the graph, too."""
    graph = source.path / GRAPH
    tables = find_tables(graph, _ROWS)
    deep = source.has_any("Generator/GenZ/")
    if deep and not tables:
        raise InputError(f"{graph} has no BatchNorm statistics")
    source.leave(r"(?!Generator/|linear/).*")  # of the training
    source.leave(r".*/(w|b|gamma|beta|offset|scale)")  # not averaged
    source.leave(r".*/(accumulated_mean|accumulated_var|accumulation_counter)")
    ema = _DEEP_EMA if deep else _EMA
    stores_v = "Generator/G_Z/G_linear/u1" in source

    def foreign_name(name: str) -> str:
        if name == _EMBEDDING:
            return f"linear/w/{ema}"
        foreign = renamed(name, _DEEP_NAMES if deep else _NAMES)
        last = foreign.rpartition("/")[2]
        if not last or (last == "u1" and not stores_v):
            return ""
        if last.startswith("accumulated_"):
            return "" if tables else f"Generator/{foreign}"
        return f"Generator/{foreign}" if last in ("u0", "u1") else f"Generator/{foreign}/{ema}"

    def stored(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Stored:
        shape = shapes[name]
        if name.endswith(".v"):
            return channels_first(name, shapes)
        if len(shape) > 1 and name != _EMBEDDING:
            return (*shape[2:], shape[1], shape[0]), _outputs_first
        return shape, torch.clone  # no part of a map of the file

    blocks = 1 + max(source.numbers(r"Generator/GBlock_(\d{1,3})/conv0/w/"), default=0)
    has_attention = foreign_name("attention.theta.weight") in source
    before_attention = _DEEP_BLOCKS * has_attention if deep else None
    layers = Layers(source, foreign_name, blocks, before_attention, outputs_last=True)
    config = layers.generator_config(
        deep=deep, embedding=source.shape(f"linear/w/{ema}", 2), bn_eps=_EPS, sn_eps=_EPS
    )
    norms = {
        name: layer.channels
        for name, layer in empty_network(config).named_modules()
        if isinstance(layer, StandingBatchNorm2d)
    }
    tensors = source.take_network(config, foreign_name, stored)
    if not stores_v:
        add_converged_vectors(tensors, _EPS)
    reorder_first_linear(tensors)
    grid: tuple[float, ...] = ()
    if tables:
        chosen = _statistics(tables, list(norms.values()), graph)
        for norm, mean, variance in zip(norms, chosen[::2], chosen[1::2], strict=True):
            tensors[f"{norm}.table_mean"] = mean.tensor()
            tensors[f"{norm}.table_var"] = variance.tensor()
        add_other_statistics(tensors)
        grid = hub_grid(chosen[0].rows)
    else:
        _LOG.warning(
            "%s has no BatchNorm statistics for each truncation in its graph: its accumulated "
            "statistics are used for all",
            source.path,
        )
    return Converted(config, tensors, grid)


def _outputs_first(kernel: Tensor) -> Tensor:
    """A weight (..., in, out) as (out, in, ...)."""
    axes = kernel.ndim - 1, kernel.ndim - 2, *range(kernel.ndim - 2)
    return kernel.permute(axes).clone(memory_format=torch.contiguous_format)


def _statistics(tables: Sequence[Table], widths: Sequence[int], path: Path) -> list[Table]:
    """A table of means and one of variances for every BatchNorm, in turn.

    Those of one network have one name but for the number that TensorFlow appends: `stack_1`,
    `stack_3`, ... rise in the order in which the layers were built. In the published deep modules
    every layer has five stacks, of which the second is the table of means and the fourth that of
    variances. Elsewhere there are no others.
    """
    families: dict[str, dict[int, Table]] = {}
    for table in tables:
        match = re.fullmatch(r"(.*?)(?:_(\d{1,9}))?", table.name)
        assert match is not None, "a name is printable, so that it has no line breaks"
        families.setdefault(match[1], {})[int(match[2] or 0)] = table
    published = [5 * layer + place for layer in range(len(widths)) for place in (1, 3)]
    fitting = []
    for family in families.values():
        numbers = published if set(published) <= set(family) else sorted(family)
        found = [family[number] for number in numbers]
        shapes = [(found[0].rows, width) for width in widths for _ in range(2)]
        if [(table.rows, table.width) for table in found] == shapes:
            fitting.append(found)
    if len(fitting) != 1:
        names = ", ".join(f"{len(family)} {name}" for name, family in families.items())
        raise InputError(
            f"{path} has {len(fitting)} sets of tables of BatchNorm statistics that fit the "
            f"{len(widths)} layers, not one ({names[:100]})"
        )
    return fitting[0]
