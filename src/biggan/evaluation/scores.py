"""From what was kept of two sets of images to figures."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from biggan.errors import InputError
from biggan.evaluation.collection import FeatureCollection
from biggan.metrics.extractor import FeatureExtractor
from biggan.metrics.frechet_distance import frechet_distance
from biggan.metrics.inception import InceptionFeatures
from biggan.metrics.inception_score import inception_score
from biggan.metrics.intra_class import intra_class_frechet_distance
from biggan.metrics.kernel_inception_distance import kernel_inception_distance
from biggan.metrics.precision_recall import precision_recall

MetricName = Literal["fid", "is", "kid", "pr", "intra-fid"]
METRICS: tuple[MetricName, ...] = get_args(MetricName)
DEFAULT_METRICS: tuple[MetricName, ...] = ("fid", "is", "kid", "pr")

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


def score_name(metric: str, extractor: FeatureExtractor) -> str:
    """What a figure may be called: "fid" is one of TF-Inception's features alone."""
    names = _OF_INCEPTION if isinstance(extractor, InceptionFeatures) else _OF_OTHERS
    return names.get(metric, metric)


def compute_scores(
    images: FeatureCollection,
    reference: FeatureCollection,
    metrics: tuple[MetricName, ...],
    extractor: FeatureExtractor,
) -> dict[str, float]:
    """All figures asked for, under the names of `score_name`.

    Raises:
        InputError: Too few images for a metric.
    """
    scores: dict[str, float] = {}
    if "fid" in metrics:
        scores["fid"] = frechet_distance(images.statistics, reference.statistics)
    if "is" in metrics:
        scores["is"], scores["is_std"] = inception_score(torch.cat(images.logits))
    if "kid" in metrics or "pr" in metrics:
        made, real = torch.cat(images.features), torch.cat(reference.features)
        if "kid" in metrics:
            subset = min(1000, len(made), len(real))
            kid = kernel_inception_distance(made, real, subset_size=subset)
            scores["kid"], scores["kid_std"] = kid
        if "pr" in metrics:
            scores |= precision_recall(real, made)._asdict()
    if "intra-fid" in metrics:
        scores["intra_fid"] = intra_class_frechet_distance(reference.by_class, images.by_class).mean
    return {score_name(name, extractor): value for name, value in scores.items()}


def reference_score(reference: FeatureCollection) -> float:
    """The Inception Score of the data themselves."""
    return inception_score(torch.cat(reference.logits)).mean


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
