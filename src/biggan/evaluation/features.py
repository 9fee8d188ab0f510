"""The features of a set of images: their extractor, and what is kept of them, cached and resumable.

Of all images the statistics are kept, of a random subset the features and logits, for metrics that
need all pairs or a sort. They are saved every minute, so that a killed run resumes.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from biggan.atomic_write import make_folder
from biggan.classifier import ClassifierFeatures
from biggan.data.sources import progress_bar
from biggan.distributed import gather, is_first, num_processes, own_range
from biggan.errors import InputError
from biggan.evaluation.images import ImageSet, with_channels
from biggan.metrics.extractor import FeatureExtractor
from biggan.metrics.inception import InceptionFeatures, Resize
from biggan.metrics.statistics import FeatureStatistics
from biggan.weights.files import FORMAT, cache_dir, load_tensors, read_metadata, save_tensors

KEPT_FEATURES = 10_000  # the number that precision and recall take
KEPT_LOGITS = 50_000  # likewise for the Inception Score
_SAVE_EVERY = 60.0  # seconds

_LOG = logging.getLogger("biggan.evaluation")


def open_extractor(
    source: str | Path,
    *,
    resize: Resize | None = None,
    device: torch.device | str = "cpu",
    offline: bool = False,
) -> FeatureExtractor:
    """Open a feature extractor.

    The source is "inception" for TF-Inception 2015-12-05 from the cache or the internet, its
    weights file, or a classifier that `train_classifier` wrote. `resize` is TF-Inception's, by
    default the graph's own; a classifier has only its own.

    Raises:
        InputError: Nothing loadable is there, the file is damaged, or it has no such resize.
    """
    path = None if source == "inception" else Path(source).expanduser()
    if (
        path is not None
        and path.suffix == ".safetensors"
        and read_metadata(path).get("format") == FORMAT
    ):
        if resize is not None:
            raise InputError(
                f"--resize applies to TF-Inception, and {path} contains another network with its "
                f"own resize ({ClassifierFeatures.resize}): omit it"
            )
        return ClassifierFeatures(path, device=device)
    return InceptionFeatures(path, resize=resize or "tensorflow", device=device, offline=offline)


@dataclass
class FeatureCollection:
    """What is kept of a set's images.

    Statistics of all features, and per class if asked for; the features, float32 (n, dim), and the
    logits, (m, K), of two random subsets; and of all images, in their order, `guesses`, int64 (k,):
    the extractor's most likely class.
    """

    statistics: FeatureStatistics
    by_class: dict[int, FeatureStatistics] = field(default_factory=dict)
    features: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    guesses: list[Tensor] = field(default_factory=list)

    def merge(self, other: FeatureCollection) -> None:
        """Add what was kept of the images that follow."""
        self.statistics.merge(other.statistics)
        for label, statistics in other.by_class.items():
            if label in self.by_class:
                self.by_class[label].merge(statistics)
            else:
                self.by_class[label] = statistics
        self.features += other.features
        self.logits += other.logits
        self.guesses += other.guesses


def describe_extractor(extractor: FeatureExtractor) -> dict[str, Any]:
    """What an evaluation says of its extractor."""
    return {name: getattr(extractor, name) for name in ("name", "sha256", "resize", "dim")}


def cache_file(images: ImageSet, extractor: FeatureExtractor, *, per_class: bool) -> Path:
    """Where this process keeps the features of its part of the images."""
    part = own_range(len(images.labels))
    suffix = f"-{part.start}-{part.stop}" if num_processes() > 1 else ""
    name = images.key(describe_extractor(extractor), per_class)
    return cache_dir() / "evaluation" / f"{name}{suffix}.safetensors"


def extract_features(
    images: ImageSet, extractor: FeatureExtractor, *, per_class: bool = False, progress: bool = True
) -> FeatureCollection | None:
    """Extract the features of all images, each process of its own part; cached.

    `per_class` asks for the statistics of every class.

    Returns:
        The whole on the first process, None on the others.
    """
    parts = gather(_extract_own_part(images, extractor, per_class, progress))
    if not parts:
        return None
    whole = parts[0]
    for part in parts[1:]:
        whole.merge(part)
    return whole


def _extract_own_part(
    images: ImageSet, extractor: FeatureExtractor, per_class: bool, progress: bool
) -> FeatureCollection:
    total, file = len(images.labels), cache_file(images, extractor, per_class=per_class)
    own = own_range(total)
    collection, began = _resume(file, extractor.dim, own)
    end = began
    keep_features, keep_logits = (_subset(total, keep) for keep in (KEPT_FEATURES, KEPT_LOGITS))
    processes = num_processes()
    title = images.title if processes == 1 else f"{images.title}, process 1 of {processes}"
    shown, done = progress and is_first(), began - own.start
    saved = time.monotonic()
    with progress_bar(len(own), title, shown, unit="image", initial=done) as bar:
        for batch in images.batches(torch.arange(began, own.stop)):
            start, end = end, end + len(batch)
            found = extractor.extract(with_channels(batch, extractor.channels))
            features, logits = found.features.cpu(), found.logits.cpu()
            collection.statistics.update(features)
            if per_class:
                labels = images.labels[start:end]
                for label in labels.unique().tolist():
                    of_class = collection.by_class.setdefault(
                        label, FeatureStatistics(extractor.dim)
                    )
                    of_class.update(features[labels == label])
            collection.features.append(features[keep_features[start:end]])
            collection.logits.append(logits[keep_logits[start:end]])
            collection.guesses.append(logits.argmax(dim=1))
            bar.update(len(batch))
            if time.monotonic() - saved > _SAVE_EVERY:
                _save(file, collection, end)
                saved = time.monotonic()
    if end > began or not file.exists():
        _save(file, collection, end)
    return collection


def _subset(total: int, keep: int) -> Tensor:
    """A random subset of `total` numbers, always the same one: bool (total,)."""
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[torch.from_numpy(np.random.RandomState(0).permutation(total)[:keep])] = True
    return chosen


def _save(file: Path, collection: FeatureCollection, position: int) -> None:
    make_folder(file.parent)
    tensors = {"position": torch.tensor(position)}
    for name in ("features", "logits", "guesses"):
        parts = getattr(collection, name)
        tensors[name] = torch.cat(parts) if parts else torch.empty(0)
    statistics = {"all": collection.statistics}
    statistics |= {str(label): of_class for label, of_class in collection.by_class.items()}
    for name, of in statistics.items():
        tensors |= {f"{name}.{key}": value for key, value in of.state_dict().items()}
    save_tensors(file, {"format": FORMAT}, tensors)


def _resume(file: Path, dim: int, own: range) -> tuple[FeatureCollection, int]:
    """What was kept before, and the number of the next image."""
    try:
        tensors = load_tensors(file)[1] if file.exists() else {}
    except InputError as error:
        _LOG.warning("cached features are unreadable and are extracted again: %s", error)
        tensors = {}
    if "guesses" not in tensors:  # the files of version 0.1.0 lack them
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
        *([tensors[name]] for name in ("features", "logits", "guesses")),
    )
    return collection, int(tensors["position"])
