"""Hugging Face's pytorch_pretrained_biggan: `pytorch_model.bin`, with `config.json` beside it.

DeepMind's BigGAN-deep, with BatchNorm statistics for 51 truncations. The tensors say all but the
epsilon and which blocks double the resolution. Both are in `config.json`; without it they are those
of the three published files: 1e-4, and every second block.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from biggan.errors import InputError, quoted
from biggan.models import GeneratorConfig
from biggan.weights.formats.conversion import (
    Converted,
    ForeignTensors,
    Stored,
    reorder_first_linear,
)
from biggan.weights.published import DEEPMIND_LICENCE

ORIGIN = "Hugging Face's pytorch_pretrained_biggan"
LICENCE = DEEPMIND_LICENCE
MARKS = ("generator.gen_z.", "generator.layers.")

_EPS = 1e-4
_CONFIG_BYTES = 1 << 20  # at most
_NAMES = (
    (r".*\.running_(mean|var)$", ""),
    (r"(?<!table)\.weight$", ".weight_orig"),
    (r"\.([uv])$", r".weight_\1"),
    (r"\.table_(mean|var)$", r".running_\1s"),
    (r"^class_embedding\.table\.", "embeddings."),
    (r"^linear\.", "generator.gen_z."),
    (r"^head\.bn\.gain$", "generator.bn.weight"),
    (r"^head\.bn\.", "generator.bn."),
    (r"^head\.conv\.", "generator.conv_to_rgb."),
    (r"\.gain\.", ".scale."),
    (r"\.bias\.", ".offset."),
    *((rf"\.(bn|conv){i + 1}\.", rf".\1_{i}.") for i in range(4)),
    (r"^attention\.o\.", "attention.o_conv."),
    (r"^attention\.(?!gamma)", "attention.snconv1x1_"),
)


def convert(source: ForeignTensors) -> Converted:
    """Convert a generator."""
    layers = source.listed_layers(_NAMES, "generator.layers.{}.", "(?:snconv|gamma)")
    norms = ("generator.bn", "generator.layers.0.bn_0")
    rows = source.size(
        *((f"{n}.running_{kind}", 2, 0) for n in norms for kind in ("means", "vars"))
    )
    if rows < 2:
        raise InputError(
            f"{source.path} has BatchNorm statistics for {rows} truncation, not from 0 to 1"
        )
    grid = tuple(round(i / (rows - 1), 6) for i in range(rows))
    settings = _read_settings(source.path)
    eps = settings.get("eps", _EPS)
    config = layers.generator_config(
        deep=True, embedding=source.shape("embeddings.weight", 2)[::-1], bn_eps=eps, sn_eps=eps
    )
    _check_settings(settings, source.path, config, layers.before_attention or None, rows)
    tensors = source.take_network(config, layers.foreign_name, _stored, grid)
    reorder_first_linear(tensors)
    return Converted(config, tensors, grid)


def _stored(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Stored:
    if name == "class_embedding.table.weight":
        return shapes[name][::-1], lambda tensor: tensor.T.contiguous()
    return shapes[name], None


def _check_settings(
    settings: Mapping[str, Any],
    path: Path,
    config: GeneratorConfig,
    attention: int | None,
    rows: int,
) -> None:
    """Make sure that a `config.json` is that of these tensors."""
    width = settings.get("channel_width")
    unit = width if type(width) is int and width > 0 else 1
    layers = [
        layer
        for before, after in pairwise(config.channels * wide / unit for wide in config.widths)
        for layer in ([False, before, before], [True, before, after])
    ]
    found = {
        "output_dim": config.resolution,
        "z_dim": config.z_dim,
        "class_embed_dim": config.class_dim,
        "num_classes": config.num_classes,
        "n_stats": rows,
        "attention_layer_position": attention,
        "layers": layers,
    }
    for name, value in found.items():
        if (said := settings.get(name, value)) != value:
            raise InputError(
                f"{path}: config.json says {name} {quoted(said)}, but the tensors are those "
                f"of {value}; use the config.json of these weights"
            )


def _read_settings(path: Path) -> dict[str, Any]:
    """The config.json beside a `pytorch_model.bin`; empty where there is none.

    Hugging Face published both with the model's name before theirs.
    """
    beside = path.with_name(path.name.replace("pytorch_model.bin", "config.json"))
    for file in (beside, path.with_name("config.json")):
        if file != path and file.is_file():
            try:
                with file.open("rb") as opened:
                    text = opened.read(_CONFIG_BYTES + 1)
                settings = json.loads(text) if len(text) <= _CONFIG_BYTES else None
            except (OSError, ValueError, RecursionError):
                settings = None
            if not isinstance(settings, dict):
                raise InputError(f"{file}, beside {path.name}, is not a JSON object")
            return settings
    return {}
