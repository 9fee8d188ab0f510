"""Classification accuracy score (Ravuri and Vinyals 2019): what generated images can teach.

A classifier is trained on generated images and their labels alone and tested on real images
("Classification Accuracy Score for Conditional Generative Models", Section 3). What the generator
leaves out of a class, or puts into the wrong one, the classifier gets wrong. The paper trains a
ResNet-50 on ImageNet; here it is `classifier.Classifier`, so a score compares with another one only
at the same steps and width, and with the accuracy of the same classifier trained on real images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from biggan.errors import InputError
from biggan.metrics.classifier import (
    ClassifierConfig,
    ClassifierTraining,
    default_width,
    fit_classifier,
    predict,
)


@dataclass(frozen=True)
class ClassificationAccuracy:
    """How many real images a classifier gets right that has only seen generated ones.

    Attributes:
        accuracy: Of all real images, in [0, 1].
        per_class: Of those of each class, the recall in [0, 1]; None for a class without any.
    """

    accuracy: float
    per_class: tuple[float | None, ...]


def classification_accuracy_score(
    images: Tensor,
    labels: Tensor,
    real_images: Tensor,
    real_labels: Tensor,
    *,
    steps: int,
    seed: int = 0,
    flip: bool = True,
    width: int | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> ClassificationAccuracy:
    """Train a classifier on generated images and test it on real ones.

    No image is copied but those of a batch, so all may be mapped from the disk.

    Args:
        images: Generated images, uint8 (N, C, R, R).
        labels: Their classes, int64 (N,).
        real_images: uint8 (M, C, R, R) of the same channels and size.
        real_labels: Their classes, int64 (M,). They decide how many classes there are.
        steps: Batches of 64 images to train on; `classifier.default_steps(N)` is a fair number.
        seed: Of the classifier's weights, the order of the images and the augmentation.
        flip: Whether to mirror one half of the generated images. Not for letters and digits.
        width: Channels of the classifier's first stage; `classifier.default_width` if left out.
        device: Where to train.
        progress: Whether to show bars on a terminal.

    Returns:
        The accuracy on the real images.

    Raises:
        InputError: The two sets do not fit each other, or a number is out of range.
    """
    _check_pair("generated", images, labels)
    _check_pair("real", real_images, real_labels)
    if images.shape[1:] != real_images.shape[1:]:
        raise InputError(
            f"the generated images are {_size(images)} and the real ones {_size(real_images)}: "
            "bring them to one size"
        )
    num_classes = int(real_labels.max()) + 1
    if int(labels.max()) >= num_classes:
        raise InputError(
            f"there are generated images of class {int(labels.max())}, and the real images end at "
            f"class {num_classes - 1}"
        )
    resolution, channels = images.shape[-1], images.shape[1]
    width = default_width(resolution) if width is None else width
    network = fit_classifier(
        ClassifierConfig(resolution, channels, num_classes, width),
        ClassifierTraining(steps, seed, flip),
        images,
        labels,
        np.arange(len(images)),
        device=device,
        progress=progress,
    )
    guesses = predict(network, real_images, np.arange(len(real_images)), progress=progress)
    return _score(guesses == real_labels, real_labels, num_classes)


def _score(right: Tensor, labels: Tensor, num_classes: int) -> ClassificationAccuracy:
    totals = torch.bincount(labels, minlength=num_classes).tolist()
    hits = torch.bincount(labels[right], minlength=num_classes).tolist()
    return ClassificationAccuracy(
        accuracy=sum(hits) / sum(totals),
        per_class=tuple(
            hit / total if total else None for hit, total in zip(hits, totals, strict=True)
        ),
    )


def _check_pair(which: str, images: Tensor, labels: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[2] != images.shape[3]:
        raise ValueError(
            f"expected uint8 images (N, C, R, R), got {images.dtype} {tuple(images.shape)}"
        )
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"expected int64 labels ({len(images)},), got {labels.dtype} {tuple(labels.shape)}"
        )
    if len(images) == 0:
        raise InputError(f"there are no {which} images")
    if int(labels.min()) < 0:
        raise InputError(f"a {which} image has the class {int(labels.min())}: classes begin at 0")


def _size(images: Tensor) -> str:
    return f"{images.shape[-1]} px with {images.shape[1]} channels"
