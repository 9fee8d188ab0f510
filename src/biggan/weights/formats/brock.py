"""ajbrock/BigGAN-PyTorch: `G_ema.pth`, `G.pth` and `D.pth`, of its BigGAN and its BigGAN-deep.

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
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from biggan.errors import InputError
from biggan.models import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from biggan.weights.formats.conversion import (
    Converted,
    ForeignTensors,
    Layout,
    add_converged_vectors,
    add_other_statistics,
    base_width,
)
from biggan.weights.networks import empty_network

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
    """Convert a generator or a discriminator.

    Raises:
        InputError: The tensors fit no network.
    """
    is_generator = source.has_any("output_layer.") or source.has_any("blocks.0.0.bn1.")
    config, block, place = (_generator_config if is_generator else _discriminator_config)(source)
    names = (*_NAMES, (r"^attention\.", f"blocks.{block}.{place}."))
    tensors = _Layout(empty_network(config), names, source).take_all(source)
    add_other_statistics(tensors)
    add_converged_vectors(tensors, config.sn_eps)
    source.leave(_LOGGED)
    source.leave(r".*\.bn\.num_batches_tracked")
    source.finish()
    licence = "not established: the code that they come with is MIT"
    return Converted(config, tensors, "ajbrock's BigGAN-PyTorch", licence)


class _Layout(Layout):
    def __init__(
        self,
        network: Generator | Discriminator,
        names: Sequence[tuple[str, str]],
        source: ForeignTensors,
    ) -> None:
        config = network.config
        two_to_an_index = config.family == "biggan-deep" and isinstance(config, DiscriminatorConfig)

        def block(match: re.Match[str]) -> str:
            number = int(match[1])
            return f"blocks.{number // 2}.{number % 2}." if two_to_an_index else f"{match[0]}0."

        super().__init__(network, ((r"^blocks\.(\d+)\.", block), *names))
        self._config: Any = config
        self._source = source

    def foreign_name(self, name: str) -> str:
        foreign = super().foreign_name(name)
        norm, _, statistic = foreign.rpartition(".running_")
        if not norm:
            return foreign
        # `--mybn` and `--cross_replica` have a layer within the layer.
        places = f"{norm}.bn.stored_{statistic}", f"{norm}.bn.running_{statistic}"
        found = (place for place in places if place in self._source)
        return next(found, f"{norm}.stored_{statistic}")

    def foreign_shape(self, name: str) -> tuple[int, ...]:
        shape = self.shapes[name]
        if name.endswith(".u"):
            return (1, *shape)
        return shape[::-1] if self._is_table(name) else shape

    def to_ours(self, name: str, tensor: Tensor) -> Tensor:
        config = self._config
        if name.endswith(".u"):
            return tensor.squeeze(0)
        if self._is_table(name):
            return tensor.T.contiguous()
        if name.endswith((".running_mean", ".running_var")):
            norm, _, statistic = self.foreign_name(name).rpartition(".")
            counter = f"{norm}.accumulation_counter"
            if statistic.startswith("stored_") and norm.endswith(".bn"):
                # Above 0 after its accumulation of standing statistics, when these are sums.
                tensor = tensor / self._source.take(counter, 1).clamp(min=1)
        if name == "head.bn.running_var":
            # Adding up to the same sum as in their software, whose last layer has its own epsilon.
            return tensor + (_HEAD_BN_EPS - config.bn_eps)
        deep_linear = config.family == "biggan-deep" and name == "linear.weight"
        if (deep_linear or name.endswith(_CONDITIONAL)) and not config.rgb_channels:
            class_dim = config.class_dim
            return torch.cat([tensor[:, class_dim:], tensor[:, :class_dim]], dim=1)
        return tensor

    def _is_table(self, name: str) -> bool:
        """Whether a weight is a BatchNorm's table of one row per class."""
        return name.endswith(_CONDITIONAL) and name.replace("weight", "u") not in self.shapes


def _generator_config(source: ForeignTensors) -> tuple[GeneratorConfig, int, int]:
    """The network's shape; the block after which its attention is, and the place in its list."""
    deep = source.has_any("blocks.0.0.conv4.")
    widths = _generator_widths(source, deep=deep)
    channels, multiples = base_width(widths)
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
    config = GeneratorConfig(
        family="biggan-deep" if deep else "biggan",
        resolution=4 * 2 ** (len(widths) - 1),
        channels=channels,
        widths=multiples,
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
            f"{source.path} has not two blocks for each resolution: it was trained with another "
            "--G_depth than 2, which cannot be built here"
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
            "convolutions keep the channels of their input, and no network here does"
        )
    # Its networks halve down to 4x4 pixels, the last block (of BigGAN) keeping them; but those of
    # one width throughout, for 32 px, halve twice.
    small = min(widths) == max(widths)
    down = 2 if small else blocks - (not deep)
    resolution = (8 if small else 4) * 2**down
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
        raise InputError(
            f"{source.path} has attention after blocks {found}: only one can be built here"
        )
    return found[0] if found else None
