"""The form "Interpolate" in a notebook, with a video of its paths."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ipywidgets
from PIL import Image

from biggan.demo.drawing import video_recipe
from biggan.demo.filming import write_video
from biggan.demo.forms import INTERPOLATE, MAKE_VIDEO, SECONDS, VIDEO
from biggan.demo.notebook.figures import alert, video_figure
from biggan.demo.notebook.live_form import LiveForm
from biggan.demo.notebook.widgets import build_field
from biggan.errors import InputError
from biggan.gan import Gan
from biggan.provenance import VideoProvenance, file_stem
from biggan.video import check_video, make_frame, save_video

_LARGEST = 32 * 2**20  # bytes of a video that a notebook shall hold


class PathsForm(LiveForm):
    """Paths from A to B, one a row, and a looping video of them, there and back.

    The video is an MP4 where PyAV is installed, else a WebP. It is of the settings with which it
    was made, and goes when one of them is moved.

    Args:
        gan: What makes the pictures.
    """

    def __init__(self, gan: Gan) -> None:
        self._video = ipywidgets.HTML()
        self._progress = ipywidgets.IntProgress(description=VIDEO.title)
        self._progress.layout.display = "none"
        super().__init__(gan, INTERPOLATE)
        seconds = build_field(SECONDS, gan)
        assert seconds is not None, "every model has videos"
        self.controls[SECONDS.key] = seconds.setting
        self._button = ipywidgets.Button(description=MAKE_VIDEO, button_style="primary")
        self._button.on_click(self._film_clicked)
        self._fields += [seconds.shown, self._button]

    def save_video(self, path: str | Path) -> Path:
        """Write the video of the settings as they are, with its recipe inside.

        Args:
            path: Ends in .gif, .mp4 or .webp; its folder must exist. An older file is replaced.

        Returns:
            The same path.

        Raises:
            InputError: A control says what the form does not take, or as
                `biggan.video.save_video`.
        """
        recipe = self._video_recipe()
        check_video(Path(path), recipe.fps)
        save_video(self._frames(recipe), Path(path), recipe.fps, provenance=recipe)
        return Path(path)

    def _outputs(self) -> list[Any]:
        return [*super()._outputs(), self._progress, self._video]

    def _moved(self, _: Any = None) -> None:
        self._video.value = ""
        super()._moved()

    def _video_recipe(self) -> VideoProvenance:
        values = self._values(VIDEO)
        return video_recipe(self._gan, *(values.get(control.key) for control in VIDEO.controls))

    def _frames(self, recipe: VideoProvenance) -> Iterator[Image.Image]:
        try:
            for number, pictures in enumerate(self._gan.draw_video(recipe)):
                self._show_progress(number, recipe)
                yield make_frame(pictures)
        finally:
            self._progress.layout.display = "none"

    def _film_clicked(self, _: Any) -> None:
        try:
            recipe = self._video_recipe()
        except InputError as error:
            self._message.value = alert(str(error))
        else:
            self._work.start(partial(self._film, recipe))

    def _film(self, recipe: VideoProvenance) -> Generator[None, None, None]:
        endings = [".webp", ".mp4"] if find_spec("av") else [".webp"]
        try:
            with TemporaryDirectory(prefix="biggan-") as folder:
                files = [Path(folder, file_stem(recipe) + ending) for ending in endings]
                with closing(write_video(self._gan, recipe, files)) as making:
                    for number in making:
                        self._show_progress(number, recipe)
                        yield
                yield  # the last chance to be called off
                self._show_video(files[-1])
        finally:
            self._progress.layout.display = "none"
        self._message.value = ""

    def _show_progress(self, number: int, recipe: VideoProvenance) -> None:
        self._progress.max = recipe.frames
        self._progress.value = number
        self._progress.layout.display = ""

    def _show_video(self, file: Path) -> None:
        size = file.stat().st_size
        if size > _LARGEST:
            raise InputError(
                f"the video is too large for a notebook ({size / 2**20:.0f} MB): write it to a "
                f'file, save_video("{file.name}")'
            )
        self._video.value = video_figure(file)
