"""Amenability to truncation (Section 3.1, Figure 2b): does a generator saturate on cut noise?

The paper finds that many large models make saturated pixels once they are given truncated noise,
and that orthogonal regularization makes more of them amenable. Pixels also saturate for good
reasons: the background of the digits is black. So a model is compared with itself, with the same
seeds and classes and untruncated noise: what truncation adds is its own.
"""

from __future__ import annotations

import base64
import io
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from biggan.atomic_write import write_atomically
from biggan.errors import InputError
from biggan.gan import Gan, load
from biggan.images import make_grid, to_pil, to_uint8
from biggan.latents import make_noise
from biggan.weights.files import RUN_GENERATOR

LEVEL = 0.99  # of |x|, images in [-1, 1]: the outermost two grey levels of 256 at either end
TRUNCATIONS = (None, 1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.04)
AMENABLE = 0.05  # added to the saturated part, up to which a model counts as fit for truncation
RUN_SATURATION = "truncation.json"
"""Name of the file in a run folder that keeps what was measured."""

_SHOWN = (None, 1.0, 0.6, 0.2, 0.04)
_SHOWN_PICTURES = 8
_SHOWN_WIDTH = 64  # pixels at most, of each
_SEED = 0
_VERSION = 1


@dataclass(frozen=True)
class Saturation:
    """How saturated pictures are at one truncation; parts of all pixel values.

    Attributes:
        truncation: None for untruncated noise.
        dark: Below -0.99.
        bright: Above 0.99.
        plain: Either, where BatchNorm keeps its statistics of untruncated noise.
    """

    truncation: float | None
    dark: float
    bright: float
    plain: float

    @property
    def all(self) -> float:
        """Either dark or bright."""
        return self.dark + self.bright


@dataclass(frozen=True)
class Sweep:
    """A generator's saturation along the truncations.

    Attributes:
        num: Pictures behind each figure.
        rows: Untruncated noise first, then from wide to narrow.
        strips: Pictures of the same seeds and classes to look at, by truncation, as PNG.
    """

    num: int
    rows: tuple[Saturation, ...]
    strips: tuple[tuple[float | None, bytes], ...]

    def added(self, *, plain: bool = False) -> list[tuple[float, float]]:
        """Of each truncation, how much more is saturated than without; parts of all values."""
        base = self.rows[0].all
        return [
            (row.truncation, (row.plain if plain else row.all) - base)
            for row in self.rows
            if row.truncation is not None
        ]

    @property
    def amenable(self) -> bool:
        """Whether no truncation adds more than `AMENABLE`."""
        return max(part for _, part in self.added()) <= AMENABLE


def measure_truncation(run_dir: Path, *, progress: bool = True) -> Sweep | None:
    """Measure a run's generator, or read what was measured of the same weights before.

    A second for digits on a CPU, minutes for large networks. The result is kept in the run's
    folder, if that can be written.

    Returns:
        Nothing where the run has no generator yet.

    Raises:
        InputError: The generator cannot be loaded, or makes no pictures.
    """
    weights, kept = run_dir / RUN_GENERATOR, run_dir / RUN_SATURATION
    if not weights.exists():
        return None
    if sweep := _kept(kept, _stated_sha256(weights)):
        return sweep
    gan = load(weights, engine="pytorch")
    sweep = sweep_truncations(gan, progress=progress)
    with suppress(InputError):  # somebody else's folder: measured anew the next time
        write_atomically(kept, json.dumps(_as_json(sweep, gan.sha256)).encode())
    return sweep


def sweep_truncations(gan: Gan, *, progress: bool = False) -> Sweep:
    """Measure a generator at every one of `TRUNCATIONS`.

    Args:
        gan: The generator.
        progress: Whether to show a progress bar on a terminal.

    Raises:
        InputError: Its pictures are not finite.
    """
    resolution = gan.config.resolution
    num = 48 if resolution <= 64 else 16 if resolution <= 128 else 8
    labels = torch.arange(num) % max(1, gan.config.num_classes)
    rows, strips = [], []
    for truncation in tqdm(TRUNCATIONS, "truncation", disable=None if progress else True):
        z = make_noise(num, gan.config.z_dim, truncation, _SEED)
        images = gan.generate(z, labels, truncation)
        plain = images if truncation is None else gan.generate(z, labels, None)
        if not (images.isfinite().all() and plain.isfinite().all()):
            raise InputError("the generator makes pictures that are not finite")
        dark, bright = _saturated(images)
        rows.append(Saturation(truncation, dark, bright, sum(_saturated(plain))))
        if truncation in _SHOWN:
            strips.append((truncation, _strip(images[:_SHOWN_PICTURES])))
    return Sweep(num, tuple(rows), tuple(strips))


def _saturated(images: Tensor) -> tuple[float, float]:
    """The parts of the values that are dark and bright to the end."""
    dark, bright = (images < -LEVEL).double().mean(), (images > LEVEL).double().mean()
    return float(dark), float(bright)


def _strip(images: Tensor) -> bytes:
    pictures = list(to_pil(to_uint8(images)))
    for picture in pictures:
        picture.thumbnail((_SHOWN_WIDTH, _SHOWN_WIDTH))
    contents = io.BytesIO()
    make_grid(pictures, columns=len(pictures)).save(contents, format="PNG")
    return contents.getvalue()


def _stated_sha256(weights: Path) -> str | None:
    """The digest that a weights file says of itself, without reading the weights."""
    try:
        with safe_open(weights, framework="pt") as file:
            stated = (file.metadata() or {}).get("sha256")
    except (SafetensorError, OSError, ValueError):
        return None
    return stated if isinstance(stated, str) else None


def _as_json(sweep: Sweep, sha256: str) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "sha256": sha256,
        "num": sweep.num,
        "rows": [asdict(row) for row in sweep.rows],
        "strips": [[t, base64.b64encode(png).decode()] for t, png in sweep.strips],
    }


def _kept(path: Path, sha256: str | None) -> Sweep | None:
    """What an earlier report measured; nothing if of other weights, in another way, or damaged."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if sha256 is None or (kept["version"], kept["sha256"]) != (_VERSION, sha256):
            return None
        rows = tuple(Saturation(**row) for row in kept["rows"])
        strips = tuple((t, base64.b64decode(png, validate=True)) for t, png in kept["strips"])
        for _, png in strips:
            Image.open(io.BytesIO(png)).verify()
        if tuple(row.truncation for row in rows) != TRUNCATIONS:
            return None
        parts = [part for row in rows for part in (row.dark, row.bright, row.plain)]
        if not (all(0 <= part <= 1 for part in parts) and all(t in _SHOWN for t, _ in strips)):
            return None
        return Sweep(int(kept["num"]), rows, strips)
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError, SyntaxError):
        return None
