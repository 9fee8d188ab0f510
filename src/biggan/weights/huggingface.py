"""Hugging Face's pytorch_pretrained_biggan: `pytorch_model.bin`, with `config.json` beside it.

DeepMind's BigGAN-deep, with BatchNorm statistics for 51 truncations. The tensors say all but the
epsilon and which blocks double the resolution. Both are in `config.json`; without it they are those
of the three published files: 1e-4, and every second block.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from biggan.errors import InputError, quoted
from biggan.models import GeneratorConfig
from biggan.weights.foreign import (
    Converted,
    ForeignTensors,
    base_width,
    channel_first_linear,
    recorded_statistics,
)

_EPS = 1e-4


def is_known(source: ForeignTensors) -> bool:
    """Whether tensors are named as in this format."""
    return source.has_any("generator.gen_z.") or source.has_any("generator.layers.")


def convert_generator(
    source: ForeignTensors, settings: Mapping[str, Any]
) -> Converted[GeneratorConfig]:
    """Convert a generator.

    Args:
        source: The tensors of `pytorch_model.bin`.
        settings: What `config.json` says; empty where there is none.

    Raises:
        InputError: The tensors fit no network, or do not fit the settings.
    """
    attention = _attention_layer(source)
    blocks = [layer for layer in range(_num_layers(source)) if layer != attention]
    widths = _widths(source, blocks)
    rows = source.size(
        *(
            (f"{norm}.running_{kind}", 2, 0)
            for norm in ("generator.bn", "generator.layers.0.bn_0")
            for kind in ("means", "vars")
        )
    )
    grid = _grid(source.source, rows)
    config = _config(source, widths, attention, settings)
    _check_settings(source.source, settings, config, widths, attention, rows)

    embedding = source.take("embeddings.weight", config.class_dim, config.num_classes)
    ours = {"class_embedding.table.weight": embedding.T.contiguous()}
    ours |= _first_linear(source, 16 * widths[0], config.condition_dim)
    for stage, (before, after) in enumerate(pairwise(widths)):
        for i, out in ((2 * stage, before), (2 * stage + 1, after)):
            name = f"generator.layers.{blocks[i]}"
            ours |= _block(source, name, f"blocks.{i}", before, out, config.condition_dim, rows)
    if attention is not None:
        ours |= _attention(source, f"generator.layers.{attention}", widths[attention // 2])
    ours |= _head(source, widths[-1], config.rgb_channels, rows)
    source.finish()
    return Converted(config, ours, "Hugging Face's pytorch_pretrained_biggan", grid)


def _grid(source: str, rows: int) -> tuple[float, ...]:
    """The truncations of a table: evenly spaced from 0 to 1; the published ones have 51."""
    if rows < 2:
        raise InputError(
            f"{source} has BatchNorm statistics for {rows} truncation, not from 0 to 1"
        )
    return tuple(round(i / (rows - 1), 6) for i in range(rows))


def _num_layers(source: ForeignTensors) -> int:
    found = (re.match(r"generator\.layers\.(\d{1,3})\.", name) for name in source)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _attention_layer(source: ForeignTensors) -> int | None:
    found = (re.match(r"generator\.layers\.(\d{1,3})\.(snconv|gamma)", name) for name in source)
    layers = {int(match[1]) for match in found if match}
    if len(layers) > 1 or any(layer % 2 or layer == 0 for layer in layers):
        raise InputError(
            f"{source.source} has attention at layers {sorted(layers)}: only one, after a block "
            "that doubles the resolution, can be built"
        )
    return next(iter(layers), None)


def _widths(source: ForeignTensors, blocks: Sequence[int]) -> list[int]:
    """Channels at 4x4 pixels, then after each doubling of the resolution."""
    if len(blocks) % 2 or not blocks:
        raise InputError(f"{source.source} has {len(blocks)} blocks, not two for each resolution")
    into = f"generator.layers.{blocks[0]}"
    first = source.size((f"{into}.bn_0.running_means", 2, 1), (f"{into}.conv_0.weight_orig", 4, 1))
    made = [
        source.size((f"{name}.weight_orig", 4, 0), (f"{name}.bias", 1, 0))
        for name in (f"generator.layers.{layer}.conv_3" for layer in blocks[1::2])
    ]
    return [first, *made]


def _config(
    source: ForeignTensors,
    widths: Sequence[int],
    attention: int | None,
    settings: Mapping[str, Any],
) -> GeneratorConfig:
    channels, multiples = base_width(widths)
    class_dim, num_classes = source.shape("embeddings.weight", 2)
    condition_dim = source.size(
        ("generator.gen_z.weight_orig", 2, 1),
        ("generator.layers.0.bn_0.scale.weight_orig", 2, 1),
    )
    eps = settings.get("eps", _EPS)
    return GeneratorConfig(
        family="biggan-deep",
        resolution=4 * 2 ** (len(widths) - 1),
        channels=channels,
        widths=multiples,
        z_dim=condition_dim - class_dim,
        num_classes=num_classes,
        attention_resolution=0 if attention is None else 4 * 2 ** (attention // 2),
        class_dim=class_dim,
        rgb_channels=source.size(
            ("generator.conv_to_rgb.weight_orig", 4, 0), ("generator.conv_to_rgb.bias", 1, 0)
        ),
        bn_eps=eps,
        sn_eps=eps,
    )


def _check_settings(
    source: str,
    settings: Mapping[str, Any],
    config: GeneratorConfig,
    widths: Sequence[int],
    attention: int | None,
    rows: int,
) -> None:
    """Refuse a `config.json` of other weights, or of a network that is not built so."""
    layers = [
        layer
        for before, after in pairwise(widths)
        for layer in ([False, before, before], [True, before, after])
    ]
    made = {
        "output_dim": config.resolution,
        "z_dim": config.z_dim,
        "class_embed_dim": config.class_dim,
        "num_classes": config.num_classes,
        "n_stats": rows,
        "attention_layer_position": attention,
        "layers": layers,
    }
    for name, value in made.items():
        said = settings.get(name, value)
        if name == "layers" and said is not value:
            said = _in_channels(said, settings.get("channel_width"))
        if said != value:
            raise InputError(
                f"{source}: config.json says {name} {quoted(said)}, but the tensors are those "
                f"of {value}; give the config.json that came with them"
            )


def _in_channels(layers: Any, channel_width: Any) -> Any:
    try:
        rows = [[up, before, out] for up, before, out in layers]
    except (TypeError, ValueError):
        return layers
    if not all(
        type(number) is int for number in (channel_width, *(n for r in rows for n in r[1:]))
    ):
        return layers
    return [[up, channel_width * before, channel_width * out] for up, before, out in rows]


def _first_linear(source: ForeignTensors, rows: int, columns: int) -> dict[str, Tensor]:
    state = _normalized(source, "generator.gen_z", "linear", rows, columns)
    state["linear.bias"] = source.take("generator.gen_z.bias", rows)
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
    hidden = before // 4
    shapes = [
        (hidden, before, 1, 1),
        (hidden, hidden, 3, 3),
        (hidden, hidden, 3, 3),
        (after, hidden, 1, 1),
    ]
    state: dict[str, Tensor] = {}
    for i, shape in enumerate(shapes):
        norm, channels = f"{theirs}.bn_{i}", shape[1]
        state |= _statistics(source, norm, f"{ours}.bn{i + 1}", rows, channels)
        for name, part in (("gain", "scale"), ("bias", "offset")):
            to = f"{ours}.bn{i + 1}.{name}"
            state |= _normalized(source, f"{norm}.{part}", to, channels, condition_dim)
        conv = f"{theirs}.conv_{i}"
        state |= _normalized(source, conv, f"{ours}.conv{i + 1}", *shape)
        state[f"{ours}.conv{i + 1}.bias"] = source.take(f"{conv}.bias", shape[0])
    return state


def _attention(source: ForeignTensors, theirs: str, channels: int) -> dict[str, Tensor]:
    state = {"attention.gamma": source.take(f"{theirs}.gamma", 1).reshape(())}
    for name in ("theta", "phi", "g"):
        out = channels // (2 if name == "g" else 8)
        part = f"{theirs}.snconv1x1_{name}"
        state |= _normalized(source, part, f"attention.{name}", out, channels, 1, 1)
    part = f"{theirs}.snconv1x1_o_conv"
    return state | _normalized(source, part, "attention.o", channels, channels // 2, 1, 1)


def _head(source: ForeignTensors, channels: int, rgb_channels: int, rows: int) -> dict[str, Tensor]:
    state = _statistics(source, "generator.bn", "head.bn", rows, channels)
    state["head.bn.gain"] = source.take("generator.bn.weight", channels)
    state["head.bn.bias"] = source.take("generator.bn.bias", channels)
    rgb = "generator.conv_to_rgb"
    state |= _normalized(source, rgb, "head.conv", rgb_channels, channels, 3, 3)
    state["head.conv.bias"] = source.take(f"{rgb}.bias", rgb_channels)
    return state


def _statistics(
    source: ForeignTensors, theirs: str, ours: str, rows: int, channels: int
) -> dict[str, Tensor]:
    means = source.take(f"{theirs}.running_means", rows, channels)
    variances = source.take(f"{theirs}.running_vars", rows, channels)
    return recorded_statistics(ours, means, variances)


def _normalized(source: ForeignTensors, theirs: str, ours: str, *shape: int) -> dict[str, Tensor]:
    """A spectrally normalized weight, with both vectors as torch itself keeps them."""
    return {
        f"{ours}.weight": source.take(f"{theirs}.weight_orig", *shape),
        f"{ours}.u": source.take(f"{theirs}.weight_u", shape[0]),
        f"{ours}.v": source.take(f"{theirs}.weight_v", math.prod(shape[1:])),
    }
