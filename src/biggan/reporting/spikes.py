"""Spikes of singular values: rises that stand out from what the curve did before.

The paper (Section 4.2) sees the discriminator's largest singular values grow in sudden jumps, but
leaves to the eye what a spike is. Here is a rule.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

from biggan.reporting.run import Curve, Run

HISTORY = 50  # earlier changes that a change is compared with
LEAST_HISTORY = 10
DEVIATIONS = 8.0
LEAST_RISE = 0.05  # of the natural logarithm
LINES_APART = 5  # rises closer than this many lines of the log are one spike
_NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute deviation

_T = TypeVar("_T")


class Spike(NamedTuple):
    """A spike of one curve: its highest point, and the factor above the value before the rise."""

    step: int
    value: float
    factor: float


class Burst(NamedTuple):
    """Spikes of several layers of one network at one time: the first step and the last."""

    first: int
    last: int
    layers: dict[str, Spike]
    """The strongest spike of each layer, the strongest layer first."""


def find_spikes(curve: Curve) -> list[Spike]:
    """The spikes of a curve; values that are not above 0 are skipped."""
    points = [point for point in curve.points if point[1] > 0]
    logs = [math.log(value) for _, value in points]
    changes = [after - before for before, after in pairwise(logs)]
    rises = [i + 1 for i in range(LEAST_HISTORY, len(changes)) if _stands_out(changes, i)]
    spikes = []
    for group in _groups(rises, lambda place: place):
        top = max(range(group[0], group[-1] + 1), key=logs.__getitem__)
        factor = math.exp(min(logs[top] - logs[group[0] - 1], 700))
        spikes.append(Spike(*points[top], factor))
    return spikes


def group_spikes(spikes: Mapping[str, Sequence[Spike]], steps: Sequence[int]) -> list[Burst]:
    """Combine the spikes of several layers that are at most a few lines of the log apart.

    `steps` are those of the log's lines, ascending.
    """
    pairs = [(spike, layer) for layer, found in spikes.items() for spike in found]
    pairs.sort(key=lambda pair: pair[0].step)
    bursts = []
    for group in _groups(pairs, lambda pair: bisect.bisect_left(steps, pair[0].step)):
        layers: dict[str, Spike] = {}
        for spike, layer in sorted(group, key=lambda pair: -pair[0].factor):
            layers.setdefault(layer, spike)
        bursts.append(Burst(group[0][0].step, group[-1][0].step, layers))
    return bursts


def spikes_of(run: Run, network: str) -> list[dict[str, list[Spike]]]:
    """The spikes of each layer: of the run as it stands, then of what each rollback undid."""
    current = run.signals.singular_values(network)
    found = [{layer: find_spikes(curve) for layer, curve in current.items()}]
    for undone in run.undone:
        spikes = {}
        for layer, curve in undone["signals"].singular_values(network).items():
            whole = find_spikes(continued(current.get(layer), curve, before=HISTORY))
            spikes[layer] = [spike for spike in whole if spike.step >= curve.steps[0]]
        found.append(spikes)
    return found


def bursts_of(run: Run, network: str) -> list[Burst]:
    """The spikes of a network, those at one time together, in order of their steps."""
    logs = [run.signals, *(undone["signals"] for undone in run.undone)]
    curves = [curve for log in logs for curve in log.singular_values(network).values()]
    steps = sorted({step for curve in curves for step in curve.steps})
    bursts = [b for spikes in spikes_of(run, network) for b in group_spikes(spikes, steps)]
    return sorted(bursts, key=lambda burst: burst.first)


def continued(current: Curve | None, undone: Curve, *, before: int = 1) -> Curve:
    """An undone curve with up to `before` points of the one that it branched off from."""
    points = current.points if current else []
    return Curve.of([p for p in points if p[0] < undone.steps[0]][-before:] + undone.points)


def _stands_out(changes: Sequence[float], i: int) -> bool:
    if changes[i] <= LEAST_RISE:
        return False
    before = changes[max(0, i - HISTORY) : i]
    middle = statistics.median(before)
    spread = _NORMAL * statistics.median(abs(change - middle) for change in before)
    return changes[i] - middle > DEVIATIONS * spread


def _groups(items: Sequence[_T], line: Callable[[_T], int]) -> list[list[_T]]:
    """Split items, ordered by their lines, where the next one is too far away."""
    groups: list[list[_T]] = []
    for item in items:
        if groups and line(item) - line(groups[-1][-1]) < LINES_APART:
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups
