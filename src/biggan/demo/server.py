"""Serving the page and the HTTP API: one application, and how uvicorn runs it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import re
import secrets
import stat
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any

import gradio as gr
import h11
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, RedirectResponse
from gradio import networking
from gradio.route_utils import FnIndexInferError
from httpx import InvalidURL
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from biggan.demo import limits
from biggan.demo.api import build_api
from biggan.demo.page import SCRIPT, STYLE, Page, css, theme
from biggan.demo.renderer import Renderer
from biggan.errors import InputError

_OFFERED = re.compile(  # of Gradio's routes: what the page and gradio_client ask for
    r"/|/config/?|/theme\.css|/(static|assets|svelte)/.+|/favicon\.ico|/manifest\.json|/robots\.txt|"
    r"/gradio_api/(info/?|openapi\.json|app_id|heartbeat/[^/]+|queue/(join|data|status)|call/.+|"
    r"run/predict|cancel|reset|upload|upload_progress|file=/.+)"
)
# What Gradio raises for requests that it cannot read.
_UNREADABLE = (
    *(AttributeError, LookupError, TypeError, ValueError, OSError, RecursionError),
    *(FnIndexInferError, InvalidURL),
)
# Visitors whose page Gradio remembers, some 150 KiB each; it takes 10,000, and a program's call for
# a visitor. Nothing is lost with one: all that the page's functions need is sent along.
_SESSIONS = 100
_SWEEP_INTERVAL = 60  # seconds
_KEPT = 7200  # seconds since a file was used; Gradio deletes what it knows of after an hour
_MAX_KEPT = 2**30  # bytes of all files

_MAX_HEAD = 2**16  # bytes of a request's address and headers
_MAX_CONNECTIONS = 1024  # half of them of one client
_PATIENCE = 10  # seconds
_WATCH_INTERVAL = 1  # seconds
_LEAST_RATE = 2**10  # bytes a second

_Networks = Collection[ipaddress.IPv4Network | ipaddress.IPv6Network]


def build_app(
    renderer: Renderer,
    *,
    users: Mapping[str, str],
    per_minute: int,
    origins: Collection[str] = (),
    root_path: str = "",
    show_paths: bool = False,
) -> FastAPI:
    """The page and the HTTP API behind all limits.

    Args:
        renderer: Makes the pictures.
        users: The password of each user; empty to let all in.
        per_minute: Most requests for pictures from one client in a minute; 0 for any number.
        origins: Sites whose pages may use the server, as "https://example.org".
        root_path: The path below which a proxy offers the server, such as "/biggan".
        show_paths: Whether shell commands on the page name the models' files on this machine.
    """
    page = Page(renderer, show_paths=show_paths).blocks
    page.state_session_capacity = _SESSIONS
    # Not open: what is asked for directly would bypass the queue.
    page.queue(max_size=renderer.limit, api_open=False)
    # Gradio polls for work every millisecond and for progress every ten, which takes 5% of a
    # processor, and makes statistics of all requests after each.
    page._queue.sleep_when_free = 0.05
    page._queue.progress_update_sleep_when_free = 0.25
    page._queue.ANAYLTICS_CACHE_FREQUENCY = sys.maxsize
    app = build_api(renderer)
    app.root_path = root_path
    # The last added is the first to see a request.
    max_upload = limits.MAX_UPLOAD if renderer.models.uploads is None else limits.MAX_WEIGHTS
    app.add_middleware(limits.BodyLimit, max_upload=max_upload)
    checks = [limits.check_password(users)] if users else []
    checks += [limits.check_rate(per_minute)] if per_minute else []
    app.add_middleware(limits.Guard, *checks)
    # Gradio would add one that allows all origins wherever it is not on this machine.
    anything: dict[str, Any] = {"allow_methods": ["*"], "allow_headers": ["*"]}
    app.add_middleware(CORSMiddleware, allow_origins=origins, allow_credentials=True, **anything)
    app.add_middleware(limits.Guard, limits.check_origin(origins))
    if root_path:
        app.add_middleware(_WithoutPrefix, root_path)
    gr.mount_gradio_app(
        app,
        page,
        "/",
        theme=theme(),
        css=css(renderer.models),
        css_paths=STYLE,
        js=SCRIPT,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        root_path=root_path or None,
        max_file_size=max_upload,
        show_error=False,  # but for those that are meant for visitors: others name our files
    )
    # `launch` sets this, mounting does not. Only then does Gradio check that the files that a
    # request names were uploaded; else any file of this machine could be had.
    page.has_launched = page.is_running = True
    gradio_app = app.routes[-1].app  # type: ignore[attr-defined]
    gradio_app.add_middleware(_OfferedRoutes)
    gradio_app.add_exception_handler(RequestValidationError, _refuse_body)
    gradio_app.add_exception_handler(HTTPException, _shorten)
    return app


class _WithoutPrefix:
    """Middleware that removes the root path, which some proxies pass on, from requests.

    The page's own links are relative, so its address needs a slash at the end.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app, self._root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and path == self._root_path:
            query = scope["query_string"].decode("latin-1")
            address = f"{self._root_path}/" + f"?{query}" * bool(query)
            await RedirectResponse(address)(scope, receive, send)
            return
        if path.startswith(f"{self._root_path}/"):
            scope = {**scope, "path": path.removeprefix(self._root_path)}
        await self._app(scope, receive, send)


