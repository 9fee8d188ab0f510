"""What a run's folder tells of the run: the recipe, its logs, its evaluations and sample sheets."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biggan.errors import InputError
from biggan.training.config import flatten
from biggan.training.logging import parse_object
from biggan.training.report.logs import (
    LAST_STEP,
    Curve,
    Event,
    Log,
    abandoned_logs,
    read_events,
    read_log,
)


@dataclass(frozen=True)
class Attempt:
    """What a rollback undid: the lines of both logs after the step that it went back to."""

    number: int
    metrics: Log
    signals: Log


@dataclass(frozen=True)
class RunRecord:
    """What a run's folder tells.

    Attributes:
        name: The folder's name.
        recipe: The resolved recipe, flat: "table.key".
        curves: For each metric the steps and values that are finite.
        not_finite: Steps at which a metric was not finite.
        evaluations: The figures of each evaluated step, in order.
        sheets: Sample sheets, in order of their steps.
        missing: What could not be read, in words.
        signals: Of the state of both networks; empty if the run was not watched.
        events: What happened, in order.
        attempts: What rollbacks undid, the first first.
    """

    name: str
    recipe: dict[str, Any]
    curves: dict[str, Curve]
    not_finite: dict[str, list[int]]
    evaluations: list[dict[str, Any]]
    sheets: list[tuple[int, Path]]
    missing: list[str] = field(default_factory=list)
    signals: Log = field(default_factory=Log)
    events: list[Event] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def last_step(self) -> int | None:
        """The newest step that a log tells of."""
        steps = [curve.steps[-1] for curve in self.curves.values()]
        if self.signals.last_step is not None:
            steps.append(self.signals.last_step)
        return max(steps, default=None)

    @property
    def total_steps(self) -> int | None:
        """The step at which the recipe ends."""
        total = self.recipe.get("total_steps")
        return total if isinstance(total, int) and 0 <= total < LAST_STEP else None


def read_run(run_dir: Path) -> RunRecord:
    """Read what a run has written of itself.

    Raises:
        InputError: There is no run here.
    """
    recipe_file, log_file = run_dir / "config.toml", run_dir / "metrics.jsonl"
    signals_file = run_dir / "signals.jsonl"
    if not any(file.exists() for file in (recipe_file, log_file, signals_file)):
        raise InputError(f"{run_dir} holds no run: it has neither config.toml nor metrics.jsonl")
    missing: list[str] = []
    recipe: dict[str, Any] = {}
    try:
        recipe = flatten(tomllib.loads(recipe_file.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        missing.append("the recipe (config.toml)")
    metrics, signals = read_log(log_file), read_log(signals_file)
    if not metrics.curves:
        missing.append("the curves (metrics.jsonl)")
    events, damaged_events = read_events(run_dir / "events.jsonl")
    for name, damaged in (
        ("metrics", metrics.damaged),
        ("signals", signals.damaged),
        ("events", damaged_events),
    ):
        if damaged:
            missing.append(f"{damaged} damaged lines of {name}.jsonl")
    sheets = sorted(
        (int(path.stem.removeprefix("step-")), path)
        for path in (run_dir / "previews").glob("step-*.png")
        if path.stem.removeprefix("step-").isdecimal()
    )
    if not sheets:
        missing.append("sample sheets (previews)")
    evaluations = _read_evaluations(run_dir / "evaluations", missing)
    return RunRecord(
        run_dir.resolve().name.encode(errors="replace").decode(),
        recipe,
        {_name(key): curve for key, curve in metrics.curves.items()},
        {_name(key): steps for key, steps in metrics.not_finite.items()},
        evaluations,
        sheets,
        missing,
        signals,
        events,
        _read_attempts(run_dir),
    )


def _name(key: tuple[str, ...]) -> str:
    return "/".join(key)


def _read_attempts(run_dir: Path) -> list[Attempt]:
    metrics, signals = (abandoned_logs(run_dir, name) for name in ("metrics", "signals"))
    return [
        Attempt(
            number,
            read_log(metrics[number]) if number in metrics else Log(),
            read_log(signals[number]) if number in signals else Log(),
        )
        for number in sorted(metrics | signals)
    ]


def _read_evaluations(folder: Path, missing: list[str]) -> list[dict[str, Any]]:
    evaluations = []
    for path in sorted(folder.glob("step-*.json")):
        try:
            evaluation = parse_object(path.read_text(encoding="utf-8"))
            scores = dict(evaluation["rows"][0]["scores"])
            step, num = int(path.stem.removeprefix("step-")), evaluation["protocol"]["num"]
            if not (0 <= step < LAST_STEP and isinstance(num, int)):
                raise ValueError
            evaluations.append(
                {
                    "step": step,
                    "scores": {name: float(value) for name, value in scores.items()},
                    "extractor": str(evaluation["extractor"]["name"]),
                    "num": num,
                    "reference": str(evaluation["reference"]["name"]),
                }
            )
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            IndexError,
            AttributeError,
            OverflowError,
        ):
            missing.append(f"the evaluation {path.name}")
    return evaluations
