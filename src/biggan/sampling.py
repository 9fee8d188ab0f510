"""The one loop that makes images.

PNG files, the page, previews of training and metrics all drain this iterator, so that what one of
them shows is what the others measure. Several processes share the work by `generate_own_batches`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biggan.distributed import own_range
from biggan.errors import InputError
from biggan.models import Generator


class ImageBatch(NamedTuple):
    """A run of images: numbers `start` to `start + len(images) - 1` of all that were asked for."""

    start: int
    images: Tensor
    """float32 (N, C, R, R) in [-1, 1], on the generator's device."""


def default_batch_size(device: torch.device) -> int:
    """Images at once: one on a CPU, where its cache is the limit, many on an accelerator."""
    return 1 if device.type == "cpu" else 64


def generate_batches(
    generator: Generator,
    labels: Tensor,
    noise: Tensor | NDArray[np.floating],
    truncation: float | None,
    batch_size: int | None = None,
) -> Iterator[ImageBatch]:
    """Make images, batch by batch; image k does not depend on the batch size.

    Args:
        generator: In eval mode.
        labels: int64 (N,), or class weights (N, num_classes); ignored if unconditional.
        noise: (N, z_dim), used as it is.
        truncation: Chooses the BatchNorm statistics only.
        batch_size: Images at once; None to choose by device.

    Yields:
        The images in order.

    Raises:
        InputError: Shapes that do not fit the generator or each other.
    """
    yield from _generate(generator, labels, noise, truncation, batch_size, range)


def generate_own_batches(
    generator: Generator,
    labels: Tensor,
    noise: Tensor | NDArray[np.floating],
    truncation: float | None,
    batch_size: int | None = None,
) -> Iterator[ImageBatch]:
    """Make this process's part of the images; see `generate_batches`.

    Every process is to be given all labels and noise. Image k is the same whoever makes it, up to
    the rounding of another device or batch size; `ImageBatch.start` is its number among all. With
    one process that is all of them, with more processes than images some make none.
    """
    yield from _generate(generator, labels, noise, truncation, batch_size, own_range)


@torch.inference_mode()
def _generate(
    generator: Generator,
    labels: Tensor,
    noise: Tensor | NDArray[np.floating],
    truncation: float | None,
    batch_size: int | None,
    choose: Callable[[int], range],
) -> Iterator[ImageBatch]:
    """Make those that `choose` names of N images.

    All input is checked, whoever makes the image, so that all processes refuse the same.
    """
    config = generator.config
    noise = torch.as_tensor(noise)
    if noise.ndim != 2 or noise.shape[1] != config.z_dim:
        raise InputError(f"noise must be (N, {config.z_dim}), not {tuple(noise.shape)}")
    if labels.ndim == 0 or len(labels) != len(noise):
        raise InputError(f"{labels.numel()} labels do not fit {len(noise)} rows of noise")
    labels = labels.float() if labels.is_floating_point() else labels.long()
    _check_labels(labels, config.num_classes)
    if generator.training:
        raise ValueError("the generator is in training mode; call eval() first")
    device = next(generator.parameters()).device
    batch_size = default_batch_size(device) if batch_size is None else batch_size
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}")
    numbers = choose(len(noise))
    for start in range(numbers.start, numbers.stop, batch_size):
        rows = slice(start, min(start + batch_size, numbers.stop))
        z = noise[rows].to(device, torch.float32)
        yield ImageBatch(start, generator(z, labels[rows].to(device), truncation))


def _check_labels(labels: Tensor, num_classes: int) -> None:
    if num_classes == 0:
        return
    if labels.is_floating_point():
        if labels.ndim != 2 or labels.shape[1] != num_classes:
            raise InputError(f"class weights must be (N, {num_classes}), not {tuple(labels.shape)}")
    elif labels.ndim != 1:
        raise InputError(f"labels must be (N,), not {tuple(labels.shape)}")
    elif len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < num_classes):
        raise InputError(f"labels must be between 0 and {num_classes - 1}")
