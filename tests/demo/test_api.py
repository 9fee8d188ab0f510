"""The HTTP API, asked over a socket as programs ask it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import socket
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

import uvicorn

from biggan import Gan, InputError
from biggan.demo import api, drawing
from biggan.demo.drawing import draw_grid, interpolation_recipe, sample_recipe, sweep_recipe
from biggan.demo.limits import BodyLimit
from biggan.demo.line import Line
from biggan.demo.shelf import ModelShelf
from biggan.provenance import read_provenance

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def running(shelf: ModelShelf, limit: int = 100) -> Iterator[str]:
    """A server of the API; yields its address."""
    line = Line(limit)
    app = api.build_api(shelf, line)
    app.add_middleware(BodyLimit)
    server = uvicorn.Server(uvicorn.Config(app, http="h11", log_level="critical"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            line.close()
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def gan(make_gan: Callable[..., Gan]) -> Gan:
    return make_gan()


@pytest.fixture(scope="module")
def address(gan: Gan) -> Iterator[str]:
    with running(ModelShelf(["tiny", "other"], lambda _: gan)) as address:
        yield address


def get(address: str, path: str) -> tuple[int, bytes]:
    return serving.get(address, path)


def detail(body: bytes) -> str:
    answer = json.loads(body)
    assert set(answer) == {"detail"}
    return answer["detail"]


@pytest.mark.parametrize(
    ("path", "plan", "settings"),
    [
        ("sample", sample_recipe, (10, 0.4, 0, "zero")),  # what the page begins with
        ("sample?num=3&truncation=0.5&seed=4294967295&category=three", sample_recipe,
         (3, 0.5, 2**32 - 1, "three")),
        ("sample?category=3%29+three&seed=7.0&model=other", sample_recipe, (10, 0.4, 7, "three")),
        ("interpolate", interpolation_recipe, (2, 5, 0.2, 0, 0, "zero", "nine")),
        ("interpolate?num=1&steps=3&seed_b=1&category_a=2", interpolation_recipe,
         (1, 3, 0.2, 0, 1, "two", "nine")),
        ("sweep?noise=hub&num=1", sweep_recipe, (1, 0, "hub", "zero")),
    ],
)  # fmt: skip
def test_a_picture_is_the_pages_with_its_recipe(
    address: str, gan: Gan, path: str, plan: Any, settings: tuple[Any, ...], tmp_path: Path
) -> None:
    recipe = plan(gan, *settings)
    status, body = get(address, f"/api/{path}")

    assert status == 200
    file = tmp_path / "picture.png"
    file.write_bytes(body)
    assert read_provenance(file) == recipe
    with Image.open(file) as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(draw_grid(gan, recipe)))


def test_an_answer_says_what_it_is(address: str) -> None:
    connection = http.client.HTTPConnection(address.removeprefix("http://"))
    with contextlib.closing(connection):
        connection.request("GET", "/api/sample?num=2&category=three")
        reply = connection.getresponse()
        assert reply.getheader("Content-Type") == "image/png"
        name = 'inline; filename="tiny-three-hub0.4-seed0-2.png"'
        assert reply.getheader("Content-Disposition") == name
        assert len(reply.read()) == int(reply.getheader("Content-Length") or 0)


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("sample?num=0", 400, "number of samples must be between 1 and 20, not 0"),
        ("sample?num=21", 400, "between 1 and 20, not 21"),
        ("sample?num=ten", 400, "number of samples must be a number, not 'ten'"),
        ("sample?num=2.5", 400, "must be a whole number, not 2.5"),
        ("sample?num=", 400, "must be a number, not ''"),
        ("sample?truncation=nan", 400, "truncation must be a number"),
        ("sample?truncation=1.5", 400, "truncation must be .*1, not 1.5"),
        ("sample?truncation=0", 400, "truncation must be .*, not 0"),
        ("sample?seed=-1", 400, "must be between 0 and 4294967295, not -1"),
        ("sample?seed=4294967296", 400, "must be between 0 and 4294967295"),
        ("sample?seed=1e999", 400, "seed must be"),
        ("sample?category=cheeseburger", 400, "no class is called 'cheeseburger'"),
        ("sample?category=10", 400, "10"),
        ("sample?category=", 400, "the class is empty"),
        ("sample?category=" + "x" * 50_000, 400, "no category has a name of 50000 characters"),
        ("sample?steps=3", 400, "'steps' is unknown here; there is model, num, truncation"),
        ("sample?num=1&num=2", 400, "a name is given twice"),
        ("sample?num=1" + "+" * 1000 + "no", 400, "number of samples must be a number, not '1 "),
        ("classes?serch=se", 400, "'serch' is unknown here; there is model, search"),
        ("classes?search=" + "x" * 50_000, 400, "no category has a name of 50000 characters"),
        ("interpolate?steps=1", 400, "number of steps must be between 2 and 10, not 1"),
        ("sweep?noise=scale", 400, "noise must be paper or hub here, not 'scale'"),
        ("sample?model=third", 404, "no model is called 'third' here; there is tiny, other"),
        ("sample?model=/etc/passwd", 404, "no model is called '/etc/passwd' here"),
        ("classes?model=../tiny.safetensors", 404, "no model is called"),
        ("samples", 404, "there is no /api/samples; /api says what there is"),
    ],
)
def test_mistakes_are_told_and_hurt_nobody(address: str, path: str, status: int, told: str) -> None:
    answered, body = get(address, f"/api/{path}")

    assert answered == status
    assert re.search(told, detail(body))
    assert len(body) < 400
    assert get(address, "/api/sample?num=1")[0] == 200


def test_a_long_body_and_another_method_are_refused(address: str) -> None:
    status, body = serving.get(address, "/api/sample", "x" * 10_000_000)
    assert (status, detail(body)[:23]) == (413, "the request is too long")
    status, body = serving.get(address, "/api/sample", "{}")
    assert (status, detail(body)) == (405, "all that is here is to be had by GET")


def test_what_there_is_can_be_asked(address: str) -> None:
    assert json.loads(get(address, "/api/models")[1]) == ["tiny", "other"]
    classes = json.loads(get(address, "/api/classes")[1])
    assert classes[3] == {"index": 3, "name": "three"}
    assert len(classes) == 10
    found = json.loads(get(address, "/api/classes?search=se&model=other")[1])
    assert found == [{"index": 7, "name": "seven"}]
    assert json.loads(get(address, "/api/queue")[1]) == {"waiting": 0, "limit": 100}


def test_the_reference_names_all_and_loads_nothing(address: str) -> None:
    schema = json.loads(get(address, "/api/openapi.json")[1])
    status, body = get(address, "/api")
    page = body.decode()

    assert status == 200
    assert set(schema["paths"]) == {
        f"/api/{name}" for name in ("sample", "interpolate", "sweep", "models", "classes", "queue")
    }
    for path, methods in schema["paths"].items():
        assert path in page
        for parameter in methods["get"].get("parameters", []):
            assert f"<code>{parameter['name']}</code>" in page
    num = schema["paths"]["/api/sample"]["get"]["parameters"][1]
    assert num["schema"] == {"type": "integer", "minimum": 1, "maximum": 20, "default": 10}
    assert not re.search(r"<script|<link|<img|url\(|src=", page)
    for link in re.findall(r"href=['\"]([^'\"]+)", page):
        assert get(address, link.replace("&amp;", "&"))[0] == 200


class Gate:
    """Draws for those who are let through, one picture a step; notes what is drawn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drawn: list[int] = []
        self.pictures = 0
        self._steps = threading.Semaphore(0)
        draw_pictures = drawing.draw_pictures

        def slowly(gan: Gan, recipe: Any) -> Iterator[Image.Image]:
            self.drawn.append(recipe.pictures[0].seed)
            for picture in draw_pictures(gan, recipe):
                self._steps.acquire(timeout=20)
                self.pictures += 1
                yield picture

        monkeypatch.setattr(drawing, "draw_pictures", slowly)

    def let_through(self, pictures: int) -> None:
        self._steps.release(pictures)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def waiting(address: str) -> int:
    return json.loads(get(address, "/api/queue")[1])["waiting"]


