"""The answer to a collapse: report it, stop the run, or roll back and try again.

A rollback goes to the newest checkpoint from before the collapse began, which may have been long
before it was noticed, or to the start where there is none. Files change in an order that leaves a
whole run whenever a kill comes: until the checkpoint of the next attempt is written, the old
attempt goes on, and collapses again in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biggan.atomic_write import make_folder
from biggan.distributed import from_first, is_first, raising_together
from biggan.errors import InputError
from biggan.supervision.collapse import Collapse
from biggan.supervision.log import Event, RunLog
from biggan.training.checkpoint import rollback_reach
from biggan.training.config import TrainConfig
from biggan.training.run import Run
from biggan.training.state import Attempt, TrainState

_LOG = logging.getLogger("biggan.training")
_SET_ASIDE = ("evaluations", "previews")


class CollapseGuard:
    """Answers collapses as the recipe's table [collapse] says.

    Several processes must use it together; the first one reads and writes.

    Args:
        run: The run.
        log: Its log, on the first process.
    """

    def __init__(self, run: Run, log: RunLog | None) -> None:
        self._run = run
        self._settings = run.config.collapse
        self._log = log

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
        number, step = state.attempt.number, state.step
        reports = self._settings.action == "report" and not collapse.fatal
        if reports and self._was_reported(number):
            return False
        target: int | None = None
        with raising_together():
            if self._log is not None:
                earliest = max(0, step - rollback_reach(self._run.config))
                target = self._run.checkpoints.last_until(max(collapse.onset, earliest))
                if target is not None:
                    self._run.checkpoints.keep_before_collapse(target)
                self._log.write_event(
                    Event(step, "collapse", collapse.reason, number, collapse.rule, collapse.values)
                )
        target = from_first(target)
        _LOG.warning("step %d: %s", step, collapse.reason)
        if reports:
            return False
        if self._settings.action == "rollback" and number < self._settings.rollbacks:
            self._roll_back(state, target)
            return True
        self._stop(collapse, state, target)
        return False

    def _was_reported(self, attempt: int) -> bool:
        reported = self._log is not None and any(
            event.event == "collapse" and event.attempt == attempt for event in self._log.events
        )
        return from_first(reported)

    def _roll_back(self, state: TrainState, target: int | None) -> None:
        step, before = state.step, state.attempt
        after, to = before.next(self._settings), target or 0
        changes = _changes(self._run.config, after)
        with raising_together():
            if self._log is not None:
                reason = _rollback_reason(to, after, changes)
                event = Event(step, "rollback", reason, before.number, to=to, changes=changes)
                self._log.write_event(event)
                self._log.keep_beyond(to, after.number)
                for name in _SET_ASIDE:
                    _set_aside(self._run.folder / name, to, after.number)
                _LOG.warning("step %d: %s", step, reason)
        self._restore(state, target)
        state.attempt = after
        with raising_together():
            if self._log is not None:
                self._run.checkpoints.delete_beyond(to)
        self._run.save(state)
        with raising_together():
            if self._log is not None:
                if target is None:
                    self._run.checkpoints.keep_before_collapse(to)
                self._log.go_back(to)
        self._run.export(state)

    def _restore(self, state: TrainState, target: int | None) -> None:
        if target is None:
            state.load_tensors(self._run.create().tensors())
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
        to = None if self._settings.action == "report" else target
        if target is None:
            where = "there is no checkpoint from before that"
        elif to is None:
            where = "the checkpoints before are kept"
        else:
            where = f"the folder holds the state and the generator of step {to}, before that"
        with raising_together():
            if self._log is not None:
                reason = f"The run was stopped at step {step}{tried}."
                self._log.write_event(Event(step, "stop", reason, attempt, to=to))
        if to is not None:
            self._restore(state, to)
            with raising_together():
                if is_first():
                    self._run.checkpoints.delete_beyond(to)
            self._run.export(state)
        anew = "tart anew in another --out with lower learning rates or a larger batch"
        way_out = (
            f"S{anew}" if attempt else f"Go on with --set collapse.action=rollback, or s{anew}"
        )
        raise InputError(
            f"training {verb}{tried}: {collapse.reason.rstrip('.')}; {where}. {way_out}"
        )


def _changes(config: TrainConfig, attempt: Attempt) -> dict[str, Any]:
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
