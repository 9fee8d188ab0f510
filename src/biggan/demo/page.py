"""The page: its widgets, where they are, and which handler answers which event.

What a form takes is in `forms`; what the handlers do is in `events`.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from biggan.demo.card import model_card
from biggan.demo.events import Handlers, Newest, PageTab, Video, error_text, menu, picture_style
from biggan.demo.forms import EXPLORE, FORMS, Choice, Control, Form, Number
from biggan.demo.model_cache import ModelCache
from biggan.demo.request_queue import RequestQueue
from biggan.errors import InputError, quoted
from biggan.gan import Gan

STYLE = Path(__file__).with_name("page.css")

SCRIPT = """() => document.addEventListener("click", (event) => {
  if (event.target.matches("input[role=combobox]")) event.target.select();
})"""
"""Typing in a menu replaces the entry that is chosen, as one expects of a search."""

# Brings half-typed numbers into their range; bounds are to be put in.
_CLAMP = """(...values) => %s.map((bound, i) => {
  if (bound === null) return values[i];
  const [low, high, whole] = bound;
  const value = Math.min(Math.max(values[i], low), high);
  return whole ? Math.round(value) : value;
})"""

# Lets a slider reach a number that was typed, or it would be cut; the slider is to be put in.
_GROW = """(value) => {
  const slider = document.querySelector("#%s input[type=range]");
  return {__type__: "update", maximum: Math.max(slider.max, Math.round(value) || 0)};
}"""

# Asks for a picture of the settings as they are.
_ASK = "(times) => times + 1"

# Writes the settings of the picture into the page's address.
_SHOW_ADDRESS = """(query) => {
  if (query) history.replaceState(history.state, "", "?" + query + location.hash);
}"""

# Keeps the settings of all forms with the browser's history, for visitors who come back.
_KEEP = """(...settings) => {
  window.kept ??= JSON.stringify(history.state?.settings) ?? '';
  history.replaceState({...history.state, settings}, "");
}"""

# What _KEEP kept when the page was last here.
_RECALL = """() => window.kept ??= JSON.stringify(history.state?.settings) ?? ''"""

# Requests that Gradio passes on to the request queue at once; more wait, and see their place.
_PICTURES: dict[str, Any] = {"concurrency_limit": 4, "concurrency_id": "model"}
_VIDEOS: dict[str, Any] = {"concurrency_limit": 4, "concurrency_id": "video"}
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


class Page:
    """The page, with the endpoints `/sample`, `/interpolate`, `/sweep` and `/video` of its API.

    Args:
        models: The models on offer; it begins with the first.
        queue: Where requests wait.
        show_paths: Whether shell commands name the models' files on this machine.

    Attributes:
        blocks: The `gradio.Blocks`.
    """

    def __init__(
        self, models: ModelCache, queue: RequestQueue, *, show_paths: bool = False
    ) -> None:
        gan = models.get(models.default)
        self.blocks = _Blocks(
            title="BigGAN",
            analytics_enabled=False,
            delete_cache=(300, 3600),  # every five minutes, pictures older than an hour
            fill_width=True,
        )
        with self.blocks:
            with gr.Row(elem_classes="top"):
                self._card = gr.HTML(model_card(gan), elem_classes="about", scale=3, min_width=280)
                self._model = gr.Dropdown(
                    list(models.names),
                    value=models.default,
                    label="Model",
                    visible=len(models.names) > 1,
                    scale=1,
                    min_width=240,
                    elem_classes="model",
                )
            with gr.Tabs(selected=EXPLORE.name, overflow_behavior="wrap") as self._tab_bar:
                self._tabs = [_lay_out(form, gan) for form in FORMS]
            self._handlers = Handlers(models, queue, self._tabs, show_paths=show_paths)
            self._connect()
            for tab in self._tabs:
                self._publish(tab, tab.form, [tab.picture])
                if tab.video is not None:
                    self._publish(tab, tab.video.form, [tab.video.webp, tab.video.mp4])

    def _connect(self) -> None:
        """Set up what happens when something is touched.

        Pictures depend on the settings alone, so every move of a control asks for the picture of
        the settings as they are, and what was asked for before ends with the picture at hand.
        Gradio could cancel it, too, but in the browser, where a cancellation and the next request
        may cross. So the browser counts what it asks for, holds back all but the newest while one
        is drawn, and tells the server the count; a handler that finds a newer one stops.
        """
        handlers = self._handlers
        dropped = gr.File(
            label="Settings from a picture or video made here",
            height=110,
            elem_classes="drop",
            elem_id="drop",
        )
        shown = gr.Textbox(EXPLORE.name, visible="hidden")  # the form that is seen
        address = gr.Textbox(visible="hidden")
        asked = gr.Number(0, visible="hidden")  # how often a picture was asked for
        newest = gr.State(Newest())
        kept = gr.Textbox(visible="hidden")  # settings, by the browser's history
        settings = [widget for tab in self._tabs for widget in tab.widgets.values()]
        drawn = [tab.widgets[c.key] for tab in self._tabs for c in tab.form.controls]
        restored = [self._tab_bar, shown, self._model, self._card, *settings]

        for tab in self._tabs:
            tab.tab.select(None, None, shown, js=f"() => '{tab.form.name}'", show_progress="hidden")
        ask: dict[str, Any] = {"js": _ASK, "show_progress": "hidden"}
        gr.on([control.change for control in [shown, *drawn]], None, asked, asked, **ask)
        gr.on([c.change for c in settings], None, settings, None, js=_KEEP, show_progress="hidden")
        for event in (
            self.blocks.load(handlers.follow, kept, restored, js=_RECALL, **_QUIET),
            self._model.input(handlers.choose, self._model, [self._card, *settings], **_QUIET),
            dropped.upload(
                handlers.restore, [dropped, self._model], [*restored, dropped], **_QUIET
            ),
        ):
            event.then(None, asked, asked, **ask)
        asked.change(
            handlers.note, [newest, asked], None, queue=False, trigger_mode="multiple", **_QUIET
        )
        request = [newest, asked, self._model]
        pictures = [w for tab in self._tabs for w in (tab.heading, tab.picture, tab.caption)]
        videos = [w for tab in self._tabs if tab.video for w in tab.video.outputs]
        controls = [control for tab in self._tabs for control in tab.form.all_controls]
        event = asked.change(
            handlers.draw,
            [shown, *request, *settings],
            [address, *pictures, *videos],
            js=_CLAMP % _bounds([None] * 4 + controls),
            preprocess=False,  # the checks of `forms` name the setting; Gradio's do not
            trigger_mode="always_last",
            show_progress="minimal",
            show_progress_on=[tab.picture for tab in self._tabs],
            api_visibility="private",
            **_PICTURES,
        )
        event.success(None, address, None, js=_SHOW_ADDRESS, show_progress="hidden")
        for tab in self._tabs:
            if tab.video is not None:
                tab.video.button.click(
                    handlers.film,
                    [*request, *tab.widgets.values()],
                    tab.video.outputs,
                    js=_CLAMP % _bounds([None] * 3 + [*tab.form.all_controls]),
                    preprocess=False,
                    show_progress_on=tab.video.preview,
                    api_visibility="private",
                    **_VIDEOS,
                )

    def _publish(self, tab: PageTab, form: Form, outputs: list[Any]) -> None:
        """Offer an endpoint, whose parameters are the form's controls and the model."""
        keys = [control.key for control in form.controls]

        def call(*values: Any) -> Any:
            return self._handlers.answer(
                tab, form, dict(zip(keys, values, strict=False)), values[-1]
            )

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter(key, kind) for key in [*keys, "model"]]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__doc__ = form.summary
        gr.on(
            [],  # nothing on the page
            call,
            [*(tab.widgets[key] for key in keys), self._model],
            outputs,
            api_name=form.endpoint,
            preprocess=False,
            **(_PICTURES if form is tab.form else _VIDEOS),
        )


