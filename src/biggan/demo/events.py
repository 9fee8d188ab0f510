"""What the page does when something is touched: to draw, to film, to restore settings."""

from __future__ import annotations

import contextlib
import hashlib
import html
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from biggan.atomic_write import make_folder, write_atomically
from biggan.classes import class_choices
from biggan.demo.card import model_card
from biggan.demo.drawing import (
    caption,
    column_heads,
    describe,
    draw_film,
    draw_png,
    unfinished,
)
from biggan.demo.forms import (
    Category,
    Form,
    Number,
    default_value,
    find_settings,
    from_query,
    to_query,
)
from biggan.demo.model_cache import ModelCache
from biggan.demo.request_queue import AbandonedError, Job, RequestQueue
from biggan.errors import InputError
from biggan.gan import Gan
from biggan.provenance import AnyProvenance, GridProvenance, file_stem, read_provenance
from biggan.video import check_video

_LOG = logging.getLogger("biggan.demo")

_SMALL = 64  # up to this many pixels a side pictures are enlarged for the screen
_POLL_INTERVAL = 0.5  # seconds
_MAX_UNREAD = 10  # seconds without a reader after which a result is given up
_MAX_MESSAGE = 500  # characters; longer ones repeat what somebody sent

# Of a dropped file: 50 pictures of 1024 pixels a side, the most that a form makes, and many times
# their provenance. A file of a few KiB can say that it has a thousand times as much.
_MAX_PIXELS = 2**26
_MAX_PROVENANCE = 2**20


@dataclass(frozen=True)
class Video:
    """The widgets of a tab's video."""

    form: Form
    button: Any
    preview: Any
    webp: Any
    mp4: Any

    @property
    def outputs(self) -> list[Any]:
        """The widgets that show it."""
        return [self.preview, self.webp, self.mp4]


@dataclass(frozen=True)
class PageTab:
    """The widgets of a form; those of its controls by their keys."""

    form: Form
    tab: Any
    widgets: dict[str, Any]
    heading: Any
    picture: Any
    caption: Any
    video: Video | None


@dataclass
class Newest:
    """The number of the newest request of one visitor."""

    number: float = 0


