"""Inversion: the noise and class vector whose image resembles a given picture most.

The starts are the nearest of many random images of all classes. Gradients through the frozen
generator move their noise, at first with the classes fixed. After each round the better part goes
on (successive halving); in the last round the class vector is free as well.

Images are compared by a Laplacian pyramid and, where there is one, a network's features.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from biggan.data.dataset import MODES, fit_square, to_array
from biggan.data.decoding import CorruptImageError, decode_image, open_image, strict_pillow
from biggan.errors import InputError, quoted, real_number, whole_number
from biggan.images import from_uint8, to_uint8
from biggan.latents import check_truncation, make_noise
from biggan.sampling import as_numbers, check_weights, generate_batches
from biggan.weights.files import load_record, save_record

if TYPE_CHECKING:
    from biggan.gan import Gan
    from biggan.models import Discriminator

Distance = Callable[[Tensor], Tensor]
"""Images (N, C, R, R) in [-1, 1] to how far they are from a picture, (N,); differentiable."""

Metric = Callable[[Tensor], Distance]
"""A picture (1, C, R, R) to the distance from it."""

_KEY = "latents"  # of the metadata
_TENSORS = ("z", "class_vectors")

_DRAWN = 576  # random images to start from, or one of each class
_PER_CLASS = 2  # starts of one class, if several classes are tried
_COMPARED = 32  # pixels a side at which random images are compared with the picture
_FEATURES = 0.1  # weight of the features beside the pyramid
_TOGETHER = 2**15  # pixels of the images of a gradient step that are made together
_PRIOR = 0.1  # weight of noise that the truncation does not draw
_CUT = 2.0  # hub noise reaches twice the truncation
_UNTRUNCATED = 3.0  # the bound of untruncated noise: three standard deviations


class _Drawn(NamedTuple):
    """Random images: their noise, their classes, and the pyramids (N, ...) of what they show."""

    z: Tensor
    labels: Tensor
    seen: Tensor


class _Round(NamedTuple):
    kept: float  # share of the starts
    steps: float  # share of the steps
    rate: float  # of Adam, in standard deviations of the noise
    free: bool  # whether class vectors move


_ROUNDS = (_Round(1, 0.15, 0.1, False), _Round(1 / 3, 0.2, 0.1, False), _Round(0, 0.65, 0.05, True))
_VECTOR_RATE = 0.1  # of class vectors, relative to the noise's
_BETAS = (0.9, 0.99)  # of Adam
_WORSE = 1.5
_RECOVERY = 1.1  # of a rate, in every step


@dataclass(frozen=True)
class Latents:
    """Noise and class vectors of one model: what makes its images.

    Attributes:
        z: float32 (N, z_dim), or (N, L, z_dim) with noise for each layer.
        class_vectors: float32 (N, class_dim), or (N, L, class_dim).
        truncation: Of the BatchNorm statistics; None for those of untruncated noise.
        model: The model's name.
        sha256: Digest of its weights.
        name: What they show.
        details: How they were found. `Inverter.invert` gives `class_index` and `class_name`, the
            class whose vector is nearest (None if unconditional), `psnr` in dB and `distances`.
    """

    z: Tensor
    class_vectors: Tensor
    truncation: float | None
    model: str
    sha256: str
    name: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.z)

    def check_model(self, gan: Gan) -> None:
        """Refuse another model than the one that the latents belong to."""
        advice = "invert the picture with this model"
        check_weights(gan, self.model, self.sha256, "the latents are of", advice)


class Inverter:
    """Finds latents of pictures.

    Args:
        gan: The model.
        class_: The pictures' class, if it is known.
        truncation: Chooses the BatchNorm statistics, and bounds the noise.
        features: What is compared beside the pyramid, such as `discriminator_metric`.
        starts: Points to start from.
        steps: Gradient steps of all rounds together.
        seconds: A picture's search, and the making of the starts, end after this time. The first
            picture takes both: 576 random images to start from, or one of each class, whatever
            the number of steps.
        seed: Of the starts.
        progress: Show bars; None for bars on a terminal alone.

    Raises:
        InputError: There is no such class, or a number is out of range.
    """

    def __init__(
        self,
        gan: Gan,
        class_: str | int | None = None,
        truncation: float | None = 1.0,
        *,
        features: Metric | None = None,
        starts: int = 12,
        steps: int = 220,
        seconds: float = math.inf,
        seed: int = 0,
        progress: bool | None = None,
    ) -> None:
        check_truncation(truncation)
        if not (features is None or callable(features)):
            raise InputError(
                f"features must be a metric such as lpips_metric(), or None, not {quoted(features)}"
            )
        for value, what in ((starts, "the number of starts"), (steps, "the number of steps")):
            if whole_number(value, what) < 1:
                raise InputError(f"{what} must be at least 1, not {value}")
        if not real_number(seconds, "the time") > 0:
            raise InputError(f"the time must be above 0 seconds, not {seconds:g}")
        self._gan, self._truncation, self._features = gan, truncation, features
        self._starts, self._steps, self._seconds, self._seed = starts, steps, seconds, seed
        self._progress = progress
        num = max(1, len(gan.class_names))
        known = range(num) if class_ is None else [gan.class_index(class_)]
        self._classes = torch.tensor(known, device="cpu")
        self._unit = 1.0 if truncation is None else truncation
        self._bound = _UNTRUNCATED if truncation is None else _CUT * truncation
        self._together = max(1, _TOGETHER // gan.config.resolution**2)
        self._drawn: _Drawn | None = None
        self._network = gan.differentiable()

    def invert(self, picture: Tensor | Image.Image, name: str = "") -> Latents:
        """Find the latents, of this name, of one picture: uint8 (C, R, R), or a PIL image.

        Raises:
            InputError: It has another shape or type than the model's images.
        """
        config = self._gan.config
        shape = (config.image_channels, config.resolution, config.resolution)
        if isinstance(picture, Image.Image):
            mode = MODES.get(config.image_channels)
            if picture.mode != mode:
                raise InputError(
                    f"the picture must be of mode {mode}, not {picture.mode}: convert it with "
                    f"picture.convert({mode!r})"
                )
            picture = torch.from_numpy(to_array(picture).copy())
        picture = as_numbers(picture, "the picture")
        if picture.dtype != torch.uint8 or tuple(picture.shape) != shape:
            raise InputError(
                f"the picture must be uint8 {shape}, not {picture.dtype} {tuple(picture.shape)}"
            )
        if self._drawn is None:
            self._drawn = self._draw()
        target = from_uint8(picture[None].to(self._gan.device))
        loss = _Loss(target, self._features)
        z, vectors = self._search(loss, *self._nearest(target))
        with torch.no_grad():
            image = self._network.synthesize(z, vectors, self._truncation)
            distances = {name: value.item() for name, value in loss.parts(image).items()}
        error = (to_uint8(image)[0].cpu().double() - picture.double()).square().mean().item()
        index = None
        if names := self._gan.class_names:
            known = self._gan.embed(range(len(names)))
            index = int((known - vectors.cpu()).square().sum(1).argmin())
        details = {
            "class_index": index,
            "class_name": None if index is None else names[index],
            "psnr": 10 * math.log10(255**2 / max(error, 1e-6)),
            "distances": distances,
        }
        found = z.detach().cpu(), vectors.detach().cpu()
        return Latents(*found, self._truncation, self._gan.name, self._gan.sha256, name, details)

    def _draw(self) -> _Drawn:
        """Make random images of all classes in turn, until there are enough or time is up."""
        gan, end = self._gan, time.monotonic() + self._seconds
        num = max(_DRAWN, len(self._classes), self._starts)
        z = torch.from_numpy(
            make_noise(num, gan.config.z_dim, self._truncation, self._seed)
        ).float()
        labels = self._classes[torch.arange(num, device="cpu") % len(self._classes)]
        seen: list[Tensor] = []
        with self._bar(num, "drawing starts", "image") as bar:
            for batch in generate_batches(gan.engine, labels, z, self._truncation):
                seen.append(_pyramid(_reduced(batch.images)))
                bar.update(len(batch.images))
                if time.monotonic() > end and bar.n >= self._starts:
                    break
        made = torch.cat(seen)
        return _Drawn(z[: len(made)], labels[: len(made)], made)

    def _nearest(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Noise and class vectors of the drawn images that are nearest to the picture."""
        assert self._drawn is not None
        distances = (self._drawn.seen - _pyramid(_reduced(target))).square().sum(1)
        most = _PER_CLASS if len(self._classes) > 1 else self._starts
        chosen: list[int] = []
        later: list[int] = []
        taken = dict.fromkeys(self._classes.tolist(), 0)
        for number in distances.argsort().tolist():
            label = int(self._drawn.labels[number])
            (chosen if taken[label] < most else later).append(number)
            taken[label] += 1
        rows = [*chosen, *later][: self._starts]
        z, labels = self._drawn.z[rows], self._drawn.labels[rows]
        names = bool(self._gan.class_names)
        vectors = self._gan.embed(labels) if names else z.new_zeros(len(z), 0)
        return z.to(target), vectors.to(target)

    def _search(self, loss: _Loss, z: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """The best noise (1, z_dim) and class vector (1, class_dim) that the rounds find."""
        begin, past = time.monotonic(), 0.0
        with self._bar(self._steps, "inverting", "step") as bar:
            for this in _ROUNDS:
                kept = max(1, round(this.kept * self._starts))
                descent = _Adam(z[:kept], vectors[:kept], free=this.free and vectors.shape[1] > 0)
                steps, step = max(1, round(this.steps * self._steps)), 0
                while True:
                    late = (time.monotonic() - begin) / self._seconds - past
                    done = max(step / steps, late / this.steps)
                    if done >= 1:
                        break
                    losses = self._losses(loss, descent.z, descent.vectors)
                    rate = this.rate * self._unit * (1 + math.cos(math.pi * done)) / 2
                    descent.step(losses, rate)
                    step += 1
                    bar.set_postfix_str(f"{losses.min().item():.4f}", refresh=False)
                    bar.update()
                past += this.steps
                z, vectors = descent.best()
        return z[:1], vectors[:1]

    def _losses(self, loss: _Loss, z: Tensor, vectors: Tensor) -> Tensor:
        """Losses (N,); adds to the gradients of noise and class vectors."""
        losses = []
        for part in torch.arange(len(z), device=z.device).split(self._together):
            images = self._network.synthesize(z[part], vectors[part], self._truncation)
            outside = F.relu(z[part].abs() - self._bound).square().sum(1)
            losses.append(loss(images) + _PRIOR * outside)
            losses[-1].sum().backward()
        return torch.cat(losses).detach()

    def _bar(self, total: int, what: str, unit: str) -> tqdm[NoReturn]:
        disable = None if self._progress is None else not self._progress
        delay = 0 if self._progress else 2  # seconds
        return tqdm(total=total, desc=what, unit=unit, leave=False, delay=delay, disable=disable)


class _Adam:
    """Adam (Kingma and Ba 2015) for independent starts.

    The slope differs between starts by orders of magnitude. A start whose loss rises above
    `_WORSE` times its least goes back to where that was, with half the rate, which recovers.
    """

    def __init__(self, z: Tensor, vectors: Tensor, *, free: bool) -> None:
        self.z, self.vectors = z.detach().clone(), vectors.detach().clone()
        self._least = z.new_full((len(z),), math.inf)
        self._best = self.z.clone(), self.vectors.clone()
        self._rates, self._steps = z.new_ones(len(z), 1), z.new_zeros(len(z), 1)
        self._moved = [(self.z, 1.0), (self.vectors, _VECTOR_RATE)][: 1 + free]
        self._moments = [(torch.zeros_like(x), torch.zeros_like(x)) for x, _ in self._moved]
        for x, _ in self._moved:
            x.requires_grad_()

    @torch.no_grad()
    def step(self, losses: Tensor, rate: float) -> None:
        """Move against the gradients, which are cleared; `losses` (N,) are those before."""
        better, worse = losses < self._least, losses > _WORSE * self._least
        self._least = torch.minimum(self._least, losses)
        for best, x in zip(self._best, (self.z, self.vectors), strict=True):
            best[better] = x[better]
        self._rates = torch.where(
            worse[:, None], self._rates / 2, (self._rates * _RECOVERY).clamp_max(1)
        )
        self._steps = torch.where(worse[:, None], 0, self._steps + 1)
        (b1, b2), count = _BETAS, self._steps.clamp_min(1)
        moved = zip(self._moved, self._moments, self._best, strict=False)
        for (x, relative), (mean, square), best in moved:
            assert x.grad is not None
            mean.lerp_(x.grad, 1 - b1)
            square.lerp_(x.grad.square(), 1 - b2)
            mean[worse] = square[worse] = 0
            step = mean / (1 - b1**count) / ((square / (1 - b2**count)).sqrt() + 1e-8)
            x -= rate * relative * self._rates * step
            x[worse] = best[worse]
            x.grad = None

    def best(self) -> tuple[Tensor, Tensor]:
        """Noise and class vectors of the least losses so far, the least first."""
        order = self._least.argsort()
        return self._best[0][order], self._best[1][order]


class _Loss:
    """How far images are from a picture (1, C, R, R)."""

    def __init__(self, target: Tensor, features: Metric | None) -> None:
        self._pyramid = _pyramid(target)
        self._features = None if features is None else features(target)

    def __call__(self, images: Tensor) -> Tensor:
        parts = self.parts(images)
        return parts["pyramid"] + _FEATURES * parts.get("features", 0)

    def parts(self, images: Tensor) -> dict[str, Tensor]:
        """The distances that are added, each (N,)."""
        parts = {"pyramid": (_pyramid(images) - self._pyramid).square().sum(1)}
        if self._features is not None:
            parts["features"] = self._features(images)
        return parts


def _reduced(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images, min(images.shape[-1], _COMPARED))


def _pyramid(images: Tensor) -> Tensor:
    """What each scale adds to the next smaller one, down to 4 pixels, as (N, ...).

    Squared differences of two pyramids sum to the sum of the scales' mean squared differences.
    """
    levels = []
    while images.shape[-1] > 4:
        smaller = F.avg_pool2d(images, 2)
        levels.append(images - F.interpolate(smaller, scale_factor=2.0, mode="nearest"))
        images = smaller
    levels.append(images)
    return torch.cat([level.flatten(1) / math.sqrt(level[0].numel()) for level in levels], dim=1)


def discriminator_metric(discriminator: Discriminator) -> Metric:
    """Compare what the blocks of a discriminator make: mean squares, relative to the picture's."""
    discriminator.requires_grad_(False)
    seen: list[Tensor] = []
    for block in discriminator.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output))

    def features(images: Tensor) -> list[Tensor]:
        seen.clear()
        discriminator.features(images.contiguous(memory_format=torch.channels_last))
        return seen[:]

    def metric(target: Tensor) -> Distance:
        discriminator.to(target.device)
        with torch.no_grad():
            wanted = features(target)
        scales = [x.square().mean().clamp_min(1e-12) for x in wanted]

        def distance(images: Tensor) -> Tensor:
            terms = zip(features(images), wanted, scales, strict=True)
            return torch.stack(
                [(a - b).square().flatten(1).mean(1) / scale for a, b, scale in terms]
            ).mean(0)

        return distance

    return metric


