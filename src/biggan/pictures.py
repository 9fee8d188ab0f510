"""Pictures and videos of a model: planned as provenance, and drawn from it.

Each `plan` turns a user's words and numbers into provenance, which decides every pixel; each `draw`
makes the pictures of it. So what is drawn now and what is drawn again from a file are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from biggan._version import __version__
from biggan.engines import Engine
from biggan.errors import InputError, printable, quoted, real_number, whole_number
from biggan.images import to_pil, to_uint8
from biggan.interpolation import (
    Loop,
    Path,
    check_path,
    frame_positions,
    interpolate_labels,
    interpolate_noise,
    path_inputs,
)
from biggan.latents import (
    NoiseKind,
    check_seed,
    check_truncation,
    make_noise,
    statistics_truncation,
)
from biggan.models import GeneratorConfig
from biggan.provenance import (
    MAX_PICTURES,
    Keyframe,
    MorphProvenance,
    Provenance,
    VideoProvenance,
)
from biggan.sampling import generate_batches
from biggan.video import there_and_back

_MAX_NOISE = 10 * MAX_PICTURES  # rows that are drawn for one call


class Model(Protocol):
    """What is needed of a `biggan.Gan`."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def sha256(self) -> str: ...  # noqa: D102
    @property
    def class_names(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def config(self) -> GeneratorConfig: ...  # noqa: D102
    @property
    def engine(self) -> Engine: ...  # noqa: D102
    def class_index(self, class_: str | int) -> int: ...  # noqa: D102


def plan_pictures(
    gan: Model,
    classes: Sequence[str | int | None],
    num: int,
    truncation: float | None,
    seed: int,
    *,
    noise: NoiseKind = "hub",
) -> list[Provenance]:
    """Plan the pictures of `Gan.sample`: for each entry of `classes` `num` pictures.

    Raises:
        InputError: An unknown or ambiguous class, or a value out of range.
    """
    num, seed = whole_number(num, "the number of pictures"), whole_number(seed, "the seed")
    if not 1 <= num <= MAX_PICTURES:
        raise InputError(
            f"the number of pictures must be at least 1 and at most {MAX_PICTURES}, "
            f"not {quoted(num)}"
        )
    check_truncation(truncation, noise)
    check_seed(seed)
    names = gan.class_names
    planned = []
    for class_ in classes:
        index = None if class_ is None else gan.class_index(class_)
        for k in range(num):
            label = k % len(names) if index is None and names else index
            planned.append(
                Provenance(
                    model=gan.name,
                    sha256=gan.sha256,
                    class_index=label,
                    class_name=None if label is None else names[label],
                    truncation=_plain(truncation),
                    noise=noise,
                    seed=seed,
                    index=k,
                    version=__version__,
                )
            )
    return planned


def draw_pictures(gan: Model, pictures: Iterable[Provenance]) -> Iterator[Image.Image]:
    """Make pictures in order.

    Raises:
        InputError: A picture of another model, or one that this model cannot make.
    """
    for (truncation, noise), group in groupby(pictures, lambda p: (p.truncation, p.noise)):
        members = list(group)
        for picture in members:
            _check_model(gan, picture)
        z = _noise(members, gan.config.z_dim)
        labels = torch.tensor([picture.class_index or 0 for picture in members])
        statistics = statistics_truncation(truncation, cast(NoiseKind, noise))
        for batch in generate_batches(gan.engine, labels, z, statistics):
            yield from to_pil(to_uint8(batch.images).cpu())


def plan_morph(
    gan: Model,
    class_a: str | int | None,
    class_b: str | int | None,
    steps: int,
    num: int,
    truncation: float | None,
    seed_a: int,
    seed_b: int,
    *,
    path: Path = "linear",
    noise: NoiseKind = "hub",
) -> MorphProvenance:
    """Plan the pictures of `Gan.interpolate`, which has the same arguments.

    Raises:
        InputError: An unknown or ambiguous class, or a value of the wrong type.
    """
    a, b = _keyframes(gan, [(class_a, seed_a), (class_b, seed_b)])
    return MorphProvenance(
        model=gan.name,
        sha256=gan.sha256,
        class_a=a.class_index,
        class_a_name=a.class_name,
        class_b=b.class_index,
        class_b_name=b.class_name,
        steps=whole_number(steps, "the number of steps"),
        num=whole_number(num, "the number of paths"),
        truncation=_plain(truncation),
        noise=noise,
        seed_a=a.seed,
        seed_b=b.seed,
        path=path,
        version=__version__,
    )


def draw_morph(gan: Model, morph: MorphProvenance) -> Iterator[Image.Image]:
    """Make the pictures of one path after the other.

    Raises:
        InputError: At once: pictures of another model, or that this model cannot make.
    """
    _check_model(gan, morph)
    num, steps = morph.num, morph.steps
    if num < 1 or num * steps > MAX_PICTURES:
        raise InputError(
            f"the number of paths must be at least 1, and with {quoted(steps)} steps each at "
            f"most {MAX_PICTURES // max(steps, 1)}, not {quoted(num)}"
        )
    ends = [(morph.class_a, morph.seed_a), (morph.class_b, morph.seed_b)]
    start, end = _path_noise(gan, morph, _keyframes(gan, ends))
    z = interpolate_noise(start, end, steps, cast(Path, morph.path))  # (num, steps, dim)
    labels = torch.zeros(steps, 1)
    if morph.class_a is not None and morph.class_b is not None:
        labels = interpolate_labels(morph.class_a, morph.class_b, len(gan.class_names), steps)
    return _path_pictures(gan, morph, [(z.reshape(num * steps, -1), labels.repeat(num, 1))])


def plan_video(
    gan: Model,
    keyframes: Sequence[tuple[str | int | None, int]],
    frames: int,
    fps: float = 20,
    num: int = 1,
    truncation: float | None = 0.2,
    *,
    loop: Loop = "there-and-back",
    path: Path = "linear",
    noise: NoiseKind = "hub",
) -> VideoProvenance:
    """Plan a video that morphs from keyframe to keyframe; `draw_video` makes its frames.

    Args:
        gan: The model.
        keyframes: At least two classes with the seeds of their noise. A class is a name or an
            index, None for an unconditional model.
        frames: Of the whole video; `biggan.interpolation.frames_of_seconds` counts them.
        fps: Frames a second.
        num: Paths, side by side. Path k leads through picture k of each keyframe's
            `sample(class_, num, truncation, seed)`.
        truncation: See `Gan.sample`; one value for the whole video.
        loop: What follows the last keyframe: "there-and-back", "around" (the way to the first
            one) or "none".
        path: "linear" or "slerp".
        noise: What `truncation` means.

    Raises:
        InputError: An unknown or ambiguous class, or a value of the wrong type.
    """
    return VideoProvenance(
        model=gan.name,
        sha256=gan.sha256,
        keyframes=tuple(_keyframes(gan, keyframes)),
        frames=whole_number(frames, "the number of frames"),
        fps=real_number(fps, "the frame rate"),
        loop=loop,
        num=whole_number(num, "the number of paths"),
        truncation=_plain(truncation),
        noise=noise,
        path=path,
        version=__version__,
    )


def draw_video(gan: Model, video: VideoProvenance) -> Iterator[list[Image.Image]]:
    """Make the frames of a video, each of `num` pictures.

    Memory does not grow with their number. What is played there and back is made once: a temporary
    file keeps it for the way back.

    Raises:
        InputError: At once: a video of another model, one that this model cannot make, too few
            frames to hit each keyframe, or too many. Later: the temporary file cannot be written.
    """
    _check_model(gan, video)
    num, frames = video.num, video.frames
    if num < 1 or num * frames > MAX_PICTURES:
        raise InputError(
            f"a video of {quoted(num)} paths and {quoted(frames)} frames is of "
            f"{quoted(num * frames)} pictures, and there must be at least 1 and at most "
            f"{MAX_PICTURES}"
        )
    check_path(video.path)
    loop = cast(Loop, video.loop)  # frame_positions refuses an unknown one
    positions = frame_positions(len(video.keyframes), frames, loop)
    keyframes = _keyframes(gan, [(k.class_index, k.seed) for k in video.keyframes])
    inputs = path_inputs(
        _path_noise(gan, video, keyframes),
        torch.tensor([keyframe.class_index or 0 for keyframe in keyframes]),
        positions,
        len(gan.class_names),
        cast(Path, video.path),
    )
    pictures = _path_pictures(gan, video, inputs)
    one_way = (list(islice(pictures, num)) for _ in positions)
    return there_and_back(one_way) if loop == "there-and-back" else one_way


def _plain(truncation: float | None) -> float | None:
    """The same, of Python's own type."""
    return None if truncation is None else real_number(truncation, "truncation")


def _check_model(gan: Model, provenance: Provenance | MorphProvenance | VideoProvenance) -> None:
    if provenance.sha256 != gan.sha256:
        raise InputError(
            f"the picture was made by {printable(provenance.model[:100])} "
            f"(sha256 {printable(provenance.sha256[:12])}...), not by "
            f"{gan.name} ({gan.sha256[:12]}...); name that model's file"
        )


def _noise(pictures: Sequence[Provenance], dim: int) -> NDArray[np.float64]:
    """The noise (N, dim) of pictures that share a truncation and its meaning."""
    by_seed: dict[int, list[int]] = {}  # positions among the pictures
    for position, picture in enumerate(pictures):
        by_seed.setdefault(picture.seed, []).append(position)
    needed = {s: 1 + max(pictures[p].index for p in own) for s, own in by_seed.items()}
    if sum(needed.values()) > _MAX_NOISE:
        raise InputError(
            f"the pictures' seeds and indices take more than {_MAX_NOISE} rows of noise: ask "
            "for fewer at once"
        )
    first = pictures[0]
    kind = cast(NoiseKind, first.noise)  # make_noise refuses an unknown one
    noise = np.empty((len(pictures), dim))
    for seed, own in by_seed.items():
        rows = make_noise(needed[seed], dim, first.truncation, seed, kind=kind)
        noise[own] = rows[[pictures[position].index for position in own]]
    return noise


def _keyframes(gan: Model, given: Sequence[tuple[str | int | None, int]]) -> list[Keyframe]:
    for keyframe in given:
        if not isinstance(keyframe, tuple | list) or len(keyframe) != 2:
            raise InputError(
                f"a keyframe is a class and a seed, as in ('hen', 1), not {quoted(keyframe)}"
            )
    if gan.class_names and any(class_ is None for class_, _ in given):
        raise InputError(
            "name a class to start from and a class to end at; of a video, one for each keyframe"
        )
    keyframes = []
    for class_, seed in given:
        index = None if class_ is None else gan.class_index(class_)
        name = None if index is None else gan.class_names[index]
        keyframes.append(Keyframe(index, name, whole_number(seed, "the seed")))
    return keyframes


def _path_noise(
    gan: Model, provenance: MorphProvenance | VideoProvenance, keyframes: Sequence[Keyframe]
) -> NDArray[np.float64]:
    """Of each keyframe and path: (keyframes, num, z_dim)."""
    kind = cast(NoiseKind, provenance.noise)  # make_noise refuses an unknown one
    shape = provenance.num, gan.config.z_dim
    return np.stack(
        [make_noise(*shape, provenance.truncation, k.seed, kind=kind) for k in keyframes]
    )


def _path_pictures(
    gan: Model,
    provenance: MorphProvenance | VideoProvenance,
    inputs: Iterable[tuple[NDArray[np.float64], Tensor]],
) -> Iterator[Image.Image]:
    """Make pictures from noise (n, z_dim) and class weights (n, num_classes)."""
    statistics = statistics_truncation(provenance.truncation, cast(NoiseKind, provenance.noise))
    for z, labels in inputs:
        for batch in generate_batches(gan.engine, labels, z, statistics):
            yield from to_pil(to_uint8(batch.images).cpu())
