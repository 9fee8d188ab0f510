"""The one loop that makes images.

PNG files, the page, previews of training and metrics all drain this iterator, so that what one of
them shows is what the others measure. Several processes share the work by `generate_own_batches`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biggan.devices import describe_out_of_memory, is_out_of_memory
from biggan.distributed import own_range
from biggan.engines import Engine, PyTorchEngine
from biggan.errors import InputError, quoted, whole_number
from biggan.models import Generator

_LOG = logging.getLogger("biggan.sampling")


class ImageBatch(NamedTuple):
    """A run of images: numbers `start` to `start + len(images) - 1` of all that were asked for."""

    start: int
    images: Tensor
    """float32 (N, C, R, R) in [-1, 1], on the generator's device."""


def as_numbers(values: object, what: str) -> Tensor:
    """Somebody's values as a tensor of real numbers.

    Raises:
        InputError: They are none.
    """
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise InputError(f"{what} must be an array of numbers, not {quoted(values)}") from None
    if tensor.is_complex():
        raise InputError(f"{what} must be real numbers, not complex ones")
    return tensor


def generate_batches(
    generator: Generator | Engine,
    labels: Tensor,
    noise: Tensor | NDArray[np.floating],
    truncation: float | None,
    batch_size: int | None = None,
) -> Iterator[ImageBatch]:
    """Make images, batch by batch; image k does not depend on the batch size.

    Where a batch exceeds the device's memory, it is made in halves, and so are those after it.

    Args:
        generator: In eval mode, or an engine that was built from one: building it takes as long as
            a few images.
        labels: int64 (N,), or class weights (N, num_classes); ignored if unconditional.
        noise: (N, z_dim), used as it is.
        truncation: Chooses the BatchNorm statistics only.
        batch_size: Images at once; None for what suits the device.

    Yields:
        The images in order.

    Raises:
        InputError: Shapes that do not fit the generator or each other; not even one image fits the
            memory.
    """
    yield from _generate(generator, labels, noise, truncation, batch_size, range)


def generate_own_batches(
    generator: Generator | Engine,
    labels: Tensor,
    noise: Tensor | NDArray[np.floating],
    truncation: float | None,
    batch_size: int | None = None,
) -> Iterator[ImageBatch]:
    """Make this process's part of the images; see `generate_batches`.

    Every process is to be given all labels and noise. Image k is the same on every process, up to
    the rounding of another device or batch size; `ImageBatch.start` is its number among all. With
    one process that is all of them, with more processes than images some make none.
    """
    yield from _generate(generator, labels, noise, truncation, batch_size, own_range)


@torch.inference_mode()
def _generate(
    generator: Generator | Engine,
    labels: Tensor,
    noise: Tensor | NDArray[np.floating],
    truncation: float | None,
    batch_size: int | None,
    choose: Callable[[int], range],
) -> Iterator[ImageBatch]:
    """Make those that `choose` names of N images.

    Every process checks all input, so that all processes refuse the same.
    """
    config = generator.config
    noise = as_numbers(noise, "noise")
    if noise.ndim != 2 or noise.shape[1] != config.z_dim:
        raise InputError(f"noise must be (N, {config.z_dim}), not {tuple(noise.shape)}")
    if labels.ndim == 0 or len(labels) != len(noise):
        raise InputError(f"{labels.numel()} labels do not fit {len(noise)} rows of noise")
    labels = labels.float() if labels.is_floating_point() else labels.long()
    _check_labels(labels, config.num_classes)
    if batch_size is not None and whole_number(batch_size, "batch_size") < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}")
    engine = generator if isinstance(generator, Engine) else PyTorchEngine(generator)
    size = engine.batch_size if batch_size is None else batch_size
    numbers = choose(len(noise))
    start = numbers.start
    while start < numbers.stop:
        rows = slice(start, min(start + size, numbers.stop))
        z = noise[rows].to(engine.device, torch.float32)
        try:
            images = engine(z, labels[rows].to(engine.device), truncation)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            fault = describe_out_of_memory(error, engine.device)
        else:
            yield ImageBatch(start, images)
            start = rows.stop
            continue
        # The error held the memory of what was made so far until here.
        size = _smaller(len(z), engine, fault)


def _smaller(size: int, engine: Engine, fault: str) -> int:
    """The batch size to try after one was too large."""
    if size == 1:
        lower = ", choose a lower precision" if engine.device.type != "cpu" else ""
        raise InputError(
            f"{fault}; not even one image of {engine.config.resolution} pixels fits: end other "
            f"programs on the device{lower}, or choose another device"
        )
    _LOG.warning("%s; going on with %d images at once instead of %d", fault, size // 2, size)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return size // 2


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
