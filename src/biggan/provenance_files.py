"""Provenance read from the files that carry it, and from JSON, with every value checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from PIL import ExifTags, Image

from biggan.errors import InputError, quoted
from biggan.provenance import (
    COMMENT_PREFIX,
    MAX_PICTURES,
    PNG_KEYWORD,
    AnyProvenance,
    GridProvenance,
    Keyframe,
    LatentGridProvenance,
    LatentProvenance,
    MorphProvenance,
    Provenance,
    VideoProvenance,
)

_Picture = TypeVar("_Picture", Provenance, LatentProvenance)
_Checked = TypeVar(
    "_Checked",
    bound=Provenance | LatentProvenance | MorphProvenance | Keyframe | VideoProvenance,
)

# The least and the largest number, by key.
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("class_index", "class_a", "class_b"), (0, 2**31 - 1)),
    **dict.fromkeys(("seed", "seed_a", "seed_b"), (0, 2**32 - 1)),
    **dict.fromkeys(("num", "frames"), (0, MAX_PICTURES)),
    "index": (0, MAX_PICTURES - 1),
    "steps": (2, MAX_PICTURES),
    "fps": (0.001, 1000),
}

_MOST_FLOAT = 3.4e38  # of float32


def provenance_from_json(text: str) -> AnyProvenance:
    """Read what the `to_json` of any provenance wrote, strictly."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the provenance is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError("the provenance is not a JSON object")
    if "pictures" in values:
        return GridProvenance(*_checked_grid(values, "pictures", partial(_checked, Provenance)))
    if "latents" in values:
        return LatentGridProvenance(*_checked_grid(values, "latents", _checked_latent))
    if "keyframes" in values:
        return _checked_video(values)
    if "steps" in values:
        return _checked(MorphProvenance, values)
    if "z" in values:
        return _checked_latent(values)
    return _checked(Provenance, values)


def read_provenance(
    path: str | Path, most_pixels: int | None = None, longest: int | None = None
) -> AnyProvenance:
    """Read the provenance out of a PNG, JPEG, GIF, WebP or MP4 of this package.

    Args:
        path: The file.
        most_pixels: Of a picture that is looked into; None for as many as Pillow takes.
        longest: Characters of provenance that is read; None for any number. Both are for files of
            strangers.

    Raises:
        InputError: The file cannot be read, is too large or carries no valid provenance, or it is
            an MP4 and PyAV is not installed.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            is_mp4 = file.read(8)[4:] == b"ftyp"
        text = _mp4_text(path) if is_mp4 else _image_text(path, most_pixels)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a PNG, JPEG, GIF, WebP or MP4") from error
    if text is None:
        raise InputError(
            f"{path} contains no provenance: it is not from biggan, or another program saved it "
            "again"
        )
    if longest is not None and len(text) > longest:
        raise InputError(f"{path} contains provenance that is too long: {len(text):,} characters")
    try:
        return provenance_from_json(text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def require_pyav() -> None:
    """Refuse MP4 where PyAV, which reads and writes it, cannot be imported."""
    if find_spec("av") is None:
        raise InputError("MP4 needs PyAV: pip install 'biggan[video]'; .webp and .gif do not")
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"PyAV is installed, but cannot be loaded: {error}; .webp and .gif do not need it"
        ) from None


def _image_text(path: Path, most_pixels: int | None) -> str | None:
    with Image.open(path, formats=["PNG", "JPEG", "GIF", "WEBP"]) as image:
        if most_pixels is not None and image.width * image.height > most_pixels:
            raise InputError(f"{path} is too large: {image.width} x {image.height} pixels")
        if image.format == "PNG":
            image.load()  # other programs may move the chunk behind the pixels
            text = image.info.get(PNG_KEYWORD)
            return text if isinstance(text, str) else None
        comment = image.info.get("comment", b"").decode("latin-1")
        return _from_comment(
            comment or str(image.getexif().get(ExifTags.Base.ImageDescription, ""))
        )


def _mp4_text(path: Path) -> str | None:
    require_pyav()
    import av

    try:
        with av.open(str(path), format="mp4") as container:
            return _from_comment(container.metadata.get("comment", ""))
    except av.FFmpegError as error:
        raise ValueError(str(error)) from error


def _from_comment(comment: str) -> str | None:
    return comment.removeprefix(COMMENT_PREFIX) if comment.startswith(COMMENT_PREFIX) else None


def _checked(kind: type[_Checked], values: dict[str, Any]) -> _Checked:
    expected = get_type_hints(kind)
    _check_keys(set(values), set(expected))
    for key, type_ in expected.items():
        value = values[key]
        if type_ in (float, float | None) and type(value) is int and abs(value) < 2**53:
            values[key] = value = float(value)  # JSON does not tell 1 from 1.0
        plain = tuple if get_origin(type_) is tuple else type_  # whose members are checked already
        if not isinstance(value, plain) or isinstance(value, bool):
            raise InputError(f"the provenance's {key!r} cannot be {quoted(value)}")
        if key in _RANGES and value is not None:
            low, high = _RANGES[key]
            assert isinstance(value, int | float)
            if not low <= value <= high:
                raise InputError(
                    f"the provenance's {key!r} cannot be {quoted(value)}: "
                    f"it is from {low} to {high}"
                )
    return kind(**values)


def _checked_latent(values: dict[str, Any]) -> LatentProvenance:
    for key in ("z", "class_vector"):
        numbers = values.get(key)
        if not isinstance(numbers, list) or not all(
            type(number) in (int, float) and abs(number) <= _MOST_FLOAT for number in numbers
        ):
            raise InputError(f"the provenance's {key!r} must be a list of numbers")
        values[key] = tuple(map(float, numbers))
    return _checked(LatentProvenance, values)


def _checked_grid(
    values: dict[str, Any], key: str, check: Callable[[dict[str, Any]], _Picture]
) -> tuple[int, tuple[_Picture, ...]]:
    _check_keys(set(values), {"columns", key})
    columns, pictures = values["columns"], values[key]
    if not isinstance(pictures, list) or not 1 <= len(pictures) <= MAX_PICTURES:
        raise InputError(f"the provenance's {key!r} must be a list of 1 to {MAX_PICTURES}")
    for picture in pictures:
        if not isinstance(picture, dict):
            raise InputError(f"the provenance of a picture cannot be {quoted(picture)}")
    provenances = tuple(map(check, pictures))
    if type(columns) is not int or not 1 <= columns <= len(pictures):
        raise InputError(
            f"the provenance's 'columns' cannot be {quoted(columns)}: it has {len(pictures)} "
            "pictures"
        )
    return columns, provenances


def _checked_video(values: dict[str, Any]) -> VideoProvenance:
    keyframes = values["keyframes"]
    if not isinstance(keyframes, list) or not all(isinstance(k, dict) for k in keyframes):
        raise InputError("the provenance's 'keyframes' must be a list of keyframes")
    values["keyframes"] = tuple(_checked(Keyframe, keyframe) for keyframe in keyframes)
    if not 2 <= len(keyframes) <= MAX_PICTURES:
        raise InputError(
            f"the provenance must have at least 2 keyframes and at most {MAX_PICTURES}, "
            f"not {len(keyframes)}"
        )
    return _checked(VideoProvenance, values)


def _check_keys(given: set[str], expected: set[str]) -> None:
    faults = [f"missing {key!r}" for key in sorted(expected - given)]
    faults += [f"unknown {quoted(key)}" for key in sorted(given - expected)[:1]]
    if faults:
        raise InputError(f"the provenance does not fit this version of biggan: {', '.join(faults)}")
