"""Checkpoints: the whole state in one safetensors file, written atomically, the newest two kept."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import safe_open
from torch import Tensor

from biggan.atomic_write import make_folder
from biggan.errors import InputError
from biggan.training.config import TrainConfig
from biggan.training.state import TrainState
from biggan.weights.files import FORMAT, is_ours, load_tensors, save_tensors

_LOG = logging.getLogger("biggan.training")
_NAME = re.compile(r"step-(\d{8,})\.safetensors")
_KEPT = 2

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class CheckpointHeader:
    """What a checkpoint says of itself."""

    config: TrainConfig
    """The recipe of the run, resolved."""
    data_fingerprint: str
    """Of the data that it was trained on."""
    step: int
    """Generator updates done."""
    sources: Mapping[str, Any]
    """What the networks were fine-tuned from, for the model card."""

    @classmethod
    def parse(cls, path: Path, metadata: Mapping[str, str]) -> CheckpointHeader:
        """Read it off a file's metadata.

        Raises:
            InputError: The file is no checkpoint.
        """
        header = json.loads(metadata["header"])
        if header.get("kind") != "checkpoint":
            raise InputError(f"{path} is no checkpoint of a run: take it out of {path.parent}")
        return cls(
            TrainConfig.from_dict(header["recipe"]),
            header["data_fingerprint"],
            header["step"],
            header.get("sources", {}),  # not in runs of before there was fine-tuning
        )


@dataclass(frozen=True)
class Checkpoint(CheckpointHeader):
    """A checkpoint as read from its file."""

    tensors: dict[str, Tensor]
    """The state: `TrainState.tensors`."""

    def restore(self, state: TrainState) -> None:
        """Bring a state of the same recipe to where this checkpoint was written."""
        try:
            state.load_tensors(self.tensors)
        except RuntimeError as error:  # torch's list of what does not fit
            first_line = str(error).splitlines()[0]
            raise InputError(
                f"the checkpoint of step {self.step} does not fit its recipe: {first_line}"
            ) from None
        state.step = self.step
        state.sources = self.sources


class CheckpointDirectory:
    """The checkpoints of one run.

    Args:
        folder: Created by the first save.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, state: TrainState, config: TrainConfig, data_fingerprint: str) -> Path:
        """Write the state and delete all but the newest checkpoints.

        Raises:
            InputError: The folder cannot be written.
        """
        make_folder(self.folder)
        path = self.folder / f"step-{state.step:08d}.safetensors"
        info = {
            "step": state.step,
            "recipe": config.to_dict(),
            "data_fingerprint": data_fingerprint,
            "sources": dict(state.sources),
        }
        metadata = {"format": FORMAT, "header": json.dumps({"kind": "checkpoint", **info})}
        save_tensors(path, metadata, state.tensors())
        for old in self._paths()[:-_KEPT]:
            old.unlink()
        return path

    def read_newest(self) -> Checkpoint | None:
        """Read the newest checkpoint that is whole; None where there is no checkpoint.

        Raises:
            InputError: There are checkpoints, but none is whole.
        """
        found = self._newest(load_tensors)
        if found is None:
            return None
        path, (metadata, tensors, _) = found
        return Checkpoint(**vars(CheckpointHeader.parse(path, metadata)), tensors=tensors)

    def read_newest_header(self) -> CheckpointHeader | None:
        """What the newest checkpoint says of itself, without reading its tensors.

        One whose tensors are damaged is not found out: `read_newest` would take the one before.

        Raises:
            InputError: There are checkpoints, but each is cut short.
        """
        found = self._newest(_read_metadata)
        return None if found is None else CheckpointHeader.parse(*found)

    def _newest(self, read: Callable[[Path], _Read]) -> tuple[Path, _Read] | None:
        """The newest file that can be read, and what reading it gives."""
        first_error: InputError | None = None
        for path in reversed(self._paths()):
            try:
                return path, read(path)
            except InputError as error:
                first_error = first_error or error
                _LOG.warning("%s; trying the checkpoint before it", error)
        if first_error is not None:
            raise first_error
        return None

    def _paths(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))


def _read_metadata(path: Path) -> dict[str, str]:
    if not is_ours(path):
        raise InputError(f"{path} is a safetensors file, but not one of biggan's")
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata()
    return metadata
