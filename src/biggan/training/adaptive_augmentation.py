"""Adaptive discriminator augmentation (ADA), for small data.

Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data",
https://arxiv.org/abs/2006.06676. Everything that the discriminator sees, real or generated, goes
through a chain of changes, each with probability p (Appendix B; the set "bgc"):

    blits      mirrored; turned by a multiple of 90 degrees; moved by whole pixels
    geometry   scaled; rotated; stretched; rotated again; moved
    colour     brightness; contrast; luma inverted; hue rotated; saturation

p grows from 0 as far as the discriminator's confidence on real images, E[sign(D(x))], calls for.

What differs from the paper:

- Blits are exact: pixels change places. The paper's one resampling for blits and geometry smooths
  mirrored and turned images a little.
- Geometry is one resampling at twice the resolution, as in the paper, but with the filter of
  Lanczos in place of the wavelet sym6, which shifts images by a fifth of a pixel.
- Beyond its border an image goes on as its mirror image, the outermost pixels twice; the paper has
  them once.
- p stays within [0, 1]; the paper bounds it below only.

Randomness is drawn apart from its use, as one row of numbers per image: a process can draw
those of the whole global batch and apply any part of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.training.augmentation import take_pixels

_BLITS = ("flip", "turn", "shift")
_GEOMETRY = ("scale", "rotation_before", "stretch", "rotation_after", "move")
_COLOR = ("brightness", "contrast", "luma", "hue", "saturation")
_CHANGES = (*_BLITS, *_GEOMETRY, *_COLOR)
_UNIFORM = (
    *("flip_by", "turn_by", "shift_down", "shift_right"),
    *("rotation_before_by", "rotation_after_by", "luma_by", "hue_by"),
)
_NORMAL = (
    *("scale_by", "stretch_by", "move_down", "move_right"),
    *("brightness_by", "contrast_by", "saturation_by"),
)
COLUMNS = (*_CHANGES, *_UNIFORM, *_NORMAL)
"""What each random number of an image is for. A change is made where its number is below p."""

# Strengths, Appendix B.
_SHIFT = 1 / 8  # of the side, furthest
_SCALE = 0.2  # standard deviations: of log2 of the factor,
_STRETCH = 0.2
_MOVE = 1 / 8  # of the side,
_BRIGHTNESS = 0.2  # of the images' range [-1, 1],
_CONTRAST = 0.5  # and of log2 of the factors.
_SATURATION = 1.0

_INTERVAL = 4  # updates of the discriminator from one move of p to the next
_LOBES = 3  # of Lanczos' filter, each side; in pixels
_MARGIN = 2 * _LOBES - 1  # fine pixels beyond the border that the filter reaches


class AdaptiveAugmentation(nn.Module):
    """Augments images, as often as the discriminator's confidence calls for.

    Its state is four numbers: p, and the signs, images and updates since p last moved. `target` is
    E[sign(D(x))] of real images to hold, `images` the real ones over which p may move from 0 to 1.
    """

    probability: Tensor
    sign_sum: Tensor
    num_images: Tensor
    updates: Tensor
    enlarge: Tensor
    reduce: Tensor

    def __init__(self, resolution: int, target: float = 0.6, images: int = 500_000) -> None:
        super().__init__()
        self.target = target
        self.images = images
        for name in ("probability", "sign_sum", "num_images", "updates"):
            self.register_buffer(name, torch.zeros(()))
        enlarge, reduce = _resampling_matrices(resolution)
        self.register_buffer("enlarge", enlarge, persistent=False)
        self.register_buffer("reduce", reduce, persistent=False)

    @torch.no_grad()
    def observe(self, sign_sum: Tensor, num_images: int) -> None:
        """Take note of one update of the discriminator; every fourth moves p. Waits for no device.

        p moves by the share `images since the last move / self.images`, up if E[sign(D(x))] is
        above the target, down if below. `sign_sum` is the sum of sign(D(x)) over the update's
        `num_images` real images, of all processes.
        """
        self.sign_sum += sign_sum
        self.num_images += num_images
        self.updates += 1
        due = self.updates >= _INTERVAL
        # Compared as sums: a mean over images would round.
        direction = torch.sign(self.sign_sum - self.target * self.num_images)
        moved = self.probability + direction * self.num_images / self.images
        self.probability.copy_(torch.where(due, moved.clamp(0, 1), self.probability))
        for counter in (self.sign_sum, self.num_images, self.updates):
            counter.masked_fill_(due, 0)

    @staticmethod
    def draw(num_images: int, random: torch.Generator) -> Tensor:
        """The random numbers for so many images, whatever p is.

        (num_images, len(COLUMNS)), on the CPU: uniform in [0, 1), the last seven N(0, 1).
        """
        uniform = torch.rand(num_images, len(COLUMNS) - len(_NORMAL), generator=random)
        return torch.cat([uniform, torch.randn(num_images, len(_NORMAL), generator=random)], dim=1)

    def forward(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Augment images (N, C, R, R) in [-1, 1], grey or colour, by their numbers from `draw`.

        An image that no change was drawn for comes back to the bit; colours may leave [-1, 1].
        """
        values = dict(zip(COLUMNS, numbers.unbind(dim=1), strict=True))
        # Two rotations at this probability each make at least one of them as probable as p.
        rotation = 1 - (1 - self.probability).sqrt()
        changes = {
            name: values[name] < (rotation if name.startswith("rotation") else self.probability)
            for name in _CHANGES
        }
        with torch.autocast(images.device.type, enabled=False):
            blitted = _blit(images, changes, values)
            dtype = torch.promote_types(images.dtype, torch.float32)
            values = {name: value.to(dtype) for name, value in values.items()}
            result = self._resample(blitted.to(dtype), changes, values)
            return _recolor(result, changes, values).to(images.dtype)

    def _resample(
        self, images: Tensor, changes: dict[str, Tensor], values: dict[str, Tensor]
    ) -> Tensor:
        """Scale, rotate and move, in one resampling."""
        sampling = _inverse_geometry(changes, values)
        enlarge, reduce = self.enlarge.to(images.dtype), self.reduce.to(images.dtype)
        fine = enlarge @ images @ enlarge.mT  # (N, C, 2R, 2R)
        sampled = F.grid_sample(
            fine,
            _sampling_grid(*sampling, fine.shape[-1]),
            mode="bilinear",
            padding_mode="reflection",
            align_corners=False,
        )
        return _where_any(changes, _GEOMETRY, reduce @ sampled @ reduce.mT, images)


