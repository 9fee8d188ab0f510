"""Attacks on a running `biggan demo`: each is refused, and a visitor is still served."""

import asyncio
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from biggan.weights.files import save_network

pytest.importorskip("gradio")
pytest.importorskip("resource")

import resource
from collections.abc import Iterator

from uvicorn.server import ServerState

from biggan import Gan
from biggan.demo import server as server_module
from biggan.demo.server import server_config, sweep
from demo_app import GatedGan, until

DESCRIPTORS = 256
OTHER_SITE = "https://my.site"


@dataclass
class Server:
    """A running server."""

    port: int
    folder: Path
    """Where it puts uploads and pictures."""
    log: Path

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Send a request; a body that is no text is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            sent = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
            headers = {"Content-Type": "application/json", **(headers or {})}
            connection.request(method, path, sent, headers)
            reply = connection.getresponse()
            return reply.status, reply.headers, reply.read()
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def serves(self) -> bool:
        """Whether a visitor gets a picture."""
        status, _, answer = self.ask("GET", "/api/sample?num=1")
        return status == 200 and answer.startswith(b"\x89PNG")

    def run(self, index: int, values: list[Any]) -> dict[str, Any]:
        """Trigger an event of the page; returns what came of it."""
        session = f"session-{index}"
        asked = {"data": values, "fn_index": index, "session_hash": session}
        status, _, answer = self.ask("POST", "/gradio_api/queue/join", asked)
        assert status == 200, answer
        _, _, events = self.ask("GET", f"/gradio_api/queue/data?session_hash={session}")
        messages = [json.loads(line[6:]) for line in events.splitlines() if line]
        return next(m for m in messages if m["msg"] == "process_completed")

    def uploaded(self) -> int:
        """Bytes of all files in the folder."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def server(gan: Gan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("attacked")
    save_network(folder / "tiny.safetensors", gan.generator, gan.description)
    (folder / "temporary").mkdir()
    log = folder / "log"
    arguments = ["demo", "--port", "0", "--model", str(folder / "tiny.safetensors")]
    arguments.append("--no-uploads")  # as on a server for other machines
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "biggan", *arguments, "--allow-origin", OTHER_SITE],
            env={**os.environ, "TMPDIR": str(folder / "temporary"), "BIGGAN_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard)),
        ) as process,
    ):
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            if not address:
                pytest.fail(log.read_text())
            (temporary,) = (folder / "temporary").glob("biggan-demo-*")
            yield Server(int(address.rsplit(":", 1)[1]), temporary, log)
        finally:
            process.kill()


# Addresses and files among the inputs of an event.


def named(path: str) -> dict[str, Any]:
    return {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}


def test_no_input_makes_the_server_fetch_an_address_or_copy_a_file(
    server: Server, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    config = json.loads(server.ask("GET", "/config")[2])
    events = [d for d in config["dependencies"] if d["backend_fn"] and d["inputs"]]
    assert len(events) >= 8
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.setblocking(False)
        address = f"http://127.0.0.1:{inside.getsockname()[1]}/secret"
        inside_of = {"path": "x", "more": [named(address)]}
        for value in (named(address), [[named(address)]], inside_of, named(str(secret))):
            for event in events:
                done = server.run(event["id"], [value] * len(event["inputs"]))
                assert str(server.folder.parent) not in str(done)
        for path in (f"/gradio_api/file={address}", f"/gradio_api/proxy={address}"):
            assert server.ask("GET", path)[0] == 404
        with pytest.raises(BlockingIOError):
            inside.accept()
    assert not list(server.folder.rglob("secret*"))


def test_wrong_values_are_neither_logged_nor_repeated_at_length(server: Server) -> None:
    config = json.loads(server.ask("GET", "/config")[2])
    for value in ("x" * 900, "\ud800", None, 5):
        for event in config["dependencies"]:  # also those that only the browser handles
            done = server.run(event["id"], [value] * len(event["inputs"]))
            assert done["success"] or 0 < len(done["output"]["error"]) < 200
    assert server.log.read_text() == ""


def test_an_uploaded_file_is_taken_and_no_other(server: Server) -> None:
    status, _, path = server.ask("POST", "/gradio_api/upload", *multipart(b"no picture"))
    assert status == 200
    uploaded = json.loads(path)[0]
    config = json.loads(server.ask("GET", "/config")[2])
    files = [c["id"] for c in config["components"] if c["type"] == "file"]
    (index,) = (
        d["id"] for d in config["dependencies"] if d["backend_fn"] and {*d["inputs"]} & {*files}
    )

    done = server.run(index, [{**named(uploaded), "more": 1}, "tiny.safetensors"])
    assert done["success"]
    folder = uploaded.rpartition("/")[0]
    for path in ("/etc/hostname", folder, f"{uploaded}/../../../x", "x\0", "x" * 5000, 5, None):
        done = server.run(index, [{"path": path, "meta": {}}, "tiny.safetensors"])
        assert not done["success"]
        assert "what is dropped must be a file" in done["output"]["error"]


def multipart(contents: bytes, name: str = "files") -> tuple[bytes, dict[str, str]]:
    """A form with one file: its body and headers."""
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n\r\n'
    body = head.encode() + contents + b"\r\n--x--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=x"}


# Connections.


def test_idle_connections_shut_nobody_out(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(DESCRIPTORS + 50):
            stack.enter_context(server.connect())
        assert server.serves()
    assert server.serves()
    assert server.log.read_text() == ""


def test_silent_and_slow_clients_are_given_up(
    address: str, slow: GatedGan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_PATIENCE", 1)
    monkeypatch.setattr(server_module, "_WATCH_INTERVAL", 0.1)
    here = Server(int(address.rpartition(":")[2]), Path(), Path())
    head = b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n"
    _, _, paths = here.ask("POST", "/gradio_api/upload", *multipart(b"x" * 20_000_000))
    large = f"GET /gradio_api/file={json.loads(paths)[0]} HTTP/1.1\r\nHost: x\r\n\r\n"
    with (
        here.connect() as silent,
        here.connect() as unread,
        here.connect() as in_head,
        here.connect() as in_body,
        here.connect() as patient,
    ):
        unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**18)
        unread.sendall(large.encode())
        in_head.sendall(head)
        in_body.sendall(head + b"\r\n")
        patient.sendall(b"GET /api/sample?model=gated&num=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        for drips in (in_head, in_body):
            drips.settimeout(0.1)
            until(lambda: not drip(drips))  # noqa: B023
        assert silent.recv(1) == b""
        # The kernel may take more of the answer after the first look at it, so there is a second.
        time.sleep(3)
        assert len(received(unread)) < 20_000_000
        slow.let_through(1)  # the answer may take longer
        assert b"200 OK" in patient.recv(1000)


def received(connection: socket.socket) -> bytes:
    """All that comes until the other end closes."""
    pieces = []
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(2**16):
            pieces.append(piece)
    return b"".join(pieces)


def drip(connection: socket.socket) -> bool:
    """Send a byte; returns whether the other end is still there."""
    try:
        connection.sendall(b"a")
        return connection.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


class Transport(asyncio.Transport):
    """A connection from an address."""

    def __init__(self, host: str) -> None:
        super().__init__({"peername": (host, 5000)})
        self.is_open = True

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.is_open = False


async def _app(scope: Any, receive: Any, send: Any) -> None: ...


def test_an_ipv6_network_has_the_share_of_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_MAX_CONNECTIONS", 8)

    async def connect() -> list[bool]:
        config, state = server_config(_app), ServerState()
        config.load()
        hosts = [*(f"2001:db8:1:2::{i}" for i in range(6)), "2001:db8:1:3::1", "192.0.2.7"]
        made = [Transport(host) for host in hosts]
        for transport in made:
            protocol: Any = config.http_protocol_class(config, state, {})
            protocol.connection_made(transport)
        return [transport.is_open for transport in made]

    assert asyncio.run(connect()) == [False, False, True, True, True, True, True, True]


# Uploads.


def test_uploads_that_break_off_leave_nothing(server: Server) -> None:
    before = server.uploaded()
    body, _ = multipart(b"x" * 300_000)
    head = (
        "POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    )
    for _ in range(8):
        with server.connect() as connection:
            connection.sendall(head.encode() + body[:-10])
            until(lambda: server.uploaded() > before)
        until(lambda: server.uploaded() == before)
    assert server.serves()


def test_a_client_uploads_so_much_an_hour(server: Server) -> None:
    body, headers = multipart(b"x" * 50_000_000, name="others")
    statuses = [server.ask("POST", "/gradio_api/upload", body, headers)[0] for _ in range(3)]

    assert statuses == [200, 200, 413]
    assert server.uploaded() < 128 * 2**20
    assert server.serves()


def test_what_is_old_or_too_much_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("old", "new"):
        (tmp_path / name).touch()
        (tmp_path / f"{name} folder").mkdir()
        (tmp_path / f"{name} full").mkdir()
        for number in range(3):
            file = tmp_path / f"{name} full" / f"{number}"
            file.write_bytes(bytes(400))
            os.utime(file, (0, 0) if name == "old" else (time.time() - number,) * 2)
    for path in tmp_path.glob("old*"):
        os.utime(path, (0, 0))
    monkeypatch.setattr(server_module, "_MAX_KEPT", 1000)
    sweep(tmp_path)
    kept = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert kept == {"new", "new folder", "new full", "new full/0", "new full/1", "old full"}


# Pages of other sites.


@pytest.mark.parametrize("host", ["demo.lan", "127.0.0.1", "[::1]"])
@pytest.mark.parametrize("origin", ["https://evil.example", "http://demo.lan.evil", "null", ""])
def test_pages_of_other_sites_are_refused(server: Server, host: str, origin: str) -> None:
    headers = {"Host": host, "Origin": origin}
    join = {"data": [], "fn_index": 0, "session_hash": "x"}
    preflight = {**headers, "Access-Control-Request-Method": "POST"}
    for method, path, body, sent in (
        ("GET", "/api/models", None, headers),
        ("GET", "/config", None, headers),
        ("POST", "/gradio_api/queue/join", join, headers),
        ("OPTIONS", "/gradio_api/queue/join", None, preflight),
    ):
        status, answered, _ = server.ask(method, path, body, sent)
        assert status == 403
        assert "access-control-allow-origin" not in answered


def test_its_own_page_and_named_sites_are_served(server: Server) -> None:
    call = {"data": [1, 0.4, 0, "three"]}
    for headers in (
        {"Host": "demo.lan", "Origin": "http://demo.lan"},
        {"Host": "inner:80", "X-Forwarded-Host": "demo.org", "Origin": "https://demo.org"},
        {"Origin": OTHER_SITE},
    ):
        status, answered, _ = server.ask("POST", "/gradio_api/call/sample", call, headers)
        assert status == 200
        allowed = answered["access-control-allow-origin"]
        assert allowed == (OTHER_SITE if headers["Origin"] == OTHER_SITE else None)
    preflight = {"Origin": OTHER_SITE, "Access-Control-Request-Method": "POST"}
    assert server.ask("OPTIONS", "/gradio_api/call/sample", None, preflight)[0] == 200


# What Gradio's own routes make of it.

NUMBERS = ("NaN", "1e400", "-Infinity", '"\\ud800"', "[]", "{}", "null", "1" * 5000, "[" * 3000)


@pytest.mark.parametrize(
    "path", ["run/predict", "queue/join", "call/sample", "call/v2/sample", "cancel", "reset"]
)
def test_no_body_is_the_servers_fault(server: Server, path: str) -> None:
    for value in NUMBERS:
        for body in (
            value,
            f'{{"data": {value}}}',
            f'{{"data": [{value}], "fn_index": {value}, "session_hash": "x", "event_id": {value}}}',
            f'{{"data": [{value}, {value}], "fn_index": 12, "session_hash": {value}}}',
            f'{{"session_hash": "x", "fn_index": {value}, "event_id": "x", "num": {value}}}',
        ):
            assert server.ask("POST", f"/gradio_api/{path}", body)[0] < 500, body
    assert server.serves()


def test_no_header_is_the_servers_fault(server: Server) -> None:
    field = multipart(b"")[0].replace(b'; filename="a.png"', b"")
    for headers in (
        {"X-Forwarded-Host": "a:b:c"},
        {"X-Gradio-Server": "::::"},
        {"Host": "["},
        {"Range": "bytes=5-1"},
        {"Content-Type": "multipart/form-data"},
        {"Content-Type": "multipart/form-data; boundary=x"},
    ):
        for method, path in (("GET", "/"), ("GET", "/config"), ("POST", "/gradio_api/upload")):
            for query in ("", "?upload_id=x", "?deep_link=../x", "?page=.."):
                assert server.ask(method, path + query, field, headers)[0] < 500, headers


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        (f"/static/{'a' * 5000}", {404}),
        (f"/assets/{'a/' * 3000}", {404}),
        (f"/svelte/{'a' * 5000}", {404}),
        (f"/gradio_api/file=/{'a' * 5000}", {403}),
        ("/static/%00", {404}),
        ("/gradio_api/file=/%00", {403}),
        ("/gradio_api/queue/data", {422}),
        ("/pwa_icon/5", {404}),
        ("/monitoring", {404}),
        ("/login", {404}),
        ("/gradio_api/startup-events", {404}),
        ("/gradio_api/deep_link?session_hash=x", {404}),
        ("/gradio_api/vibe-starter-queries", {404}),
        ("/gradio_api/component_server", {404}),
        ("/gradio_api/process_recording", {404}),
        ("/gradio_api/run-history/records", {404}),
        ("/gradio_api/dev/reload", {404}),
    ],
)
def test_what_is_not_offered_is_not_found(server: Server, path: str, statuses: set[int]) -> None:
    for method in ("GET", "POST"):
        status, _, answer = server.ask(method, path)
        assert status in statuses | {405}
        assert len(answer) < 300
        assert str(server.folder.parent).encode() not in answer
