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

from torch import Tensor

from biggan.errors import InputError
from biggan.models import DiscriminatorConfig, GeneratorConfig
from biggan.weights.formats.conversion import (
    Converted,
    ForeignTensors,
    Stored,
    add_converged_vectors,
    base_width,
    generator_config,
    halvings,
    noise_first,
    renamed,
    take_network,
)

BN_EPS = 1e-5
"""Epsilon of BatchNorm in its training scripts."""

SN_EPS = 1e-6
"""Epsilon of spectral normalization in its training scripts."""

_MOST_STAGES = 7  # to 512 px
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


def matches(source: ForeignTensors) -> bool:
    """Whether tensors are named as in this format."""
    return source.has_any("blocks.0.0.")


def convert(source: ForeignTensors) -> Converted:
    """Convert a generator or a discriminator."""
    if source.has_any("shared_feat.", "linear_feat."):
        raise InputError(
            f"{source.path} is conditioned on features of images (IC-GAN), which is not supported; "
            "IC-GAN's class-conditional BigGAN is"
        )
    is_generator = source.has_any("output_layer.", "blocks.0.0.bn1.")
    config: GeneratorConfig | DiscriminatorConfig
    config, block, place = (_generator_config if is_generator else _discriminator_config)(source)
    is_deep = config.family == "biggan-deep"
    counters: dict[str, Tensor] = {}
    names = (
        (r"^blocks\.(\d+)\.", _in_pairs if is_deep and not is_generator else r"blocks.\1.0."),
        *_NAMES,
        (r"^attention\.", f"blocks.{block}.{place}."),
    )
    source.leave(_LOGGED)
    source.leave(r".*\.bn\.num_batches_tracked")

    def foreign_name(name: str) -> str:
        foreign = renamed(name, names)
        norm, _, statistic = foreign.rpartition(".running_")
        if not norm:
            return foreign
        # `--mybn` and `--cross_replica` have a layer within the layer.
        places = f"{norm}.bn.stored_{statistic}", f"{norm}.bn.running_{statistic}"
        return next((p for p in places if p in source), f"{norm}.stored_{statistic}")

    def stored(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Stored:
        shape = shapes[name]
        if name.endswith(".u"):
            return (1, *shape), lambda tensor: tensor.squeeze(0)
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

    tensors = take_network(source, config, foreign_name, stored)
    for name, counter in counters.items():
        # Above 0 after its accumulation of standing statistics, when these are sums.
        tensors[name] = tensors[name] / counter.clamp(min=1)
    if isinstance(config, GeneratorConfig):
        # Adding up to the same sum as in their software, whose last layer has its own epsilon.
        variance = tensors["head.bn.running_var"]
        tensors["head.bn.running_var"] = variance + (_HEAD_BN_EPS - config.bn_eps)
    add_converged_vectors(tensors, config.sn_eps)
    licence = "not established: the code that they come with is MIT"
    return Converted(config, tensors, "ajbrock's BigGAN-PyTorch", licence)


def _in_pairs(block: re.Match[str]) -> str:
    number = int(block[1])
    return f"blocks.{number // 2}.{number % 2}."


def _generator_config(source: ForeignTensors) -> tuple[GeneratorConfig, int, int]:
    """The network's shape; the block after which its attention is, and the place in its list."""
    deep = source.has_any("blocks.0.0.conv4.")
    widths = _generator_widths(source, deep=deep)
    norm = "blocks.0.0.bn1"
    shared = "shared.weight" in source or f"{norm}.gain.u0" in source or f"{norm}.bias.u0" in source
    gain = [
        source.size((f"{norm}.gain.weight", 2, i), (f"{norm}.bias.weight", 2, i)) for i in (0, 1)
    ]
    if shared:
        num_classes, class_dim = source.shape("shared.weight", 2)
        chunk = gain[1] - class_dim  # noise in the condition of a BatchNorm
    elif deep:
        raise InputError(
            f"{source.path} is a BigGAN-deep without a shared embedding: it has no forward pass "
            "even in the software that wrote it"
        )
    else:
        num_classes, class_dim, chunk = gain[0], GeneratorConfig.class_dim, 0
    if deep:  # the whole noise conditions every layer
        z_dim = chunk
    elif chunk:
        z_dim = chunk * len(widths)
    else:  # it goes into the first linear layer alone
        z_dim = source.shape("linear.weight", 2)[1]
    block = _attention_block(source, 1)
    stage = 0 if block is None else (block - 1) // 2 + 1 if deep else block + 1
    rgb = _outputs(source, "output_layer.2")
    config = generator_config(
        "biggan-deep" if deep else "biggan",
        widths,
        z_dim=z_dim,
        num_classes=num_classes,
        attention_resolution=4 * 2**stage if stage else 0,
        class_dim=class_dim,
        shared_embedding=shared,
        skip_z=chunk > 0,
        image_channels=1 if rgb == 1 else 3,
        rgb_channels=rgb if rgb > 3 else 0,
        bn_eps=source.epsilon("bn_eps", BN_EPS),
        sn_eps=source.epsilon("sn_eps", SN_EPS),
    )
    return config, 2 * stage - 1 if deep else stage - 1, 1


def _generator_widths(source: ForeignTensors, *, deep: bool) -> list[int]:
    """Channels at 4x4 pixels, then after each doubling of the resolution."""
    blocks = _num_blocks(source)
    first = _inputs(source, "blocks.0.0.conv1")
    if not deep:
        return [first, *(_outputs(source, f"blocks.{i}.0.conv2") for i in range(blocks))]
    made = [_outputs(source, f"blocks.{i}.0.conv4") for i in range(blocks)]
    # The first block of a stage keeps its channels. Its networks for 32 px alone, of three stages,
    # are of one width throughout.
    kept = [first, *made[1::2]]
    stages = 3 if set(kept) == {first} else min(len(kept) - 1, _MOST_STAGES)
    if made[::2] != kept[:-1] or blocks != 2 * stages:
        raise InputError(
            f"{source.path} does not have two blocks per resolution: it was trained with a "
            "--G_depth other than 2, which is not supported"
        )
    return kept


def _discriminator_config(source: ForeignTensors) -> tuple[DiscriminatorConfig, int, int]:
    """As `_generator_config`."""
    deep = source.has_any("input_conv.")
    blocks = _num_blocks(source)
    last = "0.conv4" if deep else "0.conv2"
    widths = [_outputs(source, f"blocks.{i}.{last}") for i in range(blocks)]
    image_channels = _inputs(source, "input_conv" if deep else "blocks.0.0.conv1")
    if deep:
        widths = [_outputs(source, "input_conv"), *widths]
    elif blocks > 1 and _outputs(source, "blocks.1.0.conv1") != widths[1]:
        raise InputError(
            f"{source.path} is a narrow discriminator, trained without D_wide: its first "
            "convolutions keep the channels of their input, which is not supported"
        )
    down, resolution = halvings(widths)
    place = 2 if deep else 1
    block = _attention_block(source, place)
    channels, multiples = base_width(widths)
    config = DiscriminatorConfig(
        family="biggan-deep" if deep else "biggan",
        resolution=resolution,
        channels=channels,
        widths=multiples,
        down_blocks=down,
        num_classes=source.size(("embed.weight", 2, 0), ("embed.u0", 2, 1)),
        attention_resolution=0 if block is None else resolution // 2 ** (block + 1),
        image_channels=image_channels,
        sn_eps=source.epsilon("sn_eps", SN_EPS),
    )
    return config, block or 0, place


def _outputs(source: ForeignTensors, convolution: str) -> int:
    places = ((f"{convolution}.weight", 4, 0), (f"{convolution}.bias", 1, 0))
    return source.size(*places, (f"{convolution}.u0", 2, 1))


def _inputs(source: ForeignTensors, convolution: str) -> int:
    """The channels that a convolution gets; if it is missing, those of the shortcut beside it."""
    beside = convolution.replace("conv1", "conv_sc")
    norm = convolution.replace("conv1", "bn1")
    return source.size(
        (f"{convolution}.weight", 4, 1),
        (f"{beside}.weight", 4, 1),
        (f"{norm}.stored_mean", 1, 0),
    )


def _num_blocks(source: ForeignTensors) -> int:
    return 1 + max(source.numbers(r"blocks\.(\d{1,3})\."), default=-1)


def _attention_block(source: ForeignTensors, place: int) -> int | None:
    """The block that attention follows; it stands at `place` in that block's list."""
    found = source.numbers(rf"blocks\.(\d{{1,3}})\.{place}\.(?:theta|phi|g|o|gamma)\b")
    if len(found) > 1:
        raise InputError(f"{source.path} has attention after blocks {found}: only one is supported")
    return found[0] if found else None
