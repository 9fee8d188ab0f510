"""Singular values of all weights over training: the paper's Figures 3 and 4, and more of the same.

Of the raw weight as a matrix (out, in * k * k), before spectral normalization.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from biggan.training.report.charts import Chart, Line, Mark, line_chart, shortened
from biggan.training.report.history import NETWORKS, continued, sigma_curves, spikes_of
from biggan.training.report.logs import Curve, Log
from biggan.training.report.page import Section, details, table
from biggan.training.report.palette import INK, LAYERS, layer_color
from biggan.training.report.record import RunRecord
from biggan.training.report.spikes import Spike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMED = 4  # curves whose ends are labelled: those that end highest
_COLUMNS = 120  # of a heat map
_TICKS = 56  # layers named beside it, at most
_WORDS = {"generator": "the generator", "discriminator": "the discriminator"}
_SEEN = {
    "generator": "In the paper most layers are well behaved and a few, first of all, grow through "
    "training and explode when it collapses.",
    "discriminator": "In the paper these are noisier, grow slowly in jumps, and only leap at "
    "collapse.",
}


def spectra_section(record: RunRecord, marks: Sequence[Mark]) -> Section:
    """The largest singular values of both networks, conditioning, norms, and all in numbers."""
    parts: list[Chart | str] = []
    networks = [name for name in NETWORKS if _logs_with(record, name)]
    if not networks:
        return Section("spectra", "Singular values")
    spikes = {network: spikes_of(record, network) for network in networks}
    parts += [_sigma_chart(record, name, 0, marks, spikes[name]) for name in networks]
    for index in (1, 2):
        parts += [
            _sigma_chart(record, name, index, marks, [])
            for name in networks
            if sigma_curves(record.signals, name, index)
        ]
    for name in networks:
        if ratios := conditioning(record.signals, name):
            parts.append(_heat_map(name, ratios))
    parts += [
        layer_chart(
            record,
            partial(_frobenius_curves, network=name),
            f"frobenius-{name}",
            f"Frobenius norms of {NETWORKS[name]}",
            "The size of all of a weight. The paper finds it smooth where σ0 is noisy: what jumps "
            "are the top directions alone.",
            marks,
        )
        for name in networks
        if _frobenius_curves(record.signals, name)
    ]
    for name in networks:
        parts.append(details(f"All layers of {_WORDS[name]} in numbers", _numbers(record, name)))
    lead = (
        f"<p>σ0, σ1 and σ2 are the largest singular values of each layer's weight before spectral "
        f"normalization. Colours go from the first layer to the last; the {_NAMED} curves that end "
        "highest are named, the others when you point at them. Circles are spikes.</p>"
        f"{_ramp()}"
    )
    return Section("spectra", "Singular values", lead, parts)


def conditioning(log: Log, network: str) -> dict[str, Curve]:
    """Of each layer sigma0 / sigma1, where it has two."""
    ratios = {}
    second = sigma_curves(log, network, 1)
    for layer, first in sigma_curves(log, network).items():
        below = second.get(layer, Curve([], []))
        at = dict(zip(below.steps, below.values, strict=True))
        points = [(s, v / at[s]) for s, v in zip(*first, strict=True) if at.get(s, 0) > 0]
        points = [point for point in points if math.isfinite(point[1])]
        if points:
            ratios[layer] = Curve([s for s, _ in points], [v for _, v in points])
    return ratios


def layer_chart(
    record: RunRecord,
    choose: Callable[[Log], Mapping[str, Curve]],
    name: str,
    title: str,
    caption: str,
    marks: Sequence[Mark],
    spikes: Sequence[Mapping[str, Sequence[Spike]]] = (),
    *,
    height: float = 2.5,
) -> Chart:
    """A curve per layer, coloured from the first to the last.

    Args:
        record: The run.
        choose: The layers' curves in a log, first to last; some in the run's signals.
        name: See `Chart`.
        title: See `Chart`.
        caption: See `Chart`.
        marks: Vertical lines.
        spikes: Of each layer, for dots: of the run, then of each undone attempt; empty for none.
        height: See `Chart`.
    """
    current = choose(record.signals)
    undone = [choose(attempt.signals) for attempt in record.attempts]
    layers = list(dict.fromkeys(layer for curves in (current, *undone) for layer in curves))
    highest = sorted(current, key=lambda layer: -current[layer].values[-1])[:_NAMED]
    lines = []
    for layer in highest + [layer for layer in layers if layer not in highest]:
        color = layer_color(layers.index(layer), len(layers))
        dots = [[spike.step for spike in of_log.get(layer, ())] for of_log in spikes]
        for i, attempt in enumerate(undone, start=1):
            if layer in attempt:
                whole = continued(current.get(layer, Curve([], [])), attempt[layer])
                at = dots[i] if dots else ()
                lines.append(Line(layer, whole, color, named=False, pale=True, at=at))
        if layer in current:
            named = layer in highest
            at = dots[0] if dots else ()
            lines.append(Line(layer, current[layer], color, named=named, at=at))
    return line_chart(name, title, caption, lines, marks=marks, height=height)


def _logs_with(record: RunRecord, network: str) -> list[Log]:
    logs = [record.signals, *(attempt.signals for attempt in record.attempts)]
    return [log for log in logs if sigma_curves(log, network)]


def _frobenius_curves(log: Log, network: str) -> dict[str, Curve]:
    curves = log.under("frobenius_norms", network)
    return {key[0]: curve for key, curve in curves.items() if len(key) == 1}


def _sigma_chart(
    record: RunRecord,
    network: str,
    index: int,
    marks: Sequence[Mark],
    spikes: Sequence[Mapping[str, Sequence[Spike]]],
) -> Chart:
    names = ("largest", "second largest", "third largest")
    return layer_chart(
        record,
        partial(sigma_curves, network=network, index=index),
        f"sigma{index}-{network}",
        f"σ{index} of every layer of {NETWORKS[network]}",
        _SEEN[network] if index == 0 else f"The {names[index]} singular value.",
        marks,
        spikes,
        height=3.4 if index == 0 else 2.2,
    )


def _heat_map(network: str, ratios: Mapping[str, Curve]) -> Chart:
    """Conditioning as layers by steps."""
    layers = list(ratios)
    steps = sorted({step for curve in ratios.values() for step in curve.steps})
    columns = min(_COLUMNS, len(steps))
    cells = np.full((len(layers), columns), np.nan)
    for row, curve in enumerate(ratios.values()):
        for step, value in zip(*curve, strict=True):  # the worst of each stretch of steps
            column = bisect.bisect_left(steps, step) * columns // len(steps)
            cells[row, column] = np.fmax(cells[row, column], min(value, 1e6))

    def draw(axes: Axes) -> None:
        from matplotlib.colors import LogNorm

        high = max(2.0, float(np.nanmax(cells)))
        image = axes.imshow(
            cells,
            aspect="auto",
            interpolation="nearest",
            cmap="viridis",
            norm=LogNorm(1, high),
            extent=(steps[0], max(steps[-1], steps[0] + 1), len(layers) - 0.5, -0.5),
        )
        every = math.ceil(len(layers) / _TICKS)
        named = range(0, len(layers), every)
        axes.set_yticks(named, [shortened(layers[row]) for row in named], fontsize=7)
        axes.grid(visible=False)
        axes.set_xlabel("step")
        figure = axes.get_figure()
        assert figure is not None
        bar = figure.colorbar(
            image, ax=axes, fraction=0.05, pad=0.02, aspect=1.4 * min(len(layers), _TICKS) + 8
        )
        ticks = [t for t in (1, 1.5, 2, 3, 5, 10, 20, 50, 100, 1e3, 1e4, 1e5, 1e6) if t <= high]
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        bar.minorticks_off()
        bar.outline.set_edgecolor(INK.light)

    worst = max(ratios, key=lambda layer: ratios[layer].values[-1])
    title = f"Conditioning of {NETWORKS[network]}: σ0 / σ1"
    return Chart(
        f"conditioning-{network}",
        title,
        "Dark: the largest singular value stands close to the next. Bright: one direction rules "
        "the layer, which the paper finds before and at collapse.",
        f"{title}. Heat map of {len(layers)} layers over steps {steps[0]} to {steps[-1]}; at the "
        f"end {worst} is conditioned worst, at {ratios[worst].values[-1]:.3g}.",
        draw,
        max(2.2, 0.9 + 0.15 * min(len(layers), _TICKS)),
    )


def _numbers(record: RunRecord, network: str) -> str:
    sigmas = [sigma_curves(record.signals, network, index) for index in range(3)]
    ratios = conditioning(record.signals, network)
    norms = _frobenius_curves(record.signals, network)
    spikes = spikes_of(record, network)[0]
    rows = []
    for layer, curve in sigmas[0].items():
        rows.append(
            [
                layer,
                f"{curve.values[0]:.3g}",
                *(_last(of_index.get(layer)) for of_index in sigmas),
                f"{max(curve.values):.3g}",
                _last(ratios.get(layer)),
                _last(norms.get(layer)),
                str(len(spikes.get(layer, ()))),
            ]
        )
    head = ["layer", "σ0 first", "σ0", "σ1", "σ2", "σ0 highest", "σ0 / σ1", "Frobenius", "spikes"]
    return table(head, rows)


def _last(curve: Curve | None) -> str:
    return "" if curve is None else f"{curve.values[-1]:.3g}"


def _ramp() -> str:
    stops = ", ".join(f"var(--{color.name})" for color in (*LAYERS[::4], LAYERS[-1]))
    return (
        f"<div class='ramp' style='background: linear-gradient(to right, {stops})'></div>"
        "<div class='ends'><span>first layer</span><span>last layer</span></div>"
    )
