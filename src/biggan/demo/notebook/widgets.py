"""The controls of a form as Jupyter widgets, with the words, ranges and defaults of `forms`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ipywidgets

from biggan.classes import class_choices
from biggan.demo.forms import Category, Choice, Control, Number, default_class
from biggan.gan import Gan

_FEW = 20  # up to this many classes are a menu, more are searched by typing

_STYLE = {"description_width": "11em"}
_WIDTH = "31em"


@dataclass(frozen=True)
class Field:
    """The widgets of a control.

    Attributes:
        setting: Its `value` is the setting; to assign it is what a user's move does.
        shown: What is laid out: the same widget, or one that holds it.
    """

    setting: Any
    shown: Any


def build_field(control: Control, gan: Gan) -> Field | None:
    """Lay out a control.

    Args:
        control: Of a form.
        gan: The model whose classes a category menu offers.

    Returns:
        Its widgets, with its default; None for the category of an unconditional model.
    """
    if isinstance(control, Category):
        return _category(control, gan.class_names) if gan.class_names else None
    if isinstance(control, Choice):
        return _choice(control)
    return _typed(control) if control.largest > control.high else _slider(control)


def _slider(control: Number) -> Field:
    kind = ipywidgets.IntSlider if control.is_whole else ipywidgets.FloatSlider
    slider = kind(
        value=control.default,
        min=control.low,
        max=control.high,
        step=control.step,
        continuous_update=False,
        **_described(control.label, control.info),
    )
    return Field(slider, slider)


def _typed(control: Number) -> Field:
    """A slider beside a box that takes larger numbers than it begins with."""
    slider = ipywidgets.IntSlider(
        value=control.default,
        min=control.low,
        max=control.high,
        step=control.step,
        readout=False,
        continuous_update=False,
        **_described(control.label, control.info),
    )
    slider.layout.width = "24.5em"
    box = ipywidgets.IntText(value=control.default, layout={"width": "6em"})
    box.tooltip = f"{control.label}. {control.info}"

    def slid(change: Any) -> None:
        box.value = change.new

    def typed(change: Any) -> None:
        if control.low <= change.new <= control.largest:  # other numbers are refused elsewhere
            slider.max = max(slider.max, change.new)
            slider.value = change.new

    slider.observe(slid, "value")
    box.observe(typed, "value")
    return Field(box, ipywidgets.HBox([slider, box]))


def _category(control: Category, class_names: tuple[str, ...]) -> Field:
    options = class_choices(class_names)
    default = default_class(class_names, control.wanted, control.fallback)
    if len(options) <= _FEW:
        menu = ipywidgets.Dropdown(options=options, value=default, **_described(control.label))
    else:
        menu = ipywidgets.Combobox(
            options=options,
            value=default,
            continuous_update=False,
            **_described(control.label, "A name, a number, or some of its words."),
        )
    return Field(menu, menu)


def _choice(control: Choice) -> Field:
    title = ipywidgets.Label(control.label)
    buttons = ipywidgets.RadioButtons(
        options=[(text, word) for word, text in control.choices],
        value=control.default,
        layout={"width": "max-content"},
    )
    return Field(buttons, ipywidgets.VBox([title, buttons]))


def _described(label: str, info: str = "") -> dict[str, Any]:
    words = {"description": label, "tooltip": f"{label}. {info}" if info else label}
    return {**words, "style": _STYLE, "layout": {"width": _WIDTH}}
