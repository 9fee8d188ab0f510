"""The page behind a reverse proxy: below a path, with visitors of its own, and as a Space."""

import json
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from demo_app import OPENER, ask, running

pytest.importorskip("gradio")


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
                answer = OPENER.open(request, timeout=60)
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


def check_page(address: str) -> None:
    """All that the page asks for is below its address: files, calls, pictures, the reference."""
    status, body = ask(f"{address}/")
    assert status == 200
    page = body.decode()
    assert f'"root":"{address}"' in page
    files = re.findall(r'(?:src|href)="\./(assets/[^"]+)"', page)
    assert files
    assert {ask(f"{address}/{file}")[0] for file in files} == {200}
    assert ask(f"{address}/api/models")[0] == 200
    status, body = ask(f"{address}/api/docs")
    reference = re.search(r'href="([^"]*openapi.json)"', body.decode())
    assert reference
    assert ask(urllib.parse.urljoin(f"{address}/api/docs", reference[1]))[0] == 200
    assert ask(f"{address}/api")[0] == 200
    info = json.loads(ask(f"{address}/gradio_api/info")[1])
    assert "/sample" in info["named_endpoints"]
    status, body = ask(f"{address}/gradio_api/call/sample", {"data": [1, 0.4, 0, "three"]})
    assert status == 200, body
    _, events = ask(f"{address}/gradio_api/call/sample/{json.loads(body)['event_id']}")
    urls = re.findall(r'"url":\s*"([^"]+)"', events.decode())
    assert urls
    assert all(url.startswith(f"{address}/") for url in urls)
    assert {ask(url)[0] for url in urls} == {200}


@pytest.mark.parametrize("removes", [True, False])
def test_the_page_below_a_path(gan: Any, removes: bool) -> None:
    from biggan.demo.models import ModelCache

    models = ModelCache(["tiny"], lambda _: gan)
    with (
        running(models, root_path="/apps/biggan") as (own, _),
        proxied(own, "/apps/biggan/", removes=removes) as address,
    ):
        check_page(address)
        # Without the slash the page's relative links would lead elsewhere.
        request = urllib.request.Request(f"{own}/apps/biggan?form=sweep")
        with OPENER.open(request) as answer:
            assert answer.url == f"{own}/apps/biggan/?form=sweep"


def test_each_visitor_has_a_limit_and_none_can_claim_another_address(gan: Any) -> None:
    from biggan.demo.models import ModelCache

    models = ModelCache(["tiny"], lambda _: gan)
    options: dict[str, Any] = {"per_minute": 4, "proxies": ["127.0.0.1", "10.0.0.0/8"]}
    with running(models, **options) as (own, _), proxied(own, "/") as address:

        def status(
            visitor: str, path: str = "api/sample?num=1", body: Any = None, **to: str
        ) -> int:
            return ask(f"{address}/{path}", body, X_Visitor=visitor, **to)[0]

        for number in range(1, 6):
            assert status(f"203.0.113.{number}") == 200
        assert [status("203.0.113.9") for _ in range(3)] == [200, 200, 429]
        assert status("203.0.113.9", X_Forwarded_For="203.0.113.77") == 429
        # Through two proxies of a private network.
        assert status("10.1.2.3", X_Forwarded_For="203.0.113.9") == 429
        assert status("10.1.2.3", X_Forwarded_For="203.0.113.10") == 200
        # IPv6: a visitor has a network of addresses.
        assert [status(f"2001:db8::{number}") for number in range(3)] == [200, 200, 429]
        # Both APIs are counted together.
        sample = "gradio_api/call/sample"
        calls = [status("203.0.113.11", sample, {"data": [1, 0.4, 0, "three"]}) for _ in range(2)]
        assert [*calls, status("203.0.113.11")] == [200, 200, 429]
        assert status("203.0.113.11", "") == 200
