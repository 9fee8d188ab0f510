"""Curves over steps: losses, the discriminator's outputs, memorization, gradients, statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from biggan.training.report.charts import Chart, Line, Mark, line_chart
from biggan.training.report.history import NETWORKS, continued
from biggan.training.report.logs import Curve, Key, Log
from biggan.training.report.page import Section
from biggan.training.report.palette import (
    FAKE,
    HELD_OUT,
    OTHER,
    REAL,
    SERIES,
    TRAINED,
    Color,
)
from biggan.training.report.record import RunRecord
from biggan.training.report.spectra import layer_chart

_OUTPUTS = {
    "real": ("real", REAL),
    "fake": ("generated", FAKE),
    "trained": ("trained on", TRAINED),
    "held_out": ("held-out", HELD_OUT),
}
_STATISTICS = ("mean", "std", "min", "max")
_OTHERS = 12  # charts of signals that this version does not know
_OTHER_LINES = 24  # in each of them


def losses_section(record: RunRecord, marks: Sequence[Mark]) -> Section:
    """Losses, the discriminator's outputs, and whether it knows its images by heart."""
    parts: list[Chart | str] = []
    losses = {"d_loss": ("discriminator", REAL), "g_loss": ("generator", FAKE)}
    _add(
        parts,
        _metric_lines(record, losses),
        "losses",
        "Losses",
        "Hinge losses of both networks. The paper sees the discriminator's approach zero and leap "
        "at collapse.",
        marks,
    )
    if record.signals.under("logits"):
        lines = [
            line
            for which, (label, color) in _OUTPUTS.items()
            for line in _signal_lines(record, ("logits", which, "mean"), label, color)
        ]
        _add(
            parts,
            lines,
            "outputs",
            "Outputs of the discriminator",
            "Mean over a batch, bands one standard deviation; above 0 means “real”. Curves "
            "that drift far apart leave the generator little to learn from.",
            marks,
        )
    else:
        lines = _metric_lines(record, {"d_real": ("real", REAL), "d_fake": ("generated", FAKE)})
        _add(
            parts,
            lines,
            "outputs",
            "Outputs of the discriminator",
            "Mean for real and generated images; above 0 means “real”.",
            marks,
        )
    lines = [
        line
        for which, (label, color) in _OUTPUTS.items()
        for line in _signal_lines(record, ("accuracy", which), label, color)
    ]
    with_held_out = ("accuracy", "held_out") in record.signals.curves
    _add(
        parts,
        lines,
        "accuracy",
        "Accuracy of the discriminator" + (": memorization" if with_held_out else ""),
        "Part of the images that it puts on the right side of 0. "
        + (
            "Real and generated ones are those of the update, judged before it. Held-out images "
            "are real and never trained on, and judged after the update beside others that are "
            "trained on: where the two curves part, these are known by heart. The paper measures "
            "above 98% and 50 to 55%."
            if with_held_out
            else "With watch.held_out above 0, the same for real images that are kept from "
            "training would tell whether it knows the others by heart."
        ),
        marks,
        limits=(-0.03, 1.03),
    )
    return Section("losses", "Losses and outputs", "", parts)


def networks_section(record: RunRecord, marks: Sequence[Mark]) -> Section:
    """Gradients, variety, BatchNorm's statistics."""
    parts: list[Chart | str] = []
    lines = [
        line
        for network, color in zip(NETWORKS, (FAKE, REAL), strict=True)
        for line in _signal_lines(record, ("gradient_norms", network), network, color)
    ]
    _add(
        parts,
        lines,
        "gradients",
        "Gradient norms",
        "L2 norm of the last update's gradient, over all of a network's parameters.",
        marks,
    )
    _add(
        parts,
        _signal_lines(record, ("diversity",), "diversity", OTHER),
        "diversity",
        "Variety within a class",
        "Mean distance between two pictures of a class (root mean square over pixels in [-1, 1]), "
        "for latents that never change. A fall to zero is mode collapse.",
        marks,
    )
    for what, title, caption in (
        ("mean", "means", "Root mean square of the means that each BatchNorm of G keeps."),
        ("var", "variances", "Mean of the variances that each BatchNorm of G keeps."),
    ):
        if _batch_norm(record.signals, what):
            chart = layer_chart(
                record,
                partial(_batch_norm, what=what),
                f"batch-norm-{what}",
                f"BatchNorm {title} of G",
                f"{caption} Coloured from the first layer to the last.",
                marks,
            )
            parts.append(chart)
    return Section("networks", "Gradients, variety, statistics", "", parts)


