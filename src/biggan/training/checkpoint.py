"""Checkpoints: the whole state in one safetensors file, written atomically, the newest two kept."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from biggan.errors import InputError
from biggan.training.config import TrainConfig
from biggan.training.state import TrainState
from biggan.weights.files import FORMAT, load_tensors, save_tensors

_LOG = logging.getLogger("biggan.training")
_NAME = re.compile(r"step-(\d{8,})\.safetensors")
_KEPT = 2


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of its run."""

    config: TrainConfig
    data_fingerprint: str
    step: int


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
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot create {self.folder}: {error.strerror}") from None
        path = self.folder / f"step-{state.step:08d}.safetensors"
        info = {
            "step": state.step,
            "recipe": config.to_dict(),
            "data_fingerprint": data_fingerprint,
        }
        metadata = {"format": FORMAT, "header": json.dumps({"kind": "checkpoint", **info})}
        save_tensors(path, metadata, state.tensors())
        for old in self._paths()[:-_KEPT]:
            old.unlink()
        for unfinished in self.folder.glob(".*.tmp"):  # of a process that was killed
            unfinished.unlink()
        return path

    def load_latest(self, state: TrainState) -> CheckpointInfo | None:
        """Restore the newest checkpoint that is whole.

        Returns:
            What it says of its run, or None where there is no checkpoint.

        Raises:
            InputError: There are checkpoints, but none is whole.
        """
        damaged: list[str] = []
        for path in reversed(self._paths()):
            try:
                metadata, tensors, _ = load_tensors(path)
            except InputError as error:
                damaged.append(str(error))
                _LOG.warning("%s; trying the checkpoint before it", error)
                continue
            info = _info(metadata["header"])
            state.load_tensors(tensors)
            state.step = info.step
            return info
        if damaged:
            raise InputError(damaged[0])
        return None

    def peek(self) -> CheckpointInfo | None:
        """What the newest whole checkpoint says of its run, without loading it into a state."""
        for path in reversed(self._paths()):
            try:
                return _info(load_tensors(path)[0]["header"])
            except InputError:
                continue
        return None

    def _paths(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))


def _info(header: str) -> CheckpointInfo:
    values = json.loads(header)
    return CheckpointInfo(
        TrainConfig.from_dict(values["recipe"]), values["data_fingerprint"], values["step"]
    )