class Handlers:
    """The functions behind the page's events and its API."""

    def __init__(
        self,
        models: ModelCache,
        queue: RequestQueue,
        tabs: Sequence[PageTab],
        *,
        show_paths: bool,
    ) -> None:
        self._models = models
        self._queue = queue
        self._tabs = tabs
        self._show_paths = show_paths

    def note(self, newest: Newest, asked: float) -> None:
        """Remember the newest request."""
        newest.number = max(newest.number, asked)

    def draw(
        self, shown: str, newest: Newest, asked: float, model: str, *values: Any
    ) -> Iterator[list[Any]]:
        """The picture of the form that is shown, coarse at first.

        Yields:
            The address, then heading, picture and caption of each form, then the videos.
        """
        with _gradio_errors():
            tab = next((tab for tab in self._tabs if tab.form.name == shown), self._tabs[0])
            gan = self._models.get(model)
            settings = self._by_form(values)[tab.form.name]
            sheet = tab.form.plan(gan, **settings)
            source = self._models.source(model, with_paths=self._show_paths)
            command = caption(gan, sheet, f"{file_stem(sheet)}.png", source)
            looks: dict[str, Any] = {
                "elem_classes": picture_style(tab.form, gan),
                "alt_text": describe(sheet),
            }
            del gan  # not kept while the picture waits
            drawn = 0
            with self._join_picture(model, sheet) as job:
                for done in _progress(job):
                    if newest.number > asked:
                        return
                    if len(done) > drawn:
                        drawn = len(done)
                        coarse = gr.update(value=unfinished(done, sheet), **looks)
                        yield [gr.skip(), *self._changed(tab, gr.skip(), coarse, gr.skip())]
                png = job.future.result()
            final = gr.update(value=_save_picture(tab.picture, png, sheet), **looks)
            heads = column_heads(sheet)
            heading = gr.update(value=heads, visible=True) if heads else gr.update(visible=False)
            yield [
                to_query(model, tab.form, settings),
                *self._changed(tab, heading, final, command),
            ]

    def film(
        self,
        newest: Newest,
        asked: float,
        model: str,
        *values: Any,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # that is how Gradio knows
    ) -> Iterator[list[Any]]:
        """A video, once it is made; until then an empty frame, where Gradio shows the progress."""
        tab = next(tab for tab in self._tabs if tab.video)
        assert tab.video is not None
        with _gradio_errors():
            settings = dict(zip(tab.widgets, values, strict=True))
            video = tab.video.form.plan(self._models.get(model), **settings)
            files = _video_files(tab.video.preview, video)
            yield [gr.update(value=None, visible=True), gr.skip(), gr.skip()]
            with self._join_video(model, video, files) as job:
                for done in _progress(job):
                    if newest.number > asked:
                        return
                    progress((max(done, default=0), video.frames), unit="frames")
                job.future.result()
            shown = [gr.update(value=file, visible=True) for file in (files[0], *files)]
            yield [*shown, gr.skip()][:3]

    def answer(self, tab: PageTab, form: Form, values: Mapping[str, Any], model: Any) -> Any:
        """Answer a call of the API: the file of a picture, or the two of a video."""
        with _gradio_errors(_sendable):
            made = form.plan(self._models.get(model), **values)
            if tab.video is None or form is tab.form:
                with self._join_picture(model, made) as job:
                    return _save_picture(tab.picture, _result(job), made)
            files = _video_files(tab.video.preview, made)
            with self._join_video(model, made, files) as job:
                _result(job)
            return [files[0], files[1] if len(files) > 1 else None]

    def choose(self, model: str) -> list[Any]:
        """Another model: its card, and menus of its categories."""
        with _gradio_errors():
            gan = self._models.get(model)
            updates = [
                gr.update(**menu(control, gan)) if isinstance(control, Category) else gr.skip()
                for tab in self._tabs
                for control in tab.form.all_controls
            ]
            return [model_card(gan), *updates]

    def follow(self, kept: str, request: gr.Request) -> list[Any]:
        """The page is opened: its address has settings of one form, the browser kept the others."""
        query = dict(request.query_params)
        known = {"form", "model", *(c.key for tab in self._tabs for c in tab.form.controls)}
        try:
            model = query.get("model", self._models.default)
            gan = self._models.get(model)
            values = self._kept_values(kept, gan)
            form, settings = from_query(query)
            if query.keys() & known:
                settings = form.complete(gan, settings)
                form.plan(gan, **settings)  # refuses a category that the model lacks
            elif not values:
                return self._unchanged()
        except InputError as error:
            gr.Warning(f"The address cannot be followed: {error_text(error)}")
            return self._unchanged()
        values[form.name] = {**values.get(form.name, {}), **settings}
        return self._restored(model, gan, form, values, menus=model != self._models.default)

    def restore(self, dropped: str, model: str) -> list[Any]:
        """A file is dropped: show its settings, and clear it."""
        path = Path(dropped)
        try:
            made = read_provenance(path, _MAX_PIXELS, _MAX_PROVENANCE)
            maker = made.pictures[0] if isinstance(made, GridProvenance) else made
            named = [n for n in self._models.names if maker.model in (n, Path(n).stem)]
            before = self._models.get(model).class_names
            for name in (model, *named):  # and no others: to look into a model is to load it
                if self._models.get(name).sha256 == maker.sha256:
                    model = name
            gan = self._models.get(model)
            form, settings = find_settings(gan, made)
        except InputError as error:
            text = str(error).replace(str(path), path.name)  # not where the server has it
            gr.Warning(error_text(InputError(text)))
            return [*self._unchanged(), None]
        menus = gan.class_names != before
        return [*self._restored(model, gan, form, {form.name: settings}, menus=menus), None]

    def _join_picture(self, model: str, sheet: Any) -> contextlib.AbstractContextManager[Job]:
        models = self._models
        return self._queue.join((model, sheet), lambda job: draw_png(models.get(model), sheet, job))

    def _join_video(
        self, model: str, video: Any, files: list[Path]
    ) -> contextlib.AbstractContextManager[Job]:
        def make(job: Job) -> None:
            if not _reused(*files):
                with _hidden_paths():
                    draw_film(self._models.get(model), video, files, job.add)

        return self._queue.join((model, video), make, is_video=True)

    def _by_form(self, values: Sequence[Any]) -> dict[str, dict[str, Any]]:
        """The values of all widgets, by the names of their forms and the keys of their controls."""
        rest = iter(values)
        return {t.form.name: dict(zip(t.widgets, rest, strict=False)) for t in self._tabs}

    def _changed(self, tab: PageTab, *widgets: Any) -> list[Any]:
        """Updates of all pictures, and of the tab's video, which is of other settings now."""
        updates = [w for t in self._tabs for w in (widgets if t is tab else [gr.skip()] * 3)]
        for other in self._tabs:
            for _ in other.video.outputs if other.video else ():
                hidden = gr.update(value=None, visible=False)
                updates.append(hidden if other is tab else gr.skip())
        return updates

    def _unchanged(self) -> list[Any]:
        return [gr.skip()] * (4 + sum(len(tab.widgets) for tab in self._tabs))

    def _kept_values(self, text: str, gan: Gan) -> dict[str, dict[str, Any]]:
        """What the browser kept of all forms, without what this model's page cannot show."""
        try:
            given = json.loads(text)
        except (TypeError, ValueError, RecursionError):
            return {}
        if not isinstance(given, list) or len(given) != sum(len(t.widgets) for t in self._tabs):
            return {}
        kept = self._by_form(given)
        for tab in self._tabs:
            values = kept[tab.form.name]
            for control in tab.form.all_controls:
                try:
                    value = values[control.key] = control.check(values[control.key])
                    if isinstance(control, Category) and value is not None:
                        gan.class_index(str(value))
                except InputError:
                    del values[control.key]
        return kept

    def _restored(
        self,
        model: str,
        gan: Gan,
        form: Form,
        values: Mapping[str, Mapping[str, Any]],
        *,
        menus: bool,
    ) -> list[Any]:
        """Updates of the tabs, the form's name, the model, its card and all controls.

        Args:
            model: As visitors call it.
            gan: The model.
            form: The form to be shown.
            values: By the forms' names; controls that are not here stay as they are.
            menus: Whether the page shows the categories of another model.
        """
        updates = []
        for tab in self._tabs:
            for control in tab.form.all_controls:
                update = menu(control, gan) if menus and isinstance(control, Category) else {}
                value = values.get(tab.form.name, {}).get(control.key)
                if value is not None:
                    if isinstance(control, Number):
                        update["maximum"] = max(control.high, value)
                    if isinstance(control, Category):
                        value = class_choices(gan.class_names)[gan.class_index(value)]
                    update["value"] = value
                updates.append(gr.update(**update) if update else gr.skip())
        return [gr.Tabs(selected=form.name), form.name, model, model_card(gan), *updates]


