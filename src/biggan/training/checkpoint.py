"""Checkpoints: the whole state in one safetensors file, written atomically.

checkpoints/step-00001000.safetensors              the newest two, and older ones to roll back to
checkpoints/pre-collapse-step-00000800.safetensors    the last before a collapse; never deleted
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from biggan.atomic_write import make_folder, replaced_atomically
from biggan.errors import InputError
from biggan.training.config import TrainConfig
from biggan.training.state import Attempt, TrainState
from biggan.weights.files import FORMAT, load_tensors, read_metadata, save_tensors

_LOG = logging.getLogger("biggan.training")
_NAME = re.compile(r"step-(\d{8,})\.safetensors")
_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read from its file."""

    config: TrainConfig
    """The recipe of the run, resolved."""
    data_fingerprint: str
    """Of the data that it was trained on."""
    step: int
    """Generator updates done."""
    sources: Mapping[str, Any]
    """What the networks were fine-tuned from, for the model card."""
    attempt: Attempt
    """Which attempt of the run."""
    tensors: Mapping[str, Tensor]
    """The state: `TrainState.tensors`; empty where only the header was read."""

    @classmethod
    def parse(
        cls, path: Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]
    ) -> Checkpoint:
        """Read a file's metadata.

        Raises:
            InputError: The file is no checkpoint, or one that is damaged.
        """
        way_out = f"remove it from {path.parent}"
        try:
            header = json.loads(metadata["header"])
            if header.get("kind") != "checkpoint":
                raise InputError(f"it is another file of biggan; {way_out}")
            step, data_fingerprint = header["step"], header["data_fingerprint"]
            if not (isinstance(data_fingerprint, str) and type(step) is int and 0 <= step < 2**53):
                raise TypeError
            return cls(
                TrainConfig.from_dict(dict(header["recipe"])),
                data_fingerprint,
                step,
                # Neither is in runs of before there were fine-tuning and rollbacks.
                dict(header.get("sources", {})),
                Attempt(**header.get("attempt", {})),
                tensors,
            )
        except InputError as error:
            raise InputError(f"{path} is not a checkpoint of a run: {error}") from None
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            raise InputError(
                f"{path} is not a checkpoint of a run, or a damaged one: {way_out}"
            ) from None

    def restore(self, state: TrainState) -> None:
        """Bring a state of the same recipe to where this checkpoint was written."""
        try:
            state.load_tensors(self.tensors)
        except RuntimeError as error:  # torch's list of what does not fit
            first_line = str(error).splitlines()[0]
            raise InputError(
                f"the checkpoint of step {self.step} does not fit its recipe: {first_line}"
            ) from None
        state.step, state.sources, state.attempt = self.step, self.sources, self.attempt


def rollback_reach(config: TrainConfig) -> int:
    """The most steps that a rollback goes back; a checkpoint at least that old is always kept.

    Ten lines of signals, and at least 50 steps, because some rules must hold over 40 steps; or two
    evaluations, because the rule `distance` needs two bad ones.
    """
    signals = max(10 * config.watch.every, 50) if config.watch.every else 0
    return max(signals, 2 * config.evaluation.every)


class CheckpointDirectory:
    """The checkpoints of one run.

    Args:
        folder: Created by the first save.
        every: Steps from one scheduled checkpoint to the next. Those of runs that were stopped in
            between are for resuming alone: what a rollback goes to must not depend on stops.
        reach: Steps; see `rollback_reach`.

    Raises:
        InputError: The folder cannot be written, or a checkpoint is damaged; so may every method.
    """

    def __init__(self, folder: Path, every: int = 1, reach: int = 0) -> None:
        self.folder = folder
        self._every = every
        self._reach = reach

    def save(self, state: TrainState, config: TrainConfig, data_fingerprint: str) -> Path:
        """Write the state and delete the checkpoints that are no longer needed."""
        make_folder(self.folder)
        path = self._path(state.step)
        header = {
            "kind": "checkpoint",
            "step": state.step,
            "recipe": config.to_dict(),
            "data_fingerprint": data_fingerprint,
            "sources": dict(state.sources),
            "attempt": asdict(state.attempt),
        }
        save_tensors(path, {"format": FORMAT, "header": json.dumps(header)}, state.tensors())
        steps = self._steps()
        kept = self._kept(steps)
        for step in steps:
            if step not in kept:
                self._path(step).unlink()
        return path

    def last_until(self, step: int) -> int | None:
        """The step of the newest scheduled checkpoint not beyond one; None where there is none."""
        return max((at for at in self._scheduled(self._steps()) if at <= step), default=None)

    def read(self, step: int) -> Checkpoint:
        """Read the checkpoint of a step."""
        path = self._path(step)
        return Checkpoint.parse(path, *load_tensors(path)[:2])

    def keep_before_collapse(self, step: int) -> None:
        """Keep the checkpoint of a step for ever, under a name that says why."""
        kept = self.folder / f"pre-collapse-step-{step:08d}.safetensors"
        with replaced_atomically(kept) as temporary:
            temporary.unlink()
            try:
                os.link(self._path(step), temporary)  # the same file: it takes no space
            except OSError:  # a file system without links
                shutil.copyfile(self._path(step), temporary)

    def delete_beyond(self, step: int) -> None:
        """Delete the checkpoints of later steps, the newest first."""
        for later in reversed(self._steps()):
            if later > step:
                path = self._path(later)
                try:
                    path.unlink()
                except OSError as error:
                    raise InputError(f"cannot delete {path}: {error.strerror}") from None

    def read_newest(self, *, header_only: bool = False) -> Checkpoint | None:
        """Read the newest checkpoint that is whole; None where there is no checkpoint.

        With `header_only` its tensors are not read: that they are damaged is not found out.
        """
        first_error: InputError | None = None
        tensors: Mapping[str, Tensor] = {}
        for step in reversed(self._steps()):
            path = self._path(step)
            try:
                if not header_only:
                    metadata, tensors, _ = load_tensors(path)
                elif (metadata := read_metadata(path)).get("format") != FORMAT:
                    raise InputError(f"{path} is a safetensors file, but not a file of biggan")
            except InputError as error:
                first_error = first_error or error
                _LOG.warning("%s; trying the checkpoint before it", error)
            else:
                return Checkpoint.parse(path, metadata, tensors)
        if first_error is not None:
            raise first_error
        return None

    def _kept(self, steps: list[int]) -> list[int]:
        """The newest, the newest two scheduled ones, and one from `reach` steps before.

        Of each stretch of so many steps the first is a candidate: those of the two newest
        stretches, and the newest that is at least `reach` steps old already.
        """
        scheduled = self._scheduled(steps)
        kept = steps[-1:] + scheduled[-_KEPT:]
        if self._reach:
            first = {step // self._reach: step for step in reversed(scheduled)}
            candidates = sorted(first.values())
            old = [step for step in candidates if step <= kept[-1] - self._reach]
            kept += candidates[-2:] + old[-1:]
        return kept

    def _scheduled(self, steps: list[int]) -> list[int]:
        return [step for step in steps if step % self._every == 0]

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.safetensors"

    def _steps(self) -> list[int]:
        """The steps that there are checkpoints of, ascending."""
        if not self.folder.is_dir():
            return []
        named = map(_NAME.fullmatch, (path.name for path in self.folder.iterdir()))
        return sorted(int(name[1]) for name in named if name)
