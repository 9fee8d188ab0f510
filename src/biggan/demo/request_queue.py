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

_CACHE_SIZE = 64 * 2**20  # bytes of pictures


class AbandonedError(InputError):
    """No client waits for the result any more, or the server is shutting down."""

    status = 503


class QueueFullError(InputError):
    """Too many requests wait."""

    status = 503
    retry_after = 5  # seconds


class Job:
    """A picture or a video that is being made: its result, and the parts that are finished."""

    future: Future[Any]

    def __init__(self) -> None:
        self.parts: list[Any] = []
        self.size = 0  # bytes of the result, once it is cached
        self.clients = 0
        self.abandoned = Event()

    def check(self) -> None:
        """Raise AbandonedError if no client waits for the result any more."""
        if self.abandoned.is_set():
            raise AbandonedError("the server is shutting down")

    def add(self, part: Any) -> None:
        """Add a finished part; raises as `check`."""
        self.check()
        self.parts.append(part)


class RequestQueue:
    """First come, first served, with an LRU cache of pictures. Safe to use from any thread.

    One picture and one video are made at a time. Requests with the same key share one job. A job
    is abandoned when its last client leaves.

    Attributes:
        limit: The most requests that may wait or be served.
        length: How many do.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.length = 0
        self._lock = RLock()
        self._jobs: OrderedDict[Hashable, Job] = OrderedDict()  # the least recently used first
        self._cached = 0  # bytes
        self._closed = False
        self._pictures = ThreadPoolExecutor(1, "pictures")
        self._videos = ThreadPoolExecutor(1, "videos")

    @contextlib.contextmanager
    def join(
        self, key: Hashable, make: Callable[[Job], Any], *, is_video: bool = False
    ) -> Iterator[Job]:
        """Wait for a result inside a `with` block. To leave it early is to give the result up.

        Args:
            key: What the result depends on.
            make: Computes it in another thread. Results of type bytes are cached.
            is_video: Whether it waits for other videos, not for pictures.

        Raises:
            QueueFullError: Too many requests wait.
            AbandonedError: The server is shutting down.
        """
        with self._lock:
            job = self._jobs.get(key)
            if self.length >= self.limit and not (job and job.future.done()):
                raise QueueFullError(
                    f"{self.length} requests wait, and no more are taken: "
                    f"try again in {QueueFullError.retry_after} s"
                )
            if job is None:
                job = self._start(key, make, self._videos if is_video else self._pictures)
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
                    del self._jobs[key]  # a later request starts again
                    job.abandoned.set()
                    job.future.cancel()

    def close(self) -> None:
        """Abandon all jobs; returns at once."""
        with self._lock:
            for job in self._jobs.values():
                job.abandoned.set()
            self._closed = True
        for threads in (self._pictures, self._videos):
            threads.shutdown(wait=False)

    def _start(self, key: Hashable, make: Callable[[Job], Any], threads: ThreadPoolExecutor) -> Job:
        def run() -> Any:
            job.check()
            return make(job)

        if self._closed:
            raise AbandonedError("the server is shutting down")
        job = self._jobs[key] = Job()
        job.future = threads.submit(run)
        job.future.add_done_callback(partial(self._finish, key, job))
        return job

    def _finish(self, key: Hashable, job: Job, future: Future[Any]) -> None:
        """Cache a picture, forget any other job, and make room in the cache."""
        with self._lock:
            job.parts.clear()
            if self._jobs.get(key) is not job:
                return
            failed = future.cancelled() or future.exception()
            if failed or not isinstance(future.result(), bytes):
                del self._jobs[key]
                return
            job.size = len(future.result())
            self._cached += job.size
            for old, other in list(self._jobs.items()):
                if self._cached > _CACHE_SIZE and other.size:
                    self._cached -= other.size
                    del self._jobs[old]
