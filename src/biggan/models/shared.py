"""What BigGAN and BigGAN-deep share: their frame, the class embedding, conditioning and heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.models.config import DiscriminatorConfig, GeneratorConfig
from biggan.nn import (
    BatchNorm2d,
    ConditionalBatchNorm2d,
    Embedding,
    SelfAttention2d,
    SpectralNormConv2d,
    SpectralNormEmbedding,
    SpectralNormLinear,
    SpectralNormNetwork,
    StandingBatchNorm2d,
)


class _Network(SpectralNormNetwork):
    recompute = False
    """Whether blocks drop their activations (activation checkpointing)."""

    attention: nn.Module
    blocks: nn.ModuleList

    def run(self, block: nn.Module, *inputs: Any) -> Tensor:
        """Run a block; with `recompute` keep only its inputs, for a third more work in all."""
        if not self.recompute:
            return block(*inputs)
        from biggan.nn.recomputation import run_block

        return run_block(block, *inputs)


class Generator(_Network):
    """Noise and classes to images."""

    linear: SpectralNormLinear
    head: RGBHead

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.class_embedding = ClassEmbedding(config)

    def embed(self, labels: Tensor) -> Tensor:
        """Class vectors for labels: int64 (N,), or class weights (N, num_classes) to mix classes.

        Returns:
            (N, class_dim), or the class weights themselves without a shared embedding; (N, 0)
            for an unconditional network, whatever the labels.
        """
        return self.class_embedding(labels)

    def forward(self, z: Tensor, labels: Tensor, truncation: float | None = None) -> Tensor:
        """Make images.

        Args:
            z: Noise (N, z_dim), used as it is.
            labels: int64 (N,), or class weights (N, num_classes).
            truncation: Chooses the BatchNorm statistics in eval mode; None for those of
                untruncated noise.

        Returns:
            (N, image_channels, resolution, resolution) in [-1, 1].
        """
        return self.synthesize(z, self.embed(labels), truncation)

    def synthesize(
        self, z: Tensor, class_embedding: Tensor, truncation: float | None = None
    ) -> Tensor:
        """Make images from class vectors (N, class_dim), which may lie between classes."""
        raise NotImplementedError


class Discriminator(_Network):
    """Images and classes to logits."""

    head: ProjectionHead

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, images: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Judge images.

        Args:
            images: (N, image_channels, resolution, resolution) in [-1, 1].
            labels: int64 (N,), or class weights (N, num_classes); ignored if unconditional.
            mask: Dropout of the features that the head sees, multiplied: (N, channels of the last
                block). None for none.

        Returns:
            Logits (N, 1): positive for "real".
        """
        self.begin_forward()
        x = self.features(images.contiguous(memory_format=torch.channels_last))
        return self.head(x, labels, mask)

    def features(self, x: Tensor) -> Tensor:
        """What the head sees of images x."""
        raise NotImplementedError


def make_generator(config: GeneratorConfig) -> Generator:
    """The network of a configuration, its weights not yet set."""
    if config.family == "biggan":
        from biggan.models.biggan import BigGANGenerator

        return BigGANGenerator(config)
    from biggan.models.biggan_deep import BigGANDeepGenerator

    return BigGANDeepGenerator(config)


def make_discriminator(config: DiscriminatorConfig) -> Discriminator:
    """The network of a configuration, its weights not yet set."""
    if config.family == "biggan":
        from biggan.models.biggan import BigGANDiscriminator

        return BigGANDiscriminator(config)
    from biggan.models.biggan_deep import BigGANDeepDiscriminator

    return BigGANDeepDiscriminator(config)


