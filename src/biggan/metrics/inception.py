"""TF-Inception 2015-12-05: the network whose features define FID and the Inception Score.

Google published it as a TensorFlow graph on that day; Salimans et al. (2016) took its softmax for
the Inception Score, Heusel et al. (2017) its last pool ("pool3") for FID. It is version 3 of
Szegedy et al. (2015, "Rethinking the Inception Architecture for Computer Vision"), with these
peculiarities:

- the average pools within blocks do not count padding;
- the pool of the very last block takes the maximum;
- there are 1008 outputs for 1000 classes, and OpenAI's Inception Score leaves their bias out;
- images are resized by the `ResizeBilinear` of TensorFlow 1, without antialiasing.

The weights are read from the file into which pytorch-fid converted the graph. Every BatchNorm is
folded into its convolution.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.devices import find_device
from biggan.errors import InputError
from biggan.hub import is_offline
from biggan.metrics.extractor import (
    Features,
    check_images,
    reproducible_convolutions,
    resize_like_pillow,
    resize_like_tensorflow,
)
from biggan.weights.containers.pickles import load_checkpoint
from biggan.weights.download import DownloadError, fetch
from biggan.weights.files import cache_dir, exclusive, open_regular
from biggan.weights.formats.conversion import ForeignTensors

NAME = "TF-Inception 2015-12-05"
FILE = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

SIDE = 299  # of the network's input, in pixels
DIM = 2048
NUM_CLASSES = 1008

Resize = Literal["tensorflow", "pytorch-fid", "pil-bicubic"]
"""Whose way of resizing images to 299 pixels."""

Kernel = int | tuple[int, int]
"""Height and width, odd."""

_BN_EPS = 1e-3
_BATCH, _BATCH_GPU = 8, 64  # images at once; a CPU gains nothing beyond
_PIXELS = 1 << 23  # of one channel before the resize, at once
_BY_HAND = (
    f"If you have it from {URL}, give it as --extractor FILE; or train a classifier on your data, "
    "biggan classifier DATA --out FILE, and give that"
)


class InceptionFeatures:
    """The features of TF-Inception 2015-12-05: a `FeatureExtractor`.

    In full float32 on every device, without gradients, in batches of its own.

    Args:
        path: The weights file that pytorch-fid publishes, or another of its format. None for that
            very file from the cache, where it is downloaded to if it is not there.
        resize: "tensorflow" is what the graph itself does, and torch-fidelity. "pytorch-fid" aligns
            the centres of pixels and maps 255 to 1, not to 127/128, as that program does.
            "pil-bicubic" is antialiased, as Parmar et al. (2022, "On Aliased Resizing and
            Surprising Subtleties in GAN Evaluation") ask for and clean-fid does. The features
            differ by several per cent: compare figures of one kind only.
        device: Where to compute. The features come back to the CPU.
        offline: Whether to look no further than the cache.

    Raises:
        InputError: The file cannot be had, is damaged, or does not hold this network: every tensor
            that is missing, unexpected or of another shape is named.
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
                f"there is no resize {resize!r}: choose from {', '.join(get_args(Resize))}"
            )
        self._device = find_device(device)
        file = obtain_weights(offline=offline) if path is None else Path(path).expanduser()
        self.resize: str = resize
        with open_regular(file) as opened:
            self.sha256 = hashlib.file_digest(cast(Any, opened), "sha256").hexdigest()
            published = self.sha256 == SHA256
            if path is None and not published:
                raise InputError(f"{file} is damaged: delete it to download it again")
            self.name = NAME if published else f"{NAME} from another file ({self.sha256[:8]})"
            opened.seek(0)
            network = Inception(ForeignTensors(load_checkpoint(opened, file)[0], file))
        self.network = network.float().to(self._device)

    def __call__(self, images: Tensor) -> Tensor:
        """The pool3 features, float32 (N, 2048), of images uint8 (N, 3, H, W) of any size."""
        return self.extract(images).features

    def extract(self, images: Tensor) -> Features:
        """Extract pool3 and the logits of images, uint8 (N, 3, H, W), of any number and size.

        The logits are without their bias, as in OpenAI's Inception Score.

        Raises:
            InputError: The images are not in colour.
        """
        check_images(images, self.channels, NAME)
        found = Features(
            torch.empty(len(images), self.dim), torch.empty(len(images), self.num_classes)
        )
        batch = _BATCH if self._device.type == "cpu" else _BATCH_GPU
        batch = max(1, min(batch, _PIXELS // (images.shape[2] * images.shape[3])))
        with reproducible_convolutions(), torch.autocast(self._device.type, enabled=False):
            for start in range(0, len(images), batch):
                part = slice(start, start + batch)
                seen = self.network(self._prepare(images[part].to(self._device)))
                found.features[part], found.logits[part] = seen.features, seen.logits
        return found

    def _prepare(self, images: Tensor) -> Tensor:
        """The network's input: (N, 3, 299, 299), about [-1, 1]."""
        if self.resize == "tensorflow":
            return (resize_like_tensorflow(images, SIDE) - 128) / 128
        if self.resize == "pil-bicubic":
            return (resize_like_pillow(images, SIDE) - 128) / 128
        resized = F.interpolate(
            images.float() / 255, (SIDE, SIDE), mode="bilinear", align_corners=False
        )
        return 2 * resized - 1


def obtain_weights(*, offline: bool = False) -> Path:
    """The published weights file, downloaded into the cache if it is not there and not offline.

    Raises:
        InputError: It cannot be had; the message says why and how to give the file by hand.
    """
    path = cache_dir() / FILE
    if path.is_file():
        return path
    if is_offline(offline):
        raise InputError(
            f"{FILE} is not in the cache {cache_dir()}, and nothing is downloaded offline. "
            f"{_BY_HAND}"
        )
    with exclusive(path, FILE):
        if not path.is_file():
            try:
                fetch(URL, path, sha256=SHA256)
            except DownloadError as error:
                raise InputError(
                    f"{FILE} cannot be downloaded ({error.reason}). {_BY_HAND}"
                ) from None
    return path


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
            _at_35(_Block(tensors, "Mixed_5b."), 192, pool_channels=32),  # (N, 256, 35, 35)
            _at_35(_Block(tensors, "Mixed_5c."), 256, pool_channels=64),  # (N, 288, 35, 35)
            _at_35(_Block(tensors, "Mixed_5d."), 288, pool_channels=64),
            _from_35_to_17(_Block(tensors, "Mixed_6a.")),  # (N, 768, 17, 17)
            _at_17(_Block(tensors, "Mixed_6b."), 128),
            _at_17(_Block(tensors, "Mixed_6c."), 160),
            _at_17(_Block(tensors, "Mixed_6d."), 160),
            _at_17(_Block(tensors, "Mixed_6e."), 192),
            _from_17_to_8(_Block(tensors, "Mixed_7a.")),  # (N, 1280, 8, 8)
            _at_8(_Block(tensors, "Mixed_7b."), 1280, _average_pool()),  # (N, 2048, 8, 8)
            _at_8(_Block(tensors, "Mixed_7c."), 2048, nn.MaxPool2d(3, stride=1, padding=1)),
        )
        self.register_buffer("output_weight", tensors.take("fc.weight", NUM_CLASSES, DIM).double())
        tensors.take("fc.bias", NUM_CLASSES)  # required, but unused
        tensors.leave(r".*\.num_batches_tracked")  # BatchNorms count batches in training
        tensors.finish()

    def forward(self, x: Tensor) -> Features:
        """Pool3 (N, 2048) and logits (N, 1008) of images (N, 3, 299, 299) in [-1, 1]."""
        x = self.layers(x.contiguous(memory_format=torch.channels_last))
        features = x.mean(dim=(2, 3))
        return Features(features, F.linear(features, self.output_weight))


class _Block:
    """Takes the layers of one block from a file, where their names begin with a prefix."""

    def __init__(self, tensors: ForeignTensors, prefix: str = "") -> None:
        self._tensors, self._prefix = tensors, prefix

    def conv(
        self,
        name: str,
        in_channels: int,
        out_channels: int,
        kernel: Kernel = 1,
        *,
        stride: int = 1,
        padded: bool = True,
    ) -> _Convolution:
        """A convolution with the BatchNorm that follows; `padded` keeps the size at stride 1."""
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

    def chain(
        self, name: str, in_channels: int, *layers: tuple[int, Kernel], stride: int = 1
    ) -> nn.Sequential:
        """Convolutions name_1, name_2, ... by output channels and kernel; the last has the stride.

        It is not padded where its stride is above 1.
        """
        chain = nn.Sequential()
        for i, (out_channels, kernel) in enumerate(layers, 1):
            step = stride if i == len(layers) else 1
            chain.append(
                self.conv(
                    f"{name}_{i}", in_channels, out_channels, kernel, stride=step, padded=step == 1
                )
            )
            in_channels = out_channels
        return chain


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
    """Parallel layers, whose outputs are concatenated."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], dim=1)


_ROW, _COLUMN = (1, 7), (7, 1)


def _average_pool() -> nn.Module:
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


def _at_35(block: _Block, in_channels: int, pool_channels: int) -> nn.Module:
    """At 35x35 pixels: one, two and three convolutions, and a pool."""
    return _Branches(
        block.conv("branch1x1", in_channels, 64),
        block.chain("branch5x5", in_channels, (48, 1), (64, 5)),
        block.chain("branch3x3dbl", in_channels, (64, 1), (96, 3), (96, 3)),
        nn.Sequential(_average_pool(), block.conv("branch_pool", in_channels, pool_channels)),
    )


def _from_35_to_17(block: _Block) -> nn.Module:
    return _Branches(
        block.conv("branch3x3", 288, 384, 3, stride=2, padded=False),
        block.chain("branch3x3dbl", 288, (64, 1), (96, 3), (96, 3), stride=2),
        nn.MaxPool2d(3, stride=2),
    )


def _at_17(block: _Block, n: int) -> nn.Module:
    """At 17x17 pixels, where 7x7 convolutions are factored into rows and columns."""
    long = ((n, 1), (n, _COLUMN), (n, _ROW), (n, _COLUMN), (192, _ROW))
    return _Branches(
        block.conv("branch1x1", 768, 192),
        block.chain("branch7x7", 768, (n, 1), (n, _ROW), (192, _COLUMN)),
        block.chain("branch7x7dbl", 768, *long),
        nn.Sequential(_average_pool(), block.conv("branch_pool", 768, 192)),
    )


def _from_17_to_8(block: _Block) -> nn.Module:
    long = ((192, 1), (192, _ROW), (192, _COLUMN), (192, 3))
    return _Branches(
        block.chain("branch3x3", 768, (192, 1), (320, 3), stride=2),
        block.chain("branch7x7x3", 768, *long, stride=2),
        nn.MaxPool2d(3, stride=2),
    )


def _at_8(block: _Block, in_channels: int, pool: nn.Module) -> nn.Module:
    """At 8x8 pixels, where the last 3x3 convolutions are a row and a column in parallel."""

    def row_and_column(name: str) -> nn.Module:
        kernels = {"a": (1, 3), "b": (3, 1)}
        return _Branches(*(block.conv(name + end, 384, 384, k) for end, k in kernels.items()))

    short = block.chain("branch3x3", in_channels, (384, 1))
    long = block.chain("branch3x3dbl", in_channels, (448, 1), (384, 3))
    return _Branches(
        block.conv("branch1x1", in_channels, 320),
        short.append(row_and_column("branch3x3_2")),
        long.append(row_and_column("branch3x3dbl_3")),
        nn.Sequential(pool, block.conv("branch_pool", in_channels, 192)),
    )