def _blit(images: Tensor, changes: dict[str, Tensor], values: dict[str, Tensor]) -> Tensor:
    """Mirror, then turn, then move by whole pixels: pixels change places."""
    last = images.shape[-1] - 1
    furthest = _SHIFT * images.shape[-1]
    flipped = changes["flip"] & (values["flip_by"] < 0.5)
    turns = (4 * values["turn_by"]).long() * changes["turn"]
    # Where each pixel comes from: the changes undone, the last one first.
    along = torch.arange(last + 1, device=images.device)
    down, right = (
        torch.round((2 * values[name] - 1) * furthest).long() * changes["shift"]
        for name in ("shift_down", "shift_right")
    )
    rows = _reflect(along - down[:, None], last)[:, :, None]  # (N, R, 1)
    columns = _reflect(along - right[:, None], last)[:, None, :]  # (N, 1, R)
    by_90, by_180, by_270 = ((turns == count)[:, None, None] for count in (1, 2, 3))
    # A turn by 90 degrees to the left brings the pixel (r, c) to (last - c, r).
    turned_rows = torch.where(by_90, columns, torch.where(by_270, last - columns, rows))
    turned_columns = torch.where(by_90, last - rows, torch.where(by_270, rows, columns))
    rows = torch.where(by_180, last - turned_rows, turned_rows)
    columns = torch.where(by_180, last - turned_columns, turned_columns)
    columns = torch.where(flipped[:, None, None], last - columns, columns)
    return take_pixels(images, rows, columns)


