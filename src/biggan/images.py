"""Images: the only place where a network's floats become pixels, and how pictures are kept.

The rule for pixels and the layout of grids are those of DeepMind's TF Hub notebook, so a published
seed gives the published picture. A PNG of ours carries the recipe that made it, be it one picture,
a grid of them or a grid of paths between two classes, so that any file can be made again.
"""

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, get_origin, get_type_hints

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from biggan.atomic_write import write_atomically
from biggan.errors import InputError, quoted

MAX_PICTURES = 100_000
"""Pictures of one class, grid or video: their noise is held in memory at once."""

_Flat = TypeVar("_Flat", bound="Recipe | MorphRecipe | Keyframe | VideoRecipe")

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_CHUNK = "biggan"  # the keyword of the PNG text chunk that holds the recipe

# The least and the largest number in a recipe, by key.
_RANGES = {
    **dict.fromkeys(("class_index", "class_a", "class_b"), (0, 2**31 - 1)),
    **dict.fromkeys(("seed", "seed_a", "seed_b"), (0, 2**32 - 1)),
    **dict.fromkeys(("num", "frames"), (0, MAX_PICTURES)),
    "index": (0, MAX_PICTURES - 1),
    "steps": (2, MAX_PICTURES),
    "fps": (0.001, 1000),
}


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


