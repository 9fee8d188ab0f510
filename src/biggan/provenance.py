"""Provenance: what a picture or a video says of its making, so that it can be made again.

A PNG carries it in a text chunk, a JPEG, a GIF and an MP4 in their comment, a WebP in its Exif
description, as one line of JSON. `biggan.sampling` and `biggan.interpolation` plan pictures as
provenance, and draw pictures from it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from PIL import ExifTags, Image

from biggan.errors import InputError, quoted

MAX_PICTURES = 100_000
"""Pictures of one class, grid or video: their noise is held in memory at once."""

PNG_KEYWORD = "biggan"
"""Of the text chunk of a PNG."""

COMMENT_PREFIX = "biggan: "
"""What the comment of a video begins with; JSON follows."""

_Picture = TypeVar("_Picture", "Provenance", "LatentProvenance")
_Checked = TypeVar(
    "_Checked",
    bound="Provenance | LatentProvenance | MorphProvenance | Keyframe | VideoProvenance",
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

_LONGEST_NAME = 80  # bytes of a name in the name of a file


@dataclasses.dataclass(frozen=True)
class _Written:
    def to_json(self) -> str:
        """All of it as one line of ASCII JSON."""
        return json.dumps(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Provenance(_Written):
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
    version: str = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True)
class LatentProvenance(_Written):
    """All that is needed to make one image of given noise and a given class vector again.

    Attributes:
        model: The name or file of the model.
        sha256: The digest of its tensors.
        name: What the image shows, for the names of files.
        truncation: Of the statistics, None for those of untruncated noise.
        z: The noise, float32; or that of every layer, one after the other.
        class_vector: The class vector, likewise; empty for an unconditional model.
        version: The version of biggan that made the image.
    """

    model: str
    sha256: str
    name: str
    truncation: float | None
    z: tuple[float, ...]
    class_vector: tuple[float, ...]
    version: str = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True)
class LatentGridProvenance(_Written):
    """All that is needed to make a grid of such images again.

    Attributes:
        columns: Pictures in a row.
        latents: Their provenance, row by row; at least one.
    """

    columns: int
    latents: tuple[LatentProvenance, ...]

    @property
    def model(self) -> str:
        """The name or file of the model."""
        return self.latents[0].model

    @property
    def sha256(self) -> str:
        """The digest of its tensors."""
        return self.latents[0].sha256


@dataclasses.dataclass(frozen=True)
class GridProvenance(_Written):
    """All that is needed to make a grid of pictures again.

    Attributes:
        columns: Pictures in a row.
        pictures: Their provenance, row by row; at least one.
    """

    columns: int
    pictures: tuple[Provenance, ...]


@dataclasses.dataclass(frozen=True)
class MorphProvenance(_Written):
    """All that is needed to make the pictures between two classes again.

    Attributes:
        class_a: The class at the start, None for an unconditional model.
        class_b: The class at the end.
        steps: Pictures on each path.
        num: Paths.
        path: How the noise moves: "linear" or "slerp".
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
    version: str = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True)
class Keyframe:
    """What a path passes through: the pictures of a class and a seed."""

    class_index: int | None
    class_name: str | None
    seed: int


