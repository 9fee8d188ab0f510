"""Work beside a notebook's cells, of which only what was asked for last is finished."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

Work = Callable[[], Generator[None, None, None]]
"""Something that can be ended early: where it yields."""


class NewestWork:
    """Runs in the background what it was given last, and ends what it was given before.

    A notebook's kernel handles one message after the other. Were pictures made in the handlers of
    sliders, each move would wait for the pictures of all moves before it.

    Args:
        failed: Called with what the work raised, which nobody else would see.
    """

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._failed = failed
        self._worker = ThreadPoolExecutor(1, "newest-work")
        self._count = 0
        self._last: Future[None] | None = None

    def start(self, work: Work) -> None:
        """Begin with this when what runs has come to its next `yield`, and has been closed."""
        self._count += 1
        self._last = self._worker.submit(self._run, work, self._count)

    def wait(self) -> None:
        """Return when what was given last is done, or has failed."""
        if self._last is not None:
            self._last.result()

    def _run(self, work: Work, number: int) -> None:
        if number < self._count:
            return
        try:
            with closing(work()) as steps:
                for _ in steps:
                    if number < self._count:
                        return
        except Exception as error:
            self._failed(error)
