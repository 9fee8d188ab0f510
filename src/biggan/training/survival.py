"""What is done when a run has collapsed: say so, stop, or roll back and try again.

A rollback goes to the newest checkpoint from before the collapse began, which may have been long
before it was noticed, or to the start where there is none. Files change in an order that leaves a
whole run whenever a kill comes: until the checkpoint of the next attempt is written, the old
attempt goes on, and collapses again in the same way.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biggan.atomic_write import make_folder
from biggan.distributed import from_first, is_first, raising_together
from biggan.errors import InputError
from biggan.gan import Gan
from biggan.stability.collapse import Collapse, find_collapse, scores_collapsed
from biggan.training.attempt import Attempt
from biggan.training.checkpoint import CheckpointDirectory, rollback_reach
from biggan.training.config import TrainConfig
from biggan.training.events import Event, EventKind, EventsLog
from biggan.training.logging import RunLog
from biggan.training.state import TrainState

_LOG = logging.getLogger("biggan.training")
_SET_ASIDE = ("evaluations", "previews")


@dataclass(frozen=True)
class Run:
    """What a rollback needs of the run."""

    folder: Path
    checkpoints: CheckpointDirectory
    fingerprint: str
    """Of the data."""
    create: Callable[[], TrainState]
    """The state before the first step."""
    export: Callable[[TrainState], Gan]
    """Writes the generator of a state, ready to sample."""


class Survival:
    """Watches over a run, and answers for what happens when it collapses.

    Several processes must use it together; the first one reads and writes.

    Args:
        config: The recipe.
        run: The run.
        log: Its log, on the first process.
        state: As training starts.
    """

    def __init__(
        self, config: TrainConfig, run: Run, log: RunLog | None, state: TrainState
    ) -> None:
        self._config = config
        self._run = run
        self._log = log
        self._events: EventsLog | None = None
        with raising_together():
            if is_first():
                self._events = EventsLog(run.folder, state.step, state.attempt.number)

    def observe(self, signals: Mapping[str, Any] | None, step: int) -> Collapse | None:
        """Write a line of signals, and judge it by those before it; the same on all processes."""
        collapse = None
        with raising_together():
            if self._log is not None and signals is not None:
                self._log.write_signals(step, signals)
                collapse = find_collapse(self._log.recent_signals(), self._config.loss.margin)
        return from_first(collapse)

    def judge_scores(self, scores: Sequence[tuple[int, float]], step: int) -> Collapse | None:
        """Judge the distances so far, if a step has one; the same on all processes.

        Args:
            scores: Steps and distances, on the first process.
            step: Where the run is. A kill may have come between its evaluation and what followed,
                so a run that goes on judges the step that it goes on from.
        """
        is_new = bool(scores) and scores[-1][0] == step
        return from_first(scores_collapsed(scores) if is_new else None)

    def not_finite(self, values: Mapping[str, float], step: int) -> Collapse | None:
        """A collapse of the most obvious kind: a metric that is no number."""
        for name, value in values.items():
            if not math.isfinite(value):
                return self._diverged(f"{name} is {value}", step)
        return None

    def not_finite_state(self, state: TrainState) -> Collapse | None:
        """The same where the losses are still good, and the update that followed them was not."""
        names = state.not_finite() if is_first() else []
        if not (names := from_first(names)):
            return None
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return self._diverged(f"{names[0]}{others} holds values that are not finite", state.step)

    def events(self) -> list[dict[str, Any]]:
        """What befell the run so far, for the model card; the same on all processes."""
        return from_first([] if self._events is None else list(self._events.events))

    def record(
        self, state: TrainState, kind: EventKind, reason: str, changes: Mapping[str, Any]
    ) -> None:
        """Record an event that is no matter of survival; all processes call it."""
        with raising_together():
            if self._events is not None:
                event = Event(state.step, kind, reason, state.attempt.number, changes=changes)
                self._events.write(event)
                _LOG.info("step %d: %s", state.step, reason)

    def respond(self, collapse: Collapse, state: TrainState) -> bool:
        """Do what the recipe says about a collapse.

        Args:
            collapse: What was found, the same on all processes.
            state: Where it was found; after a rollback, where the run goes on.

        Returns:
            Whether the run was rolled back.

        Raises:
            InputError: The run must stop.
        """
        settings, attempt = self._config.collapse, state.attempt.number
        if settings.action == "report" and not collapse.fatal and self._was_reported(attempt):
            return False
        step = state.step
        target: int | None = None
        with raising_together():
            if self._events is not None:
                earliest = max(0, step - rollback_reach(self._config))
                target = self._run.checkpoints.last_until(max(collapse.onset, earliest))
                if target is not None:
                    self._run.checkpoints.keep_before_collapse(target)
                said = Event(
                    step, "collapse", collapse.reason, attempt, collapse.rule, collapse.values
                )
                self._events.write(said)
        target = from_first(target)
        _LOG.warning("step %d: %s", step, collapse.reason)
        if settings.action == "report" and not collapse.fatal:
            return False
        if settings.action == "rollback" and attempt < settings.rollbacks:
            self._roll_back(state, target)
            return True
        self._stop(collapse, state, target)
        return False

    def _was_reported(self, attempt: int) -> bool:
        return from_first(self._events is not None and self._events.has("collapse", attempt))

    def _roll_back(self, state: TrainState, target: int | None) -> None:
        step, before = state.step, state.attempt
        after, to = before.following(self._config.collapse), target or 0
        changes = _changes(self._config, after)
        with raising_together():
            if self._events is not None and self._log is not None:
                reason = _rollback_reason(to, after, changes)
                event = Event(step, "rollback", reason, before.number, to=to, changes=changes)
                self._events.write(event)
                self._log.keep_beyond(to, after.number)
                for name in _SET_ASIDE:
                    _set_aside(self._run.folder / name, to, after.number)
                _LOG.warning("step %d: %s", step, reason)
        self._restore(state, target)
        state.attempt = after
        with raising_together():
            if self._log is not None:
                self._run.checkpoints.delete_beyond(to)
                self._run.checkpoints.save(state, self._config, self._run.fingerprint)
                if target is None:
                    self._run.checkpoints.keep_before_collapse(to)
                self._log.go_back(to)
        self._run.export(state)

    def _restore(self, state: TrainState, target: int | None) -> None:
        if target is None:
            fresh = self._run.create()
            state.load_tensors(fresh.tensors())
            state.step = 0
            return
        with raising_together():
            saved = self._run.checkpoints.read(target)
        saved.restore(state)

    def _stop(self, collapse: Collapse, state: TrainState, target: int | None) -> None:
        """Leave the run at the last checkpoint before the collapse, and say so."""
        step, attempt = state.step, state.attempt.number
        tried = f" after {attempt} rollback{'s' * (attempt > 1)}" if attempt else ""
        verb = "diverged" if collapse.fatal else "collapsed"
        returns = target is not None and self._config.collapse.action != "report"
        where = "the checkpoints before are kept"
        if target is None:
            where = "there is no checkpoint from before that"
        elif returns:
            where = f"the folder holds the state and the generator of step {target}, before that"
        with raising_together():
            if self._events is not None:
                reason = f"The run was stopped at step {step}{tried}."
                to = target if returns else None
                self._events.write(Event(step, "stop", reason, attempt, to=to))
        if returns and target is not None:
            self._restore(state, target)
            with raising_together():
                if is_first():
                    self._run.checkpoints.delete_beyond(target)
            self._run.export(state)
        raise InputError(
            f"training {verb}{tried}: {collapse.reason.rstrip('.')}; {where}. {_way_out(attempt)}"
        )

    def _diverged(self, what: str, step: int) -> Collapse:
        looks = max(self._config.log_every, self._config.watch.every)
        return Collapse(
            rule="not finite",
            reason=f"{what} at step {step}.",
            onset=step - 2 * looks,
            fatal=True,
        )


def _way_out(rollbacks: int) -> str:
    anew = "tart anew in another --out with lower learning rates or a larger batch"
    if rollbacks:
        return f"S{anew}"
    return f"Go on with --set collapse.action=rollback, or s{anew}"


def _changes(config: TrainConfig, attempt: Attempt) -> dict[str, float]:
    """The learning rates of an attempt, where they are not the recipe's."""
    used = attempt.applied_to(config).optimizer
    return {
        f"optimizer.{name}": getattr(used, name)
        for name in ("g_lr", "d_lr")
        if getattr(used, name) != getattr(config.optimizer, name)
    }


def _rollback_reason(to: int, attempt: Attempt, changes: Mapping[str, float]) -> str:
    where = f"step {to}" if to else "the start"
    rates = ", ".join(f"{key} {value:g}" for key, value in changes.items())
    other = f", with {rates} and other random numbers" if rates else ", with other random numbers"
    return f"Rollback {attempt.number}: training goes on from {where}{other}."


def _set_aside(folder: Path, step: int, number: int) -> None:
    """Move what was made of later steps out of the way of the next attempt's."""
    later = [
        path
        for path in sorted(folder.glob("step-*"))
        if (named := path.stem.removeprefix("step-")).isdecimal() and int(named) > step
    ]
    aside = folder / f"before-rollback-{number}"
    if later:
        make_folder(aside)
    for path in later:
        path.replace(aside / path.name)
