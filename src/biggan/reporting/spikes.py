"""Spikes of singular values: rises that stand out from what the curve did before.

The paper (Section 4.2) sees the discriminator's largest singular values grow in sudden jumps, but
leaves to the eye what a spike is. Here is a rule.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from biggan.reporting.run import Curve

HISTORY = 50  # earlier changes that a change is compared with
_LEAST_HISTORY = 10
_DEVIATIONS = 8.0
_LEAST_RISE = 0.05  # of the natural logarithm
_LINES_APART = 5  # rises closer than this many lines of the log are one spike
_NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute deviation

RULE = (
    f"A spike is a rise of ln σ0 from one line of the log to the next by more than {_LEAST_RISE:g} "
    f"({_LEAST_RISE:.0%}) and by more than {_DEVIATIONS:g} robust standard deviations (1.4826 "
    f"times the median absolute deviation) above the median of the layer's last {HISTORY} changes. "
    f"Rises within {_LINES_APART} lines of each other are one spike; the first {_LEAST_HISTORY} "
    "changes of a run are only used for comparison."
)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Spike:
    """A spike of one curve: its highest point, and the factor above the value before the rise."""

    step: int
    value: float
    factor: float


@dataclass(frozen=True)
class Burst:
    """Spikes of several layers of one network at one time: the first step and the last."""

    first: int
    last: int
    layers: dict[str, Spike]
    """The strongest spike of each layer, the strongest layer first."""


def find_spikes(curve: Curve) -> list[Spike]:
    """The spikes of a curve by `RULE`; values that are not above 0 are skipped."""
    points = [point for point in curve.points if point[1] > 0]
    logs = [math.log(value) for _, value in points]
    changes = [after - before for before, after in pairwise(logs)]
    rises = [i + 1 for i in range(_LEAST_HISTORY, len(changes)) if _stands_out(changes, i)]
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


def _stands_out(changes: Sequence[float], i: int) -> bool:
    if changes[i] <= _LEAST_RISE:
        return False
    before = changes[max(0, i - HISTORY) : i]
    middle = statistics.median(before)
    spread = _NORMAL * statistics.median(abs(change - middle) for change in before)
    return changes[i] - middle > _DEVIATIONS * spread


def _groups(items: Sequence[_T], line: Callable[[_T], int]) -> list[list[_T]]:
    """Split items, ordered by their lines, where the next one is too far away."""
    groups: list[list[_T]] = []
    for item in items:
        if groups and line(item) - line(groups[-1][-1]) < _LINES_APART:
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups
