"""The non-local block of SA-GAN (Zhang et al. 2019, https://arxiv.org/abs/1805.08318).

The widths and the pooling follow the code that its authors and BigGAN's released, not the SA-GAN
paper's text: queries and keys of C/8 channels, values of C/2, keys and values max-pooled 2x2, no
scaling of the logits, no biases.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.nn.spectral_norm import SpectralNormConv2d


class SelfAttention2d(nn.Module):
    """x + gamma * attention(x), where gamma is a learned scalar that starts at zero.

    Args:
        channels: Channels of the input and output, at least 8.
        eps: Epsilon of the spectral normalization of the four 1x1 convolutions.
    """

    def __init__(self, channels: int, *, eps: float = 1e-4) -> None:
        super().__init__()
        self.theta = SpectralNormConv2d(channels, channels // 8, 1, bias=False, eps=eps)
        self.phi = SpectralNormConv2d(channels, channels // 8, 1, bias=False, eps=eps)
        self.g = SpectralNormConv2d(channels, channels // 2, 1, bias=False, eps=eps)
        self.o = SpectralNormConv2d(channels // 2, channels, 1, bias=False, eps=eps)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Attend over all positions of x (N, C, H, W); H and W are even."""
        query = _tokens(self.theta(x))  # (N, 1, HW, C/8)
        key = _tokens(F.max_pool2d(self.phi(x), 2))  # (N, 1, HW/4, C/8)
        value = _tokens(F.max_pool2d(self.g(x), 2))  # (N, 1, HW/4, C/2)
        if x.device.type == "cpu":
            # Zeros change no logit, and with equal widths the kernel that holds no (HW, HW/4)
            # matrix of weights takes over: at 64x64 positions that is 17 MB an image.
            missing = value.shape[-1] - query.shape[-1]
            query, key = F.pad(query, (0, missing)), F.pad(key, (0, missing))
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # (N, 1, HW, C/2)
        attended = attended.squeeze(1).mT.unflatten(2, x.shape[2:])  # (N, C/2, H, W)
        return x + self.gamma * self.o(attended)


def _tokens(x: Tensor) -> Tensor:
    """Positions of x (N, C, H, W) in a row, as one head of attention: (N, 1, H * W, C)."""
    return x.flatten(2).mT.contiguous().unsqueeze(1)
