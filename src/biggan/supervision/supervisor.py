"""The supervisor: logs, signals, collapse rules and evaluations of a run, called by the loop."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from biggan.distributed import averages, from_first, is_first, on_any_process, raising_together
from biggan.supervision.collapse import Collapse, Rules
from biggan.supervision.log import Event, RunLog
from biggan.supervision.settings import Regime
from biggan.training.config import TrainConfig
from biggan.training.export import RunInterruptedError
from biggan.training.run import Exported, Run
from biggan.training.state import TrainState

if TYPE_CHECKING:
    from biggan.supervision.evaluation import ScheduledEvaluation
    from biggan.supervision.signals import Signals
    from biggan.supervision.trackers import Tracker

_LOG = logging.getLogger("biggan.training")


@dataclass(frozen=True)
class Verdict:
    """The decision after a step."""

    saves: bool = False
    """A checkpoint and an export are due."""
    stops: bool = False
    """The run is at its end, or was asked to stop."""
    rolled_back: bool = False
    """The state is that of an earlier step, and another attempt begins."""
    summary: str = ""
    """The newest losses that were logged, for a progress bar."""


class Supervisor:
    """Supervises a run: signals, collapse rules, rollbacks, interventions, scheduled evaluations.

    Several processes must use it together; the first one reads and writes. Only interventions and
    rollbacks enter the training: without them, the weights are the same to the bit.

    Raises:
        InputError: The log cannot be written, or the recipe's evaluations cannot be made.
    """

    def __init__(self, run: Run, state: TrainState, rules: Rules | None = None) -> None:
        self._run, self._config = run, run.config
        self._rules = rules or Rules()
        self._evaluation: ScheduledEvaluation | None = None
        if run.config.evaluation.every:
            from biggan.supervision.evaluation import ScheduledEvaluation

            self._evaluation = ScheduledEvaluation(run)
        self._log: RunLog | None = None
        self._tracker: Tracker | None = None
        with raising_together():
            if is_first():
                if run.config.track:
                    from biggan.supervision.trackers import open_tracker

                    self._tracker = open_tracker(run.config.to_dict(), run.folder)
                number = state.attempt.number
                self._log = RunLog(run.folder, state.step, number, self._tracker)
        self._attempt = state.attempt.applied_to(run.config)
        self._clock = (time.monotonic(), state.step)
        self._summary = ""

    @cached_property
    def _signals(self) -> Signals:
        from biggan.supervision.signals import Signals

        return Signals(self._run)

    def attempts(self, state: TrainState) -> Iterator[TrainConfig]:
        """The recipe as each attempt trains: one attempt, and another after each rollback."""
        # A kill may have come between a checkpoint, its evaluation and the verdict on that.
        if self._evaluation is not None:
            if self._evaluation.is_missing(state.step):
                self._evaluate(self._evaluation, self._run.export(state), state.step)
            self._respond(self._judge_scores(state.step), state)
        number = None
        while number != state.attempt.number and state.step < self._config.total_steps:
            number = state.attempt.number
            self._attempt = state.attempt.applied_to(self._config)
            self._clock = (time.monotonic(), state.step)
            yield self._attempt

    def before_step(self, state: TrainState) -> Regime:
        """How a step is to be done: sets its learning rates, and records what changed."""
        regime = self._attempt.regime_at(state.step)
        for optimizer, rate, is_updated in (
            (state.g_optimizer, regime.g_lr, regime.updates_g),
            (state.d_optimizer, regime.d_lr, regime.updates_d),
        ):
            for group in optimizer.param_groups:
                group["lr"] = rate
            if not is_updated:
                optimizer.zero_grad()
        for intervention in self._attempt.interventions:
            if intervention.step == state.step:
                changes = intervention.changes()
                text = ", ".join(f"{name} = {value}" for name, value in changes.items())
                reason = f"The recipe asks for {text} from step {state.step} on."
                number = state.attempt.number
                event = Event(state.step, "intervention", reason, number, changes=changes)
                with raising_together():
                    if self._log is not None:
                        self._log.write_event(event)
                        _LOG.info("step %d: %s", state.step, reason)
        return regime

    def after_step(
        self, state: TrainState, metrics: Mapping[str, Tensor], *, stopping: bool
    ) -> Verdict:
        """Log a finished step, apply the collapse rules, and roll back if it has collapsed.

        Raises:
            InputError: The run has collapsed and must stop.
        """
        config, step = self._config, state.step
        stops = step == config.total_steps or on_any_process(stopping)
        saves = stops or step % config.checkpoint_every == 0
        collapse = None
        if saves or step % config.log_every == 0:
            values = averages(metrics)
            if bad := next((name for name in values if not math.isfinite(values[name])), None):
                collapse = self._diverged(f"{bad} is {values[bad]}", step)
            since, since_step = self._clock
            values["steps_per_second"] = (step - since_step) / (time.monotonic() - since)
            self._clock = (time.monotonic(), step)
            if collapse is None:
                self._write(step, values)
            losses = [name for name in ("d_loss", "g_loss") if name in values]
            self._summary = ", ".join(f"{name[0]}={values[name]:.3f}" for name in losses)
        if config.watch.every and step % config.watch.every == 0 and collapse is None:
            collapse = self._judge_signals(state)
        if saves:  # before a checkpoint could replace the last one of finite numbers
            collapse = self._not_finite_tensor(state) or collapse
        if self._respond(collapse, state):
            return Verdict(rolled_back=True, summary=self._summary)
        return Verdict(saves, stops, summary=self._summary)

    def after_save(self, state: TrainState, exported: Exported) -> bool:
        """Evaluate an exported generator if that is due; whether that rolled the run back.

        Raises:
            InputError: The run has collapsed and must stop.
        """
        total, has_bar = self._config.total_steps, self._run.progress and sys.stderr.isatty()
        if is_first() and not has_bar:  # a log file wants lines, a terminal has a bar
            _LOG.info("step %d of %d: checkpoint and preview", state.step, total)
        if self._tracker is not None:
            self._tracker.log_image(state.step, self._run.preview_file(state.step))
        rolled_back = False
        if self._evaluation is not None:
            if self._evaluation.is_missing(state.step):
                self._evaluate(self._evaluation, exported, state.step)
            rolled_back = self._respond(self._judge_scores(state.step), state)
        self._clock = (time.monotonic(), state.step)
        return rolled_back

    def _respond(self, collapse: Collapse | None, state: TrainState) -> bool:
        """Do what the recipe says about a collapse, if there is one; whether that rolled back."""
        if collapse is None:
            return False
        from biggan.supervision.rollback import respond

        return respond(self._run, self._log, collapse, state)

    def _judge_signals(self, state: TrainState) -> Collapse | None:
        """Write a line of signals, and apply the rules to it; the same on all processes."""
        signals = self._signals.measure(state)
        collapse = None
        with raising_together():
            if self._log is not None and signals is not None:
                self._log.write_signals(state.step, signals)
                collapse = self._rules.find(self._log.recent_signals, self._config.loss.margin)
        return from_first(collapse)

    def _judge_scores(self, step: int) -> Collapse | None:
        """Apply the rule for distances, if a step has one; the same on all processes."""
        assert self._evaluation is not None
        scores = self._evaluation.distances(step)
        is_new = bool(scores) and scores[-1][0] == step
        return from_first(self._rules.scores(scores) if is_new else None)

    def _not_finite_tensor(self, state: TrainState) -> Collapse | None:
        """A collapse where the losses are still finite, and the update that followed was not."""
        names = from_first(state.not_finite() if is_first() else [])
        if not names:
            return None
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return self._diverged(f"{names[0]}{others} holds values that are not finite", state.step)

    def _diverged(self, what: str, step: int) -> Collapse:
        onset = step - 2 * max(self._config.log_every, self._config.watch.every)
        return Collapse("not finite", f"{what} at step {step}.", onset, fatal=True)

    def _evaluate(self, evaluation: ScheduledEvaluation, exported: Exported, step: int) -> None:
        if on_any_process(self._run.interrupted()):
            raise RunInterruptedError
        scores = evaluation.run(exported, step)
        self._write(step, {f"evaluation/{name}": value for name, value in scores.items()})

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        with raising_together():
            if self._log is not None:
                self._log.write(step, values)

    def close(self) -> None:
        """Close the log, then the tracker."""
        if self._log is not None:
            self._log.close()
        if self._tracker is not None:
            self._tracker.close()
