"""What is refused before anything is parsed: long bodies, many requests, unknown users."""

import asyncio
import base64
import json
import time
from collections import deque
from typing import Any

import pytest

pytest.importorskip("limits")
pytest.importorskip("starlette")

from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse

from biggan.demo.limits import (
    MAX_BODY,
    MAX_UPLOAD,
    BodyLimit,
    Guard,
    Limit,
    check_password,
    check_rate,
    client_of,
    per_minute,
)


class Behind:
    """An application that reads all of a request, and counts its bytes."""

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
    announced: int | None = None,
    authorization: str | None = None,
    client: str = "192.0.2.1",
) -> tuple[int, dict[str, str], bytes]:
    """Send a request of some bytes; returns status, headers and body of the answer."""
    headers = [] if announced is None else [(b"content-length", b"%d" % announced)]
    if authorization is not None:
        headers.append((b"authorization", authorization.encode()))
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    pieces = deque([*[100_000] * (body // 100_000), body % 100_000])
    sent: list[Any] = []

    async def receive() -> Any:
        piece = pieces.popleft()
        return {"type": "http.request", "body": bytes(piece), "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app({**scope, "client": (client, 1), "query_string": b""}, receive, send))
    fields = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], fields, sent[1]["body"]


def test_a_short_body_passes() -> None:
    behind = Behind()
    assert call(BodyLimit(behind), body=MAX_BODY, announced=MAX_BODY)[::2] == (200, b"done")
    assert behind.received == MAX_BODY
    assert call(BodyLimit(behind), "/gradio_api/upload", body=10 * MAX_BODY)[0] == 200


@pytest.mark.parametrize(
    ("path", "size", "sent"),
    [
        ("/", MAX_BODY + 1, MAX_BODY + 1),
        ("/gradio_api/upload", MAX_UPLOAD + 1, MAX_UPLOAD + 1),
        ("/", 10**12, 0),  # more than is read, even to be dropped
    ],
)
def test_a_long_body_is_refused_and_not_passed_on(path: str, size: int, sent: int) -> None:
    behind = Behind()
    status, _, answer = call(BodyLimit(behind), path, body=sent, announced=size)
    assert status == 413
    assert json.loads(answer)["detail"].startswith("the request is too long: ")
    assert behind.received == 0


def test_a_length_that_is_not_announced_is_counted() -> None:
    behind = Behind()
    with pytest.raises(HTTPException, match="too long: .* 65,536 bytes") as caught:
        call(BodyLimit(behind), body=10_000_000)
    assert caught.value.status_code == 413
    assert behind.received <= MAX_BODY


def test_uploads_of_one_client_and_of_all_are_bounded() -> None:
    app, path = BodyLimit(Behind()), "/gradio_api/upload"
    for client in ("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"):
        for _ in range(2):
            assert call(app, path, body=MAX_UPLOAD, client=client)[0] == 200
        with pytest.raises(MultiPartException, match="maximum allowed size per hour"):
            call(app, path, body=MAX_UPLOAD, client=client)
    with pytest.raises(MultiPartException, match="maximum allowed size per hour"):
        call(app, path, body=MAX_UPLOAD, client="192.0.2.5")


def test_half_a_minutes_requests_may_come_at_once() -> None:
    limit = per_minute(60)
    assert [limit.take("a") for _ in range(31)] == [0] * 30 + [30]
    assert limit.wait("a") == 30
    assert limit.take("b") == 0  # each client has its own
    few = per_minute(1)
    assert [few.take("a"), few.take("a")] == [0, 60]
    brief = Limit(1, 1)
    assert [brief.take("a"), brief.take("a")] == [0, 1]
    time.sleep(1.1)
    assert brief.take("a") == 0


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
    ],
)
def test_clients_are_addresses_or_networks(host: str, client: str) -> None:
    assert client_of({"client": (host, 1)}) == client


def test_only_requests_that_cost_much_are_counted() -> None:
    app = Guard(Behind(), check_rate(2))
    for path in ("/", "/assets/index.js", "/api/queue", "/gradio_api/queue/data"):
        assert [call(app, path, method="GET")[0] for _ in range(3)] == [200] * 3
    names = ("sample", "interpolate", "sweep", "directions", "classes")
    counted = [("GET", f"/api/{name}") for name in names]
    posts = ("upload", "queue/join", "call/sample", "call/v2/sample")
    counted += [("POST", f"/gradio_api/{name}") for name in posts]
    for k, (method, path) in enumerate(counted):
        client = f"192.0.2.{k}"
        assert call(app, path, method=method, client=client)[0] == 200
        status, headers, answer = call(app, path, method=method, client=client)
        assert (status, headers["retry-after"]) == (429, "30")
        assert json.loads(answer) == {"detail": "more than 2 requests a minute: try again in 30 s"}


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


USERS = {"ann": "secret:of ann", "bob": "pässword"}
RIGHT = basic("ann:secret:of ann")


@pytest.mark.parametrize("known", ["ann:secret:of ann", "bob:pässword"])
def test_known_users_come_in(known: str) -> None:
    app = Guard(Behind(), check_password(USERS))
    assert call(app, authorization=basic(known))[0] == 200
    assert call(app, authorization=basic(known).replace("Basic", "basic"))[0] == 200


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
        RIGHT.replace("Basic", "Bearer"),
    ],
)
def test_all_others_are_asked_for_a_password(authorization: str | None) -> None:
    behind = Behind()
    app = Guard(behind, check_password(USERS))
    status, headers, _ = call(app, body=5, authorization=authorization)
    assert status == 401
    assert headers["www-authenticate"] == 'Basic realm="biggan", charset="UTF-8"'
    assert behind.received == 0


def test_guessing_ends_even_with_the_right_guess() -> None:
    app = Guard(Behind(), check_password(USERS))
    assert {call(app)[0] for _ in range(20)} == {401}  # a browser that does not know is no guesser
    statuses = [call(app, authorization=basic(f"ann:{k}"))[0] for k in range(11)]
    assert statuses == [401] * 10 + [429]
    status, headers, answer = call(app, authorization=RIGHT)
    assert (status, int(headers["retry-after"]) <= 30) == (429, True)
    assert "too many wrong passwords" in json.loads(answer)["detail"]
    assert call(app, authorization=RIGHT, client="192.0.2.2")[0] == 200


def test_guesses_from_many_addresses_end_but_do_not_shut_out_a_known_user() -> None:
    app = Guard(Behind(), check_password(USERS))
    assert call(app, authorization=RIGHT, client="192.0.2.99")[0] == 200
    for network in range(4):
        for _ in range(8):
            call(app, authorization=basic("ann:guess"), client=f"192.0.2.{network}")
    assert call(app, authorization=RIGHT, client="192.0.2.9")[0] == 429
    assert call(app, authorization=RIGHT, client="192.0.2.99")[0] == 200
    assert call(app, authorization=basic("bob:pässword"), client="192.0.2.9")[0] == 200
