"""ivclab's BigGAN-Generator-Pretrained-Pytorch: `biggan{128,256,512}-release.pt`.

DeepMind's original BigGAN, from the second version of its TF Hub modules, with BatchNorm statistics
for 50 truncations. A flat state dict that says everything but the place of the attention, which is
where the channels fit. Its epsilons are 1e-4.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count, takewhile

from biggan.errors import InputError
from biggan.models import GeneratorConfig
from biggan.weights.formats.conversion import (
    Converted,
    ForeignTensors,
    Stored,
    attention_by_channels,
    channels_first,
    generator_config,
    renamed,
    reorder_first_linear,
    take_network,
)
from biggan.weights.networks import hub_grid
from biggan.weights.published import DEEPMIND_LICENCE

_EPS = 1e-4
_GRID = hub_grid(50)
_NAMES = (
    (r".*\.running_(mean|var)$", ""),
    (r"(?<!table)\.weight$", ".weight_orig"),
    (r"\.([uv])$", r".weight_\1"),
    (r"^linear\.", "g_z.g_linear."),
    (r"^class_embedding\.table\.", "linear."),
    (r"^blocks\.0\.", "gblock."),
    (r"^blocks\.(\d+)\.", r"gblock_\1."),
    (r"\.bn1\.", ".hyperbn."),
    (r"\.bn2\.", ".hyperbn_1."),
    (r"\.gain\.", ".gamma."),
    (r"\.bias\.", ".beta."),
    (r"(hyperbn\w*)\.table_", r"\1.crossreplicabn.table_"),
    (r"\.table_(mean|var)$", r".standing_\1s"),
    (r"\.conv1\.", ".conv0."),
    (r"\.conv2\.", ".conv1."),
    (r"\.shortcut\.", ".conv_sc."),
    (r"^attention\.o\.", "attention.o_conv."),
    (r"^head\.bn\.gain$", "scaledcrossreplicabn.weight"),
    (r"^head\.bn\.", "scaledcrossreplicabn."),
    (r"^head\.conv\.", "conv_2d."),
)


def matches(source: ForeignTensors) -> bool:
    """Whether tensors are named as in this format."""
    return source.has_any("g_z.g_linear.", "gblock.")


def convert(source: ForeignTensors) -> Converted:
    """Convert a generator."""
    norm = "scaledcrossreplicabn"
    rows = source.size((f"{norm}.standing_means", 2, 0), (f"{norm}.standing_vars", 2, 0))
    if rows != len(_GRID):
        raise InputError(f"{source.path} has BatchNorm statistics for {rows} truncations, not 50")
    # torch's own BatchNorm keeps these as well; sampling never reads them.
    source.leave(r".*bn\.(running_mean|running_var|num_batches_tracked)")
    config = _config(source)
    tensors = take_network(source, config, lambda name: renamed(name, _NAMES), _stored, _GRID)
    reorder_first_linear(tensors)
    origin = "ivclab's BigGAN-Generator-Pretrained-Pytorch"
    return Converted(config, tensors, origin, DEEPMIND_LICENCE, _GRID)


def _stored(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Stored:
    if name == "attention.gamma":
        return (1,), lambda tensor: tensor.reshape(())
    if name.endswith(".v"):
        in_channels = shapes[f"{name.removesuffix('v')}weight"][1]
        return shapes[name], lambda tensor: channels_first(tensor, in_channels)
    return shapes[name], None


def _config(source: ForeignTensors) -> GeneratorConfig:
    names = (f"gblock_{i}" if i else "gblock" for i in count())
    blocks = takewhile(lambda name: source.has_any(f"{name}."), names)
    conv, shortcut = "gblock.conv0.weight_orig", "gblock.conv_sc.weight_orig"
    widths = [source.size((conv, 4, 1), (shortcut, 4, 1))]
    for name in blocks:
        biases = (f"{name}.conv0.bias", 1, 0), (f"{name}.conv1.bias", 1, 0)
        widths.append(source.size((f"{name}.conv0.weight_orig", 4, 0), *biases))
    num_classes, class_dim = source.shape("linear.weight", 2)
    attention = 0
    if source.has_any("attention."):
        inputs = ((f"attention.{name}.weight_orig", 4, 1) for name in ("theta", "phi", "g"))
        inner = source.size(*inputs, ("attention.o_conv.weight_orig", 4, 0))
        attention = attention_by_channels(inner, widths, source.path)
    if "g_z.g_linear.weight_orig" in source:
        chunk_dim = source.shape("g_z.g_linear.weight_orig", 2)[1]
    else:
        chunk_dim = source.size(("gblock.hyperbn.gamma.weight_orig", 2, 1)) - class_dim
    return generator_config(
        "biggan",
        widths,
        z_dim=chunk_dim * len(widths),
        num_classes=num_classes,
        attention_resolution=attention,
        class_dim=class_dim,
        bn_eps=_EPS,
        sn_eps=_EPS,
    )
