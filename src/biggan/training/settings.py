"""The tables of a recipe, but for those about stability (`biggan.stability.settings`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from biggan.errors import quoted, require

Augmentation = Literal["none", "diffaugment", "ada"]

_DIFFAUGMENT = ("color", "translation", "cutout")


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam (Kingma and Ba 2015), with the paper's settings as defaults (Appendix C)."""

    g_lr: float = 5e-5
    """Learning rate of the generator."""
    d_lr: float = 2e-4
    """Learning rate of the discriminator."""
    beta1: float = 0.0
    """Decay of the first moment."""
    beta2: float = 0.999
    """Decay of the second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment."""

    def __post_init__(self) -> None:
        """Refuse what Adam cannot run with."""
        for name in ("g_lr", "d_lr", "eps"):
            require(0 < getattr(self, name) < math.inf, f"optimizer.{name} must be above 0")
        for name in ("beta1", "beta2"):
            require(
                0 <= getattr(self, name) < 1, f"optimizer.{name} must be at least 0 and below 1"
            )


@dataclass(frozen=True)
class EmaConfig:
    """The moving average of the generator's weights, which is what a run makes."""

    decay: float = 0.9999
    """Weight of the past at each step."""
    start: int = 0
    """Up to this step the average is a copy of the weights."""


@dataclass(frozen=True)
class AugmentationConfig:
    """Augmentation of all that the discriminator sees, for small data; off by default."""

    kind: Augmentation = "none"
    """`none`; `diffaugment`, always (Zhao et al. 2020); or `ada`, as often as the discriminator's
    confidence calls for (Karras et al. 2020)."""
    policy: str = "color,translation,cutout"
    """What DiffAugment does, in this order; a part of it may be left out."""
    target: float = 0.6
    """ADA: E[sign(D(real))] to hold; 0.6 means that D finds four of five real images real."""
    images: int = 500_000
    """ADA: real images over which the probability may move from 0 to 1."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        require(
            self.kind in get_args(Augmentation),
            f"augmentation.kind must be one of {', '.join(get_args(Augmentation))}",
        )
        parts = self.policy.split(",")
        fits = set(parts) <= set(_DIFFAUGMENT) and len(set(parts)) == len(parts)
        require(
            fits or self.kind != "diffaugment",
            f"augmentation.policy lists some of {', '.join(_DIFFAUGMENT)}, each once and without "
            f"spaces, not {quoted(self.policy)}",
        )
        require(-1 < self.target < 1, "augmentation.target must be between -1 and 1")
        require(self.images >= 1, "augmentation.images must be at least 1")


@dataclass(frozen=True)
class LeCamConfig:
    """LeCam regularization of the discriminator (Tseng et al. 2021), for small data."""

    strength: float = 0.0
    """Weight of the regularization; 0 for none, 0.1 to 0.5 are usual."""
    decay: float = 0.99
    """Weight of the past in the moving averages of D's outputs."""
    start: int = 1000
    """Step from which it is applied; the averages are kept from the first step on."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        require(0 <= self.strength < math.inf, "lecam.strength must be 0 or above")
        require(0 <= self.decay < 1, "lecam.decay must be at least 0 and below 1")
        require(self.start >= 0, "lecam.start must be 0 or above")


@dataclass(frozen=True)
class EvaluationConfig:
    """Evaluation on schedule, of the averaged generator and untruncated noise."""

    every: int = 0
    """Steps from one evaluation to the next, a multiple of `checkpoint_every`; 0 for none. The
    last step's generator is evaluated as well."""
    num: int = 10_000
    """Images to make for it."""
    metrics: str = "fid,is"
    """What to measure; the generator with the smallest `fid` is kept as best.safetensors."""
    extractor: str = "inception"
    """Whose features are compared: `inception`, its weights file, or a classifier's file."""
    data: str = ""
    """Images to compare with; empty for those of the training."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        require(self.every >= 0, "evaluation.every must be 0 or above")
        require(10 <= self.num <= 10_000_000, "evaluation.num must be between 10 and 10,000,000")
