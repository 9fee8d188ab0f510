"""The queue of what is drawn: what is made once, for whom, and when it is given up."""

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from biggan import Gan, InputError
from biggan.demo import renderer as renderer_module
from biggan.demo.drawing import draw_grid
from biggan.demo.forms import EXPLORE, VIDEO
from biggan.demo.models import ModelCache, UnavailableError
from biggan.demo.renderer import AbandonedError, QueueFullError, Renderer
from biggan.provenance_files import read_provenance
from demo_app import GatedGan, until


@pytest.fixture
def queue(gated: GatedGan, tmp_path: Path) -> Renderer:
    return Renderer(ModelCache(["tiny"], lambda _: gated), tmp_path)


@pytest.fixture
def sheets(gated: GatedGan) -> list[Any]:
    """Pictures that differ by their seeds."""
    return [EXPLORE.plan(gated, num=1, seed=seed) for seed in range(3)]


def ask(queue: Renderer, made: Any) -> Path:
    with queue.join("tiny", made) as job:
        job.future.result(20)
        return job.files[0]


def test_requests_for_the_same_share_one_job_and_its_file(
    queue: Renderer, gan: Gan, gated: GatedGan, sheets: list[Any]
) -> None:
    with ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(ask, queue, sheets[0]) for _ in range(8)]
        until(lambda: queue.length == 8)
        gated.let_through(1)
        (file,) = {answer.result() for answer in answers}
    assert read_provenance(file) == sheets[0]
    with Image.open(file) as picture:
        assert picture.tobytes() == draw_grid(gan, EXPLORE.plan(gan, num=1)).tobytes()
    os.utime(file, (0, 0))
    assert ask(queue, sheets[0]) == file  # and afterwards
    assert file.stat().st_mtime > 0  # it is kept for as long as a new one
    assert (gated.drawn, queue.length) == (1, 0)
    file.unlink()
    gated.let_through(1)
    ask(queue, sheets[0])
    assert gated.drawn == 2


def test_a_job_ends_when_its_last_client_leaves_and_not_before(
    queue: Renderer, gated: GatedGan, sheets: list[Any]
) -> None:
    with queue.join("tiny", sheets[0]) as first:
        with queue.join("tiny", sheets[0]) as second:
            assert second is first
        assert not first.abandoned.is_set()
        until(lambda: gated.seeds == [0])
        with queue.join("tiny", sheets[1]) as other:
            pass
    assert first.abandoned.is_set()
    gated.let_through(1)
    with pytest.raises(AbandonedError):
        first.future.result(20)
    assert other.future.cancelled()  # it was not begun
    gated.let_through(1)
    ask(queue, sheets[0])  # afresh
    assert gated.seeds == [0, 0]


def test_a_video_does_not_hold_up_pictures(
    queue: Renderer, gated: GatedGan, sheets: list[Any]
) -> None:
    video = VIDEO.plan(gated, num=1, seconds=1, category_b="one")
    with queue.join("tiny", video) as job:
        gated.let_through(1)
        until(lambda: job.parts == [1])
        gated.let_through(20)
        ask(queue, sheets[0])
        job.future.result(20)
    assert [file.exists() for file in job.files] == [True] * len(job.files)
    assert read_provenance(job.files[0]) == video


def test_a_job_that_failed_is_tried_again(
    queue: Renderer, gated: GatedGan, sheets: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(renderer_module, "draw_sheet", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ask(queue, sheets[0])
    gated.let_through(1)
    assert ask(queue, sheets[0]).exists()


def test_a_full_queue_refuses_all_but_what_is_there(
    queue: Renderer, gated: GatedGan, sheets: list[Any]
) -> None:
    queue.limit = 1
    gated.let_through(1)
    file = ask(queue, sheets[0])
    with queue.join("tiny", sheets[1]):
        with pytest.raises(QueueFullError, match="1 requests are waiting already"):
            ask(queue, sheets[2])
        assert ask(queue, sheets[0]) == file
        gated.let_through(1)


def test_a_closed_queue_abandons_all_jobs(
    queue: Renderer, gated: GatedGan, sheets: list[Any]
) -> None:
    with contextlib.ExitStack() as stack:
        jobs = [stack.enter_context(queue.join("tiny", sheet)) for sheet in sheets[:2]]
        until(lambda: gated.seeds == [0])
        queue.close()
        gated.let_through(1)
        for job in jobs:
            with pytest.raises(AbandonedError, match="shutting down"):
                job.future.result(20)
    assert gated.seeds == [0]
    with pytest.raises(AbandonedError, match="shutting down"):
        ask(queue, sheets[2])


def test_no_message_names_a_path_of_the_server(
    queue: Renderer, gated: GatedGan, sheets: list[Any], tmp_path: Path, caplog: Any
) -> None:
    tmp_path.rmdir()
    tmp_path.touch()  # no folder can be there now
    made = [sheets[0], VIDEO.plan(gated, num=1, seconds=1)]
    for each in made:
        with pytest.raises(UnavailableError) as caught:
            ask(queue, each)
        assert str(caught.value) == "the server cannot make the file; its log says why"
    assert str(tmp_path) in caplog.text
    with pytest.raises(InputError, match="no model is named"), queue.join("x", made[0]) as job:
        job.future.result(20)
