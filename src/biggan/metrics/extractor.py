"""What turns images into the features that metrics compare."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class Features(NamedTuple):
    """What a network sees in N images."""

    features: Tensor
    """float32 (N, dim), what distances are taken between."""
    logits: Tensor
    """float32 (N, num_classes), of which the softmax is the distribution over classes."""


class FeatureExtractor(Protocol):
    """A trained classifier, cut open before its last layer.

    Attributes:
        name: As it stands beside every figure, such as "TF-Inception 2015-12-05".
        sha256: Digest of its weights file.
        resize: The rule by which images of another size are brought to the network's.
        channels: Of the images it takes: 1 for grey, 3 for colour.
        dim: Width of the features.
        num_classes: Width of the logits.
    """

    name: str
    sha256: str
    resize: str
    channels: int
    dim: int
    num_classes: int

    def extract(self, images: Tensor) -> Features:
        """Look at images, uint8 (N, channels, H, W) in [0, 255], of any size.

        Image k's features do not depend on the other images.
        """
