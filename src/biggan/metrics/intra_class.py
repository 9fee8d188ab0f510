"""Intra-class Frechet distance: of each class by itself, then the mean.

Miyato and Koyama 2018, "cGANs with Projection Discriminator", Section 4,
https://arxiv.org/abs/1802.05637 ("intra-FID"). It sees what the distance over all classes does not:
a class that lost its variety, or images that are fine but of another class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from biggan.errors import InputError
from biggan.metrics.frechet_distance import frechet_distance
from biggan.metrics.statistics import FeatureStatistics

_SHOWN = 5  # classes in a message


@dataclass(frozen=True)
class IntraClass:
    """Frechet distances within classes.

    Attributes:
        mean: Over the classes, each with the same weight.
        per_class: By class.
    """

    mean: float
    per_class: dict[int, float]


def intra_class_frechet_distance(
    real: Mapping[int, FeatureStatistics], fake: Mapping[int, FeatureStatistics]
) -> IntraClass:
    """Compare the generated images of each class with the real ones of that class.

    Args:
        real: Statistics of each class, of at least 2 images each.
        fake: The same of the generated images.

    Returns:
        The distances; see `frechet_distance`. Each is biased upwards the more, the fewer images its
        class has, so figures compare at the same numbers per class only.

    Raises:
        InputError: A class is missing on one side or has fewer than 2 images, or statistics are of
            different extractors.
    """
    if not real and not fake:
        raise InputError("there is no class to compare")
    _check_none_missing("real", real.keys(), fake.keys())
    _check_none_missing("generated", fake.keys(), real.keys())
    per_class = {}
    for label in sorted(real):
        try:
            per_class[label] = frechet_distance(real[label], fake[label])
        except InputError as error:
            raise InputError(f"class {label}: {error}") from None
    return IntraClass(sum(per_class.values()) / len(per_class), per_class)


def _check_none_missing(kind: str, those: Iterable[int], wanted: Iterable[int]) -> None:
    missing = sorted(set(wanted) - set(those))
    if missing:
        shown = ", ".join(map(str, missing[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
        raise InputError(
            f"there are no {kind} images of {len(missing)} classes ({shown}): both sides need at "
            "least 2 of every class"
        )
