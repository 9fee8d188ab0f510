"""The classifier: a pre-activation ResNet (He et al. 2016), wide and shallow; and its features."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.devices import find_device
from biggan.errors import InputError, quoted
from biggan.images import from_uint8
from biggan.metrics.extractor import (
    Features,
    check_images,
    reproducible_convolutions,
    resize_like_pillow,
)
from biggan.nn import Linear, Uninitialized
from biggan.weights.files import load_tensors
from biggan.weights.load import load_strictly

_STAGES = 3
_LARGEST_SIDE = 32  # of the first stage's input
_PIXELS = 2**19  # of one channel in a batch: 512 images at 32 px


@dataclass(frozen=True)
class ClassifierConfig:
    """The shape of a classifier; `width` channels in the first stage, features 4 times as wide.

    If it is `mirrored`, the finished network averages the features of an image and its mirror
    image.
    """

    resolution: int
    image_channels: int
    num_classes: int
    width: int
    mirrored: bool = False

    def __post_init__(self) -> None:
        bounds = {
            "resolution": (1, 1 << 14),
            "image_channels": (1, 4),
            "num_classes": (2, 1 << 20),
            "width": (1, 1 << 10),
        }
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise InputError(
                    f"a classifier's {name} is at least {least} and at most {most}, not "
                    f"{quoted(value)}"
                )
        if type(self.mirrored) is not bool:
            raise InputError(f"mirrored is true or false, not {quoted(self.mirrored)}")


def default_width(resolution: int) -> int:
    """Channels of the first stage for a resolution: half as many as pixels, from 16 to 64."""
    return min(max(resolution // 2, 16), 64)


class _Conv2d(Uninitialized, nn.Conv2d):
    """A 3x3 or 1x1 convolution without bias, its weights not yet set.

    No 1x1 convolution has a stride here: the backward pass of one with a stride of 2 and 3 or 4
    input channels, channels last, writes outside its memory on CPUs (torch 2.13).
    """

    def __init__(self, in_channels: int, out_channels: int, side: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, side, stride, padding=side // 2, bias=False)


class _ResidualBlock(nn.Module):
    """BatchNorm, ReLU, convolution, twice, added to the input.

    Where the resolution halves, the shortcut averages 2x2 pixels before its 1x1 convolution
    (ResNet-D of He et al. 2019), so that it sees all of them.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = _Conv2d(in_channels, out_channels, 3, stride)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.conv2 = _Conv2d(out_channels, out_channels, 3)
        self.stride = stride
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = _Conv2d(in_channels, out_channels, 1) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        active = F.relu(self.norm1(x))
        if self.shortcut is not None:
            x = self.shortcut(F.avg_pool2d(active, self.stride, ceil_mode=True))
        return x + self.conv2(F.relu(self.norm2(self.conv1(active))))


class Classifier(nn.Module):
    """A residual network whose features are averages over the last map.

    A stem that halves what is larger than 32 px; three stages of one block, each after the first
    at half the resolution and twice the width; global average pooling; one linear layer. The
    initial weights are a function of the seed.
    """

    def __init__(self, config: ClassifierConfig, seed: int) -> None:
        super().__init__()
        self.config = config
        halvings = max(0, math.ceil(math.log2(config.resolution / _LARGEST_SIDE)))
        stride = 2 if halvings else 1
        stem: list[nn.Module] = [_Conv2d(config.image_channels, config.width, 3, stride)]
        for _ in range(halvings - 1):
            stem += [nn.BatchNorm2d(config.width), nn.ReLU()]
            stem += [_Conv2d(config.width, config.width, 3, 2)]
        self.stem = nn.Sequential(*stem)
        widths = [config.width * 2**stage for stage in range(_STAGES)]
        self.blocks = nn.Sequential(
            _ResidualBlock(config.width, widths[0], stride=1),
            *(_ResidualBlock(before, width, stride=2) for before, width in pairwise(widths)),
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.linear = Linear(widths[-1], config.num_classes)
        random = torch.Generator().manual_seed(seed)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(
                    layer.weight, mode="fan_out", nonlinearity="relu", generator=random
                )
        nn.init.kaiming_normal_(self.linear.weight, nonlinearity="linear", generator=random)
        nn.init.zeros_(self.linear.bias)

    @property
    def dim(self) -> int:
        """Width of the features."""
        return self.linear.in_features

    def features(self, images: Tensor) -> Tensor:
        """Map images (N, C, R, R) in [-1, 1] to features (N, dim), none of them negative."""
        if self.config.mirrored and not self.training:
            return (self._features(images) + self._features(images.flip(-1))) / 2
        return self._features(images)

    def _features(self, images: Tensor) -> Tensor:
        x = self.blocks(self.stem(images.contiguous(memory_format=torch.channels_last)))
        return F.relu(self.norm(x)).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, R, R) in [-1, 1] to logits (N, num_classes)."""
        return self.linear(self.features(images))


def placed(network: Classifier, device: str | torch.device) -> Classifier:
    """The network on a device, channels last."""
    network = network.to(find_device(device))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def images_at_once(pixels: int) -> int:
    """The batch size for images of so many pixels."""
    return max(1, _PIXELS // pixels)


class ClassifierFeatures:
    """The features of a classifier that `train_classifier` wrote: a `FeatureExtractor`.

    Images of another size are stretched to its resolution by antialiased bicubic interpolation,
    clamped to [0, 255] and not rounded. The features come back to the CPU.

    Attributes:
        config: Its shape.
        class_names: One per class.
        training: What it was trained on, how long, and its `accuracy` on the `held_out` images.

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
            raise InputError(f"{path} does not describe its classifier: train it again") from None
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
        raise InputError(
            f"{path} contains no {kind}: create one with `biggan classifier DATA --out FILE`"
        )
    return header, tensors, sha256
