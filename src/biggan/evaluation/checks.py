"""Checks before any image is made, of what could not be compared at the end."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch import Tensor

from biggan.classes import normal_name
from biggan.classifier import ClassifierFeatures
from biggan.data import ImageDataset
from biggan.distributed import num_processes
from biggan.errors import InputError
from biggan.evaluation.generation import Protocol
from biggan.evaluation.reference import Reference, ReferenceStatistics, size_of
from biggan.evaluation.scores import OF_CLASSES, OF_STATISTICS, MetricName, needs_features
from biggan.latents import check_truncation
from biggan.metrics.extractor import FeatureExtractor
from biggan.metrics.statistics import FeatureSource, FeatureStatistics, check_same_source

FEWEST = 2048  # images of a set for a meaningful Frechet distance
_LEAST = 10  # one for each split of an Inception Score
_LEAST_OF_CLASS = 2  # for the covariance of an intra-class distance
_LOG = logging.getLogger("biggan.evaluation")


def check_truncations(truncations: Sequence[float | None], protocol: Protocol) -> None:
    """Refuse a sweep of no truncation, one out of range or twice, or too few images.

    Raises:
        InputError: It is one of these.
    """
    if not truncations:
        raise InputError("name at least one truncation")
    for truncation in truncations:
        check_truncation(truncation, protocol.noise)
    if len(set(truncations)) < len(truncations):
        raise InputError("every truncation is to be named once")
    check_enough(protocol.num, "asked for")


def check_enough(num: int | None, whose: str) -> None:
    """Refuse too few images; None is an unknown number.

    Raises:
        InputError: Too few images.
    """
    if num is not None and num < _LEAST:
        raise InputError(f"figures need at least {_LEAST} images, and {num} are {whose}")


def warn_of_few(num: int | None, metrics: tuple[MetricName, ...]) -> None:
    """Warn of a Frechet distance of too few images; None is an unknown number."""
    if num is not None and "fid" in metrics and num < FEWEST:
        _LOG.warning(
            "warning: a Frechet distance of %d images is far too large and compares with no "
            "other: take at least %d, and 50,000 for figures to publish",
            num,
            FEWEST,
        )


def check_fit(
    metrics: tuple[MetricName, ...],
    name: str,
    resolution: int,
    channels: int,
    class_names: tuple[str, ...],
    labels: Tensor,
    reference: Reference,
    extractor: FeatureExtractor | None,
) -> None:
    """Refuse images, called by `name` in messages, that these metrics cannot compare.

    Raises:
        InputError: Something does not fit; the message says what.
    """
    if extractor is None and needs_features(metrics):
        raise ValueError(f"{', '.join(metrics)} need an extractor")
    if "cas" in metrics and num_processes() > 1:
        raise InputError("cas trains a classifier on one process: run it without torchrun")
    size = size_of(reference)
    if size["resolution"] not in (None, resolution):
        raise InputError(
            f"the images have {resolution} pixels a side and {reference.source} has "
            f"{size['resolution']}: figures of two resolutions do not compare"
        )
    if size["channels"] not in (None, channels):
        raise InputError(
            f"the images have {channels} channels and {reference.source} has "
            f"{size['channels']}: colour does not compare with grey; statistics for a model "
            "are saved with --model"
        )
    check_enough(size["num"], f"in {reference.source}")
    if not isinstance(reference, ImageDataset):
        _check_statistics(metrics, reference, extractor)
        return
    _check_classes(metrics, name, class_names, reference)
    if "accuracy" in metrics:
        known = extractor.class_names if isinstance(extractor, ClassifierFeatures) else ()
        if sorted(map(normal_name, known)) != sorted(map(normal_name, class_names)):
            raise InputError(
                f"accuracy needs a classifier of the classes of {name}: train one on real images "
                "with biggan classifier, and name it by --extractor"
            )
    if "intra-fid" in metrics:
        for source, those in ((name, labels), (reference.source, reference.labels)):
            counts = those.bincount(minlength=len(class_names))
            if (fewest := int(counts.min())) < _LEAST_OF_CLASS:
                raise InputError(
                    f"intra-fid needs at least {_LEAST_OF_CLASS} images of every class, and "
                    f"{source} has {fewest} of {class_names[int(counts.argmin())]}: take more, or "
                    "leave it out"
                )


def _check_classes(
    metrics: tuple[MetricName, ...],
    name: str,
    class_names: tuple[str, ...],
    dataset: ImageDataset,
) -> None:
    metric = next((metric for metric in metrics if metric in OF_CLASSES), None)
    if metric is None:
        return
    if not class_names:
        raise InputError(f"{name} has no classes for {metric} to compare: leave it out")
    if [*map(normal_name, class_names)] != [*map(normal_name, dataset.class_names)]:
        raise InputError(
            f"{metric} compares class with class, and {name} has other classes than "
            f"{dataset.source}: leave it out"
        )


def _check_statistics(
    metrics: tuple[MetricName, ...],
    reference: ReferenceStatistics,
    extractor: FeatureExtractor | None,
) -> None:
    if others := [metric for metric in metrics if metric not in OF_STATISTICS]:
        raise InputError(
            f"{reference.source} holds statistics, which do not do for {', '.join(others)}: name "
            "the images themselves (--data), or take --metrics fid,is"
        )
    assert extractor is not None  # fid and is need one
    own = FeatureSource(extractor.name, extractor.sha256, extractor.resize)
    try:
        check_same_source(FeatureStatistics(extractor.dim, own), reference.statistics)
    except InputError as error:
        raise InputError(f"{reference.source} does not fit --extractor: {error}") from None
    if reference.statistics.source is None:
        _LOG.warning(
            "warning: %s does not say by which network and resize its statistics were made; the "
            "figures hold if it was %s, resize %s",
            reference.source,
            extractor.name,
            extractor.resize,
        )
