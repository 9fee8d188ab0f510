"""Videos as files, made in the background: one can see how far they are, and call them off."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event

from PIL import Image

from biggan.gan import Gan
from biggan.images import VideoRecipe
from biggan.video import make_frame, save_video


def write_video(
    gan: Gan, recipe: VideoRecipe, files: Sequence[Path], every: float = 0.5
) -> Generator[int, None, None]:
    """Write a video. No more than a few of its frames are held in memory.

    Args:
        gan: What makes the pictures.
        recipe: Of what.
        files: The first is a WebP, which is lossless; the frames of the others are read from it.
        every: Seconds between two results.

    Yields:
        How many of the recipe's frames there are. The files are there when it ends; closed before,
        it leaves none that was begun.

    Raises:
        InputError: As `biggan.Gan.draw_video` and `biggan.video.save_video`.
    """
    count = 0
    given_up = Event()

    def drawn() -> Iterator[Image.Image]:
        nonlocal count
        for pictures in gan.draw_video(recipe):
            if given_up.is_set():
                raise CancelledError
            yield make_frame(pictures)
            count += 1

    def write() -> None:
        save_video(drawn(), files[0], recipe.fps, recipe=recipe)
        for file in files[1:]:
            save_video(_frames(files[0]), file, recipe.fps, recipe=recipe)

    with ThreadPoolExecutor(1, "filming") as worker:
        work = worker.submit(write)
        try:
            while wait([work], every).not_done:
                yield count
            work.result()
        finally:
            given_up.set()


def _frames(webp: Path) -> Iterator[Image.Image]:
    with Image.open(webp) as video:
        for number in range(getattr(video, "n_frames", 1)):
            video.seek(number)
            yield video.convert("RGB")
