"""ivclab's BigGAN-Generator-Pretrained-Pytorch: `biggan{128,256,512}-release.pt`.

DeepMind's original BigGAN, from the second version of its TF Hub modules, with BatchNorm statistics
for 50 truncations. A flat state dict that says everything but the place of the attention, which is
where the channels fit. Its epsilons are 1e-4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count, pairwise, takewhile

from torch import Tensor

from biggan.errors import InputError
from biggan.models import GeneratorConfig
from biggan.weights.foreign import (
    Converted,
    ForeignTensors,
    attention_by_channels,
    base_width,
    channel_first_linear,
    hub_grid,
    recorded_statistics,
)

_EPS = 1e-4
_GRID = hub_grid(50)


def is_known(source: ForeignTensors) -> bool:
    """Whether tensors are named as in this format."""
    return source.has_any("g_z.g_linear.") or source.has_any("gblock.")


def convert_generator(source: ForeignTensors) -> Converted[GeneratorConfig]:
    """Convert a generator.

    Raises:
        InputError: The tensors fit no network.
    """
    blocks = [
        _block_name(i) for i in takewhile(lambda i: source.has_any(f"{_block_name(i)}."), count())
    ]
    widths = _widths(source, blocks)
    rows = source.size(
        *((f"scaledcrossreplicabn.standing_{kind}", 2, 0) for kind in ("means", "vars"))
    )
    if rows != len(_GRID):
        raise InputError(f"{source.source} has BatchNorm statistics for {rows} truncations, not 50")
    config = _config(source, widths)

    classes, dim = config.num_classes, config.class_dim
    ours = {"class_embedding.table.weight": source.take("linear.weight", classes, dim)}
    ours |= _first_linear(source, 16 * widths[0], config.chunk_dim)
    for i, (name, (before, after)) in enumerate(zip(blocks, pairwise(widths), strict=True)):
        ours |= _block(source, name, f"blocks.{i}", before, after, config.condition_dim, rows)
    if config.attention_resolution:
        ours |= _attention(source, _attention_channels(source))
    ours |= _head(source, widths[-1], rows)
    # torch's own BatchNorm keeps these as well; sampling never reads them.
    source.leave(r".*bn\.(running_mean|running_var|num_batches_tracked)")
    source.finish()
    return Converted(config, ours, "ivclab's BigGAN-Generator-Pretrained-Pytorch", _GRID)


def _block_name(i: int) -> str:
    return f"gblock_{i}" if i else "gblock"


def _widths(source: ForeignTensors, blocks: Sequence[str]) -> list[int]:
    """Channels at 4x4 pixels, then after each block."""
    first = source.size(("gblock.conv0.weight_orig", 4, 1), ("gblock.conv_sc.weight_orig", 4, 1))
    made = (
        source.size(
            (f"{name}.conv0.weight_orig", 4, 0),
            (f"{name}.conv0.bias", 1, 0),
            (f"{name}.conv1.bias", 1, 0),
        )
        for name in blocks
    )
    return [first, *made]


def _attention_channels(source: ForeignTensors) -> int:
    inputs = ((f"attention.{name}.weight_orig", 4, 1) for name in ("theta", "phi", "g"))
    return source.size(*inputs, ("attention.o_conv.weight_orig", 4, 0))


def _config(source: ForeignTensors, widths: Sequence[int]) -> GeneratorConfig:
    channels, multiples = base_width(widths)
    num_classes, class_dim = source.shape("linear.weight", 2)
    attention = 0
    if source.has_any("attention."):
        attention = attention_by_channels(_attention_channels(source), widths, source.source)
    return GeneratorConfig(
        family="biggan",
        resolution=4 * 2 ** (len(widths) - 1),
        channels=channels,
        widths=multiples,
        z_dim=_chunk_dim(source, class_dim) * len(widths),
        num_classes=num_classes,
        attention_resolution=attention,
        class_dim=class_dim,
        bn_eps=_EPS,
        sn_eps=_EPS,
    )


def _chunk_dim(source: ForeignTensors, class_dim: int) -> int:
    name = "g_z.g_linear.weight_orig"
    if name in source:
        return source.shape(name, 2)[1]
    return source.size(("gblock.hyperbn.gamma.weight_orig", 2, 1)) - class_dim


def _first_linear(source: ForeignTensors, rows: int, columns: int) -> dict[str, Tensor]:
    state = _normalized(source, "g_z.g_linear", "linear", rows, columns)
    state["linear.bias"] = source.take("g_z.g_linear.bias", rows)
    return channel_first_linear(state)


def _block(
    source: ForeignTensors,
    theirs: str,
    ours: str,
    before: int,
    after: int,
    condition_dim: int,
    rows: int,
) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, to, channels in (("hyperbn", "bn1", before), ("hyperbn_1", "bn2", after)):
        norm = f"{theirs}.{name}"
        state |= _statistics(source, f"{norm}.crossreplicabn", f"{ours}.{to}", rows, channels)
        for part, part_to in (("gamma", "gain"), ("beta", "bias")):
            part_to = f"{ours}.{to}.{part_to}"
            state |= _normalized(source, f"{norm}.{part}", part_to, channels, condition_dim)
    for name, to, shape in (
        ("conv0", "conv1", (after, before, 3, 3)),
        ("conv1", "conv2", (after, after, 3, 3)),
        ("conv_sc", "shortcut", (after, before, 1, 1)),
    ):
        state |= _normalized(source, f"{theirs}.{name}", f"{ours}.{to}", *shape)
        state[f"{ours}.{to}.bias"] = source.take(f"{theirs}.{name}.bias", after)
    return state


def _attention(source: ForeignTensors, channels: int) -> dict[str, Tensor]:
    state = {"attention.gamma": source.take("attention.gamma", 1).reshape(())}
    for name in ("theta", "phi", "g"):
        out = channels // (2 if name == "g" else 8)
        state |= _normalized(source, f"attention.{name}", f"attention.{name}", out, channels, 1, 1)
    shape = (channels, channels // 2, 1, 1)
    return state | _normalized(source, "attention.o_conv", "attention.o", *shape)


def _head(source: ForeignTensors, channels: int, rows: int) -> dict[str, Tensor]:
    state = _statistics(source, "scaledcrossreplicabn", "head.bn", rows, channels)
    state["head.bn.gain"] = source.take("scaledcrossreplicabn.weight", channels)
    state["head.bn.bias"] = source.take("scaledcrossreplicabn.bias", channels)
    state |= _normalized(source, "conv_2d", "head.conv", 3, channels, 3, 3)
    state["head.conv.bias"] = source.take("conv_2d.bias", 3)
    return state


def _statistics(
    source: ForeignTensors, theirs: str, ours: str, rows: int, channels: int
) -> dict[str, Tensor]:
    means = source.take(f"{theirs}.standing_means", rows, channels)
    variances = source.take(f"{theirs}.standing_vars", rows, channels)
    return recorded_statistics(ours, means, variances)


def _normalized(source: ForeignTensors, theirs: str, ours: str, *shape: int) -> dict[str, Tensor]:
    """A spectrally normalized weight.

    Its `v` runs over a kernel's height, width and channels, as in TensorFlow; ours begins with the
    channels, as the kernel itself does.
    """
    v = source.take(f"{theirs}.weight_v", math.prod(shape[1:]))
    return {
        f"{ours}.weight": source.take(f"{theirs}.weight_orig", *shape),
        f"{ours}.u": source.take(f"{theirs}.weight_u", shape[0]),
        f"{ours}.v": v.reshape(-1, shape[1]).T.flatten(),
    }
