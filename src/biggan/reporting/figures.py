"""The charts of the page: curves over steps of one run or several, a heat map, truncation."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from biggan.reporting import charts
from biggan.reporting.charts import FAKE, REAL, Chart, Line, Mark, line_chart
from biggan.reporting.run import NETWORKS, SCORES, Curve, Key, Log, Run
from biggan.reporting.spikes import Spike, continued, spikes_of
from biggan.reporting.truncation import AMENABLE, Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKED = 40  # events with marks in the charts
_EVENTS = {
    "collapse": ("C", charts.COLLAPSE),
    "rollback": ("R", charts.ROLLBACK),
    "intervention": ("A", charts.INTERVENTION),
    "stop": ("S", charts.INK),
}
_OTHER_EVENT = ("E", charts.INK)

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
_MEAN_LOGITS: Styles = {("logits", which, "mean"): style for which, style in _OUTPUTS.items()}
_ACCURACY: Styles = {("accuracy", which): style for which, style in _OUTPUTS.items()}
_NORMS: Styles = {
    ("gradient_norms", "generator"): ("generator", FAKE),
    ("gradient_norms", "discriminator"): ("discriminator", REAL),
}
_DIVERSITY: Styles = {("diversity",): ("diversity", charts.OTHER)}
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
UNKNOWN_CHARTS = 12  # of signals that this version does not know
_UNKNOWN_LINES = 24  # in each of them
_NAMED = 4  # layers in a legend: those that end highest
_COLUMNS = 120  # of a heat map
_TICKS = 56  # layers named beside it


def all_figures(run: Run, runs: Mapping[str, Run]) -> dict[str, list[Chart]]:
    """The charts of each section of the page; `runs` are those to compare, this one first."""
    drawn = partial(line_chart, marks=marks_of(run))
    memory = ": memorization" if ("accuracy", "held_out") in run.signals.curves else ""
    outputs = _lines(run, "signals", _MEAN_LOGITS) or _lines(run, "metrics", _LOGITS)
    sweeps = {name: run.sweep for name, run in runs.items() if run.sweep}
    accuracy = _lines(run, "signals", _ACCURACY)
    sizes = {n: layer_lines(run, partial(_layers, start=("frobenius_norms", n))) for n in NETWORKS}
    statistics = {
        what: layer_lines(run, partial(_layers, start=("batch_norm",), end=what))
        for what in ("mean", "var")
    }
    sections: dict[str, list[Chart | None]] = {
        "evaluations": [
            drawn(f"evaluation-{name}", title, [Line(title, curve, REAL)], height=2.2)
            for name, title in SCORES.items()
            if (curve := run.score_curve(name))
        ],
        "losses": [
            drawn("losses", "Losses", _lines(run, "metrics", _LOSSES)),
            drawn("outputs", "Outputs of the discriminator", outputs),
            drawn(
                "accuracy", f"Accuracy of the discriminator{memory}", accuracy, limits=(-0.03, 1.03)
            ),
        ],
        "spectra": [
            *(
                drawn(
                    f"sigma{i}-{n}",
                    f"σ{i} of every layer of {letter}",
                    _spectrum(run, n, i),
                    height=2.2 if i else 3.4,
                )
                for i in range(3)
                for n, letter in NETWORKS.items()
            ),
            *(_heat_map(network, conditioning(run.signals, network)) for network in NETWORKS),
            *(
                drawn(f"frobenius-{n}", f"Frobenius norms of {NETWORKS[n]}", lines)
                for n, lines in sizes.items()
            ),
        ],
        "networks": [
            drawn("gradients", "Gradient norms", _lines(run, "signals", _NORMS)),
            drawn("diversity", "Variety within a class", _lines(run, "signals", _DIVERSITY)),
            drawn("batch-norm-mean", "BatchNorm means of G", statistics["mean"]),
            drawn("batch-norm-var", "BatchNorm variances of G", statistics["var"]),
        ],
        "truncation": [_truncation_chart(sweeps)],
        "comparison": _compared(runs) if len(runs) > 1 else [],
        "other": [
            drawn(f"metric-{_file_name(name)}", title, _lines(run, "metrics", {key: (name, REAL)}))
            for name, key, title in _other_metrics(run)
        ],
        "unknown": [
            drawn(f"signal-{_file_name(name)}", name, _in_series(curves))
            for name, curves in _unknown_signals(run)
        ],
    }
    return {name: [chart for chart in parts if chart] for name, parts in sections.items()}


def marks_of(run: Run) -> list[Mark]:
    """The vertical lines of all charts: events, and the first value that is not finite."""
    found = [(event.step, *_EVENTS.get(event.event, _OTHER_EVENT)) for event in run.events[:MARKED]]
    if at := run.first_not_finite():
        found.append((at[0], "N", charts.COLLAPSE))
    marks: dict[int, Mark] = {}
    for step, letter, color in found:
        mark = marks.setdefault(step, Mark(step, "", color))
        if letter not in mark.letters:
            marks[step] = mark._replace(letters=mark.letters + letter)
    return list(marks.values())


def _spectrum(run: Run, network: str, index: int) -> list[Line]:
    """A singular value of the raw weights as matrices, of every layer."""
    choose = partial(Log.singular_values, network=network, index=index)
    return layer_lines(run, choose, [] if index else spikes_of(run, network))


def _other_metrics(run: Run) -> list[tuple[str, Key, str]]:
    """What else the log of metrics holds, such as penalties and speed, with titles."""
    titles = {"orthogonal": "Orthogonal regularization", "steps_per_second": "Speed"}
    names = {"/".join(key): key for key in run.metrics.curves if key not in {**_LOSSES, **_LOGITS}}
    ordered = sorted(names, key=lambda n: (n not in titles, n == "steps_per_second"))
    others = [name for name in ordered if not name.startswith("evaluation/")]
    return [(name, names[name], titles.get(name, name)) for name in others]


def _unknown_signals(run: Run) -> list[tuple[str, dict[str, Curve]]]:
    """Signals of another version, as they are."""
    groups: dict[str, dict[str, Curve]] = {}
    for key, curve in run.signals.curves.items():
        if not _KNOWN.fullmatch("/".join(key)):
            groups.setdefault(key[0], {})["/".join(key[1:]) or key[0]] = curve
    drawn = sorted(groups.items())[:UNKNOWN_CHARTS]
    return [(name, dict(list(curves.items())[:_UNKNOWN_LINES])) for name, curves in drawn]


def _compared(runs: Mapping[str, Run]) -> list[Chart | None]:
    """The curves that at least two runs have."""
    each = {label: _comparable(run) for label, run in runs.items()}
    titles = {name: title for found in each.values() for name, (title, _) in found.items()}
    parts = []
    for name, title in titles.items():
        lines = _in_series({label: found[name][1] for label, found in each.items()})
        parts.append(line_chart(f"compared-{name}", title, lines) if len(lines) > 1 else None)
    return parts


def _comparable(run: Run) -> dict[str, tuple[str, Curve | None]]:
    """Curves that are worth a comparison, with titles."""
    signals, metrics = run.signals.curves, run.metrics.curves
    return {
        **{
            f"sigma-{n}": (f"Largest σ0 of all layers of {NETWORKS[n]}", _highest(run, n))
            for n in NETWORKS
        },
        **{"-".join(key): (title, signals.get(key)) for key, title in _COMPARED.items()},
        **{key[0]: (f"Loss of the {n}", metrics.get(key)) for key, (n, _) in _LOSSES.items()},
        **{score: (title, run.score_curve(score)) for score, title in SCORES.items()},
    }


def _in_series(curves: Mapping[str, Curve | None]) -> list[Line]:
    """Curves in the colours of a series, those that are not there left out."""
    colored = zip(curves.items(), cycle(charts.SERIES), strict=False)
    return [Line(label, curve, color) for (label, curve), color in colored if curve]


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
    colors = LinearSegmentedColormap.from_list("layers", charts.LAYERS, N=max(2, len(layers)))
    highest = sorted(current, key=lambda layer: -current[layer].values[-1])[:_NAMED]
    at = spikes or [{}] * (1 + len(undone))
    lines = []
    for layer in highest + [layer for layer in layers if layer not in highest]:
        color = to_hex(colors(layers.index(layer)))
        for curves, circles in zip(undone, at[1:], strict=True):
            if layer in curves:
                whole = continued(current.get(layer), curves[layer])
                found = circles.get(layer, ())
                lines.append(Line(layer, whole, color, undone=True, spikes=found))
        if layer in current:
            found = at[0].get(layer, ())
            lines.append(Line(layer, current[layer], color, layer in highest, spikes=found))
    return lines


def _layers(log: Log, start: Key, end: str = "") -> dict[str, Curve]:
    """The curve of each layer under some names."""
    ends = (end,) if end else ()
    curves = log.under(*start).items()
    return {key[0]: curve for key, curve in curves if key and key[1:] == ends}


def _heat_map(network: str, ratios: Mapping[str, Curve]) -> Chart | None:
    """Conditioning as layers by steps; each cell is the worst of a stretch of steps."""
    if not ratios:
        return None
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


def _truncation_chart(sweeps: Mapping[str, Sweep]) -> Chart | None:
    if not sweeps:
        return None

    def draw(axes: Axes) -> None:
        solid: dict[Any, Any] = {"marker": ".", "linewidth": 1.5}
        dashed: dict[Any, Any] = {"linewidth": 1, "linestyle": charts.DASHED}
        for i, (name, sweep) in enumerate(sweeps.items()):
            color = charts.SERIES[i % len(charts.SERIES)]
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
        charts.add_legend(axes)

    title = "What truncation adds to the saturated part"
    ends = []
    for name, sweep in sweeps.items():
        truncation, part = sweep.added()[-1]
        ends.append(f"{name} adds {100 * part:.1f} percentage points at truncation {truncation:g}")
    alt = f"{title}. Line chart over truncation from 1 to 0.04: {'; '.join(ends)}."
    return Chart("truncation", title, alt, draw, 3.0)


def layer_columns(run: Run, network: str) -> list[dict[str, Curve]]:
    """By layer: three singular values, the first over the second, the Frobenius norm."""
    sigmas = [run.signals.singular_values(network, index) for index in range(3)]
    norms = _layers(run.signals, ("frobenius_norms", network))
    return [*sigmas, conditioning(run.signals, network), norms]


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
