"""Amenability to truncation (Section 3.1, Figure 2b): does truncated noise saturate the pictures?

The paper finds that many large models make saturated pixels from truncated noise, and that
orthogonal regularization makes more of them amenable. Pixels also saturate for good reasons: the
background of the digits is black. So a model is compared with itself: counted is what truncation
adds to its pictures of the same seeds and classes from untruncated noise.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from biggan.atomic_write import write_atomically
from biggan.errors import InputError
from biggan.gan import Gan, load
from biggan.images import make_grid, to_pil, to_uint8
from biggan.latents import make_noise
from biggan.weights.files import RUN_GENERATOR, read_metadata

LEVEL = 0.99  # of |x|, images in [-1, 1]: the outermost two grey levels of 256 at either end
TRUNCATIONS = (None, 1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.04)
AMENABLE = 0.05  # the largest added part up to which a model counts as amenable

_CACHE = "truncation.json"  # in the run's folder
_VERSION = 2  # of the cache
_SHOWN = (None, 1.0, 0.6, 0.2, 0.04)
_SHOWN_PICTURES = 8
_SHOWN_WIDTH = 64  # pixels at most, of each


@dataclass(frozen=True)
class Saturation:
    """How saturated pictures are at one truncation, as parts of all pixel values."""

    truncation: float | None
    """None for untruncated noise."""
    dark: float
    """Below -0.99."""
    bright: float
    """Above 0.99."""
    plain: float
    """Either, with BatchNorm's statistics of untruncated noise."""

    @property
    def all(self) -> float:
        """Either dark or bright."""
        return self.dark + self.bright


@dataclass(frozen=True)
class Sweep:
    """A generator's saturation over truncations."""

    num: int
    """Pictures behind each figure."""
    rows: tuple[Saturation, ...]
    """Untruncated noise first, then from wide to narrow."""
    strips: tuple[tuple[float | None, str], ...]
    """PNGs in base64 of pictures of the same seeds and classes, by truncation."""

    def added(self, *, plain: bool = False) -> list[tuple[float, float]]:
        """For each truncation, how much larger the saturated part is than without."""
        base = self.rows[0].all
        return [
            (row.truncation, (row.plain if plain else row.all) - base)
            for row in self.rows
            if row.truncation is not None
        ]

    @property
    def most_added(self) -> float:
        """The largest part that any truncation adds."""
        return max(part for _, part in self.added())


def measure_truncation(run_dir: Path, *, progress: bool = True) -> Sweep | None:
    """Measure a run's generator, or read what was measured of the same weights before.

    The result is cached in the run's folder if it is writable; it is None without a generator.
    """
    weights, cache = run_dir / RUN_GENERATOR, run_dir / _CACHE
    if not weights.exists():
        return None
    if sweep := _cached(cache, weights):
        return sweep
    gan = load(weights, engine="pytorch")
    sweep = sweep_truncations(gan, progress=progress)
    body = asdict(sweep)
    contents = json.dumps({"key": _key(gan.sha256, body), "sweep": body})
    with suppress(InputError):  # a folder that is not writable: measured again the next time
        write_atomically(cache, contents.encode())
    return sweep


def sweep_truncations(gan: Gan, *, progress: bool = False) -> Sweep:
    """Measure a generator at every one of `TRUNCATIONS`."""
    resolution = gan.config.resolution
    num = 48 if resolution <= 64 else 16 if resolution <= 128 else 8
    labels = torch.arange(num) % max(1, gan.config.num_classes)
    rows, strips = [], []
    for truncation in tqdm(TRUNCATIONS, "truncation", disable=None if progress else True):
        z = make_noise(num, gan.config.z_dim, truncation, 0)
        images = gan.generate(z, labels, truncation)
        plain = images if truncation is None else gan.generate(z, labels, None)
        if not (images.isfinite().all() and plain.isfinite().all()):
            raise InputError("the generator's images are not finite")
        dark, bright = _saturated(images)
        rows.append(Saturation(truncation, dark, bright, sum(_saturated(plain))))
        if truncation in _SHOWN:
            strips.append((truncation, _strip(images[:_SHOWN_PICTURES])))
    return Sweep(num, tuple(rows), tuple(strips))


def _saturated(images: Tensor) -> tuple[float, float]:
    dark, bright = (images < -LEVEL).double().mean(), (images > LEVEL).double().mean()
    return float(dark), float(bright)


def _strip(images: Tensor) -> str:
    pictures = list(to_pil(to_uint8(images)))
    for picture in pictures:
        picture.thumbnail((_SHOWN_WIDTH, _SHOWN_WIDTH))
    contents = io.BytesIO()
    make_grid(pictures, columns=len(pictures)).save(contents, format="PNG")
    return base64.b64encode(contents.getvalue()).decode()


def _cached(cache: Path, weights: Path) -> Sweep | None:
    """What an earlier report measured of these weights; None if it cannot be used."""
    try:
        kept = json.loads(cache.read_text(encoding="utf-8"))
        body = kept["sweep"]
        if kept["key"] != _key(read_metadata(weights)["sha256"], body):
            return None
        rows = tuple(Saturation(**row) for row in body["rows"])
        return Sweep(body["num"], rows, tuple((t, png) for t, png in body["strips"]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _key(weights_sha256: str, body: Any) -> list[Any]:
    """What a cache is of, and a digest of what it holds."""
    digest = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    return [_VERSION, weights_sha256, digest]
