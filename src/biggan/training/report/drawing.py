"""Figures drawn by Matplotlib: as SVG for the page and as PNG for other uses."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from biggan.errors import InputError
from biggan.training.report.charts import Chart
from biggan.training.report.palette import ALL, GRID, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 4.4  # inches: two beside each other on a desk, one on a phone, legible on both


def as_svg(chart: Chart, number: int) -> str:
    """A chart as an SVG element that follows the page's colours.

    Args:
        chart: The chart.
        number: Unique within the page; identifiers begin with it.

    Raises:
        InputError: Matplotlib is not installed.
    """
    text = io.StringIO()
    with _drawn(chart) as figure:
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    # The style is the page's: here it would be said again with every figure.
    drawing = re.sub(r"<(metadata|style)\b.*?</\1>", "", drawing, flags=re.DOTALL)
    size = re.search(r'viewBox="[^"]*"', drawing)
    assert size is not None
    head = f"<svg {size[0]} role='img' aria-label=\"{html.escape(chart.alt)}\""
    drawing = head + drawing[drawing.index(">") :]
    drawing = re.sub(
        r'<g id="tip:([^"]*)">', lambda match: f"<g><title>{match[1]}</title>", drawing
    )
    drawing = re.sub(r'\bid="', f'id="c{number}-', drawing)
    drawing = drawing.replace("url(#", f"url(#c{number}-").replace('href="#', f'href="#c{number}-')
    drawing = re.sub(r' d="[^"]*"', _rounded, drawing)
    for color in ALL:
        drawing = drawing.replace(color.light, f"var(--{color.name})")
    return drawing


def as_png(chart: Chart) -> bytes:
    """A chart as a PNG file, on white, under its title.

    Raises:
        InputError: Matplotlib is not installed.
    """
    contents = io.BytesIO()
    with _drawn(chart, title=chart.title) as figure:
        figure.savefig(contents, format="png", dpi=200, metadata={"Description": chart.alt})
    return contents.getvalue()


@contextmanager
def _drawn(chart: Chart, title: str = "") -> Iterator[Figure]:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("the report needs Matplotlib: pip install 'biggan[train]'") from None
    style: dict[Any, Any] = {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "biggan",  # the same identifiers every time
        "text.parse_math": False,  # a layer may have any name
        "font.size": 9,
        "text.color": INK.light,
        "axes.labelcolor": INK.light,
        "axes.edgecolor": GRID.light,
        "axes.grid": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": GRID.light,
        "grid.linewidth": 0.5,
        "xtick.color": INK.light,
        "ytick.color": INK.light,
        "axes.formatter.limits": (-4, 5),
        "axes.formatter.use_mathtext": False,
    }
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has other fonts
        extra = 0.3 if title else 0.0
        figure = Figure(figsize=(_WIDTH, chart.height + extra), layout="constrained")
        chart.draw(figure.subplots())
        if title:
            figure.suptitle(title, fontsize=10)
        yield figure


def _rounded(path: re.Match[str]) -> str:
    return re.sub(r"-?\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}", path[0])
