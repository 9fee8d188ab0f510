"""The training loop, to be read from top to bottom.

A run's folder:

    config.toml                the resolved recipe
    checkpoints/               the whole state, newest two
    generator.safetensors      the newest averaged generator, ready to sample: `biggan.load(RUN)`
    discriminator.safetensors  the discriminator of the same step
    previews/                  image grids, a row per class
    metrics.jsonl, tensorboard/

To resume, start it again the same way.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from biggan._version import __version__
from biggan.atomic_write import write_atomically
from biggan.data import ImageDataset, ShuffledStream, fetch, flips
from biggan.errors import InputError
from biggan.gan import Gan
from biggan.images import from_uint8, make_grid, save_png
from biggan.training.checkpoint import Checkpoint, CheckpointDirectory
from biggan.training.config import TrainConfig, differing_keys, to_toml
from biggan.training.ema import update_ema
from biggan.training.logging import MetricsLog
from biggan.training.randomness import Purpose
from biggan.training.standing_statistics import COARSE_GRID, HUB_GRID, finish
from biggan.training.state import TrainState
from biggan.training.step import Metrics, discriminator_step, draw_latents, generator_step
from biggan.weights.files import (
    RUN_DISCRIMINATOR,
    RUN_GENERATOR,
    Description,
    load_generator,
    save_discriminator,
    save_generator,
    statistics_grid,
)

_LOG = logging.getLogger("biggan.training")

_PREVIEW_CLASSES = 10
_PREVIEW_COLUMNS = 10


def train(
    config: TrainConfig,
    dataset: ImageDataset,
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
        should_stop: Asked after every step; True ends the run at a checkpoint.
        progress: Whether to show a progress bar on a terminal.

    Returns:
        The state at the end.

    Raises:
        InputError: The folder holds another run, or cannot be written.
    """
    state, checkpoints = _open_run(config, dataset, run_dir, device)
    real = _real_batches(config, dataset, device, start=state.step * config.d_steps)
    metrics: Metrics = {}
    with (
        MetricsLog(run_dir, state.step) as log,
        _progress_bar(config, state.step, enabled=progress) as bar,
    ):
        since, since_step = time.monotonic(), state.step
        while state.step < config.total_steps:
            for i in range(config.d_steps):
                latents = _latents(
                    config, dataset, device, Purpose.DISCRIMINATOR_STEP, state.step, i
                )
                metrics |= discriminator_step(state, next(real), latents, config)
            latents = _latents(config, dataset, device, Purpose.GENERATOR_STEP, state.step)
            metrics |= generator_step(state, latents, config)
            update_ema(state.ema, state.generator, config.ema, state.step)
            state.step += 1
            bar.update()

            ends = state.step == config.total_steps or should_stop()
            saves = ends or state.step % config.checkpoint_every == 0
            if saves or state.step % config.log_every == 0:
                values = {name: float(value) for name, value in metrics.items()}
                _check_finite(values, state.step)
                values["steps_per_second"] = (state.step - since_step) / (time.monotonic() - since)
                since, since_step = time.monotonic(), state.step
                log.write(state.step, values)
                bar.set_postfix(d=f"{values['d_loss']:.3f}", g=f"{values['g_loss']:.3f}")
            if saves:
                checkpoints.save(state, config, dataset.fingerprint)
                _export(state, config, dataset, run_dir)
                if bar.disable:  # a log file wants lines where a terminal has a bar
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
            raise InputError(
                f"training diverged: {name} is {value} at step {step}; the checkpoints before are "
                "kept. Start anew in another --out with lower learning rates or a larger batch"
            )


def _open_run(
    config: TrainConfig, dataset: ImageDataset, run_dir: Path, device: torch.device
) -> tuple[TrainState, CheckpointDirectory]:
    """The state to go on from, after making sure that it belongs to this recipe and data."""
    checkpoints = CheckpointDirectory(run_dir / "checkpoints")
    saved = checkpoints.read_newest()
    if saved is not None:
        _check_same_run(saved, config, dataset, run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create {run_dir}: {error.strerror}") from None
    state = TrainState.create(config, device)
    for unfinished in run_dir.rglob(".*.tmp"):  # of a process that was killed
        unfinished.unlink()
    write_atomically(run_dir / "config.toml", to_toml(config.to_dict()).encode())
    if saved is not None:
        saved.restore(state)
        _LOG.info("resuming %s at step %d of %d", run_dir, state.step, config.total_steps)
        # A kill may have come between a checkpoint and its export.
        if state.step >= config.total_steps and not _is_exported(state, run_dir):
            _export(state, config, dataset, run_dir)
    return state, checkpoints


def _check_same_run(
    saved: Checkpoint, config: TrainConfig, dataset: ImageDataset, run_dir: Path
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


def _real_batches(
    config: TrainConfig, dataset: ImageDataset, device: torch.device, start: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Global batches of real images in [-1, 1] with labels, from the start-th on."""
    stream = ShuffledStream(len(dataset), config.seed)
    position = start * config.batch_size
    while True:
        indices = stream.indices(position, config.batch_size)
        mirrored = flips(config.seed, position, config.batch_size) if config.flip else None
        images, labels = fetch(dataset, indices, mirrored)
        yield from_uint8(images.to(device, non_blocking=True)), labels.to(device, non_blocking=True)
        position += config.batch_size


def _latents(
    config: TrainConfig,
    dataset: ImageDataset,
    device: torch.device,
    purpose: Purpose,
    *position: int,
) -> tuple[Tensor, Tensor]:
    z, labels = draw_latents(config, dataset, purpose, *position)
    return z.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def _export(state: TrainState, config: TrainConfig, dataset: ImageDataset, run_dir: Path) -> None:
    """Write the averaged generator, ready to sample, the discriminator, and a preview."""
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
    save_discriminator(run_dir / RUN_DISCRIMINATOR, state.discriminator, description)
    folder = run_dir / "previews"
    folder.mkdir(exist_ok=True)
    preview = _preview(Gan(generator, description, sha256=""))
    save_png(preview, folder / f"step-{state.step:08d}.png")
    # Last: a generator of this step says that the export is whole (see _is_exported).
    save_generator(run_dir / RUN_GENERATOR, generator, description)


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
    dataset: ImageDataset,
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
        "recipe": config.to_dict(),
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
