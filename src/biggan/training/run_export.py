"""What a run gives away at a checkpoint: the averaged generator, its discriminator, a preview."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image

from biggan._version import __version__
from biggan.atomic_write import make_folder
from biggan.data import TrainingData
from biggan.distributed import is_first, raising_together
from biggan.errors import InputError
from biggan.fine_tuning.log import card_table
from biggan.gan import Gan
from biggan.images import make_grid, save_png
from biggan.training.config import TrainConfig
from biggan.training.data_source import split_data
from biggan.training.standing_statistics import COARSE_GRID, HUB_GRID, finish
from biggan.training.state import TrainState
from biggan.weights.files import (
    RUN_DISCRIMINATOR,
    RUN_GENERATOR,
    Description,
    network_sha256,
    save_discriminator,
    save_generator,
    statistics_grid,
)
from biggan.weights.load import load_generator

_LOG = logging.getLogger("biggan.training")

_PREVIEW_CLASSES = 10
_PREVIEW_COLUMNS = 10


def export_run(
    state: TrainState,
    config: TrainConfig,
    dataset: TrainingData,
    run_dir: Path,
    events: Sequence[Mapping[str, object]],
    *,
    progress: bool = True,
) -> Gan:
    """Write the averaged generator, ready to sample, the discriminator, and a preview.

    Args:
        state: Of the run.
        config: The recipe.
        dataset: The real images.
        run_dir: The run's folder.
        events: What befell the run so far, for the model card.
        progress: Whether to show a progress bar on a terminal.

    Returns:
        The generator, on all processes.
    """
    finished = state.step >= config.total_steps
    grid = HUB_GRID if finished else COARSE_GRID
    images = _statistics_images(state, config)
    if finished and is_first() and not sys.stderr.isatty():  # a terminal has a bar
        _LOG.info(
            "step %d of %d: recording statistics for %d truncations",
            state.step,
            config.total_steps,
            len(grid),
        )
    generator = finish(state.ema, config, dataset, grid, images, progress=progress)
    description = Description(
        name=config.name,
        class_names=dataset.class_names,
        source=f"trained by biggan {__version__} on {dataset.source}",
        licence=config.licence,
        training=_summary(state, config, dataset, grid, images, events),
    )
    gan = Gan(generator, description, network_sha256(generator, description))
    with raising_together():
        if is_first():
            save_discriminator(run_dir / RUN_DISCRIMINATOR, state.discriminator, description)
            previews = run_dir / "previews"
            make_folder(previews)
            save_png(_preview(gan), previews / f"step-{state.step:08d}.png")
            # Last: a generator of this step says that the export is whole (see is_exported).
            save_generator(run_dir / RUN_GENERATOR, generator, description)
    return gan


def is_exported(state: TrainState, config: TrainConfig, run_dir: Path) -> bool:
    """Whether the run's folder has the generator of this very state."""
    try:
        exported = load_generator(run_dir / RUN_GENERATOR)
    except InputError:
        return False
    finished = state.step >= config.total_steps
    complete = not finished or statistics_grid(exported.network) == HUB_GRID
    return complete and exported.description.training.get("step") == state.step


def _statistics_images(state: TrainState, config: TrainConfig) -> int:
    """Images behind each row of the statistics: a short run spends no more than on training."""
    trained_on = state.step * config.batch_size // len(HUB_GRID)
    return min(config.statistics_images, max(config.micro_batch_size, trained_on))


def _summary(
    state: TrainState,
    config: TrainConfig,
    dataset: TrainingData,
    grid: Sequence[float],
    statistics_images: int,
    events: Sequence[Mapping[str, object]],
) -> dict[str, object]:
    held_out = len(split_data(config, dataset)[1])
    return {
        "step": state.step,
        "images": len(dataset) - held_out,
        **({"held_out_images": held_out} if held_out else {}),
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
        **({"attempt": state.attempt.number, "events": list(events)} if events else {}),
    }


def _preview(gan: Gan) -> Image.Image:
    classes: list[int | None] = list(range(min(len(gan.class_names), _PREVIEW_CLASSES))) or [None]
    recipes = gan.plan(classes, _PREVIEW_COLUMNS, truncation=1.0, seed=0)
    return make_grid(list(gan.draw(recipes)), columns=_PREVIEW_COLUMNS)
