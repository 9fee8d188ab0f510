"""The page: its widgets and where they are. What they do is in `events`.

What a form takes is in `forms`, with the ranges and defaults of DeepMind's notebook.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from biggan.demo.card import model_card
from biggan.demo.events import connect
from biggan.demo.forms import (
    EXPLORE,
    FORMS,
    INTERPOLATE,
    MAKE_VIDEO,
    SECONDS,
    Choice,
    Control,
    Form,
    Number,
    shown,
)
from biggan.demo.line import Line
from biggan.demo.shelf import ModelShelf
from biggan.demo.style import GROW
from biggan.demo.views import Video, View, menu, message_on_page, picture_style
from biggan.errors import InputError
from biggan.gan import Gan

_LABELS = {"explore": "Samples", "interpolate": "Interpolations", "sweep": "Sweep"}


class _Page(gr.Blocks):
    """Blocks whose endpoints may be given the first parameters only, and none but plain values."""

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        """Fill what is missing with what the page begins with, and refuse lists and objects.

        Gradio's clients do so themselves; plain HTTP requests name positions, and those written
        when there were fewer of them go on working.

        Gradio fetches every address and copies every file that an input names anywhere inside, and
        asks the widget later whether it takes files at all.

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
        """Shorten what widgets say of a wrong value: they repeat all of it, and log it."""
        try:
            return await super().preprocess_data(*args, **kwargs)
        except gr.Error as error:
            told = message_on_page(InputError(error.message[:100]))
            raise gr.Error(told, print_exception=False) from None


def _checked(widget: Any, value: Any) -> Any:
    """A value as it is, or an uploaded file as nothing but its path."""
    if isinstance(widget, gr.File):
        path = value.get("path") if isinstance(value, dict) else None
        if _is_uploaded(path):
            return {"path": path, "meta": {"_type": "gradio.FileData"}}
        wanted = "a file that was uploaded here"
    elif isinstance(value, dict | list):
        wanted = "one value, not a list or an object"
    elif isinstance(widget, gr.Number) and not _is_finite(value):
        wanted = f"a number, not {shown(value)}"
    else:
        return value
    raise gr.Error(f"{widget.label or 'an input'} must be {wanted}", print_exception=False)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < float("inf")


def _is_uploaded(path: Any) -> bool:
    folder = Path(get_upload_folder()).resolve()
    try:
        file = Path(path).resolve()
        return folder in file.parents and file.is_file()
    except (OSError, TypeError, ValueError):
        return False


def build_page(shelf: ModelShelf, line: Line, *, show_paths: bool = False) -> Any:
    """Lay out the page.

    Args:
        shelf: The models that it offers, the first of which it begins with.
        line: Where requests wait.
        show_paths: Whether shell commands name the models' files on this machine.

    Returns:
        A `gradio.Blocks` with the endpoints `/sample`, `/interpolate`, `/sweep` and `/video`.
    """
    gan = shelf.get(shelf.names[0])
    page = _Page(
        title="BigGAN",
        analytics_enabled=False,
        delete_cache=(300, 3600),  # every five minutes, pictures older than an hour
        fill_width=True,
    )
    with page:
        with gr.Row(elem_classes="top"):
            card = gr.HTML(model_card(gan), elem_classes="about", scale=3, min_width=280)
            model = gr.Dropdown(
                list(shelf.names),
                value=shelf.names[0],
                label="Model",
                visible=len(shelf.names) > 1,
                scale=1,
                min_width=240,
                elem_classes="model",
            )
        views = []
        with gr.Tabs(selected=EXPLORE.name, overflow_behavior="wrap") as tabs:
            for form in FORMS:
                with gr.Tab(form.title, id=form.name) as tab, gr.Row():
                    with gr.Column(scale=1, min_width=280, elem_classes="controls"):
                        controls = [_widget(form, control, gan) for control in form.controls]
                        if form is INTERPOLATE:
                            seconds = _widget(form, SECONDS, gan)
                            button = gr.Button(MAKE_VIDEO, variant="primary")
                    with gr.Column(scale=2, min_width=300, elem_classes="shown"):
                        with gr.Column(elem_classes="picture"):
                            views.append(View(form, tab, controls, *_picture(form, gan)))
                        if form is INTERPOLATE:
                            with gr.Column():
                                video = Video(seconds, button, *_video_output())
        connect(page, shelf, line, model, card, tabs, views, video, show_paths=show_paths)
    return page


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
            slider.input(None, slider, slider, js=GROW % id_, show_progress="hidden")
        return slider
    if isinstance(control, Choice):
        entries = [(text, word) for word, text in control.choices]
        return gr.Radio(entries, value=control.default, label=control.label, elem_id=id_)
    return gr.Dropdown(**menu(control, gan), label=control.label, elem_id=id_)


def _picture(form: Form, gan: Gan) -> tuple[Any, Any, Any]:
    heading = gr.HTML(visible=False, elem_classes=["columns", form.name])
    picture = gr.Image(
        format="png",
        label=_LABELS[form.name],
        interactive=False,
        buttons=["download", "fullscreen"],
        elem_classes=picture_style(form, gan),
        elem_id=f"{form.name}-picture",
    )
    return heading, picture, gr.HTML(elem_classes="caption")


def _video_output() -> tuple[Any, Any, Any]:
    preview = gr.Image(
        format="webp",
        label="Video",
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
    return preview, webp, mp4
