"""The training loop, to be read from top to bottom.

A run's folder:

    config.toml                the resolved recipe
    checkpoints/               the whole state, newest two
    generator.safetensors      the newest averaged generator, ready to sample: `biggan.load(RUN)`
    discriminator.safetensors  the discriminator of the same step
    previews/                  image grids, a row per class
    evaluations/, best.safetensors    if the recipe asks for evaluations
    metrics.jsonl, tensorboard/
    .lock                      held by the process that trains here

To resume, start it again the same way. Several processes (`distributed`) walk through the loop side
by side; the first of them writes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NoReturn

import filelock
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from biggan._version import __version__
from biggan.atomic_write import make_folder, write_atomically
from biggan.data import TrainingData
from biggan.distributed import (
    averages,
    check_same,
    check_shares,
    is_first,
    on_any_process,
    own_share,
    raising_together,
)
from biggan.errors import InputError
from biggan.gan import Gan
from biggan.images import make_grid, save_png
from biggan.training.augmentation import draw_augmentation
from biggan.training.batches import real_batches, to_device
from biggan.training.checkpoint import Checkpoint, CheckpointDirectory
from biggan.training.config import TrainConfig, differing_keys, to_toml
from biggan.training.ema import update_ema
from biggan.training.fine_tuning import card_table
from biggan.training.logging import MetricsLog
from biggan.training.randomness import Purpose
from biggan.training.scheduled_evaluation import ScheduledEvaluation
from biggan.training.standing_statistics import COARSE_GRID, HUB_GRID, finish
from biggan.training.state import TrainState
from biggan.training.step import Metrics, discriminator_step, draw_latents, generator_step
from biggan.weights.files import (
    RUN_DISCRIMINATOR,
    RUN_GENERATOR,
    Description,
    generator_sha256,
    load_generator,
    save_discriminator,
    save_generator,
    statistics_grid,
)

_LOG = logging.getLogger("biggan.training")

_PREVIEW_CLASSES = 10
_PREVIEW_COLUMNS = 10
_REAL, _GENERATED = 0, 1  # whose augmentation


def train(
    config: TrainConfig,
    dataset: TrainingData,
    run_dir: Path,
    *,
    device: torch.device,
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
        progress: Whether to show a progress bar on a terminal.

    Returns:
        The state at the end.

    Raises:
        InputError: The folder holds another run, is in use, or cannot be written; the batch does
            not divide over the processes; or training diverged.
    """
    check_shares(config.batch_size, config.accumulation)
    with ExitStack() as held:
        held.enter_context(_locked(run_dir))
        state, checkpoints = _open_run(config, dataset, run_dir, device)
        real = held.enter_context(
            closing(real_batches(config, dataset, device, start=state.step * config.d_steps))
        )
        with raising_together():
            log = held.enter_context(MetricsLog(run_dir, state.step)) if is_first() else None
        bar = held.enter_context(_progress_bar(config, state.step, enabled=progress and is_first()))
        evaluation = None
        if config.evaluation.every:
            evaluation = ScheduledEvaluation(config, dataset, run_dir, device)
            if evaluation.is_missing(state.step):  # a kill came before its end
                exported = _export(state, config, dataset, run_dir)
                _evaluate(evaluation, exported, state.step, log)
        metrics: Metrics = {}
        since, since_step = time.monotonic(), state.step
        while state.step < config.total_steps:
            for i in range(config.d_steps):
                latents = _latents(
                    config, dataset, device, Purpose.DISCRIMINATOR_STEP, state.step, i
                )
                numbers = (
                    _augmentation(state, config, device, i, _REAL),
                    _augmentation(state, config, device, i, _GENERATED),
                )
                metrics |= discriminator_step(state, next(real), latents, config, numbers)
            latents = _latents(config, dataset, device, Purpose.GENERATOR_STEP, state.step)
            numbers_g = _augmentation(state, config, device, config.d_steps, _GENERATED)
            metrics |= generator_step(state, latents, config, numbers_g)
            update_ema(state.ema, state.generator, config.ema, state.step)
            state.step += 1
            bar.update()

            ends = state.step == config.total_steps or on_any_process(should_stop())
            saves = ends or state.step % config.checkpoint_every == 0
            if saves or state.step % config.log_every == 0:
                values = averages(metrics)
                _check_finite(values, state.step)
                values["steps_per_second"] = (state.step - since_step) / (time.monotonic() - since)
                since, since_step = time.monotonic(), state.step
                with raising_together():
                    if log is not None:
                        log.write(state.step, values)
                bar.set_postfix(d=f"{values['d_loss']:.3f}", g=f"{values['g_loss']:.3f}")
            if saves:
                with raising_together():
                    if is_first():
                        _check_finite_state(state)
                        checkpoints.save(state, config, dataset.fingerprint)
                exported = _export(state, config, dataset, run_dir)
                if evaluation is not None and evaluation.is_missing(state.step):
                    _evaluate(evaluation, exported, state.step, log)
                if bar.disable and is_first():  # a log file wants lines, a terminal has a bar
                    _LOG.info(
                        "step %d of %d: checkpoint and preview", state.step, config.total_steps
                    )
                since, since_step = time.monotonic(), state.step
            if ends:
                break
    return state


