"""From a data set to a classifier's file: trained on most of it, judged by the rest.

A file is decided by the images, the recipe and the kind of processor: the same command gives the
same bytes, also after a kill, when it goes on from a checkpoint beside the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biggan._version import __version__
from biggan.data import ImageDataset
from biggan.errors import InputError
from biggan.metrics.classifier.features import ClassifierFeatures
from biggan.metrics.classifier.files import (
    Checkpoint,
    check_same_recipe,
    locked_output,
    read_header,
)
from biggan.metrics.classifier.fitting import (
    ClassifierTraining,
    default_steps,
    fit_classifier,
    predict,
)
from biggan.metrics.classifier.network import Classifier, ClassifierConfig, default_width
from biggan.weights.files import FORMAT, Description, save_tensors

_HELD_OUT = 0.1  # of each class
_SPLITTING = 0x53504C  # what the random numbers are for: keeps the streams of one seed apart


def train_classifier(
    dataset: ImageDataset,
    out: Path,
    *,
    steps: int | None = None,
    seed: int = 0,
    flip: bool = True,
    width: int | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> ClassifierFeatures:
    """Train a classifier on nine tenths of each class and judge it by the rest.

    After an interruption of any kind the same call goes on from a checkpoint beside the file, and
    the result is the same to the bit. What is already complete is not trained again.

    Args:
        dataset: Images with classes; they may be mapped from the disk.
        out: The file to write; its folder is created if needed.
        steps: Batches of 64 images; `default_steps` if left out.
        seed: Of all that is random.
        flip: Whether to mirror one half of the images; see `ClassifierTraining`.
        width: Channels of the first stage; `default_width` if left out.
        device: Where to train.
        progress: Whether to show a bar on a terminal.

    Returns:
        The classifier, as read from the file.

    Raises:
        InputError: The data have no classes or too few images, the file holds or the checkpoint is
            for another classifier, it cannot be written, or training diverged.
    """
    if dataset.num_classes < 2:
        raise InputError(
            f"a classifier needs images of two classes or more, and {dataset.source} has "
            f"{dataset.num_classes or 'none'}: sort them into a folder for each class"
        )
    resolution, channels = dataset.images.shape[-1], dataset.images.shape[1]
    width = default_width(resolution) if width is None else width
    config = ClassifierConfig(resolution, channels, dataset.num_classes, width)
    train_on, held_out = split_held_out(dataset.labels, dataset.num_classes, seed)
    steps = default_steps(len(train_on)) if steps is None else steps
    training = ClassifierTraining(steps, seed, flip)
    recipe = {**asdict(config), **asdict(training), "data_fingerprint": dataset.fingerprint}
    with locked_output(out):
        checkpoint = Checkpoint(out, recipe)
        if out.exists():
            check_same_recipe(read_header(out, "classifier")[0], recipe, out)
        else:
            network = fit_classifier(
                config,
                training,
                dataset.images,
                dataset.labels,
                train_on,
                device=device,
                checkpoint=checkpoint,
                progress=progress,
            )
            _save(out, network, dataset, held_out, recipe, progress=progress)
        checkpoint.path.unlink(missing_ok=True)
    return ClassifierFeatures(out, device)


def split_held_out(
    labels: Tensor, num_classes: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose a tenth of each class, at least one image, to judge a classifier by.

    A class's only image is trained on.

    Args:
        labels: int64 (N,).
        num_classes: All labels are below it.
        seed: Selects the images.

    Returns:
        The indices of the images to train on and of those held out, each ascending.

    Raises:
        InputError: No class has two images.
    """
    order = np.random.default_rng([seed, _SPLITTING]).permutation(len(labels))
    by_class = order[np.argsort(labels.numpy()[order], kind="stable")]
    counts = np.bincount(labels.numpy(), minlength=num_classes)
    quota = np.where(counts > 1, np.maximum(1, np.rint(_HELD_OUT * counts)), 0)
    place_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    held_out = place_in_class < np.repeat(quota, counts)
    if not held_out.any():
        raise InputError("no class has two images, one to train a classifier on and one to test it")
    return np.sort(by_class[~held_out]), np.sort(by_class[held_out])


def _save(
    out: Path,
    network: Classifier,
    dataset: ImageDataset,
    held_out: NDArray[np.int64],
    recipe: Mapping[str, Any],
    *,
    progress: bool,
) -> None:
    """Judge a classifier by the held-out images, and write it with what there is to know of it."""
    guesses = predict(network, dataset.images, held_out, progress=progress)
    right = guesses == dataset.labels[torch.from_numpy(held_out)]
    summary = {
        "data": dataset.source,
        "data_fingerprint": dataset.fingerprint,
        "images": len(dataset),
        "held_out": len(held_out),
        "accuracy": right.double().mean().item(),
        "steps": recipe["steps"],
        "seed": recipe["seed"],
        "flip": recipe["flip"],
        "device": network.linear.weight.device.type,
        "torch": torch.__version__,
    }
    description = Description(
        name=f"classifier of {dataset.source}",
        class_names=dataset.class_names,
        source=f"trained by biggan {__version__} on {dataset.source}",
        training=summary,
    )
    header = {
        "kind": "classifier",
        "config": asdict(network.config),
        "recipe": recipe,
        "description": vars(description),
    }
    save_tensors(out, {"format": FORMAT, "header": json.dumps(header)}, network.state_dict())
