"""TF-Inception 2015-12-05: the network whose features FID and Inception Score are defined by.

Google published it as a TensorFlow graph on that day; Salimans et al. (2016) took its softmax for
the Inception Score, Heusel et al. (2017) its last pool ("pool3") for FID. It is version 3 of
Szegedy et al. (2015, "Rethinking the Inception Architecture for Computer Vision"), and some of its
peculiarities decide the figures:

- the average pools within blocks divide by the pixels they see, not by those of the padding;
- the pool of the very last block takes the maximum, where the paper and all other blocks average;
- there are 1008 outputs for 1000 classes, and OpenAI's Inception Score leaves their bias out;
- images of another size are resized by the `ResizeBilinear` of TensorFlow 1, in which pixel i of S
  lies at i * H / S: the first pixels of both coincide, nothing is averaged on the way down.

The weights are read from the file into which pytorch-fid converted the graph. Every BatchNorm is
folded into its convolution.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.devices import find_device
from biggan.errors import InputError
from biggan.metrics.extractor import Features
from biggan.metrics.resizing import resize_like_pillow, resize_like_tensorflow
from biggan.weights.cache import cache_dir, exclusive, is_offline
from biggan.weights.download import DownloadError, fetch
from biggan.weights.foreign import ForeignTensors
from biggan.weights.pickles import load_state_dict

NAME = "TF-Inception 2015-12-05"
FILE = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

SIDE = 299  # of what the network sees, in pixels
DIM = 2048
NUM_CLASSES = 1008

Resize = Literal["tensorflow", "pytorch-fid", "pil-bicubic"]
"""Whose way from pixels of any size to what the network sees."""

_BN_EPS = 1e-3
_BATCH, _BATCH_GPU = 8, 64  # images at once; a CPU gains nothing beyond
_PIXELS = 1 << 23  # of one channel before the resize, at once
_BY_HAND = f"If you have it from {URL}, say --extractor FILE or InceptionFeatures(FILE)"


class InceptionFeatures:
    """The features of TF-Inception 2015-12-05: a `FeatureExtractor`.

    In full float32 on every device, without gradients, in batches of its own.

    Args:
        path: The weights file that pytorch-fid publishes, or another of its format. None for that
            very file from the cache, where it is downloaded to if it is not there.
        resize: "tensorflow" is what the graph itself does, and torch-fidelity. "pytorch-fid" is for
            figures to be compared with that program's: it resizes with pixels' centres aligned, and
            maps 255 to 1, not to 127/128. "pil-bicubic" averages on the way down, as Pillow does,
            which Parmar et al. (2022, "On Aliased Resizing and Surprising Subtleties in GAN
            Evaluation") ask for and clean-fid does. The features differ by several per cent, those
            of the second at 299 pixels too: compare figures of one kind only.
        device: Where to compute. The features come back to the CPU.
        offline: Whether to look no further than the cache.

    Raises:
        InputError: The file cannot be had, is damaged, or does not hold this network: every tensor
            that is missing, unexpected or of another shape is named.

    Attributes:
        name: Says so if the weights are not from the published file.
        sha256: Digest of the weights file.
        resize: As given.
        channels: 3.
        dim: 2048.
        num_classes: 1008.
        network: Folded.
    """

    channels = 3
    dim = DIM
    num_classes = NUM_CLASSES

    def __init__(
        self,
        path: Path | str | None = None,
        *,
        resize: Resize = "tensorflow",
        device: torch.device | str = "cpu",
        offline: bool = False,
    ) -> None:
        if resize not in get_args(Resize):
            raise InputError(
                f"there is no resize {resize!r}: choose of {', '.join(get_args(Resize))}"
            )
        self._device = find_device(device)
        file = obtain_weights(offline=offline) if path is None else Path(path).expanduser()
        self.sha256 = _sha256(file)
        if path is None and self.sha256 != SHA256:
            raise InputError(f"{file} is damaged: delete it, and it is downloaded again")
        published = self.sha256 == SHA256
        self.name = NAME if published else f"{NAME} from another file ({self.sha256[:8]})"
        self.resize: str = resize
        network = Inception(ForeignTensors(load_state_dict(file), str(file)))
        self.network = network.float().to(self._device)

    def __call__(self, images: Tensor) -> Tensor:
        """Look at images, uint8 (N, 3, H, W), of any number and size.

        Returns:
            float32 (N, 2048), none of them negative: the last map's averages, called pool3.
        """
        return self.extract(images).features

    def extract(self, images: Tensor) -> Features:
        """Look at images, uint8 (N, 3, H, W), of any number and size.

        Returns:
            pool3, and the logits as OpenAI's Inception Score takes them: without their bias.

        Raises:
            InputError: The images are not in colour.
        """
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(
                f"expected uint8 images (N, 3, H, W), got {images.dtype} {tuple(images.shape)}"
            )
        if images.shape[1] != self.channels:
            raise InputError(
                f"{NAME} looks at images with 3 channels, not {images.shape[1]}: "
                "load them in colour"
            )
        found = Features(
            torch.empty(len(images), self.dim), torch.empty(len(images), self.num_classes)
        )
        batch = _BATCH if self._device.type == "cpu" else _BATCH_GPU
        batch = max(1, min(batch, _PIXELS // (images.shape[2] * images.shape[3])))
        with _full_precision(self._device):
            for start in range(0, len(images), batch):
                part = slice(start, start + batch)
                seen = self.network(self._prepare(images[part].to(self._device)))
                found.features[part], found.logits[part] = seen.features, seen.logits
        return found

    def _prepare(self, images: Tensor) -> Tensor:
        """What the network sees of images: (N, 3, 299, 299), about [-1, 1]."""
        if self.resize == "tensorflow":
            return (resize_like_tensorflow(images, SIDE) - 128) / 128
        if self.resize == "pil-bicubic":
            return (resize_like_pillow(images, SIDE) - 128) / 128
        resized = F.interpolate(
            images.float() / 255, (SIDE, SIDE), mode="bilinear", align_corners=False
        )
        return 2 * resized - 1


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """No TF32, no autocast of a caller's: at 10 bits of mantissa features are another network's."""
    convolutions = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    with convolutions, torch.autocast(device.type, enabled=False):
        yield


def obtain_weights(*, offline: bool = False) -> Path:
    """The published weights file, downloaded into the cache if it is not there.

    Args:
        offline: Whether to look no further than the cache.

    Raises:
        InputError: It cannot be had; the message says why and how to give the file by hand.
    """
    path = cache_dir() / FILE
    if path.is_file():
        return path
    if is_offline(offline):
        raise InputError(
            f"{FILE} is not in the cache {cache_dir()}, and nothing is fetched offline. {_BY_HAND}"
        )
    with exclusive(path, FILE):
        if not path.is_file():
            try:
                fetch(URL, path, sha256=SHA256)
            except DownloadError as error:
                raise InputError(f"{FILE} cannot be fetched ({error.reason}). {_BY_HAND}") from None
    return path


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


class Inception(nn.Module):
    """The network itself, folded; in float64 until it is converted.

    Args:
        tensors: Of a file in pytorch-fid's format. Its names are torchvision's.

    Raises:
        InputError: A tensor is missing, unexpected or not as it should be; all are named.
    """

    output_weight: Tensor

    def __init__(self, tensors: ForeignTensors) -> None:
        super().__init__()
        stem = _Block(tensors)
        self.layers = nn.Sequential(
            stem.conv("Conv2d_1a_3x3", 3, 32, 3, stride=2, padded=False),  # (N, 32, 149, 149)
            stem.conv("Conv2d_2a_3x3", 32, 32, 3, padded=False),  # (N, 32, 147, 147)
            stem.conv("Conv2d_2b_3x3", 32, 64, 3),
            nn.MaxPool2d(3, stride=2),  # (N, 64, 73, 73)
            stem.conv("Conv2d_3b_1x1", 64, 80),
            stem.conv("Conv2d_4a_3x3", 80, 192, 3, padded=False),  # (N, 192, 71, 71)
            nn.MaxPool2d(3, stride=2),  # (N, 192, 35, 35)
            _at_35(_Block(tensors, "Mixed_5b"), 192, pool_channels=32),  # (N, 256, 35, 35)
            _at_35(_Block(tensors, "Mixed_5c"), 256, pool_channels=64),  # (N, 288, 35, 35)
            _at_35(_Block(tensors, "Mixed_5d"), 288, pool_channels=64),
            _from_35_to_17(_Block(tensors, "Mixed_6a")),  # (N, 768, 17, 17)
            _at_17(_Block(tensors, "Mixed_6b"), 128),
            _at_17(_Block(tensors, "Mixed_6c"), 160),
            _at_17(_Block(tensors, "Mixed_6d"), 160),
            _at_17(_Block(tensors, "Mixed_6e"), 192),
            _from_17_to_8(_Block(tensors, "Mixed_7a")),  # (N, 1280, 8, 8)
            _at_8(_Block(tensors, "Mixed_7b"), 1280, _average_pool()),  # (N, 2048, 8, 8)
            _at_8(_Block(tensors, "Mixed_7c"), 2048, nn.MaxPool2d(3, stride=1, padding=1)),
        )
        self.register_buffer("output_weight", tensors.take("fc.weight", NUM_CLASSES, DIM).double())
        tensors.take("fc.bias", NUM_CLASSES)  # has to be there, and has no use
        tensors.leave(r".*\.num_batches_tracked")  # BatchNorms count batches in training
        tensors.finish()

    def forward(self, x: Tensor) -> Features:
        """Look at images (N, 3, 299, 299) in [-1, 1].

        Returns:
            pool3 (N, 2048), and logits (N, 1008) without their bias.
        """
        x = self.layers(x.contiguous(memory_format=torch.channels_last))
        features = x.mean(dim=(2, 3))
        return Features(features, F.linear(features, self.output_weight))


class _Block:
    """The part of a file that one block of the network is made of.

    Args:
        tensors: The whole file.
        name: The block's in the file; empty for layers that belong to none.
    """

    def __init__(self, tensors: ForeignTensors, name: str = "") -> None:
        self._tensors = tensors
        self._prefix = f"{name}." if name else ""

    def conv(
        self,
        name: str,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        padded: bool = True,
    ) -> _Convolution:
        """Take one of its convolutions, with the BatchNorm that follows.

        Args:
            name: Within the block.
            in_channels: Of its input.
            out_channels: Of its output.
            kernel: Height and width, odd.
            stride: In both directions.
            padded: Whether the borders are padded so that, at stride 1, the size stays.
        """
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        name = f"{self._prefix}{name}"
        weight = self._tensors.take(f"{name}.conv.weight", out_channels, in_channels, height, width)
        gain, shift, mean, var = (
            self._tensors.take(f"{name}.bn.{part}", out_channels).double()
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / (var + _BN_EPS).sqrt()
        return _Convolution(
            weight.double() * scale[:, None, None, None],
            shift - mean * scale,
            stride,
            (height // 2, width // 2) if padded else (0, 0),
        )


class _Convolution(nn.Module):
    """A convolution and ReLU."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, stride: int, padding: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias)
        self.stride = stride
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(F.conv2d(x, self.weight, self.bias, self.stride, self.padding))


class _Branches(nn.ModuleList):
    """Layers side by side; their channels are laid behind each other."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], dim=1)


def _average_pool() -> nn.Module:
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


def _at_35(block: _Block, in_channels: int, pool_channels: int) -> nn.Module:
    """A block at 35x35 pixels: one, two and three convolutions, and a pool."""
    return _Branches(
        [
            block.conv("branch1x1", in_channels, 64),
            nn.Sequential(
                block.conv("branch5x5_1", in_channels, 48),
                block.conv("branch5x5_2", 48, 64, 5),
            ),
            nn.Sequential(
                block.conv("branch3x3dbl_1", in_channels, 64),
                block.conv("branch3x3dbl_2", 64, 96, 3),
                block.conv("branch3x3dbl_3", 96, 96, 3),
            ),
            nn.Sequential(_average_pool(), block.conv("branch_pool", in_channels, pool_channels)),
        ]
    )


def _from_35_to_17(block: _Block) -> nn.Module:
    """The block that leaves 17x17 of 35x35 pixels."""
    return _Branches(
        [
            block.conv("branch3x3", 288, 384, 3, stride=2, padded=False),
            nn.Sequential(
                block.conv("branch3x3dbl_1", 288, 64),
                block.conv("branch3x3dbl_2", 64, 96, 3),
                block.conv("branch3x3dbl_3", 96, 96, 3, stride=2, padded=False),
            ),
            nn.MaxPool2d(3, stride=2),
        ]
    )


def _at_17(block: _Block, channels: int) -> nn.Module:
    """A block at 17x17 pixels, whose 7x7 convolutions are taken apart into rows and columns.

    Args:
        block: Where its tensors are.
        channels: Between its convolutions.
    """
    return _Branches(
        [
            block.conv("branch1x1", 768, 192),
            nn.Sequential(
                block.conv("branch7x7_1", 768, channels),
                block.conv("branch7x7_2", channels, channels, (1, 7)),
                block.conv("branch7x7_3", channels, 192, (7, 1)),
            ),
            nn.Sequential(
                block.conv("branch7x7dbl_1", 768, channels),
                block.conv("branch7x7dbl_2", channels, channels, (7, 1)),
                block.conv("branch7x7dbl_3", channels, channels, (1, 7)),
                block.conv("branch7x7dbl_4", channels, channels, (7, 1)),
                block.conv("branch7x7dbl_5", channels, 192, (1, 7)),
            ),
            nn.Sequential(_average_pool(), block.conv("branch_pool", 768, 192)),
        ]
    )


def _from_17_to_8(block: _Block) -> nn.Module:
    """The block that leaves 8x8 of 17x17 pixels."""
    return _Branches(
        [
            nn.Sequential(
                block.conv("branch3x3_1", 768, 192),
                block.conv("branch3x3_2", 192, 320, 3, stride=2, padded=False),
            ),
            nn.Sequential(
                block.conv("branch7x7x3_1", 768, 192),
                block.conv("branch7x7x3_2", 192, 192, (1, 7)),
                block.conv("branch7x7x3_3", 192, 192, (7, 1)),
                block.conv("branch7x7x3_4", 192, 192, 3, stride=2, padded=False),
            ),
            nn.MaxPool2d(3, stride=2),
        ]
    )


def _at_8(block: _Block, in_channels: int, pool: nn.Module) -> nn.Module:
    """A block at 8x8 pixels, whose 3x3 convolutions end in a row and a column side by side."""
    return _Branches(
        [
            block.conv("branch1x1", in_channels, 320),
            nn.Sequential(
                block.conv("branch3x3_1", in_channels, 384),
                _Branches(
                    [
                        block.conv("branch3x3_2a", 384, 384, (1, 3)),
                        block.conv("branch3x3_2b", 384, 384, (3, 1)),
                    ]
                ),
            ),
            nn.Sequential(
                block.conv("branch3x3dbl_1", in_channels, 448),
                block.conv("branch3x3dbl_2", 448, 384, 3),
                _Branches(
                    [
                        block.conv("branch3x3dbl_3a", 384, 384, (1, 3)),
                        block.conv("branch3x3dbl_3b", 384, 384, (3, 1)),
                    ]
                ),
            ),
            nn.Sequential(pool, block.conv("branch_pool", in_channels, 192)),
        ]
    )
