"""The widgets of the forms, and what all that handles their events needs."""

from __future__ import annotations

import contextlib
import hashlib
import html
import inspect
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from biggan.atomic_write import make_folder, write_atomically
from biggan.classes import class_choices
from biggan.demo.address import Settings, default_value
from biggan.demo.captions import column_heads
from biggan.demo.drawing import SheetRecipe
from biggan.demo.filming import film
from biggan.demo.forms import INTERPOLATE, VIDEO, Category, Form, shown
from biggan.demo.line import AbandonedError, Job
from biggan.demo.shelf import ModelShelf
from biggan.errors import InputError
from biggan.gan import Gan
from biggan.provenance import VideoProvenance, file_stem
from biggan.video import check_video

# Requests that Gradio passes on to the request queue at once; more wait, and see their place.
PICTURES: dict[str, Any] = {"concurrency_limit": 4, "concurrency_id": "model"}
VIDEOS: dict[str, Any] = {"concurrency_limit": 4, "concurrency_id": "video"}

_LOG = logging.getLogger("biggan.demo")

_SMALL = 64  # up to this many pixels a side pictures are enlarged for the screen
_MOST_UNREAD = 10  # seconds without a reader after which a result is given up
_LONGEST_MESSAGE = 500  # characters; longer ones repeat what somebody sent


@dataclass(frozen=True)
class View:
    """The widgets of a form."""

    form: Form
    tab: Any
    controls: list[Any]
    heading: Any
    picture: Any
    caption: Any


@dataclass(frozen=True)
class Video:
    """The widgets of the video of the form "Interpolate"."""

    seconds: Any
    button: Any
    preview: Any
    webp: Any
    mp4: Any

    @property
    def outputs(self) -> list[Any]:
        """What a video appears in."""
        return [self.preview, self.webp, self.mp4]


def menu(control: Category, gan: Gan) -> dict[str, Any]:
    """A category menu for a model: its entries, the first one chosen, and whether it is needed."""
    return {
        "choices": class_choices(gan.class_names),
        "value": default_value(control, gan),
        "visible": bool(gan.class_names),
    }


def picture_style(form: Form, gan: Gan) -> list[str]:
    """The style classes of a form's picture."""
    return ["grid", form.name, *(["small"] if gan.config.resolution <= _SMALL else [])]


def heading(recipe: SheetRecipe) -> Any:
    """Above a picture: what its columns are."""
    cells = column_heads(recipe)
    return gr.update(value=cells, visible=True) if cells else gr.update(visible=False)


def message(error: InputError) -> str:
    """What is wrong, short enough to be read, in characters that can be sent."""
    text = str(error).encode(errors="backslashreplace").decode()
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."


def message_on_page(error: InputError) -> str:
    """What is wrong, for Gradio's toasts, which are HTML.

    They let links and pictures pass, which a link to the page or a dropped file could bring in.
    """
    return html.escape(message(error), quote=False)


def told(
    function: Callable[..., Any], words: Callable[[InputError], str] = message_on_page
) -> Callable[..., Any]:
    """The same function, whose user's mistakes reach the user as one line."""
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def tell(*args: Any, **kwargs: Any) -> Any:
            try:
                yield from function(*args, **kwargs)
            except InputError as error:
                raise gr.Error(words(error), print_exception=False) from None

        return tell

    @wraps(function)
    def tell_once(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            raise gr.Error(words(error), print_exception=False) from None

    return tell_once


def offered(shelf: ModelShelf, model: Any) -> Gan:
    """The model of that name.

    Raises:
        InputError: There is none, or it cannot be loaded.
    """
    if not isinstance(model, str):
        raise InputError(f"the model must be one of {', '.join(shelf.names)}, not {shown(model)}")
    return shelf.get(model)


def settings_of(form: Form, values: Sequence[Any]) -> Settings:
    """What the controls of a form say, in their order."""
    keys = (control.key for control in form.controls)
    return Settings(form, dict(zip(keys, values, strict=True)))


def saved(widget: Any, png: bytes, recipe: SheetRecipe) -> Path:
    """The file of a picture, where the widget may serve it."""
    with writing():
        file = _place(widget, f"{file_stem(recipe)}.png", recipe.to_json())
        if not reused(file):
            write_atomically(file, png)
    return file


def filmed(
    shelf: ModelShelf, model: str, recipe: VideoProvenance, files: Sequence[Path], job: Job
) -> None:
    """Write the files of a video, unless they are there, as a job of the request queue."""
    gan = shelf.get(model)
    if not reused(*files):
        with writing():
            film(gan, recipe, files, job.add)


def reused(*files: Path) -> bool:
    """Whether files are there; if so, Gradio deletes them no sooner than new ones."""
    try:
        for file in files:
            os.utime(file)
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Log why a file cannot be made: visitors are not told the server's paths.

    Raises:
        InputError: For the visitor.
    """
    try:
        yield
    except AbandonedError:
        raise
    except InputError as error:
        _LOG.error("%s", error)
        raise InputError("the server cannot make the file; its log says why") from error


def progress_of(job: Job, every: float = 0.5) -> Iterator[list[Any]]:
    """Every so many seconds what is done of a job, until it has ended.

    Raises:
        gradio.Error: The client has closed its connection, or reads no messages.
    """
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    queue = blocks._queue if blocks else None  # false while it is empty
    event = queue.event_ids_to_events.get(event_id) if queue is not None and event_id else None
    last_read = time.monotonic()
    while wait([job.future], every).not_done:
        if queue is not None and event:
            messages = queue.pending_messages_per_session.get(event.session_hash)
            if messages is None or messages.empty():
                last_read = time.monotonic()
            if not event.alive or time.monotonic() - last_read > _MOST_UNREAD:
                raise gr.Error("the client has left", print_exception=False)
        yield list(job.parts)


def places(video: Video, recipe: VideoProvenance) -> list[Path]:
    """The files of a video: a WebP, and an MP4 where it can be written."""
    stem, contents = file_stem(recipe), recipe.to_json()
    with writing():
        webp, mp4 = (_place(video.preview, f"{stem}{end}", contents) for end in (".webp", ".mp4"))
    try:
        check_video(mp4, recipe.fps)
    except InputError as error:
        gr.Info(str(error))
        return [webp]
    return [webp, mp4]


def _place(widget: Any, name: str, contents: str) -> Path:
    """Where a file is served from, and deleted when it is old: one folder for each recipe."""
    folder = Path(widget.GRADIO_CACHE) / hashlib.sha256(contents.encode()).hexdigest()
    make_folder(folder)
    return folder / name


def video_inputs(views: list[View], video: Video) -> list[Any]:
    """The widgets of what a video is made of, in the order of its form."""
    view = view_of(views, INTERPOLATE)
    widgets = {c.key: w for c, w in zip(view.form.controls, view.controls, strict=True)}
    return [widgets.get(control.key, video.seconds) for control in VIDEO.controls]


def view_of(views: list[View], form: Form) -> View:
    """The widgets of a form."""
    return next(view for view in views if view.form is form)