class ClassEmbedding(nn.Module):
    """Labels to the class part of a generator's conditions.

    A shared table without spectral normalization (Section 3.1). Without a shared embedding the
    labels pass as class weights, and every BatchNorm has a table of its own.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.num_classes = config.num_classes
        self.table: nn.Embedding | None = None
        if config.num_classes > 0 and config.shared_embedding:
            self.table = Embedding(config.num_classes, config.class_dim)

    def forward(self, labels: Tensor) -> Tensor:
        """Embed labels: int64 (N,), or class weights (N, num_classes), as (N, embedding_dim)."""
        if self.num_classes == 0:
            return torch.empty(len(labels), 0, device=labels.device)
        if self.table is None:
            is_soft = labels.is_floating_point()
            return labels if is_soft else F.one_hot(labels, self.num_classes).float()
        if labels.is_floating_point():
            return labels @ self.table.weight
        return self.table(labels)


class RGBHead(nn.Module):
    """BatchNorm, ReLU, a 3x3 convolution to the image's channels, tanh."""

    def __init__(self, config: GeneratorConfig, in_channels: int) -> None:
        super().__init__()
        self.image_channels = config.image_channels
        self.bn = BatchNorm2d(in_channels, eps=config.bn_eps, off_grid=config.off_grid)
        self.conv = SpectralNormConv2d(
            in_channels, config.rgb_channels or config.image_channels, 3, eps=config.sn_eps
        )

    def forward(self, x: Tensor, truncation: float | None) -> Tensor:
        """Map x (N, C, R, R) to images (N, image_channels, R, R) in [-1, 1]."""
        x = self.conv(F.relu_(self.bn(x, truncation)))[:, : self.image_channels]
        return torch.tanh(x.to(self.conv.weight.dtype))


class ProjectionHead(nn.Module):
    """ReLU, sum over positions to h, then Linear(h) + Embed(y) . h (Miyato and Koyama 2018)."""

    def __init__(self, config: DiscriminatorConfig, in_channels: int) -> None:
        super().__init__()
        self.linear = SpectralNormLinear(in_channels, 1, eps=config.sn_eps)
        self.embedding: SpectralNormEmbedding | None = None
        if config.num_classes > 0:
            self.embedding = SpectralNormEmbedding(
                config.num_classes, in_channels, eps=config.sn_eps
            )

    def forward(self, x: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map x (N, C, R, R) and labels to logits (N, 1).

        Args:
            x: Of the last block.
            labels: See the discriminator's forward.
            mask: Multiplies h, (N, C): dropout. None for none.
        """
        # Sums over all positions and channels, and the loss after them, are beyond low precision.
        with torch.autocast(x.device.type, enabled=False):
            h = F.relu(x).sum(dim=(2, 3), dtype=self.linear.weight.dtype)  # (N, C)
            if mask is not None:
                h = h * mask
            logits: Tensor = self.linear(h)
            if self.embedding is not None:
                logits = logits + (self.embedding(labels) * h).sum(dim=1, keepdim=True)
            return logits


def conditional_norm(config: GeneratorConfig, channels: int) -> ConditionalBatchNorm2d:
    """A BatchNorm conditioned as this generator's are."""
    return ConditionalBatchNorm2d(
        channels,
        config.condition_dim,
        spectral=config.shared_embedding,
        eps=config.bn_eps,
        sn_eps=config.sn_eps,
        off_grid=config.off_grid,
    )


def attention_at(
    config: GeneratorConfig | DiscriminatorConfig, channels: Mapping[int, int]
) -> nn.Module:
    """The network's self-attention, by the channels at each resolution it may have; or nothing."""
    if config.attention_resolution == 0:
        return nn.Identity()
    return SelfAttention2d(channels[config.attention_resolution], eps=config.sn_eps)


def as_grid(features: Tensor) -> Tensor:
    """What the first linear layer makes, (N, C * 16), as (N, C, 4, 4).

    In channels-last memory, which convolutions then keep to the end of the network: their libraries
    are fastest so, on CPUs and GPUs.
    """
    # By transposing, since the transforms of `torch.func` know no memory formats. The last view is
    # of contiguous memory: of other memory, one image would get a stride that is taken for planar.
    pixels = features.unflatten(1, (-1, 16)).transpose(1, 2).flatten(1)  # (N, 16 * C)
    return pixels.unflatten(1, (4, 4, -1)).permute(0, 3, 1, 2)


def statistics_grid(generator: Generator) -> tuple[float, ...]:
    """The truncations for which a generator has statistics; empty if for none."""
    return generator.head.bn.grid


def set_statistics_grid(generator: Generator, grid: list[float]) -> None:
    """Give every BatchNorm of a generator an empty table for these truncations, ascending."""
    for layer in generator.modules():
        if isinstance(layer, StandingBatchNorm2d):
            layer.set_grid(grid)


def hub_grid(rows: int) -> tuple[float, ...]:
    """The truncations of a published table: 0.02, 0.04, ... 1.00, or with 0.00 before them.

    Args:
        rows: 50 (DeepMind's BigGAN) or 51 (BigGAN-deep).
    """
    return tuple(round(0.02 * (i + 51 - rows), 2) for i in range(rows))
