"""The request queue: what is computed once, for whom, and when it is given up."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from biggan.demo.request_queue import AbandonedError, Job, QueueFullError, RequestQueue


class Maker:
    """Makes a result once it is let go; counts how often it was begun."""

    def __init__(self, result: object = b"picture") -> None:
        self.begun = 0
        self.go = threading.Event()
        self._result = result

    def __call__(self, job: Job) -> object:
        self.begun += 1
        self.go.wait(20)
        job.add("part")
        return self._result


def ask(queue: RequestQueue, make: Maker, key: str = "key") -> object:
    with queue.join(key, make) as job:
        return job.future.result(20)


def test_requests_with_one_key_share_one_job_and_its_result() -> None:
    queue, make = RequestQueue(100), Maker()
    with ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(ask, queue, make) for _ in range(8)]
        while queue.length < 8:
            threading.Event().wait(0.01)
        make.go.set()
        results = {id(answer.result()) for answer in answers}

    assert len(results) == 1
    assert id(ask(queue, make)) in results  # and afterwards, out of memory
    assert make.begun == 1
    assert queue.length == 0


def test_a_job_ends_when_its_last_client_leaves_and_not_before() -> None:
    queue, make = RequestQueue(100), Maker()
    with queue.join("key", make) as first:
        with queue.join("key", make) as second:
            assert second is first
        assert not first.abandoned.is_set()
    assert first.abandoned.is_set()
    make.go.set()
    with pytest.raises(AbandonedError):
        first.future.result(20)
    assert ask(queue, make) == b"picture"  # afresh
    assert make.begun == 2


def test_an_abandoned_job_is_not_begun() -> None:
    queue, slow, other = RequestQueue(100), Maker(), Maker()
    with queue.join("slow", slow):
        with queue.join("other", other):
            pass
        slow.go.set()
    other.go.set()
    assert ask(queue, other, "last") == b"picture"
    assert other.begun == 1


def test_a_video_does_not_hold_up_pictures() -> None:
    queue, video, picture = RequestQueue(100), Maker(["a.webp"]), Maker()
    picture.go.set()
    with queue.join("video", video, is_video=True) as job:
        assert ask(queue, picture) == b"picture"
        video.go.set()
        assert job.future.result(20) == ["a.webp"]
    with queue.join("video", video, is_video=True) as job:  # files may be deleted: not kept
        job.future.result(20)
    assert video.begun == 2


def test_a_job_that_failed_is_tried_again() -> None:
    queue, fails = RequestQueue(100), [True]

    def make(job: Job) -> bytes:
        if fails.pop():
            raise ValueError("no")
        return b"picture"

    with queue.join("key", make) as job, pytest.raises(ValueError, match="no"):
        job.future.result(20)
    fails.append(False)
    with queue.join("key", make) as job:
        assert job.future.result(20) == b"picture"


def test_a_full_queue_refuses_all_but_cached_pictures() -> None:
    queue, make, slow = RequestQueue(1), Maker(), Maker()
    make.go.set()
    ask(queue, make)
    with queue.join("slow", slow):
        with pytest.raises(QueueFullError, match="1 requests wait, and no more are taken"):
            ask(queue, make, "third")
        assert ask(queue, make) == b"picture"
        slow.go.set()


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("biggan.demo.request_queue._CACHE_SIZE", 25)
    queue, made = RequestQueue(100), Counter[str]()

    def make(key: str, _job: Job) -> bytes:
        made[key] += 1
        return b"0123456789"

    for key in "abacab":  # b was not asked for the longest when c came
        with queue.join(key, partial(make, key)) as job:
            job.future.result(20)
    assert made == {"a": 1, "b": 2, "c": 1}


def test_a_closed_queue_abandons_all_jobs() -> None:
    queue, make, waiting = RequestQueue(100), Maker(), Maker()
    with contextlib.ExitStack() as stack:
        jobs = [stack.enter_context(queue.join(m, m)) for m in (make, waiting)]
        queue.close()
        make.go.set()
        for job in jobs:
            with pytest.raises(AbandonedError, match="shutting down"):
                job.future.result(20)
    assert waiting.begun == 0
    with pytest.raises(AbandonedError, match="shutting down"):
        ask(queue, make, "new")
