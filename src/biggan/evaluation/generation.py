"""The model's side of an evaluation: which images are made, and how."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from biggan.data.dataset import check_memory
from biggan.errors import InputError
from biggan.evaluation.collection import Task
from biggan.evaluation.protocol import Protocol, versions
from biggan.gan import Gan
from biggan.images import to_uint8
from biggan.latents import make_noise, statistics_truncation
from biggan.sampling import generate_batches


def labels_in_turn(num_classes: int, num: int) -> Tensor:
    """The classes of the images of an evaluation: int64 (num,); all 0 where there are none."""
    return torch.arange(num) % max(1, num_classes)


def describe_generation(gan: Gan, protocol: Protocol) -> dict[str, Any]:
    """All that decides which images a generator makes for an evaluation, but the truncation."""
    return {
        "num": protocol.num,
        "classes": "in turn" if gan.class_names else "none",
        "seed": protocol.seed,
        "noise": protocol.noise,
        "batch_norm": "statistics recorded for the truncation",
        "weights": "EMA" if gan.description.training else "as published",
        "engine": gan.engine.name,
        "precision": gan.engine.precision,
        "device": str(gan.device),
        "pixels": "uint8",
    }


class Generation:
    """The images of an evaluation at one truncation, numbered from 0; made when asked for.

    Args:
        gan: What makes them.
        protocol: How many, of what noise.
        truncation: None for untruncated noise.

    Attributes:
        labels: int64 (num,). Classes take turns.
        title: The model and the truncation, for people.
    """

    def __init__(self, gan: Gan, protocol: Protocol, truncation: float | None) -> None:
        self.labels = labels_in_turn(len(gan.class_names), protocol.num)
        named = "untruncated" if truncation is None else f"truncation {truncation:g}"
        self.title = f"{gan.name}, {named}"
        self._gan, self._protocol, self._truncation = gan, protocol, truncation
        self._noise = torch.from_numpy(
            make_noise(
                protocol.num, gan.config.z_dim, truncation, protocol.seed, kind=protocol.noise
            )
        )

    def make(self, numbers: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Make the images of these numbers.

        Args:
            numbers: int64 (n,).

        Yields:
            A position in `numbers`, and uint8 images (m, C, R, R) of those from there on.

        Raises:
            InputError: The model makes values that are no colours.
        """
        statistics = statistics_truncation(self._truncation, self._protocol.noise)
        made = generate_batches(
            self._gan.engine,
            self.labels[numbers],
            self._noise[numbers],
            statistics,
            self._protocol.batch_size,
        )
        for batch in made:
            # As pixels they would be black, and would be scored as if that had been meant.
            if not (finite := batch.images.isfinite().flatten(1).all(1)).all():
                first = batch.start + int(finite.logical_not().nonzero()[0])
                raise InputError(
                    f"{self.title}: image {int(numbers[first])} holds NaN or infinite values: the "
                    "model's training diverged, or its file is not what it should be"
                )
            yield batch.start, to_uint8(batch.images).cpu()

    def task(self, extractor: dict[str, Any], *, per_class: bool) -> Task:
        """Looking at all of them."""

        def batches(numbers: range) -> Iterator[tuple[int, Tensor]]:
            for position, images in self.make(torch.arange(numbers.start, numbers.stop)):
                yield numbers.start + position, images

        about = describe_generation(self._gan, self._protocol) | {
            "model": self._gan.sha256,
            "truncation": self._truncation,
            "extractor": extractor,
            "versions": versions(),
        }
        return Task(self._protocol.num, self.labels, batches, about, self.title, per_class)

    def all_images(self, *, progress: bool) -> Tensor:
        """Make all and keep them: uint8 (num, C, R, R).

        Raises:
            InputError: They do not fit into memory.
        """
        config, num = self._gan.config, self._protocol.num
        shape = (num, config.image_channels, config.resolution, config.resolution)
        try:
            check_memory(Path(self.title), shape, None)
        except InputError:
            raise InputError(
                f"cas keeps the {num:,} images that it learns from in memory, which is too small "
                "for them: make fewer (--num), or leave it out"
            ) from None
        images = torch.empty(shape, dtype=torch.uint8)
        bar = tqdm(
            total=num,
            desc=f"{self.title}, to learn from",
            unit="image",
            delay=2,
            disable=None if progress else True,
        )
        with bar:
            for position, some in self.make(torch.arange(num)):
                images[position : position + len(some)] = some
                bar.update(len(some))
        return images
