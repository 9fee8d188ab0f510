"""A run: its folder, recipe and data.

    config.toml                the resolved recipe
    checkpoints/               the whole state, newest two and some to roll back to (`checkpoint`)
    generator.safetensors      the newest averaged generator, ready to sample: `biggan.load(RUN)`
    discriminator.safetensors  the discriminator of the same step
    generators/                averaged generators of earlier steps: `biggan.load("RUN@STEP")`
    previews/                  image grids, a row per class; real.png of the training images
    evaluations/, best.safetensors    if the recipe asks for evaluations (`supervision.evaluation`)
    metrics.jsonl, signals.jsonl, events.jsonl, tensorboard/    (`supervision.log`)
    .lock                      held by the process that trains here

Several processes call every method together; the first of them writes.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from biggan._version import __version__
from biggan.atomic_write import make_folder, write_atomically
from biggan.data import ImageDataset, TrainingData, split_off
from biggan.data.dataset import DatasetOutline
from biggan.distributed import check_same, from_first, is_first, on_any_process, raising_together
from biggan.errors import InputError, quoted, require
from biggan.images import save_png
from biggan.locks import locked
from biggan.models import Generator, statistics_grid
from biggan.supervision.log import read_events
from biggan.toml import to_toml
from biggan.training.checkpoint import CheckpointDirectory, rollback_reach
from biggan.training.config import TrainConfig, differing_keys
from biggan.training.export import finish, preview, real_preview, statistics_plan
from biggan.training.state import TrainState
from biggan.weights.files import (
    RUN_DISCRIMINATOR,
    RUN_GENERATOR,
    RUN_REAL_PREVIEW,
    Description,
    kept_generator,
    parse_header,
    read_metadata,
    save_network,
)

_LOG = logging.getLogger("biggan.training")

Exported = tuple[Generator, Description]
"""An averaged generator, ready to sample, and what its file says of it."""


@dataclass(frozen=True)
class Run:
    """A run of a recipe, fitted to its data, in a folder."""

    config: TrainConfig
    dataset: TrainingData
    folder: Path
    device: torch.device
    progress: bool = True
    """Whether to show progress bars on a terminal."""
    interrupted: Callable[[], bool] = lambda: False
    """Whether to break off what follows the last checkpoint."""

    @cached_property
    def checkpoints(self) -> CheckpointDirectory:
        """The run's checkpoints."""
        folder, every = self.folder / "checkpoints", self.config.checkpoint_every
        return CheckpointDirectory(folder, every, rollback_reach(self.config))

    @property
    def trained_on(self) -> NDArray[np.int64] | None:
        """Indices of the images to train on; None for all."""
        return self._split[0]

    @property
    def held_out(self) -> NDArray[np.int64]:
        """Indices of the images that are held out; empty for none."""
        return self._split[1]

    @cached_property
    def _split(self) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
        if not self.config.watch.held_out:
            return None, np.empty(0, np.int64)
        # By the recipe's seed, not an attempt's: what is held out is so for good.
        return split_off(len(self.dataset), self.config.watch.held_out, self.config.seed)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs out of the folder, which is created if needed."""
        busy = (
            f"another process is training in {self.folder}: wait until it ends, or choose "
            "another --out"
        )
        with ExitStack() as held:
            with raising_together():
                if is_first():
                    make_folder(self.folder)
                    try:
                        held.enter_context(locked(self.folder / ".lock", busy))
                    except OSError as error:
                        message = f"cannot write to {self.folder}: {error.strerror}"
                        raise InputError(message) from None
            yield

    def open(self) -> TrainState:
        """The state to go on from, after checking that it belongs to this recipe and data."""
        config, dataset, folder = self.config, self.dataset, self.folder
        if isinstance(dataset, ImageDataset):
            channels, resolution = dataset.images.shape[1:3]
        else:
            channels, resolution = dataset.image_channels, dataset.resolution
        have = resolution, channels, dataset.num_classes
        shape = config.generator
        want = shape.resolution, shape.image_channels, shape.num_classes
        require(
            have == want,
            f"{dataset.source} has resolution, channels and classes {have}, and the recipe {want}: "
            "load it with the recipe's, and fit the recipe to its classes (config.fitted)",
        )
        _ = self._split  # refused before anything is written
        with raising_together():
            saved = self.checkpoints.read_newest()
            if saved is not None:
                if differing := differing_keys(saved.config, config, saved.step):
                    raise InputError(other_recipe(folder, config.data, differing))
                if saved.data_fingerprint != dataset.fingerprint:
                    raise InputError(other_data(folder, dataset))
            elif not (folder / "config.toml").exists():
                for name in (RUN_GENERATOR, RUN_DISCRIMINATOR):
                    if (folder / name).exists():
                        raise InputError(f"{folder / name} is of no run: choose another --out")
        check_same(
            saved.step if saved is not None else None,
            f"the processes see different checkpoints in {folder}: it must be one shared folder",
        )
        check_same(dataset.fingerprint, f"the processes see different images in {dataset.source}")
        state = self.create(initialize=saved is None)
        with raising_together():
            if is_first():
                recipe = to_toml(config.to_dict())
                write_atomically(folder / "config.toml", recipe.encode(errors="replace"))
        if saved is None and state.sources:
            # Kept for a rollback to the start: the sources may be gone by then.
            self.save(state)
        if saved is not None:
            saved.restore(state)
            at, total = state.step, config.total_steps
            rest = "; no step is left to train" if at >= total else ""
            _LOG.info("resuming %s at %s%s", folder, position(at, total), rest)
            # A kill may have come between a checkpoint and its export.
            if on_any_process(state.step > 0 and not self._is_exported(state)):
                self.export(state)
        return state

    def create(self, *, initialize: bool = False) -> TrainState:
        """The state before the first step; `initialize` loads the sources of fine-tuning."""
        names = self.dataset.class_names if initialize else None
        return TrainState.create(self.config, self.device, names, self.dataset.histogram())

    def save(self, state: TrainState) -> None:
        """Write a checkpoint."""
        with raising_together():
            if is_first():
                self.checkpoints.save(state, self.config, self.dataset.fingerprint)

    def preview_file(self, step: int) -> Path:
        """Where the preview of a step is."""
        return self.folder / "previews" / f"step-{step:08d}.png"

    def export(self, state: TrainState) -> Exported:
        """Write the averaged generator, ready to sample, the discriminator, and a preview.

        Raises:
            RunInterruptedError: The export after the last step, which is long, was interrupted.
        """
        config = self.config
        is_last = state.step >= config.total_steps
        with raising_together():
            events = [event.to_dict() for event in read_events(self.folder)[0]]
        grid, images = statistics_plan(state, config)
        if is_last and is_first() and not sys.stderr.isatty():  # a terminal has a bar
            text = "%s: recording statistics for %d truncations"
            _LOG.info(text, position(state.step, config.total_steps), len(grid))
        generator = finish(
            state.ema,
            config,
            state.class_counts,
            grid,
            images,
            progress=self.progress,
            interrupted=self.interrupted if is_last else lambda: False,
        )
        statistics = (
            f"standing, {images} images for each of {len(grid)} truncations and for untruncated "
            "noise"
        )
        description = Description(
            name=config.name,
            class_names=self.dataset.class_names,
            source=f"trained by biggan {__version__} on {self.dataset.source}",
            licence=config.licence,
            training=self._summary(state, statistics, from_first(events)),
        )
        with raising_together():
            if is_first():
                save_network(self.folder / RUN_DISCRIMINATOR, state.discriminator, description)
                file = self.preview_file(state.step)
                make_folder(file.parent)
                save_png(preview(generator), file)
                if state.step > 0 and state.step % config.kept_interval == 0:
                    kept = kept_generator(self.folder, state.step)
                    make_folder(kept.parent)
                    save_network(kept, generator, description)
                real, data = self.folder / RUN_REAL_PREVIEW, self.dataset
                if isinstance(data, ImageDataset) and not real.exists():
                    shown = real_preview(data.images, data.labels, data.num_classes)
                    save_png(shown, real)
                # Last: a generator of this step says that the export is whole (`_is_exported`).
                save_network(self.folder / RUN_GENERATOR, generator, description)
        return generator, description

    def _is_exported(self, state: TrainState) -> bool:
        """Whether the folder has the generator of this very state."""
        from biggan.weights.load import load_network

        try:
            exported = load_network(self.folder / RUN_GENERATOR)
        except InputError:
            return False
        if state.step >= self.config.total_steps:
            grid, _ = statistics_plan(state, self.config)
            if statistics_grid(exported.network) != grid:
                return False
        return bool(exported.description.training.get("step") == state.step)

    def _summary(
        self, state: TrainState, statistics: str, events: Sequence[Mapping[str, object]]
    ) -> dict[str, Any]:
        """What the generator's file says of its training."""
        config, dataset, held_out = self.config, self.dataset, len(self.held_out)
        # Data by their names: a shared file does not say where they were kept.
        recipe = config.to_dict() | {"data": dataset.source, "classes": Path(config.classes).name}
        sources = {"evaluation": ("extractor", "data"), "fine_tuning": config.fine_tuning.sources}
        for table, keys in sources.items():
            for key in keys:
                if (source := recipe[table][key]) not in ("", "inception"):
                    from biggan.weights.download import without_folder

                    recipe[table][key] = without_folder(source)
        return {
            "step": state.step,
            "images": len(dataset) - held_out,
            **({"held_out_images": held_out} if held_out else {}),
            "data": dataset.source,
            "data_fingerprint": dataset.fingerprint,
            "weights": f"moving average, decay {config.ema.decay}",
            "statistics": statistics,
            "torch": torch.__version__,
            "recipe": recipe,
            **({"fine_tuning": dict(state.sources)} if state.sources else {}),
            **({"attempt": state.attempt.number, "events": list(events)} if events else {}),
        }


