"""From what was kept of two sets of images to figures."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from biggan.errors import InputError
from biggan.evaluation.collection import KEPT_FEATURES, KEPT_LOGITS, FeatureCollection
from biggan.metrics.extractor import FeatureExtractor
from biggan.metrics.frechet_distance import frechet_distance
from biggan.metrics.inception import InceptionFeatures
from biggan.metrics.inception_score import inception_score
from biggan.metrics.intra_class import intra_class_frechet_distance
from biggan.metrics.kernel_inception_distance import kernel_inception_distance
from biggan.metrics.precision_recall import precision_recall

MetricName = Literal["fid", "is", "kid", "pr", "accuracy", "intra-fid", "cas"]
METRICS: tuple[MetricName, ...] = get_args(MetricName)
DEFAULT_METRICS: tuple[MetricName, ...] = ("fid", "is", "kid", "pr")
OF_STATISTICS: tuple[MetricName, ...] = ("fid", "is")
"""What can be said where of the data only statistics are known."""

OF_CLASSES: tuple[MetricName, ...] = ("accuracy", "intra-fid", "cas")
"""What compares class with class."""

_SPLITS = 10  # of an Inception Score
_SUBSETS, _SUBSET_SIZE = 100, 1000  # of a kernel distance
_NEIGHBORS = 3  # of precision and recall

_OF_INCEPTION = {
    "fid": "fid",
    "is": "is",
    "is_std": "is_std",
    "kid": "kid",
    "kid_std": "kid_std",
    "intra_fid": "intra_fid",
}
# Of another network the same formulas give something else, which takes another name.
_OF_OTHERS = {
    "fid": "frechet_distance",
    "is": "classifier_score",
    "is_std": "classifier_score_std",
    "kid": "kernel_distance",
    "kid_std": "kernel_distance_std",
    "intra_fid": "intra_class_frechet_distance",
}


class Scores(NamedTuple):
    """Figures of one set of images.

    Attributes:
        values: By their names.
        per_class: By their names, then by class, for metrics that look at classes one by one. None
            for a class that has none.
    """

    values: dict[str, float]
    per_class: dict[str, dict[int, float | None]]


def needs_features(metrics: tuple[MetricName, ...]) -> bool:
    """Whether any of them is of an extractor's features."""
    return any(metric != "cas" for metric in metrics)


def needs_classes(metrics: tuple[MetricName, ...]) -> bool:
    """Whether any of them compares class with class."""
    return any(metric in OF_CLASSES for metric in metrics)


def score_name(metric: str, extractor: FeatureExtractor) -> str:
    """What a figure may be called: "fid" is one of TF-Inception's features alone."""
    names = _OF_INCEPTION if isinstance(extractor, InceptionFeatures) else _OF_OTHERS
    return names.get(metric, metric)


def compute_scores(
    images: FeatureCollection,
    reference: FeatureCollection,
    metrics: tuple[MetricName, ...],
    extractor: FeatureExtractor,
) -> Scores:
    """All figures of features that are asked for, under the names of `score_name`.

    Raises:
        InputError: Too few images for a metric.
    """
    scores: dict[str, float] = {}
    per_class: dict[str, dict[int, float | None]] = {}
    if "fid" in metrics:
        scores["fid"] = frechet_distance(images.statistics, reference.statistics)
    if "is" in metrics:
        scores["is"], scores["is_std"] = inception_score(torch.cat(images.logits), _SPLITS)
    if "kid" in metrics or "pr" in metrics:
        made, real = torch.cat(images.features), torch.cat(reference.features)
        if "kid" in metrics:
            size = min(_SUBSET_SIZE, len(made), len(real))
            kid = kernel_inception_distance(made, real, size, _SUBSETS)
            scores["kid"], scores["kid_std"] = kid
        if "pr" in metrics:
            scores |= precision_recall(real, made, _NEIGHBORS)._asdict()
    if "intra-fid" in metrics:
        intra = intra_class_frechet_distance(reference.by_class, images.by_class)
        scores["intra_fid"] = intra.mean
        per_class[score_name("intra_fid", extractor)] = {**intra.per_class}
    return Scores({score_name(name, extractor): value for name, value in scores.items()}, per_class)


def accuracy(guesses: Tensor, labels: Tensor) -> tuple[float, dict[int, float | None]]:
    """The share of images that a classifier reads as their class: of all, and of each class.

    Shmelkov et al. 2018, "How good is my GAN?", call it GAN-test where the classifier has learnt
    from real images.
    """
    right = (guesses == labels).double()
    per_class = {label: right[labels == label].mean().item() for label in labels.unique().tolist()}
    return right.mean().item(), {**per_class}


def describe_metrics(
    metrics: tuple[MetricName, ...], num: int, num_reference: int | None
) -> dict[str, Any]:
    """What decides the figures of `compute_scores` besides the features themselves.

    Args:
        metrics: Those that are measured.
        num: Images made or given.
        num_reference: Images of the data; None if statistics do not say.
    """
    made, real = min(num, KEPT_FEATURES), min(num_reference or 0, KEPT_FEATURES)
    settings: dict[MetricName, dict[str, int]] = {
        "is": {"splits": _SPLITS, "images": min(num, KEPT_LOGITS)},
        "kid": {"subsets": _SUBSETS, "subset_size": min(_SUBSET_SIZE, made, real)},
        "pr": {"neighbors": _NEIGHBORS, "images": made, "reference_images": real},
    }
    return {name: settings[name] for name in metrics if name in settings}


def reference_score(reference: FeatureCollection) -> float:
    """The Inception Score of the data themselves."""
    return inception_score(torch.cat(reference.logits), _SPLITS).mean


def check_metrics(text: str) -> tuple[MetricName, ...]:
    """Read a list of metrics such as "fid,is".

    Raises:
        InputError: One of them is unknown.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names:
        raise InputError(
            f"there is no metric {', '.join(unknown) or 'in an empty list'}: "
            f"choose of {', '.join(METRICS)}"
        )
    return tuple(name for name in METRICS if name in names)
