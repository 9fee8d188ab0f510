"""Teaching a classifier, and asking it: both are functions of images, recipe and seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from biggan.data import ShuffledStream, flips
from biggan.errors import InputError
from biggan.images import from_uint8
from biggan.metrics.classifier.files import Checkpoint
from biggan.metrics.classifier.network import (
    Classifier,
    ClassifierConfig,
    images_at_once,
    placed,
    reproducible_convolutions,
)

_EPOCHS, _LEAST_STEPS = 10, 300  # by default
_BATCH = 64
_LEARNING_RATE, _MOMENTUM, _WEIGHT_DECAY = 0.1, 0.9, 5e-4
_WARM_UP = 0.15  # of all steps
_SHIFT = 1 / 8  # of the side: how far an image is moved at most
_LOSS_EVERY = 20  # steps
_SHIFTING = 0x534846  # what the random numbers are for: keeps the streams of one seed apart


@dataclass(frozen=True)
class ClassifierTraining:
    """What decides a classifier besides its images, its shape and the kind of processor.

    Attributes:
        steps: Batches of 64 images.
        seed: Of the held-out images, the first weights, the order and the augmentation.
        flip: Whether to mirror one half of the images. Not for what has a left and a right, such
            as letters and digits.
    """

    steps: int
    seed: int = 0
    flip: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"a classifier needs at least 1 step, not {self.steps}")
        if self.seed < 0:
            raise InputError(f"a seed is 0 or more, not {self.seed}")


def default_steps(num_images: int) -> int:
    """How long to train on so many images: 10 epochs, but at least 300 steps."""
    return max(_LEAST_STEPS, math.ceil(_EPOCHS * num_images / _BATCH))


def fit_classifier(
    config: ClassifierConfig,
    training: ClassifierTraining,
    images: Tensor,
    labels: Tensor,
    chosen: NDArray[np.int64],
    *,
    device: str | torch.device,
    checkpoint: Checkpoint | None = None,
    progress: bool = True,
) -> Classifier:
    """Train a classifier by SGD with Nesterov's momentum and cross-entropy.

    All that is random is a function of the seed and the step.

    Args:
        config: Its shape.
        training: The recipe.
        images: uint8 (N, C, R, R); they may be mapped from the disk.
        labels: int64 (N,).
        chosen: The indices of the images to train on.
        device: Where to train.
        checkpoint: Where to go on from, and to save to; None for neither.
        progress: Whether to show a bar on a terminal.

    Returns:
        The network in eval mode.

    Raises:
        InputError: Training diverged, or a checkpoint cannot be used or written.
    """
    network = placed(Classifier(config, training.seed), device)
    optimizer = torch.optim.SGD(
        network.train().parameters(),
        momentum=_MOMENTUM,
        nesterov=True,
        weight_decay=_WEIGHT_DECAY,
    )
    start = checkpoint.restore(network, optimizer) if checkpoint else 0
    stream = ShuffledStream(len(chosen), training.seed)
    with (
        reproducible_convolutions(),
        _bar("training the classifier", training.steps, start, progress) as bar,
    ):
        for step in range(start, training.steps):
            indices = torch.from_numpy(chosen[stream.indices(step * _BATCH, _BATCH)])
            batch = from_uint8(augment(images[indices], training, step).to(device))
            optimizer.param_groups[0]["lr"] = _learning_rate(step, training.steps)
            optimizer.zero_grad()
            loss = F.cross_entropy(network(batch), labels[indices].to(device))
            loss.backward()
            optimizer.step()
            bar.update()
            done = step + 1
            if done % _LOSS_EVERY == 0 or done == training.steps:
                bar.set_postfix(loss=f"{_finite(loss.item(), done):.3f}")
            if checkpoint:
                checkpoint.save_when_due(network, optimizer, done, say=bar.disable)
    return network.eval()


def _learning_rate(step: int, steps: int) -> float:
    """Rises linearly, falls along a cosine."""
    warm_up = max(1, round(_WARM_UP * steps))
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    return _LEARNING_RATE * min(1.0, (step + 1) / warm_up) * cosine


def augment(images: Tensor, training: ClassifierTraining, step: int) -> Tensor:
    """Move each image of a step's batch by up to an eighth of its side, and perhaps mirror it.

    Args:
        images: uint8 (N, C, R, R) on the CPU.
        training: The recipe.
        step: Selects the random numbers, with the recipe's seed.

    Returns:
        The same shape; what moves in repeats the pixels at the edge.
    """
    count, side = len(images), images.shape[-1]
    if training.flip:
        mirrored = torch.from_numpy(flips(training.seed, step * count, count))
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    furthest = round(_SHIFT * side)
    random = np.random.default_rng([training.seed, _SHIFTING, step])
    moves = torch.from_numpy(random.integers(-furthest, furthest + 1, (2, count, 1)))
    down, right = (torch.arange(side) + moves).clamp(0, side - 1)  # where from, (N, R)
    picked = torch.arange(count)[:, None, None]
    return images[picked, :, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def predict(
    network: Classifier, images: Tensor, chosen: NDArray[np.int64], *, progress: bool = True
) -> Tensor:
    """The most likely classes of images.

    Args:
        network: In eval mode.
        images: uint8 (N, C, R, R) of its resolution; they may be mapped from the disk.
        chosen: The indices of the images to look at.
        progress: Whether to show a bar, where it takes over two seconds, on a terminal.

    Returns:
        int64 (len(chosen),) on the CPU.
    """
    device = network.linear.weight.device
    parts = torch.from_numpy(chosen).split(images_at_once(network.config.resolution**2))
    guesses = []
    with (
        reproducible_convolutions(),
        _bar("testing", len(chosen), 0, progress, delay=2) as bar,
    ):
        for indices in parts:
            logits = network(from_uint8(images[indices].to(device)))
            guesses.append(logits.argmax(dim=1).cpu())
            bar.update(len(indices))
    return torch.cat(guesses)


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise InputError(f"training the classifier diverged at step {step}: choose another --seed")
    return loss


def _bar(what: str, total: int, start: int, enabled: bool, delay: float = 0) -> tqdm[NoReturn]:
    return tqdm(
        total=total,
        initial=start,
        desc=what,
        delay=delay,
        disable=None if enabled else True,  # None: only on a terminal
    )
