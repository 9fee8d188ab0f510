"""Charts, drawn by Matplotlib: as SVG for light and dark pages, or as PNG on white."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from biggan.errors import InputError
from biggan.reporting.run import Curve
from biggan.reporting.spikes import Spike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE = Path(__file__).with_name("charts.mplstyle")
_WIDTH = 4.4  # inches: two beside each other on a desk, one on a phone
_LABELS = 6  # curves in a legend
_LABEL_LENGTH = 24
_LARGEST = 1e30  # beyond it, Matplotlib's own arithmetic overflows
_LOG_RANGE = 15.0  # of positive values, above which the axis is logarithmic
_SYMLOG_RANGE = 50.0  # of the largest value over the median, for values of both signs

# Text and grid follow the page. All other colours can be told from white and from a dark page.
INK, GRID = "#1b1f24", "#d0d6dc"
REAL, FAKE, HELD_OUT, OTHER = "#2b7fd4", "#cf5f26", "#2f9150", "#9a66d4"
TRAINED, COLLAPSE, ROLLBACK, INTERVENTION = "#6f88a3", "#e03e52", "#1f8c99", "#a57a14"
SERIES = (REAL, FAKE, HELD_OUT, OTHER, ROLLBACK, INTERVENTION)
LAYERS = ("#dd4560", "#cc6423", "#957f14", "#3f9140", "#188b90", "#4480e0", "#9a68d8")
"""From a network's first layer to its last, red to violet as in the paper's Figures 3 and 4."""
DASHED = (0, (2, 1.5))


class Line(NamedTuple):
    """A curve in a chart."""

    label: str
    curve: Curve
    color: str
    named: bool = True
    """Whether the legend may name it."""
    undone: bool = False
    """Drawn thin and dashed: a rollback undid it."""
    spikes: Sequence[Spike] = ()
    """Points that get a circle."""
    spread: Curve | None = None
    """The half width of a band around the curve."""


class Mark(NamedTuple):
    """A vertical line at a step, with letters above."""

    step: int
    letters: str
    color: str


@dataclass(frozen=True)
class Chart:
    """A figure; the template has a caption for some names."""

    name: str
    """Unique within a report: the PNG is NAME.png."""
    title: str
    alt: str
    """What it shows, in words."""
    draw: Callable[[Axes], None] = field(repr=False)
    height: float = 2.5
    """Inches."""


def line_chart(
    name: str,
    title: str,
    lines: Sequence[Line],
    marks: Sequence[Mark] = (),
    *,
    limits: tuple[float, float] | None = None,
    height: float = 2.5,
) -> Chart | None:
    """A chart of curves over steps; None without curves.

    The axis is logarithmic where the values ask for it.
    """
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        for line in lines:
            _draw_line(axes, line)
        if limits is None:
            _scale(axes, np.concatenate([_bounded(line.curve.values) for line in lines]))
        else:
            axes.set_ylim(*limits)
        axes.set_xlabel("step")
        for step, letters, color in marks:
            axes.axvline(step, color=color, linewidth=1, linestyle=(0, (4, 2)))
            above: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": "center"}
            axes.text(step, 1.02, letters, color=color, fontweight="bold", **above)
        add_legend(axes)

    named = [line for line in lines if line.named and not line.undone][:_LABELS]
    ends = [f"{n.label} from {n.curve.values[0]:.3g} to {n.curve.values[-1]:.3g}" for n in named]
    if more := sum(not line.undone for line in lines) - len(named):
        ends.append(f"and {more} more curves")
    first = min(line.curve.steps[0] for line in lines)
    last = max(line.curve.steps[-1] for line in lines)
    alt = f"{title}. Line chart, steps {first} to {last}: {', '.join(ends)}."
    if marks:
        alt += f" Marked: {', '.join(f'{mark.letters} at {mark.step}' for mark in marks[:8])}."
    return Chart(name, title, alt, draw, height)


def _draw_line(axes: Axes, line: Line) -> None:
    steps, values = np.array(line.curve.steps), _bounded(line.curve.values)
    style: dict[Any, Any] = {"linewidth": 1.3, "marker": "." if len(steps) < 20 else ""}
    if line.undone:
        style = {"linewidth": 0.9, "linestyle": DASHED, "alpha": 0.6}
    (drawn,) = axes.plot(steps, values, color=line.color, **style)
    drawn.set_gid(f"tip:{line.label}")
    if line.named and not line.undone:
        drawn.set_label(shortened(line.label))
    if (at := np.isin(steps, [spike.step for spike in line.spikes])).any():
        ring: dict[Any, Any] = {"markersize": 5, "markerfacecolor": "none"}
        ring |= {"markeredgecolor": COLLAPSE, "marker": "o", "linestyle": ""}
        (rings,) = axes.plot(steps[at], values[at], **ring)
        rings.set_gid(f"tip:spike of {line.label}")
    if line.spread:
        widths = dict(line.spread.points)
        places = np.isin(steps, line.spread.steps).nonzero()[0]
        places = places[:: max(1, len(places) // 300)]
        width = _bounded([widths[step] for step in steps[places].tolist()])
        low, high = values[places] - width, values[places] + width
        axes.fill_between(steps[places], low, high, color=line.color, alpha=0.13, linewidth=0)


def _bounded(values: ArrayLike) -> NDArray[np.float64]:
    """Values that Matplotlib can compute with."""
    bounded = np.clip(np.asarray(values, dtype=np.float64), -_LARGEST, _LARGEST)
    return np.where(np.abs(bounded) < 1 / _LARGEST, 0.0, bounded)


def _scale(axes: Axes, values: NDArray[np.float64]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high, middle = values.min(), values.max(), np.median(np.abs(values))
    if low > 0 and high > _LOG_RANGE * low:
        axes.set_yscale("log")
        if high < 1000 * low:
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    elif middle > 0 and np.abs(values).max() > _SYMLOG_RANGE * middle:
        axes.set_yscale("symlog", linthresh=2 * middle)
    else:
        return
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def add_legend(axes: Axes) -> None:
    """Name the curves that have a label, beside the axes; one alone needs no name."""
    handles = axes.get_legend_handles_labels()[0][:_LABELS]
    if len(handles) > 1:
        beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1.03)}
        axes.legend(handles=handles, frameon=False, fontsize=8, handlelength=0.8, **beside)


def shortened(label: str) -> str:
    """A label that leaves room for the curves: the end of a layer's name says the most."""
    label = label.encode(errors="replace").decode()
    return label if len(label) <= _LABEL_LENGTH else f"...{label[3 - _LABEL_LENGTH :]}"


