"""The page's widgets: the two forms of DeepMind's TF Hub notebook, with its ranges and defaults.

Pictures depend on nothing but the settings, so every move of a control asks for the picture of the
settings as they then are, and asks still waiting when a newer one arrives are dropped.
"""

import html
import json
import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import Any

import gradio as gr
from PIL import Image

from biggan.classes import class_choices, resolve_class
from biggan.errors import InputError
from biggan.gan import Gan
from biggan.images import make_grid

MAX_SAMPLES = 20
MAX_PATHS = 5
MAX_STEPS = 10
_COLUMNS = 5  # of the grid of samples, at most

_SMALL = 64  # up to this many pixels a side pictures are enlarged for the screen,
_FRAME = 640  # by a whole number, to a grid of at most this many pixels a side
_LARGE = 256  # of pictures of at most this many

TRUNCATION_TEXT = (
    "How far from its centre the noise may lie. "
    "Low: typical and clean, but alike. High: varied, but more often wrong."
)

_FAMILIES = {"biggan": "BigGAN", "biggan-deep": "BigGAN-deep"}


def build_page(gan: Gan) -> Any:
    """Lay out the page.

    Args:
        gan: What makes the pictures.

    Returns:
        A `gradio.Blocks` with the endpoints `/sample` and `/interpolate`.
    """
    page = gr.Blocks(
        title=f"{gan.name} | biggan",
        analytics_enabled=False,
        delete_cache=(300, 3600),  # every five minutes, pictures older than an hour
        fill_width=True,
    )
    with page:
        gr.HTML(about(gan), elem_classes="about")
        with gr.Tab("Explore a category" if gan.class_names else "Explore"):
            _sampling_form(gan, page.load)
        with gr.Tab("Interpolation") as tab:
            _interpolation_form(gan, tab.select)
    return page


def _sampling_form(gan: Gan, shown: Callable[..., Any]) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            controls = [
                _slider("Number of samples", 1, MAX_SAMPLES, 1, 10),
                _slider("Truncation", 0.02, 1, 0.02, 0.4, info=TRUNCATION_TEXT),
                _slider("Noise seed", 0, 100, 1, 0),
            ]
            if gan.class_names:
                controls.append(_class_menu("Category", gan, "cheeseburger", 0))
        picture = _picture("Samples", gan)

    @lru_cache(maxsize=8)
    def sample(num: Any, truncation: Any, seed: Any, category: Any = None) -> Image.Image:
        """A grid of samples of one category, at most five a row."""
        return sample_grid(gan, num, truncation, seed, category)

    _connect("sample", sample, controls, picture, shown)


def _interpolation_form(gan: Gan, shown: Callable[..., Any]) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            controls = [
                _slider("Number of samples", 1, MAX_PATHS, 1, 2),
                _slider("Number of steps", 2, MAX_STEPS, 1, 5),
                _slider("Truncation", 0.02, 1, 0.02, 0.2, info=TRUNCATION_TEXT),
                _slider("Noise seed A", 0, 100, 1, 0),
                _slider("Noise seed B", 0, 100, 1, 0),
            ]
            if gan.class_names:
                controls.append(_class_menu("Category A", gan, "golden retriever", 0))
                controls.append(_class_menu("Category B", gan, "hen", -1))
        picture = _picture("Interpolations", gan)

    @lru_cache(maxsize=8)
    def interpolate(
        num: Any,
        steps: Any,
        truncation: Any,
        seed_a: Any,
        seed_b: Any,
        category_a: Any = None,
        category_b: Any = None,
    ) -> Image.Image:
        """A grid with one path from category A to category B in each row."""
        settings = (num, steps, truncation, seed_a, seed_b, category_a, category_b)
        return interpolation_grid(gan, *settings)

    _connect("interpolate", interpolate, controls, picture, shown)


def sample_grid(
    gan: Gan, num: float, truncation: float, seed: float, category: str | None
) -> Image.Image:
    """Draw the picture of the first tab.

    Args:
        gan: What makes the samples.
        num: Number of samples.
        truncation: In (0, 1].
        seed: Of the noise.
        category: A class; None for an unconditional model.

    Returns:
        A grid of at most five columns, enlarged if the samples are small.

    Raises:
        InputError: A value out of range or of another kind.
    """
    count = _whole("the number of samples", num, 1, MAX_SAMPLES)
    pictures = gan.sample(
        category, count, _number("truncation", truncation), _whole("the seed", seed)
    )
    return _grid(gan, pictures, min(count, _COLUMNS))


def interpolation_grid(
    gan: Gan,
    num: float,
    steps: float,
    truncation: float,
    seed_a: float,
    seed_b: float,
    category_a: str | None,
    category_b: str | None,
) -> Image.Image:
    """Draw the picture of the second tab.

    Args:
        gan: What makes the samples.
        num: Number of paths, one a row.
        steps: Pictures on a path.
        truncation: In (0, 1].
        seed_a: Of the noise at the start.
        seed_b: Of the noise at the end.
        category_a: Class at the start; None for an unconditional model.
        category_b: Class at the end.

    Returns:
        A grid of `steps` columns, enlarged if the samples are small.

    Raises:
        InputError: A value out of range or of another kind.
    """
    columns = _whole("the number of steps", steps, 2, MAX_STEPS)
    rows = gan.interpolate(
        category_a,
        category_b,
        columns,
        _whole("the number of samples", num, 1, MAX_PATHS),
        _number("truncation", truncation),
        _whole("seed A", seed_a),
        _whole("seed B", seed_b),
    )
    return _grid(gan, [picture for row in rows for picture in row], columns)


