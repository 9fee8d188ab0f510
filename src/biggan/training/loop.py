"""The training loop, to be read from top to bottom.

To resume, start it again the same way. Several processes (`distributed`) walk through the loop side
by side; the first of them writes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import torch
from tqdm import tqdm

from biggan.data import TrainingData
from biggan.devices import find_device, naming_out_of_memory
from biggan.distributed import check_shares, is_first, on_any_process
from biggan.supervision.collapse import Rules
from biggan.supervision.supervisor import Supervisor
from biggan.training.batches import real_batches
from biggan.training.config import TrainConfig
from biggan.training.run import Run
from biggan.training.state import TrainState
from biggan.training.step import (
    Metrics,
    discriminator_step,
    frozen_step,
    generator_step,
    update_ema,
)

_SMALLER = (
    "choose a higher accumulation, checkpoint_activations=true, fewer channels, or "
    "precision=bfloat16 on a GPU (--set)"
)


def train(
    config: TrainConfig,
    dataset: TrainingData,
    run_dir: str | Path,
    *,
    device: str | torch.device,
    should_stop: Callable[[], bool] = lambda: False,
    interrupted: Callable[[], bool] = lambda: False,
    progress: bool = True,
    rules: Rules | None = None,
) -> TrainState:
    """Train until `total_steps`, from the newest checkpoint if there is one.

    The recipe is fitted to the data (`TrainConfig.fitted`). `should_stop` is asked after every
    step; True, on any process, ends the run at a checkpoint. `interrupted` is asked after a
    checkpoint; True, on any process, breaks off the export of the last step, starts no evaluation,
    and ends the run. Without `rules` those of `supervision.collapse` decide whether the run has
    collapsed.

    Raises:
        RunInterruptedError: The last export or an evaluation is left to the next start.
        InputError: The folder holds another run, is in use, or cannot be written; the batch does
            not divide over the processes; training diverged; or the device does not suffice.
    """
    device = find_device(device)
    check_shares(config.batch_size, config.accumulation)
    run = Run(config, dataset, Path(run_dir), device, progress, interrupted)
    with naming_out_of_memory(device, _SMALLER), run.lock():
        state = run.open()
        with closing(Supervisor(run, state, rules)) as supervisor, _progress_bar(run, state) as bar:
            for attempt in supervisor.attempts(state):  # the recipe, as this attempt changes it
                bar.n = state.step
                first = config.real_batches_before(state.step)
                real = real_batches(attempt, dataset, device, first, run.trained_on)
                with closing(real) as batches:
                    while state.step < config.total_steps:
                        regime = supervisor.before_step(state)
                        d_step = discriminator_step if regime.updates_d else frozen_step
                        metrics: Metrics = {}
                        for i in range(regime.real_batches):
                            metrics |= d_step(state, next(batches), attempt, i)
                        if regime.updates_g:
                            metrics |= generator_step(state, attempt, regime.real_batches)
                            update_ema(state, config)
                        state.step += 1
                        bar.update()
                        verdict = supervisor.after_step(state, metrics, stopping=should_stop())
                        bar.set_postfix_str(verdict.summary)
                        if verdict.saves:
                            run.save(state)
                            if supervisor.after_save(state, run.export(state)):
                                break  # evaluated, found to have collapsed, and rolled back
                            if on_any_process(interrupted()):
                                break
                        if verdict.rolled_back or verdict.stops:
                            break
    return state


def _progress_bar(run: Run, state: TrainState) -> tqdm[NoReturn]:
    return tqdm(
        total=run.config.total_steps,
        initial=state.step,
        unit="step",
        desc=run.config.name,
        disable=None if run.progress and is_first() else True,
        mininterval=0.5,
    )
