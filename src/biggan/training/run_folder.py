"""The folder of a run: who may write there, and the state to go on from."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from biggan.atomic_write import make_folder, write_atomically
from biggan.data import TrainingData
from biggan.distributed import check_same, is_first, on_any_process, raising_together
from biggan.errors import InputError
from biggan.locks import locked
from biggan.training.checkpoint import Checkpoint, CheckpointDirectory, rollback_reach
from biggan.training.config import TrainConfig, differing_keys, to_toml
from biggan.training.events import read_events
from biggan.training.run_export import export_run, is_exported
from biggan.training.state import TrainState

_LOG = logging.getLogger("biggan.training")


@contextmanager
def locked_run(run_dir: Path) -> Iterator[None]:
    """Keep other runs out of a folder, which is created if needed, until the context ends."""
    busy = f"another process is training in {run_dir}: wait until it ends, or choose another --out"
    with ExitStack() as held:
        with raising_together():
            if is_first():
                make_folder(run_dir)
                try:
                    held.enter_context(locked(run_dir / ".lock", busy))
                except OSError as error:
                    raise InputError(f"cannot write to {run_dir}: {error.strerror}") from None
        yield


def open_run(
    config: TrainConfig,
    dataset: TrainingData,
    run_dir: Path,
    device: torch.device,
    *,
    progress: bool = True,
) -> tuple[TrainState, CheckpointDirectory]:
    """The state to go on from, after making sure that it belongs to this recipe and data."""
    checkpoints = CheckpointDirectory(
        run_dir / "checkpoints", config.checkpoint_every, rollback_reach(config)
    )
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
            write_atomically(
                run_dir / "config.toml", to_toml(config.to_dict()).encode(errors="replace")
            )
            if saved is None and state.sources:
                # Kept for a rollback to the start: the sources may be gone by then.
                checkpoints.save(state, config, dataset.fingerprint)
    if saved is not None:
        saved.restore(state)
        _LOG.info("resuming %s at step %d of %d", run_dir, state.step, config.total_steps)
        # A kill may have come between a checkpoint and its export.
        exported = state.step == 0 or is_exported(state, config, run_dir)
        if on_any_process(not exported):
            export_run(state, config, dataset, run_dir, read_events(run_dir), progress=progress)
    return state, checkpoints


def other_data(run_dir: Path, source: str) -> str:
    """Why a run cannot go on after its data changed, and the ways out."""
    quoted = shlex.quote(str(run_dir))
    return (
        f"{run_dir} was trained on other data than {source} now holds: restore the data, or go on "
        f"from its networks in another --out, with --set fine_tuning.generator={quoted} "
        f"--set fine_tuning.discriminator={quoted}"
    )


def _check_same_run(
    saved: Checkpoint, config: TrainConfig, dataset: TrainingData, run_dir: Path
) -> None:
    if differing := differing_keys(saved.config, config, saved.step):
        raise InputError(
            f"{run_dir} holds a run of another recipe ({'; '.join(differing)}): "
            "choose another --out, or give the recipe that it was started with"
        )
    if saved.data_fingerprint != dataset.fingerprint:
        raise InputError(other_data(run_dir, dataset.source))
