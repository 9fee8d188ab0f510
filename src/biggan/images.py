"""Images: the only place where a network's floats become pixels; grids, PNG and JPEG files.

The rule for pixels and the layout of grids are those of DeepMind's TF Hub notebook, so a published
seed gives the published picture.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, PngImagePlugin
from torch import Tensor

from biggan.atomic_write import write_atomically
from biggan.errors import InputError, whole_number
from biggan.provenance import COMMENT_PREFIX, PNG_KEYWORD, PngProvenance

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_LONGEST_COMMENT = 2**16 - 3  # bytes, of a JPEG


def to_uint8(images: Tensor) -> Tensor:
    """Turn a generator's output, float (N, C, H, W) in [-1, 1], into uint8 pixels.

    They are `(x + 1) / 2 * 256`, clipped to 0..255 and truncated, which splits [-1, 1] into 256
    levels of the same width.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        raise InputError(f"expected a tensor of floats in [-1, 1], not {form_of(images)}")
    if images.dtype in (torch.float16, torch.bfloat16):
        images = images.float()  # eight bits of mantissa are too few to count 256 levels
    return ((images + 1) / 2 * 256).clamp(0, 255).to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """Turn pixels into what a discriminator sees, float32: `(x + 0.5) / 128 - 1`.

    That is the middle of the interval that `to_uint8` maps to a level, so the two are inverse for
    all 256 levels. The usual `x / 127.5 - 1` puts most levels off the middle and 0 and 255 on the
    very ends, which tanh never reaches: a generator would learn pictures that `to_uint8` then
    stretches by 256 / 255.
    """
    return (images.float() + 0.5) / 128 - 1


def to_pil(images: Tensor) -> list[Image.Image]:
    """Turn uint8 images (N, C, H, W) into pictures: grey for one channel, RGB for 3, RGBA for 4."""
    is_uint8 = isinstance(images, Tensor) and images.dtype == torch.uint8
    if not is_uint8 or images.ndim != 4 or images.shape[1] not in _MODES:
        raise InputError(
            f"expected uint8 images (N, C, H, W) with 1, 3 or 4 channels, got {form_of(images)}"
        )
    pixels = images.permute(0, 2, 3, 1).cpu().numpy()  # (N, H, W, C)
    if pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    return [Image.fromarray(np.ascontiguousarray(picture)) for picture in pixels]


def make_grid(images: Sequence[Image.Image], columns: int, pad: int = 1) -> Image.Image:
    """Lay pictures of one size and mode out row by row, as the notebook's `imgrid` does.

    White lines of width `pad` part them; cells that the last row leaves empty are white, too.

    Raises:
        InputError: There is no picture, they differ in size or mode, or a number is too small.
    """
    columns, pad = whole_number(columns, "the number of columns"), whole_number(pad, "the padding")
    if not images or columns < 1 or pad < 0:
        raise InputError("a grid needs at least one image, one column and a padding of 0 or more")
    if len({(image.size, image.mode) for image in images}) > 1:
        raise InputError("the images of a grid must share one size and one mode")
    width, height = images[0].size
    rows = -(-len(images) // columns)
    size = (columns * (width + pad) - pad, rows * (height + pad) - pad)
    grid = Image.new(images[0].mode, size, "white")
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        grid.paste(image, (column * (width + pad), row * (height + pad)))
    return grid


def form_of(images: object) -> str:
    """The precision and shape of a tensor, or the type of something else."""
    if isinstance(images, Tensor):
        return f"{images.dtype} {tuple(images.shape)}"
    return type(images).__name__


def save_png(image: Image.Image, path: str | Path, provenance: PngProvenance | None = None) -> None:
    """Write a PNG that appears whole or not at all, with provenance for `read_provenance`."""
    write_atomically(Path(path), to_png(image, provenance))


def save_jpeg(
    image: Image.Image, path: str | Path, provenance: PngProvenance | None = None
) -> None:
    """Write a JPEG of quality 95, whole or not at all, with provenance for `read_provenance`.

    Raises:
        InputError: The file cannot be written, the image is transparent, or the provenance exceeds
            the 64 KiB of a JPEG's comment.
    """
    if image.mode == "RGBA":
        raise InputError(f"cannot write {path}: a JPEG has no transparency; write PNG files")
    contents = io.BytesIO()
    parameters = provenance_parameters("JPEG", provenance)
    image.save(contents, format="JPEG", quality=95, subsampling=0, **parameters)
    write_atomically(Path(path), contents.getvalue())


def to_png(image: Image.Image, provenance: PngProvenance | None = None) -> bytes:
    """The contents of the file that `save_png` writes."""
    contents = io.BytesIO()
    image.save(contents, format="PNG", **provenance_parameters("PNG", provenance))
    return contents.getvalue()


def provenance_parameters(format_: str, provenance: PngProvenance | None) -> dict[str, Any]:
    """Arguments of PIL's `save` that store provenance; none for formats that cannot hold it.

    Raises:
        InputError: The provenance exceeds the 64 KiB of a JPEG's comment.
    """
    if provenance is None:
        return {}
    text = provenance.to_json()
    comment = f"{COMMENT_PREFIX}{text}"
    if format_ == "PNG":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text(PNG_KEYWORD, text)
        return {"pnginfo": chunks}
    if format_ == "WEBP":
        exif = Image.Exif()
        exif[ExifTags.Base.ImageDescription] = comment
        return {"exif": exif}
    if format_ == "JPEG" and len(comment) > _LONGEST_COMMENT:
        raise InputError("the provenance exceeds the 64 KiB of a JPEG's comment: write a PNG")
    return {"comment": comment.encode()} if format_ in ("JPEG", "GIF") else {}
