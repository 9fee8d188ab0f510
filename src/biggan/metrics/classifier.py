"""A classifier trained here on the data at hand, whose features metrics can compare.

For data that ImageNet's classes say little about, and for machines without Inception's weights. It
is a pre-activation residual network (He et al. 2016, "Identity Mappings in Deep Residual Networks")
as wide and shallow as Zagoruyko and Komodakis (2016) found best for small images. Its file says
what it was trained on and how well it does on images that it never saw; its name, which holds the
digest of its weights, stands beside every score that it gives.

A file is decided by the images, the recipe and the kind of processor: the same command gives the
same bytes, also after a kill, when it goes on from a checkpoint beside the file.
"""

from __future__ import annotations

import glob
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import filelock
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from biggan._version import __version__
from biggan.data import ImageDataset, ShuffledStream, flips
from biggan.errors import InputError
from biggan.images import from_uint8
from biggan.metrics.extractor import Features
from biggan.nn.uninitialized import Linear, Uninitialized
from biggan.weights.files import FORMAT, Description, load_strictly, load_tensors, save_tensors

_LOG = logging.getLogger("biggan.metrics")

_HELD_OUT = 0.1  # of each class
_BLOCKS = 1  # in each stage
_STAGES = 3
_LARGEST_SIDE = 32  # of what the first stage sees
_EPOCHS, _LEAST_STEPS = 10, 300  # by default
_BATCH = 64
_LEARNING_RATE, _MOMENTUM, _WEIGHT_DECAY = 0.1, 0.9, 5e-4
_WARM_UP = 0.15  # of all steps
_SHIFT = 1 / 8  # of the side: how far an image is moved at most
_CHECKPOINT_SECONDS = 30.0
_LOSS_EVERY = 20  # steps
_PIXELS = 2**19  # of one channel, looked at together: 512 images at 32 px
_MOMENTUM_PREFIX = "momentum."

# What the random numbers are for: keeps the streams of one seed apart.
_SPLITTING, _SHIFTING = 0x53504C, 0x534846


@dataclass(frozen=True)
class ClassifierConfig:
    """The shape of a classifier.

    Attributes:
        resolution: The side of the images that it was trained on, in pixels.
        image_channels: 1 for grey, 3 for colour.
        num_classes: At least 2.
        width: Channels of the first stage; the features are four times as wide.
    """

    resolution: int
    image_channels: int
    num_classes: int
    width: int

    def __post_init__(self) -> None:
        least = {"resolution": 1, "image_channels": 1, "num_classes": 2, "width": 1}
        for name, value in asdict(self).items():
            if type(value) is not int or value < least[name]:
                raise InputError(f"a classifier's {name} is at least {least[name]}, not {value!r}")


@dataclass(frozen=True)
class ClassifierTraining:
    """What decides a classifier besides its images, its shape and the kind of processor.

    Attributes:
        steps: Batches of 64 images.
        seed: Of the held-out images, the first weights, the order and the augmentation.
        flip: Whether to mirror one half of the images. Not for what has a left and a right, such
            as letters and digits.
    """

    steps: int
    seed: int = 0
    flip: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"a classifier needs at least 1 step, not {self.steps}")
        if self.seed < 0:
            raise InputError(f"a seed is 0 or more, not {self.seed}")


