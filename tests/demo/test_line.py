"""The request queue: what is computed once, for whom, and when it is given up."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from biggan.demo.line import AbandonedError, FullLineError, Job, Line


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


def ask(line: Line, make: Maker, key: str = "key") -> object:
    with line.join(key, make) as job:
        return job.future.result(20)


def test_requests_with_one_key_share_one_job_and_its_result() -> None:
    line, make = Line(100), Maker()
    with ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(ask, line, make) for _ in range(8)]
        while line.length < 8:
            threading.Event().wait(0.01)
        make.go.set()
        results = {id(answer.result()) for answer in answers}

    assert len(results) == 1
    assert id(ask(line, make)) in results  # and afterwards, out of memory
    assert make.begun == 1
    assert line.length == 0


def test_a_job_ends_when_its_last_client_leaves_and_not_before() -> None:
    line, make = Line(100), Maker()
    with line.join("key", make) as first:
        with line.join("key", make) as second:
            assert second is first
        assert not first.abandoned.is_set()
    assert first.abandoned.is_set()
    make.go.set()
    with pytest.raises(AbandonedError):
        first.future.result(20)
    assert ask(line, make) == b"picture"  # afresh
    assert make.begun == 2


def test_what_waits_for_nobody_is_not_begun() -> None:
    line, slow, other = Line(100), Maker(), Maker()
    with line.join("slow", slow):
        with line.join("other", other):
            pass
        slow.go.set()
    other.go.set()
    assert ask(line, other, "last") == b"picture"
    assert other.begun == 1


def test_a_video_does_not_hold_up_pictures() -> None:
    line, video, picture = Line(100), Maker(["a.webp"]), Maker()
    picture.go.set()
    with line.join("video", video, is_video=True) as job:
        assert ask(line, picture) == b"picture"
        video.go.set()
        assert job.future.result(20) == ["a.webp"]
    with line.join("video", video, is_video=True) as job:  # files may be deleted: not kept
        job.future.result(20)
    assert video.begun == 2


def test_what_failed_is_tried_again() -> None:
    line, fails = Line(100), [True]

    def make(job: Job) -> bytes:
        if fails.pop():
            raise ValueError("no")
        return b"picture"

    with line.join("key", make) as job, pytest.raises(ValueError, match="no"):
        job.future.result(20)
    fails.append(False)
    with line.join("key", make) as job:
        assert job.future.result(20) == b"picture"


def test_a_full_line_refuses_all_but_what_is_there() -> None:
    line, make, slow = Line(1), Maker(), Maker()
    make.go.set()
    ask(line, make)
    with line.join("slow", slow):
        with pytest.raises(FullLineError, match="1 requests wait, and no more are taken"):
            ask(line, make, "third")
        assert ask(line, make) == b"picture"
        slow.go.set()


def test_a_closed_line_gives_all_up() -> None:
    line, make, waiting = Line(100), Maker(), Maker()
    with contextlib.ExitStack() as stack:
        jobs = [stack.enter_context(line.join(m, m)) for m in (make, waiting)]
        line.close()
        make.go.set()
        for job in jobs:
            with pytest.raises(AbandonedError, match="shutting down"):
                job.future.result(20)
    assert waiting.begun == 0
    with pytest.raises(AbandonedError, match="shutting down"):
        ask(line, make, "new")
