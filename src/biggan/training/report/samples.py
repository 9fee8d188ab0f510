"""Pictures and their figures: sample sheets over time, evaluations, amenability to truncation."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from biggan.training.report.charts import Chart, Line, Mark, label_ends, line_chart
from biggan.training.report.logs import Curve
from biggan.training.report.page import Section, details, paragraph, picture, table
from biggan.training.report.palette import REAL, SERIES
from biggan.training.report.record import RunRecord
from biggan.training.report.truncation import AMENABLE, LEVEL, Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHEETS = 6  # of samples, from the first to the newest
_SHEET_WIDTH = 480  # pixels at most
SCORES = {
    "fid": "FID",
    "is": "Inception Score",
    "frechet_distance": "Frechet distance",
    "classifier_score": "classifier score",
}


def sheets_section(record: RunRecord) -> Section:
    """Sample sheets from the first to the newest."""
    if not record.sheets:
        return Section("samples", "Samples")
    last = len(record.sheets) - 1
    count = min(_SHEETS, len(record.sheets))
    chosen = sorted({round(i * last / max(1, count - 1)) for i in range(count)})
    figures = []
    for i in chosen:
        step, path = record.sheets[i]
        if png := _small(path):
            figures.append(picture(png, f"samples at step {step}", f"step {step}"))
    lead = paragraph("A row per class, the same latents every time.")
    return Section("samples", "Samples", lead, [f"<div class='sheets'>{''.join(figures)}</div>"])


def evaluations_section(record: RunRecord, marks: Sequence[Mark]) -> Section:
    """The figures of evaluated steps."""
    if not record.evaluations:
        return Section("evaluations", "Evaluations")
    first = record.evaluations[0]
    about = f"{first['num']} images against {first['reference']}, seen by {first['extractor']}."
    parts: list[Chart | str] = []
    for name, title in SCORES.items():
        if curve := score_curve(record, name):
            better = "Lower is better." if name in ("fid", "frechet_distance") else ""
            line = Line(title, curve, REAL)
            parts.append(
                line_chart(f"evaluation-{name}", title, better, [line], marks=marks, height=2.2)
            )
    names = list(dict.fromkeys(name for e in record.evaluations for name in e["scores"]))
    rows = [
        [str(e["step"]), *(f"{e['scores'].get(name, math.nan):.4g}" for name in names)]
        for e in record.evaluations
    ]
    parts.append(table(["step", *(SCORES.get(name, name) for name in names)], rows))
    return Section("evaluations", "Evaluations", paragraph(about), parts)


def score_curve(record: RunRecord, name: str) -> Curve | None:
    """A figure over the evaluated steps, where it was finite."""
    points = [(e["step"], e["scores"].get(name, math.nan)) for e in record.evaluations]
    points = [point for point in points if math.isfinite(point[1])]
    return Curve([s for s, _ in points], [v for _, v in points]) if points else None


def truncation_section(sweeps: Mapping[str, Sweep]) -> Section:
    """Whether truncation makes a generator saturate.

    Args:
        sweeps: By the names of runs, this run's first if it has a generator.
    """
    if not sweeps:
        return Section("truncation", "Amenability to truncation")
    names = list(sweeps)
    words = [
        f"{name}: truncation adds at most {max(part for _, part in sweep.added()) * 100:.1f} "
        f"percentage points: {'amenable' if sweep.amenable else 'not amenable'} by this measure."
        for name, sweep in sweeps.items()
    ]
    lead = (
        f"<p>A value of a pixel counts as saturated above {LEVEL} or below -{LEVEL}, images in "
        "[-1, 1]. Much may be saturated rightly (the black behind the digits), so each model is "
        "compared with itself: drawn is what truncation adds to the saturated part of pictures of "
        "the same seeds and classes with untruncated noise. The paper (Section 3.1, Figure 2b) "
        "finds saturation artifacts in models that are conditioned badly, and fewer of them with "
        "orthogonal regularization (60% of models amenable to truncation, against 16%), by eye; "
        f"here a model counts as amenable up to {AMENABLE * 100:.0f} percentage points. That does "
        "not make its pictures good: look at them below.</p>"
        + "".join(paragraph(sentence) for sentence in words)
    )
    parts: list[Chart | str] = [_truncation_chart(sweeps)]
    columns = []
    for name, sweep in sweeps.items():
        strips = "".join(
            picture(png, f"pictures of {name} at truncation {_t(t)}", f"truncation {_t(t)}")
            for t, png in sweep.strips
        )
        columns.append(
            f"<div><h3>Pictures of {html.escape(name)}</h3><div class='strips'>{strips}</div></div>"
        )
    parts.append(f"<div class='charts'>{''.join(columns)}</div>")
    rows = [
        [
            name,
            _t(row.truncation),
            *(f"{part:.1%}" for part in (row.all, row.dark, row.bright, row.plain)),
        ]
        for name in names
        for row in sweeps[name].rows
    ]
    head = ["run", "truncation", "saturated", "dark", "bright", "untruncated statistics"]
    num = sweeps[names[0]].num
    parts.append(details(f"In numbers, {num} pictures each", table(head, rows)))
    return Section("truncation", "Amenability to truncation", lead, parts)


def _truncation_chart(sweeps: Mapping[str, Sweep]) -> Chart:
    colors = dict(zip(sweeps, SERIES * len(sweeps), strict=False))

    def draw(axes: Axes) -> None:
        lines = []
        for name, sweep in sweeps.items():
            for plain in (False, True):
                added = sweep.added(plain=plain)
                (drawn,) = axes.plot(
                    [t for t, _ in added],
                    [100 * part for _, part in added],
                    color=colors[name].light,
                    linestyle=(0, (2, 1.5)) if plain else "-",
                    marker="" if plain else ".",
                    linewidth=1 if plain else 1.5,
                )
                drawn.set_gid(f"tip:{name}{', untruncated statistics' if plain else ''}")
                if not plain:
                    lines.append((name, added[-1][0], 100 * added[-1][1], colors[name]))
        axes.axhspan(-100, 100 * AMENABLE, color=SERIES[2].light, alpha=0.08, linewidth=0)
        values = [
            100 * part
            for sweep in sweeps.values()
            for plain in (False, True)
            for _, part in sweep.added(plain=plain)
        ]
        axes.set_ylim(min(-2.0, 1.1 * min(values)), max(110 * AMENABLE, 1.1 * max(values)))
        axes.set_xlim(1.03, 0)
        axes.set_xlabel("truncation (narrower noise to the right)")
        axes.set_ylabel("added, percentage points")
        label_ends(axes, lines)

    title = "What truncation adds to the saturated part"
    ends = "; ".join(
        f"{name} adds {100 * sweep.added()[-1][1]:.1f} percentage points at truncation "
        f"{sweep.added()[-1][0]:g}"
        for name, sweep in sweeps.items()
    )
    return Chart(
        "truncation",
        title,
        "Solid: with BatchNorm's statistics for each truncation, as pictures are made here. "
        "Dashed: with those of untruncated noise. The tinted band counts as amenable.",
        f"{title}. Line chart over truncation from 1 to 0.04: {ends}.",
        draw,
        3.0,
    )


def _t(truncation: float | None) -> str:
    return "none" if truncation is None else f"{truncation:g}"


def _small(path: Path) -> bytes:
    """A picture as PNG, at most as wide as it is shown; nothing where it cannot be read."""
    try:
        with Image.open(path) as image:
            image.thumbnail((_SHEET_WIDTH, 4 * _SHEET_WIDTH))
            contents = io.BytesIO()
            image.convert("RGB").save(contents, format="PNG", optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return b""
    return contents.getvalue()