def default_steps(num_images: int) -> int:
    """How long to train on so many images: 10 epochs, but at least 300 steps."""
    return max(_LEAST_STEPS, math.ceil(_EPOCHS * num_images / _BATCH))


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

    A stem that halves what is larger than 32 px; three stages, each after the first at half the
    resolution and twice the width; the mean over all places; one linear layer.

    Args:
        config: Its shape.
        seed: Of the weights: He's normal distribution (He et al. 2015).
    """

    def __init__(self, config: ClassifierConfig, seed: int) -> None:
        super().__init__()
        self.config = config
        halvings = max(0, math.ceil(math.log2(config.resolution / _LARGEST_SIDE)))
        stem: list[nn.Module] = [
            _Conv2d(config.image_channels, config.width, 3, 2 if halvings else 1)
        ]
        for _ in range(halvings - 1):
            stem += [nn.BatchNorm2d(config.width), nn.ReLU()]
            stem += [_Conv2d(config.width, config.width, 3, 2)]
        self.stem = nn.Sequential(*stem)
        widths = [config.width * 2**stage for stage in range(_STAGES)]
        blocks, in_channels = [], config.width
        for stage, width in enumerate(widths):
            for block in range(_BLOCKS):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(_ResidualBlock(in_channels, width, stride))
                in_channels = width
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.linear = Linear(widths[-1], config.num_classes)
        self._initialize(torch.Generator().manual_seed(seed))

    def _initialize(self, random: torch.Generator) -> None:
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
        """Look at images (N, C, R, R) in [-1, 1].

        Returns:
            (N, dim), none of them negative.
        """
        x = self.blocks(self.stem(images.contiguous(memory_format=torch.channels_last)))
        return F.relu(self.norm(x)).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, R, R) in [-1, 1] to logits (N, num_classes)."""
        logits: Tensor = self.linear(self.features(images))
        return logits


