"""From a word or a file to the network whose features are compared."""

from __future__ import annotations

from pathlib import Path

import torch

from biggan.metrics.classifier import ClassifierFeatures
from biggan.metrics.extractor import FeatureExtractor
from biggan.metrics.inception import InceptionFeatures
from biggan.weights.files import is_ours

INCEPTION = "inception"  # the word that means TF-Inception, fetched once


def open_extractor(
    source: str | Path, *, device: torch.device | str = "cpu", offline: bool = False
) -> FeatureExtractor:
    """Open a feature extractor; its kind is found from the contents.

    Args:
        source: "inception" for TF-Inception 2015-12-05 from the cache or the internet; its weights
            file; or a classifier that `train_classifier` wrote.
        device: Where it runs.
        offline: Never touch the network.

    Raises:
        InputError: Nothing loadable is there, or the file is damaged.
    """
    if source == INCEPTION:
        return InceptionFeatures(None, device=device, offline=offline)
    path = Path(source).expanduser()
    if path.suffix == ".safetensors" and is_ours(path):
        return ClassifierFeatures(path, device=device)
    return InceptionFeatures(path, device=device)
