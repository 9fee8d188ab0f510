"""BigGAN (Brock, Donahue and Simonyan 2018, https://arxiv.org/abs/1809.11096) on PyTorch.

    import biggan
    gan = biggan.load()
    gan.sample("red apple", num=10, truncation=0.4, seed=0)

The names below are imported when they are first used, so that `biggan --help` need not wait for
torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from biggan._version import __version__
from biggan.errors import InputError

if TYPE_CHECKING:
    from biggan.gan import Gan, load, load_discriminator
    from biggan.latents import truncated_noise
    from biggan.models import (
        DiscriminatorConfig,
        GeneratorConfig,
        build_discriminator,
        build_generator,
    )

_HOMES = {
    "Gan": "biggan.gan",
    "load": "biggan.gan",
    "load_discriminator": "biggan.gan",
    "truncated_noise": "biggan.latents",
    "DiscriminatorConfig": "biggan.models",
    "GeneratorConfig": "biggan.models",
    "build_discriminator": "biggan.models",
    "build_generator": "biggan.models",
}

__all__ = [
    "DiscriminatorConfig",
    "Gan",
    "GeneratorConfig",
    "InputError",
    "__version__",
    "build_discriminator",
    "build_generator",
    "load",
    "load_discriminator",
    "truncated_noise",
]


def __getattr__(name: str) -> Any:
    if name == "metrics":
        import_module("biggan.metrics.inception")
        return import_module("biggan.metrics")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
