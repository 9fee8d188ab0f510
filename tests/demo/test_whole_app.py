"""The page and both APIs behind all limits, as one application."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("gradio")

import uvicorn

from biggan import Gan
from biggan.demo import views
from biggan.demo.connections import server_config
from biggan.demo.drawing import draw_grid
from biggan.demo.line import Line
from biggan.demo.page import build_page
from biggan.demo.server import build_app
from biggan.demo.shelf import ModelShelf

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def running(
    gan: Gan,
    *,
    limit: int = 100,
    users: dict[str, str] | None = None,
    per_minute: int = 0,
    proxies: tuple[str, ...] = (),
) -> Iterator[str]:
    """A server with the page; yields its address."""
    shelf, line = ModelShelf(["tiny", "other"], lambda _: gan), Line(limit)
    listener = socket.create_server(("127.0.0.1", 0))
    servers = []

    async def serve() -> None:  # Gradio makes event loops of its own outside of one, and leaks them
        app = build_app(shelf, build_page(shelf, line), line, users or {}, per_minute)
        servers.append(uvicorn.Server(server_config(app, proxies)))
        await servers[0].serve(sockets=[listener])

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    with listener:
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            line.close()
            servers[0].should_exit = True
            thread.join()


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    def http_response(self, request: Any, response: Any) -> Any:
        return response


@pytest.fixture(scope="module")
def gan(make_gan: Callable[..., Gan]) -> Gan:
    return make_gan()


@pytest.fixture(scope="module")
def address(gan: Gan) -> Iterator[str]:
    with running(gan) as address:
        yield address


def post(address: str, path: str, body: Any) -> tuple[int, Any]:
    status, answer = serving.get(address, f"/gradio_api/{path}", json.dumps(body))
    return status, json.loads(answer)


def call(address: str, endpoint: str, *values: Any) -> tuple[str, Any]:
    """Call Gradio's API; returns the last event and its data."""
    status, answer = post(address, f"call/{endpoint}", {"data": values})
    assert status == 200, answer
    _, events = serving.get(address, f"/gradio_api/call/{endpoint}/{answer['event_id']}")
    event, data = events.decode().strip().split("\n")[-2:]
    return event.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def test_many_clients_of_gradios_api_get_what_one_gets(address: str, gan: Gan) -> None:
    settings = serving.make_settings(gan, 24)
    expected = [draw_grid(gan, s.recipe(gan)) for s in settings]
    report = serving.hammer(address, serving.ask_gradio, settings, expected, clients=8)

    assert report.faults == []
    assert len(report.times) == 24


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (("ten", 0.4, 0, "three"), "number of samples must be a number, not 'ten'"),
        ((21, 0.4, 0, "three"), "number of samples must be between 1 and 20, not 21"),
        ((1, 1.5, 0, "three"), "truncation must be above 0 and at most 1, not 1.5"),
        ((1, 0.4, [0], "three"), "Noise seed must be one value, not a list or an object"),
        ((1, 0.4, 0, "cheeseburger"), "no class is called 'cheeseburger'"),
        ((1, 0.4, 0, "x" * 60_000), "no category has a name of 60000 characters"),
        ((1, 0.4, 0, "three", "/etc/passwd"), "no model is called '/etc/passwd' here"),
        ((1, 0.4, 0, "three", {}), "Model must be one value, not a list or an object"),
    ],
)
def test_mistakes_are_told_and_hurt_nobody(
    address: str, values: tuple[Any, ...], told: str
) -> None:
    event, data = call(address, "sample", *values)

    assert event == "error"
    assert data["error"].startswith(told)
    assert call(address, "sample", 1, 0.4, 0, "three")[0] == "complete"