@dataclasses.dataclass(frozen=True)
class VideoProvenance(_Written):
    """All that is needed to make a video again.

    Attributes:
        keyframes: What it passes through, at least two.
        frames: Frames of the whole file.
        fps: Frames a second.
        loop: What follows the last keyframe: "there-and-back", "around" or "none".
        num: Paths, side by side.
        path: How the noise moves: "linear" or "slerp".
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
    version: str = dataclasses.field(compare=False)


PngProvenance = (
    Provenance | LatentProvenance | GridProvenance | LatentGridProvenance | MorphProvenance
)
"""What a PNG may carry."""

AnyProvenance = PngProvenance | VideoProvenance


def as_grid(
    columns: int, pictures: Sequence[Provenance | LatentProvenance]
) -> GridProvenance | LatentGridProvenance:
    """The provenance of a grid of pictures that were all planned in the same way."""
    latents = tuple(picture for picture in pictures if isinstance(picture, LatentProvenance))
    if latents:
        return LatentGridProvenance(columns, latents)
    planned = tuple(picture for picture in pictures if isinstance(picture, Provenance))
    return GridProvenance(columns, planned)


def provenance_from_json(text: str) -> AnyProvenance:
    """Read what the `to_json` of any provenance wrote.

    Raises:
        InputError: It is not a JSON object, or a key is unknown, missing or of another type.
    """
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
    path: Path, most_pixels: int | None = None, longest: int | None = None
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
    """Import PyAV, which reads and writes MP4.

    Raises:
        InputError: It is not installed, or cannot be loaded.
    """
    if find_spec("av") is None:
        raise InputError("MP4 needs PyAV: pip install 'biggan[video]'; .webp and .gif do not")
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"PyAV is installed, but cannot be loaded: {error}; .webp and .gif do not need it"
        ) from None


def file_stem(provenance: AnyProvenance) -> str:
    """A name for the file, without its ending.

    Of a picture such as digits-007-seven-hub0.4-seed0-0003: sorted by class, unique within a model.
    Of a grid or a video such as digits-three-hub0.4-seed0-10, in ASCII.
    """
    if isinstance(provenance, Provenance):
        encoding = sys.getfilesystemencoding()
        parts = [_plain(provenance.model, encoding)]
        if provenance.class_index is not None:
            name = (provenance.class_name or "").split(",")[0]
            parts += [f"{provenance.class_index:03d}", _plain(name, encoding)]
        cut = _cut(provenance.noise, provenance.truncation)
        return "-".join([*parts, cut, f"seed{provenance.seed}", f"{provenance.index:04d}"])
    if isinstance(provenance, LatentProvenance):
        name = _plain(provenance.name, sys.getfilesystemencoding(), kept="+.,=_")
        return name.lstrip(".") or "latents"
    if isinstance(provenance, LatentGridProvenance):
        return f"{file_stem(provenance.latents[0])}-{len(provenance.latents)}"
    if isinstance(provenance, GridProvenance):
        first = provenance.pictures[0]
        names = {picture.class_name or "" for picture in provenance.pictures}
        swept = len({picture.truncation for picture in provenance.pictures}) > 1
        cut = f"{first.noise}-sweep" if swept else _cut(first.noise, first.truncation)
        rows = len(provenance.pictures) // (provenance.columns if swept else 1)
        words = [_words(first.model), _words(names.pop()) if len(names) == 1 else ""]
        return "-".join(filter(None, [*words, cut, f"seed{first.seed}", str(rows)]))
    if isinstance(provenance, MorphProvenance):
        ends = (provenance.class_a_name, provenance.class_b_name)
        seeds, size = (provenance.seed_a, provenance.seed_b), f"{provenance.num}x{provenance.steps}"
    else:
        start, end = provenance.keyframes[0], provenance.keyframes[-1]
        ends, seeds = (start.class_name, end.class_name), (start.seed, end.seed)
        size = f"{provenance.num}x{provenance.frames}"
    names_of_ends = "-to-".join(_words(name) for name in ends if name)
    cut = _cut(provenance.noise, provenance.truncation)
    parts = [_words(provenance.model), names_of_ends, cut, f"seeds{seeds[0]}-{seeds[1]}", size]
    return "-".join(filter(None, parts))


def _cut(noise: str, truncation: float | None) -> str:
    return f"{noise}none" if truncation is None else f"{noise}{truncation:g}"


def class_folders(class_names: Sequence[str]) -> list[str]:
    """A name of a folder for each class: its own, as far as it can be one; all differ."""
    encoding = sys.getfilesystemencoding()
    plain = [_plain(name, encoding, kept=" ,.'()_").strip(" .") for name in class_names]
    times = Counter(name.casefold() for name in plain)
    return [
        name if name and times[name.casefold()] == 1 else f"{name} {index}".strip()
        for index, name in enumerate(plain)
    ]


def _plain(name: str, encoding: str, kept: str = "") -> str:
    """A name's letters and digits, as many as file names take here, and some other characters."""
    plain = "".join(c if c.isalnum() or c in kept else "-" for c in name).encode(
        encoding, "replace"
    )
    return plain[:_LONGEST_NAME].decode(encoding, "ignore").replace("?", "-")


def _words(name: str) -> str:
    """ASCII letters, digits and points of a name or its first synonym."""
    plain = (c if c.isascii() and (c.isalnum() or c == ".") else "-" for c in name.split(",")[0])
    return "".join(plain)[:60].strip("-.")


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