class _OfferedRoutes:
    """Middleware that hides the routes of Gradio that no page needs: some fetch addresses.

    Requests that Gradio cannot read are answered as mistakes of the client.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_corrected(message: Message) -> None:
            if message.get("status") == 500:  # what Gradio makes of a mistake outside its queue
                message["status"] = 422
            await send(message)

        refusal = JSONResponse({"detail": "nothing exists at this address"}, 404)
        if scope["type"] == "http" and not _OFFERED.fullmatch(scope["path"]):
            await refusal(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send_corrected)
        except _UNREADABLE as error:
            if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
                raise
            text = "no such endpoint, or not these parameters; the page's footer leads to the API"
            await JSONResponse({"detail": text}, 404)(scope, receive, send)


async def _refuse_body(_request: Request, _error: Exception) -> JSONResponse:
    """Answer without the values, which JSON may not be able to repeat."""
    return JSONResponse({"detail": "wrong parameters; see /gradio_api/info"}, 422)


async def _shorten(_request: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"detail": str(error.detail)[:100]}, error.status_code, error.headers)


def run(app: FastAPI, renderer: Renderer, listener: socket, proxies: Sequence[str]) -> None:
    """Serve an application until Ctrl-C, and delete what is old in the renderer's folder."""
    threading.Thread(target=_sweep_regularly, args=(renderer.folder,), daemon=True).start()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(server_config(app, proxies)).run(sockets=[listener])
    finally:
        renderer.close()


def _sweep_regularly(folder: Path) -> None:
    while True:
        time.sleep(_SWEEP_INTERVAL)
        with contextlib.suppress(OSError):  # the folder is gone at the end
            sweep(folder)


def sweep(folder: Path) -> None:
    """Delete old files, the oldest where there are too many, and old empty folders."""
    kept, now = 0, time.time()
    found = [(path.stat(), path) for path in folder.rglob("*")]
    for about, path in sorted(found, key=lambda entry: entry[0].st_mtime, reverse=True):
        is_folder = stat.S_ISDIR(about.st_mode)
        kept += 0 if is_folder else about.st_size
        if now - about.st_mtime > _KEPT or (kept > _MAX_KEPT and not is_folder):
            with contextlib.suppress(OSError):  # a folder that is not empty
                path.rmdir() if is_folder else path.unlink()


