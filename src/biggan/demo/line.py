"""The queue of everything that the demo draws, for the page and for the HTTP API alike."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Event, RLock
from typing import Any

from biggan.errors import InputError

RETRY = 5  # seconds

_KEPT = 64 * 2**20  # bytes of pictures


class AbandonedError(InputError):
    """No client waits for the result any more, or the server is shutting down."""


class FullLineError(InputError):
    """Too many requests wait."""


class Job:
    """A picture or a video in the queue.

    Attributes:
        future: Its result.
        parts: What is done of it so far.
    """

    future: Future[Any]

    def __init__(self) -> None:
        self.parts: list[Any] = []
        self.size = 0  # bytes of the result, once it is kept
        self.clients = 0
        self.abandoned = Event()

    def add(self, part: Any) -> None:
        """Add a finished part.

        Raises:
            AbandonedError: As `check`.
        """
        self.check()
        self.parts.append(part)

    def check(self) -> None:
        """Make sure that the result is still wanted.

        Raises:
            AbandonedError: It is not.
        """
        if self.abandoned.is_set():
            raise AbandonedError("the server is shutting down")


class Line:
    """A request queue: first come, first served, and each result is computed once.

    One picture and one video are made at a time; they share the engine, batch by batch. Requests
    with the same key share one job, and pictures are kept in an LRU cache. A job ends when its last
    client leaves. All methods may be called from any thread.

    Args:
        limit: The most requests that may wait or be served.

    Attributes:
        limit: The most requests that may wait or be served.
        length: How many do.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.length = 0
        self._lock = RLock()
        self._jobs: OrderedDict[Hashable, Job] = OrderedDict()  # the last one used is last
        self._kept = 0  # bytes
        self._closed = False
        self._threads = {
            is_video: ThreadPoolExecutor(1, name)
            for is_video, name in ((False, "drawing"), (True, "filming"))
        }

    @contextlib.contextmanager
    def join(
        self, key: Hashable, make: Callable[[Job], Any], *, is_video: bool = False
    ) -> Iterator[Job]:
        """Wait for a result within this context; leaving it early gives the result up.

        Args:
            key: What the result depends on.
            make: Computes it in another thread, adding its parts to the job. Results of type bytes
                are kept for later requests.
            is_video: Whether it takes its turn among the videos.

        Raises:
            FullLineError: Too many requests wait.
            AbandonedError: The server is shutting down.
        """
        with self._lock:
            job = self._jobs.get(key)
            if self.length >= self.limit and not (job and job.future.done()):
                raise FullLineError(
                    f"{self.length} requests wait, and no more are taken: try again in {RETRY} s"
                )
            if job is None:
                job = Job()
                job.future = self._start(make, job, is_video=is_video)
                self._jobs[key] = job
                job.future.add_done_callback(partial(self._finish, key, job))
            else:
                self._jobs.move_to_end(key)
            job.clients += 1
            self.length += 1
        try:
            yield job
        finally:
            with self._lock:
                job.clients -= 1
                self.length -= 1
                if not job.clients and not job.future.done():
                    del self._jobs[key]  # a later request starts afresh
                    job.abandoned.set()
                    job.future.cancel()

    def close(self) -> None:
        """Give up all jobs; returns at once."""
        with self._lock:
            for job in self._jobs.values():
                job.abandoned.set()
            self._closed = True
        for thread in self._threads.values():
            thread.shutdown(wait=False)

    def _start(self, make: Callable[[Job], Any], job: Job, *, is_video: bool) -> Future[Any]:
        def run() -> Any:
            job.check()
            return make(job)

        if self._closed:
            raise AbandonedError("the server is shutting down")
        return self._threads[is_video].submit(run)

    def _finish(self, key: Hashable, job: Job, future: Future[Any]) -> None:
        """Keep a picture, or forget the job; drop the oldest pictures if there is no room."""
        with self._lock:
            job.parts.clear()
            if self._jobs.get(key) is not job:
                return
            failed = future.cancelled() or future.exception()
            if failed or not isinstance(future.result(), bytes):
                del self._jobs[key]
                return
            job.size = len(future.result())
            self._kept += job.size
            for old, other in list(self._jobs.items()):
                if self._kept > _KEPT and other.size:
                    self._kept -= other.size
                    del self._jobs[old]