def default_class(class_names: Sequence[str], wanted: str, fallback: int) -> str:
    """The entry with which a category menu starts.

    Args:
        class_names: The model's classes, at least one.
        wanted: The notebook's choice.
        fallback: Index of the class to take where the model has no such class.
    """
    try:
        index = resolve_class(wanted, class_names)
    except InputError:
        index = fallback
    return class_choices(class_names)[index]


def about(gan: Gan) -> str:
    """The page's header: the model's name, size and origin, as HTML."""
    parameters = sum(parameter.numel() for parameter in gan.generator.parameters())
    size = gan.config.resolution
    facts = [
        _FAMILIES[gan.config.family],
        f"{size} &times; {size} pixels",
        f"{len(gan.class_names)} classes" if gan.class_names else "unconditional",
        f"{_rounded(parameters)} parameters",
    ]
    source, licence = gan.description.source, gan.description.licence
    origin = (source, f"licence {licence}" if licence else "")
    facts += [_linked(html.escape(text)) for text in origin if text]
    return f"<h1>{html.escape(gan.name)}</h1><p>{' &middot; '.join(facts)}</p>"


def _linked(text: str) -> str:
    return re.sub(r"https?://[^\s<>]+[\w/]", r'<a href="\g<0>" rel="noopener">\g<0></a>', text)


def _rounded(count: int) -> str:
    """A count in three digits at most: "58.2 million"."""
    for unit, word in ((10**9, " billion"), (10**6, " million"), (10**3, " thousand")):
        if count >= unit:
            return f"{count / unit:.3g}{word}"
    return str(count)


def _slider(
    label: str, low: float, high: float, step: float, value: float, info: str | None = None
) -> Any:
    return gr.Slider(
        low,
        high,
        value,
        step=step,
        precision=0 if isinstance(step, int) else None,
        label=label,
        info=info,
        buttons=[],
    )


def _class_menu(label: str, gan: Gan, wanted: str, fallback: int) -> Any:
    return gr.Dropdown(
        class_choices(gan.class_names),
        value=default_class(gan.class_names, wanted, fallback),
        label=label,
    )


def _picture(label: str, gan: Gan) -> Any:
    with gr.Column(scale=2, min_width=300, elem_classes="picture"):
        return gr.Image(
            format="png",
            label=label,
            alt_text=f"{label} made by {gan.name} with these settings",
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_classes=["grid", "small"] if gan.config.resolution <= _SMALL else ["grid"],
        )


def _connect(
    name: str,
    draw: Callable[..., Image.Image],
    controls: list[Any],
    picture: Any,
    shown: Callable[..., Any],
) -> None:
    """Draw a picture when its form is first seen and at every move of a control."""

    @wraps(draw)  # the endpoint's parameters and description are those of `draw`
    def answer(*settings: Any) -> Image.Image:
        try:
            if not all(isinstance(value, str | int | float | None) for value in settings):
                raise InputError("every setting must be one number or one text")
            return draw(*settings)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from None

    gr.on(
        [shown, *(control.change for control in controls)],
        answer,
        controls,
        picture,
        api_name=name,
        trigger_mode="always_last",
        concurrency_limit=1,
        concurrency_id="model",
        show_progress="minimal",
        preprocess=False,  # the checks of `draw` name the setting; Gradio's do not
        js=_clamp(controls),
    )


def _clamp(controls: list[Any]) -> str:
    """JavaScript that brings half-typed numbers into the range of their sliders."""
    bounds = [
        [control.minimum, control.maximum, control.precision == 0]
        if isinstance(control, gr.Slider)
        else None
        for control in controls
    ]
    return f"""(...values) => {json.dumps(bounds)}.map((bound, i) => {{
        if (bound === null) return values[i];
        const [low, high, whole] = bound;
        const value = Math.min(Math.max(values[i], low), high);
        return whole ? Math.round(value) : value;
    }})"""


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{name} must be a number, not {value!r}")
    return float(value)


def _whole(name: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    number = _number(name, value)
    if not number.is_integer():
        raise InputError(f"{name} must be a whole number, not {value!r}")
    if low is not None and high is not None and not low <= number <= high:
        raise InputError(f"{name} must be between {low} and {high}, not {value!r}")
    return int(number)


def _grid(gan: Gan, pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    size = gan.config.resolution
    if size <= _SMALL:
        longer = max(columns, math.ceil(len(pictures) / columns))
        side = size * max(1, min(_FRAME // (longer * size), _LARGE // size))
        pictures = [p.resize((side, side), Image.Resampling.NEAREST) for p in pictures]
    return make_grid(pictures, columns)
