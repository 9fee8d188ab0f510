"""The training loop, to be read from top to bottom.

A run's folder:

    config.toml                the resolved recipe
    checkpoints/               the whole state, newest two and some to roll back to
    generator.safetensors      the newest averaged generator, ready to sample: `biggan.load(RUN)`
    discriminator.safetensors  the discriminator of the same step
    previews/                  image grids, a row per class
    evaluations/, best.safetensors    if the recipe asks for evaluations
    metrics.jsonl, tensorboard/
    signals.jsonl              the state of both networks, every so many steps (`watching`)
    events.jsonl               collapses, rollbacks, interventions (`survival`)
    .lock                      held by the process that trains here

To resume, start it again the same way. Several processes (`distributed`) walk through the loop side
by side; the first of them writes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor
from tqdm import tqdm

from biggan.data import TrainingData
from biggan.devices import find_device, naming_out_of_memory
from biggan.distributed import (
    averages,
    check_shares,
    is_first,
    on_any_process,
    own_share,
    raising_together,
)
from biggan.gan import Gan
from biggan.stability.collapse import Collapse
from biggan.training.augmentation import draw_augmentation
from biggan.training.batches import real_batches, to_device
from biggan.training.config import TrainConfig
from biggan.training.data_source import split_data
from biggan.training.ema import update_ema
from biggan.training.interventions import begin_step, real_batches_before
from biggan.training.logging import RunLog
from biggan.training.perturbation import Perturbation, draw_perturbation
from biggan.training.randomness import Purpose
from biggan.training.run_export import export_run
from biggan.training.run_folder import locked_run, open_run
from biggan.training.scheduled_evaluation import ScheduledEvaluation
from biggan.training.state import TrainState
from biggan.training.step import (
    Metrics,
    discriminator_step,
    draw_latents,
    frozen_discriminator_step,
    generator_step,
)
from biggan.training.survival import Run, Survival
from biggan.training.watching import Watch

_LOG = logging.getLogger("biggan.training")

_REAL, _GENERATED = 0, 1  # whose augmentation

_SMALLER = (
    "choose a higher accumulation, checkpoint_activations=true, fewer channels, or "
    "precision=bfloat16 on a GPU (--set)"
)


def train(
    config: TrainConfig,
    dataset: TrainingData,
    run_dir: Path,
    *,
    device: str | torch.device,
    should_stop: Callable[[], bool] = lambda: False,
    progress: bool = True,
) -> TrainState:
    """Train until `total_steps`, from the newest checkpoint if there is one.

    Args:
        config: The recipe, fitted to the data (`TrainConfig.fitted`).
        dataset: The real images.
        run_dir: The run's folder, created if needed.
        device: Where to train.
        should_stop: Asked after every step; True, on any process, ends the run at a checkpoint.
        progress: Whether to show progress bars on a terminal.

    Returns:
        The state at the end.

    Raises:
        InputError: The folder holds another run, is in use, or cannot be written; the batch does
            not divide over the processes; training diverged; or there is no such device, or its
            memory does not suffice.
    """
    device = find_device(device)
    check_shares(config.batch_size, config.accumulation)
    with ExitStack() as held:
        held.enter_context(naming_out_of_memory(device, _SMALLER))
        held.enter_context(locked_run(run_dir))
        seen, held_out = split_data(config, dataset)
        state, checkpoints = open_run(config, dataset, run_dir, device, progress=progress)
        with raising_together():
            log = held.enter_context(RunLog(run_dir, state.step)) if is_first() else None
        bar = held.enter_context(_progress_bar(config, state.step, enabled=progress and is_first()))
        watch = Watch(config, dataset, seen, held_out, device)
        run = Run(
            run_dir,
            checkpoints,
            dataset.fingerprint,
            create=lambda: TrainState.create(config, device, dataset.class_names),
            export=lambda state: export_run(
                state, config, dataset, run_dir, survival.events(), progress=progress
            ),
        )
        survival = Survival(config, run, log, state)
        evaluation = None
        collapse: Collapse | None = None
        if config.evaluation.every:
            evaluation = ScheduledEvaluation(config, dataset, run_dir, device, progress=progress)
            if evaluation.is_missing(state.step):  # a kill came before its end
                exported = run.export(state)
                _evaluate(evaluation, exported, state.step, log)
            collapse = survival.judge_scores(evaluation.distances(state.step), state.step)
            if collapse is not None:
                survival.respond(collapse, state)
        batches = held.enter_context(ExitStack())  # ends with each attempt
        attempt: TrainConfig | None = None  # the recipe as the attempt changes it
        while state.step < config.total_steps:
            if attempt is None:
                batches.close()
                attempt = state.attempt.applied_to(config)
                start = real_batches_before(config, state.step)
                real = batches.enter_context(
                    closing(real_batches(attempt, dataset, device, start, seen))
                )
                bar.n = state.step
                since, since_step = time.monotonic(), state.step
            outputs = watch.outputs(state.step + 1)
            regime = begin_step(state, attempt, survival)
            metrics: Metrics = {}
            for i in range(regime.real_batches):
                latents = _latents(
                    attempt, dataset, device, Purpose.DISCRIMINATOR_STEP, state.step, i
                )
                numbers = (
                    _augmentation(state, attempt, device, i, _REAL),
                    _augmentation(state, attempt, device, i, _GENERATED),
                )
                perturbation = (
                    _perturbation(state, attempt, device, i, _REAL),
                    _perturbation(state, attempt, device, i, _GENERATED),
                )
                d_step = discriminator_step if regime.updates_d else frozen_discriminator_step
                watched = outputs if i == regime.real_batches - 1 else None
                metrics |= d_step(
                    state, next(real), latents, attempt, numbers, perturbation, watched
                )
            if regime.updates_g:
                latents = _latents(attempt, dataset, device, Purpose.GENERATOR_STEP, state.step)
                metrics |= generator_step(
                    state,
                    latents,
                    attempt,
                    _augmentation(state, attempt, device, regime.real_batches, _GENERATED),
                    _perturbation(state, attempt, device, regime.real_batches, _GENERATED),
                )
                update_ema(state.ema, state.generator, config.ema, state.step)
            state.step += 1
            bar.update()

            ends = state.step == config.total_steps or on_any_process(should_stop())
            saves = ends or state.step % config.checkpoint_every == 0
            collapse = None
            if saves or state.step % config.log_every == 0:
                values = averages(metrics)
                collapse = survival.not_finite(values, state.step)
                values["steps_per_second"] = (state.step - since_step) / (time.monotonic() - since)
                since, since_step = time.monotonic(), state.step
                with raising_together():
                    if log is not None and collapse is None:
                        log.write(state.step, values)
                bar.set_postfix(
                    {
                        name[0]: f"{values[name]:.3f}"
                        for name in ("d_loss", "g_loss")
                        if name in values
                    }
                )
            if outputs is not None and collapse is None:
                collapse = survival.observe(watch.signals(state, outputs), state.step)
            if saves:  # before a checkpoint could replace the last good one with no numbers
                collapse = survival.not_finite_state(state) or collapse
            if collapse is not None and survival.respond(collapse, state):
                attempt = None
                continue
            if saves:
                with raising_together():
                    if is_first():
                        checkpoints.save(state, config, dataset.fingerprint)
                exported = run.export(state)
                if bar.disable and is_first():  # a log file wants lines, a terminal has a bar
                    _LOG.info(
                        "step %d of %d: checkpoint and preview", state.step, config.total_steps
                    )
                if evaluation is not None:
                    if evaluation.is_missing(state.step):
                        _evaluate(evaluation, exported, state.step, log)
                    collapse = survival.judge_scores(evaluation.distances(state.step), state.step)
                    if collapse is not None and survival.respond(collapse, state):
                        attempt = None
                        continue
                since, since_step = time.monotonic(), state.step
            if ends:
                break
    return state


def _latents(
    config: TrainConfig,
    dataset: TrainingData,
    device: torch.device,
    purpose: Purpose,
    *position: int,
) -> tuple[Tensor, Tensor]:
    """This process's share of a global batch of noise and labels."""
    z, labels = (
        own_share(part, config.accumulation)
        for part in draw_latents(config, dataset, purpose, *position)
    )
    return to_device(z, device), to_device(labels, device)


def _augmentation(
    state: TrainState, config: TrainConfig, device: torch.device, update: int, kind: int
) -> Tensor | None:
    """This process's share of the random numbers that augment an update's images."""
    numbers = draw_augmentation(state.augmentation, config, state.step, update, kind)
    return None if numbers is None else to_device(own_share(numbers, config.accumulation), device)


def _perturbation(
    state: TrainState, config: TrainConfig, device: torch.device, update: int, kind: int
) -> Perturbation:
    """This process's share of what disturbs an update's images in the discriminator."""
    return draw_perturbation(config, state.step, update, kind).own_share(config, device)


def _evaluate(
    evaluation: ScheduledEvaluation, exported: Gan, step: int, log: RunLog | None
) -> None:
    scores = evaluation.run(exported, step)
    with raising_together():
        if log is not None:
            log.write(step, {f"evaluation/{name}": value for name, value in scores.items()})


def _progress_bar(config: TrainConfig, step: int, *, enabled: bool) -> tqdm[NoReturn]:
    return tqdm(
        total=config.total_steps,
        initial=step,
        unit="step",
        desc=config.name,
        disable=None if enabled else True,
        mininterval=0.5,
    )