@dataclasses.dataclass(frozen=True)
class _Written:
    """What is kept in a picture's or video's file."""

    def to_json(self) -> str:
        """The recipe as one line of ASCII JSON."""
        return json.dumps(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Recipe(_Written):
    """All that is needed to make one image again.

    Attributes:
        model: The name or file of the model.
        sha256: The digest of its tensors: the same name may come to mean other weights.
        class_index: The class, None for an unconditional model or a mixture.
        class_name: Its name where the model has names.
        truncation: The truncation, None for untruncated noise.
        noise: What truncation means: "hub", "paper" or "scale".
        seed: The seed of the noise.
        index: The row of the noise.
        version: The version of biggan that made the image.
    """

    model: str
    sha256: str
    class_index: int | None
    class_name: str | None
    truncation: float | None
    noise: str
    seed: int
    index: int
    version: str

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            InputError: It is no JSON object, or a key is unknown, missing or of another type.
        """
        return _checked(cls, _parse(text))


@dataclasses.dataclass(frozen=True)
class GridRecipe(_Written):
    """All that is needed to make a grid of pictures again.

    Attributes:
        columns: Pictures in a row.
        pictures: Their recipes, row by row; at least one.
    """

    columns: int
    pictures: tuple[Recipe, ...]


@dataclasses.dataclass(frozen=True)
class MorphRecipe(_Written):
    """All that is needed to make the pictures between two classes again.

    Attributes:
        model: The name or file of the model.
        sha256: The digest of its tensors.
        class_a: The class at the start, None for an unconditional model.
        class_a_name: Its name where the model has names.
        class_b: The class at the end.
        class_b_name: Its name.
        steps: Pictures on each path.
        num: Paths.
        truncation: The truncation, None for untruncated noise.
        noise: What truncation means: "hub", "paper" or "scale".
        seed_a: The seed of the noise at the start.
        seed_b: The seed of the noise at the end.
        path: How the noise moves: "linear" or "slerp".
        version: The version of biggan that made the pictures.
    """

    model: str
    sha256: str
    class_a: int | None
    class_a_name: str | None
    class_b: int | None
    class_b_name: str | None
    steps: int
    num: int
    truncation: float | None
    noise: str
    seed_a: int
    seed_b: int
    path: str
    version: str


@dataclasses.dataclass(frozen=True)
class Keyframe:
    """What a path passes through: the pictures of a class and a seed.

    Attributes:
        class_index: The class, None for an unconditional model.
        class_name: Its name where the model has names.
        seed: The seed of the noise.
    """

    class_index: int | None
    class_name: str | None
    seed: int


@dataclasses.dataclass(frozen=True)
class VideoRecipe(_Written):
    """All that is needed to make a video again.

    Attributes:
        model: The name or file of the model.
        sha256: The digest of its tensors.
        keyframes: What it passes through, at least two.
        frames: Frames of the whole file.
        fps: Frames a second.
        loop: What follows the last keyframe: "there-and-back", "around" or "none".
        num: Paths, side by side.
        truncation: The truncation, None for untruncated noise.
        noise: What truncation means: "hub", "paper" or "scale".
        path: How the noise moves: "linear" or "slerp".
        version: The version of biggan that made the video.
    """

    model: str
    sha256: str
    keyframes: tuple[Keyframe, ...]
    frames: int
    fps: float
    loop: str
    num: int
    truncation: float | None
    noise: str
    path: str
    version: str

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            InputError: It is no JSON object, or a key is unknown, missing or of another type.
        """
        values = _parse(text)
        keyframes = values.get("keyframes")
        if not isinstance(keyframes, list) or not all(isinstance(k, dict) for k in keyframes):
            raise InputError("the recipe's 'keyframes' must be a list of keyframes")
        values["keyframes"] = tuple(_checked(Keyframe, keyframe) for keyframe in keyframes)
        if not 2 <= len(keyframes) <= MAX_PICTURES:
            raise InputError(
                f"the recipe must have at least 2 keyframes and at most {MAX_PICTURES}, "
                f"not {len(keyframes)}"
            )
        return _checked(cls, values)


AnyRecipe = Recipe | GridRecipe | MorphRecipe
"""What a PNG may carry."""


def recipe_from_json(text: str) -> AnyRecipe:
    """Read what the `to_json` of any recipe that a PNG may carry wrote.

    Raises:
        InputError: It is no JSON object, or a key is unknown, missing or of another type.
    """
    values = _parse(text)
    if "pictures" in values:
        return _checked_grid(values)
    if "steps" in values:
        return _checked(MorphRecipe, values)
    return _checked(Recipe, values)


def save_png(image: Image.Image, path: Path, recipe: AnyRecipe | None = None) -> None:
    """Write a PNG that appears whole or not at all.

    Args:
        image: The picture.
        path: The file; its folder must exist. An older file is replaced.
        recipe: Kept in a text chunk of the file, for `read_recipe`.

    Raises:
        InputError: The file cannot be written.
    """
    write_atomically(path, to_png(image, recipe))


def to_png(image: Image.Image, recipe: AnyRecipe | None = None) -> bytes:
    """The contents of the file that `save_png` writes."""
    chunks = PngImagePlugin.PngInfo()
    if recipe is not None:
        chunks.add_text(_CHUNK, recipe.to_json())
    contents = io.BytesIO()
    image.save(contents, format="PNG", pnginfo=chunks)
    return contents.getvalue()


def read_recipe(
    path: Path, most_pixels: int | None = None, longest: int | None = None
) -> AnyRecipe:
    """Read the recipe out of a PNG that `save_png` wrote.

    Args:
        path: The file.
        most_pixels: Of a picture that is looked into; None for as many as Pillow takes.
        longest: Characters of a recipe that is read; None for any number. Both are for files of
            strangers.

    Raises:
        InputError: The file cannot be read, is no PNG, is too large or carries no valid recipe.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if most_pixels is not None and image.width * image.height > most_pixels:
                raise InputError(f"{path} is too large: {image.width} x {image.height} pixels")
            image.load()  # other programs may move the chunk behind the pixels
            text = image.info.get(_CHUNK)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a PNG") from error
    if not isinstance(text, str):
        raise InputError(
            f"{path} holds no recipe: it is not from biggan, or another program saved it again"
        )
    if longest is not None and len(text) > longest:
        raise InputError(f"{path} holds a recipe that is too long: {len(text):,} characters")
    try:
        return recipe_from_json(text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _parse(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the recipe is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError("the recipe is not a JSON object")
    return values


def _checked(kind: type[_Flat], values: dict[str, Any]) -> _Flat:
    expected = get_type_hints(kind)
    _check_keys(set(values), set(expected))
    for key, type_ in expected.items():
        value = values[key]
        if type_ in (float, float | None) and type(value) is int and abs(value) < 2**53:
            values[key] = value = float(value)  # JSON does not tell 1 from 1.0
        plain = tuple if get_origin(type_) is tuple else type_  # whose members are checked already
        if not isinstance(value, plain) or isinstance(value, bool):
            raise InputError(f"the recipe's {key!r} cannot be {quoted(value)}")
        _check_range(key, value)
    return kind(**values)


def _check_range(key: str, value: Any) -> None:
    if key in _RANGES and value is not None:
        low, high = _RANGES[key]
        if not low <= value <= high:
            raise InputError(
                f"the recipe's {key!r} cannot be {quoted(value)}: it is from {low} to {high}"
            )


def _checked_grid(values: dict[str, Any]) -> GridRecipe:
    _check_keys(set(values), {"columns", "pictures"})
    columns, pictures = values["columns"], values["pictures"]
    if not isinstance(pictures, list) or not 1 <= len(pictures) <= MAX_PICTURES:
        raise InputError(f"the recipe's 'pictures' must be a list of 1 to {MAX_PICTURES} recipes")
    for picture in pictures:
        if not isinstance(picture, dict):
            raise InputError(f"the recipe of a picture cannot be {quoted(picture)}")
    recipes = tuple(_checked(Recipe, picture) for picture in pictures)
    if type(columns) is not int or not 1 <= columns <= len(pictures):
        raise InputError(
            f"the recipe's 'columns' cannot be {quoted(columns)}: it has {len(pictures)} pictures"
        )
    return GridRecipe(columns, recipes)


def _check_keys(given: set[str], expected: set[str]) -> None:
    faults = [f"missing {key!r}" for key in sorted(expected - given)]
    faults += [f"unknown {quoted(key)}" for key in sorted(given - expected)[:1]]
    if faults:
        raise InputError(f"the recipe does not fit this version of biggan: {', '.join(faults)}")
