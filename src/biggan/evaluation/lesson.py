"""Classification accuracy score within an evaluation: what it learns from, its recipe, its cost."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from biggan.data import ImageDataset
from biggan.metrics.classification_accuracy import (
    ClassificationAccuracy,
    classification_accuracy_score,
)
from biggan.metrics.classifier import default_steps, default_width

_LOG = logging.getLogger("biggan.evaluation")


def describe_lesson(num: int, dataset: ImageDataset, *, flip: bool) -> dict[str, Any]:
    """All that decides a classification accuracy score besides the images.

    Args:
        num: Images to learn from.
        dataset: Images to be tested on.
        flip: Whether the classifier may see images mirrored.
    """
    return {
        "steps": default_steps(num),
        "width": default_width(dataset.images.shape[-1]),
        "seed": 0,
        "flip": flip,
        "tested_on": len(dataset),
    }


def teach(
    images: Tensor,
    labels: Tensor,
    dataset: ImageDataset,
    *,
    flip: bool,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> ClassificationAccuracy:
    """Train a classifier on images and test it on a dataset; see `describe_lesson`."""
    about = describe_lesson(len(images), dataset, flip=flip)
    _LOG.info("cas: training a classifier for %d steps on %d images", about["steps"], len(images))
    return classification_accuracy_score(
        images,
        labels,
        dataset.images,
        dataset.labels,
        steps=about["steps"],
        seed=about["seed"],
        flip=flip,
        width=about["width"],
        device=device,
        progress=progress,
    )