def share(listener: socket) -> str:
    """The address on the internet, through Gradio's relay; InputError if that cannot be reached."""
    host, port = listener.getsockname()[:2]
    try:
        return networking.setup_tunnel(host, port, secrets.token_urlsafe(32), None, None)
    except Exception as error:  # of many kinds, all meaning the same to the user
        raise InputError(f"no public address available: {error}") from None


def server_config(app: ASGIApp, proxies: Sequence[str] = ()) -> uvicorn.Config:
    """How uvicorn serves an application, to clients that come through these proxies, too."""
    networks = [ipaddress.ip_network(proxy, strict=False) for proxy in proxies]
    # asyncio logs each connection for which there is no file descriptor, hundreds a second.
    logging.getLogger("asyncio").addFilter(lambda r: "out of system resource" not in str(r.msg))
    return uvicorn.Config(
        app,
        http=partial(BoundedProtocol, proxies=networks),  # type: ignore[arg-type]
        ws="none",
        h11_max_incomplete_event_size=_MAX_HEAD,
        backlog=128,  # connections that are accepted at once, before any of them is closed
        proxy_headers=bool(networks),
        forwarded_allow_ips=[str(network) for network in networks],
        log_level="critical",
        timeout_graceful_shutdown=1,  # a page that is open keeps a connection
    )


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 that closes slow connections, and idle ones when there are too many.

    A client that is to send a request, or to read what is ready for it, must move 10 KiB in 10 s or
    finish. Making an answer may take any time. When there are too many connections, of one client
    or in all, the one that has waited longest for its client is closed. Networks of proxies may
    have any share of all connections.
    """

    def __init__(self, *args: Any, proxies: _Networks, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._proxies = proxies
        self._owner: str | None = None
        self._since = 0.0  # when it was last seen that the client keeps up
        self._received = self._unsent = 0  # bytes, since then and at that time

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room if there are too many."""
        super().connection_made(transport)
        self._restart()
        self._watch()
        most = _max_connections()
        connections: set[Any] = self.connections
        if self.client and not _is_within(self.client[0], self._proxies):
            self._owner = limits.client_of({"client": self.client})
            _make_room([c for c in connections if c._owner == self._owner], most // 2)
        _make_room(connections, most)

    def data_received(self, data: bytes) -> None:
        """Count what came."""
        self._received += len(data)
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._restart()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        super().connection_lost(exc)
        self._timer.cancel()

    def close(self) -> None:
        """Close the connection at once."""
        self._timer.cancel()
        self.connections.discard(self)
        self.transport.abort()

    @property
    def waits(self) -> bool:
        """Whether the client has to send or to read."""
        # While reading is paused, the application has not taken what came before.
        is_sending = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        return self.flow.write_paused or (is_sending and not self.flow.read_paused)

    def _restart(self) -> None:
        self._since, self._received = self.loop.time(), 0
        self._unsent = self.transport.get_write_buffer_size()

    def _watch(self) -> None:
        self._timer = self.loop.call_later(_WATCH_INTERVAL, self._watch)
        moved = self._received + self._unsent - self.transport.get_write_buffer_size()
        if not self.waits or moved >= _LEAST_RATE * _PATIENCE:
            self._restart()
        elif self.loop.time() - self._since > _PATIENCE:
            self.close()


def _make_room(connections: Collection[Any], most: int) -> None:
    if len(connections) > most:
        waiting = [c for c in connections if c.waits]  # the newest at least
        min(waiting, key=lambda c: c._since).close()


def _is_within(host: str, networks: _Networks) -> bool:
    return any(ipaddress.ip_address(host) in network for network in networks)


def _max_connections() -> int:
    """Three quarters of the file descriptors of this process, and no more than needed."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return _MAX_CONNECTIONS
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    is_endless = limit == resource.RLIM_INFINITY
    return _MAX_CONNECTIONS if is_endless else min(_MAX_CONNECTIONS, limit * 3 // 4)
