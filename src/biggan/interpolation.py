"""Paths between points of a generator's input: the noise and the class.

As in DeepMind's notebook both are interpolated linearly, the class as a mix of one-hot vectors,
which is the same mix of class embeddings. `slerp` moves the noise along a great circle instead, so
that its length passes smoothly from one end's to the other's and does not shrink in the middle.

A path may pass through several points, its keyframes. Its frames are the same time apart, and each
keyframe is one of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from biggan.errors import InputError, quoted
from biggan.provenance import MAX_PICTURES

Path = Literal["linear", "slerp"]
PATHS: tuple[Path, ...] = get_args(Path)

Loop = Literal["there-and-back", "around", "none"]
"""What follows the last keyframe: the same way back, the way to the first one, or the end."""
LOOPS: tuple[Loop, ...] = get_args(Loop)

_PIECE = 1024  # pictures: of 1000 classes, some 20 MB of class weights

_KEYFRAME = re.compile(r"(.*?)@([0-9]{1,10})\s*(?:,|$)", re.DOTALL)
_QUOTED = 60  # characters of what a user wrote that a message repeats


def interpolate_noise(
    start: NDArray[np.float64], end: NDArray[np.float64], steps: int, path: Path = "linear"
) -> NDArray[np.float64]:
    """Noise from `start` to `end`, both ends included exactly.

    Args:
        start: (num, dim).
        end: (num, dim).
        steps: Points on each path, at least 2.
        path: `linear`, or `slerp` (spherical; Shoemake 1985).

    Returns:
        (num, steps, dim).

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
    """Noise a fraction of the way from `start` to `end`; at 0 and at 1 these exactly.

    Args:
        start: (..., n, dim), or what broadcasts to it.
        end: The same.
        fractions: (n,), in [0, 1].
        path: See `interpolate_noise`.

    Returns:
        (..., n, dim).

    Raises:
        InputError: An unknown path.
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
    """Refuse what is no path.

    Raises:
        InputError: Neither `linear` nor `slerp`.
    """
    if path not in PATHS:
        raise InputError(f"the path must be one of {', '.join(PATHS)}, not {quoted(path)}")


def interpolate_labels(start: int, end: int, num_classes: int, steps: int) -> Tensor:
    """Class weights from one class to another, both ends included exactly.

    Returns:
        float32 (steps, num_classes), each row summing to 1.

    Raises:
        InputError: Fewer than 2 steps.
    """
    fractions = _fractions(steps)
    ends = torch.tensor([[start], [end]]).expand(2, steps)
    return labels_between(ends[0], ends[1], fractions, num_classes)


def labels_between(
    start: Tensor, end: Tensor, fractions: NDArray[np.float64], num_classes: int
) -> Tensor:
    """Class weights a fraction of the way from one class to another.

    Args:
        start: int64 (n,), classes.
        end: The same.
        fractions: (n,), in [0, 1].
        num_classes: Classes of the model.

    Returns:
        float32 (n, num_classes), each row summing to 1.
    """
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
        Noise (n, dim) and class weights (n, num_classes), which go on where the ones before ended:
        frame by frame, and path by path within a frame.
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
            labels = torch.zeros(len(z), 1)
        yield z, labels


def parse_keyframes(text: str) -> list[tuple[str | None, int]]:
    """Read "tabby cat@3, golden retriever@7, hen@1": classes with the seeds of their noise.

    A keyframe ends with "@", its seed, and then a comma or the end of the text. So the commas
    inside a name ("tabby, tabby cat@3") and an "@" in it part nothing.

    Args:
        text: Keyframes after commas. A class is whatever `biggan.classes.resolve_class` takes; it
            is left out for an unconditional model: "@3, @7".

    Returns:
        For each, of at least two, the class, None where it is left out, and the seed.

    Raises:
        InputError: Something is no keyframe, or there is only one.
    """
    keyframes: list[tuple[str | None, int]] = []
    position = 0
    while match := _KEYFRAME.match(text, position):
        keyframes.append((match[1].strip() or None, int(match[2])))
        position = match.end()
    rest = text[position:].strip()
    if rest:
        raise InputError(
            f"{_shown(rest)} is no keyframe: each must be a class, @ and a seed of 0 or more, "
            "such as hen@1"
        )
    if len(keyframes) < 2:
        raise InputError(
            f"{_shown(text)} is not two keyframes or more: each must end in @ and its seed, as in "
            '"tabby cat@3, hen@1"'
        )
    return keyframes


def frames_of_steps(num_keyframes: int, steps: int, loop: Loop) -> int:
    """Frames of a video with so many from each keyframe to the next, both of them included.

    Raises:
        InputError: Fewer than 2 keyframes or steps, or an unknown loop.
    """
    _check_steps(steps)
    intervals = _num_legs(num_keyframes, loop) * (steps - 1)
    return {"there-and-back": 2 * intervals, "around": intervals, "none": intervals + 1}[loop]


def frames_of_seconds(seconds: float, fps: float, loop: Loop) -> int:
    """Frames of a video so long; there and back takes an even number.

    Raises:
        InputError: The time is not a number above 0, or takes too many frames.
    """
    if not 0 < seconds < math.inf:
        raise InputError(f"a video must last longer than 0 seconds, not {seconds:g}")
    if seconds * fps > MAX_PICTURES:
        raise InputError(
            f"a video of {seconds:g} seconds at {fps:g} frames a second is too long: it may have "
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
        raise InputError(f"there and back takes an even number of frames, not {quoted(frames)}")
    intervals = {"there-and-back": frames // 2, "around": frames, "none": frames - 1}[loop]
    legs = np.arange(_num_legs(num_keyframes, loop) + 1)
    hits = (2 * legs * intervals + legs[-1]) // (2 * legs[-1])  # rounded, a half always up
    numbers = np.arange(intervals if loop == "around" else intervals + 1)
    return np.interp(numbers, hits, legs)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}...")


def _num_legs(num_keyframes: int, loop: Loop) -> int:
    """Ways from a keyframe to the next, counted once where they are gone back too."""
    if loop not in LOOPS:
        raise InputError(f"the loop must be one of {', '.join(LOOPS)}, not {quoted(loop)}")
    if num_keyframes < 2:
        raise InputError(f"a path leads through at least 2 keyframes, not {num_keyframes}")
    return num_keyframes if loop == "around" else num_keyframes - 1


def _fractions(steps: int) -> NDArray[np.float64]:
    _check_steps(steps)
    return np.linspace(0, 1, steps)


def _check_steps(steps: int) -> None:
    if steps < 2:
        raise InputError(f"a path needs at least 2 steps, not {quoted(steps)}")