def _check_finite(values: Mapping[str, float], step: int) -> None:
    """Stop before a checkpoint could replace the last good one with numbers that are none."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise _diverged(f"{name} is {value}", step)


def _check_finite_state(state: TrainState) -> None:
    """The same where the losses are still good, and the update that followed them was not."""
    if names := state.not_finite():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise _diverged(f"{names[0]}{others} holds values that are not finite", state.step)


def _diverged(what: str, step: int) -> InputError:
    return InputError(
        f"training diverged: {what} at step {step}; the checkpoints before are kept. Start anew in "
        "another --out with lower learning rates or a larger batch"
    )


@contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """Keep other runs out of a folder, which is created if needed, until the context ends."""
    lock = filelock.FileLock(run_dir / ".lock")
    with raising_together():
        if is_first():
            make_folder(run_dir)
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout:
                raise InputError(
                    f"another process is training in {run_dir}: wait until it ends, or choose "
                    "another --out"
                ) from None
            except OSError as error:
                raise InputError(f"cannot write to {run_dir}: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def _open_run(
    config: TrainConfig, dataset: TrainingData, run_dir: Path, device: torch.device
) -> tuple[TrainState, CheckpointDirectory]:
    """The state to go on from, after making sure that it belongs to this recipe and data."""
    checkpoints = CheckpointDirectory(run_dir / "checkpoints")
    with raising_together():
        saved = checkpoints.read_newest()
        if saved is not None:
            _check_same_run(saved, config, dataset, run_dir)
    check_same(
        saved.step if saved is not None else None,
        f"the processes find different checkpoints in {run_dir}: it must be one folder for all",
    )
    check_same(dataset.fingerprint, f"the processes find different images in {dataset.source}")
    state = TrainState.create(config, device, dataset.class_names if saved is None else None)
    with raising_together():
        if is_first():
            for unfinished in run_dir.rglob(".*.tmp"):  # of a process that was killed
                unfinished.unlink()
            write_atomically(run_dir / "config.toml", to_toml(config.to_dict()).encode())
    if saved is not None:
        saved.restore(state)
        _LOG.info("resuming %s at step %d of %d", run_dir, state.step, config.total_steps)
        # A kill may have come between a checkpoint and its export.
        exported = state.step < config.total_steps or _is_exported(state, run_dir)
        if on_any_process(not exported):
            _export(state, config, dataset, run_dir)
    return state, checkpoints


def _check_same_run(
    saved: Checkpoint, config: TrainConfig, dataset: TrainingData, run_dir: Path
) -> None:
    if differing := differing_keys(saved.config, config):
        raise InputError(
            f"{run_dir} holds a run of another recipe ({'; '.join(differing)}): "
            "choose another --out, or give the recipe that it was started with"
        )
    if saved.data_fingerprint != dataset.fingerprint:
        raise InputError(
            f"{run_dir} was trained on other data than {dataset.source} now holds: "
            "choose another --out, or restore the data"
        )


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


def _evaluate(
    evaluation: ScheduledEvaluation, exported: Gan, step: int, log: MetricsLog | None
) -> None:
    scores = evaluation.run(exported, step)
    with raising_together():
        if log is not None:
            log.write(step, {f"evaluation/{name}": value for name, value in scores.items()})


def _export(state: TrainState, config: TrainConfig, dataset: TrainingData, run_dir: Path) -> Gan:
    """Write the averaged generator, ready to sample, the discriminator, and a preview.

    Returns:
        The generator, on all processes.
    """
    finished = state.step >= config.total_steps
    grid = HUB_GRID if finished else COARSE_GRID
    images = _statistics_images(state, config)
    generator = finish(state.ema, config, dataset, grid, images)
    description = Description(
        name=config.name,
        class_names=dataset.class_names,
        source=f"trained by biggan {__version__} on {dataset.source}",
        licence=config.licence,
        training=_summary(state, config, dataset, grid, images),
    )
    gan = Gan(generator, description, generator_sha256(generator, description))
    with raising_together():
        if is_first():
            save_discriminator(run_dir / RUN_DISCRIMINATOR, state.discriminator, description)
            previews = run_dir / "previews"
            make_folder(previews)
            save_png(_preview(gan), previews / f"step-{state.step:08d}.png")
            # Last: a generator of this step says that the export is whole (see _is_exported).
            save_generator(run_dir / RUN_GENERATOR, generator, description)
    return gan


def _statistics_images(state: TrainState, config: TrainConfig) -> int:
    """Images behind each row of the statistics: a short run spends no more than on training."""
    trained_on = state.step * config.batch_size // len(HUB_GRID)
    return min(config.statistics_images, max(config.micro_batch_size, trained_on))


def _is_exported(state: TrainState, run_dir: Path) -> bool:
    try:
        exported = load_generator(run_dir / RUN_GENERATOR)
    except InputError:
        return False
    complete = statistics_grid(exported.generator) == HUB_GRID
    return complete and exported.description.training.get("step") == state.step


def _summary(
    state: TrainState,
    config: TrainConfig,
    dataset: TrainingData,
    grid: Sequence[float],
    statistics_images: int,
) -> dict[str, object]:
    return {
        "step": state.step,
        "images": len(dataset),
        "data": dataset.source,
        "data_fingerprint": dataset.fingerprint,
        "weights": f"moving average, decay {config.ema.decay}",
        "statistics": f"standing, {statistics_images} images for each of {len(grid)} "
        "truncations and for untruncated noise",
        "torch": torch.__version__,
        # Data by their names: a model that is given away tells not where they were kept.
        "recipe": {
            **config.to_dict(),
            "data": dataset.source,
            "classes": Path(config.classes).name,
            "fine_tuning": card_table(config.fine_tuning),
        },
        **({"fine_tuning": dict(state.sources)} if state.sources else {}),
    }


def _preview(gan: Gan) -> Image.Image:
    classes: list[int | None] = list(range(min(len(gan.class_names), _PREVIEW_CLASSES))) or [None]
    recipes = gan.recipes(classes, _PREVIEW_COLUMNS, truncation=1.0, seed=0)
    return make_grid(list(gan.draw(recipes)), columns=_PREVIEW_COLUMNS)


def _progress_bar(config: TrainConfig, step: int, *, enabled: bool) -> tqdm[NoReturn]:
    return tqdm(
        total=config.total_steps,
        initial=step,
        unit="step",
        desc=config.name,
        disable=None if enabled else True,
        mininterval=0.5,
    )
