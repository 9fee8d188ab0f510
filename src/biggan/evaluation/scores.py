"""From the features of two sets of images to figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from biggan.classifier import (
    ClassifierConfig,
    ClassifierTraining,
    default_steps,
    default_width,
    fit_classifier,
    predict,
)
from biggan.data import ImageDataset
from biggan.errors import InputError
from biggan.evaluation.features import KEPT_FEATURES, KEPT_LOGITS, FeatureCollection
from biggan.metrics.extractor import FeatureExtractor
from biggan.metrics.frechet_distance import frechet_distance, intra_class_frechet_distance
from biggan.metrics.inception import InceptionFeatures
from biggan.metrics.inception_score import inception_score
from biggan.metrics.kernel_inception_distance import kernel_inception_distance
from biggan.metrics.precision_recall import precision_recall

MetricName = Literal["fid", "is", "kid", "pr", "accuracy", "intra-fid", "cas"]
METRICS: tuple[MetricName, ...] = get_args(MetricName)
DEFAULT_METRICS: tuple[MetricName, ...] = ("fid", "is", "kid", "pr")
OF_STATISTICS: tuple[MetricName, ...] = ("fid", "is")
"""Metrics that need no more of the data than statistics."""

OF_CLASSES: tuple[MetricName, ...] = ("accuracy", "intra-fid", "cas")
"""Metrics that compare class with class."""

_SPLITS = 10  # of an Inception Score
_SUBSETS, _SUBSET_SIZE = 100, 1000  # of a kernel distance
_NEIGHBORS = 3  # of precision and recall

# The names that are for TF-Inception alone, and the names of the same formula for other networks.
_OF_OTHERS = {
    "fid": "frechet_distance",
    "is": "classifier_score",
    "is_std": "classifier_score_std",
    "kid": "kernel_distance",
    "kid_std": "kernel_distance_std",
    "intra_fid": "intra_class_frechet_distance",
}

INTRA_FID = ("intra_fid", _OF_OTHERS["intra_fid"])
"""The names of intra-class distances."""

Row = Mapping[str, Any]
"""A truncation with its scores: {"truncation": t, "scores": {...}}."""


class Scores(NamedTuple):
    """Figures of one set of images: by name, and by name and class."""

    values: dict[str, float]
    per_class: dict[str, dict[int, float]]

    def add(self, name: str, guesses: Tensor, labels: Tensor) -> None:
        """Add an accuracy: of all images, and of each class."""
        self.values[name], self.per_class[name] = accuracy(guesses, labels)


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
            f"choose from {', '.join(METRICS)}"
        )
    return tuple(name for name in METRICS if name in names)


def needs_features(metrics: tuple[MetricName, ...]) -> bool:
    """Whether any of them needs an extractor."""
    return any(metric != "cas" for metric in metrics)


def needs_classes(metrics: tuple[MetricName, ...]) -> bool:
    """Whether any of them compares class with class."""
    return any(metric in OF_CLASSES for metric in metrics)


def score_name(metric: str, extractor: FeatureExtractor) -> str:
    """The name of a figure: only TF-Inception's may be called "fid"."""
    return metric if isinstance(extractor, InceptionFeatures) else _OF_OTHERS.get(metric, metric)


def compute_scores(
    images: FeatureCollection,
    reference: FeatureCollection,
    metrics: tuple[MetricName, ...],
    extractor: FeatureExtractor,
) -> Scores:
    """The figures of features, under the names of `score_name`."""
    scores: dict[str, float] = {}
    per_class: dict[str, dict[int, float]] = {}
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
        distances = intra_class_frechet_distance(reference.by_class, images.by_class)
        scores["intra_fid"] = sum(distances.values()) / len(distances)
        per_class[score_name("intra_fid", extractor)] = distances
    return Scores({score_name(name, extractor): value for name, value in scores.items()}, per_class)


def accuracy(guesses: Tensor, labels: Tensor) -> tuple[float, dict[int, float]]:
    """The share of images that a classifier assigns to their class: of all, and of each class.

    Shmelkov et al. 2018, "How good is my GAN?", call it GAN-test where the classifier was trained
    on real images.
    """
    right = (guesses == labels).double()
    per_class = {label: right[labels == label].mean().item() for label in labels.unique().tolist()}
    return right.mean().item(), per_class


def describe_cas(num: int, dataset: ImageDataset, *, flip: bool) -> dict[str, Any]:
    """All that decides the classification accuracy score besides the `num` generated images."""
    return {
        "steps": default_steps(num),
        "width": default_width(dataset.images.shape[-1]),
        "seed": 0,
        "flip": flip,
        "tested_on": len(dataset),
    }


def classification_accuracy_score(
    images: Tensor,
    labels: Tensor,
    dataset: ImageDataset,
    *,
    steps: int,
    width: int,
    seed: int,
    flip: bool,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> Tensor:
    """Train a classifier on generated images and predict the classes of the dataset's, int64 (M,).

    Ravuri and Vinyals 2019, "Classification Accuracy Score for Conditional Generative Models",
    Section 3: what the generator leaves out of a class, or puts into the wrong one, the classifier
    gets wrong. The paper trains a ResNet-50 on ImageNet; here it is `classifier.Classifier`, so
    scores compare only at the same steps and width.

    The generated images, uint8 (N, C, R, R), have the dataset's size and classes.
    """
    channels, resolution = images.shape[1:3]
    config = ClassifierConfig(resolution, channels, dataset.num_classes, width)
    network = fit_classifier(
        config,
        ClassifierTraining(steps, seed, flip),
        images,
        labels,
        np.arange(len(images)),
        device=device,
        progress=progress,
    )
    return predict(network, dataset.images, np.arange(len(dataset)), progress=progress)


def describe_metrics(
    metrics: tuple[MetricName, ...], num: int, num_reference: int | None
) -> dict[str, Any]:
    """The settings of `compute_scores` for so many images made and real; None if unknown."""
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


def operating_points(
    rows: Sequence[Row], fid: str, score: str, score_of_data: float | None
) -> dict[str, Row]:
    """The points of the paper's Table 2, each the nearest that was measured.

    They are "no truncation", "best <fid>", "<score> of the data" and "best <score>", by the names
    of the two scores; without those that are unknown.
    """
    points: dict[str, Row] = {}
    if untruncated := [row for row in rows if row["truncation"] is None]:
        points["no truncation"] = untruncated[0]
    points[f"best {fid}"] = min(rows, key=lambda row: row["scores"][fid])
    if score_of_data is not None:
        points[f"{score} of the data"] = min(
            rows, key=lambda row: abs(row["scores"][score] - score_of_data)
        )
    points[f"best {score}"] = max(rows, key=lambda row: row["scores"][score])
    return points
