"""Several runs beside each other: where their recipes differ, and the same curves in one chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from biggan.training.report.charts import Chart, Line, line_chart
from biggan.training.report.history import NETWORKS, short, sigma_curves
from biggan.training.report.logs import Curve, Log
from biggan.training.report.page import Section, paragraph, table
from biggan.training.report.palette import SERIES
from biggan.training.report.record import RunRecord
from biggan.training.report.samples import SCORES, score_curve

_METRICS = {"d_loss": "Loss of the discriminator", "g_loss": "Loss of the generator"}
_SIGNALS = {
    ("accuracy", "real"): "Accuracy of the discriminator, training images",
    ("accuracy", "trained"): "Accuracy of the discriminator, images it is trained on",
    ("accuracy", "held_out"): "Accuracy of the discriminator, held-out images",
    ("gradient_norms", "generator"): "Gradient norm of the generator",
    ("gradient_norms", "discriminator"): "Gradient norm of the discriminator",
    ("diversity",): "Variety within a class",
}


def names_of(records: Sequence[RunRecord]) -> list[str]:
    """The runs' names, with a number behind those that are not unique."""
    names = [record.name for record in records]
    return [name if names.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)]


def comparison_section(records: Sequence[RunRecord]) -> Section:
    """Curves of several runs, a chart for each.

    Args:
        records: This run first; with one alone, the section is empty.
    """
    if len(records) < 2:
        return Section("comparison", "Compared")
    runs = dict(zip(names_of(records), records, strict=True))
    parts: list[Chart | str] = [_differences(runs)]
    for network, letter in NETWORKS.items():
        curves = {name: _highest(run.signals, network) for name, run in runs.items()}
        _add(parts, f"sigma-{network}", f"Largest σ0 of all layers of {letter}", curves)
    for key, title in _SIGNALS.items():
        _add(parts, "-".join(key), title, {n: r.signals.curves.get(key) for n, r in runs.items()})
    for metric, title in _METRICS.items():
        _add(parts, metric, title, {name: run.curves.get(metric) for name, run in runs.items()})
    for score, title in SCORES.items():
        _add(parts, score, title, {name: score_curve(run, score) for name, run in runs.items()})
    lead = paragraph(
        f"{' and '.join(runs)}: the same curve in one chart, where at least two of them have it."
    )
    return Section("comparison", "Compared", lead, parts)


def _differences(runs: Mapping[str, RunRecord]) -> str:
    keys = list(dict.fromkeys(key for run in runs.values() for key in run.recipe))
    rows = []
    for key in keys:
        values = [
            short(run.recipe[key]) if key in run.recipe else "not there" for run in runs.values()
        ]
        if len(set(values)) > 1:
            rows.append([key, *values])
    if not rows:
        return paragraph("Their recipes are the same.")
    return table(["recipe", *runs], rows)


def _highest(log: Log, network: str) -> Curve | None:
    """The largest singular value of all layers, step by step."""
    highest: dict[int, float] = {}
    for curve in sigma_curves(log, network).values():
        for step, value in zip(*curve, strict=True):
            highest[step] = max(value, highest.get(step, 0.0))
    steps = sorted(highest)
    return Curve(steps, [highest[step] for step in steps]) if steps else None


def _add(
    parts: list[Chart | str], name: str, title: str, curves: Mapping[str, Curve | None]
) -> None:
    colors = dict(zip(curves, SERIES * len(curves), strict=False))
    lines = [Line(run, curve, colors[run]) for run, curve in curves.items() if curve]
    if len(lines) > 1:
        parts.append(line_chart(f"compared-{name}", title, "", lines))