def test_what_gradio_cannot_read_is_the_clients_fault(address: str) -> None:
    assert post(address, "call/sample", {"data": ["x" * 10_000_000]})[0] == 413
    assert post(address, "call/sample", {"data": 5})[0] == 422
    assert post(address, "call/nothing", {"data": []})[0] == 404
    assert post(address, "call/v2/sample", {"numm": 5})[0] == 404
    unknown = {"data": [1], "fn_index": 999, "session_hash": "me"}
    assert post(address, "queue/join", unknown)[0] == 404


def test_nobody_passes_by_the_queue(address: str) -> None:
    assert post(address, "run/sample", {"data": [1, 0.4, 0, "three"]})[0] == 404
    assert post(address, "api/sample", {"data": [1, 0.4, 0, "three"]})[0] == 404


@pytest.mark.parametrize("endpoint", ["sample", "restore", "draw"])
def test_no_file_of_this_machine_is_to_be_had(address: str, endpoint: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.svg"
    secret.write_text("<svg/>")
    named = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    event, data = call(address, endpoint, named, *[0] * 30)

    assert event == "error"
    assert " must be " in data["error"]
    assert str(tmp_path) not in data["error"]
    assert serving.get(address, f"/gradio_api/file={secret}")[0] == 403


def test_a_full_queue_says_so(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, get = threading.Event(), ModelShelf.get

    def slow_get(shelf: ModelShelf, name: str) -> Gan:
        gate.wait(20)
        return get(shelf, name)

    with running(gan, limit=2) as address:
        assert serving.get(address, "/")[0] == 200
        monkeypatch.setattr(ModelShelf, "get", slow_get)
        answers = [
            post(address, "call/sample", {"data": [1, 0.4, seed, "three"]}) for seed in range(12)
        ]
        gate.set()

    assert [status for status, _ in answers[:2]] == [200] * 2
    refused = [answer["detail"] for status, answer in answers if status == 503]
    assert len(refused) >= 12 - 4 - 2  # four are begun, two wait
    assert all(detail.startswith("Queue is full") for detail in refused)


def test_the_same_picture_asked_for_both_ways_is_drawn_once(gated: Any) -> None:
    with running(gated) as address, ThreadPoolExecutor(52) as clients:
        asked = [clients.submit(call, address, "sample", 2, 0.4, 0, "three") for _ in range(48)]
        path = "/api/sample?num=2&category=3%29+three"
        direct = [clients.submit(serving.get, address, path) for _ in range(4)]
        gated.let_through(2)
        bodies = {answer.result()[1] for answer in direct}
        files = [answer.result() for answer in asked]
        addresses = {data[0]["url"] for event, data in files if event == "complete"}
        (url,) = addresses
        with urllib.request.urlopen(url) as reply:
            bodies.add(reply.read())

    assert [event for event, _ in files] == ["complete"] * 48
    assert len(bodies) == 1
    assert gated.drawn == 2


def test_the_same_video_is_made_once(gated: Any) -> None:
    gated.let_through(20)
    with running(gated) as address, ThreadPoolExecutor(12) as clients:
        settings = (1, 1, 0.2, 0, 1, "one", "six")
        asked = [clients.submit(call, address, "video", *settings) for _ in range(12)]
        answers = [answer.result() for answer in asked]
        webps = {data[0]["url"] for event, data in answers if event == "complete"}
        answers.append(call(address, "video", *settings))  # and afterwards

    assert [event for event, _ in answers] == ["complete"] * 13, answers
    assert len(webps) == 1
    assert gated.drawn == 20


@pytest.mark.parametrize(
    ("endpoint", "values"),
    [("video", (1, 1, 0.2, 0, 1, "one", "six")), ("sample", (20, 0.4, 0, "three"))],
)
def test_what_a_client_who_left_asked_for_ends(
    gated: Any, endpoint: str, values: tuple[Any, ...], caplog: Any
) -> None:
    with running(gated) as address:
        status, answer = post(address, f"call/{endpoint}", {"data": values})
        assert status == 200
        stream = urllib.request.urlopen(
            f"{address}/gradio_api/call/{endpoint}/{answer['event_id']}", timeout=20
        )
        gated.let_through(2)
        until(lambda: gated.drawn == 2)
        assert serving.get(address, "/api/queue")[1] == b'{"waiting":1,"limit":100}'
        stream.close()
        until(lambda: b'"waiting":0' in serving.get(address, "/api/queue")[1])
        gated.let_through(100)
        assert call(address, "sample", 1, 0.4, 5, "three")[0] == "complete"

    assert caplog.text == ""
    assert gated.drawn <= 2 + 1 + 1  # of what was given up the picture at hand, and the other


def test_what_nobody_listens_to_ends(gated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_MOST_UNREAD", 1)
    with running(gated) as address:
        values = (1, 1, 0.2, 0, 1, "one", "six")
        assert post(address, "call/video", {"data": values})[0] == 200
        until(lambda: b'"waiting":1' in serving.get(address, "/api/queue")[1])
        until(lambda: b'"waiting":0' in serving.get(address, "/api/queue")[1])
        gated.let_through(100)
    assert gated.drawn <= 1


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_message_names_a_path_of_the_server(gan: Gan, capsys: Any, caplog: Any) -> None:
    with running(gan) as address:
        made = Path(call(address, "sample", 1, 0.4, 77, "three")[1][0]["path"]).parent
        for path in made.iterdir():
            path.unlink()
        made.rmdir()
        made.touch()  # no folder can be there now
        event, data = call(address, "sample", 1, 0.4, 77, "three")

    assert event == "error"
    assert data["error"] == "the server cannot make the file; its log says why"
    assert str(made) in caplog.text
    made.unlink()


def test_the_page_and_all_else_is_for_users_only(gan: Gan) -> None:
    with running(gan, users={"ann": "secret"}) as address:
        for path in ("/", "/api", "/api/sample", "/config", "/gradio_api/info", "/theme.css"):
            assert serving.get(address, path)[0] == 401
        assert post(address, "call/sample", {"data": []})[0] == 401
        for password, status in (("wrong", 401), ("secret", 200)):
            assert status_for(address, "203.0.113.1", f"ann:{password}") == status


def status_for(address: str, client: str, credentials: str = "") -> int:
    """The status for a picture, asked for through a proxy that names its client."""
    headers = {"X-Forwarded-For": client}
    if credentials:
        headers["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    request = urllib.request.Request(f"{address}/api/sample?num=1", headers=headers)
    with urllib.request.build_opener(_AnyStatus).open(request) as reply:
        status: int = reply.status
        return status


def test_a_client_cannot_call_itself_many(gan: Gan) -> None:
    clients = [f"203.0.113.{number}" for number in range(15)]
    with running(gan, users={"ann": "secret"}, per_minute=8) as address:
        pictures = [status_for(address, client, "ann:secret") for client in clients]
        guesses = [status_for(address, client, f"ann:{client}") for client in clients]

    assert pictures == [200] * 4 + [429] * 11
    assert guesses == [401] * 10 + [429] * 5


def test_clients_of_a_trusted_proxy_are_told_apart(gan: Gan) -> None:
    clients = [f"203.0.113.{number}" for number in range(6)]
    with running(gan, per_minute=2, proxies=("127.0.0.0/8",)) as address:
        assert [status_for(address, client) for client in clients] == [200] * 6
        assert status_for(address, clients[0]) == 429
        assert status_for(address, f"198.51.100.1, {clients[0]}") == 429  # the proxy adds the last


def test_a_client_has_so_many_requests_a_minute(gan: Gan) -> None:
    with running(gan, per_minute=4) as address:
        assert call(address, "sample", 1, 0.4, 0, "three")[0] == "complete"
        assert serving.get(address, "/api/sample?num=1")[0] == 200
        assert serving.get(address, "/api/sweep")[0] == 429
        assert post(address, "call/sample", {"data": []})[0] == 429
        assert serving.get(address, "/")[0] == 200