def other_section(record: RunRecord, marks: Sequence[Mark]) -> Section:
    """What else the logs hold: penalties, speed, and signals of another version."""
    parts: list[Chart | str] = []
    known = ("d_loss", "g_loss", "d_real", "d_fake")
    titles = {
        "orthogonal": (
            "Orthogonal regularization",
            "How far the generator's weights are from orthogonal, as it is penalized.",
        ),
        "steps_per_second": ("Speed", "Generator updates a second."),
    }
    names = [n for n in record.curves if n not in known and not n.startswith("evaluation/")]
    for name in sorted(names, key=lambda n: (n not in titles, n == "steps_per_second")):
        title, caption = titles.get(name, (name, ""))
        lines = _metric_lines(record, {name: (name, REAL)})
        _add(parts, lines, f"metric-{_file_name(name)}", title, caption, marks)
    groups: dict[str, dict[Key, Curve]] = {}
    for key, curve in record.signals.curves.items():
        if not is_known(key):
            groups.setdefault(key[0], {})[key[1:]] = curve
    if groups:
        names = sorted(groups)
        kept = f" The first {_OTHERS} are drawn." if len(groups) > _OTHERS else ""
        parts.append(
            "<p>Below are signals that this version of biggan does not know, as they are in "
            f"signals.jsonl.{kept}</p>"
        )
        for name in names[:_OTHERS]:
            lines = [
                Line("/".join(key) or name, curve, SERIES[i % len(SERIES)])
                for i, (key, curve) in enumerate(list(groups[name].items())[:_OTHER_LINES])
            ]
            _add(parts, lines, f"signal-{_file_name(name)}", name, "", marks)
    return Section("other", "Other curves", "", parts)


def is_known(key: Key) -> bool:
    """Whether a signal has the shape that this version draws."""
    match key:
        case ("singular_values", "generator" | "discriminator", _, "0" | "1" | "2"):
            return True
        case ("frobenius_norms", "generator" | "discriminator", _):
            return True
        case ("gradient_norms", "generator" | "discriminator"):
            return True
        case ("logits", which, what):
            return which in _OUTPUTS and what in _STATISTICS
        case ("accuracy", which):
            return which in _OUTPUTS
        case ("batch_norm", _, "mean" | "var") | ("diversity",):
            return True
    return False


def _add(
    parts: list[Chart | str],
    lines: Sequence[Line],
    name: str,
    title: str,
    caption: str,
    marks: Sequence[Mark],
    limits: tuple[float, float] | None = None,
) -> None:
    if lines:
        parts.append(line_chart(name, title, caption, lines, marks=marks, limits=limits))


def _metric_lines(record: RunRecord, names: Mapping[str, tuple[str, Color]]) -> list[Line]:
    lines = []
    for name, (label, color) in names.items():
        current = record.curves.get(name)
        undone = [attempt.metrics.curves.get((name,)) for attempt in record.attempts]
        lines += _with_undone(label, color, current, undone)
    return lines


def _signal_lines(record: RunRecord, key: Key, label: str, color: Color) -> list[Line]:
    current = record.signals.curves.get(key)
    undone = [attempt.signals.curves.get(key) for attempt in record.attempts]
    spread = record.signals.curves.get((*key[:-1], "std")) if key[-1] == "mean" else None
    return _with_undone(label, color, current, undone, spread)


def _with_undone(
    label: str,
    color: Color,
    current: Curve | None,
    undone: Sequence[Curve | None],
    spread: Curve | None = None,
) -> list[Line]:
    base = current or Curve([], [])
    lines = [
        Line(label, continued(base, curve), color, named=False, pale=True)
        for curve in undone
        if curve is not None
    ]
    return lines + ([Line(label, current, color, spread=spread)] if current else [])


def _batch_norm(log: Log, what: str) -> dict[str, Curve]:
    curves = log.under("batch_norm")
    return {key[0]: curve for key, curve in curves.items() if len(key) == 2 and key[1] == what}


def _file_name(name: str) -> str:
    """A name that any file system takes."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name)[:80]
