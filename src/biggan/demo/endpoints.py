"""What programs may call through Gradio's API: one endpoint for each form, and one for videos."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from biggan.demo.drawing import draw_png, video_recipe
from biggan.demo.forms import EXPLORE, INTERPOLATE, SWEEP, Form
from biggan.demo.line import Job, Line
from biggan.demo.shelf import ModelShelf
from biggan.demo.views import (
    PICTURES,
    VIDEOS,
    Video,
    View,
    filmed,
    message,
    offered,
    places,
    progress_of,
    reused,
    saved,
    settings_of,
    told,
    video_inputs,
    view_of,
)


def publish(shelf: ModelShelf, line: Line, model: Any, views: list[View], video: Video) -> None:
    """Set up the endpoints. Their parameters are documented by the page's controls.

    Args:
        shelf: The models.
        line: The request queue.
        model: The menu of models, whose value is the last parameter.
        views: The forms' widgets.
        video: The video's.
    """

    def sample(num: Any, truncation: Any, seed: Any, category: Any, model: Any) -> Path:
        """A grid of samples of one category, at most five a row; a PNG with its recipe inside."""
        return answer(EXPLORE, model, num, truncation, seed, category)

    def interpolate(
        num: Any,
        steps: Any,
        truncation: Any,
        seed_a: Any,
        seed_b: Any,
        category_a: Any,
        category_b: Any,
        model: Any,
    ) -> Path:
        """A grid with one path from category A to B in each row; a PNG with its recipe inside."""
        settings = (num, steps, truncation, seed_a, seed_b, category_a, category_b)
        return answer(INTERPOLATE, model, *settings)

    def sweep(num: Any, seed: Any, noise: Any, category: Any, model: Any) -> Path:
        """The same samples over falling truncations; a PNG with its recipe inside."""
        return answer(SWEEP, model, num, seed, noise, category)

    def make_video(
        num: Any,
        seconds: Any,
        truncation: Any,
        seed_a: Any,
        seed_b: Any,
        category_a: Any,
        category_b: Any,
        model: Any,
    ) -> list[Path | None]:
        """The paths of /interpolate as a looping video, there and back: a WebP and an MP4.

        The second is null where the server cannot write MP4.
        """
        settings = (num, seconds, truncation, seed_a, seed_b, category_a, category_b)
        recipe = video_recipe(offered(shelf, model), *settings)
        files = places(video, recipe)
        if not reused(*files):
            result((model, recipe), partial(filmed, shelf, model, recipe, files), is_video=True)
        return [files[0], files[1] if len(files) > 1 else None]

    def answer(form: Form, model: Any, *values: Any) -> Path:
        recipe = settings_of(form, values).recipe(offered(shelf, model))
        png = result((model, recipe), partial(draw_png, shelf, model, recipe))
        return saved(view_of(views, form).picture, png, recipe)

    def result(key: Hashable, make: Callable[[Job], Any], *, is_video: bool = False) -> Any:
        with line.join(key, make, is_video=is_video) as job:
            for _ in progress_of(job):
                pass
            return job.future.result()

    def offer(
        name: str, function: Callable[..., Any], inputs: list[Any], outputs: Any, **turns: Any
    ) -> None:
        gr.on(
            [],  # nothing on the page
            told(function, message),
            [*inputs, model],
            outputs,
            api_name=name,
            preprocess=False,
            **turns,
        )

    for form, function in ((EXPLORE, sample), (INTERPOLATE, interpolate), (SWEEP, sweep)):
        view = view_of(views, form)
        offer(function.__name__, function, view.controls, view.picture, **PICTURES)
    offer("video", make_video, video_inputs(views, video), [video.webp, video.mp4], **VIDEOS)
