"""Small models with random weights, a recipe small enough to train, and how calls are refused."""

import pytest
import torch

import biggan
from biggan.models import set_statistics_grid

TINY = {
    "family": "biggan",
    "resolution": 16,
    "channels": 8,
    "widths": [4, 2, 1],
    "z_dim": 12,
    "num_classes": 3,
    "attention_resolution": 8,
    "image_channels": 3,
    "class_dim": 16,
}
DEEP = {"family": "biggan-deep", "channels": 16, "z_dim": 10, "rgb_channels": 12}
"""What makes the tiny model a deep one; it computes more channels than it keeps, as published."""

ARCHITECTURES = {
    "biggan": {},
    "biggan-deep": DEEP,
    "sagan": {"shared_embedding": False, "skip_z": False},
    "shared without skip-z": {"skip_z": False},
    "no classes": {"num_classes": 0},
    "no attention": {"attention_resolution": 0},
    "attention at the end": {"attention_resolution": 16},
    "grey": {"image_channels": 1},
    "hub": {"off_grid": "hub", "bn_eps": 1e-3},
    "wide enough for Winograd": {"channels": 96, "resolution": 32, "widths": [2, 2, 1, 1]},
}
"""Changes of the tiny model, by what they make of it."""

TINY_DISCRIMINATOR = {
    "family": "biggan",
    "resolution": 16,
    "channels": 8,
    "widths": [1, 2, 4],
    "down_blocks": 2,
    "num_classes": 3,
    "attention_resolution": 8,
}
TINY_CLASSES = ("tabby, tabby cat", "siamese cat", "golden retriever")


def refusal(function, *arguments, **options):
    """The one line with which a call is refused."""
    with pytest.raises(biggan.InputError) as raised:
        function(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def tiny_generator(**changes):
    """Random weights, and statistics that differ from one truncation to the next."""
    generator = biggan.build_generator(
        biggan.GeneratorConfig.from_dict({**TINY, **changes}), seed=1
    )
    set_statistics_grid(generator, [round(0.02 * i, 2) for i in range(1, 51)])
    random = torch.Generator().manual_seed(2)
    for name, buffer in generator.named_buffers():
        if name.endswith(("running_mean", "table_mean")):
            buffer.copy_(0.1 * torch.randn(buffer.shape, generator=random))
        if name.endswith(("running_var", "table_var")):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=random))
    return generator.eval()


TINY_RECIPE = {
    "preset": "biggan-32",
    "total_steps": 6,
    "batch_size": 8,
    "checkpoint_every": 3,
    "log_every": 1,
    "statistics_images": 16,
    "flip": True,
    "generator": {"channels": 4, "widths": [4, 2, 2, 2], "z_dim": 16, "class_dim": 8},
    "discriminator": {"channels": 4, "widths": [2, 2, 4, 4]},
}

# One stage: what a plan takes grows with the number of operations.
ONE_STAGE = {
    "generator": {
        "resolution": 8,
        "channels": 8,
        "widths": [4, 2],
        "z_dim": 16,
        "class_dim": 8,
        "attention_resolution": 8,
    },
    "discriminator": {
        "resolution": 8,
        "channels": 8,
        "widths": [2, 4],
        "down_blocks": 1,
        "attention_resolution": 4,
    },
}
