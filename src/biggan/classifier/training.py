"""From a dataset to a classifier file: trained on 9 in 10 images, validated on the rest.

The images, the recipe and the kind of processor decide the file: the same command gives the same
bytes, also after a kill, when it resumes from a checkpoint beside the file.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from biggan._version import __version__
from biggan.atomic_write import make_folder
from biggan.classifier.network import (
    Classifier,
    ClassifierConfig,
    ClassifierFeatures,
    default_width,
    images_at_once,
    placed,
    read_header,
)
from biggan.data import ImageDataset, ShuffledStream, flips
from biggan.data.sources import progress_bar
from biggan.errors import InputError
from biggan.images import from_uint8
from biggan.locks import locked
from biggan.metrics.extractor import reproducible_convolutions
from biggan.weights.files import FORMAT, Description, save_tensors

_EPOCHS, _LEAST_STEPS = 10, 300  # by default
_BATCH = 64
_LEARNING_RATE, _MOMENTUM, _WEIGHT_DECAY = 0.1, 0.9, 5e-4
_WARM_UP = 0.15  # of all steps
_SHIFT = 1 / 8  # of the side, the largest shift of the augmentation
_LOSS_EVERY = 20  # steps
_HELD_OUT = 0.1  # of each class
_CHECKPOINT_SECONDS = 30.0
_MOMENTUM_PREFIX = "momentum."
# These keep the random streams of one seed apart.
_SHIFTING, _SPLITTING = 0x534846, 0x53504C

_LOG = logging.getLogger("biggan.classifier")


@dataclass(frozen=True)
class ClassifierTraining:
    """The recipe, besides the images and the network's shape.

    Attributes:
        steps: Batches of 64 images.
        seed: Of the held-out images, the first weights, the order and the augmentation.
        flip: Whether to mirror one half of the images, and to average the finished network's
            features of an image and its mirror image. Not for letters and digits.
        precision: Of convolutions and matrix products while training: bfloat16 is faster on GPUs,
            and on CPUs with AMX or AVX-512 BF16. The finished network is used in float32.
    """

    steps: int
    seed: int = 0
    flip: bool = True
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"a classifier needs at least 1 step, not {self.steps}")
        if self.seed < 0:
            raise InputError(f"a seed is 0 or more, not {self.seed}")


def default_steps(num_images: int) -> int:
    """10 epochs, but at least 300 steps."""
    return max(_LEAST_STEPS, math.ceil(_EPOCHS * num_images / _BATCH))


def train_classifier(
    dataset: ImageDataset,
    out: Path,
    *,
    steps: int | None = None,
    seed: int = 0,
    flip: bool = True,
    precision: Literal["float32", "bfloat16"] = "float32",
    width: int | None = None,
    device: str | torch.device = "cpu",
) -> ClassifierFeatures:
    """Train a classifier on nine tenths of each class, validate it on the rest, and write its file.

    After an interruption the same call resumes; what is already complete is not trained again. The
    images may be mapped from the disk. `steps`, `seed`, `flip` and `precision` are those of
    `ClassifierTraining`, `default_steps` without any; `width` is the channels of the first stage,
    else `default_width`.

    Raises:
        InputError: The data have no classes or too few images, the file or the checkpoint is of
            another classifier, it cannot be written, or training diverged.
    """
    if dataset.num_classes < 2:
        raise InputError(
            f"a classifier needs images of two classes or more, and {dataset.source} has "
            f"{dataset.num_classes or 'none'}: make one folder per class"
        )
    resolution, channels = dataset.images.shape[-1], dataset.images.shape[1]
    width = default_width(resolution) if width is None else width
    config = ClassifierConfig(resolution, channels, dataset.num_classes, width, mirrored=flip)
    train_on, held_out = split_held_out(dataset.labels, dataset.num_classes, seed)
    training = ClassifierTraining(
        default_steps(len(train_on)) if steps is None else steps, seed, flip, precision
    )
    recipe = {**asdict(config), **asdict(training), "data_fingerprint": dataset.fingerprint}
    del recipe["mirrored"]  # as `flip`
    make_folder(out.parent)
    busy = f"another process is training {out}: wait until it ends, or choose another --out"
    with ExitStack() as held:
        try:
            held.enter_context(locked(out.with_name(f".{out.name}.lock"), busy))
        except OSError as error:
            raise InputError(f"cannot write to {out.parent}: {error.strerror}") from None
        checkpoint = Checkpoint(out, recipe)
        if out.exists():
            _check_same_recipe(read_header(out, "classifier")[0], recipe, out)
        else:
            network = fit_classifier(
                config,
                training,
                dataset.images,
                dataset.labels,
                train_on,
                device=device,
                checkpoint=checkpoint,
            )
            guesses = predict(network, dataset.images, held_out)
            right = guesses == dataset.labels[torch.from_numpy(held_out)]
            accuracy = right.double().mean().item()
            _save(out, network, dataset, len(held_out), accuracy, recipe)
        checkpoint.path.unlink(missing_ok=True)
    return ClassifierFeatures(out, device)


def split_held_out(
    labels: Tensor, num_classes: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The indices to train on and to hold out: a tenth of each class, at least one image.

    A class's only image is not held out.

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
        raise InputError(
            "no class has two images: a classifier needs one for training and one for testing"
        )
    return np.sort(by_class[~held_out]), np.sort(by_class[held_out])


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
    """Train by SGD with Nesterov's momentum and cross-entropy on the chosen images.

    The images, uint8 (N, C, R, R), may be mapped from the disk. All random numbers are a function
    of the seed and the step. The network comes back in eval mode.

    Raises:
        InputError: Training diverged, or a checkpoint cannot be used or written.
    """
    network = placed(Classifier(config, training.seed), device)
    optimizer = torch.optim.SGD(
        network.train().parameters(), momentum=_MOMENTUM, nesterov=True, weight_decay=_WEIGHT_DECAY
    )
    start = checkpoint.restore(network, optimizer) if checkpoint else 0
    stream = ShuffledStream(len(chosen), training.seed)
    bar = progress_bar(training.steps, "training the classifier", progress, initial=start)
    with reproducible_convolutions(), bar:
        for step in range(start, training.steps):
            indices = torch.from_numpy(chosen[stream.indices(step * _BATCH, _BATCH)])
            batch = from_uint8(augment(images[indices], training, step).to(device))
            optimizer.param_groups[0]["lr"] = _learning_rate(step, training.steps)
            optimizer.zero_grad()
            with torch.autocast(
                batch.device.type, torch.bfloat16, enabled=training.precision == "bfloat16"
            ):
                logits = network(batch)
            loss = F.cross_entropy(logits.float(), labels[indices].to(device))
            loss.backward()
            optimizer.step()
            bar.update()
            done = step + 1
            if done % _LOSS_EVERY == 0 or done == training.steps:
                if not math.isfinite(value := loss.item()):
                    raise InputError(
                        f"training the classifier diverged at step {done}: choose another --seed"
                    )
                bar.set_postfix(loss=f"{value:.3f}")
            if checkpoint:
                checkpoint.save_when_due(network, optimizer, done, log=bar.disable)
    return network.eval()


def _learning_rate(step: int, steps: int) -> float:
    """Rises linearly, falls along a cosine."""
    warm_up = max(1, round(_WARM_UP * steps))
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    return _LEARNING_RATE * min(1.0, (step + 1) / warm_up) * cosine


def augment(images: Tensor, training: ClassifierTraining, step: int) -> Tensor:
    """Shift images, uint8 (N, C, R, R), by up to an eighth of their side, and mirror one half.

    The pixels at the edge are repeated. The seed and the step select the random numbers.
    """
    count, side = len(images), images.shape[-1]
    if training.flip:
        mirrored = torch.from_numpy(flips(training.seed, step * count, count))
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    furthest = round(_SHIFT * side)
    random = np.random.default_rng([training.seed, _SHIFTING, step])
    moves = torch.from_numpy(random.integers(-furthest, furthest + 1, (2, count, 1)))
    down, right = (torch.arange(side) + moves).clamp(0, side - 1)  # source pixels, (N, R)
    picked = torch.arange(count)[:, None, None]
    return images[picked, :, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def predict(
    network: Classifier, images: Tensor, chosen: NDArray[np.int64], *, progress: bool = True
) -> Tensor:
    """The most likely classes of the chosen images, int64 (len(chosen),) on the CPU."""
    device = network.linear.weight.device
    parts = torch.from_numpy(chosen).split(images_at_once(network.config.resolution**2))
    guesses = []
    with reproducible_convolutions(), progress_bar(len(chosen), "testing", progress) as bar:
        for indices in parts:
            logits = network(from_uint8(images[indices].to(device)))
            guesses.append(logits.argmax(dim=1).cpu())
            bar.update(len(indices))
    return torch.cat(guesses)


class Checkpoint:
    """The unfinished classifier of a recipe, in a file beside the finished one."""

    def __init__(self, out: Path, recipe: Mapping[str, Any]) -> None:
        self.path = out.with_name(f"{out.stem}.checkpoint.safetensors")
        self._recipe = recipe
        self._saved_at = time.monotonic()

    def restore(self, network: Classifier, optimizer: torch.optim.SGD) -> int:
        """Load both; the steps done, 0 where there is no checkpoint or a damaged one.

        Raises:
            InputError: It is of another recipe.
        """
        if not self.path.exists():
            return 0
        try:
            header, tensors, _ = read_header(self.path, "classifier checkpoint")
        except InputError as error:
            _LOG.warning("%s; training from the start", error)
            return 0
        _check_same_recipe(header, self._recipe, self.path)
        for name, parameter in network.named_parameters():
            # In the parameter's memory format, as before: another one may round otherwise.
            momentum = torch.empty_like(parameter).copy_(tensors.pop(_MOMENTUM_PREFIX + name))
            optimizer.state[parameter]["momentum_buffer"] = momentum.detach()
        network.load_state_dict(tensors)
        step: int = header["step"]
        _LOG.info("resuming at step %d of %d", step, self._recipe["steps"])
        return step

    def save_when_due(
        self, network: Classifier, optimizer: torch.optim.SGD, step: int, *, log: bool
    ) -> None:
        """Write both if half a minute has passed."""
        if time.monotonic() - self._saved_at < _CHECKPOINT_SECONDS:
            return
        momenta = {
            _MOMENTUM_PREFIX + name: optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in network.named_parameters()
        }
        header = {"kind": "classifier checkpoint", "recipe": self._recipe, "step": step}
        metadata = {"format": FORMAT, "header": json.dumps(header)}
        save_tensors(self.path, metadata, network.state_dict() | momenta)
        self._saved_at = time.monotonic()
        if log:
            _LOG.info("step %d of %d: checkpoint", step, self._recipe["steps"])


def _save(
    out: Path,
    network: Classifier,
    dataset: ImageDataset,
    held_out: int,
    accuracy: float,
    recipe: Mapping[str, Any],
) -> None:
    description = Description(
        name=f"classifier of {dataset.source}",
        class_names=dataset.class_names,
        source=f"trained by biggan {__version__} on {dataset.source}",
        training={
            "data": dataset.source,
            "data_fingerprint": dataset.fingerprint,
            "images": len(dataset),
            "held_out": held_out,
            "accuracy": accuracy,
            **{key: recipe[key] for key in ("steps", "seed", "flip", "precision")},
            "device": network.linear.weight.device.type,
            "torch": torch.__version__,
        },
    )
    header = {
        "kind": "classifier",
        "config": asdict(network.config),
        "recipe": recipe,
        "description": vars(description),
    }
    save_tensors(out, {"format": FORMAT, "header": json.dumps(header)}, network.state_dict())


def _check_same_recipe(header: Mapping[str, Any], recipe: Mapping[str, Any], path: Path) -> None:
    # Up to version 0.2 files name no precision.
    found = {"precision": "float32", **(header.get("recipe") or {})}
    differing = [
        "other images" if key == "data_fingerprint" else f"{key} {found.get(key)}, not {value}"
        for key, value in recipe.items()
        if found.get(key) != value
    ]
    if differing:
        raise InputError(
            f"{path} belongs to another classifier ({'; '.join(differing)}): delete it, or choose "
            "another --out"
        )