def position(step: int, total_steps: int) -> str:
    """Where a run is, in words: it may have more steps than the recipe now asks for."""
    if step <= total_steps:
        return f"step {step} of {total_steps}"
    return f"step {step}, beyond total_steps={total_steps}"


def other_recipe(run_dir: Path, data: str, differing: list[str]) -> str:
    """Why a run cannot go on with a changed recipe, and the ways out."""
    with_data = ["--data", data] if data else []
    resume = ["train", run_dir / "config.toml", *with_data, "--out", run_dir]
    return (
        f"{run_dir} contains a run of another recipe ({'; '.join(differing)}): choose another "
        f"--out, or resume it with its own: biggan {shlex.join(map(str, resume))}"
    )


def other_data(run_dir: Path, data: TrainingData | DatasetOutline) -> str:
    """Why a run cannot go on after its data changed, and the ways out."""
    run = shlex.quote(str(run_dir))
    return (
        f"{run_dir} was trained on other data than {data.source} now contains"
        f"{_changes(run_dir, data)}: restore the data, or "
        f"start from its networks in another --out, with --set fine_tuning.generator={run} "
        f"--set fine_tuning.discriminator={run}"
    )


def _changes(run_dir: Path, data: TrainingData | DatasetOutline) -> str:
    """How many images and which classes changed since a run's last export, if that shows it."""
    try:
        file = run_dir / RUN_GENERATOR
        known = parse_header(read_metadata(file), file).description
    except InputError:
        return ""
    before, now = set(known.class_names), set(data.class_names)
    changed = [f"the class {quoted(name)} is new" for name in sorted(now - before)[:1]]
    changed += [f"the class {quoted(name)} is missing" for name in sorted(before - now)[:1]]
    counts = [known.training.get(key, 0) for key in ("images", "held_out_images")]
    if all(isinstance(count, int) for count in counts) and 0 < sum(counts) != len(data):
        changed.append(f"{len(data)} images instead of {sum(counts)}")
    return f" ({'; '.join(changed)})" if changed else ""