def lpips_metric() -> Metric:
    """LPIPS with AlexNet (Zhang et al. 2018), of the package `lpips`.

    Raises:
        InputError: It is not installed, or its weights cannot be fetched.
    """
    try:
        import lpips
    except ImportError:
        raise InputError("LPIPS needs the package lpips: pip install lpips") from None
    try:
        network = lpips.LPIPS(net="alex", verbose=False).eval().requires_grad_(False)
    except OSError as error:
        raise InputError(
            f"the weights of LPIPS cannot be fetched: {error}; choose other features"
        ) from None

    def metric(target: Tensor) -> Distance:
        network.to(target.device)

        def distance(images: Tensor) -> Tensor:
            pair = (x.expand(len(images), 3, -1, -1) for x in (images, target))
            return network(*pair).flatten()

        return distance

    return metric


def read_picture(path: str | Path, gan: Gan, *, fit: bool = False) -> Tensor:
    """Read a picture to be inverted by a model: uint8 (C, R, R).

    With `fit` it is cropped to the central square, resized and converted, as training does;
    otherwise a picture of another size, or grey instead of colour, is refused.

    Raises:
        InputError: It cannot be read, or has another shape or mode.
    """
    channels, side = gan.config.image_channels, gan.config.resolution
    if channels not in MODES:
        raise InputError(f"pictures have 1 or 3 channels, and {gan.name} makes {channels}")
    try:
        with strict_pillow():
            data = Path(path).read_bytes()
            picture = decode_image(data, channels)[0]
            mode = open_image(data).mode
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except CorruptImageError as error:
        raise InputError(f"{path} is not a readable picture: {error}") from None
    if not fit:
        if picture.size != (side, side):
            raise InputError(
                f"{path} has {picture.width}x{picture.height} pixels, and {gan.name} makes "
                f"{side}x{side}: crop and resize it (--fit, or fit=True)"
            )
        is_grey = mode[0] in "1LIF" and mode != "LAB"
        if is_grey != (channels == 1):
            kinds = ("grey", "colour") if is_grey else ("colour", "grey")
            raise InputError(
                f"{path} is {kinds[0]}, and {gan.name} makes {kinds[1]} images: convert it (--fit, "
                "or fit=True)"
            )
    return torch.from_numpy(to_array(fit_square(picture, side)).copy())


