"""The table [fine_tuning] of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from biggan.errors import require

ClassTransfer = Literal["nearest", "mean", "random"]


@dataclass(frozen=True)
class FineTuningConfig:
    """Where training starts, if not from random weights."""

    generator: str = ""
    """What `biggan.load` takes: a published name, a file, a run folder; empty for random. Its shape
    becomes that of the recipe's generator."""
    discriminator: str = ""
    """A file or run folder with a discriminator; empty for random. Its shape becomes that of the
    recipe's discriminator."""
    classes: ClassTransfer = "nearest"
    """What a class starts as: the source's class of the nearest name, the mean of all of the
    source's classes, or random."""
    freeze_generator: int = 0
    """Stages of the generator, from the noise on, that stay as they were loaded, the first linear
    layer with the first of them."""
    freeze_discriminator: int = 0
    """Blocks of the discriminator (BigGAN-deep: pairs of them), from the image on, that stay as
    they were loaded (Mo et al. 2020, FreezeD)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        require(
            self.classes in get_args(ClassTransfer),
            f"fine_tuning.classes must be one of {', '.join(get_args(ClassTransfer))}",
        )
        for name in ("generator", "discriminator"):
            frozen = getattr(self, f"freeze_{name}")
            require(frozen >= 0, f"fine_tuning.freeze_{name} must be 0 or above")
            require(
                frozen == 0 or bool(getattr(self, name)),
                f"fine_tuning.freeze_{name} needs fine_tuning.{name}: random weights would "
                "stay random",
            )
