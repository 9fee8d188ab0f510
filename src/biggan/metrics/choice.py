"""From a word or a file to the network whose features are compared."""

from __future__ import annotations

from pathlib import Path

import torch

from biggan.errors import InputError
from biggan.metrics.classifier import ClassifierFeatures
from biggan.metrics.extractor import FeatureExtractor
from biggan.metrics.inception import InceptionFeatures, Resize
from biggan.weights.files import is_ours

INCEPTION = "inception"  # the word that means TF-Inception, fetched once


def open_extractor(
    source: str | Path,
    *,
    resize: Resize | None = None,
    device: torch.device | str = "cpu",
    offline: bool = False,
) -> FeatureExtractor:
    """Open a feature extractor; its kind is found from the contents.

    Args:
        source: "inception" for TF-Inception 2015-12-05 from the cache or the internet; its weights
            file; or a classifier that `train_classifier` wrote.
        resize: Of TF-Inception; the graph's own if left out. A classifier has only its own.
        device: Where it runs.
        offline: Never touch the network.

    Raises:
        InputError: Nothing loadable is there, the file is damaged, or it has no such resize.
    """
    if source == INCEPTION:
        path = None
    else:
        path = Path(source).expanduser()
        if path.suffix == ".safetensors" and is_ours(path):
            if resize is not None:
                raise InputError(
                    f"--resize is for TF-Inception, and {path} holds another network, which "
                    f"resizes in its own way ({ClassifierFeatures.resize}): leave it out"
                )
            return ClassifierFeatures(path, device=device)
    return InceptionFeatures(path, resize=resize or "tensorflow", device=device, offline=offline)
