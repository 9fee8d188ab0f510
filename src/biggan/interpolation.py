"""Paths between points of a generator's input: the noise and the class.

As in DeepMind's notebook both are interpolated linearly, the class as a mix of one-hot vectors,
which is the same mix of class embeddings. `slerp` moves the noise along a great circle instead, so
that its length passes smoothly from one end's to the other's and does not shrink in the middle.

A path may pass through several points, its keyframes. Its frames are the same time apart, and each
keyframe is one of them. Grids of paths and videos are planned as provenance, and drawn from it.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import islice
from typing import IO, TYPE_CHECKING, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from biggan._version import __version__
from biggan.errors import InputError, quoted, real_number, whole_number
from biggan.images import to_pil, to_uint8
from biggan.latents import NoiseKind, check_truncation, make_noise, statistics_truncation
from biggan.provenance import (
    MAX_PICTURES,
    Keyframe,
    LatentProvenance,
    MorphProvenance,
    VideoProvenance,
    file_stem,
)
from biggan.sampling import check_inputs, check_model, generate_batches, plan_latents, rows_of

if TYPE_CHECKING:
    from biggan.gan import Gan

Path = Literal["linear", "slerp"]
PATHS: tuple[Path, ...] = get_args(Path)

Loop = Literal["there-and-back", "around", "none"]
"""What follows the last keyframe: the same way back, the way to the first one, or the end."""
LOOPS: tuple[Loop, ...] = get_args(Loop)

_PIECE = 1024  # pictures: of 1000 classes, some 20 MB of class weights

_KEYFRAME = re.compile(r"(.*?)@([0-9]{1,10})\s*(?:,|$)", re.DOTALL)
_LONGEST_STEM = 68  # characters of the name of a morph in the names of its pictures


def plan_morph(
    gan: Gan,
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
        truncation=check_truncation(truncation, noise),
        noise=noise,
        seed_a=a.seed,
        seed_b=b.seed,
        path=path,
        version=__version__,
    )


def plan_latent_morph(
    gan: Gan,
    start: tuple[Tensor, Tensor],
    end: tuple[Tensor, Tensor],
    steps: int,
    truncation: float | None,
    path: Path = "linear",
    *,
    name: str = "latents",
) -> list[LatentProvenance]:
    """Plan the pictures from some noise and class vectors to others.

    Both ends are noise (N, z_dim) and class vectors (N, class_dim) of N paths, or (N, L, ...).
    Class vectors move linearly. The result is one path after another, `steps` pictures each.

    Raises:
        InputError: Fewer than 2 steps, an unknown path, or shapes that do not fit.
    """
    config, moved = gan.config, []
    parts: tuple[tuple[str, int, Path], ...] = (
        ("noise", config.z_dim, path),
        ("class vectors", config.embedding_dim, "linear"),
    )
    for (what, width, kind), *both in zip(parts, start, end, strict=True):
        layers = gan.engine.folded.conditions
        a, b = (rows_of(what, rows, width, layers).detach().cpu().double() for rows in both)
        if a.shape != b.shape:
            raise InputError(
                f"the ends of paths need latents of one shape, not {tuple(a.shape)} and "
                f"{tuple(b.shape)}"
            )
        between = interpolate_noise(a.flatten(1).numpy(), b.flatten(1).numpy(), steps, kind)
        moved.append(torch.from_numpy(between).reshape(len(a) * steps, *a.shape[1:]))
    z, vectors = moved
    rows = range(len(z) // steps)
    names = [f"{name}-{row:04d}-{step:04d}" for row in rows for step in range(steps)]
    return plan_latents(gan, z, vectors, truncation, names)


def draw_morph(gan: Gan, morph: MorphProvenance) -> Iterator[Image.Image]:
    """Make the pictures of one path after the other; what cannot be made is refused at once."""
    return _path_pictures(gan, morph, [_morph_inputs(gan, morph)])


def latents_of_morph(gan: Gan, morph: MorphProvenance) -> list[LatentProvenance]:
    """The provenance of each picture that `draw_morph` makes, for `Gan.draw`."""
    z, labels = _morph_inputs(gan, morph)
    inputs = check_inputs(gan.engine, z, labels)
    _, vectors = inputs.batch(gan.engine, slice(None))
    # Short enough that file names keep the numbers.
    stem = file_stem(morph)[:_LONGEST_STEM]
    names = [f"{stem}-{k // morph.steps:04d}-{k % morph.steps:04d}" for k in range(len(z))]
    statistics = statistics_truncation(morph.truncation, cast(NoiseKind, morph.noise))
    return plan_latents(gan, inputs.noise, vectors.cpu(), statistics, names)


def _morph_inputs(gan: Gan, morph: MorphProvenance) -> tuple[NDArray[np.float64], Tensor]:
    """Noise (num * steps, z_dim) and class weights of a morph, refused if it cannot be made."""
    check_model(gan, morph)
    num, steps = morph.num, morph.steps
    if num < 1 or num * steps > MAX_PICTURES:
        raise InputError(
            f"the number of paths must be at least 1, and with {quoted(steps)} steps each at "
            f"most {MAX_PICTURES // max(steps, 1)}, not {quoted(num)}"
        )
    ends = [(morph.class_a, morph.seed_a), (morph.class_b, morph.seed_b)]
    start, end = _path_noise(gan, morph, _keyframes(gan, ends))
    z = interpolate_noise(start, end, steps, cast(Path, morph.path))  # (num, steps, dim)
    labels = torch.zeros(steps, 1, device="cpu")
    if morph.class_a is not None and morph.class_b is not None:
        labels = interpolate_labels(morph.class_a, morph.class_b, len(gan.class_names), steps)
    return z.reshape(num * steps, -1), labels.repeat(num, 1)


def plan_video(
    gan: Gan,
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
        truncation=check_truncation(truncation, noise),
        noise=noise,
        path=path,
        version=__version__,
    )


def draw_video(gan: Gan, video: VideoProvenance) -> Iterator[list[Image.Image]]:
    """Make the frames of a video, each of `num` pictures.

    Memory does not grow with their number. What is played there and back is made once: a temporary
    file keeps it for the way back.

    Raises:
        InputError: At once: a video of another model, one that this model cannot make, too few
            frames to hit each keyframe, or too many. Later: the temporary file cannot be written.
    """
    check_model(gan, video)
    num, frames = video.num, video.frames
    if num < 1 or num * frames > MAX_PICTURES:
        raise InputError(
            f"a video of {quoted(num)} paths and {quoted(frames)} frames has "
            f"{quoted(num * frames)} images; it must have at least 1 and at most "
            f"{MAX_PICTURES}"
        )
    check_path(video.path)
    loop = cast(Loop, video.loop)  # frame_positions refuses an unknown one
    positions = frame_positions(len(video.keyframes), frames, loop)
    keyframes = _keyframes(gan, [(k.class_index, k.seed) for k in video.keyframes])
    inputs = path_inputs(
        _path_noise(gan, video, keyframes),
        torch.tensor([keyframe.class_index or 0 for keyframe in keyframes], device="cpu"),
        positions,
        len(gan.class_names),
        cast(Path, video.path),
    )
    pictures = _path_pictures(gan, video, inputs)
    one_way = (list(islice(pictures, num)) for _ in positions)
    return there_and_back(one_way) if loop == "there-and-back" else one_way


def there_and_back(frames: Iterable[list[Image.Image]]) -> Iterator[list[Image.Image]]:
    """Play frames to the last and back to the second, so that they can be repeated for ever.

    On the way back they are neither made again nor held in memory: a temporary file keeps them.

    Raises:
        InputError: The temporary file cannot be written.
    """
    with tempfile.TemporaryFile(prefix="biggan-") as file:
        kept: list[list[tuple[int, int]]] = []  # where each frame's pictures start and end
        for frame in frames:
            yield frame
            kept.append([_store(picture, file) for picture in frame])
        for spans in kept[-2:0:-1]:
            yield [_fetch(file, *span) for span in spans]


def interpolate_noise(
    start: NDArray[np.float64], end: NDArray[np.float64], steps: int, path: Path = "linear"
) -> NDArray[np.float64]:
    """Noise (num, steps, dim) from `start` to `end`, each (num, dim), both included exactly.

    The path is `linear`, or `slerp` (spherical; Shoemake 1985).

    Raises:
        InputError: Fewer than 2 steps, or an unknown path.
    """
    return noise_between(start[:, None], end[:, None], _fractions(steps), path)


def noise_between(
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    fractions: NDArray[np.float64],
    path: Path = "linear",
) -> NDArray[np.float64]:
    """Noise (..., n, dim) at fractions (n,) of the way between two ends, at 0 and 1 these exactly.

    The ends are (..., n, dim), or what broadcasts to it.
    """
    check_path(path)
    t = fractions[:, None]  # (n, 1)
    if path == "linear":
        return start * (1 - t) + end * t
    lengths = [np.linalg.norm(point, axis=-1, keepdims=True) for point in (start, end)]
    cosine = np.sum(start * end, axis=-1, keepdims=True) / (lengths[0] * lengths[1])
    angle = np.arccos(np.clip(cosine, -1, 1))  # (..., n or 1, 1)
    sine = np.sin(angle)
    # (Anti)parallel ends span no plane: there the arc is the straight line.
    degenerate = sine < 1e-6
    safe = np.where(degenerate, 1.0, sine)
    from_start = np.where(degenerate, 1 - t, np.sin((1 - t) * angle) / safe)
    from_end = np.where(degenerate, t, np.sin(t * angle) / safe)
    return from_start * start + from_end * end


def check_path(path: str) -> None:
    """Refuse what is neither `linear` nor `slerp`."""
    if path not in PATHS:
        raise InputError(f"the path must be one of {', '.join(PATHS)}, not {quoted(path)}")


def interpolate_labels(start: int, end: int, num_classes: int, steps: int) -> Tensor:
    """Class weights (steps, num_classes) from one class to another, both included exactly."""
    fractions = _fractions(steps)
    ends = torch.tensor([[start], [end]], device="cpu").expand(2, steps)
    return labels_between(ends[0], ends[1], fractions, num_classes)


def labels_between(
    start: Tensor, end: Tensor, fractions: NDArray[np.float64], num_classes: int
) -> Tensor:
    """Class weights (n, num_classes) at fractions (n,) of the way between classes, int64 (n,)."""
    # In float64, or 1 - t would be rounded twice and differ from the notebook's.
    t = torch.from_numpy(fractions)[:, None]  # (n, 1)
    weights = F.one_hot(start, num_classes) * (1 - t) + F.one_hot(end, num_classes) * t
    return weights.float()


def path_inputs(
    noise: NDArray[np.float64],
    classes: Tensor,
    positions: NDArray[np.float64],
    num_classes: int,
    path: Path,
) -> Iterator[tuple[NDArray[np.float64], Tensor]]:
    """What a generator makes the frames of a video from, in pieces, so that it may be long.

    Args:
        noise: (keyframes, num, dim): of each keyframe, for every one of `num` paths.
        classes: int64 (keyframes,); ignored if unconditional.
        positions: (frames,), as of `frame_positions`.
        num_classes: Classes of the model, 0 if unconditional.
        path: See `interpolate_noise`.

    Yields:
        Noise (n, dim) and class weights (n, num_classes): frame by frame, and path by path within a
        frame.
    """
    num_keyframes, num = noise.shape[:2]
    total = len(positions) * num
    for first in range(0, total, _PIECE):
        frames, rows = np.divmod(np.arange(first, min(first + _PIECE, total)), num)
        starts = np.floor(positions[frames]).astype(np.int64)
        ends = (starts + 1) % num_keyframes
        fractions = positions[frames] - starts
        z = noise_between(noise[starts, rows], noise[ends, rows], fractions, path)
        if num_classes:
            labels = labels_between(classes[starts], classes[ends], fractions, num_classes)
        else:
            labels = torch.zeros(len(z), 1, device="cpu")
        yield z, labels


def parse_keyframes(text: str) -> list[tuple[str | None, int]]:
    """Read "tabby cat@3, golden retriever@7, hen@1": classes with the seeds of their noise.

    A keyframe ends with "@", its seed, and then a comma or the end of the text. So the commas
    inside a name ("tabby, tabby cat@3") and an "@" in it part nothing. A class is whatever
    `biggan.classes.resolve_class` takes; for an unconditional model it is left out, "@3, @7", and
    None in the result.

    Raises:
        InputError: Something is not a keyframe, or there is only one.
    """
    keyframes: list[tuple[str | None, int]] = []
    position = 0
    while match := _KEYFRAME.match(text, position):
        keyframes.append((match[1].strip() or None, int(match[2])))
        position = match.end()
    rest = text[position:].strip()
    if rest:
        raise InputError(
            f"{quoted(rest)} is not a keyframe: each must be a class, @ and a seed of 0 or more, "
            "such as hen@1"
        )
    if len(keyframes) < 2:
        raise InputError(
            f"{quoted(text)} is not two keyframes or more: each must end in @ and its seed, as in "
            '"tabby cat@3, hen@1"'
        )
    return keyframes


def frames_of_steps(num_keyframes: int, steps: int, loop: Loop) -> int:
    """Frames of a video with so many from each keyframe to the next, both of them included."""
    _check_steps(steps)
    intervals = _num_legs(num_keyframes, loop) * (steps - 1)
    return {"there-and-back": 2 * intervals, "around": intervals, "none": intervals + 1}[loop]


def frames_of_seconds(seconds: float, fps: float, loop: Loop) -> int:
    """Frames of a video so long; there and back takes an even number.

    Raises:
        InputError: The time is not a number above 0, or takes too many frames.
    """
    seconds, fps = real_number(seconds, "the time"), real_number(fps, "the frame rate")
    if not fps > 0:
        raise InputError(f"the frame rate must be above 0, not {fps:g}")
    if not 0 < seconds < math.inf:
        raise InputError(f"a video must last longer than 0 seconds, not {seconds:g}")
    if seconds * fps > MAX_PICTURES:
        raise InputError(
            f"a video of {seconds:g} seconds at {fps:g} frames per second is too long: it may have "
            f"at most {MAX_PICTURES} frames"
        )
    return 2 * round(seconds * fps / 2) if loop == "there-and-back" else round(seconds * fps)


def frame_positions(num_keyframes: int, frames: int, loop: Loop) -> NDArray[np.float64]:
    """Where on the path through keyframes each frame lies.

    Each keyframe is hit exactly, by the frame nearest to its time; in between frames are evenly
    spaced. Where the frames do not divide evenly, some ways from a keyframe to the next have one
    more than others.

    Args:
        num_keyframes: At least 2.
        frames: Frames of the whole video, however often keyframes are passed in it.
        loop: What follows the last keyframe.

    Returns:
        (frames,) for "around" and "none"; for "there-and-back", which is to be played back from its
        last, (frames / 2 + 1,). 1.25 is a quarter of the way from keyframe 1, the second, to
        keyframe 2; for "around" what lies behind the last keyframe leads to the first.

    Raises:
        InputError: Fewer than 2 keyframes, too few frames to hit them all, an odd number of them
            for "there-and-back", or an unknown loop.
    """
    least = frames_of_steps(num_keyframes, 2, loop)
    if frames < least:
        raise InputError(
            f"{frames} frames are too few for {num_keyframes} keyframes with loop {loop!r}: "
            f"at least {least} are needed"
        )
    if loop == "there-and-back" and frames % 2:
        raise InputError(
            f"loop there-and-back needs an even number of frames, not {quoted(frames)}"
        )
    intervals = {"there-and-back": frames // 2, "around": frames, "none": frames - 1}[loop]
    legs = np.arange(_num_legs(num_keyframes, loop) + 1)
    hits = (2 * legs * intervals + legs[-1]) // (2 * legs[-1])  # rounded, a half always up
    numbers = np.arange(intervals if loop == "around" else intervals + 1)
    return np.interp(numbers, hits, legs)


def _num_legs(num_keyframes: int, loop: Loop) -> int:
    """Ways from a keyframe to the next, counted once where they are gone back too."""
    if loop not in LOOPS:
        raise InputError(f"the loop must be one of {', '.join(LOOPS)}, not {quoted(loop)}")
    if whole_number(num_keyframes, "the number of keyframes") < 2:
        raise InputError(f"a path needs at least 2 keyframes, not {num_keyframes}")
    return num_keyframes if loop == "around" else num_keyframes - 1


def _fractions(steps: int) -> NDArray[np.float64]:
    _check_steps(steps)
    return np.linspace(0, 1, steps)


def _check_steps(steps: int) -> None:
    if whole_number(steps, "the number of steps") < 2:
        raise InputError(f"a path needs at least 2 steps, not {quoted(steps)}")


def _keyframes(gan: Gan, given: Sequence[tuple[str | int | None, int]]) -> list[Keyframe]:
    keyframes = []
    for keyframe in given:
        if not isinstance(keyframe, tuple | list) or len(keyframe) != 2:
            raise InputError(
                f"a keyframe is a class and a seed, as in ('hen', 1), not {quoted(keyframe)}"
            )
        class_, seed = keyframe
        if gan.class_names and class_ is None:
            raise InputError(
                "give a class to start from (class_a, --from) and a class to end at (class_b, "
                "--to); for a video, one per keyframe"
            )
        index = None if class_ is None else gan.class_index(class_)
        name = None if index is None else gan.class_names[index]
        keyframes.append(Keyframe(index, name, whole_number(seed, "the seed")))
    return keyframes


def _path_noise(
    gan: Gan, provenance: MorphProvenance | VideoProvenance, keyframes: Sequence[Keyframe]
) -> NDArray[np.float64]:
    """Of each keyframe and path: (keyframes, num, z_dim)."""
    kind = cast(NoiseKind, provenance.noise)  # make_noise refuses an unknown one
    shape = provenance.num, gan.config.z_dim
    return np.stack(
        [make_noise(*shape, provenance.truncation, k.seed, kind=kind) for k in keyframes]
    )


def _path_pictures(
    gan: Gan,
    provenance: MorphProvenance | VideoProvenance,
    inputs: Iterable[tuple[NDArray[np.float64], Tensor]],
) -> Iterator[Image.Image]:
    """Make pictures from noise (n, z_dim) and class weights (n, num_classes)."""
    statistics = statistics_truncation(provenance.truncation, cast(NoiseKind, provenance.noise))
    for z, labels in inputs:
        for batch in generate_batches(gan.engine, labels, z, statistics):
            yield from to_pil(to_uint8(batch.images).cpu())


def _store(picture: Image.Image, file: IO[bytes]) -> tuple[int, int]:
    """Append a picture to the file; returns where it starts and ends."""
    start = file.tell()
    try:
        picture.save(file, "PNG", compress_level=1)
    except OSError as error:
        raise InputError(
            f"cannot keep the frames for the way back in {tempfile.gettempdir()}: "
            f"{error.strerror or error}; set TMPDIR to another folder, or use loop around or none"
        ) from None
    return start, file.tell()


def _fetch(file: IO[bytes], start: int, end: int) -> Image.Image:
    file.seek(start)
    with Image.open(BytesIO(file.read(end - start)), formats=["PNG"]) as picture:
        picture.load()
        return picture
