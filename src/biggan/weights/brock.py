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

import math
import re
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from biggan.errors import InputError
from biggan.models import DiscriminatorConfig, GeneratorConfig
from biggan.weights.foreign import Converted, ForeignTensors, base_width, converged_vectors

BN_EPS = 1e-5
"""Epsilon of BatchNorm in its training scripts."""

SN_EPS = 1e-6
"""Epsilon of spectral normalization in its training scripts."""

_ORIGIN = "ajbrock's BigGAN-PyTorch"
_MOST_STAGES = 7  # to 512 px
_HEAD_BN_EPS = 1e-5  # of the last BatchNorm, which does not get the script's --BN_eps
# Singular vectors after the first, and singular values, are kept for its logs alone.
_LOGGED = r".*\.(u[1-9]\d*|sv\d+)"


def is_known(source: ForeignTensors) -> bool:
    """Whether tensors are named as in this format."""
    return source.has_any("blocks.0.0.")


def is_discriminator(source: ForeignTensors) -> bool:
    """Whether these are a discriminator's tensors; otherwise they are a generator's."""
    return not (source.has_any("output_layer.") or source.has_any("blocks.0.0.bn1."))


# --- the generator ---


def convert_generator(
    source: ForeignTensors, *, bn_eps: float = BN_EPS, sn_eps: float = SN_EPS
) -> Converted[GeneratorConfig]:
    """Convert a generator.

    Args:
        source: The tensors of `G_ema.pth` or `G.pth`.
        bn_eps: The `--BN_eps` of the training; the file does not say it.
        sn_eps: Its `--SN_eps`, likewise.

    Raises:
        InputError: The tensors fit no network.
    """
    deep = source.has_any("blocks.0.0.conv4.")
    widths = _generator_widths(source, deep=deep)
    config = _generator_config(source, widths, deep=deep, bn_eps=bn_eps, sn_eps=sn_eps)
    reader = _LayerReader(source, sn_eps)

    ours: dict[str, Tensor] = {}
    if config.shared_embedding:
        table = source.take("shared.weight", config.num_classes, config.class_dim)
        ours["class_embedding.table.weight"] = table
    columns = config.condition_dim if deep else config.chunk_dim
    ours |= reader.linear("linear", "linear", (16 * widths[0], columns), config if deep else None)
    for i, (before, after) in enumerate(pairwise(widths)):
        if deep:
            for j, out in ((2 * i, before), (2 * i + 1, after)):
                ours |= _deep_generator_block(reader, config, j, before, out)
        else:
            ours |= _generator_block(reader, config, i, before, after)
    if config.attention_resolution:
        stage = int(math.log2(config.attention_resolution // 4))  # 1 reaches 8 pixels
        block = 2 * stage - 1 if deep else stage - 1
        ours |= reader.attention(f"blocks.{block}.1", widths[stage])
    ours |= _generator_head(reader, config, widths[-1])
    source.leave(_LOGGED)
    source.finish()
    return Converted(config, ours, _ORIGIN)


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
            f"{source.source} has not two blocks for each resolution: it was trained with another "
            "--G_depth than 2, which cannot be built here"
        )
    return kept


def _generator_config(
    source: ForeignTensors, widths: Sequence[int], *, deep: bool, bn_eps: float, sn_eps: float
) -> GeneratorConfig:
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
            f"{source.source} is a BigGAN-deep without a shared embedding: it has no forward pass "
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
    attention = _attention_block(source, 1)
    if attention is not None and deep:
        attention = (attention - 1) // 2
    rgb = _outputs(source, "output_layer.2")
    return GeneratorConfig(
        family="biggan-deep" if deep else "biggan",
        resolution=4 * 2 ** (len(widths) - 1),
        channels=channels,
        widths=multiples,
        z_dim=z_dim,
        num_classes=num_classes,
        attention_resolution=0 if attention is None else 8 * 2**attention,
        class_dim=class_dim,
        shared_embedding=shared,
        skip_z=chunk > 0,
        image_channels=1 if rgb == 1 else 3,
        rgb_channels=rgb if rgb > 3 else 0,
        bn_eps=bn_eps,
        sn_eps=sn_eps,
    )


def _generator_block(
    reader: _LayerReader, config: GeneratorConfig, i: int, before: int, after: int
) -> dict[str, Tensor]:
    theirs, ours = f"blocks.{i}.0", f"blocks.{i}"
    state = reader.conditional_norm(f"{theirs}.bn1", f"{ours}.bn1", before, config)
    state |= reader.conditional_norm(f"{theirs}.bn2", f"{ours}.bn2", after, config)
    state |= reader.convolution(f"{theirs}.conv1", f"{ours}.conv1", after, before, 3)
    state |= reader.convolution(f"{theirs}.conv2", f"{ours}.conv2", after, after, 3)
    return state | reader.convolution(f"{theirs}.conv_sc", f"{ours}.shortcut", after, before, 1)


def _deep_generator_block(
    reader: _LayerReader, config: GeneratorConfig, i: int, before: int, after: int
) -> dict[str, Tensor]:
    theirs, ours, hidden = f"blocks.{i}.0", f"blocks.{i}", before // 4
    state: dict[str, Tensor] = {}
    for j, channels in enumerate((before, hidden, hidden, hidden), start=1):
        state |= reader.conditional_norm(f"{theirs}.bn{j}", f"{ours}.bn{j}", channels, config)
    return state | reader.bottleneck(theirs, ours, before, hidden, after)


def _generator_head(
    reader: _LayerReader, config: GeneratorConfig, channels: int
) -> dict[str, Tensor]:
    source = reader.source
    state = reader.statistics("output_layer.0", "head.bn", channels)
    # Adding up to the same sum as in their software, whose last layer has an epsilon of its own.
    state["head.bn.running_var"] = state["head.bn.running_var"] + (_HEAD_BN_EPS - config.bn_eps)
    for name in ("gain", "bias"):
        state[f"head.bn.{name}"] = source.take(f"output_layer.0.{name}", channels)
    rgb = config.rgb_channels or config.image_channels
    return state | reader.convolution("output_layer.2", "head.conv", rgb, channels, 3)


# --- the discriminator ---


def convert_discriminator(
    source: ForeignTensors, *, sn_eps: float = SN_EPS
) -> Converted[DiscriminatorConfig]:
    """Convert a discriminator.

    Args:
        source: The tensors of `D.pth`.
        sn_eps: The `--SN_eps` of the training; the file does not say it.

    Raises:
        InputError: The tensors fit no network.
    """
    deep = source.has_any("input_conv.")
    config, widths = _discriminator_config(source, deep=deep, sn_eps=sn_eps)
    reader = _LayerReader(source, sn_eps)

    ours: dict[str, Tensor] = {}
    if deep:
        ours |= reader.convolution("input_conv", "stem", widths[0], config.image_channels, 3)
        for i, (before, after) in enumerate(pairwise(widths)):
            for j, channels in enumerate((before, after)):
                names = f"blocks.{i}.{j}", f"blocks.{2 * i + j}"
                ours |= _deep_discriminator_block(reader, *names, channels, after)
    else:
        for i, (before, after) in enumerate(pairwise([config.image_channels, *widths])):
            shortcut = i < config.down_blocks or before != after
            ours |= _discriminator_block(reader, i, before, after, shortcut=shortcut)
    if config.attention_resolution:
        block = config.down_resolutions.index(config.attention_resolution)
        name = f"blocks.{block}.{2 if deep else 1}"
        ours |= reader.attention(name, widths[block + 1] if deep else widths[block])
    ours |= reader.linear("linear", "head.linear", (1, widths[-1]))
    shape = (config.num_classes, widths[-1])
    ours |= reader.normalized("embed", "head.embedding", shape)
    source.leave(_LOGGED)
    source.finish()
    return Converted(config, ours, _ORIGIN)


def _discriminator_config(
    source: ForeignTensors, *, deep: bool, sn_eps: float
) -> tuple[DiscriminatorConfig, list[int]]:
    blocks = _num_blocks(source)
    last = "0.conv4" if deep else "0.conv2"
    widths = [_outputs(source, f"blocks.{i}.{last}") for i in range(blocks)]
    image_channels = _inputs(source, "input_conv" if deep else "blocks.0.0.conv1")
    if deep:
        widths = [_outputs(source, "input_conv"), *widths]
    elif blocks > 1 and _outputs(source, "blocks.1.0.conv1") != widths[1]:
        raise InputError(
            f"{source.source} is a narrow discriminator, trained without D_wide: its first "
            "convolutions keep the channels of their input, and no network here does"
        )
    # Its networks halve down to 4x4 pixels, the last block (of BigGAN) keeping them; but those of
    # one width throughout, for 32 px, halve twice.
    small = min(widths) == max(widths)
    down = 2 if small else blocks - (not deep)
    resolution = (8 if small else 4) * 2**down
    attention = _attention_block(source, 2 if deep else 1)
    channels, multiples = base_width(widths)
    config = DiscriminatorConfig(
        family="biggan-deep" if deep else "biggan",
        resolution=resolution,
        channels=channels,
        widths=multiples,
        down_blocks=down,
        num_classes=source.size(("embed.weight", 2, 0), ("embed.u0", 2, 1)),
        attention_resolution=0 if attention is None else resolution // 2 ** (attention + 1),
        image_channels=image_channels,
        sn_eps=sn_eps,
    )
    return config, widths


def _discriminator_block(
    reader: _LayerReader, i: int, before: int, after: int, *, shortcut: bool
) -> dict[str, Tensor]:
    theirs, ours = f"blocks.{i}.0", f"blocks.{i}"
    state = reader.convolution(f"{theirs}.conv1", f"{ours}.conv1", after, before, 3)
    state |= reader.convolution(f"{theirs}.conv2", f"{ours}.conv2", after, after, 3)
    if shortcut:
        state |= reader.convolution(f"{theirs}.conv_sc", f"{ours}.shortcut", after, before, 1)
    return state


def _deep_discriminator_block(
    reader: _LayerReader, theirs: str, ours: str, before: int, after: int
) -> dict[str, Tensor]:
    state = reader.bottleneck(theirs, ours, before, after // 4, after)
    if after > before:
        added = after - before
        state |= reader.convolution(f"{theirs}.conv_sc", f"{ours}.widening", added, before, 1)
    return state


# --- layers ---


class _LayerReader:
    """Takes whole layers from a file and names them as we do.

    Args:
        source: The file's tensors.
        sn_eps: Epsilon of spectral normalization.
    """

    def __init__(self, source: ForeignTensors, sn_eps: float) -> None:
        self.source = source
        self._sn_eps = sn_eps

    def normalized(
        self,
        theirs: str,
        ours: str,
        shape: tuple[int, ...],
        condition: GeneratorConfig | None = None,
    ) -> dict[str, Tensor]:
        """A spectrally normalized weight; `condition` where its input is a condition vector."""
        weight = self.source.take(f"{theirs}.weight", *shape)
        if condition is not None:
            weight = _class_last(weight, condition)
        stored = self.source.take(f"{theirs}.u0", 1, shape[0]).squeeze(0)
        u, v = converged_vectors(weight, stored, self._sn_eps)
        return {f"{ours}.weight": weight, f"{ours}.u": u, f"{ours}.v": v}

    def linear(
        self,
        theirs: str,
        ours: str,
        shape: tuple[int, int],
        condition: GeneratorConfig | None = None,
    ) -> dict[str, Tensor]:
        """A linear layer with a bias."""
        state = self.normalized(theirs, ours, shape, condition)
        state[f"{ours}.bias"] = self.source.take(f"{theirs}.bias", shape[0])
        return state

    def convolution(
        self, theirs: str, ours: str, out_channels: int, in_channels: int, size: int
    ) -> dict[str, Tensor]:
        """A convolution with a bias."""
        state = self.normalized(theirs, ours, (out_channels, in_channels, size, size))
        state[f"{ours}.bias"] = self.source.take(f"{theirs}.bias", out_channels)
        return state

    def bottleneck(
        self, theirs: str, ours: str, before: int, hidden: int, after: int
    ) -> dict[str, Tensor]:
        """The four convolutions of a deep block."""
        state = self.convolution(f"{theirs}.conv1", f"{ours}.conv1", hidden, before, 1)
        state |= self.convolution(f"{theirs}.conv2", f"{ours}.conv2", hidden, hidden, 3)
        state |= self.convolution(f"{theirs}.conv3", f"{ours}.conv3", hidden, hidden, 3)
        return state | self.convolution(f"{theirs}.conv4", f"{ours}.conv4", after, hidden, 1)

    def attention(self, theirs: str, channels: int) -> dict[str, Tensor]:
        """The self-attention."""
        state = {"attention.gamma": self.source.take(f"{theirs}.gamma")}
        for name, out, into in (
            ("theta", channels // 8, channels),
            ("phi", channels // 8, channels),
            ("g", channels // 2, channels),
            ("o", channels, channels // 2),
        ):
            state |= self.normalized(f"{theirs}.{name}", f"attention.{name}", (out, into, 1, 1))
        return state

    def conditional_norm(
        self, theirs: str, ours: str, channels: int, config: GeneratorConfig
    ) -> dict[str, Tensor]:
        """A conditional BatchNorm."""
        state = self.statistics(theirs, ours, channels)
        for name in ("gain", "bias"):
            part, to = f"{theirs}.{name}", f"{ours}.{name}"
            if config.shared_embedding:
                state |= self.normalized(part, to, (channels, config.condition_dim), config)
            else:  # a table of one row per class
                table = self.source.take(f"{part}.weight", config.num_classes, channels)
                state[f"{to}.weight"] = table.T.contiguous()
        return state

    def statistics(self, theirs: str, ours: str, channels: int) -> dict[str, Tensor]:
        """A BatchNorm's one set of statistics, and its empty table.

        Where they lie depends on the implementation that was trained with: `--mybn` and
        `--cross_replica` have a layer within the layer.
        """
        source, divisor = self.source, torch.ones(1)
        mean, var = f"{theirs}.stored_mean", f"{theirs}.stored_var"
        if f"{theirs}.bn.stored_mean" in source:
            mean, var = f"{theirs}.bn.stored_mean", f"{theirs}.bn.stored_var"
            # Above 0 after its accumulation of standing statistics, when the stored ones are sums.
            divisor = source.take(f"{theirs}.bn.accumulation_counter", 1).clamp(min=1)
        elif f"{theirs}.bn.running_mean" in source:
            mean, var = f"{theirs}.bn.running_mean", f"{theirs}.bn.running_var"
            source.leave(re.escape(f"{theirs}.bn.num_batches_tracked"))
        return {
            f"{ours}.running_mean": source.take(mean, channels) / divisor,
            f"{ours}.running_var": source.take(var, channels) / divisor,
            f"{ours}.table_mean": torch.zeros(0, channels),
            f"{ours}.table_var": torch.ones(0, channels),
        }


def _class_last(weight: Tensor, config: GeneratorConfig) -> Tensor:
    """Reorder a weight's columns from (class, noise), where they are so, to (noise, class)."""
    if config.rgb_channels:  # the later version, which has DeepMind's order
        return weight
    return torch.cat([weight[:, config.class_dim :], weight[:, : config.class_dim]], dim=1)


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
    found = (re.match(r"blocks\.(\d{1,3})\.", name) for name in source)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _attention_block(source: ForeignTensors, place: int) -> int | None:
    """The block that attention follows; it stands at `place` in that block's list."""
    pattern = re.compile(rf"blocks\.(\d{{1,3}})\.{place}\.(?:theta|phi|g|o|gamma)\b.*")
    found = sorted({int(match[1]) for match in map(pattern.fullmatch, source) if match})
    if len(found) > 1:
        raise InputError(
            f"{source.source} has attention after blocks {found}: only one can be built here"
        )
    return found[0] if found else None
