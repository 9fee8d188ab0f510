"""The images of an evaluation, numbered from 0: those that a generator makes, or a dataset's."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biggan.data import ImageDataset
from biggan.data.loading import check_memory
from biggan.data.sources import progress_bar
from biggan.errors import InputError
from biggan.evaluation.result import versions
from biggan.gan import Gan
from biggan.images import to_uint8
from biggan.latents import NoiseKind, make_noise, statistics_truncation
from biggan.sampling import generate_batches

_BATCH = 64  # images of a dataset at once


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


class ImageSet(ABC):
    """Images in order.

    Attributes:
        labels: Their classes, int64 (N,).
        title: What they are called, for people.
        provenance: All that decides the images and their features but the extractor, as JSON.
    """

    labels: Tensor
    title: str
    provenance: dict[str, Any]

    @abstractmethod
    def batches(self, numbers: Tensor) -> Iterator[Tensor]:
        """The images of ascending numbers, int64 (n,), as batches of uint8 (m, C, R, R).

        Raises:
            InputError: An image is NaN or infinite.
        """

    @abstractmethod
    def load(self, *, progress: bool) -> Tensor:
        """All images in memory: uint8 (N, C, R, R)."""

    def key(self, *settings: Any) -> str:
        """A digest of these images and some settings, for names of files."""
        text = json.dumps([self.provenance, *settings], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class DatasetImages(ImageSet):
    """The images of a dataset."""

    def __init__(self, dataset: ImageDataset) -> None:
        self.labels, self.title = dataset.labels, dataset.source
        # Another version may resize differently.
        self.provenance = {"fingerprint": dataset.fingerprint, "biggan": versions()["biggan"]}
        self._images = dataset.images

    def batches(self, numbers: Tensor) -> Iterator[Tensor]:
        """See `ImageSet`."""
        return (self._images[some] for some in numbers.split(_BATCH) if len(some))

    def load(self, *, progress: bool) -> Tensor:  # noqa: ARG002
        """See `ImageSet`."""
        return self._images


class GeneratedImages(ImageSet):
    """The images of a generator at one truncation, made when asked for; classes take turns."""

    def __init__(self, gan: Gan, protocol: Protocol, truncation: float | None) -> None:
        self.labels = labels_in_turn(len(gan.class_names), protocol.num)
        named = "untruncated" if truncation is None else f"truncation {truncation:g}"
        self.title = f"{gan.name}, {named}"
        self.provenance = describe_generation(gan, protocol) | {
            "model": gan.sha256,
            "truncation": truncation,
            "versions": versions(),
        }
        self._gan, self._protocol, self._truncation = gan, protocol, truncation
        z_dim = gan.config.z_dim
        noise = make_noise(protocol.num, z_dim, truncation, protocol.seed, kind=protocol.noise)
        self._noise = torch.from_numpy(noise)

    def batches(self, numbers: Tensor) -> Iterator[Tensor]:
        """See `ImageSet`."""
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
                    "model's training diverged, or its file is damaged"
                )
            yield to_uint8(batch.images).cpu()

    def load(self, *, progress: bool) -> Tensor:
        """See `ImageSet`."""
        config, num = self._gan.config, self._protocol.num
        shape = (num, config.image_channels, config.resolution, config.resolution)
        try:
            check_memory(Path(self.title), shape)
        except InputError:
            raise InputError(
                f"cas keeps the {num:,} images that it trains on in memory, which is too small: "
                "use fewer (--num), or omit it"
            ) from None
        images, done = torch.empty(shape, dtype=torch.uint8), 0
        title = f"{self.title}, for training"
        with progress_bar(num, title, progress, unit="image") as bar:
            for batch in self.batches(torch.arange(num)):
                images[done : done + len(batch)] = batch
                done += len(batch)
                bar.update(len(batch))
        return images


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


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Grey images for a network that takes colour."""
    return images.expand(-1, 3, -1, -1) if (images.shape[1], channels) == (1, 3) else images
