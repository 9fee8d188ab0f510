"""ajbrock/BigGAN-PyTorch: `G_ema.pth`, `G.pth` and `D.pth`, of its BigGAN and its BigGAN-deep.

Also the class-conditional BigGANs of facebookresearch/ic_gan, which is based on it.

State dicts of networks of any size: with a shared class embedding or a table per layer, with
hierarchical noise or without. The tensors say all but the epsilons, and, of a discriminator, which
blocks halve the resolution: for these the defaults of its training scripts and its table of
architectures are taken.

Where this differs from ours: the class comes first in every condition, but for the later version of
its BigGAN-deep, which is known by the 128 channels of its last convolution; spectral normalization
stores `u` alone, as a row; the deep blocks of one stage of a discriminator share an index.

One self-attention can be built here, two blocks to a stage (`--G_depth 2`, the default), and only a
wide discriminator (`--D_wide`, the default).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from torch import Tensor

from biggan.errors import InputError
from biggan.models import DiscriminatorConfig, GeneratorConfig
from biggan.weights.formats.conversion import (
    Converted,
    ForeignTensors,
    Layers,
    Stored,
    add_converged_vectors,
    noise_first,
    renamed,
)

ORIGIN = "ajbrock's BigGAN-PyTorch"
LICENCE = "not established: the code that they come with is MIT"
MARKS = ("blocks.0.0.",)

# Epsilons of its training scripts.
_BN_EPS = 1e-5
_SN_EPS = 1e-6
_HEAD_BN_EPS = 1e-5  # of the last BatchNorm, which does not get the script's --BN_eps
_CONDITIONAL = (".gain.weight", ".bias.weight")  # their input is a condition, of class and noise
# Singular vectors after the first, and singular values, are kept for its logs alone.
_LOGGED = r".*\.(u[1-9]\d*|sv\d+)"
_NAMES = (
    (r".*\.(v|table_mean|table_var)$", ""),
    (r"\.u$", ".u0"),
    (r"^class_embedding\.table\.", "shared."),
    (r"\.(shortcut|widening)\.", ".conv_sc."),
    (r"^head\.bn\.", "output_layer.0."),
    (r"^head\.conv\.", "output_layer.2."),
    (r"^stem\.", "input_conv."),
    (r"^head\.linear\.", "linear."),
    (r"^head\.embedding\.", "embed."),
)


def convert(source: ForeignTensors) -> Converted:
    """Convert a generator or a discriminator."""
    if source.has_any("shared_feat.", "linear_feat."):
        raise InputError(
            f"{source.path} is conditioned on features of images (IC-GAN), which is not supported; "
            "IC-GAN's class-conditional BigGAN is"
        )
    is_generator = source.has_any("output_layer.", "blocks.0.0.bn1.")
    is_deep = source.has_any("blocks.0.0.conv4.")
    stages = 1 + max(source.numbers(r"blocks\.(\d{1,3})\."), default=-1)
    in_pairs = is_deep and not is_generator
    place = 2 if in_pairs else 1
    block = source.attention_place(rf"blocks\.(\d{{1,3}})\.{place}\.(?:theta|phi|g|o|gamma)\b")
    names = (
        (r"^blocks\.(\d+)\.", _in_pairs if in_pairs else r"blocks.\1.0."),
        *_NAMES,
        (r"^attention\.", f"blocks.{block}.{place}."),
    )
    before = 0 if block is None else block + 1
    counts = (2 * stages, 2 * before) if in_pairs else (stages, before)
    layers = Layers(source, partial(renamed, names=names), *counts)
    find_config = _generator_config if is_generator else _discriminator_config
    config = find_config(layers, deep=is_deep)
    counters: dict[str, Tensor] = {}
    source.leave(_LOGGED)
    source.leave(r".*\.bn\.num_batches_tracked")

    def foreign_name(name: str) -> str:
        foreign = layers.foreign_name(name)
        norm, _, statistic = foreign.rpartition(".running_")
        if not norm:
            return foreign
        # `--mybn` and `--cross_replica` have a layer within the layer.
        places = f"{norm}.bn.stored_{statistic}", f"{norm}.bn.running_{statistic}"
        return next((p for p in places if p in source), f"{norm}.stored_{statistic}")

    def stored(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Stored:
        shape = shapes[name]
        is_conditional = name.endswith(_CONDITIONAL)
        if is_conditional and name.replace("weight", "u") not in shapes:
            return shape[::-1], lambda tensor: tensor.T.contiguous()  # a row for each class
        if name.endswith((".running_mean", ".running_var")):
            norm, _, statistic = foreign_name(name).rpartition(".")
            if statistic.startswith("stored_") and norm.endswith(".bn"):
                counters[name] = source.take(f"{norm}.accumulation_counter", 1)
        class_first = is_generator and not config.rgb_channels  # type: ignore[union-attr]
        if class_first and (is_conditional or (name == "linear.weight" and is_deep)):
            return shape, lambda tensor: noise_first(tensor, config.class_dim)  # type: ignore[union-attr]
        return shape, None

    tensors = source.take_network(config, foreign_name, stored)
    for name, counter in counters.items():
        # Above 0 after its accumulation of standing statistics, when these are sums.
        tensors[name] = tensors[name] / counter.clamp(min=1)
    if isinstance(config, GeneratorConfig):
        # Adding up to the same sum as in their software, whose last layer has its own epsilon.
        variance = tensors["head.bn.running_var"]
        tensors["head.bn.running_var"] = variance + (_HEAD_BN_EPS - config.bn_eps)
    add_converged_vectors(tensors, config.sn_eps)
    return Converted(config, tensors)


def _in_pairs(block: re.Match[str]) -> str:
    number = int(block[1])
    return f"blocks.{number // 2}.{number % 2}."


def _generator_config(layers: Layers, *, deep: bool) -> GeneratorConfig:
    source, norm = layers.source, "blocks.0.0.bn1"
    tables = 0
    if not any(name in source for name in ("shared.weight", f"{norm}.gain.u0", f"{norm}.bias.u0")):
        if deep:
            raise InputError(
                f"{source.path} is a BigGAN-deep without a shared embedding: it has no forward "
                "pass even in the software that wrote it"
            )
        tables = source.size((f"{norm}.gain.weight", 2, 0), (f"{norm}.bias.weight", 2, 0))
    return layers.generator_config(
        deep=deep,
        embedding=() if tables else source.shape("shared.weight", 2),
        tables=tables,
        bn_eps=source.epsilon("bn_eps", _BN_EPS),
        sn_eps=source.epsilon("sn_eps", _SN_EPS),
    )


def _discriminator_config(layers: Layers, *, deep: bool) -> DiscriminatorConfig:
    source = layers.source
    if not deep and layers.blocks > 1:
        widths = [layers.outputs(f"blocks.1.conv{i}") for i in (1, 2)]
        if widths[0] != widths[1]:
            raise InputError(
                f"{source.path} is a narrow discriminator, trained without D_wide: its first "
                "convolutions keep the channels of their input, which is not supported"
            )
    return layers.discriminator_config(deep=deep, sn_eps=source.epsilon("sn_eps", _SN_EPS))
