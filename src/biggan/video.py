"""Animations: a sequence of pictures as one looping file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from biggan.atomic_write import write_atomically
from biggan.errors import InputError

_FORMATS = {".gif": "GIF", ".webp": "WEBP"}
_SHORTEST_GIF_FRAME = 20  # milliseconds; viewers slow down whatever asks for less


def check_animation(path: Path, fps: float) -> None:
    """Refuse what `save_animation` cannot write, before the frames are made.

    Raises:
        InputError: An ending that names no format of animations, or an impossible frame rate.
    """
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"cannot write {path.name}: the ending must be .png, .gif or .webp")
    fastest = 1000 / _SHORTEST_GIF_FRAME
    if not 0 < fps <= fastest:
        raise InputError(f"the frame rate must be above 0 and at most {fastest:g}, not {fps:g}")


def save_animation(frames: Sequence[Image.Image], path: Path, fps: float) -> None:
    """Write frames as a GIF or an animated WebP that plays there and back for ever.

    Args:
        frames: At least one, all of one size.
        path: Ends in .gif or .webp. WebP is written losslessly.
        fps: Frames a second.

    Raises:
        InputError: As `check_animation`, or the file cannot be written.
    """
    check_animation(path, fps)
    there_and_back = [*frames, *frames[-2:0:-1]]
    contents = io.BytesIO()
    there_and_back[0].save(
        contents,
        format=_FORMATS[path.suffix.lower()],
        save_all=True,
        append_images=there_and_back[1:],
        duration=round(1000 / fps),
        loop=0,
        **({"lossless": True} if path.suffix.lower() == ".webp" else {}),
    )
    write_atomically(path, contents.getvalue())
