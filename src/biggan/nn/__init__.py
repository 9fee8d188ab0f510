"""Layers, one concept a file. They know nothing of BigGAN: any GAN could be built from them."""

from biggan.nn.attention import SelfAttention2d
from biggan.nn.conditional_batch_norm import (
    BatchNorm2d,
    ConditionalBatchNorm2d,
    OffGrid,
    StandingBatchNorm2d,
)
from biggan.nn.initialization import initialize_orthogonal
from biggan.nn.resampling import average_pool, convolve_average_pool, upsample, upsample_convolve
from biggan.nn.spectral_norm import (
    Embedding,
    Linear,
    SpectralNormConv2d,
    SpectralNormEmbedding,
    SpectralNormLinear,
    SpectralNormNetwork,
    Uninitialized,
    hold_power_iteration,
    iterate_power,
)

__all__ = [
    "BatchNorm2d",
    "ConditionalBatchNorm2d",
    "Embedding",
    "Linear",
    "OffGrid",
    "SelfAttention2d",
    "SpectralNormConv2d",
    "SpectralNormEmbedding",
    "SpectralNormLinear",
    "SpectralNormNetwork",
    "StandingBatchNorm2d",
    "Uninitialized",
    "average_pool",
    "convolve_average_pool",
    "hold_power_iteration",
    "initialize_orthogonal",
    "iterate_power",
    "upsample",
    "upsample_convolve",
]