def menu(control: Category, gan: Gan) -> dict[str, Any]:
    """A category menu for a model: its entries, the first one chosen, and whether it is needed."""
    names = gan.class_names
    value = default_value(control, names)
    return {"choices": class_choices(names), "value": value, "visible": bool(names)}


def picture_style(form: Form, gan: Gan) -> list[str]:
    """The style classes of a form's picture."""
    return ["grid", form.name, *(["small"] if gan.config.resolution <= _SMALL else [])]


def error_text(error: InputError) -> str:
    """A message for Gradio's toasts, which are HTML: links and pictures would work in them."""
    return html.escape(_sendable(error), quote=False)


def _sendable(error: InputError) -> str:
    text = str(error).encode(errors="backslashreplace").decode()
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}..."


@contextlib.contextmanager
def _gradio_errors(text: Callable[[InputError], str] = error_text) -> Iterator[None]:
    """Show a visitor's mistake to the visitor as one line."""
    try:
        yield
    except InputError as error:
        raise gr.Error(text(error), print_exception=False) from None


@contextlib.contextmanager
def _hidden_paths() -> Iterator[None]:
    """Log why a file cannot be made: visitors must not see the server's paths."""
    try:
        yield
    except AbandonedError:
        raise
    except InputError as error:
        _LOG.error("%s", error)
        raise InputError("the server cannot make the file; its log says why") from error


def _progress(job: Job) -> Iterator[list[Any]]:
    """The finished parts of a job twice a second, until it has ended.

    Raises:
        gradio.Error: The client has closed its connection, or reads no messages.
    """
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    queue = blocks._queue if blocks else None  # false while it is empty
    event = queue.event_ids_to_events.get(event_id) if queue is not None and event_id else None
    last_read = time.monotonic()
    while wait([job.future], _POLL_INTERVAL).not_done:
        if queue is not None and event:
            messages = queue.pending_messages_per_session.get(event.session_hash)
            if messages is None or messages.empty():
                last_read = time.monotonic()
            if not event.alive or time.monotonic() - last_read > _MAX_UNREAD:
                raise gr.Error("the client has left", print_exception=False)
        yield list(job.parts)


def _result(job: Job) -> Any:
    for _ in _progress(job):
        pass
    return job.future.result()


def _save_picture(widget: Any, png: bytes, sheet: AnyProvenance) -> Path:
    """Write the file of a picture where the widget may serve it."""
    with _hidden_paths():
        file = _place(widget, sheet, ".png")
        if not _reused(file):
            write_atomically(file, png)
    return file


def _video_files(widget: Any, video: Any) -> list[Path]:
    """The files of a video: a WebP, and an MP4 where it can be written."""
    with _hidden_paths():
        webp, mp4 = (_place(widget, video, ending) for ending in (".webp", ".mp4"))
    try:
        check_video(mp4, video.fps)
    except InputError as error:
        gr.Info(str(error))
        return [webp]
    return [webp, mp4]


def _place(widget: Any, made: AnyProvenance, ending: str) -> Path:
    """A file that the widget may serve, and Gradio deletes when it is old: a folder each."""
    folder = Path(widget.GRADIO_CACHE) / hashlib.sha256(made.to_json().encode()).hexdigest()
    make_folder(folder)
    return folder / f"{file_stem(made)}{ending}"


def _reused(*files: Path) -> bool:
    """Whether the files are there; if so, Gradio deletes them no sooner than new ones."""
    try:
        for file in files:
            os.utime(file)
    except FileNotFoundError:
        return False
    return True
