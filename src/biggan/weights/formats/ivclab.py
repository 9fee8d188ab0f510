"""ivclab's BigGAN-Generator-Pretrained-Pytorch: `biggan{128,256,512}-release.pt`.

DeepMind's original BigGAN, from the second version of its TF Hub modules, with BatchNorm statistics
for 50 truncations. A flat state dict that says everything but the place of the attention, which is
where the channels fit. Its epsilons are 1e-4.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from biggan.errors import InputError
from biggan.models import hub_grid
from biggan.weights.formats.conversion import (
    Converted,
    ForeignTensors,
    Layers,
    Stored,
    channels_first,
    renamed,
    reorder_first_linear,
)
from biggan.weights.published import DEEPMIND_LICENCE

ORIGIN = "ivclab's BigGAN-Generator-Pretrained-Pytorch"
LICENCE = DEEPMIND_LICENCE
MARKS = ("g_z.g_linear.", "gblock.")

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


def convert(source: ForeignTensors) -> Converted:
    """Convert a generator."""
    norm = "scaledcrossreplicabn"
    rows = source.size((f"{norm}.standing_means", 2, 0), (f"{norm}.standing_vars", 2, 0))
    if rows != len(_GRID):
        raise InputError(f"{source.path} has BatchNorm statistics for {rows} truncations, not 50")
    # torch's own BatchNorm keeps these as well; sampling never reads them.
    source.leave(r".*bn\.(running_mean|running_var|num_batches_tracked)")
    foreign_name = partial(renamed, names=_NAMES)
    blocks = 1 + max(source.numbers(r"gblock_(\d{1,3})\."), default=0)
    layers = Layers(source, foreign_name, blocks, None)
    config = layers.generator_config(
        deep=False, embedding=source.shape("linear.weight", 2), bn_eps=_EPS, sn_eps=_EPS
    )

    def stored(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Stored:
        return channels_first(name, shapes) if name.endswith(".v") else (shapes[name], None)

    tensors = source.take_network(config, foreign_name, stored, _GRID)
    reorder_first_linear(tensors)
    return Converted(config, tensors, _GRID)