class ClassifierFeatures:
    """The features of a classifier that `train_classifier` wrote: a `FeatureExtractor`.

    Images of another size are stretched to its resolution, whatever their aspect ratio, by torch's
    antialiased bicubic interpolation, clamped to [0, 255] and not rounded.

    Args:
        path: The file.
        device: Where to compute. The features come back to the CPU.

    Raises:
        InputError: The file is missing, damaged, or holds no classifier.

    Attributes:
        name: Says on which data it was trained, and the beginning of its digest.
        sha256: Digest of the file's contents.
        resize: The rule in two words.
        channels: Of the images it takes: 1 for grey, 3 for colour.
        dim: Width of the features.
        num_classes: Width of the logits.
        network: In eval mode.
        config: Its shape.
        class_names: One per class.
        training: What it was trained on, how long, and its `accuracy` on the `held_out` images.
    """

    resize = "antialiased bicubic"

    def __init__(self, path: Path | str, device: str | torch.device = "cpu") -> None:
        header, tensors, self.sha256 = _read(Path(path), "classifier")
        try:
            self.config = ClassifierConfig(**header["config"])
            self.class_names = tuple(map(str, header["description"]["class_names"]))
            self.training: dict[str, Any] = dict(header["description"]["training"])
            self.name = f"classifier of {self.training['data']} ({self.sha256[:8]})"
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{path} does not say what its classifier is: train it anew") from None
        self.network = Classifier(self.config, seed=0)
        load_strictly(self.network, tensors, Path(path))
        self.network = _placed(self.network, device).eval()
        self.channels = self.config.image_channels
        self.dim, self.num_classes = self.network.dim, self.config.num_classes
        self._device = torch.device(device)

    @torch.no_grad()
    def extract(self, images: Tensor) -> Features:
        """Look at images, uint8 (N, channels, H, W), of any number and size.

        Raises:
            InputError: It was trained on images with more or fewer channels.
        """
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(
                f"expected uint8 images (N, C, H, W), got {images.dtype} {tuple(images.shape)}"
            )
        if images.shape[1] != self.channels:
            raise InputError(
                f"the {self.name} looks at images with {self.channels} channels, not "
                f"{images.shape[1]}: load them so, or train another on such images"
            )
        pixels = max(images.shape[2] * images.shape[3], self.config.resolution**2)
        with _reproducible_convolutions():
            parts = [self._extract(part) for part in images.split(max(1, _PIXELS // pixels))]
        return Features(*(torch.cat(kind) for kind in zip(*parts, strict=True)))

    def _extract(self, images: Tensor) -> Features:
        resized = _resize(images.to(self._device), self.config.resolution)
        features = self.network.features(from_uint8(resized))
        return Features(features.cpu(), self.network.linear(features).cpu())


def _placed(network: Classifier, device: str | torch.device) -> Classifier:
    """On a device, in the memory format in which convolutions of few channels are fast."""
    placed: Classifier = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def _resize(images: Tensor, resolution: int) -> Tensor:
    """Images in [0, 255], (N, C, H, W), as (N, C, R, R); those of that size stay as they are."""
    if images.shape[2:] == (resolution, resolution):
        return images
    size = (resolution, resolution)
    resized = F.interpolate(
        images.float(), size, mode="bicubic", align_corners=False, antialias=True
    )
    return resized.clamp(0, 255)  # bicubic interpolation overshoots at edges


def train_classifier(
    dataset: ImageDataset,
    out: Path,
    *,
    steps: int | None = None,
    seed: int = 0,
    flip: bool = True,
    width: int | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> ClassifierFeatures:
    """Train a classifier on nine tenths of each class and judge it by the rest.

    After an interruption of any kind the same call goes on from a checkpoint beside the file, and
    the result is the same to the bit. What is already complete is not trained again.

    Args:
        dataset: Images with classes; they may be mapped from the disk.
        out: The file to write, in a folder that exists.
        steps: Batches of 64 images; `default_steps` if left out.
        seed: Of all that is random.
        flip: Whether to mirror one half of the images; see `ClassifierTraining`.
        width: Channels of the first stage; `default_width` if left out.
        device: Where to train.
        progress: Whether to show a bar on a terminal.

    Returns:
        The classifier, as read from the file.

    Raises:
        InputError: The data have no classes or too few images, the file holds or the checkpoint is
            for another classifier, it cannot be written, or training diverged.
    """
    if dataset.num_classes < 2:
        raise InputError(
            f"a classifier needs images of two classes or more, and {dataset.source} has "
            f"{dataset.num_classes or 'none'}: sort them into a folder for each class"
        )
    resolution, channels = dataset.images.shape[-1], dataset.images.shape[1]
    width = default_width(resolution) if width is None else width
    config = ClassifierConfig(resolution, channels, dataset.num_classes, width)
    train_on, held_out = split_held_out(dataset.labels, dataset.num_classes, seed)
    steps = default_steps(len(train_on)) if steps is None else steps
    training = ClassifierTraining(steps, seed, flip)
    recipe = {**asdict(config), **asdict(training), "data_fingerprint": dataset.fingerprint}
    with _locked(out):
        checkpoint = _Checkpoint(out, recipe)
        if out.exists():
            _check_same(_read(out, "classifier")[0], recipe, out)
        else:
            network = fit_classifier(
                config,
                training,
                dataset.images,
                dataset.labels,
                train_on,
                device=device,
                checkpoint=checkpoint,
                progress=progress,
            )
            _save(out, network, dataset, held_out, recipe, progress=progress)
        checkpoint.path.unlink(missing_ok=True)
    return ClassifierFeatures(out, device)


def split_held_out(
    labels: Tensor, num_classes: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose a tenth of each class, at least one image, to judge a classifier by.

    A class's only image is trained on.

    Args:
        labels: int64 (N,).
        num_classes: All labels are below it.
        seed: Selects the images.

    Returns:
        The indices of the images to train on and of those held out, each ascending.

    Raises:
        InputError: No class has two images.
    """
    order = np.random.default_rng([seed, _SPLITTING]).permutation(len(labels))
    by_class = order[np.argsort(labels.numpy()[order], kind="stable")]
    counts = np.bincount(labels.numpy(), minlength=num_classes)
    quota = np.where(counts > 1, np.maximum(1, np.rint(_HELD_OUT * counts)), 0)
    place_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    held_out = place_in_class < np.repeat(quota, counts)
    if not held_out.any():
        raise InputError("no class has two images, one to train a classifier on and one to test it")
    return np.sort(by_class[~held_out]), np.sort(by_class[held_out])


def fit_classifier(
    config: ClassifierConfig,
    training: ClassifierTraining,
    images: Tensor,
    labels: Tensor,
    chosen: NDArray[np.int64],
    *,
    device: str | torch.device,
    checkpoint: _Checkpoint | None = None,
    progress: bool = True,
) -> Classifier:
    """Train a classifier by SGD with Nesterov's momentum and cross-entropy.

    All that is random is a function of the seed and the step.

    Args:
        config: Its shape.
        training: The recipe.
        images: uint8 (N, C, R, R); they may be mapped from the disk.
        labels: int64 (N,).
        chosen: The indices of the images to train on.
        device: Where to train.
        checkpoint: Where to go on from, and to save to; None for neither.
        progress: Whether to show a bar on a terminal.

    Returns:
        The network in eval mode.

    Raises:
        InputError: Training diverged, or a checkpoint cannot be used or written.
    """
    network = _placed(Classifier(config, training.seed), device)
    optimizer = torch.optim.SGD(
        network.train().parameters(),
        momentum=_MOMENTUM,
        nesterov=True,
        weight_decay=_WEIGHT_DECAY,
    )
    start = checkpoint.restore(network, optimizer) if checkpoint else 0
    stream = ShuffledStream(len(chosen), training.seed)
    with (
        _reproducible_convolutions(),
        _bar("training the classifier", training.steps, start, progress) as bar,
    ):
        for step in range(start, training.steps):
            indices = torch.from_numpy(chosen[stream.indices(step * _BATCH, _BATCH)])
            batch = from_uint8(augment(images[indices], training, step).to(device))
            optimizer.param_groups[0]["lr"] = _learning_rate(step, training.steps)
            optimizer.zero_grad()
            loss = F.cross_entropy(network(batch), labels[indices].to(device))
            loss.backward()
            optimizer.step()
            bar.update()
            done = step + 1
            if done % _LOSS_EVERY == 0 or done == training.steps:
                bar.set_postfix(loss=f"{_finite(loss.item(), done):.3f}")
            if checkpoint:
                checkpoint.save_when_due(network, optimizer, done, say=bar.disable)
    return network.eval()


def _learning_rate(step: int, steps: int) -> float:
    """Rises linearly, falls along a cosine."""
    warm_up = max(1, round(_WARM_UP * steps))
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    return _LEARNING_RATE * min(1.0, (step + 1) / warm_up) * cosine


def augment(images: Tensor, training: ClassifierTraining, step: int) -> Tensor:
    """Move each image of a step's batch by up to an eighth of its side, and perhaps mirror it.

    Args:
        images: uint8 (N, C, R, R) on the CPU.
        training: The recipe.
        step: Selects the random numbers, with the recipe's seed.

    Returns:
        The same shape; what moves in repeats the pixels at the edge.
    """
    count, side = len(images), images.shape[-1]
    if training.flip:
        mirrored = torch.from_numpy(flips(training.seed, step * count, count))
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    furthest = round(_SHIFT * side)
    random = np.random.default_rng([training.seed, _SHIFTING, step])
    moves = torch.from_numpy(random.integers(-furthest, furthest + 1, (2, count, 1)))
    down, right = (torch.arange(side) + moves).clamp(0, side - 1)  # where from, (N, R)
    picked = torch.arange(count)[:, None, None]
    return images[picked, :, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def predict(
    network: Classifier, images: Tensor, chosen: NDArray[np.int64], *, progress: bool = True
) -> Tensor:
    """The most likely classes of images.

    Args:
        network: In eval mode.
        images: uint8 (N, C, R, R) of its resolution; they may be mapped from the disk.
        chosen: The indices of the images to look at.
        progress: Whether to show a bar, where it takes over two seconds, on a terminal.

    Returns:
        int64 (len(chosen),) on the CPU.
    """
    device = network.linear.weight.device
    parts = torch.from_numpy(chosen).split(max(1, _PIXELS // network.config.resolution**2))
    guesses = []
    with _reproducible_convolutions(), _bar("testing", len(chosen), 0, progress, delay=2) as bar:
        for indices in parts:
            logits = network(from_uint8(images[indices].to(device)))
            guesses.append(logits.argmax(dim=1).cpu())
            bar.update(len(indices))
    return torch.cat(guesses)


class _Checkpoint:
    """The unfinished classifier, in a file beside the one that it will be.

    Args:
        out: The file to be.
        recipe: What decides the classifier: another one's checkpoint is refused.
    """

    def __init__(self, out: Path, recipe: Mapping[str, Any]) -> None:
        self.path = out.with_name(f"{out.stem}.checkpoint.safetensors")
        self._recipe = recipe
        self._saved_at = time.monotonic()

    def restore(self, network: Classifier, optimizer: torch.optim.SGD) -> int:
        """Bring both to where they were saved.

        Returns:
            The steps done; 0 where there is no checkpoint, or one that is damaged.

        Raises:
            InputError: It is of another recipe.
        """
        if not self.path.exists():
            return 0
        try:
            header, tensors, _ = _read(self.path, "classifier checkpoint")
        except InputError as error:
            _LOG.warning("%s; training from the beginning", error)
            return 0
        _check_same(header, self._recipe, self.path)
        for name, parameter in network.named_parameters():
            # In the parameter's memory format, as it was: another one may round otherwise.
            momentum = torch.empty_like(parameter).copy_(tensors.pop(_MOMENTUM_PREFIX + name))
            optimizer.state[parameter]["momentum_buffer"] = momentum.detach()
        network.load_state_dict(tensors)
        _LOG.info("resuming at step %d of %d", header["step"], self._recipe["steps"])
        step: int = header["step"]
        return step

    def save_when_due(
        self, network: Classifier, optimizer: torch.optim.SGD, step: int, *, say: bool
    ) -> None:
        """Write both if half a minute has passed, and say so where there is no bar."""
        if time.monotonic() - self._saved_at < _CHECKPOINT_SECONDS:
            return
        momenta = {
            _MOMENTUM_PREFIX + name: optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in network.named_parameters()
        }
        header = {"kind": "classifier checkpoint", "recipe": self._recipe, "step": step}
        metadata = {"format": FORMAT, "header": json.dumps(header)}
        save_tensors(self.path, metadata, network.state_dict() | momenta)
        self._saved_at = time.monotonic()
        if say:
            _LOG.info("step %d of %d: checkpoint", step, self._recipe["steps"])


def _save(
    out: Path,
    network: Classifier,
    dataset: ImageDataset,
    held_out: NDArray[np.int64],
    recipe: Mapping[str, Any],
    *,
    progress: bool,
) -> None:
    """Judge a classifier by the held-out images, and write it with what there is to know of it."""
    guesses = predict(network, dataset.images, held_out, progress=progress)
    right = guesses == dataset.labels[torch.from_numpy(held_out)]
    summary = {
        "data": dataset.source,
        "data_fingerprint": dataset.fingerprint,
        "images": len(dataset),
        "held_out": len(held_out),
        "accuracy": right.double().mean().item(),
        "steps": recipe["steps"],
        "seed": recipe["seed"],
        "flip": recipe["flip"],
        "device": network.linear.weight.device.type,
        "torch": torch.__version__,
    }
    description = Description(
        name=f"classifier of {dataset.source}",
        class_names=dataset.class_names,
        source=f"trained by biggan {__version__} on {dataset.source}",
        training=summary,
    )
    header = {
        "kind": "classifier",
        "config": asdict(network.config),
        "recipe": recipe,
        "description": vars(description),
    }
    save_tensors(out, {"format": FORMAT, "header": json.dumps(header)}, network.state_dict())


def _read(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor], str]:
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


def _check_same(header: Mapping[str, Any], recipe: Mapping[str, Any], path: Path) -> None:
    found = header.get("recipe") or {}
    differing = [
        "other images" if key == "data_fingerprint" else f"{key} {found.get(key)}, not {value}"
        for key, value in recipe.items()
        if found.get(key) != value
    ]
    if differing:
        raise InputError(
            f"{path} is of another classifier ({'; '.join(differing)}): delete it, or choose "
            "another --out"
        )


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep other processes from training the same file, and remove what killed ones left."""
    lock = filelock.FileLock(out.with_name(f".{out.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise InputError(
            f"another process is training {out}: wait until it ends, or choose another --out"
        ) from None
    except OSError as error:
        raise InputError(f"cannot write to {out.parent}: {error.strerror}") from None
    try:
        for unfinished in out.parent.glob(f".{glob.escape(out.stem)}.*.tmp"):
            unfinished.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def _reproducible_convolutions() -> AbstractContextManager[None]:
    """On a GPU: the same algorithm each time, and float32 in full."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise InputError(f"training the classifier diverged at step {step}: choose another --seed")
    return loss


def _bar(what: str, total: int, start: int, enabled: bool, delay: float = 0) -> tqdm[NoReturn]:
    return tqdm(
        total=total,
        initial=start,
        desc=what,
        delay=delay,
        disable=None if enabled else True,  # None: only on a terminal
    )
