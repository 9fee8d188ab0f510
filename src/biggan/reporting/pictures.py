"""Pictures and their figures: sample sheets, evaluations, amenability to truncation."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from biggan.reporting.charts import (
    DASHED,
    HELD_OUT,
    REAL,
    SERIES,
    Chart,
    Line,
    Mark,
    add_legend,
    line_chart,
)
from biggan.reporting.page import Folded, Part, Pictures, Section, Table
from biggan.reporting.run import SCORES, Run
from biggan.reporting.truncation import AMENABLE, Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHEETS = 6  # of samples, from the first to the newest
_SHEET_WIDTH = 480  # pixels at most


def sheets_section(run: Run) -> Section:
    """Sample sheets from the first to the newest."""
    if not run.sheets:
        return Section("samples", "Samples")
    chosen = np.linspace(0, len(run.sheets) - 1, min(_SHEETS, len(run.sheets))).round()
    sheets = [run.sheets[int(i)] for i in chosen]
    pictures = [(png, f"step {step}") for step, path in sheets if (png := _small(path))]
    return Section("samples", "Samples", [Pictures("", pictures)])


def evaluations_section(run: Run, marks: Sequence[Mark]) -> Section:
    """The scores of evaluated steps."""
    if not run.evaluations:
        return Section("evaluations", "Evaluations")
    first = run.evaluations[0]
    parts: list[Part] = [
        f"{first.num} images against {first.reference}, seen by {first.extractor}."
    ]
    for name, title in SCORES.items():
        if curve := run.score_curve(name):
            lines = [Line(title, curve, REAL)]
            parts += line_chart(f"evaluation-{name}", title, lines, marks, height=2.2)
    names = list(dict.fromkeys(name for e in run.evaluations for name in e.scores))
    rows = [
        [str(e.step), *(f"{e.scores.get(name, math.nan):.4g}" for name in names)]
        for e in run.evaluations
    ]
    parts.append(Table(["step", *(SCORES.get(name, name) for name in names)], rows))
    return Section("evaluations", "Evaluations", parts)


def truncation_section(sweeps: Mapping[str, Sweep]) -> Section:
    """Whether truncation makes a generator saturate.

    Args:
        sweeps: By the names of runs, this run's first if it has a generator.
    """
    if not sweeps:
        return Section("truncation", "Amenability to truncation")
    parts: list[Part] = []
    for name, sweep in sweeps.items():
        amenable = "amenable" if sweep.most_added <= AMENABLE else "not amenable"
        added = f"{100 * sweep.most_added:.1f} percentage points"
        parts.append(f"{name}: truncation adds at most {added}: {amenable} by this measure.")
    parts.append(_truncation_chart(sweeps))
    for name, sweep in sweeps.items():
        strips = [(png, f"truncation {_named(t)}") for t, png in sweep.strips]
        parts.append(Pictures(f"Pictures of {name}", strips))
    rows = [
        [name, _named(row.truncation)]
        + [f"{part:.1%}" for part in (row.all, row.dark, row.bright, row.plain)]
        for name, sweep in sweeps.items()
        for row in sweep.rows
    ]
    head = ["run", "truncation", "saturated", "dark", "bright", "untruncated statistics"]
    num = next(iter(sweeps.values())).num
    parts.append(Folded(f"In numbers, {num} pictures each", Table(head, rows)))
    return Section("truncation", "Amenability to truncation", parts)


def _truncation_chart(sweeps: Mapping[str, Sweep]) -> Chart:
    def draw(axes: Axes) -> None:
        solid: dict[Any, Any] = {"marker": ".", "linewidth": 1.5}
        dashed: dict[Any, Any] = {"linewidth": 1, "linestyle": DASHED}
        for i, (name, sweep) in enumerate(sweeps.items()):
            color = SERIES[i % len(SERIES)]
            for plain, style in ((False, solid), (True, dashed)):
                truncations, added = np.array(sweep.added(plain=plain)).T
                (drawn,) = axes.plot(truncations, 100 * added, color=color, **style)
                drawn.set_gid(f"tip:{name}{', untruncated statistics' if plain else ''}")
                if not plain:
                    drawn.set_label(name)
        low, high = axes.get_ylim()
        axes.axhspan(-100, 100 * AMENABLE, color=HELD_OUT, alpha=0.08, linewidth=0)
        axes.set_ylim(min(-2.0, low), max(110 * AMENABLE, high))
        axes.set_xlim(1.03, 0)
        axes.set_xlabel("truncation (narrower noise to the right)")
        axes.set_ylabel("added, percentage points")
        add_legend(axes)

    title = "What truncation adds to the saturated part"
    ends = []
    for name, sweep in sweeps.items():
        truncation, part = sweep.added()[-1]
        ends.append(f"{name} adds {100 * part:.1f} percentage points at truncation {truncation:g}")
    alt = f"{title}. Line chart over truncation from 1 to 0.04: {'; '.join(ends)}."
    return Chart("truncation", title, alt, draw, 3.0)


def _named(truncation: float | None) -> str:
    return "none" if truncation is None else f"{truncation:g}"


def _small(path: Path) -> bytes:
    """A picture as PNG, at most as wide as it is shown; empty where it cannot be read."""
    try:
        with Image.open(path) as image:
            image.thumbnail((_SHEET_WIDTH, 4 * _SHEET_WIDTH))
            contents = io.BytesIO()
            image.convert("RGB").save(contents, format="PNG", optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return b""
    return contents.getvalue()