def _inverse_geometry(
    changes: dict[str, Tensor], values: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Where the pixels of a changed image come from, positions (x, y) each in [-1, 1].

    A matrix (N, 2, 2) and an offset (N, 2): a pixel at p comes from matrix @ (p - offset).
    """
    factor = torch.exp2(_SCALE * values["scale_by"] * changes["scale"])
    stretch = torch.exp2(_STRETCH * values["stretch_by"] * changes["stretch"])
    before, after = (
        _rotation(math.pi * (2 * values[f"{name}_by"] - 1) * changes[name])
        for name in ("rotation_before", "rotation_after")
    )
    # Forwards: after . diag(stretch, 1 / stretch) . before . factor
    narrowed = torch.stack([1 / stretch, stretch], dim=1)[:, :, None] * after.mT
    matrix = before.mT @ narrowed / factor[:, None, None]
    offset = torch.stack([values["move_right"], values["move_down"]], dim=1)
    return matrix, 2 * _MOVE * offset * changes["move"][:, None]


def _sampling_grid(matrix: Tensor, offset: Tensor, size: int) -> Tensor:
    """Positions for `grid_sample`, of fine pixels and a margin of them: (N, S, S, 2)."""
    fine = torch.arange(-_MARGIN, size + _MARGIN, dtype=matrix.dtype, device=matrix.device)
    positions = (2 * fine + 1) / size - 1
    x, y = (positions - offset[:, axis, None] for axis in (0, 1))  # (N, S)
    return (
        x[:, None, :, None] * matrix[:, None, None, :, 0]
        + y[:, :, None, None] * matrix[:, None, None, :, 1]
    )


def _recolor(images: Tensor, changes: dict[str, Tensor], values: dict[str, Tensor]) -> Tensor:
    """Change colours: one matrix and one offset per image.

    Brightness adds to a colour's grey part, along (1, 1, 1); contrast scales it and the rest; the
    inversion of luma negates it; hue rotates the rest; saturation scales that.
    """
    brightness = _BRIGHTNESS * values["brightness_by"] * changes["brightness"]
    contrast = torch.exp2(_CONTRAST * values["contrast_by"] * changes["contrast"])
    luma = 1 - 2 * (changes["luma"] & (values["luma_by"] < 0.5)).to(images.dtype)
    brightened = images + brightness[:, None, None, None]
    if images.shape[1] == 1:
        changed = brightened * (contrast * luma)[:, None, None, None]
        return _where_any(changes, ("brightness", "contrast", "luma"), changed, images)
    saturation = torch.exp2(_SATURATION * values["saturation_by"] * changes["saturation"])
    angle = math.pi * (2 * values["hue_by"] - 1) * changes["hue"]
    grey = images.new_full((3, 3), 1 / 3)
    rest = torch.eye(3, dtype=images.dtype, device=images.device) - grey
    # The cross product with (1, 1, 1) / sqrt(3): a quarter of a turn of the rest.
    quarter = (rest.roll(1, dims=0) - rest.roll(-1, dims=0)) / math.sqrt(3)
    cos, sin = (saturation * part for part in (angle.cos(), angle.sin()))
    weights = torch.stack([luma, cos, sin], dim=1) * contrast[:, None]  # (N, 3)
    matrix = torch.tensordot(weights, torch.stack([grey, rest, quarter]), dims=1)  # (N, 3, 3)
    changed = (matrix @ brightened.flatten(2)).view(images.shape)
    return _where_any(changes, _COLOR, changed, images)


def _where_any(
    changes: dict[str, Tensor], names: tuple[str, ...], changed: Tensor, images: Tensor
) -> Tensor:
    """Each image changed if any of these changes was drawn for it, otherwise to the bit."""
    drawn = torch.stack([changes[name] for name in names]).any(dim=0)
    return torch.where(drawn[:, None, None, None], changed, images)


def _rotation(angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2)


def _reflect(index: Tensor, last: int) -> Tensor:
    """Fold an index into 0 ... last, which repeats as its mirror image: -1 is 0 again."""
    index = index % (2 * (last + 1))
    return torch.minimum(index, 2 * last + 1 - index)


def _resampling_matrices(resolution: int) -> tuple[Tensor, Tensor]:
    """What doubles the resolution along one axis, (2R, R), and halves it, (R, 2R + two margins)."""
    # Centres, in pixels: a fine one lies a quarter beside that of the pixel that it is part of.
    fine = torch.arange(-_MARGIN, 2 * resolution + _MARGIN, dtype=torch.float64) / 2 - 0.25
    pixels = torch.arange(-_LOBES, resolution + _LOBES)
    enlarge = _lanczos(fine[_MARGIN:-_MARGIN, None] - pixels)
    folded = enlarge.new_zeros(2 * resolution, resolution)
    folded.index_add_(1, _reflect(pixels, resolution - 1), enlarge)
    return folded.float(), _lanczos(pixels[_LOBES:-_LOBES, None] - fine).float()


def _lanczos(distance: Tensor) -> Tensor:
    """Weights that add up to 1 along the last axis, for distances in pixels."""
    weights = torch.sinc(distance) * torch.sinc(distance / _LOBES) * (distance.abs() < _LOBES)
    return weights / weights.sum(dim=-1, keepdim=True)
