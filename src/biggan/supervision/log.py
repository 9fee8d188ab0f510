"""What a run writes on its way, one JSON object a line, and the same curves for TensorBoard.

    metrics.jsonl    losses and speed, every `log_every` steps; evaluations
    signals.jsonl    the state of both networks, every `watch.every` steps (`signals`)
    events.jsonl     collapses, rollbacks, interventions, stops

After a rollback the first two end at the step that the run goes back to; the lines after it are
kept in metrics.before-rollback-1.jsonl, and so on. Events stay: a rollback is part of the run's
history. Only a kill removes those of the current attempt beyond its checkpoint; they happen again.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO, TypeGuard

from biggan.atomic_write import write_atomically
from biggan.errors import InputError
from biggan.supervision.collapse import WINDOW

if TYPE_CHECKING:
    from biggan.supervision.trackers import Tracker

_LOG = logging.getLogger("biggan.training")
_NAMES = ("metrics", "signals")
_DEEPEST = 16  # levels of objects and lists within each other
_LAST_STEP = 2**53  # larger numbers are not steps


@dataclass(frozen=True)
class Event:
    """Something that happened to a run."""

    step: int
    event: str
    """`collapse`, `rollback`, `stop` or `intervention`; newer versions may write others."""
    reason: str = ""
    """One sentence."""
    attempt: int = 0
    """Rollbacks before it."""
    rule: str | None = None
    """Of a collapse: the rule that found it."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """The figures that decided."""
    to: int | None = None
    """Of a rollback: the step that the run goes on from."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """What is different from now on, by key of the recipe."""

    def to_dict(self) -> dict[str, Any]:
        """As it is written, without what does not apply."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {})}

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> Self | None:
        """An event as it was read; None for a line that is none. Damaged details are left out."""
        step, kind, attempt = (line.get(name) for name in ("step", "event", "attempt"))
        if not is_step(step) or not isinstance(kind, str):
            return None
        types = {"reason": str, "rule": str, "values": dict, "changes": dict}
        details = {name: line[name] for name, t in types.items() if isinstance(line.get(name), t)}
        to = line.get("to")
        return cls(
            step,
            kind,
            attempt=attempt if is_step(attempt) else 0,
            to=to if is_step(to) else None,
            **details,
        )

    def is_before(self, step: int) -> bool:
        """Whether it lies behind a run that goes on at a step."""
        # Interventions come before the step that is done next, everything else after the last one.
        return self.step < step or (self.step == step and self.event != "intervention")


def read_events(run_dir: Path) -> tuple[list[Event], int]:
    """All events of a run in the order of the file, and how many lines could not be read."""
    path = run_dir / "events.jsonl"
    try:
        found = [Event.from_dict(line) for _, line in read_lines(path)]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    events = [event for event in found if event is not None]
    return events, len(found) - len(events)


