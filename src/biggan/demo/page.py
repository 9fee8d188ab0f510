"""The page: its tabs, and what happens when something on it is touched.

What a form takes is in `forms`, its widgets are in `tab`, pictures come from the `renderer`. The
settings are nowhere but in the widgets; the browser keeps a copy with its history.
"""

from __future__ import annotations

import contextlib
import html
import inspect
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext
from gradio.utils import get_upload_folder
from PIL import Image

from biggan.demo import forms, words
from biggan.demo.drawing import thumbnail, unfinished
from biggan.demo.models import ModelCache
from biggan.demo.renderer import Job, Renderer
from biggan.demo.tab import Tab, in_browser, lay_out, picture_style, setting
from biggan.errors import InputError
from biggan.gan import Gan
from biggan.provenance import GridProvenance
from biggan.provenance_files import read_provenance
from biggan.weights.files import BUNDLED

STYLE = Path(__file__).with_name("page.css")

_LARGEST = {
    f"{form.name}-{control.key}": control.largest
    for form in forms.FORMS
    for control in form.all_controls
    if isinstance(control, forms.Number)
}
SCRIPT = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
SCRIPT = SCRIPT.replace("LARGEST_NUMBERS", json.dumps(_LARGEST))
"""A JavaScript function, called once; it defines `window.biggan`, which the events below use."""

# Requests that Gradio passes on to the renderer at once; more wait, and see their place.
_PICTURES: dict[str, Any] = {"concurrency_limit": 4, "concurrency_id": "model"}
_VIDEOS: dict[str, Any] = {"concurrency_limit": 4, "concurrency_id": "video"}
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# Gradio ignores an event of whose kind another is not answered yet, unless it is told otherwise.
_EACH: dict[str, Any] = {"trigger_mode": "multiple", **_QUIET}
# A visitor who waits for a download must not hold up others.
_DOWNLOADS: dict[str, Any] = {"concurrency_limit": 16, "concurrency_id": "download", **_QUIET}

_POLL_INTERVAL = 0.5  # seconds
_MAX_UNREAD = 10  # seconds without a reader after which a result is given up
_MAX_MESSAGE = 500  # characters; longer ones repeat what somebody sent

# Of a dropped file: 50 pictures of 1024 pixels a side, the most that a form makes, and many times
# their provenance. A file of a few KiB can say that it has a thousand times as much.
_MAX_PIXELS = 2**26
_MAX_PROVENANCE = 2**20
_PICTURES_AND_VIDEOS = (".png", ".webp", ".gif", ".mp4", ".jpg", ".jpeg")  # others are weights


@dataclass
class Newest:
    """The number of the newest request of one visitor, and the settings of the newest video."""

    number: float = 0
    filmed: forms.SheetProvenance | None = None

    def note(self, asked: Any) -> None:
        """Remember a request."""
        if isinstance(asked, int | float):
            self.number = max(self.number, asked)

    def replaces(self, asked: Any) -> bool:
        """Whether there is a newer one."""
        return not isinstance(asked, int | float) or self.number > asked


