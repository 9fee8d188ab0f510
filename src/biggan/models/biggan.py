"""BigGAN (Appendix B, Figure 15, Tables 4 to 6), and with other settings its baseline SA-GAN.

Where the paper's tables and its own parameter counts disagree, the counts decide: the first linear
layer sees its chunk of noise alone, and the discriminator's channels start from the image's.
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
    convolve_average_pool,
    upsample,
    upsample_convolve,
)


class GeneratorBlock(nn.Module):
    """Figure 15b: BN-ReLU-upsample-3x3-BN-ReLU-3x3, beside an upsampled 1x1 convolution."""

    def __init__(self, config: GeneratorConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.bn1 = conditional_norm(config, in_channels)
        self.conv1 = SpectralNormConv2d(in_channels, out_channels, 3, eps=config.sn_eps)
        self.bn2 = conditional_norm(config, out_channels)
        self.conv2 = SpectralNormConv2d(out_channels, out_channels, 3, eps=config.sn_eps)
        self.shortcut = SpectralNormConv2d(in_channels, out_channels, 1, eps=config.sn_eps)

    def forward(self, x: Tensor, condition: Tensor, truncation: float | None) -> Tensor:
        """Map x (N, in, R, R) to (N, out, 2R, 2R)."""
        h = F.relu_(self.bn1(x, condition, truncation))
        h = upsample_convolve(*self.conv1.normalize(h), self.conv1.bias)
        h = self.conv2(F.relu_(self.bn2(h, condition, truncation)))
        # A 1x1 convolution commutes with upsampling, and is four times cheaper before it.
        return h + upsample(self.shortcut(x))


class BigGANGenerator(Generator):
    """The generator of Figure 15a."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config)
        widths = [config.channels * width for width in config.widths]
        self.linear = SpectralNormLinear(config.chunk_dim, widths[0] * 16, eps=config.sn_eps)
        self.blocks = nn.ModuleList(GeneratorBlock(config, *pair) for pair in pairwise(widths))
        self.attention = attention_at(
            config, dict(zip(config.stage_resolutions, widths[1:], strict=True))
        )
        self.head = RGBHead(config, widths[-1])
        self.join_power_iteration()

    def synthesize(
        self, z: Tensor, class_embedding: Tensor, truncation: float | None = None
    ) -> Tensor:
        """See `Generator.synthesize`."""
        self.begin_forward()
        config = self.config
        # chunk 0 to the linear layer, i + 1 to block i
        if config.chunked:
            chunks = z.split(config.chunk_dim, dim=1)
        else:
            chunks = (z,) + (z.new_empty(len(z), 0),) * len(self.blocks)
        x = as_grid(self.linear(chunks[0]))  # (N, C, 4, 4)
        for block, chunk in zip(self.blocks, chunks[1:], strict=True):
            condition = torch.cat([chunk, class_embedding], dim=1)
            x = self.run(block, x, condition, truncation)
            if x.shape[-1] == config.attention_resolution:
                x = self.run(self.attention, x)
        return self.head(x, truncation)


class DiscriminatorBlock(nn.Module):
    """Figure 15c: ReLU-3x3-ReLU-3x3-pool, beside a pooled 1x1 convolution.

    The first block of a network has no leading ReLU: its input is the image. A block that keeps
    both channels and resolution has the identity as its shortcut.
    """

    def __init__(
        self,
        config: DiscriminatorConfig,
        in_channels: int,
        out_channels: int,
        *,
        down: bool,
        first: bool,
    ) -> None:
        super().__init__()
        self.down = down
        self.first = first
        self.relu_before_shortcut = config.relu_before_shortcut
        self.conv1 = SpectralNormConv2d(in_channels, out_channels, 3, eps=config.sn_eps)
        self.conv2 = SpectralNormConv2d(out_channels, out_channels, 3, eps=config.sn_eps)
        self.shortcut: nn.Module = nn.Identity()
        if down or in_channels != out_channels:
            self.shortcut = SpectralNormConv2d(in_channels, out_channels, 1, eps=config.sn_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, in, R, R) to (N, out, R/2, R/2), or to (N, out, R, R) without `down`."""
        # Out of place: the shortcut may need x as it came.
        rectified = x if self.first else F.relu(x)
        if self.relu_before_shortcut:
            x = rectified
        h = F.relu_(self.conv1(rectified))
        if not self.down:
            return self.conv2(h) + self.shortcut(x)
        h = convolve_average_pool(*self.conv2.normalize(h), self.conv2.bias)
        # Pooling commutes with the 1x1 convolution, which is four times cheaper after it.
        return h + self.shortcut(average_pool(x))


class BigGANDiscriminator(Discriminator):
    """The discriminator of Figure 15a."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__(config)
        widths = [config.image_channels, *(config.channels * width for width in config.widths)]
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(config, *pair, down=i < config.down_blocks, first=i == 0)
            for i, pair in enumerate(pairwise(widths))
        )
        self.attention = attention_at(
            config, dict(zip(config.down_resolutions, widths[1:], strict=False))
        )
        self.head = ProjectionHead(config, widths[-1])
        self.join_power_iteration()

    def features(self, x: Tensor) -> Tensor:
        """See `Discriminator.features`."""
        for i, block in enumerate(self.blocks):
            x = self.run(block, x)
            if i < self.config.down_blocks and x.shape[-1] == self.config.attention_resolution:
                x = self.run(self.attention, x)
        return x
