"""What evaluation keeps of the images that it has seen: enough for every metric.

The images themselves go by: of all of them the statistics are kept, of a random part the features
and logits, since distances between all pairs and a sort of all logits are asked for as well. What
is kept is written to a file every now and then, so that a run that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from biggan.atomic_write import make_folder
from biggan.distributed import is_first, num_processes, own_range
from biggan.errors import InputError
from biggan.metrics.extractor import FeatureExtractor
from biggan.metrics.statistics import FeatureStatistics
from biggan.weights.cache import cache_dir
from biggan.weights.files import FORMAT, load_tensors, save_tensors

KEPT_FEATURES = 10_000  # images whose features are kept: as many as precision and recall take
KEPT_LOGITS = 50_000  # likewise for the Inception Score
_SAVE_EVERY = 60.0  # seconds

_LOG = logging.getLogger("biggan.evaluation")

Batches = Callable[[range], Iterator[tuple[int, Tensor]]]
"""Makes images of these numbers: yields the first one's number and uint8 (n, C, H, W)."""


@dataclass
class FeatureCollection:
    """What is kept of some of `total` images, numbered from 0.

    Attributes:
        statistics: Of the features of all images seen.
        by_class: The same per class; empty if not asked for.
        features: float32 (n, dim) of the images in `numbers`.
        numbers: int64 (n,).
        logits: float32 (m, K) of those in another random part.
        guesses: int64 (k,), the extractor's most likely class of all images seen, in their order.
    """

    statistics: FeatureStatistics
    by_class: dict[int, FeatureStatistics] = field(default_factory=dict)
    features: list[Tensor] = field(default_factory=list)
    numbers: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    guesses: list[Tensor] = field(default_factory=list)

    def merge(self, other: FeatureCollection) -> None:
        """Take in what was kept of other images of the same set."""
        self.statistics.merge(other.statistics)
        for label, statistics in other.by_class.items():
            if label in self.by_class:
                self.by_class[label].merge(statistics)
            else:
                self.by_class[label] = statistics
        self.features += other.features
        self.numbers += other.numbers
        self.logits += other.logits
        self.guesses += other.guesses


@dataclass(frozen=True)
class Task:
    """Images to look at.

    Attributes:
        total: How many there are.
        labels: int64 (total,).
        batches: Makes or reads them.
        provenance: All that decides the outcome, as JSON: the same again is the same.
        what: A word for the progress bar.
        per_class: Whether statistics of every class are wanted.
    """

    total: int
    labels: Tensor
    batches: Batches
    provenance: Mapping[str, Any]
    what: str
    per_class: bool = False

    @property
    def key(self) -> str:
        """A name for files about it."""
        text = json.dumps([self.provenance, self.per_class], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def collect(task: Task, extractor: FeatureExtractor, *, progress: bool = True) -> FeatureCollection:
    """Look at this process's part of the images, or at what is left of it.

    Returns:
        What was kept. It is in `collection_file(task)` as well.
    """
    file = collection_file(task)
    own = own_range(task.total)
    collection, began = _resume(file, extractor.dim, own)
    position = began
    keep_features = _chosen(task.total, KEPT_FEATURES)
    keep_logits = _chosen(task.total, KEPT_LOGITS)
    shown = tqdm(
        total=len(own),
        initial=position - own.start,
        desc=task.what if num_processes() == 1 else f"{task.what}, process 1 of {num_processes()}",
        unit="image",
        delay=2,
        disable=None if progress and is_first() else True,
    )
    saved = time.monotonic()
    with shown:
        for start, images in task.batches(range(position, own.stop)):
            numbers = torch.arange(start, start + len(images))
            seen = extractor.extract(with_channels(images, extractor.channels))
            features, logits = seen.features.cpu(), seen.logits.cpu()
            collection.statistics.update(features)
            if task.per_class:
                _update_classes(collection.by_class, features, task.labels[numbers])
            collection.features.append(features[keep_features[numbers]])
            collection.numbers.append(numbers[keep_features[numbers]])
            collection.logits.append(logits[keep_logits[numbers]])
            collection.guesses.append(logits.argmax(dim=1))
            position = start + len(images)
            shown.update(len(images))
            if time.monotonic() - saved > _SAVE_EVERY:
                _save(file, collection, position)
                saved = time.monotonic()
    if position > began or not file.exists():  # else all was kept before
        _save(file, collection, position)
    return collection


def collection_file(task: Task) -> Path:
    """Where this process keeps what it has seen of a task."""
    part = ""
    if num_processes() > 1:
        own = own_range(task.total)
        part = f"-{own.start}-{own.stop}"
    return cache_dir() / "evaluation" / f"{task.key}{part}.safetensors"


def _chosen(total: int, keep: int) -> Tensor:
    """A random part of `total` numbers, always the same one: bool (total,)."""
    chosen = torch.zeros(total, dtype=torch.bool)
    order = np.random.RandomState(0).permutation(total)
    chosen[torch.from_numpy(order[:keep])] = True
    return chosen


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Grey images for a network that wants colour."""
    if images.shape[1] == 1 and channels == 3:
        return images.expand(-1, 3, -1, -1)
    return images


def _update_classes(
    by_class: dict[int, FeatureStatistics], features: Tensor, labels: Tensor
) -> None:
    for label in labels.unique().tolist():
        of_class = by_class.setdefault(label, FeatureStatistics(features.shape[1]))
        of_class.update(features[labels == label])


def _save(file: Path, collection: FeatureCollection, position: int) -> None:
    make_folder(file.parent)
    tensors = {
        "position": torch.tensor(position),
        "features": _cat(collection.features),
        "numbers": _cat(collection.numbers),
        "logits": _cat(collection.logits),
        "guesses": _cat(collection.guesses),
    }
    statistics = {"all": collection.statistics}
    statistics |= {str(label): of_class for label, of_class in collection.by_class.items()}
    for name, of in statistics.items():
        tensors |= {f"{name}.{key}": value for key, value in of.state_dict().items()}
    save_tensors(file, {"format": FORMAT}, tensors)


def _resume(file: Path, dim: int, own: range) -> tuple[FeatureCollection, int]:
    """What was kept before, and the number of the first image that was not seen."""
    try:
        tensors = load_tensors(file)[1] if file.exists() else None
    except InputError as error:
        _LOG.warning("what was kept before is lost, and is made again: %s", error)
        tensors = None
    if tensors is None or "guesses" not in tensors:  # the files of version 0.1.0 lack them
        return FeatureCollection(FeatureStatistics(dim)), own.start
    states: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        whose, dot, key = name.partition(".")
        if dot:
            states.setdefault(whose, {})[key] = tensor
    statistics = {whose: FeatureStatistics.from_state_dict(s) for whose, s in states.items()}
    collection = FeatureCollection(
        statistics.pop("all"),
        {int(label): of_class for label, of_class in statistics.items()},
        [tensors["features"]],
        [tensors["numbers"]],
        [tensors["logits"]],
        [tensors["guesses"]],
    )
    return collection, int(tensors["position"])


def _cat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if parts else torch.empty(0)
