"""Reading a run's logs: JSON lines that a kill may have cut, that may hold NaN, of any version.

Whatever numbers a line holds become curves, by the path of names that leads to them, so that those
of a newer version are curves as well. What cannot be read is counted and never ends the reading.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from biggan.training.logging import parse_object

Key = tuple[str, ...]
"""The names that lead to a number, such as ("logits", "real", "mean")."""

LAST_STEP = 2**53
"""Numbers beyond it are no steps."""


class Curve(NamedTuple):
    """Numbers over steps, all finite, steps ascending."""

    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Log:
    """What a log holds.

    Attributes:
        curves: Of each number its finite values.
        not_finite: The steps at which it was NaN, infinite or null.
        damaged: How many lines could not be read.
    """

    curves: dict[Key, Curve] = field(default_factory=dict)
    not_finite: dict[Key, list[int]] = field(default_factory=dict)
    damaged: int = 0

    def under(self, *start: str) -> dict[Key, Curve]:
        """The curves whose path begins with these names; without them."""
        n = len(start)
        return {key[n:]: curve for key, curve in self.curves.items() if key[:n] == start}

    def first_not_finite(self, *start: str) -> int | None:
        """The first step at which a number under these names was none."""
        n = len(start)
        steps = [steps[0] for key, steps in self.not_finite.items() if key[:n] == start]
        return min(steps, default=None)

    @property
    def last_step(self) -> int | None:
        """The newest step of all."""
        return max((curve.steps[-1] for curve in self.curves.values()), default=None)


@dataclass(frozen=True)
class Event:
    """Something that happened to a run: `kind` at `step`.

    Attributes:
        step: When.
        kind: "collapse", "rollback", "stop", "intervention", or what another version calls it.
        reason: Why, one sentence.
        rule: Of the collapse detector, its name.
        values: The numbers behind it.
        to: The step that a rollback went back to.
        changes: What was changed, by keys of the recipe.
    """

    step: int
    kind: str
    reason: str = ""
    rule: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    to: int | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


def read_log(path: Path) -> Log:
    """Read a log of numbers, a JSON object with a "step" a line; what is not there is empty."""
    log = Log()
    damaged = 0
    for line in _objects(path):
        step = None if line is None else _step(line.get("step"))
        if line is None or step is None:
            damaged += 1
            continue
        for key, value in _numbers(line):
            if key == ("step",):
                continue
            if math.isfinite(value):
                steps, values = log.curves.setdefault(key, Curve([], []))
                steps.append(step)
                values.append(value)
            else:
                log.not_finite.setdefault(key, []).append(step)
    for key, curve in log.curves.items():
        log.curves[key] = _ascending(curve)
    return Log(log.curves, log.not_finite, damaged)


def read_events(path: Path) -> tuple[list[Event], int]:
    """The events of a run in the order of the file, and how many lines could not be read."""
    events, damaged = [], 0
    for line in _objects(path):
        step = None if line is None else _step(line.get("step"))
        kind = None if line is None else line.get("event")
        if line is None or step is None or not isinstance(kind, str):
            damaged += 1
            continue
        values, changes = line.get("values"), line.get("changes")
        events.append(
            Event(
                step,
                kind,
                reason=_word(line.get("reason")),
                rule=_word(line.get("rule")),
                values=values if isinstance(values, dict) else {},
                to=_step(line.get("to")),
                changes=changes if isinstance(changes, dict) else {},
            )
        )
    return events, damaged


def abandoned_logs(run_dir: Path, name: str) -> dict[int, Path]:
    """What rollbacks took out of a log: NAME.before-rollback-K.jsonl by K, ascending."""
    found = {}
    for path in run_dir.glob(f"{name}.before-rollback-*.jsonl"):
        if match := re.fullmatch(rf"{name}\.before-rollback-(\d{{1,6}})\.jsonl", path.name):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def _objects(path: Path) -> Iterator[dict[str, Any] | None]:
    """The object of each line; None for a line that holds none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    yield parse_object(line)
                except ValueError:  # cut short by a kill; or no log at all
                    yield None
    except OSError:
        return


def _numbers(value: Any, key: Key = ()) -> Iterator[tuple[Key, float]]:
    """All numbers within a value, with the names that lead to them."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, (*key, name.encode(errors="replace").decode()))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _numbers(inner, (*key, str(i)))
    elif value is None:  # what strict writers put for NaN
        yield key, math.nan
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            yield key, float(value)
        except OverflowError:
            yield key, math.inf


def _step(value: Any) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value < LAST_STEP else None


def _word(value: Any) -> str:
    """Text, without the halves of characters that JSON allows and no file can hold."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""


def _ascending(curve: Curve) -> Curve:
    """Steps in order; of two values at a step the later one counts."""
    if all(a < b for a, b in pairwise(curve.steps)):
        return curve
    newest = dict(zip(curve.steps, curve.values, strict=True))
    steps = sorted(newest)
    return Curve(steps, [newest[step] for step in steps])
