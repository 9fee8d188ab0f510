"""A trained classifier, read from its file, as a feature extractor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biggan.classifier.network import (
    Classifier,
    ClassifierConfig,
    images_at_once,
    placed,
)
from biggan.devices import find_device
from biggan.errors import InputError
from biggan.images import from_uint8
from biggan.metrics.extractor import (
    Features,
    check_images,
    reproducible_convolutions,
    resize_like_pillow,
)
from biggan.weights.files import load_tensors
from biggan.weights.networks import load_strictly


class ClassifierFeatures:
    """The features of a classifier that `train_classifier` wrote: a `FeatureExtractor`.

    Images of another size are stretched to its resolution by antialiased bicubic interpolation,
    clamped to [0, 255] and not rounded. The features come back to the CPU.

    Raises:
        InputError: The file is missing, damaged, or holds no classifier.

    Attributes:
        config: Its shape.
        class_names: One per class.
        training: What it was trained on, how long, and its `accuracy` on the `held_out` images.
    """

    resize = "antialiased bicubic"

    def __init__(self, path: Path | str, device: str | torch.device = "cpu") -> None:
        self._device = find_device(device)
        header, tensors, self.sha256 = read_header(Path(path), "classifier")
        try:
            self.config = ClassifierConfig(**header["config"])
            self.class_names = tuple(map(str, header["description"]["class_names"]))
            self.training: dict[str, Any] = dict(header["description"]["training"])
            self.name = f"classifier of {self.training['data']} ({self.sha256[:8]})"
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{path} does not say what its classifier is: train it anew") from None
        self.network = Classifier(self.config, seed=0)
        load_strictly(self.network, tensors, Path(path))
        self.network = placed(self.network, self._device).eval()
        self.channels = self.config.image_channels
        self.dim, self.num_classes = self.network.dim, self.config.num_classes

    @torch.no_grad()
    def extract(self, images: Tensor) -> Features:
        """Extract the features of images, uint8 (N, channels, H, W), of any number and size.

        Raises:
            InputError: It was trained on images with more or fewer channels.
        """
        check_images(images, self.channels, f"the {self.name}")
        pixels = max(images.shape[2] * images.shape[3], self.config.resolution**2)
        with reproducible_convolutions():
            parts = [self._extract(part) for part in images.split(images_at_once(pixels))]
        return Features(*(torch.cat(kind) for kind in zip(*parts, strict=True)))

    def _extract(self, images: Tensor) -> Features:
        images, side = images.to(self._device), self.config.resolution
        if images.shape[2:] != (side, side):
            images = resize_like_pillow(images, side)
        features = self.network.features(from_uint8(images))
        return Features(features.cpu(), self.network.linear(features).cpu())


def read_header(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """The header, tensors and digest of a file of this kind.

    Raises:
        InputError: The file is missing, damaged, or of another kind.
    """
    metadata, tensors, sha256 = load_tensors(path)
    try:
        header = dict(json.loads(metadata["header"]))
    except (KeyError, TypeError, ValueError, RecursionError):
        header = {}
    if header.get("kind") != kind:
        raise InputError(f"{path} holds no {kind}: `biggan classifier DATA --out FILE` makes one")
    return header, tensors, sha256
