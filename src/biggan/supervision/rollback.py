"""The answer to a collapse: report it, stop the run, or roll back and try again.

A rollback goes to the newest checkpoint from before the collapse began, which may have been long
before it was noticed, or to the start where there is none. Files change in an order that leaves a
whole run whenever a kill comes: until the checkpoint of the next attempt is written, the old
attempt goes on, and collapses again in the same way.
"""

from __future__ import annotations

import logging

from biggan.atomic_write import make_folder
from biggan.distributed import from_first, is_first, raising_together
from biggan.errors import InputError
from biggan.supervision.collapse import Collapse
from biggan.supervision.log import Event, RunLog
from biggan.training.checkpoint import rollback_reach
from biggan.training.run import Run
from biggan.training.state import TrainState
from biggan.weights.files import RUN_KEPT

_LOG = logging.getLogger("biggan.training")
_SET_ASIDE = ("evaluations", "previews", RUN_KEPT)


def respond(run: Run, log: RunLog | None, collapse: Collapse, state: TrainState) -> bool:
    """Do what the recipe's table [collapse] says; all processes together, `log` on the first.

    The state is that in which the collapse was found; after a rollback, from which the run goes on.

    Returns:
        Whether the run was rolled back.

    Raises:
        InputError: The run must stop.
    """
    settings, number, step = run.config.collapse, state.attempt.number, state.step
    reports = settings.action == "report" and not collapse.fatal
    if reports and from_first(log is not None and log.has_collapse(number)):
        return False
    target: int | None = None
    with raising_together():
        if log is not None:
            earliest = max(0, step - rollback_reach(run.config))
            target = run.checkpoints.last_until(max(collapse.onset, earliest))
            if target is not None:
                run.checkpoints.keep_before_collapse(target)
            log.write_event(
                Event(step, "collapse", collapse.reason, number, collapse.rule, collapse.values)
            )
    target = from_first(target)
    _LOG.warning("step %d: %s", step, collapse.reason)
    if reports:
        return False
    if settings.action == "rollback" and number < settings.rollbacks:
        _roll_back(run, log, state, target)
        return True
    _stop(run, log, collapse, state, target)
    return False


def _roll_back(run: Run, log: RunLog | None, state: TrainState, target: int | None) -> None:
    step, before = state.step, state.attempt
    after, to = before.next(run.config.collapse), target or 0
    recipe, used = (config.optimizer for config in (run.config, after.applied_to(run.config)))
    changes = {
        f"optimizer.{name}": getattr(used, name)
        for name in ("g_lr", "d_lr")
        if getattr(used, name) != getattr(recipe, name)
    }
    rates = ", ".join(f"{key} {value:g}" for key, value in changes.items())
    other = f"{rates} and other random numbers" if rates else "other random numbers"
    where = f"step {to}" if to else "the start"
    reason = f"Rollback {after.number}: training continues from {where}, with {other}."
    with raising_together():
        if log is not None:
            log.write_event(Event(step, "rollback", reason, before.number, to=to, changes=changes))
            log.keep_beyond(to, after.number)
            for name in _SET_ASIDE:  # what was made of later steps; the next attempt makes it anew
                for path in sorted((run.folder / name).glob("step-*")):
                    of_step = path.stem.removeprefix("step-")
                    if of_step.isdecimal() and int(of_step) > to:
                        aside = path.parent / f"before-rollback-{after.number}"
                        make_folder(aside)
                        path.replace(aside / path.name)
            _LOG.warning("step %d: %s", step, reason)
    _restore(run, state, target)
    state.attempt = after
    with raising_together():
        if log is not None:
            run.checkpoints.delete_beyond(to)
    run.save(state)
    with raising_together():
        if log is not None:
            if target is None:
                run.checkpoints.keep_before_collapse(to)
            log.go_back(to)
    run.export(state)


def _stop(
    run: Run, log: RunLog | None, collapse: Collapse, state: TrainState, target: int | None
) -> None:
    """Leave the run at the last checkpoint before the collapse, and say so."""
    step, attempt = state.step, state.attempt.number
    tried = f" after {attempt} rollback{'s' * (attempt > 1)}" if attempt else ""
    verb = "diverged" if collapse.fatal else "collapsed"
    to = None if run.config.collapse.action == "report" else target
    if target is None:
        where = "there is no earlier checkpoint"
    elif to is None:
        where = "the earlier checkpoints are kept"
    else:
        where = f"the folder contains the state and the generator of step {to}, before the collapse"
    with raising_together():
        if log is not None:
            reason = f"The run was stopped at step {step}{tried}."
            log.write_event(Event(step, "stop", reason, attempt, to=to))
    if to is not None:
        _restore(run, state, to)
        with raising_together():
            if is_first():
                run.checkpoints.delete_beyond(to)
        run.export(state)
    anew = "tart again in another --out with lower learning rates or a larger batch"
    way_out = f"S{anew}" if attempt else f"Continue with --set collapse.action=rollback, or s{anew}"
    raise InputError(f"training {verb}{tried}: {collapse.reason.rstrip('.')}; {where}. {way_out}")


def _restore(run: Run, state: TrainState, target: int | None) -> None:
    if target is None:
        state.load_tensors(run.create().tensors())
        state.step = 0
        return
    with raising_together():
        saved = run.checkpoints.read(target)
    saved.restore(state)
