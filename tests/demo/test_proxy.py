"""The page behind a reverse proxy: each visitor has a limit of their own."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from demo_app import running

pytest.importorskip("gradio")

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **named})
    try:
        with _OPENER.open(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@contextmanager
def proxied(address: str, prefix: str, *, removes: bool = True) -> Iterator[str]:
    """A reverse proxy that offers a server below a path; yields the address there."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(prefix):
                self.send_error(404, "not below the prefix")
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            headers = {name: value for name, value in self.headers.items() if name != "Host"}
            headers["X-Forwarded-Host"] = self.headers["Host"]
            # A proxy adds the address of its client to those that the client claims.
            before = headers.pop("X-Visitor", self.client_address[0])
            claimed = headers.get("X-Forwarded-For")
            headers["X-Forwarded-For"] = f"{claimed}, {before}" if claimed else before
            path = self.path.removeprefix(prefix.rstrip("/")) if removes else self.path
            request = urllib.request.Request(address + path, body, headers, method=self.command)
            try:
                answer = _OPENER.open(request, timeout=60)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                content = answer.read()
                self.send_response(answer.status)
                for name in ("Content-Type", "Location", "Retry-After"):
                    if value := answer.headers.get(name):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{prefix.rstrip('/')}"
        finally:
            server.shutdown()
            thread.join()


def test_each_visitor_has_a_limit_and_none_can_claim_another_address(gan: Any) -> None:
    from biggan.demo.models import ModelCache

    models = ModelCache(["tiny"], lambda _: gan)
    options: dict[str, Any] = {"per_minute": 4, "proxies": ["127.0.0.1", "10.0.0.0/8"]}
    with running(models, **options) as (own, _), proxied(own, "/") as address:

        def ask(visitor: str, **headers: str) -> int:
            return get(f"{address}/api/sample?num=1", X_Visitor=visitor, **headers)[0]

        for number in range(1, 6):
            assert ask(f"203.0.113.{number}") == 200
        assert [ask("203.0.113.9") for _ in range(3)] == [200, 200, 429]
        assert ask("203.0.113.9", X_Forwarded_For="203.0.113.77") == 429
        # Through two proxies of a private network.
        assert ask("10.1.2.3", X_Forwarded_For="203.0.113.9") == 429
        assert ask("10.1.2.3", X_Forwarded_For="203.0.113.10") == 200
        # IPv6: a visitor has a network of addresses.
        assert [ask(f"2001:db8::{number}") for number in range(3)] == [200, 200, 429]
