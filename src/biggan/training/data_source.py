"""A recipe's data, loaded or opened as a stream."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch

from biggan.atomic_write import make_folder
from biggan.data import TrainingData, load_dataset
from biggan.data.dataset import DatasetOutline, is_address
from biggan.distributed import is_first, on_any_process, raising_together
from biggan.errors import InputError
from biggan.training.config import TrainConfig

if TYPE_CHECKING:
    from biggan.data import ShardStream

# Seconds for which one process counts and the others wait: less than their patience.
_TURN = 300.0


@dataclass(frozen=True)
class UncountedStream:
    """What is known of a stream before its samples are counted.

    Attributes:
        shards: How many there are.
        num_classes: 0 for a stream without classes; None where counting must find them.
    """

    shards: int
    num_classes: int | None


def open_data(
    config: TrainConfig, run_dir: Path, device: torch.device, *, strict: bool
) -> TrainingData:
    """Load a recipe's data, or open a stream of them.

    Several processes must call it together: the first one counts a stream's samples for all.

    Args:
        config: The recipe.
        run_dir: The run's folder, created where a stream's index must lie in it.
        device: Where to train.
        strict: Refuse corrupt images.

    Raises:
        InputError: Something about the data must be mended; on all processes.
    """
    if config.stream:
        _count_together(config, run_dir)
    with raising_together():
        if config.stream:
            return _open_stream(config, run_dir, _decoding_threads(device), strict=strict)
        _check_on_disk(config)
        return load_dataset(
            config.data,
            config.generator.resolution,
            config.generator.image_channels,
            strict=strict,
            unconditional=config.unconditional,
            progress=is_first(),
        )


Outline: TypeAlias = "DatasetOutline | ShardStream | UncountedStream"
"""What can be said of a recipe's data without loading them."""


def look_at_data(config: TrainConfig, run_dir: Path | None, *, strict: bool) -> Outline:
    """The same for one process that writes nothing: no image is decoded, no stream counted.

    Raises:
        InputError: Something about the data must be mended.
    """
    from biggan.data.loading import outline_dataset
    from biggan.data.shards import expand_shards, index_file, known_classes, read_index

    if not config.stream:
        _check_on_disk(config)
        return outline_dataset(
            config.data,
            config.generator.resolution,
            config.generator.image_channels,
            strict=strict,
            unconditional=config.unconditional,
        )
    urls = expand_shards(config.data)
    class_names = _class_names(config)
    written = run_dir is not None or not is_address(urls[0])
    if written and read_index(urls, index_file(urls, run_dir)) is not None:
        return _open_stream(config, run_dir, 1, strict=strict)
    table = known_classes(urls) if class_names is None else class_names
    return UncountedStream(len(urls), None if table is None else len(table))


def _check_on_disk(config: TrainConfig) -> None:
    if is_address(config.data):
        raise InputError(
            f"{config.data} is an address, and what is not on a disk can only be streamed: "
            "--set stream=true, for tar shards"
        )


def _count_together(config: TrainConfig, run_dir: Path) -> None:
    """See to it that the index knows all shards, without that other processes give up waiting."""
    from biggan.data.shards import count_shards, expand_shards, index_file

    complete = False
    while not complete:
        with raising_together():
            if is_first():
                _class_names(config)  # a mistake here is better told before hours of counting
                urls = expand_shards(config.data)
                file = index_file(urls, run_dir)
                make_folder(file.parent)
                complete = count_shards(urls, file, seconds=_TURN)
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
    )


def _class_names(config: TrainConfig) -> tuple[str, ...] | None:
    """The classes as the recipe says them; None where it leaves them to the shards."""
    if config.unconditional:
        return ()
    from biggan.data.tars import read_class_names

    return read_class_names(Path(config.classes)) if config.classes else None


def _decoding_threads(device: torch.device) -> int:
    """Threads that decode while a step computes."""
    if device.type == "cpu":
        return 1  # the step needs all cores, and more of them than decoding does
    here = os.environ.get("LOCAL_WORLD_SIZE", "")
    processes = int(here) if here.isdecimal() else 1
    return max(1, (os.cpu_count() or 1) // max(1, processes))
