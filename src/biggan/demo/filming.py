"""Videos as files, made in the background: one can see how far they are, and call them off."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event

from PIL import Image

from biggan.gan import Gan
from biggan.provenance import VideoProvenance
from biggan.video import make_frame, save_video


def film(
    gan: Gan, recipe: VideoProvenance, files: Sequence[Path], report: Callable[[int], object]
) -> None:
    """Write a video. No more than a few of its frames are held in memory.

    Args:
        gan: What makes the pictures.
        recipe: Of what.
        files: The first is a WebP, which is lossless; the frames of the others are read from it.
        report: Called after each frame of each file with the number of the recipe's frames that are
            drawn. If it raises, no file that was begun is left.

    Raises:
        InputError: As `biggan.Gan.draw_video` and `biggan.video.save_video`.
    """

    def drawn() -> Iterator[Image.Image]:
        for number, pictures in enumerate(gan.draw_video(recipe), 1):
            report(number)
            yield make_frame(pictures)

    def copied() -> Iterator[Image.Image]:
        for frame in _frames(files[0]):
            report(recipe.frames)
            yield frame

    save_video(drawn(), files[0], recipe.fps, provenance=recipe)
    for file in files[1:]:
        save_video(copied(), file, recipe.fps, provenance=recipe)


def write_video(
    gan: Gan, recipe: VideoProvenance, files: Sequence[Path], every: float = 0.5
) -> Generator[int, None, None]:
    """Write a video in the background; see `film`.

    Args:
        gan: What makes the pictures.
        recipe: Of what.
        files: As `film`.
        every: Seconds between two results.

    Yields:
        How many of the recipe's frames there are. The files are there when it ends; closed before,
        it leaves none that was begun.

    Raises:
        InputError: As `film`.
    """
    count = 0
    given_up = Event()

    def report(number: int) -> None:
        nonlocal count
        if given_up.is_set():
            raise CancelledError
        count = number

    with ThreadPoolExecutor(1, "filming") as worker:
        work = worker.submit(film, gan, recipe, files, report)
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
