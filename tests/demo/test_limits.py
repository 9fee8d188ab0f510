"""What is refused before anything is parsed: long bodies, many requests, unknown users."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("starlette")

from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse

from biggan import InputError
from biggan.demo import limits
from biggan.demo.limits import MAX_BODY, MAX_UPLOAD, BodyLimit, Buckets, RateLimit, client_of
from biggan.demo.users import BasicAuth, read_users

if TYPE_CHECKING:
    from pathlib import Path


class Behind:
    """An application that reads all of a request, and how much of it."""

    def __init__(self) -> None:
        self.received = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            self.received += len(message["body"])
            more = message["more_body"]
        await PlainTextResponse("done")(scope, receive, send)


def call(
    app: Any,
    path: str = "/",
    *,
    method: str = "POST",
    body: int = 0,
    announced: bool = True,
    authorization: str | None = None,
    client: str = "192.0.2.1",
) -> tuple[int, dict[str, str], bytes]:
    """Send a request of some bytes; returns status, headers and body of the answer."""
    headers = [(b"content-length", str(body).encode())] if announced else []
    if authorization is not None:
        headers.append((b"authorization", authorization.encode()))
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    pieces = deque(_pieces(body))
    sent: list[Any] = []

    async def receive() -> Any:
        piece = pieces.popleft()
        return {"type": "http.request", "body": bytes(piece), "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app({**scope, "client": (client, 1)}, receive, send))
    fields = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], fields, sent[1]["body"]


def _pieces(size: int) -> list[int]:
    whole, rest = divmod(size, 100_000)
    return [*[100_000] * whole, rest]


def test_what_is_short_enough_passes() -> None:
    behind = Behind()

    assert call(BodyLimit(behind), body=MAX_BODY)[::2] == (200, b"done")
    assert behind.received == MAX_BODY
    assert call(BodyLimit(behind), "/gradio_api/upload", body=10 * MAX_BODY)[0] == 200


@pytest.mark.parametrize(
    ("path", "size"),
    [("/", MAX_BODY + 1), ("/", 10_000_000), ("/gradio_api/upload", MAX_UPLOAD + 1)],
)
def test_what_is_longer_is_told_so_and_not_passed_on(path: str, size: int) -> None:
    behind = Behind()
    status, _, answer = call(BodyLimit(behind), path, body=size)

    assert status == 413
    assert json.loads(answer)["detail"].startswith("the request is too long: ")
    assert behind.received == 0


def test_a_length_that_is_not_announced_is_counted() -> None:
    behind = Behind()

    with pytest.raises(HTTPException, match="too long: .* 65,536 bytes") as caught:
        call(BodyLimit(behind), body=10_000_000, announced=False)
    assert caught.value.status_code == 413
    assert behind.received <= MAX_BODY


def test_uploads_of_one_client_and_of_all_are_bounded() -> None:
    app = BodyLimit(Behind())
    path = "/gradio_api/upload"

    for client in ("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"):
        for _ in range(2):
            assert call(app, path, body=MAX_UPLOAD, client=client)[0] == 200
        with pytest.raises(MultiPartException, match="maximum allowed size for an hour"):
            call(app, path, body=MAX_UPLOAD, client=client)
    with pytest.raises(MultiPartException, match="maximum allowed size for an hour"):
        call(app, path, body=MAX_UPLOAD, client="192.0.2.5")


def test_a_body_beyond_all_measure_is_not_even_read() -> None:
    scope = {"type": "http", "method": "POST", "path": "/", "client": None}
    scope["headers"] = [(b"content-length", b"%d" % 10**12)]
    sent: list[Any] = []

    async def receive() -> Any:
        pytest.fail("it is read")

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(BodyLimit(Behind())(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 413


def test_a_bucket_is_half_a_minutes_and_fills_evenly() -> None:
    now = 0.0
    buckets = Buckets(60, lambda: now)

    assert [buckets.take("a") for _ in range(31)] == [0] * 30 + [1]
    assert buckets.take("b") == 0  # has one of its own
    now = 0.5
    assert buckets.take("a") == 1
    now = 1.0
    assert [buckets.take("a"), buckets.take("a")] == [0, 1]
    now = 1000.0
    assert [buckets.take("a") for _ in range(31)] == [0] * 30 + [1]


def test_few_a_minute_are_not_none() -> None:
    buckets = Buckets(1, lambda: 0.0)

    assert [buckets.take("a"), buckets.take("a")] == [0, 60]


def test_clients_of_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_REMEMBERED", 3)
    buckets = Buckets(2, lambda: 0.0)
    for client in "abcd":
        buckets.take(client)

    assert buckets.take("d") > 0
    assert buckets.take("a") == 0


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
    ],
)
def test_who_a_client_is(host: str, client: str) -> None:
    assert client_of({"client": (host, 1)}) == client


def test_only_requests_that_cost_much_are_counted() -> None:
    app = RateLimit(Behind(), per_minute=2)

    for method, path in (
        ("GET", "/"),
        ("GET", "/assets/index.js"),
        ("GET", "/api/queue"),
        ("GET", "/gradio_api/queue/data"),
    ):
        assert [call(app, path, method=method)[0] for _ in range(3)] == [200] * 3
    for k, (method, path) in enumerate(
        (
            ("GET", "/api/sample"),
            ("GET", "/api/interpolate"),
            ("GET", "/api/sweep"),
            ("GET", "/api/classes"),
            ("POST", "/gradio_api/upload"),
            ("POST", "/gradio_api/queue/join"),
            ("POST", "/gradio_api/call/sample"),
            ("POST", "/gradio_api/call/v2/sample"),
        )
    ):
        client = f"192.0.2.{k}"
        assert call(app, path, method=method, client=client)[0] == 200
        status, headers, answer = call(app, path, method=method, client=client)
        assert status == 429
        assert headers["retry-after"] == "30"
        assert json.loads(answer) == {"detail": "more than 2 requests a minute: try again in 30 s"}


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


USERS = {"ann": "secret:of ann", "bob": "pässword"}


@pytest.mark.parametrize("known", ["ann:secret:of ann", "bob:pässword"])
def test_known_users_come_in(known: str) -> None:
    assert call(BasicAuth(Behind(), USERS), authorization=basic(known))[0] == 200
    lower = basic(known).replace("Basic", "basic")
    assert call(BasicAuth(Behind(), USERS), authorization=lower)[0] == 200


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Basic",
        "Basic !!!",
        "Basic /w==",
        basic("ann:secret"),
        basic("ann:pässword"),
        basic("ann:"),
        basic("eve:"),
        basic(""),
        basic("ann:secret:of ann").replace("Basic", "Bearer"),
    ],
)
def test_all_others_are_asked_who_they_are(authorization: str | None) -> None:
    behind = Behind()
    status, headers, _ = call(BasicAuth(behind, USERS), body=5, authorization=authorization)

    assert status == 401
    assert headers["www-authenticate"] == 'Basic realm="biggan", charset="UTF-8"'
    assert behind.received == 0


def test_guessing_ends_even_with_the_right_guess() -> None:
    app = BasicAuth(Behind(), USERS)
    statuses = [call(app, authorization=basic(f"ann:{k}"))[0] for k in range(11)]

    assert statuses == [401] * 10 + [429]
    status, headers, answer = call(app, authorization=basic("ann:secret:of ann"))
    assert status == 429
    assert int(headers["retry-after"]) <= 3
    assert "too many wrong passwords" in json.loads(answer)["detail"]
    other = call(app, authorization=basic("ann:secret:of ann"), client="192.0.2.2")
    assert other[0] == 200


def test_guesses_from_many_addresses_end_but_shut_nobody_out_who_is_in() -> None:
    app = BasicAuth(Behind(), USERS)
    right = basic("ann:secret:of ann")
    assert call(app, authorization=right, client="192.0.2.99")[0] == 200
    for network in range(4):
        for _ in range(8):
            call(app, authorization=basic("ann:guess"), client=f"192.0.2.{network}")

    assert call(app, authorization=right, client="192.0.2.9")[0] == 429
    assert call(app, authorization=right, client="192.0.2.99")[0] == 200
    assert call(app, authorization=basic("bob:pässword"), client="192.0.2.9")[0] == 200


def test_browsers_that_do_not_know_yet_are_no_guessers() -> None:
    app = BasicAuth(Behind(), USERS)
    assert {call(app)[0] for _ in range(20)} == {401}
    assert call(app, authorization=basic("bob:pässword"))[0] == 200


def test_users_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text("ann:secret:of ann\n\n  bob:pässword\n", encoding="utf-8")

    assert read_users(file) == USERS


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "names no user"),
        ("ann:1\nbob\n", "line 2 of .* must be NAME:PASSWORD"),
        (":secret", "line 1 of .* must be NAME:PASSWORD"),
        ("ann:", "line 1 of .* must be NAME:PASSWORD"),
        ("ann:1\nann:2", "line 2 of .*: ann is there twice"),
    ],
)
def test_a_file_of_something_else_is_refused(text: str, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text(text)
    with pytest.raises(InputError, match=fault) as caught:
        read_users(file)
    assert "secret" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the users in .*: No such file"):
        read_users(tmp_path / "none")
    (tmp_path / "users").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="it is no UTF-8 text"):
        read_users(tmp_path / "users")
