"""What a run's folder holds: its recipe, logs, events, evaluations and sample sheets.

Logs may be cut short by a kill, hold NaN, or come from another version. Every number in them
becomes a curve under its path of names; lines that cannot be read are counted.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from biggan.errors import require
from biggan.supervision.log import Event, is_step, parse_object, read_events, read_lines
from biggan.training.config import flatten

if TYPE_CHECKING:
    from biggan.reporting.truncation import Sweep

Key = tuple[str, ...]
"""The path of names to a number, such as ("logits", "real", "mean")."""

NETWORKS = {"generator": "G", "discriminator": "D"}
SCORES = {
    "fid": "FID",
    "is": "Inception Score",
    "frechet_distance": "Frechet distance",
    "classifier_score": "classifier score",
}


class Curve(NamedTuple):
    """Finite values over ascending steps."""

    steps: list[int]
    values: list[float]

    @classmethod
    def of(cls, points: Iterable[tuple[int, float]]) -> Self:
        """A curve of points; of two values at one step the later one counts."""
        newest = sorted(dict(points).items())
        return cls([step for step, _ in newest], [value for _, value in newest])

    @property
    def points(self) -> list[tuple[int, float]]:
        """Pairs of step and value."""
        return list(zip(self.steps, self.values, strict=True))


@dataclass(frozen=True)
class Log:
    """The numbers of one log file."""

    curves: dict[Key, Curve] = field(default_factory=dict)
    """The finite values of each number; no curve is empty."""
    not_finite: dict[Key, list[int]] = field(default_factory=dict)
    """The steps at which a number was NaN, infinite or null."""
    damaged: int = 0
    """Lines that could not be read."""

    def under(self, *start: str) -> dict[Key, Curve]:
        """The curves whose path begins with these names, by the rest of the path."""
        n = len(start)
        return {key[n:]: curve for key, curve in self.curves.items() if key[:n] == start}

    def singular_values(self, network: str, index: int = 0) -> dict[str, Curve]:
        """A singular value of each layer, first layer to last; index 0 is the largest."""
        curves = self.under("singular_values", network)
        return {key[0]: c for key, c in curves.items() if len(key) == 2 and key[1] == str(index)}

    def late_mean(self, *key: str) -> float | None:
        """The mean over the last quarter of a curve: a single line of a log says little."""
        values = self.curves[key].values if key in self.curves else []
        late = values[-max(5, len(values) // 4) :]
        return sum(late) / len(late) if late else None


class Evaluation(NamedTuple):
    """The scores of the generator at one step."""

    step: int
    scores: dict[str, float]
    extractor: str
    num: int
    reference: str


@dataclass
class Run:
    """What a run's folder holds."""

    name: str
    recipe: dict[str, Any]
    """The resolved recipe, flat: "table.key"."""
    metrics: Log
    signals: Log
    """Empty if the run was not watched."""
    events: list[Event]
    undone: list[dict[str, Log]]
    """The lines of "metrics" and "signals" that each rollback removed."""
    evaluations: list[Evaluation]
    sheets: list[tuple[int, Path]]
    """Sample sheets with their steps."""
    missing: list[str]
    """What could not be read, in words."""
    folder: Path
    """Where all this is."""
    sweep: Sweep | None = None
    """What `measure_truncation` found of its generator."""

    @property
    def last_step(self) -> int | None:
        """The newest step in the logs."""
        curves = [*self.metrics.curves.values(), *self.signals.curves.values()]
        return max((curve.steps[-1] for curve in curves), default=None)

    @property
    def total_steps(self) -> int | None:
        """The step at which the recipe ends."""
        total = self.recipe.get("total_steps")
        return total if is_step(total) else None

    def first_not_finite(self) -> tuple[int, str] | None:
        """The first step with a number that is not finite, and its name."""
        found = [(s[0], "/".join(key)) for key, s in self.metrics.not_finite.items()]
        found += [(s[0], " ".join(key)) for key, s in self.signals.not_finite.items()]
        return min(found, default=None)

    def score_curve(self, score: str) -> Curve | None:
        """A score over the evaluated steps, where it was finite."""
        points = [(e.step, e.scores.get(score, math.nan)) for e in self.evaluations]
        points = [point for point in points if math.isfinite(point[1])]
        return Curve.of(points) if points else None


