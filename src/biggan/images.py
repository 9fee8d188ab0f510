"""Images: the only place where a network's floats become pixels; grids, PNG and JPEG files.

The rule for pixels and the layout of grids are those of DeepMind's TF Hub notebook, so a published
seed gives the published picture.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from biggan.atomic_write import make_folder, write_atomically
from biggan.errors import InputError

if TYPE_CHECKING:
    from biggan.provenance import PngProvenance

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_LONGEST_COMMENT = 2**16 - 3  # bytes, of a JPEG
_SMALL = 64  # up to this many pixels a side a notebook shows pictures enlarged


class Picture(Image.Image):
    """A PIL image whose provenance goes with it into PNG files.

    Copies and changed pictures are plain PIL images, without provenance.
    """

    provenance: PngProvenance | None = None

    @classmethod
    def of(cls, image: Image.Image, provenance: PngProvenance) -> Picture:
        """The same picture with provenance."""
        picture = cls()
        picture.__setstate__(image.__getstate__())
        picture.provenance = provenance
        return picture

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:  # noqa: A002
        """As of PIL; a PNG also gets the provenance, for `biggan sample --like`."""
        if self.provenance is not None:
            params.setdefault("pnginfo", _chunks(self.provenance))  # of other formats, ignored
        super().save(fp, format, **params)


class Pictures(list[Image.Image]):
    """The list of PIL images that `Gan.sample` returns; a notebook shows the pictures."""

    def grid(self, columns: int = 5) -> Image.Image:
        """All pictures in one, row by row; its PNG files have the provenance of all."""
        from biggan.provenance import GridProvenance, Provenance

        grid = make_grid(self, min(columns, len(self)))
        found = (getattr(picture, "provenance", None) for picture in self)
        made = [provenance for provenance in found if isinstance(provenance, Provenance)]
        if len(made) < len(self):
            return grid
        return Picture.of(grid, GridProvenance(min(columns, len(self)), tuple(made)))

    def save(self, folder: str | Path) -> list[Path]:
        """Write a PNG for each picture, called by its class and settings; returns the paths."""
        from biggan.provenance import file_stem

        paths = []
        make_folder(Path(folder))
        for number, picture in enumerate(self):
            made = getattr(picture, "provenance", None)
            name = file_stem(made) if made else f"picture-{number:04d}"
            paths.append(Path(folder, f"{name}.png"))
            save_png(picture, paths[-1], made)
        return paths

    def _repr_html_(self) -> str:
        shown = []
        for picture in self:
            contents = base64.b64encode(to_png(picture)).decode()
            side = 2 * picture.width if picture.width <= _SMALL else picture.width
            title = getattr(getattr(picture, "provenance", None), "class_name", None) or ""
            shown.append(
                f'<img src="data:image/png;base64,{contents}" title="{html.escape(title)}" '
                f'width="{side}" style="display:inline-block; margin:1px; '
                'image-rendering:pixelated">'
            )
        return "".join(shown)


def to_uint8(images: Tensor) -> Tensor:
    """Turn a generator's output into pixels.

    Args:
        images: Float images in [-1, 1], (N, C, H, W); values outside are clipped.

    Returns:
        uint8 images of the same shape: `(x + 1) / 2 * 256`, clipped to 0..255 and truncated, which
        splits [-1, 1] into 256 levels of the same width.
    """
    if images.dtype in (torch.float16, torch.bfloat16):
        images = images.float()  # eight bits of mantissa are too few to count 256 levels
    return ((images + 1) / 2 * 256).clamp(0, 255).to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """Turn pixels into what a discriminator sees: `(x + 0.5) / 128 - 1`.

    That is the middle of the interval that `to_uint8` maps to a level, so the two are inverse for
    all 256 levels. The usual `x / 127.5 - 1` puts most levels off the middle and 0 and 255 on the
    very ends, which tanh never reaches: a generator would learn pictures that `to_uint8` then
    stretches by 256 / 255.

    Args:
        images: uint8 images of any shape.

    Returns:
        float32 images of the same shape, in [-1 + 1/256, 1 - 1/256].
    """
    return (images.float() + 0.5) / 128 - 1


def to_pil(images: Tensor) -> list[Image.Image]:
    """Turn uint8 images (N, C, H, W) into pictures: grey for one channel, RGB for 3, RGBA for 4."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in _MODES:
        raise ValueError(
            "expected uint8 images (N, C, H, W) with 1, 3 or 4 channels, "
            f"got {images.dtype} {tuple(images.shape)}"
        )
    pixels = images.permute(0, 2, 3, 1).cpu().numpy()  # (N, H, W, C)
    if pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    return [Image.fromarray(np.ascontiguousarray(picture)) for picture in pixels]


def make_grid(images: Sequence[Image.Image], columns: int, pad: int = 1) -> Image.Image:
    """Lay pictures out row by row, as the notebook's `imgrid` does.

    Args:
        images: Pictures of one size and mode.
        columns: Pictures in a row; cells that the last row leaves empty are white.
        pad: Width of the white lines between pictures; there is none around the grid.

    Returns:
        One picture.

    Raises:
        ValueError: There is no picture, they differ in size or mode, or a number is too small.
    """
    if not images or columns < 1 or pad < 0:
        raise ValueError("a grid needs at least one image, one column and a padding of 0 or more")
    if len({(image.size, image.mode) for image in images}) > 1:
        raise ValueError("the images of a grid must share one size and one mode")
    width, height = images[0].size
    rows = -(-len(images) // columns)
    size = (columns * (width + pad) - pad, rows * (height + pad) - pad)
    grid = Image.new(images[0].mode, size, "white")
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        grid.paste(image, (column * (width + pad), row * (height + pad)))
    return grid


def save_png(image: Image.Image, path: Path, provenance: PngProvenance | None = None) -> None:
    """Write a PNG that appears whole or not at all, with provenance for `read_provenance`.

    Raises:
        InputError: The file cannot be written.
    """
    write_atomically(path, to_png(image, provenance))


def save_jpeg(image: Image.Image, path: Path, provenance: PngProvenance | None = None) -> None:
    """Write a JPEG of quality 95, whole or not at all, with provenance for `read_provenance`.

    Raises:
        InputError: The file cannot be written, the image is transparent, or the provenance exceeds
            the 64 KiB of a JPEG's comment.
    """
    if image.mode == "RGBA":
        raise InputError(f"cannot write {path}: a JPEG has no transparency; write PNG files")
    comment = b""
    if provenance is not None:
        from biggan.provenance import COMMENT_PREFIX

        comment = f"{COMMENT_PREFIX}{provenance.to_json()}".encode()
        if len(comment) > _LONGEST_COMMENT:
            raise InputError(
                f"cannot write {path}: its provenance exceeds the comment of a JPEG; write a PNG"
            )
    contents = io.BytesIO()
    image.save(contents, format="JPEG", quality=95, subsampling=0, comment=comment)
    write_atomically(path, contents.getvalue())


def to_png(image: Image.Image, provenance: PngProvenance | None = None) -> bytes:
    """The contents of the file that `save_png` writes."""
    contents = io.BytesIO()
    image.save(contents, format="PNG", pnginfo=_chunks(provenance))
    return contents.getvalue()


def _chunks(provenance: PngProvenance | None) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    if provenance is not None:
        from biggan.provenance import PNG_KEYWORD

        chunks.add_text(PNG_KEYWORD, provenance.to_json())
    return chunks