class RunLog:
    """The three files and `tensorboard/` in a run's folder.

    Lines beyond `step`, where this process starts, are dropped: they are of a process that was
    killed after its last checkpoint, and will be written again. A tracker gets the same curves as
    TensorBoard.

    Raises:
        InputError: A file cannot be written; so may every method.
    """

    def __init__(
        self, run_dir: Path, step: int, attempt: int, tracker: Tracker | None = None
    ) -> None:
        self._run_dir = run_dir
        self._tracker = tracker
        self._files: dict[str, TextIO] = {}
        self._recent: deque[Mapping[str, Any]] = deque(maxlen=WINDOW)
        self._open(step)
        self.events = [
            event
            for event in read_events(run_dir)[0]
            if event.attempt < attempt or event.is_before(step)
        ]
        if (run_dir / "events.jsonl").exists():
            self._write_events()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record the metrics of one step."""
        self._append("metrics", {"step": step, **values}, values)

    def write_signals(self, step: int, signals: Mapping[str, Any]) -> None:
        """Record the signals of one step."""
        line = {"step": step, **signals}
        self._append("signals", line, dict(scalars(signals)))
        self._recent.append(line)

    def write_event(self, event: Event) -> None:
        """Record an event, once: after a kill it may happen again to the step that goes on."""
        written = Event.from_dict(json.loads(json.dumps(event.to_dict())))  # as it is read again
        if written is not None and written not in self.events:
            self.events.append(written)
            self._write_events()

    @property
    def recent_signals(self) -> list[Mapping[str, Any]]:
        """The last lines of signals.jsonl, oldest first: all that the collapse rules need."""
        return list(self._recent)

    def has_collapse(self, attempt: int) -> bool:
        """Whether a collapse of an attempt was recorded."""
        return any(e.event == "collapse" and e.attempt == attempt for e in self.events)

    def keep_beyond(self, step: int, number: int) -> None:
        """Copy what was written after a step to files beside, before a rollback (from 1 on)."""
        for name in _NAMES:
            beyond = [text for text, at in _steps(self._run_dir / f"{name}.jsonl") if at > step]
            kept = self._run_dir / f"{name}.before-rollback-{number}.jsonl"
            write_atomically(kept, "".join(f"{line}\n" for line in beyond).encode())

    def go_back(self, step: int) -> None:
        """Drop metrics and signals that were written after a step."""
        self.close()
        self._open(step)

    def _open(self, start: int) -> None:
        path = self._run_dir
        try:
            self._files = {}
            for name in _NAMES:
                path = self._run_dir / f"{name}.jsonl"
                if path.exists():
                    kept = [line for line, at in _steps(path) if at <= start]
                    write_atomically(path, "".join(f"{line}\n" for line in kept).encode())
                # A run that is not watched has no signals.jsonl.
                if name == "metrics" or path.exists():
                    self._files[name] = path.open("a", encoding="utf-8")
            # Numbers survive JSON to the bit: a resumed run comes to the same verdicts.
            recent = _steps(self._run_dir / "signals.jsonl")[-WINDOW:]
            self._recent = deque((json.loads(text) for text, _ in recent), WINDOW)
            self._writer = _tensorboard_writer(self._run_dir / "tensorboard", start)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from None

    def _append(self, name: str, line: Mapping[str, Any], curves: Mapping[str, float]) -> None:
        path = self._run_dir / f"{name}.jsonl"
        try:
            if name not in self._files:
                self._files[name] = path.open("a", encoding="utf-8")
            self._files[name].write(json.dumps(line) + "\n")
            self._files[name].flush()
            if self._writer is not None:
                for curve, value in curves.items():
                    self._writer.add_scalar(curve, value, line["step"])
            if self._tracker is not None:
                self._tracker.log_values(line["step"], curves)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from None

    def _write_events(self) -> None:
        # Events are few, and a line that a kill cut short would be lost.
        text = "".join(json.dumps(event.to_dict()) + "\n" for event in self.events)
        write_atomically(self._run_dir / "events.jsonl", text.encode())

    def close(self) -> None:
        """Close the files."""
        # A full disk was reported when it was noticed; what is still in the buffers is lost.
        for file in [*self._files.values(), *([self._writer] if self._writer else [])]:
            with contextlib.suppress(OSError):
                file.close()


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every line of a log with the object that it holds, an empty one if it is damaged."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            text = line.removesuffix("\n")
            try:
                yield text, parse_object(text)
            except ValueError:
                yield text, {}


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object that a text holds; ValueError for none, or one that is nested too deeply."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("no object")
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        containers = [inner for inner in level if isinstance(inner, dict | list)]
        level = [v for c in containers for v in (c.values() if isinstance(c, dict) else c)]
        if not level:
            return value
    raise ValueError("nested too deeply")


def scalars(signals: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The part of a line of signals that is drawn in TensorBoard, by curve."""
    for network, layers in signals["singular_values"].items():
        for layer, values in layers.items():
            yield f"sigma0 of {network}/{layer}", values[0]
    for network, norm in signals["gradient_norms"].items():
        yield f"gradient_norm/{network}", norm
    for kind, described in signals["logits"].items():
        yield f"logits/{kind}", described["mean"]
    for kind, part in signals["accuracy"].items():
        yield f"accuracy/{kind}", part
    yield "diversity", signals["diversity"]


def is_step(value: Any) -> TypeGuard[int]:
    """Whether a value of a log is the number of a step."""
    return type(value) is int and 0 <= value < _LAST_STEP


def _steps(path: Path) -> list[tuple[str, int]]:
    """The lines of a log that have a step, and their steps."""
    return [
        (text, line["step"]) for text, line in read_lines(path) if type(line.get("step")) is int
    ]


def _tensorboard_writer(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        _LOG.info("no TensorBoard curves: they need pip install 'biggan[train]'")
        return None
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        _LOG.info("no TensorBoard curves: TensorBoard needs a folder name in UTF-8")
        return None
    # TensorBoard hides what an earlier process wrote from this step on.
    return SummaryWriter(str(folder), purge_step=start)
