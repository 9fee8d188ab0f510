"""Classification accuracy score: can a classifier learn from generated images alone.

Ravuri and Vinyals 2019, "Classification Accuracy Score for Conditional Generative Models",
Section 3: a classifier is trained on generated images and tested on real ones. What the generator
leaves out of a class, or puts into the wrong one, the classifier gets wrong. The paper trains a
ResNet-50 on ImageNet; here it is `classifier.Classifier`, so scores compare only at the same steps
and width.
"""

from __future__ import annotations

from typing import Any

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


def describe_cas(num: int, dataset: ImageDataset, *, flip: bool) -> dict[str, Any]:
    """All that decides the score besides the `num` generated images."""
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

    The generated images, uint8 (N, C, R, R), have the dataset's size and classes.
    """
    channels, resolution = images.shape[1:3]
    network = fit_classifier(
        ClassifierConfig(resolution, channels, dataset.num_classes, width),
        ClassifierTraining(steps, seed, flip),
        images,
        labels,
        np.arange(len(images)),
        device=device,
        progress=progress,
    )
    return predict(network, dataset.images, np.arange(len(dataset)), progress=progress)
