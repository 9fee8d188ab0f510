"""What a spike is: a rise that stands out from what the curve did before.

The paper (Section 4.2) sees the discriminator's largest singular values grow in sudden jumps, like
impulse responses, and reads them as the generator's finding an input that the discriminator answers
strongly to. Its figures leave to the eye what a spike is; here is a rule.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from biggan.training.report.logs import Curve

HISTORY = 50  # changes that a change is compared with
LEAST_HISTORY = 10
DEVIATIONS = 8.0
LEAST_RISE = 0.05  # of the natural logarithm: 5 %
_NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
_LINES_APART = 5  # rises closer than this many lines are one spike

RULE = (
    f"A spike is a rise of ln σ0 from one line of the log to the next by more than {LEAST_RISE:g} "
    f"({LEAST_RISE:.0%}) and by more than {DEVIATIONS:g} robust standard deviations (1.4826 times "
    f"the median absolute deviation) above the median of the layer's last {HISTORY} changes. Rises "
    f"within {_LINES_APART} lines of each other are one spike; the first {LEAST_HISTORY} changes "
    "of a run only serve to compare with."
)


@dataclass(frozen=True)
class Spike:
    """A spike of one curve.

    Attributes:
        step: Of the highest value.
        value: There.
        factor: The highest value over the value before the rise.
    """

    step: int
    value: float
    factor: float


@dataclass(frozen=True)
class Burst:
    """Spikes of several layers of one network at one time.

    Attributes:
        first: Step of the first of them.
        last: Step of the last.
        layers: Of each layer its strongest spike, the strongest layer first.
    """

    first: int
    last: int
    layers: dict[str, Spike]


def find_spikes(curve: Curve) -> list[Spike]:
    """The spikes of a curve of positive numbers; see `RULE`.

    Values that are not above 0 are passed over.
    """
    points = [(s, v) for s, v in zip(curve.steps, curve.values, strict=True) if v > 0]
    logs = [math.log(value) for _, value in points]
    changes = [after - before for before, after in pairwise(logs)]
    rises = [i + 1 for i in range(LEAST_HISTORY, len(changes)) if _stands_out(changes, i)]
    spikes, i = [], 0
    while i < len(rises):
        first = last = rises[i]
        while i + 1 < len(rises) and rises[i + 1] - last < _LINES_APART:
            i += 1
            last = rises[i]
        i += 1
        top = max(range(first, last + 1), key=lambda k: logs[k])
        factor = math.exp(min(logs[top] - logs[first - 1], 700))
        spikes.append(Spike(*points[top], factor))
    return spikes


def _stands_out(changes: Sequence[float], i: int) -> bool:
    change = changes[i]
    if change <= LEAST_RISE:
        return False
    before = changes[max(0, i - HISTORY) : i]
    middle = statistics.median(before)
    spread = _NORMAL * statistics.median(abs(c - middle) for c in before)
    return change - middle > DEVIATIONS * spread


def group_spikes(spikes: Mapping[str, Sequence[Spike]], steps: Sequence[int]) -> list[Burst]:
    """Put together what happened to several layers at once.

    Args:
        spikes: Of each layer.
        steps: Of the log's lines, ascending; spikes within a few lines of each other are one burst.
    """
    all_spikes = sorted(
        ((spike, layer) for layer, of_layer in spikes.items() for spike in of_layer),
        key=lambda pair: pair[0].step,
    )
    groups: list[list[tuple[Spike, str]]] = []
    for spike, layer in all_spikes:
        line = bisect.bisect_left(steps, spike.step)
        if groups and line - bisect.bisect_left(steps, groups[-1][-1][0].step) < _LINES_APART:
            groups[-1].append((spike, layer))
        else:
            groups.append([(spike, layer)])
    bursts = []
    for group in groups:
        layers: dict[str, Spike] = {}
        for spike, layer in sorted(group, key=lambda pair: -pair[0].factor):
            layers.setdefault(layer, spike)
        bursts.append(Burst(group[0][0].step, group[-1][0].step, layers))
    return bursts
