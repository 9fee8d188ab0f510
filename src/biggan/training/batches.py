"""A recipe's data, and real images on their way to the networks.

A step need not wait for them. A data set that is small beside a GPU's memory lives there as uint8,
and is picked and mirrored there. A larger one is fetched by a second thread while the step before
computes. On a CPU neither happens: the step has every core at work already, and a second thread
would take them from it. All of these give the same images to the bit.

A stream of shards decodes in threads of its own; its order is another one.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biggan.atomic_write import make_folder
from biggan.data import ImageDataset, ShuffledStream, TrainingData, fetch, flips, load_dataset
from biggan.data.dataset import DatasetOutline, Reading, is_address
from biggan.devices import to_device
from biggan.distributed import is_first, on_any_process, own_share, raising_together
from biggan.errors import InputError
from biggan.images import from_uint8
from biggan.training.config import TrainConfig

if TYPE_CHECKING:
    from biggan.data import ShardStream

_T = TypeVar("_T")
_Choice = tuple[NDArray[np.int64], NDArray[np.bool_] | None]  # indices, and which to mirror

_RESIDENT_SHARE = 0.2  # of a GPU's memory, for the data; the rest is for training
_AHEAD = 2  # batches

# Seconds for which one process counts and the others wait: less than their patience.
_TURN = 300.0


@dataclass(frozen=True)
class UncountedStream:
    """What is known of a stream before its samples are counted."""

    shards: int
    num_classes: int | None
    """0 for a stream without classes; None where counting must find them."""


def open_data(
    config: TrainConfig, run_dir: Path, device: torch.device, *, strict: bool
) -> TrainingData:
    """Load a recipe's data, or open a stream of them, for training on a device.

    Several processes must call it together: the first one counts a stream's samples for all. The
    run's folder is created where a stream's index must lie in it.

    Raises:
        InputError: Something about the data must be mended; on all processes.
    """
    if config.stream:
        _count_together(config, run_dir)
    with raising_together():
        if config.stream:
            return _open_stream(config, run_dir, _decoding_threads(device), strict=strict)
        return load_dataset(
            *_dataset(config), strict=strict, progress=is_first(), **_reading(config)
        )


def look_at_data(
    config: TrainConfig, run_dir: Path | None, *, strict: bool
) -> DatasetOutline | ShardStream | UncountedStream:
    """The same for one process that writes nothing: no image is decoded, no stream counted."""
    if not config.stream:
        from biggan.data.loading import outline_dataset

        return outline_dataset(*_dataset(config), strict=strict, **_reading(config))
    from biggan.data.shards import expand_shards, index_file, read_index
    from biggan.data.tars import read_class_table

    urls = expand_shards(config.data)
    class_names = _class_names(config)
    written = run_dir is not None or not is_address(urls[0])
    if written and read_index(urls, index_file(urls, run_dir), config.label_column or None):
        return _open_stream(config, run_dir, 1, strict=strict)
    table = read_class_table(urls[0]) if class_names is None else class_names
    return UncountedStream(len(urls), None if table is None else len(table))


def _dataset(config: TrainConfig) -> tuple[str, int, int]:
    """What `load_dataset` takes of a recipe that does not stream."""
    if is_address(config.data):
        from biggan.hub import is_dataset

        if not is_dataset(config.data):
            raise InputError(
                f"{config.data} is an address, and addresses can only be streamed: use tar shards "
                "with --set stream=true"
            )
    return config.data, config.generator.resolution, config.generator.image_channels


def _reading(config: TrainConfig) -> Reading:
    return {
        "unconditional": config.unconditional,
        "label_column": config.label_column or None,
        "resize": config.resize,
    }


def _count_together(config: TrainConfig, run_dir: Path) -> None:
    """Let the first process count all shards; the others hear of it before they stop waiting."""
    from biggan.data.shards import count_shards, expand_shards, index_file

    complete = False
    while not complete:
        with raising_together():
            if is_first():
                _class_names(config)  # a mistake here is better told before hours of counting
                urls = expand_shards(config.data)
                file = index_file(urls, run_dir)
                make_folder(file.parent)
                found = count_shards(urls, file, config.label_column or None, seconds=_TURN)
                complete = found is not None
        complete = on_any_process(complete)


def _open_stream(
    config: TrainConfig, run_dir: Path | None, workers: int, *, strict: bool
) -> ShardStream:
    from biggan.data.shards import ShardStream, expand_shards, index_file

    return ShardStream(
        config.data,
        config.generator.resolution,
        config.generator.image_channels,
        _class_names(config),
        config.seed,
        index=index_file(expand_shards(config.data), run_dir),
        window=config.stream_window,
        workers=workers,
        strict=strict,
        label_column=config.label_column or None,
        resize=config.resize,
    )


def _class_names(config: TrainConfig) -> tuple[str, ...] | None:
    """The classes as the recipe says them; None where it leaves them to the shards."""
    from biggan.data.tars import read_class_names

    if config.unconditional:
        return ()
    return read_class_names(Path(config.classes)) if config.classes else None


def _decoding_threads(device: torch.device) -> int:
    """Threads that decode while a step computes."""
    if device.type == "cpu":
        return 1  # the step needs all cores, and more of them than decoding does
    here = os.environ.get("LOCAL_WORLD_SIZE", "")
    processes = int(here) if here.isdecimal() else 1
    return max(1, (os.cpu_count() or 1) // max(1, processes))


def real_batches(
    config: TrainConfig,
    dataset: TrainingData,
    device: torch.device,
    start: int,
    images: NDArray[np.int64] | None = None,
) -> Generator[tuple[Tensor, Tensor]]:
    """This process's shares of the global batches, from the start-th on, without end.

    `images` are the indices of those to train on; None for all. A stream has no indices.

    Yields:
        Images (N, C, R, R) in [-1, 1] and labels (N,), on the device.
    """
    with ExitStack() as opened:
        if isinstance(dataset, ImageDataset):
            choices = _choices(config, np.arange(len(dataset)) if images is None else images, start)
            if _fits_on(dataset, device):
                batches = pick_on(device, dataset, choices)
            else:
                batches = (fetch(dataset, *choice) for choice in choices)
        else:
            batches = _streamed(config, dataset, start)
        opened.enter_context(closing(batches))
        if device.type != "cpu" and not _fits_on(dataset, device):
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
    """The same endless items, made by a second thread up to so many ahead; errors come in place."""
    thread = ThreadPoolExecutor(max_workers=1)
    try:
        waiting = deque(thread.submit(next, items) for _ in range(ahead))
        while True:
            waiting.append(thread.submit(next, items))
            yield waiting.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)


def _fits_on(dataset: TrainingData, device: torch.device) -> bool:
    if device.type != "cuda" or not isinstance(dataset, ImageDataset):
        return False
    memory = torch.cuda.get_device_properties(device).total_memory
    return dataset.images.nbytes <= _RESIDENT_SHARE * memory


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
