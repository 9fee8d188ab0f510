"""A form on the page: the widgets of its controls, of its picture, and of its video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from biggan.classes import class_choices
from biggan.demo import forms
from biggan.demo.drawing import SMALL
from biggan.gan import Gan

# The field of a category; what it does is in the script.
_COMBOBOX = """<label for="{id}-field">{label}</label>
<input id="{id}-field" role="combobox" aria-autocomplete="list" aria-expanded="false"
  aria-controls="{id}-list" autocomplete="off" spellcheck="false" placeholder="Type a name">
<ul id="{id}-list" role="listbox" aria-label="{label}" hidden></ul>
<p role="status"></p>"""
_SEARCH = Path(__file__).with_name("combobox.js").read_text(encoding="utf-8")

# Tells which class of the gallery is clicked; `element` and `trigger` are Gradio's.
_PICK = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  window.biggan.picked = button.dataset.entry;
  trigger("select");
});"""


@dataclass(frozen=True)
class Tab:
    """The widgets of a form."""

    form: forms.Form
    item: Any  # the `gradio.Tab`
    widgets: dict[str, Any]  # of the controls, by their keys
    heading: Any
    picture: Any
    caption: Any
    button: Any = None
    video: Sequence[Any] = ()  # a picture, downloads as WebP and MP4, and a player of the MP4
    gallery: Any = None  # pictures of classes to click on, on the tab that opens first

    @property
    def outputs(self) -> list[Any]:
        """All that shows what was made."""
        return [self.heading, self.picture, self.caption, *self.video]


def lay_out(form: forms.Form, gan: Gan, classes: str = "") -> Tab:
    """Put the widgets of a form onto the page that is being built; `classes` is its gallery."""
    button = gallery = None
    video: Sequence[Any] = ()
    with gr.Tab(form.title, id=form.name, elem_id=f"{form.name}-tab") as item:
        if form is forms.EXPLORE:
            gallery = gr.HTML(classes, elem_classes="gallery", js_on_load=_PICK)
        with gr.Row():
            with gr.Column(scale=2, min_width=300, elem_classes=["fields", form.name]):
                ordered = form.all_controls  # as the APIs order them; categories are shown first
                widgets: dict[str, Any] = dict.fromkeys(control.key for control in ordered)
                swap = None
                for control in sorted(ordered, key=lambda c: not isinstance(c, forms.Category)):
                    widgets[control.key] = _widget(form, control, gan)
                    if control.key == "category_b":
                        swap = gr.Button("Swap A and B", size="sm", elem_classes="swap")
                if swap:
                    keys = ("category_a", "category_b", "seed_a", "seed_b")
                    ends = [widgets[key] for key in keys]
                    swap.click(None, ends, ends, **in_browser("biggan.swap(...values)"))
                if form is forms.DIRECTIONS:
                    reset = gr.Button("Reset", size="sm")
                    zeros, moves = [0] * len(forms.MOVES), [widgets[key] for key in forms.MOVES]
                    reset.click(None, None, moves, **in_browser(str(zeros)))
                if form.video:
                    button = gr.Button("Make the video", variant="primary")
            with gr.Column(scale=4, min_width=300, elem_classes="shown"):
                with gr.Column(elem_classes="picture"):
                    heading = gr.HTML(visible=False, elem_classes=["columns", form.name])
                    picture = gr.Image(
                        format="png",
                        label=form.label,
                        interactive=False,
                        buttons=["fullscreen"],
                        elem_classes=picture_style(form, gan),
                        elem_id=f"{form.name}-picture",
                    )
                    caption = gr.HTML(elem_classes="caption")
                if form.video:
                    video = _video(form.video)
    return Tab(form, item, widgets, heading, picture, caption, button, video, gallery)


def setting(
    control: forms.Control, value: Any, gan: Gan, *, is_new: bool = False
) -> dict[str, Any]:
    """What makes a control show a value (None: leave it); `is_new` if the model is another."""
    update = _category(control, gan) if is_new and isinstance(control, forms.Category) else {}
    if is_new and control.key in forms.MOVES:
        update["label"] = forms.label_of(control, gan)
    if value is not None:
        if isinstance(control, forms.Number):
            update["maximum"] = max(control.high, value)
        if isinstance(control, forms.Category):
            value = class_choices(gan.class_names)[gan.class_index(value)]
        update["value"] = value
    return update


def in_browser(expression: str) -> dict[str, Any]:
    """How Gradio handles an event without the server; `values` are those of the widgets."""
    return {"js": f"(...values) => {expression}", "show_progress": "hidden"}


def picture_style(form: forms.Form, gan: Gan) -> list[str]:
    """The style classes of a form's picture."""
    return ["grid", form.name, *["small"] * (gan.config.resolution <= SMALL)]


def _category(control: forms.Category, gan: Gan) -> dict[str, Any]:
    """The category that a model begins with, and whether it has any."""
    value = forms.default_value(control, gan.class_names)
    return {"value": value, "visible": value is not None}


def _widget(form: forms.Form, control: forms.Control, gan: Gan) -> Any:
    id_ = f"{form.name}-{control.key}"
    if isinstance(control, forms.Number):
        slider = gr.Slider(
            control.low,
            control.high,
            control.default,
            step=control.step,
            precision=0 if control.is_whole else None,
            label=forms.label_of(control, gan),
            info=control.info or None,
            buttons=[],
            elem_id=id_,
        )
        if control.largest > control.high:  # the slider reaches as far as what is typed
            slider.input(None, slider, slider, **in_browser(f"biggan.grow('{id_}', ...values)"))
        return slider
    if isinstance(control, forms.Choice):
        entries = [(text, word) for word, text in control.choices]
        return gr.Radio(entries, value=control.default, label=control.label, elem_id=id_)
    return gr.HTML(
        **_category(control, gan),
        label=control.label,
        html_template=_COMBOBOX.format(id=id_, label=control.label),
        js_on_load=_SEARCH,
        elem_id=id_,
        elem_classes="combobox",
    )


def _video(form: forms.Form) -> tuple[Any, Any, Any, Any]:
    with gr.Column():
        preview = gr.Image(
            format="webp",
            label=form.title,
            alt_text="A looping video of the same paths, there and back",
            interactive=False,
            buttons=["fullscreen"],
            visible="hidden",  # if it were built when it is shown, it might miss that it is hidden
            elem_classes=["grid", "video"],
            elem_id="video",
        )
        player = gr.Video(
            label=form.title,
            show_label=False,
            interactive=False,
            autoplay=True,
            loop=True,
            buttons=[],
            visible=False,
            elem_classes="player",
            elem_id="player",
        )
        with gr.Row():
            webp = gr.DownloadButton("Download WebP", visible=False, size="sm", elem_id="webp")
            mp4 = gr.DownloadButton("Download MP4", visible=False, size="sm", elem_id="mp4")
    return preview, webp, mp4, player