def save_latents(latents: Latents, path: str | Path) -> None:
    """Write latents as a safetensors file, for `load_latents` and `biggan sample --latents`.

    Raises:
        InputError: Noise and class vectors are not equally many rows of finite numbers, or the file
            cannot be written.
    """
    about = {name: getattr(latents, name) for name in ("truncation", "model", "sha256", "name")}
    about["details"] = dict(latents.details)
    z, vectors = (as_numbers(getattr(latents, name), name).detach().float() for name in _TENSORS)
    if z.ndim < 2 or len(z) == 0 or vectors.shape[:1] != z.shape[:1]:
        raise InputError(
            "latents are noise (N, z_dim) and class vectors (N, class_dim), not "
            f"{tuple(z.shape)} and {tuple(vectors.shape)}"
        )
    save_record(Path(path), _KEY, about, {"z": z, "class_vectors": vectors})


def load_latents(path: str | Path) -> Latents:
    """Read a file of `save_latents`.

    Raises:
        InputError: There is no such file, or it holds no latents.
    """
    return load_record(path, _KEY, _latents_of, "make them with biggan invert")


def _latents_of(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Latents:
    truncation = about["truncation"]
    found = Latents(
        tensors["z"].float(),
        tensors["class_vectors"].float(),
        None if truncation is None else float(truncation),
        str(about["model"]),
        str(about["sha256"]),
        str(about["name"]),
        dict(about["details"]),
    )
    usable = len(found.z) == len(found.class_vectors) > 0
    if not (usable and found.z.isfinite().all() and found.class_vectors.isfinite().all()):
        raise ValueError
    return found
