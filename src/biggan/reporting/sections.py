"""The page's sections: pictures and their scores, and curves over steps of one run or several."""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from biggan.errors import InputError, printable
from biggan.reporting import charts
from biggan.reporting.charts import (
    FAKE,
    LAYERS,
    REAL,
    SERIES,
    Chart,
    Line,
    Mark,
    add_legend,
    line_chart,
)
from biggan.reporting.history import continued, short, spikes_of
from biggan.reporting.page import Folded, Part, Pictures, Section, Table
from biggan.reporting.run import NETWORKS, SCORES, Curve, Key, Log, Run
from biggan.reporting.spikes import Spike
from biggan.reporting.truncation import AMENABLE, Sweep
from biggan.weights.files import RUN_REAL_PREVIEW
from biggan.weights.load import load_class_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Styles = Mapping[Key, tuple[str, str]]
"""The label and the colour of each number of a log."""

_LOSSES: Styles = {("d_loss",): ("discriminator", REAL), ("g_loss",): ("generator", FAKE)}
_LOGITS: Styles = {("d_real",): ("real", REAL), ("d_fake",): ("generated", FAKE)}
_OUTPUTS = {
    "real": ("real", REAL),
    "fake": ("generated", FAKE),
    "trained": ("trained on", charts.TRAINED),
    "held_out": ("held-out", charts.HELD_OUT),
}
_KNOWN = re.compile(
    r"diversity|batch_norm/.*/(mean|var)|logits/(real|fake|trained|held_out)/(mean|std|min|max)|"
    r"accuracy/(real|fake|trained|held_out)|gradient_norms/(generator|discriminator)|"
    r"frobenius_norms/(generator|discriminator)/.*|"
    r"singular_values/(generator|discriminator)/.*/[012]",
    re.DOTALL,
)
_COMPARED = {
    ("accuracy", "real"): "Accuracy of the discriminator, training images",
    ("accuracy", "trained"): "Accuracy of the discriminator, images it is trained on",
    ("accuracy", "held_out"): "Accuracy of the discriminator, held-out images",
    ("gradient_norms", "generator"): "Gradient norm of the generator",
    ("gradient_norms", "discriminator"): "Gradient norm of the discriminator",
    ("diversity",): "Variety within a class",
}
_OTHER_CHARTS = 12  # of signals that this version does not know
_OTHER_LINES = 24  # in each of them
_NAMED = 4  # layers in a legend: those that end highest
_COLUMNS = 120  # of a heat map
_TICKS = 56  # layers named beside it
_SHEETS = 6  # of samples, from the first to the newest
_SHEET_ROWS = 10  # classes on a sheet
_SHEET_WIDTH = 480  # pixels at most


def real_section(run: Run) -> Section:
    """Training images beside the newest generated ones, with the names of the classes."""
    if not run.sheets or not (real := _small(run.folder / RUN_REAL_PREVIEW)):
        return Section("real", "Real and generated")
    step, newest = run.sheets[-1]
    pictures = [(real, "training images"), (_small(newest), f"generated at step {step}")]
    parts: list[Part] = [Pictures("", pictures)]
    with contextlib.suppress(InputError):
        _, names = load_class_names(run.folder)
        rows = [printable(name.split(",")[0]) for name in names[:_SHEET_ROWS]]
        if rows:
            parts.insert(0, f"A class in each row, from the top: {', '.join(rows)}.")
    return Section("real", "Real and generated", parts)


def sheets_section(run: Run) -> Section:
    """Sample sheets from the first to the newest."""
    chosen = np.linspace(0, len(run.sheets) - 1, min(_SHEETS, len(run.sheets))).round()
    sheets = [run.sheets[int(i)] for i in chosen]
    pictures = [(png, f"step {step}") for step, path in sheets if (png := _small(path))]
    return Section("samples", "Samples", [Pictures("", pictures)] if pictures else [])