class Page:
    """The page, `blocks`, with an endpoint of its API for each form and for the video.

    It begins with the default model; `show_paths` is whether shell commands name files of models.
    """

    def __init__(self, renderer: Renderer, *, show_paths: bool = False) -> None:
        self.renderer = renderer
        self._models = models = renderer.models
        self._show_paths = show_paths
        gan = models.get(models.default)
        # A bundled model draws its classes in a moment, so the page opens with their pictures.
        classes, is_bundled = "", models.source(models.default, with_paths=False) in BUNDLED
        if is_bundled:
            planned = forms.plan_gallery(gan)
            classes = words.gallery(planned, [thumbnail(picture) for picture in gan.draw(planned)])
        self.blocks = _Blocks(
            title="BigGAN",
            analytics_enabled=False,
            delete_cache=(300, 3600),  # every five minutes, pictures older than an hour
            fill_width=True,
        )
        with self.blocks:
            with gr.Row(elem_classes="top"):
                with gr.Column(scale=3, min_width=280, elem_classes="welcome"):
                    gr.HTML(words.WELCOME)
                    with gr.Row(elem_classes="actions"):
                        small: dict[str, Any] = {"size": "sm", "min_width": 0}
                        self.surprise_button = gr.Button("Surprise me", **small)
                        self.copy_button = gr.Button("Copy link", elem_id="copy-link", **small)
                with gr.Column(scale=2, min_width=280, elem_classes="model"):
                    is_shown = len(models.names) > 1
                    self.model = gr.Dropdown(
                        self._menu(), value=models.default, label="Model", visible=is_shown
                    )
                    self.card = gr.HTML(words.model_card(gan, models.default), elem_classes="about")
            missing = "".join(words.download_failure(n, why) for n, why in models.failures.items())
            self.notice = gr.HTML(missing, visible=bool(missing), elem_classes="notice")
            self.cancel_button = gr.Button(
                "Cancel the download", size="sm", visible=False, elem_classes="cancel"
            )
            with gr.Tabs(selected=forms.EXPLORE.name, overflow_behavior="wrap") as self.tab_bar:
                self.tabs = [lay_out(form, gan, classes) for form in forms.FORMS]
            weights = models.uploads is not None
            self.drop = gr.File(
                label=f"A picture or video made here{', or weights' * weights}",
                file_count="multiple" if weights else "single",
                height=110,
                elem_classes="drop",
                elem_id="drop",
            )
            gr.HTML(words.API_LINK, elem_classes="api")
            self.shown = gr.Textbox(forms.EXPLORE.name, visible="hidden")  # the form that is seen
            self.address = gr.Textbox(visible="hidden")
            shown = models.default if is_bundled else ""
            self.drawn = gr.Textbox(shown, visible="hidden")  # the model of the picture
            # The model of the controls; the menu may name one that is being downloaded.
            self.current = gr.Textbox(models.default, visible="hidden")
            self._connect()
            for tab in self.tabs:
                self._publish(tab.form, tab, [tab.picture], _PICTURES)
                if tab.form.video:
                    self._publish(tab.form.video, tab, tab.video[1:3], _VIDEOS)

    def _connect(self) -> None:
        """Set up what happens when something is touched.

        Every change of a control asks for the picture of the settings as they are, and ends the
        drawing of the one before. Gradio would cancel that in the browser, where a cancellation and
        the next request may cross. So the browser counts its requests, holds back all but the
        newest while one is drawn, and tells the server the count; a handler stops at a newer one.
        """
        wanted = gr.Textbox(visible="hidden")  # a class that another model has
        # What was dropped, taken at once, or files that are dropped meanwhile would be added to it.
        dropped = gr.File(file_count=self.drop.file_count, visible="hidden")
        asked = gr.Number(0, visible="hidden")  # how often a picture was asked for
        newest = gr.State(Newest())
        kept = gr.Textbox(visible="hidden")  # settings, by the browser's history
        settings = [widget for tab in self.tabs for widget in tab.widgets.values()]
        drawn = [tab.widgets[control.key] for tab in self.tabs for control in tab.form.controls]
        model = [self.model, self.current, self.card, self.drawn]
        restored = [self.tab_bar, self.shown, *model, *settings]

        for tab in self.tabs:
            opened = in_browser(f"biggan.openTab('{tab.form.name}')")
            tab.item.select(None, None, self.shown, **opened)
            for control in tab.form.controls:
                if isinstance(control, forms.Category):
                    wants = in_browser("JSON.stringify(biggan.wanted)")
                    tab.widgets[control.key].select(None, None, wanted, **wants)
        ask = in_browser("biggan.ask(...values)")
        gr.on([control.change for control in [self.shown, *drawn]], None, asked, asked, **ask)
        keep = in_browser("biggan.keep(...values)")
        gr.on([control.change for control in settings], None, settings, None, **keep)
        choosing = [*restored, self.notice, self.cancel_button]
        recall = {**_QUIET, **in_browser("biggan.recall()")}
        taken = {**_EACH, **in_browser("[values[0], null]")}
        for event in (
            self.blocks.load(self.follow, kept, restored, **recall),
            self.model.input(self.choose, [self.model, self.current], choosing, **_DOWNLOADS),
            wanted.change(self.choose_wanted, [wanted, self.current], choosing, **_DOWNLOADS),
            self.surprise_button.click(
                self.surprise, [self.shown, self.current], restored, **_QUIET
            ),
            self.drop.upload(None, self.drop, [dropped, self.drop], **taken).then(
                self.restore, [dropped, self.current], restored, **_EACH
            ),
        ):
            event.then(None, asked, asked, **ask)
        at_once = {**_EACH, "queue": False}
        asked.change(Newest.note, [newest, asked], None, **at_once)
        request, last = [newest, asked, self.current], {**_QUIET, "trigger_mode": "always_last"}
        event = asked.change(
            self.draw,
            [self.shown, *request, *settings],
            [self.address, self.drawn, *(widget for tab in self.tabs for widget in tab.outputs)],
            **last,
            **_PICTURES,
        )
        self.cancel_button.click(self.cancel, self.model, None, **_QUIET)
        show_address = in_browser("biggan.showAddress(...values)")
        event.success(None, self.address, None, **show_address)
        event.then(None, **in_browser("biggan.undim()"))
        self.copy_button.click(None, **in_browser("biggan.copyLink()"))
        explore = self.tabs[0]
        self.drawn.change(self.show_classes, self.drawn, explore.gallery, **last)
        picked = in_browser("biggan.picked")
        explore.gallery.select(None, None, explore.widgets["category"], **picked)
        for tab in self.tabs:
            if tab.button:
                tab.button.click(
                    self.film,
                    [newest, self.current, *settings],
                    tab.video,
                    show_progress_on=tab.video[0],
                    api_visibility="private",
                    trigger_mode="always_last",
                    **_VIDEOS,
                )

    def _publish(
        self, form: forms.Form, tab: Tab, outputs: Sequence[Any], queue: dict[str, Any]
    ) -> None:
        """Offer an endpoint, whose parameters are the form's controls and the model."""
        keys = [control.key for control in form.controls]

        def call(*values: Any) -> Any:
            with _gradio_errors(escape=False):
                model, settings = values[-1], dict(zip(keys, values, strict=False))
                made = form.plan(self._models.get(model), **settings)
                with self.renderer.join(model, made) as job:
                    for _ in _until_done(job):
                        pass
            files = [*job.files, None][: len(outputs)]
            return files if len(files) > 1 else files[0]

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter(key, kind) for key in [*keys, "model"]]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__doc__ = form.summary
        inputs = [*(tab.widgets[key] for key in keys), self.model]
        gr.on([], call, inputs, outputs, api_name=form.endpoint, **queue)  # no event of the page

    # What the handlers below return are new values, by their widgets.

    def draw(
        self, shown: str, newest: Newest, asked: float, model: str, *values: Any
    ) -> Iterator[dict[Any, Any]]:
        """The picture of the form that is shown, coarse at first."""
        with _gradio_errors():
            tab, settings = self._settings(shown, values)
            gan = self._models.get(model)
            sheet = tab.form.plan(gan, **settings)
            styles, text = picture_style(tab.form, gan), words.describe(sheet)
            heads, drawn = words.column_heads(sheet), 0
            query = forms.to_query(model, tab.form, settings)
            # The API takes the rest of the address, without the form.
            links = tab.form.endpoint, query.partition("&")[2], gan.config.resolution
            source = self._models.source(model, with_paths=self._show_paths)
            around = {
                tab.heading: gr.update(value=heads, visible=bool(heads)),
                tab.caption: words.caption(gan, sheet, source) + words.download_links(*links),
            }
            if tab.video and newest.filmed != sheet and not newest.replaces(asked):
                newest.filmed = None  # a video would be of other settings now
                around |= dict.fromkeys(tab.video[1:], gr.update(value=None, visible=False))
                around[tab.video[0]] = gr.update(value=None, visible="hidden")
            del gan  # not kept while the picture waits
            with self.renderer.join(model, sheet) as job:
                for _ in _until_done(job):
                    if newest.replaces(asked):
                        # If this ended before its first value, Gradio would empty all outputs.
                        yield {self.address: gr.skip()}
                        return
                    if len(done := job.parts.copy()) > drawn:
                        drawn, coarse = len(done), [*styles, "unfinished"]
                        value = unfinished(done, sheet)
                        update = gr.update(value=value, elem_classes=coarse, alt_text=text)
                        yield {tab.picture: update, **around}
            update = gr.update(value=job.files[0], elem_classes=styles, alt_text=text)
            yield {self.address: query, self.drawn: model, tab.picture: update, **around}

    def film(
        self,
        newest: Newest,
        model: str,
        *values: Any,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # that is how Gradio knows
    ) -> Iterator[dict[Any, Any]]:
        """A video, once it is made; until then an empty frame, where Gradio shows the progress.

        A video that is there at once needs no frame; in the browser, hiding it might come first.
        """
        with _gradio_errors():
            tab, settings = self._settings(forms.VIDEO.name, values)
            gan = self._models.get(model)
            video = forms.VIDEO.plan(gan, **settings)
            newest.filmed = sheet = tab.form.plan(gan, **settings)
            del gan  # not kept while the video waits
            preview, webp, mp4, player = tab.video
            shown: dict[Any, Any] = {preview: gr.update(value=None, visible=True)}
            with self.renderer.join(model, video) as job:
                for _ in _until_done(job):
                    yield shown
                    shown = {preview: gr.skip()}
                    if newest.filmed != sheet:
                        break
                    progress((max(job.parts, default=0), video.frames), unit="frames")
            if newest.filmed != sheet:
                yield {preview: gr.skip()}
                return
            shown = {webp: job.files[0]}
            if len(job.files) == 1:  # a picture that moves, and cannot be stopped
                gr.Info("the server writes no MP4: pip install 'biggan[video]'")
                shown[preview] = job.files[0]
            else:
                shown |= dict.fromkeys((mp4, player), job.files[1])
            yield {
                preview: gr.update(visible="hidden"),
                **{widget: gr.update(value=file, visible=True) for widget, file in shown.items()},
            }

    def choose_wanted(self, wanted: str, current: str) -> Iterator[dict[Any, Any]]:
        """A class of another model, as JSON of the browser: choose that model and the class."""
        with _gradio_errors():
            try:
                asked = json.loads(wanted)
                form, key = str(asked["field"]).split("-")
                model, values = asked["model"], {form: {key: asked["entry"]}}
            except (KeyError, TypeError, ValueError, RecursionError):
                raise InputError("this is no class of another model") from None
            yield from self.choose(model, current, values)

    def choose(
        self, model: str, current: str, values: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Iterator[dict[Any, Any]]:
        """Another model: its card and its categories; it is downloaded if need be.

        The page stays with `current` if that fails. `values` are settings, by the forms' names.
        """
        with _gradio_errors():
            if model in self._models.names and not self._models.is_ready(model):
                reason = ""
                with self.renderer.download(model) as job:
                    try:
                        for _ in _until_done(job):
                            job.check()  # at once, even if the host is silent
                            progress = words.download_progress(model, job.parts)
                            shown = gr.update(value=progress, visible=True)
                            yield {self.notice: shown, self.cancel_button: gr.update(visible=True)}
                    except (InputError, CancelledError) as error:
                        reason = words.download_failure(model, str(error))
                        if job.abandoned.is_set():
                            reason = words.CANCELLED
                hidden = {self.cancel_button: gr.update(visible=False)}
                if reason:
                    stays = gr.update(choices=self._menu(), value=current)
                    notice = gr.update(value=reason, visible=True)
                    yield {self.model: stays, self.notice: notice, **hidden}
                    return
                yield hidden
            update = self._update(model, values or {}, is_new=True)
            update[self.model] = gr.update(choices=self._menu(), value=model)
            yield {**update, self.notice: gr.update(visible=False)}

    def cancel(self, model: Any) -> None:
        """Stop the download of a model."""
        self.renderer.cancel_download(str(model))

    def _menu(self) -> list[tuple[str, str]]:
        return [(self._models.label(name), name) for name in self._models.names]

    def surprise(self, shown: str, model: str) -> dict[Any, Any]:
        """Other categories and seeds, at random, on the tab that is shown."""
        with _gradio_errors():
            form = self._tab(shown).form
            values = forms.draw_lots(form, self._models.get(model).class_names)
            return self._update(model, {form.name: values}, is_new=False)

    def show_classes(self, model: str) -> Iterator[str]:
        """Pictures of the classes of a model, to click on, as they are drawn."""
        yield ""
        with _gradio_errors():
            planned = forms.plan_gallery(self._models.get(model)) if model else []
            pictures: list[str] = []
            for picture in planned:  # one by one: visitors' pictures come in between
                with self.renderer.join(model, GridProvenance(1, (picture,))) as job:
                    for _ in _until_done(job):
                        pass
                with Image.open(job.files[0]) as drawn:
                    pictures.append(thumbnail(drawn))
                yield words.gallery(planned, pictures)

    def follow(self, kept: str, request: gr.Request) -> dict[Any, Any]:
        """The page is opened: its address has settings of one form, as they were last drawn.

        The browser kept those of all forms; where they differ, they are newer.
        """
        query = dict(request.query_params)
        known = {"form", "model", *(c.key for tab in self.tabs for c in tab.form.controls)}
        model, faults = query.get("model", self._models.default), []
        try:
            gan = self._models.get(model)
        except InputError as error:
            model, faults = self._models.default, [error]
            gan = self._models.get(model)
        form, settings, wrong = forms.from_query(query, gan)
        for fault in (*faults, *wrong):
            gr.Warning(f"Not all of the address can be followed: {_message(fault)}")
        values = self._kept_settings(gan, kept)
        if query.keys() & known:
            settings = form.complete(gan, settings)
        elif not values:  # a visitor may have chosen another tab meanwhile
            return {self.shown: gr.skip()}
        values[form.name] = {**settings, **values.get(form.name, {})}
        return self._update(model, values, form, is_new=model != self._models.default)

    def restore(self, dropped: Any, model: str) -> dict[Any, Any]:
        """Files are dropped: show the settings of a picture, or a model that was brought."""
        with _gradio_errors():
            paths = [*map(_uploaded, dropped if isinstance(dropped, list) else [dropped])]
            path = paths[0]
        try:
            if self._models.uploads is not None and path.suffix.lower() not in _PICTURES_AND_VIDEOS:
                model = self._models.add(paths)
                update = self._update(model, {}, is_new=True)
                update[self.model] = gr.update(choices=self._menu(), value=model, visible=True)
                return update
            made = read_provenance(path, _MAX_PIXELS, _MAX_PROVENANCE)
            maker = made.pictures[0] if isinstance(made, GridProvenance) else made
            named = [n for n in self._models.names if maker.model in (n, Path(n).stem)]
            before = self._models.get(model).class_names
            for name in (model, *named):  # and no others: to look into a model is to load it
                if self._models.get(name).sha256 == maker.sha256:
                    model = name
            gan = self._models.get(model)
            form, settings = forms.find_settings(gan, made)
        except InputError as error:
            text = str(error).replace(str(path), path.name)  # not where the server has it
            gr.Warning(_message(InputError(text)))
            return {self.shown: gr.skip()}
        is_new = gan.class_names != before
        return self._update(model, {form.name: settings}, form, is_new=is_new)

    def _update(
        self,
        model: str,
        values: Mapping[str, Mapping[str, Any]],
        form: forms.Form | None = None,
        *,
        is_new: bool,
    ) -> dict[Any, Any]:
        """Show settings, by the forms' names, and a form; others stay as they are.

        `is_new` is whether the page shows the categories of another model.
        """
        gan = self._models.get(model)
        update: dict[Any, Any] = dict.fromkeys((self.model, self.current), model)
        update[self.card] = words.model_card(gan, model)
        if is_new:  # no classes of the model before can be clicked on
            update[self.drawn] = ""
        if form:
            update |= {self.tab_bar: gr.Tabs(selected=form.name), self.shown: form.name}
        for tab in self.tabs:
            given = values.get(tab.form.name, {})
            for control in tab.form.all_controls:
                value = given.get(control.key)
                if new := setting(control, value, gan, is_new=is_new):
                    update[tab.widgets[control.key]] = gr.update(**new)
        return update

    def _settings(self, shown: str, values: Sequence[Any]) -> tuple[Tab, dict[str, Any]]:
        """The tab of a form, and of the values of all controls its own.

        Half-typed numbers are brought into their range.
        """
        rest, tab = iter(values), self._tab(shown)
        settings = {tab.form: dict(zip(tab.widgets, rest, strict=False)) for tab in self.tabs}
        given = settings[tab.form]
        for control in tab.form.all_controls:
            if isinstance(control, forms.Number) and control.key in given:
                given[control.key] = control.nearest(given[control.key])
            elif given.get(control.key) == "":  # what Gradio's HTML makes of None
                given[control.key] = None
        return tab, given

    def _kept_settings(self, gan: Gan, kept: str) -> dict[str, dict[str, Any]]:
        """What the browser kept, but for forms whose settings the model does not take."""
        found = {}
        with contextlib.suppress(TypeError, ValueError, RecursionError):
            values = json.loads(kept)
            if len(values) != sum(len(tab.widgets) for tab in self.tabs):
                return {}  # of a version with other controls
            rest = iter(values)
            for tab in self.tabs:
                values = dict(zip(tab.widgets, rest, strict=False))
                with contextlib.suppress(InputError, KeyError):
                    checked = {c.key: c.check(values[c.key]) for c in tab.form.all_controls}
                    tab.form.plan(gan, **checked)
                    found[tab.form.name] = checked
        return found

    def _tab(self, shown: str) -> Tab:
        return next((tab for tab in self.tabs if tab.form.name == shown), self.tabs[0])


class _Blocks(gr.Blocks):
    """Blocks whose handlers get what was sent, and check it themselves.

    Gradio would fetch every address and copy every file that an input names anywhere inside, and
    would repeat and log all of a wrong value.
    """

    async def preprocess_data(
        self,
        block_fn: Any,
        inputs: list[Any],
        state: Any,
        explicit_call: bool = False,  # noqa: ARG002
    ) -> list[Any]:
        """Fill in the defaults of the last parameters, as Gradio's clients do by themselves."""
        if block_fn.fn is None:
            raise gr.Error("this event is not handled by the server", print_exception=False)
        missing = (getattr(control, "value", None) for control in block_fn.inputs[len(inputs) :])
        values = zip(block_fn.inputs, [*inputs, *missing], strict=False)
        return [state[control._id] if control.stateful else value for control, value in values]


def _uploaded(value: Any) -> Path:
    """The uploaded file that the browser names; InputError if it is none."""
    folder = Path(get_upload_folder()).resolve()
    with contextlib.suppress(OSError, TypeError, ValueError, LookupError):
        file = Path(value["path"]).resolve()
        if folder in file.parents and file.is_file():
            return file
    raise InputError("what is dropped must be a file that was uploaded here")


@contextlib.contextmanager
def _gradio_errors(*, escape: bool = True) -> Iterator[None]:
    """Show a visitor's mistake to the visitor as one line."""
    try:
        yield
    except InputError as error:
        raise gr.Error(_message(error, escape=escape), print_exception=False) from None


def _message(error: InputError, *, escape: bool = True) -> str:
    """One line. Gradio's toasts are HTML: links and pictures would work in them."""
    text = str(error).encode(errors="backslashreplace").decode()
    text = text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}..."
    return html.escape(text, quote=False) if escape else text


def _until_done(job: Job) -> Iterator[None]:
    """Wait for a job, and come back twice a second; raises as the job at its end.

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
        yield
    job.future.result()


def css(models: ModelCache) -> str:
    """The width of the page: five pictures and the controls."""
    width = 5 * max(models.get(models.default).config.resolution, 128) + 500
    frame = f"width: 100%; max-width: {width}px !important; margin: 0 auto !important;"
    return f".gradio-container {{ {frame} }}"


def theme() -> Any:
    """Quiet colours, and the fonts that the visitor's system has: none is fetched."""
    base = gr.themes.Base(
        primary_hue="emerald",
        neutral_hue="stone",
        radius_size="md",
        spacing_size="md",
        font=("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"),
        font_mono=("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"),
    )
    return base.set(
        body_text_color_subdued="*neutral_600",
        block_label_background_fill="none",
        block_label_background_fill_dark="none",
        block_label_border_width="0px",
        block_label_text_color="*body_text_color",
        block_label_text_color_dark="*body_text_color",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_border_width="0px",
        block_background_fill_dark="*body_background_fill",
        color_accent="*primary_700",
        slider_color_dark="*primary_500",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        background_fill_secondary="*neutral_100",
    )
