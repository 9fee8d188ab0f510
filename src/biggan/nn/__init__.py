"""Layers, one concept a file. They know nothing of BigGAN: any GAN could be built from them."""

from biggan.nn.attention import SelfAttention2d
from biggan.nn.conditional_batch_norm import (
    BatchNorm2d,
    ConditionalBatchNorm2d,
    OffGrid,
    StandingBatchNorm2d,
)
from biggan.nn.initialization import initialize_orthogonal
from biggan.nn.recomputation import run_block
from biggan.nn.resampling import average_pool, convolve_average_pool, upsample, upsample_convolve
from biggan.nn.spectral_norm import (
    SpectralNormConv2d,
    SpectralNormEmbedding,
    SpectralNormLinear,
    SpectralNormNetwork,
    hold_power_iteration,
    iterate_power,
)
from biggan.nn.uninitialized import Embedding

__all__ = [
    "BatchNorm2d",
    "ConditionalBatchNorm2d",
    "Embedding",
    "OffGrid",
    "SelfAttention2d",
    "SpectralNormConv2d",
    "SpectralNormEmbedding",
    "SpectralNormLinear",
    "SpectralNormNetwork",
    "StandingBatchNorm2d",
    "average_pool",
    "convolve_average_pool",
    "hold_power_iteration",
    "initialize_orthogonal",
    "iterate_power",
    "run_block",
    "upsample",
    "upsample_convolve",
]