def evaluations_section(run: Run, marks: Sequence[Mark]) -> Section:
    """The scores of evaluated steps."""
    if not run.evaluations:
        return Section("evaluations", "Evaluations")
    first = run.evaluations[0]
    parts: list[Part] = [
        f"{first.num} images against {first.reference}, features of {first.extractor}."
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
    """Whether truncation makes generators saturate; sweeps by the names of their runs."""
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
        parts.append(Pictures(f"Images of {name}", strips))
    rows = [
        [name, _named(row.truncation)]
        + [f"{part:.1%}" for part in (row.all, row.dark, row.bright, row.plain)]
        for name, sweep in sweeps.items()
        for row in sweep.rows
    ]
    head = ["run", "truncation", "saturated", "dark", "bright", "untruncated statistics"]
    num = next(iter(sweeps.values())).num
    parts.append(Folded(f"In numbers, {num} images each", Table(head, rows)))
    return Section("truncation", "Amenability to truncation", parts)


def _truncation_chart(sweeps: Mapping[str, Sweep]) -> Chart:
    def draw(axes: Axes) -> None:
        solid: dict[Any, Any] = {"marker": ".", "linewidth": 1.5}
        dashed: dict[Any, Any] = {"linewidth": 1, "linestyle": charts.DASHED}
        for i, (name, sweep) in enumerate(sweeps.items()):
            color = SERIES[i % len(SERIES)]
            for plain, style in ((False, solid), (True, dashed)):
                truncations, added = np.array(sweep.added(plain=plain)).T
                (drawn,) = axes.plot(truncations, 100 * added, color=color, **style)
                drawn.set_gid(f"tip:{name}{', untruncated statistics' if plain else ''}")
                if not plain:
                    drawn.set_label(name)
        low, high = axes.get_ylim()
        axes.axhspan(-100, 100 * AMENABLE, color=charts.HELD_OUT, alpha=0.08, linewidth=0)
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


def losses_section(run: Run, marks: Sequence[Mark]) -> Section:
    """Losses, the discriminator's outputs, and memorization."""
    logits: Styles = {("logits", which, "mean"): style for which, style in _OUTPUTS.items()}
    accuracy: Styles = {("accuracy", which): style for which, style in _OUTPUTS.items()}
    outputs = _lines(run, "signals", logits) or _lines(run, "metrics", _LOGITS)
    held_out = ("accuracy", "held_out") in run.signals.curves
    title = f"Accuracy of the discriminator{': memorization' if held_out else ''}"
    lines = _lines(run, "signals", accuracy)
    return Section(
        "losses",
        "Losses and outputs",
        [
            *line_chart("losses", "Losses", _lines(run, "metrics", _LOSSES), marks),
            *line_chart("outputs", "Outputs of the discriminator", outputs, marks),
            *line_chart("accuracy", title, lines, marks, limits=(-0.03, 1.03)),
        ],
    )


def networks_section(run: Run, marks: Sequence[Mark]) -> Section:
    """Gradients, variety, BatchNorm's statistics."""
    colors = {"generator": FAKE, "discriminator": REAL}
    norms: Styles = {("gradient_norms", name): (name, color) for name, color in colors.items()}
    diversity: Styles = {("diversity",): ("diversity", charts.OTHER)}
    parts: list[Part] = [
        *line_chart("gradients", "Gradient norms", _lines(run, "signals", norms), marks),
        *line_chart(
            "diversity", "Variety within a class", _lines(run, "signals", diversity), marks
        ),
    ]
    for what, words in (("mean", "means"), ("var", "variances")):
        lines = layer_lines(run, partial(_layers, start=("batch_norm",), end=what))
        parts += line_chart(f"batch-norm-{what}", f"BatchNorm {words} of G", lines, marks)
    return Section("networks", "Gradients, variety, statistics", parts)


def spectra_section(run: Run, marks: Sequence[Mark]) -> Section:
    """Singular values of the raw weights as matrices, conditioning, norms, and all in numbers."""
    parts: list[Part] = []
    for index in range(3):
        for network, letter in NETWORKS.items():
            choose = partial(Log.singular_values, network=network, index=index)
            lines = layer_lines(run, choose, [] if index else spikes_of(run, network))
            title, height = f"σ{index} of every layer of {letter}", 2.2 if index else 3.4
            parts += line_chart(f"sigma{index}-{network}", title, lines, marks, height=height)
    for network in NETWORKS:
        if ratios := conditioning(run.signals, network):
            parts.append(_heat_map(network, ratios))
    for network, letter in NETWORKS.items():
        lines = layer_lines(run, partial(_layers, start=("frobenius_norms", network)))
        parts += line_chart(f"frobenius-{network}", f"Frobenius norms of {letter}", lines, marks)
    for network in NETWORKS:
        if table := _numbers(run, network):
            parts.append(Folded(f"All layers of the {network} in numbers", table))
    return Section("spectra", "Singular values", parts)


def other_section(run: Run, marks: Sequence[Mark]) -> Section:
    """What else the logs hold: penalties, speed, and signals of another version."""
    titles = {"orthogonal": "Orthogonal regularization", "steps_per_second": "Speed"}
    names = {"/".join(key): key for key in run.metrics.curves if key not in {**_LOSSES, **_LOGITS}}
    parts: list[Part] = []
    for name in sorted(names, key=lambda n: (n not in titles, n == "steps_per_second")):
        if not name.startswith("evaluation/"):
            lines = _lines(run, "metrics", {names[name]: (name, REAL)})
            parts += line_chart(f"metric-{_file_name(name)}", titles.get(name, name), lines, marks)
    groups: dict[str, dict[Key, Curve]] = {}
    for key, curve in run.signals.curves.items():
        if not _KNOWN.fullmatch("/".join(key)):
            groups.setdefault(key[0], {})[key[1:]] = curve
    if groups:
        first = f" The first {_OTHER_CHARTS} are drawn." if len(groups) > _OTHER_CHARTS else ""
        parts.append(
            f"Signals that this version of biggan does not know, as in signals.jsonl.{first}"
        )
    for name in sorted(groups)[:_OTHER_CHARTS]:
        lines = [
            Line("/".join(key) or name, curve, SERIES[i % len(SERIES)])
            for i, (key, curve) in enumerate(list(groups[name].items())[:_OTHER_LINES])
        ]
        parts += line_chart(f"signal-{_file_name(name)}", name, lines, marks)
    return Section("other", "Other curves", parts)


def comparison_section(runs: Mapping[str, Run]) -> Section:
    """Where the recipes of runs differ, and the curves that at least two of them have."""
    if len(runs) < 2:
        return Section("comparison", "Compared")
    names = " and ".join(runs)
    parts: list[Part] = [f"{names}: the same curve in one chart, if at least two runs have it."]
    rows = []
    recipes = [run.recipe for run in runs.values()]
    for name in dict.fromkeys(name for recipe in recipes for name in recipe):
        values = [short(recipe[name]) if name in recipe else "not there" for recipe in recipes]
        if len(set(values)) > 1:
            rows.append([name, *values])
    parts.append(Table(["recipe", *runs], rows) if rows else "Their recipes are the same.")
    each = list(runs.values())
    compared = [
        (f"sigma-{n}", f"Largest σ0 of all layers of {letter}", [_highest(run, n) for run in each])
        for n, letter in NETWORKS.items()
    ]
    for key, title in _COMPARED.items():
        compared.append(("-".join(key), title, [run.signals.curves.get(key) for run in each]))
    for key, (network, _) in _LOSSES.items():
        curves = [run.metrics.curves.get(key) for run in each]
        compared.append((key[0], f"Loss of the {network}", curves))
    for score, title in SCORES.items():
        compared.append((score, title, [run.score_curve(score) for run in each]))
    for name, title, curves in compared:
        lines = [
            Line(label, curve, SERIES[i % len(SERIES)])
            for i, (label, curve) in enumerate(zip(runs, curves, strict=True))
            if curve
        ]
        parts += line_chart(f"compared-{name}", title, lines if len(lines) > 1 else [])
    return Section("comparison", "Compared", parts)


def _highest(run: Run, network: str) -> Curve | None:
    """The largest singular value of all layers."""
    curves = run.signals.singular_values(network).values()
    return Curve.of(sorted(point for curve in curves for point in curve.points)) if curves else None


def conditioning(log: Log, network: str) -> dict[str, Curve]:
    """σ0 / σ1 of each layer, where it has two."""
    ratios = {}
    second = log.singular_values(network, 1)
    for layer, first in log.singular_values(network).items():
        below = dict(second[layer].points) if layer in second else {}
        points = [(s, v / below[s]) for s, v in first.points if below.get(s, 0) > 0]
        if points := [point for point in points if math.isfinite(point[1])]:
            ratios[layer] = Curve.of(points)
    return ratios


def layer_lines(
    run: Run,
    choose: Callable[[Log], Mapping[str, Curve]],
    spikes: Sequence[Mapping[str, Sequence[Spike]]] = (),
) -> list[Line]:
    """A curve for each layer, coloured from the first to the last, with circles at spikes.

    `choose` gives the layers' curves in a log, first layer to last.
    """
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    current = choose(run.signals)
    undone = [choose(logs["signals"]) for logs in run.undone]
    layers = list(dict.fromkeys(layer for curves in (current, *undone) for layer in curves))
    colors = LinearSegmentedColormap.from_list("layers", LAYERS, N=max(2, len(layers)))
    highest = sorted(current, key=lambda layer: -current[layer].values[-1])[:_NAMED]
    at = [{n: [spike.step for spike in s] for n, s in log.items()} for log in spikes]
    at = at or [{}] * (1 + len(undone))
    lines = []
    for layer in highest + [layer for layer in layers if layer not in highest]:
        color = to_hex(colors(layers.index(layer)))
        for curves, steps in zip(undone, at[1:], strict=True):
            if layer in curves:
                whole, circles = continued(current.get(layer), curves[layer]), steps.get(layer, ())
                lines.append(Line(layer, whole, color, undone=True, spikes=circles))
        if layer in current:
            named, circles = layer in highest, at[0].get(layer, ())
            lines.append(Line(layer, current[layer], color, named, spikes=circles))
    return lines


def _layers(log: Log, start: Key, end: str = "") -> dict[str, Curve]:
    """The curve of each layer under some names."""
    ends = (end,) if end else ()
    curves = log.under(*start).items()
    return {key[0]: curve for key, curve in curves if key and key[1:] == ends}


def _heat_map(network: str, ratios: Mapping[str, Curve]) -> Chart:
    """Conditioning as layers by steps; each cell is the worst of a stretch of steps."""
    layers, rows = list(ratios), min(len(ratios), _TICKS)
    steps = sorted({step for curve in ratios.values() for step in curve.steps})
    values = np.full((len(layers), len(steps)), np.nan)
    for row, curve in enumerate(ratios.values()):
        values[row, np.searchsorted(steps, curve.steps)] = np.minimum(curve.values, 1e6)
    stretches = np.array_split(values, min(_COLUMNS, len(steps)), axis=1)
    cells = np.stack([np.fmax.reduce(stretch, axis=1) for stretch in stretches], axis=1)

    def draw(axes: Axes) -> None:
        from matplotlib.colors import LogNorm

        high = max(2.0, float(np.nanmax(cells)))
        extent = (steps[0], max(steps[-1], steps[0] + 1), len(layers) - 0.5, -0.5)
        image = axes.imshow(
            cells, norm=LogNorm(1, high), extent=extent, aspect="auto", interpolation="nearest"
        )
        named = range(0, len(layers), math.ceil(len(layers) / _TICKS))
        labels = [charts.shortened(layers[row]) for row in named]
        axes.set_yticks(named, labels, fontsize=7)
        axes.grid(visible=False)
        axes.set_xlabel("step")
        bar = axes.figure.colorbar(image, ax=axes, pad=0.02, aspect=1.4 * rows + 8)
        ticks = [t for t in (1, 1.5, 2, 3, 5, 10, 20, 50, 100, 1e3, 1e4, 1e5, 1e6) if t <= high]
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks], minor=False)
        bar.minorticks_off()

    worst = max(ratios, key=lambda layer: ratios[layer].values[-1])
    title = f"Conditioning of {NETWORKS[network]}: σ0 / σ1"
    alt = (
        f"{title}. Heat map of {len(layers)} layers over steps {steps[0]} to {steps[-1]}; at the "
        f"end {worst} is conditioned worst, at {ratios[worst].values[-1]:.3g}."
    )
    return Chart(f"conditioning-{network}", title, alt, draw, max(2.2, 0.9 + 0.15 * rows))


