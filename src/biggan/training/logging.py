"""Metrics of a run: one JSON object a line, and the same curves for TensorBoard."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from biggan.atomic_write import write_atomically
from biggan.errors import InputError

_LOG = logging.getLogger("biggan.training")


class MetricsLog:
    """Appends to `metrics.jsonl` and `tensorboard/` in a run's folder.

    Args:
        run_dir: The run's folder.
        start: The step at which this process starts. Lines beyond it, of a process that was killed
            after its last checkpoint, are dropped: they will be written again.
    """

    def __init__(self, run_dir: Path, start: int) -> None:
        self._path = run_dir / "metrics.jsonl"
        try:
            _drop_after(self._path, start)
            self._file = self._path.open("a", encoding="utf-8")
            self._writer = _tensorboard_writer(run_dir / "tensorboard", start)
        except OSError as error:
            raise InputError(f"cannot write {self._path}: {error.strerror or error}") from None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record the values of one step.

        Raises:
            InputError: The disk is full.
        """
        try:
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
            if self._writer is not None:
                for name, value in values.items():
                    self._writer.add_scalar(name, value, step)
        except OSError as error:
            raise InputError(f"cannot write {self._path}: {error.strerror or error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the files."""
        # A full disk was reported where it was noticed; what is still in the buffers is lost.
        with contextlib.suppress(OSError):
            self._file.close()
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()


def _drop_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (json.JSONDecodeError, KeyError, TypeError):  # a line that a kill cut short
            continue
    write_atomically(path, "".join(f"{line}\n" for line in kept).encode())


def _tensorboard_writer(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        _LOG.info("no TensorBoard curves: pip install 'biggan[train]' for them")
        return None
    # TensorBoard hides what an earlier process wrote from this step on.
    return SummaryWriter(str(folder), purge_step=start)
