"""What befell a run: one JSON object a line in events.jsonl.

A rollback is part of a run's history, so its events stay when the run goes back. Only a kill takes
some away: those of the attempt that goes on, of steps beyond its checkpoint; they happen again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from biggan.atomic_write import write_atomically
from biggan.errors import InputError
from biggan.training.logging import parse_object

EventKind = Literal["collapse", "rollback", "stop", "intervention"]


@dataclass(frozen=True)
class Event:
    """Something that befell a run."""

    step: int
    event: EventKind
    reason: str
    """One sentence."""
    attempt: int = 0
    """Rollbacks before it."""
    rule: str | None = None
    """Of a collapse: which rule called it."""
    values: Mapping[str, float] = field(default_factory=dict)
    """The figures that decided."""
    to: int | None = None
    """Of a rollback: the step that the run goes on from."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """What is different from now on, by key of the recipe."""

    def to_dict(self) -> dict[str, Any]:
        """What is said of it; without what does not apply."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {})}


class EventsLog:
    """Appends to events.jsonl in a run's folder.

    Args:
        run_dir: The run's folder.
        step: The step of the state that goes on.
        attempt: Its attempt.

    Raises:
        InputError: The file cannot be written.
    """

    def __init__(self, run_dir: Path, step: int, attempt: int) -> None:
        self._path = run_dir / "events.jsonl"
        lines = read_events(run_dir)
        kept = [line for line in lines if line["attempt"] < attempt or _is_past(line, step)]
        self.events: list[dict[str, Any]] = kept
        """All events so far, as in the file."""
        if self._path.exists():
            self._write_all()

    def write(self, event: Event) -> None:
        """Record an event, once: after a kill it may happen again to the step that goes on.

        Raises:
            InputError: The file cannot be written.
        """
        line = json.loads(json.dumps(event.to_dict()))  # as one that was read from the file
        if line not in self.events:
            self.events.append(line)
            self._write_all()

    def has(self, kind: EventKind, attempt: int) -> bool:
        """Whether there was such an event in an attempt."""
        return any(e["event"] == kind and e["attempt"] == attempt for e in self.events)

    def _write_all(self) -> None:
        # Events are few, and a line that a kill cut short would be lost.
        text = "".join(json.dumps(event) + "\n" for event in self.events)
        write_atomically(self._path, text.encode())


def _is_past(event: Mapping[str, Any], step: int) -> bool:
    """Whether a run that goes on at a step has an event behind it."""
    # Interventions come before the step that is done next, everything else after the one before.
    is_next = event["event"] == "intervention"
    return bool(event["step"] < step or (event["step"] == step and not is_next))


def read_events(run_dir: Path) -> list[dict[str, Any]]:
    """All events of a run so far; a line that is damaged is left out.

    Raises:
        InputError: The file cannot be read.
    """
    path, events = run_dir / "events.jsonl", []
    if path.exists():
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from None
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError):
                event = parse_object(line)
                numbers = {"step": int(event["step"]), "attempt": int(event.get("attempt", 0))}
                events.append({**event, "event": str(event["event"]), **numbers})
    return events