def test_a_full_line_says_so_and_serves_the_first_that_came(gan: Gan, gate: Gate) -> None:
    with running(ModelShelf(["tiny"], lambda _: gan), limit=3) as address:
        with ThreadPoolExecutor() as clients:
            answers = []
            for seed in range(3):
                answers.append(clients.submit(get, address, f"/api/sample?num=1&seed={seed}"))
                until(lambda: waiting(address) == len(answers))
            status, body = get(address, "/api/sample?num=1&seed=3")
            gate.let_through(3)
            assert [answer.result()[0] for answer in answers] == [200] * 3

        assert status == 503
        assert detail(body) == "3 requests wait, and no more are taken: try again in 5 s"
        assert gate.drawn == [0, 1, 2]
        gate.let_through(1)
        assert get(address, "/api/sample?num=1&seed=3")[0] == 200


def test_who_goes_away_is_dropped(gan: Gan, gate: Gate) -> None:
    with running(ModelShelf(["tiny"], lambda _: gan)) as address:
        host = address.removeprefix("http://")
        gone = [http.client.HTTPConnection(host) for _ in range(3)]
        for seed, connection in enumerate(gone):
            connection.request("GET", f"/api/sample?num=20&seed={seed}")
            until(lambda: waiting(address) == seed + 1)  # noqa: B023
        with ThreadPoolExecutor() as clients:
            patient = clients.submit(get, address, "/api/sample?num=1&seed=9")
            until(lambda: waiting(address) == 4)
            for connection in gone:  # one is being drawn, two wait
                connection.close()
            until(lambda: waiting(address) == 1)
            gate.let_through(2)  # one of those that nobody waits for, and the patient one's
            assert patient.result()[0] == 200

    assert gate.drawn == [0, 9]
    assert gate.pictures == 2