def read_run(run_dir: Path) -> Run:
    """Read what a run has written so far."""
    files = [run_dir / name for name in ("config.toml", "metrics.jsonl", "signals.jsonl")]
    require(
        any(file.exists() for file in files),
        f"{run_dir} is not a run folder: it has neither config.toml nor metrics.jsonl",
    )
    missing: list[str] = []
    recipe: dict[str, Any] = {}
    try:
        recipe = flatten(tomllib.loads(files[0].read_text(encoding="utf-8-sig")))
    except (OSError, ValueError, RecursionError):
        missing.append("the recipe (config.toml)")
    metrics, signals = read_log(files[1]), read_log(files[2])
    if not metrics.curves:
        missing.append("the curves (metrics.jsonl)")
    events, damaged_events = read_events(run_dir)
    damaged = {"metrics": metrics.damaged, "signals": signals.damaged, "events": damaged_events}
    missing += [f"{n} damaged lines of {name}.jsonl" for name, n in damaged.items() if n]
    previews = (run_dir / "previews").glob("step-*.png")
    numbered = ((path.stem.removeprefix("step-"), path) for path in previews)
    sheets = sorted((int(step), path) for step, path in numbered if step.isdecimal())
    if not sheets:
        missing.append("sample sheets (previews)")
    evaluations = []
    for path in sorted((run_dir / "evaluations").glob("step-*.json")):
        try:
            evaluations.append(_read_evaluation(path))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
            missing.append(f"the evaluation {path.name}")
    kept = re.compile(r"(?:metrics|signals)\.before-rollback-(\d{1,6})\.jsonl")
    found = (kept.fullmatch(path.name) for path in run_dir.iterdir())
    undone = [
        {n: read_log(run_dir / f"{n}.before-rollback-{i}.jsonl") for n in ("metrics", "signals")}
        for i in sorted({int(match[1]) for match in found if match})
    ]
    logs = metrics, signals, events, undone
    name = _printable(run_dir.resolve().name)
    return Run(name, recipe, *logs, evaluations, sheets, missing, run_dir)


def read_log(path: Path) -> Log:
    """Read a log with one JSON object a line; a file that is not there is an empty log."""
    points: dict[Key, list[tuple[int, float]]] = {}
    not_finite: dict[Key, list[int]] = {}
    damaged = 0
    with suppress(OSError):  # what can be read of it is drawn
        for _, line in read_lines(path):
            step = line.pop("step", None)
            if not is_step(step):
                damaged += 1
                continue
            for key, value in _numbers(line):
                if math.isfinite(value):
                    points.setdefault(key, []).append((step, value))
                else:
                    not_finite.setdefault(key, []).append(step)
    return Log({key: Curve.of(pairs) for key, pairs in points.items()}, not_finite, damaged)


def _read_evaluation(path: Path) -> Evaluation:
    contents = parse_object(path.read_text(encoding="utf-8"))
    scores = {name: float(value) for name, value in contents["rows"][0]["scores"].items()}
    step, num = int(path.stem.removeprefix("step-")), contents["protocol"]["num"]
    if not is_step(step) or not isinstance(num, int):
        raise ValueError
    extractor, reference = contents["extractor"]["name"], contents["reference"]["name"]
    return Evaluation(step, scores, str(extractor), num, str(reference))


def _numbers(value: Any, key: Key = ()) -> Iterator[tuple[Key, float]]:
    """All numbers within a value, each with its path."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, (*key, _printable(name)))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _numbers(inner, (*key, str(i)))
    elif value is None:  # what strict JSON writers put for NaN
        yield key, math.nan
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            yield key, float(value)
        except OverflowError:
            yield key, math.inf


def _printable(text: str) -> str:
    """Text without lone surrogates, which JSON allows and no file can hold."""
    return text.encode(errors="replace").decode()