class _Blocks(gr.Blocks):
    """Blocks whose endpoints may be given the first parameters only, and none but plain values."""

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        """Fill in the defaults that are missing, and refuse lists and objects.

        Gradio's clients fill them in themselves, plain HTTP requests do not. Gradio fetches every
        address and copies every file that an input names anywhere inside, and asks the widget
        later whether it takes files at all.

        Raises:
            gr.Error: An input is of another kind than its widget's value, or the event is one that
                only the browser handles.
        """
        if block_fn.fn is None:
            raise gr.Error("the server has no part in this event", print_exception=False)
        missing = block_fn.inputs[len(inputs) :]
        inputs.extend(getattr(control, "value", None) for control in missing)
        super().validate_inputs(block_fn, inputs)
        for index, widget in enumerate(block_fn.inputs):
            inputs[index] = _checked(widget, inputs[index])

    async def preprocess_data(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Shorten the messages of widgets: they repeat all of a wrong value, and log it."""
        try:
            return await super().preprocess_data(*args, **kwargs)
        except gr.Error as error:
            text = error_text(InputError(error.message[:100]))
            raise gr.Error(text, print_exception=False) from None


def _checked(widget: Any, value: Any) -> Any:
    """A value as it is, or an uploaded file as nothing but its path."""
    if isinstance(widget, gr.File):
        path = value.get("path") if isinstance(value, dict) else None
        if _is_uploaded(path):
            return {"path": path, "meta": {"_type": "gradio.FileData"}}
        wanted = "a file that was uploaded here"
    elif isinstance(value, dict | list):
        wanted = "one value, not a list or an object"
    elif isinstance(widget, gr.Number) and not (
        isinstance(value, int | float) and abs(value) < float("inf")
    ):
        wanted = f"a number, not {quoted(value)}"
    else:
        return value
    raise gr.Error(f"{widget.label or 'an input'} must be {wanted}", print_exception=False)


def _is_uploaded(path: Any) -> bool:
    folder = Path(get_upload_folder()).resolve()
    try:
        file = Path(path).resolve()
        return folder in file.parents and file.is_file()
    except (OSError, TypeError, ValueError):
        return False


def _lay_out(form: Form, gan: Gan) -> PageTab:
    with gr.Tab(form.title, id=form.name) as tab, gr.Row():
        with gr.Column(scale=1, min_width=280, elem_classes="controls"):
            widgets = {c.key: _widget(form, c, gan) for c in form.all_controls}
            button = gr.Button("Make the video", variant="primary") if form.video else None
        with gr.Column(scale=2, min_width=300, elem_classes="shown"):
            with gr.Column(elem_classes="picture"):
                heading = gr.HTML(visible=False, elem_classes=["columns", form.name])
                picture = gr.Image(
                    format="png",
                    label=form.label,
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    elem_classes=picture_style(form, gan),
                    elem_id=f"{form.name}-picture",
                )
                caption = gr.HTML(elem_classes="caption")
            video = _video(form.video, button) if form.video else None
    return PageTab(form, tab, widgets, heading, picture, caption, video)


def _video(form: Form, button: Any) -> Video:
    with gr.Column():
        preview = gr.Image(
            format="webp",
            label=form.title,
            alt_text="A looping video of the same paths, there and back",
            interactive=False,
            buttons=["fullscreen"],
            visible=False,
            elem_classes=["grid", "video"],
            elem_id="video",
        )
        with gr.Row():
            webp = gr.DownloadButton("Download WebP", visible=False, size="sm", elem_id="webp")
            mp4 = gr.DownloadButton("Download MP4", visible=False, size="sm", elem_id="mp4")
    return Video(form, button, preview, webp, mp4)


def _widget(form: Form, control: Control, gan: Gan) -> Any:
    id_ = f"{form.name}-{control.key}"
    if isinstance(control, Number):
        slider = gr.Slider(
            control.low,
            control.high,
            control.default,
            step=control.step,
            precision=0 if control.is_whole else None,
            label=control.label,
            info=control.info or None,
            buttons=[],
            elem_id=id_,
        )
        if control.largest > control.high:  # the slider reaches as far as what is typed
            slider.input(None, slider, slider, js=_GROW % id_, show_progress="hidden")
        return slider
    if isinstance(control, Choice):
        entries = [(text, word) for word, text in control.choices]
        return gr.Radio(entries, value=control.default, label=control.label, elem_id=id_)
    return gr.Dropdown(**menu(control, gan), label=control.label, elem_id=id_)


def _bounds(controls: list[Control | None]) -> str:
    """For _CLAMP: the least and the largest value of every number, and whether it is whole."""
    return json.dumps(
        [
            [control.low, control.largest, control.is_whole]
            if isinstance(control, Number)
            else None
            for control in controls
        ]
    )


def css(resolution: int) -> str:
    """The width of the page: five pictures and the controls."""
    width = 5 * max(resolution, 128) + 500
    frame = f"width: 100%; max-width: {width}px !important; margin: 0 auto !important;"
    return f".gradio-container {{ {frame} }}"


def theme() -> Any:
    """Quiet colours, and the fonts that the visitor's system has: none is fetched."""
    base = gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="md",
        font=("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"),
        font_mono=("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"),
    )
    return base.set(body_text_color_subdued="*neutral_500", block_info_text_color="*neutral_500")
