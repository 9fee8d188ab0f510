"""The files of pictures and videos, each made once, for the page and for both APIs alike."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event, RLock
from typing import Any

from biggan.atomic_write import make_folder, write_atomically
from biggan.demo.drawing import columns, draw_sheet, draw_video, video_endings
from biggan.demo.forms import SheetProvenance
from biggan.demo.models import ModelCache, UnavailableError
from biggan.errors import InputError
from biggan.images import make_grid, to_png
from biggan.provenance import VideoProvenance, file_stem

_LOG = logging.getLogger("biggan.demo")


class AbandonedError(UnavailableError):
    """No client waits for the result any more, or the server is shutting down."""


class QueueFullError(UnavailableError):
    """Too many requests wait."""

    retry_after = 5  # seconds


class Job:
    """A picture or a video that is being made: its files, and the parts that are finished."""

    def __init__(self, files: Sequence[Path] = ()) -> None:
        self.files = files
        self.parts: list[Any] = []
        self.clients = 0
        self.abandoned = Event()
        self.future: Future[None] = Future()

    def check(self) -> None:
        """Raise AbandonedError if no client waits for the result any more."""
        if self.abandoned.is_set():
            raise AbandonedError("the server is shutting down")

    def add(self, part: Any) -> None:
        """Add a finished part; raises as `check`."""
        self.check()
        self.parts.append(part)


class Renderer:
    """A queue in front of the models. Safe to use from any thread.

    First come, first served; one picture and one video are made at a time. Requests for the same
    share one job, which is abandoned when its last client leaves. What is done is found again in
    its file, as long as that is in the folder, which the server empties.
    """

    def __init__(self, models: ModelCache, folder: Path, limit: int = 100) -> None:
        self.models = models
        self.folder = folder
        self.limit = limit  # the most requests that may wait
        self.length = 0  # requests that wait or are being served
        self._lock = RLock()
        self._jobs: dict[SheetProvenance | VideoProvenance | str, Job] = {}
        self._closed = False
        self._pictures = ThreadPoolExecutor(1, "pictures")
        self._videos = ThreadPoolExecutor(1, "videos")
        self._downloads = ThreadPoolExecutor(1, "downloads")

    @contextlib.contextmanager
    def join(self, model: str, made: SheetProvenance | VideoProvenance) -> Iterator[Job]:
        """Wait inside a `with` block for a PNG, or a video: a WebP and where possible an MP4.

        To leave the block early is to give the files up.

        Raises:
            QueueFullError: Too many requests wait.
            AbandonedError: The server is shutting down.
        """
        is_video = isinstance(made, VideoProvenance)
        digest = hashlib.sha256(made.to_json().encode()).hexdigest()
        endings = video_endings() if is_video else [".png"]
        files = [self.folder / digest / f"{file_stem(made)}{ending}" for ending in endings]
        if _reused(files):
            job = Job(files)
            job.future.set_result(None)
            yield job
            return
        submit = (self._videos if is_video else self._pictures).submit
        with self._shared(made, files, lambda j: submit(self._make, model, made, j)) as job:
            yield job

    def download(self, model: str) -> contextlib.AbstractContextManager[Job]:
        """Wait for a published model, inside a `with` block; raises as `join`.

        The parts of the job are pairs: bytes that have come, and all of them or None.
        """
        fetch, submit = self.models.download, self._downloads.submit
        return self._shared(model, (), lambda job: submit(fetch, model, lambda *p: job.add(p)))

    def cancel_download(self, model: str) -> None:
        """Stop a download, for all who wait for it."""
        with self._lock:
            if job := self._jobs.get(model):
                job.abandoned.set()
                job.future.cancel()

    @contextlib.contextmanager
    def _shared(
        self,
        key: SheetProvenance | VideoProvenance | str,
        files: Sequence[Path],
        start: Callable[[Job], Future[None]],
    ) -> Iterator[Job]:
        with self._lock:
            if self.length >= self.limit:
                raise QueueFullError(
                    f"{self.length} requests are waiting already: try again in "
                    f"{QueueFullError.retry_after} s"
                )
            job = self._jobs.get(key)
            if not job:
                if self._closed:
                    raise AbandonedError("the server is shutting down")
                job = self._jobs[key] = Job(files)
                job.future = start(job)
            job.clients += 1
            self.length += 1
        try:
            yield job
        finally:
            with self._lock:
                job.clients -= 1
                self.length -= 1
                if not job.clients:
                    del self._jobs[key]
                    job.abandoned.set()
                    job.future.cancel()

    def close(self) -> None:
        """Abandon all jobs; returns at once."""
        with self._lock:
            self._closed = True
            for job in self._jobs.values():
                job.abandoned.set()
        for threads in (self._pictures, self._videos, self._downloads):
            threads.shutdown(wait=False)

    def _make(self, model: str, made: SheetProvenance | VideoProvenance, job: Job) -> None:
        job.check()
        if _reused(job.files):  # made since the client looked
            return
        gan = self.models.get(model)
        with _hidden_paths():
            make_folder(job.files[0].parent)
            if isinstance(made, VideoProvenance):
                draw_video(gan, made, job.files, job.add)
                return
        for picture in draw_sheet(gan, made):
            job.add(picture)
        png = to_png(make_grid(job.parts, columns(made)), made)
        with _hidden_paths():
            write_atomically(job.files[0], png)


def _reused(files: Sequence[Path]) -> bool:
    """Whether the files are there; if so, they count as new and are deleted as late."""
    try:
        for file in files:
            os.utime(file)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _hidden_paths() -> Iterator[None]:
    """Log why a file cannot be made: visitors must not see the server's paths."""
    try:
        yield
    except AbandonedError:
        raise
    except InputError as error:
        _LOG.error("%s", error)
        raise UnavailableError("the server cannot make the file; its log says why") from error
