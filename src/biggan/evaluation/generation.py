"""The images that a generator makes for an evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biggan.data.loading import check_memory
from biggan.errors import InputError
from biggan.evaluation.features import ImageSet, image_bar
from biggan.evaluation.result import versions
from biggan.gan import Gan
from biggan.images import to_uint8
from biggan.latents import NoiseKind, make_noise, statistics_truncation
from biggan.sampling import generate_batches


@dataclass(frozen=True)
class Protocol:
    """How many images are made, and of what noise.

    Attributes:
        num: Images; the paper takes 50,000.
        seed: Of the noise. Classes take turns.
        noise: What truncation means.
        batch_size: Images at once; None for what suits the device.
    """

    num: int = 50_000
    seed: int = 0
    noise: NoiseKind = "hub"
    batch_size: int | None = None


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

    Attributes:
        labels: int64 (num,). Classes take turns.
        title: The model and the truncation, for people.
    """

    def __init__(self, gan: Gan, protocol: Protocol, truncation: float | None) -> None:
        self.labels = labels_in_turn(len(gan.class_names), protocol.num)
        named = "untruncated" if truncation is None else f"truncation {truncation:g}"
        self.title = f"{gan.name}, {named}"
        self._gan, self._protocol, self._truncation = gan, protocol, truncation
        z_dim = gan.config.z_dim
        noise = make_noise(protocol.num, z_dim, truncation, protocol.seed, kind=protocol.noise)
        self._noise = torch.from_numpy(noise)

    def make(self, numbers: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Make the images of these numbers, int64 (n,).

        Yields:
            A position in `numbers`, and uint8 images (m, C, R, R) of those from there on.

        Raises:
            InputError: An image is NaN or infinite.
        """
        made = generate_batches(
            self._gan.engine,
            self.labels[numbers],
            self._noise[numbers],
            statistics_truncation(self._truncation, self._protocol.noise),
            self._protocol.batch_size,
        )
        for batch in made:
            # They would become black pixels.
            if not (finite := batch.images.isfinite().flatten(1).all(1)).all():
                first = batch.start + int(finite.logical_not().nonzero()[0])
                raise InputError(
                    f"{self.title}: image {int(numbers[first])} holds NaN or infinite values: the "
                    "model's training diverged, or its file is not what it should be"
                )
            yield batch.start, to_uint8(batch.images).cpu()

    def image_set(
        self, extractor: dict[str, Any], *, per_class: bool, progress: bool = True
    ) -> ImageSet:
        """All of them, for this extractor."""

        def batches(numbers: range) -> Iterator[tuple[int, Tensor]]:
            for position, images in self.make(torch.arange(numbers.start, numbers.stop)):
                yield numbers.start + position, images

        about = describe_generation(self._gan, self._protocol) | {
            "model": self._gan.sha256,
            "truncation": self._truncation,
            "extractor": extractor,
            "versions": versions(),
        }
        return ImageSet(
            self.labels, batches, lambda: self._make_all(progress), about, self.title, per_class
        )

    def _make_all(self, progress: bool) -> Tensor:
        """All images in memory: uint8 (num, C, R, R)."""
        config, num = self._gan.config, self._protocol.num
        shape = (num, config.image_channels, config.resolution, config.resolution)
        try:
            check_memory(Path(self.title), shape)
        except InputError:
            raise InputError(
                f"cas keeps the {num:,} images that it trains on in memory, which is too small "
                "for them: make fewer (--num), or leave it out"
            ) from None
        images = torch.empty(shape, dtype=torch.uint8)
        with image_bar(num, f"{self.title}, to train on", progress) as bar:
            for position, some in self.make(torch.arange(num)):
                images[position : position + len(some)] = some
                bar.update(len(some))
        return images
