"""BigGAN-deep (Appendix B, Figure 16, Tables 7 to 9).

Bottleneck blocks, two per resolution; the whole noise conditions every BatchNorm; shortcuts without
convolutions in the generator, which drop channels, and half without in the discriminator, which
add channels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.models.config import DiscriminatorConfig, GeneratorConfig
from biggan.models.shared import (
    Discriminator,
    Generator,
    ProjectionHead,
    RGBHead,
    as_grid,
    attention_at,
    conditional_norm,
)
from biggan.nn import (
    SpectralNormConv2d,
    SpectralNormLinear,
    average_pool,
    upsample,
    upsample_convolve,
)

_BOTTLENECK = 4  # the 3x3 convolutions work at a quarter of the block's width


class DeepGeneratorBlock(nn.Module):
    """Figure 16b: BN-ReLU-1x1-BN-ReLU-[upsample]-3x3-BN-ReLU-3x3-BN-ReLU-1x1.

    The shortcut keeps the first `out_channels` channels and drops the others.
    """

    def __init__(
        self, config: GeneratorConfig, in_channels: int, out_channels: int, *, up: bool
    ) -> None:
        super().__init__()
        self.up = up
        self.out_channels = out_channels
        hidden = in_channels // _BOTTLENECK
        eps = config.sn_eps
        self.bn1 = conditional_norm(config, in_channels)
        self.conv1 = SpectralNormConv2d(in_channels, hidden, 1, eps=eps)
        self.bn2 = conditional_norm(config, hidden)
        self.conv2 = SpectralNormConv2d(hidden, hidden, 3, eps=eps)
        self.bn3 = conditional_norm(config, hidden)
        self.conv3 = SpectralNormConv2d(hidden, hidden, 3, eps=eps)
        self.bn4 = conditional_norm(config, hidden)
        self.conv4 = SpectralNormConv2d(hidden, out_channels, 1, eps=eps)

    def forward(self, x: Tensor, condition: Tensor, truncation: float | None) -> Tensor:
        """Map x (N, in, R, R) to (N, out, R, R), or to (N, out, 2R, 2R) with `up`."""
        h = self.conv1(F.relu_(self.bn1(x, condition, truncation)))
        h = F.relu_(self.bn2(h, condition, truncation))
        if self.up:
            h = upsample_convolve(*self.conv2.normalize(h), self.conv2.bias)
        else:
            h = self.conv2(h)
        h = self.conv3(F.relu_(self.bn3(h, condition, truncation)))
        h = self.conv4(F.relu_(self.bn4(h, condition, truncation)))
        shortcut = x[:, : self.out_channels]
        return h + (upsample(shortcut) if self.up else shortcut)


class BigGANDeepGenerator(Generator):
    """The generator of Figure 16a."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config)
        widths = [config.channels * width for width in config.widths]
        self.linear = SpectralNormLinear(config.condition_dim, widths[0] * 16, eps=config.sn_eps)
        # Each stage: a block that keeps its shape, then one that doubles the resolution.
        self.blocks = nn.ModuleList(
            block
            for before, after in pairwise(widths)
            for block in (
                DeepGeneratorBlock(config, before, before, up=False),
                DeepGeneratorBlock(config, before, after, up=True),
            )
        )
        channels_at = zip(config.stage_resolutions, widths[1:], strict=True)
        self.attention = attention_at(config, dict(channels_at))
        self.head = RGBHead(config, widths[-1])
        self.join_power_iteration()

    def synthesize(
        self, z: Tensor, class_embedding: Tensor, truncation: float | None = None
    ) -> Tensor:
        """See `Generator.synthesize`."""
        self.begin_forward()
        condition = torch.cat([z, class_embedding], dim=1)  # (N, condition_dim)
        x = as_grid(self.linear(condition))  # (N, C, 4, 4)
        for block in self.blocks:
            x = self.run(block, x, condition, truncation)
            if block.up and x.shape[-1] == self.config.attention_resolution:
                x = self.run(self.attention, x)
        return self.head(x, truncation)


class DeepDiscriminatorBlock(nn.Module):
    """Figure 16c: ReLU-1x1-ReLU-3x3-ReLU-3x3-ReLU-[pool]-1x1.

    The shortcut keeps its channels and adds the missing ones by a 1x1 convolution.
    """

    def __init__(
        self, config: DiscriminatorConfig, in_channels: int, out_channels: int, *, down: bool
    ) -> None:
        super().__init__()
        self.down = down
        self.relu_before_shortcut = config.relu_before_shortcut
        hidden = out_channels // _BOTTLENECK
        eps = config.sn_eps
        self.conv1 = SpectralNormConv2d(in_channels, hidden, 1, eps=eps)
        self.conv2 = SpectralNormConv2d(hidden, hidden, 3, eps=eps)
        self.conv3 = SpectralNormConv2d(hidden, hidden, 3, eps=eps)
        self.conv4 = SpectralNormConv2d(hidden, out_channels, 1, eps=eps)
        self.widening: SpectralNormConv2d | None = None
        if out_channels > in_channels:
            self.widening = SpectralNormConv2d(in_channels, out_channels - in_channels, 1, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, in, R, R) to (N, out, R/2, R/2), or to (N, out, R, R) without `down`."""
        rectified = F.relu(x)
        if self.relu_before_shortcut:
            x = rectified
        h = self.conv2(F.relu_(self.conv1(rectified)))
        h = F.relu_(self.conv3(F.relu_(h)))
        if self.down:
            h, x = average_pool(h), average_pool(x)
        if self.widening is not None:
            x = torch.cat([x, self.widening(x)], dim=1)
        return self.conv4(h) + x


class BigGANDeepDiscriminator(Discriminator):
    """The discriminator of Figure 16a."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__(config)
        widths = [config.channels * width for width in config.widths]
        self.stem = SpectralNormConv2d(config.image_channels, widths[0], 3, eps=config.sn_eps)
        # Each pair: a block that may halve the resolution, then one that keeps its shape.
        self.blocks = nn.ModuleList(
            block
            for i, (before, after) in enumerate(pairwise(widths))
            for block in (
                DeepDiscriminatorBlock(config, before, after, down=i < config.down_blocks),
                DeepDiscriminatorBlock(config, after, after, down=False),
            )
        )
        channels_at = zip(config.down_resolutions, widths[1:], strict=False)
        self.attention = attention_at(config, dict(channels_at))
        self.head = ProjectionHead(config, widths[-1])
        self.join_power_iteration()

    def features(self, x: Tensor) -> Tensor:
        """See `Discriminator.features`."""
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = self.run(block, x)
            pair, is_second = divmod(i, 2)
            if (
                is_second
                and pair < self.config.down_blocks
                and x.shape[-1] == self.config.attention_resolution
            ):
                x = self.run(self.attention, x)
        return x
