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
from collections.abc import Sequence
from typing import Any

MAX_PICTURES = 100_000
"""Pictures of one class, grid or video: their noise is held in memory at once."""

PNG_KEYWORD = "biggan"
"""Of the text chunk of a PNG."""

COMMENT_PREFIX = "biggan: "
"""What the comment of a video begins with; JSON follows."""

_LONGEST_NAME = 80  # bytes of a name in the name of a file


def __getattr__(name: str) -> Any:
    if name == "read_provenance":  # where scripts import it from; pictures are made without it
        from biggan.provenance_files import read_provenance

        return read_provenance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
    """All that is needed to make a grid of such images again, row by row."""

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
    """All that is needed to make a grid of pictures again, row by row."""

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
