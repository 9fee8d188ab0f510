"""Figures of the report: what they show, and curves over steps, the most of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from biggan.training.report.logs import Curve
from biggan.training.report.palette import COLLAPSE, Color

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 300  # of a curve, after which only the extremes of each stretch are drawn
_LABEL_LENGTH = 24
_LABELS = 6  # at the ends of curves, at most
_LABEL_GAP = 0.085  # from one to the next, of the axes' height
_LARGEST = 1e30  # beyond it, Matplotlib's own arithmetic overflows
_LOG_RANGE = 15.0  # of positive values, above which the axis is logarithmic
_SYMLOG_RANGE = 50.0  # of the largest value over the median, for values of both signs


class Line(NamedTuple):
    """A curve in a chart."""

    label: str
    curve: Curve
    color: Color
    named: bool = True
    """Whether its end may be labelled."""
    pale: bool = False
    """Drawn thin and dashed: what a rollback undid."""
    at: Sequence[int] = ()
    """Steps that get a dot: spikes."""
    spread: Curve | None = None
    """Of the curve: drawn as a band around it."""


class Mark(NamedTuple):
    """A vertical line at a step, with a letter above."""

    step: int
    letter: str
    color: Color


@dataclass(frozen=True)
class Chart:
    """A figure.

    Attributes:
        name: Short and unique within a report: the PNG is NAME.png.
        title: What is seen.
        caption: How to read it, plain text.
        alt: What it shows, for those who do not see it.
        draw: Draws it into axes.
        height: In inches.
    """

    name: str
    title: str
    caption: str
    alt: str
    draw: Callable[[Axes], None] = field(repr=False)
    height: float = 2.5


def line_chart(
    name: str,
    title: str,
    caption: str,
    lines: Sequence[Line],
    *,
    marks: Sequence[Mark] = (),
    limits: tuple[float, float] | None = None,
    height: float = 2.5,
) -> Chart:
    """Curves over steps; the axis is logarithmic where the values ask for it.

    Args:
        name: See `Chart`.
        title: See `Chart`.
        caption: See `Chart`.
        lines: At least one, none of them empty.
        marks: Vertical lines.
        limits: Of the vertical axis; None for those of the values.
        height: See `Chart`.
    """
    drawable = [
        line._replace(curve=_bounded(line.curve), spread=line.spread and _bounded(line.spread))
        for line in lines
    ]

    def draw(axes: Axes) -> None:
        for line in drawable:
            steps, values = thinned(line.curve)
            (drawn,) = axes.plot(
                steps,
                values,
                color=line.color.light,
                linewidth=0.9 if line.pale else 1.3,
                linestyle=(0, (2, 1.5)) if line.pale else "-",
                alpha=0.55 if line.pale else 1,
                marker="." if len(steps) < 20 and not line.pale else "",
            )
            drawn.set_gid(f"tip:{line.label}")
            _dots(axes, line)
            _band(axes, line, steps)
        values = [value for line in drawable for value in line.curve.values]
        if limits is None:
            _scale(axes, values)
        else:
            axes.set_ylim(*limits)
        axes.set_xlabel("step")
        draw_marks(axes, marks)
        ends = [
            (line.label, line.curve.steps[-1], line.curve.values[-1], line.color)
            for line in drawable
            if line.named and not line.pale
        ]
        label_ends(axes, ends)

    return Chart(name, title, caption, _alt_of_lines(title, lines, marks), draw, height)


def _bounded(curve: Curve) -> Curve:
    """A curve whose values Matplotlib can compute with."""
    return Curve(
        curve.steps,
        [
            0.0 if abs(value) < 1 / _LARGEST else max(-_LARGEST, min(value, _LARGEST))
            for value in curve.values
        ],
    )


def thinned(curve: Curve) -> Curve:
    """A curve of few points that looks the same: of every stretch the lowest and the highest."""
    count = len(curve.steps)
    if count <= 2 * _POINTS:
        return curve
    kept = {0, count - 1}
    for i in range(_POINTS):
        stretch = range(i * count // _POINTS, (i + 1) * count // _POINTS)
        kept.add(min(stretch, key=curve.values.__getitem__))
        kept.add(max(stretch, key=curve.values.__getitem__))
    order = sorted(kept)
    return Curve([curve.steps[i] for i in order], [curve.values[i] for i in order])


def draw_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    """Vertical lines with their letters; marks at the same place share one."""
    letters: dict[int, str] = {}
    for mark in marks:
        if mark.letter not in letters.get(mark.step, ""):
            letters[mark.step] = letters.get(mark.step, "") + mark.letter
    colors = {mark.step: mark.color for mark in reversed(marks)}  # the first one's
    for step, text in letters.items():
        axes.axvline(step, color=colors[step].light, linewidth=1, linestyle=(0, (4, 2)))
        axes.text(
            step,
            1.01,
            text,
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=8,
            fontweight="bold",
            color=colors[step].light,
        )


def _dots(axes: Axes, line: Line) -> None:
    value_at = dict(zip(line.curve.steps, line.curve.values, strict=True))
    at = [step for step in line.at if step in value_at]
    if at:
        (dots,) = axes.plot(
            at,
            [value_at[step] for step in at],
            linestyle="",
            marker="o",
            markersize=5,
            markerfacecolor="none",
            markeredgecolor=COLLAPSE.light,
        )
        dots.set_gid(f"tip:spike of {line.label}")


def _band(axes: Axes, line: Line, steps: Sequence[int]) -> None:
    if line.spread is None:
        return
    width, drawn = dict(zip(*line.spread, strict=True)), set(steps)
    points = [
        (step, value - width[step], value + width[step])
        for step, value in zip(*line.curve, strict=True)
        if step in width and step in drawn
    ]
    if points:
        at, low, high = zip(*points, strict=True)
        axes.fill_between(at, low, high, color=line.color.light, alpha=0.13, linewidth=0)


def _scale(axes: Axes, values: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = min(values), max(values)
    sizes = sorted(abs(value) for value in values)
    middle = sizes[len(sizes) // 2]
    if low > 0 and high > _LOG_RANGE * low:
        axes.set_yscale("log")
        if high < 1000 * low:
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    elif middle > 0 and sizes[-1] > _SYMLOG_RANGE * middle:
        axes.set_yscale("symlog", linthresh=2 * middle)
    else:
        return
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def label_ends(axes: Axes, ends: Sequence[tuple[str, float, float, Color]]) -> None:
    """Name curves where they end, in their colours, without one name over another.

    Args:
        axes: With the curves drawn and the scales set.
        ends: Of each curve its name, where it ends, and its colour. One alone needs no name.
    """
    if len(ends) < 2:
        return
    axes.autoscale_view()
    to_axes = axes.transData + axes.transAxes.inverted()
    places = []
    for label, x, y, color in ends[:_LABELS]:
        height = float(to_axes.transform((x, y))[1])
        inside = min(1.0, max(0.0, height)) if math.isfinite(height) else 0.5
        places.append((inside, label, color))
    places.sort(key=lambda place: -place[0])
    heights = [place[0] for place in places]
    for i in range(1, len(heights)):
        heights[i] = min(heights[i], heights[i - 1] - _LABEL_GAP)
    if heights[-1] < 0:  # no room below: push up from the bottom
        heights[-1] = 0.0
        for i in range(len(heights) - 2, -1, -1):
            heights[i] = max(heights[i], heights[i + 1] + _LABEL_GAP)
    for height, (_, label, color) in zip(heights, places, strict=True):
        axes.text(
            1.015,
            height,
            shortened(label),
            transform=axes.transAxes,
            va="center",
            fontsize=8,
            color=color.light,
        )


def shortened(label: str) -> str:
    """A name that leaves room for the curves; its end tells more than its beginning."""
    label = label.encode(errors="replace").decode()
    return label if len(label) <= _LABEL_LENGTH else f"...{label[3 - _LABEL_LENGTH :]}"


def _alt_of_lines(title: str, lines: Sequence[Line], marks: Sequence[Mark]) -> str:
    current = [line for line in lines if not line.pale]
    steps = [step for line in lines for step in (line.curve.steps[0], line.curve.steps[-1])]
    ends = ", ".join(
        f"{line.label} from {line.curve.values[0]:.3g} to {line.curve.values[-1]:.3g}"
        for line in [line for line in current if line.named][:_LABELS]
    )
    more = len(current) - min(_LABELS, sum(line.named for line in current))
    others = f", and {more} more curves" if more else ""
    marked = f". Marked: {', '.join(f'{m.letter} at {m.step}' for m in marks[:8])}" if marks else ""
    return f"{title}. Line chart, steps {min(steps)} to {max(steps)}: {ends}{others}{marked}."
