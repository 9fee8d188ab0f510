"""Real images on their way to the networks, so that a step need not wait for them.

A data set that is small beside a GPU's memory lives there as uint8, and is picked and mirrored
there. A larger one is fetched by a second thread while the step before computes. On a CPU neither
happens: the step has every core at work already, and a second thread would take them from it.
All of these give the same images to the bit.

A stream of shards decodes in threads of its own; its order is another one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import count
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biggan.data import ImageDataset, ShuffledStream, TrainingData, fetch, flips
from biggan.devices import to_device
from biggan.distributed import own_share
from biggan.images import from_uint8
from biggan.training.config import TrainConfig

if TYPE_CHECKING:
    from biggan.data import ShardStream

_T = TypeVar("_T")
_Choice = tuple[NDArray[np.int64], NDArray[np.bool_] | None]  # indices, and which to mirror

_RESIDENT_SHARE = 0.2  # of a GPU's memory, for the data; the rest is for training
_AHEAD = 2  # batches


def real_batches(
    config: TrainConfig,
    dataset: TrainingData,
    device: torch.device,
    start: int,
    images: NDArray[np.int64] | None = None,
) -> Generator[tuple[Tensor, Tensor]]:
    """This process's shares of the global batches, from the start-th on, without end.

    Args:
        config: The recipe.
        dataset: Where they come from.
        device: Where they are wanted.
        start: Batches that went before.
        images: The indices of those to train on; None for all. A stream has no indices.

    Yields:
        Images (N, C, R, R) in [-1, 1] and labels (N,), on the device.
    """
    with ExitStack() as opened:
        if images is None:  # of a stream nothing more than the number
            images = np.arange(len(dataset) if isinstance(dataset, ImageDataset) else 0)
        if isinstance(dataset, ImageDataset) and _fits_on(dataset, device):
            batches = pick_on(device, dataset, _choices(config, images, start))
        else:
            if isinstance(dataset, ImageDataset):
                batches = _fetched(config, dataset, images, start)
            else:
                batches = _streamed(config, dataset, start)
            opened.enter_context(closing(batches))
            if device.type != "cpu":
                batches = opened.enter_context(closing(in_background(batches, _AHEAD)))
        for pixels, labels in batches:
            yield from_uint8(to_device(pixels, device)), to_device(labels, device)


def pick_on(
    device: torch.device, dataset: ImageDataset, choices: Iterator[_Choice]
) -> Generator[tuple[Tensor, Tensor]]:
    """What `fetch` gives, from a copy of the data set on a device."""
    images, labels = dataset.images.to(device), dataset.labels.to(device)
    for indices, mirrored in choices:
        chosen = to_device(torch.from_numpy(indices), device)
        picked = images[chosen]
        if mirrored is not None:
            mask = to_device(torch.from_numpy(mirrored), device)[:, None, None, None]
            # An index by the mask would wait for the device, to know how many it picks.
            picked = torch.where(mask, picked.flip(-1), picked)
        yield picked, labels[chosen]


def in_background(items: Iterator[_T], ahead: int) -> Generator[_T]:
    """The same items, made by a second thread up to so many ahead.

    Args:
        items: Without end.
        ahead: How many to make before they are asked for.

    Raises:
        Exception: Whatever making an item raised, in its place.
    """
    thread = ThreadPoolExecutor(max_workers=1)
    try:
        waiting = deque(thread.submit(next, items) for _ in range(ahead))
        while True:
            waiting.append(thread.submit(next, items))
            yield waiting.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)


def _fits_on(dataset: ImageDataset, device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    memory = torch.cuda.get_device_properties(device).total_memory
    return dataset.images.nbytes <= _RESIDENT_SHARE * memory


def _fetched(
    config: TrainConfig, dataset: ImageDataset, images: NDArray[np.int64], start: int
) -> Generator[tuple[Tensor, Tensor]]:
    for choice in _choices(config, images, start):
        yield fetch(dataset, *choice)


def _streamed(
    config: TrainConfig, stream: ShardStream, start: int
) -> Generator[tuple[Tensor, Tensor]]:
    places = own_share(np.arange(config.batch_size), config.accumulation)
    first, size = start * config.batch_size, config.batch_size
    with closing(stream.batches(position + places for position in count(first, size))) as batches:
        for position, (images, labels) in zip(count(first, size), batches, strict=False):
            mirrored = _mirrored(config, position)
            if mirrored is not None:
                mask = torch.from_numpy(mirrored)
                images[mask] = images[mask].flip(-1)
            yield images, labels


def _choices(config: TrainConfig, images: NDArray[np.int64], start: int) -> Iterator[_Choice]:
    stream = ShuffledStream(len(images), config.seed)
    for position in count(start * config.batch_size, config.batch_size):
        indices = images[stream.indices(position, config.batch_size)]
        yield own_share(indices, config.accumulation), _mirrored(config, position)


def _mirrored(config: TrainConfig, position: int) -> NDArray[np.bool_] | None:
    """Which of this process's images of the batch that begins at a position to mirror."""
    if not config.flip:
        return None
    mirrored = flips(config.seed, position, config.batch_size)
    return own_share(mirrored, config.accumulation)
