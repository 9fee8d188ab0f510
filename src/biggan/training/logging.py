"""What a run writes on its way: one JSON object a line, and the same curves for TensorBoard.

    metrics.jsonl    losses and speed, every `log_every` steps; evaluations
    signals.jsonl    the state of both networks, every `watch.every` steps (`stability.signals`)

After a rollback both end at the step that the run goes back to. What they held beyond it is kept in
metrics.before-rollback-1.jsonl, and so on.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from biggan.atomic_write import write_atomically
from biggan.errors import InputError
from biggan.stability.collapse import WINDOW
from biggan.stability.signals import scalars

_LOG = logging.getLogger("biggan.training")
_NAMES = ("metrics", "signals")
_DEEPEST = 16  # levels of objects and lists within each other


class RunLog:
    """Appends to the two files and to `tensorboard/` in a run's folder.

    Args:
        run_dir: The run's folder.
        start: The step at which this process starts. Lines beyond it, of a process that was killed
            after its last checkpoint, are dropped: they will be written again.
    """

    def __init__(self, run_dir: Path, start: int) -> None:
        self._run_dir = run_dir
        self._files: dict[str, TextIO] = {}
        self._recent: deque[Mapping[str, Any]] = deque(maxlen=WINDOW)
        self._open(start)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record the metrics of one step.

        Raises:
            InputError: The disk is full.
        """
        self._append("metrics", {"step": step, **values}, values)

    def write_signals(self, step: int, signals: Mapping[str, Any]) -> None:
        """Record the signals of one step.

        Raises:
            InputError: The disk is full.
        """
        line = {"step": step, **signals}
        self._append("signals", line, dict(scalars(signals)))
        self._recent.append(line)

    def keep_beyond(self, step: int, number: int) -> None:
        """Copy what was written after a step to files beside, before the run goes back to it.

        Args:
            step: Where the run will go on from.
            number: Which rollback of the run this is, from 1 on.

        Raises:
            InputError: The disk is full.
        """
        for name in _NAMES:
            beyond = [text for text, at in _lines(self._run_dir / f"{name}.jsonl") if at > step]
            kept = self._run_dir / f"{name}.before-rollback-{number}.jsonl"
            write_atomically(kept, "".join(f"{line}\n" for line in beyond).encode())

    def go_back(self, step: int) -> None:
        """Drop what was written after a step, as a process does that starts there.

        Raises:
            InputError: The disk is full.
        """
        self._close()
        self._open(step)

    def recent_signals(self) -> list[Mapping[str, Any]]:
        """The last lines of signals.jsonl, oldest first: all that a collapse is judged by."""
        return list(self._recent)

    def _open(self, start: int) -> None:
        path = self._run_dir
        try:
            self._files = {}
            for name in _NAMES:
                path = self._run_dir / f"{name}.jsonl"
                _drop_after(path, start)
                # signals.jsonl begins with its first line: a run that is not watched has none.
                if name == "metrics" or path.exists():
                    self._files[name] = path.open("a", encoding="utf-8")
            # What is written as JSON is read as the same numbers: a resumed run judges alike.
            recent = _lines(self._run_dir / "signals.jsonl")[-WINDOW:]
            self._recent = deque((json.loads(text) for text, _ in recent), WINDOW)
            self._writer = _tensorboard_writer(self._run_dir / "tensorboard", start)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from None

    def _append(self, name: str, line: Mapping[str, Any], curves: Mapping[str, float]) -> None:
        path = self._run_dir / f"{name}.jsonl"
        try:
            if name not in self._files:
                self._files[name] = path.open("a", encoding="utf-8")
            self._files[name].write(json.dumps(line) + "\n")
            self._files[name].flush()
            if self._writer is not None:
                for curve, value in curves.items():
                    self._writer.add_scalar(curve, value, line["step"])
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from None

    def _close(self) -> None:
        # A full disk was reported where it was noticed; what is still in the buffers is lost.
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.close()
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the files."""
        self._close()


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object that a text holds: a line of a log, or a file of figures.

    Raises:
        ValueError: It holds none, or one that is nested deeper than any that a run writes.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("no object")
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        containers = [inner for inner in level if isinstance(inner, dict | list)]
        level = [v for c in containers for v in (c.values() if isinstance(c, dict) else c)]
        if not level:
            return value
    raise ValueError("nested too deeply")


def _lines(path: Path) -> list[tuple[str, int]]:
    """The whole lines of a file, and their steps."""
    lines = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            # What a kill cut short is no line, nor is what a disk damaged.
            with contextlib.suppress(ValueError, KeyError):
                step = parse_object(line)["step"]
                if type(step) is int:
                    lines.append((line, step))
    return lines


def _drop_after(path: Path, step: int) -> None:
    if path.exists():
        kept = [line for line, at in _lines(path) if at <= step]
        write_atomically(path, "".join(f"{line}\n" for line in kept).encode())


def _tensorboard_writer(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        _LOG.info("no TensorBoard curves: pip install 'biggan[train]' for them")
        return None
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        _LOG.info("no TensorBoard curves: it writes to no folder whose name is not UTF-8")
        return None
    # TensorBoard hides what an earlier process wrote from this step on.
    return SummaryWriter(str(folder), purge_step=start)