def _numbers(run: Run, network: str) -> Table | None:
    sigmas = [run.signals.singular_values(network, index) for index in range(3)]
    norms = _layers(run.signals, ("frobenius_norms", network))
    columns = [*sigmas, conditioning(run.signals, network), norms]
    spikes = spikes_of(run, network)[0]
    rows = []
    for layer, curve in sigmas[0].items():
        last = [f"{c[layer].values[-1]:.3g}" if layer in c else "" for c in columns]
        first, highest = f"{curve.values[0]:.3g}", f"{max(curve.values):.3g}"
        rows.append([layer, first, *last, highest, str(len(spikes[layer]))])
    head = ["layer", "σ0 first", "σ0", "σ1", "σ2", "σ0 / σ1", "Frobenius", "σ0 highest", "spikes"]
    return Table(head, rows) if rows else None


def _lines(run: Run, log: str, styles: Styles) -> list[Line]:
    """The curves of some numbers of a log, each after what rollbacks undid of it."""
    lines = []
    current = getattr(run, log).curves
    for key, (label, color) in styles.items():
        for undone in run.undone:
            if curve := undone[log].curves.get(key):
                lines.append(Line(label, continued(current.get(key), curve), color, undone=True))
        if key in current:
            spread = current.get((*key[:-1], "std")) if key[-1] == "mean" else None
            lines.append(Line(label, current[key], color, spread=spread))
    return lines


def _file_name(name: str) -> str:
    """A name that any file system takes."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name)[:80]