def test_what_was_drawn_is_not_drawn_again(gan: Gan, gate: Gate) -> None:
    paths = ["/api/sample?num=1&seed=5", "/api/sample?seed=5&num=1&truncation=0.40"]
    with running(ModelShelf(["tiny"], lambda _: gan)) as address:
        with ThreadPoolExecutor() as clients:
            answers = [clients.submit(get, address, paths[0]) for _ in range(4)]
            until(lambda: waiting(address) == 4)  # all ask before the first is answered
            gate.let_through(1)
            bodies = [answer.result() for answer in answers]
        assert get(address, paths[0]) == bodies[0]  # and one afterwards

    assert gate.drawn == [5]
    assert len(set(bodies)) == 1


def test_what_is_kept_is_bounded(gan: Gan, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.let_through(100)
    with running(ModelShelf(["tiny"], lambda _: gan)) as address:
        size = len(get(address, "/api/sample?num=1&seed=0")[1])
        monkeypatch.setattr("biggan.demo.line._KEPT", 2 * size + size // 2)
        for seed in (1, 0, 2, 0, 1):  # 1 was not asked for the longest when 2 came
            get(address, f"/api/sample?num=1&seed={seed}")

    assert Counter(gate.drawn) == {0: 1, 1: 2, 2: 1}


def test_ending_the_server_ends_what_is_drawn(gan: Gan, gate: Gate) -> None:
    with ThreadPoolExecutor() as clients:
        with running(ModelShelf(["tiny"], lambda _: gan)) as address:
            answer = clients.submit(get, address, "/api/sample?num=20")
            until(lambda: gate.drawn == [0])
            threading.Timer(0.2, gate.let_through, [1]).start()
        assert answer.result()[0] == 503

    assert gate.pictures == 1


def test_a_model_that_cannot_be_loaded_is_the_servers_fault(gan: Gan) -> None:
    def load(source: str | Path) -> Gan:
        if "broken" in str(source):
            raise InputError(f"{source} is damaged")
        return gan

    with running(ModelShelf(["tiny", "/secret/broken"], load)) as address:
        for path in ("sample", "classes"):
            status, body = get(address, f"/api/{path}?model=broken")
            assert (status, "secret" in detail(body)) == (503, False)
        assert get(address, "/api/sample?num=1")[0] == 200


def test_two_models_in_turn_with_memory_for_one(make_gan: Callable[..., Gan]) -> None:
    gans = {"ten": make_gan(), "two": make_gan(("zero", "one"))}
    loads: list[str] = []

    def load(source: str | Path) -> Gan:
        loads.append(str(source))
        return make_gan(gans[str(source)].class_names)

    shelf = ModelShelf(list(gans), load, memory=1)
    asked = [(name, seed) for seed in range(10) for name in gans]
    with running(shelf) as address, ThreadPoolExecutor(8) as clients:
        paths = [f"/api/sample?model={n}&num=1&category=1&seed={s}" for n, s in asked]
        answers = list(clients.map(lambda path: get(address, path), paths))

    for (name, seed), (status, body) in zip(asked, answers, strict=True):
        assert status == 200
        expected = draw_grid(gans[name], sample_recipe(gans[name], 1, 0.4, seed, "one"))
        assert np.array_equal(np.asarray(serving.read(body)), np.asarray(expected))
    assert len(loads) > 2  # they were dropped in between


def test_many_clients_get_what_one_gets(address: str, gan: Gan) -> None:
    settings = serving.make_settings(gan, 40)
    expected = [draw_grid(gan, s.recipe(gan)) for s in settings]
    report = serving.hammer(address, serving.ask_http, settings, expected, clients=8)

    assert report.faults == []
    assert len(report.times) == 40
    assert serving.hammer(address, serving.ask_http, settings, expected[::-1], clients=2).faults


def test_an_unconditional_model_has_no_category(make_gan: Callable[..., Gan]) -> None:
    gan = make_gan(())
    with running(ModelShelf(["plain"], lambda _: gan)) as address:
        status, body = get(address, "/api/sample?num=2")
        assert status == 200
        expected = draw_grid(gan, sample_recipe(gan, 2, 0.4, 0, None))
        with Image.open(io.BytesIO(body)) as picture:
            assert np.array_equal(np.asarray(picture), np.asarray(expected))
        assert get(address, "/api/interpolate")[0] == 200
        assert json.loads(get(address, "/api/classes")[1]) == []
        status, body = get(address, "/api/sample?category=cat")
        assert status == 400
        assert "unconditional" in detail(body)