def as_svg(chart: Chart, number: int) -> str:
    """A chart as an SVG element; the number, unique in the page, begins its identifiers."""
    text = io.StringIO()
    with _drawn(chart) as figure:
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    svg = text.getvalue()
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    size = re.search(r'viewBox="[^"]*"', svg)
    assert size is not None
    head = f'<svg {size[0]} role="img" aria-label="{html.escape(chart.alt)}"'
    svg = head + svg[svg.index(">") :]
    svg = re.sub(r'<g id="tip:([^"]*)">', r"<g><title>\1</title>", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>c{number}-", svg)
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d)\d+", r"\1", path[0]), svg)
    return svg.replace(INK, "currentColor").replace(GRID, "var(--grid)")


def as_png(chart: Chart) -> bytes:
    """A chart as a PNG file, 880 pixels wide, under its title."""
    contents = io.BytesIO()
    with _drawn(chart, chart.title) as figure:
        figure.savefig(contents, format="png", dpi=200, metadata={"Description": chart.alt})
    return contents.getvalue()


@contextmanager
def _drawn(chart: Chart, title: str = "") -> Iterator[Figure]:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("the report needs Matplotlib: pip install 'biggan[train]'") from None
    inked = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
    colors: dict[Any, Any] = dict.fromkeys(inked, INK) | {
        "axes.edgecolor": GRID,
        "grid.color": GRID,
    }
    with mpl.rc_context(colors, _STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has other fonts
        height = chart.height + (0.3 if title else 0)
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        chart.draw(figure.subplots())
        if title:
            figure.suptitle(title, fontsize=10)
        yield figure
