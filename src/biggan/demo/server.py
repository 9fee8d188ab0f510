"""Serving the page and the HTTP API: one application, and how uvicorn runs it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import re
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Collection, Mapping, Sequence
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
from fastapi.responses import JSONResponse
from gradio import networking
from gradio.route_utils import FnIndexInferError
from httpx import InvalidURL
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from biggan.demo.api import build_api
from biggan.demo.limits import (
    MAX_UPLOAD,
    BodyLimit,
    Guard,
    check_origin,
    check_password,
    check_rate,
    client_of,
)
from biggan.demo.model_cache import ModelCache
from biggan.demo.page import SCRIPT, STYLE, Page, css, theme
from biggan.demo.request_queue import RequestQueue
from biggan.errors import InputError

_OFFERED = re.compile(  # of Gradio's routes: what the page and gradio_client ask for
    r"/|/config/?|/theme\.css|/(static|assets|svelte)/.+|/favicon\.ico|/manifest\.json|/robots\.txt|"
    r"/gradio_api/(info/?|openapi\.json|app_id|heartbeat/[^/]+|queue/(join|data|status)|call/.+|"
    r"run/predict|cancel|reset|upload|upload_progress|file=/.+)"
)
# What Gradio raises for requests that it cannot read.
_UNREADABLE = (
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    OSError,
    RecursionError,
    FnIndexInferError,
    InvalidURL,
)
# Visitors whose page Gradio remembers, some 150 KiB each; it takes 10,000, and a program's call for
# a visitor. Nothing is lost with one: all that the page's functions need is sent along.
_SESSIONS = 100
_SWEEP_INTERVAL = 60  # seconds
_KEPT = 3600  # seconds since a file or a folder was written to

_MAX_HEAD = 2**16  # bytes of a request's address and headers
_MAX_CONNECTIONS = 1024  # half of them of one client
_PATIENCE = 10  # seconds
_LEAST_RATE = 2**10  # bytes a second

_Networks = Collection[ipaddress.IPv4Network | ipaddress.IPv6Network]


def serve(
    models: ModelCache,
    listener: socket,
    address: str,
    *,
    users: Mapping[str, str],
    queue: int = 100,
    per_minute: int = 0,
    origins: Collection[str] = (),
    proxies: Sequence[str] = (),
    folder: Path | None = None,
    share: bool = False,
    show_paths: bool = False,
    open_browser: bool = False,
    announce: Callable[[str], object] = lambda _: None,
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        models: The models on offer.
        listener: A listening socket; closed at the end.
        address: Its address for a browser.
        users: The password of each user; empty to let all in.
        queue: The most requests that wait, of the page and of the HTTP API together.
        per_minute: Most requests for pictures from one client in a minute; 0 for any number.
        origins: Sites whose pages may use the server, as "https://example.org".
        proxies: Addresses and networks of proxies, whose `X-Forwarded-For` names the client.
        folder: Gradio's folder, if it is this server's alone: old uploads are deleted.
        share: Also offer the page to the internet, through Gradio's relay.
        show_paths: Whether shell commands on the page name the models' files on this machine.
        open_browser: Open the page in the user's browser.
        announce: Called with each address of the page once it can be opened.

    Raises:
        InputError: `share`, and the relay cannot be reached.
    """
    requests = RequestQueue(queue)
    page = Page(models, requests, show_paths=show_paths).blocks
    addresses = [address, _share(page, listener)] if share else [address]
    app = build_app(models, page, requests, users, per_minute, [*origins, *addresses[1:]])
    for each in addresses:
        announce(each)
    if folder is not None:
        threading.Thread(target=_sweep_regularly, args=(folder,), daemon=True).start()
    if open_browser:  # a thread, because a browser in the terminal would keep this one
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(server_config(app, proxies)).run(sockets=[listener])
    finally:
        requests.close()


def build_app(
    models: ModelCache,
    page: gr.Blocks,
    queue: RequestQueue,
    users: Mapping[str, str],
    per_minute: int,
    origins: Collection[str] = (),
) -> FastAPI:
    """The page and the HTTP API behind all limits; see `serve`."""
    page.state_session_capacity = _SESSIONS
    # Not open: what is asked for directly would bypass the queue.
    page.queue(max_size=queue.limit, api_open=False)
    # Gradio polls for work every millisecond and for progress every ten, which takes 5% of a
    # processor, and makes statistics of all requests after each.
    page._queue.sleep_when_free = 0.05
    page._queue.progress_update_sleep_when_free = 0.25
    page._queue.ANAYLTICS_CACHE_FREQUENCY = sys.maxsize
    app = build_api(models, queue)
    # The last added is the first to see a request.
    app.add_middleware(BodyLimit)
    if per_minute:
        app.add_middleware(Guard, check=check_rate(per_minute))
    if users:
        app.add_middleware(Guard, check=check_password(users))
    # Gradio would add one that allows all origins wherever it is not on this machine.
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["*"],
        allow_headers=["*"],
        allow_credentials=True,
    )
    app.add_middleware(Guard, check=check_origin(origins))
    gr.mount_gradio_app(
        app,
        page,
        "/",
        theme=theme(),
        css=css(models.get(models.default).config.resolution),
        css_paths=STYLE,
        js=SCRIPT,
        footer_links=["api"],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        max_file_size=MAX_UPLOAD,
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


class _OfferedRoutes:
    """Middleware that hides the routes of Gradio that no page needs: some fetch addresses.

    Requests that Gradio cannot read are answered as mistakes of the client.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""

        async def send_corrected(message: Message) -> None:
            if message.get("status") == 500:  # what Gradio makes of a mistake outside its queue
                message["status"] = 422
            await send(message)

        refusal = JSONResponse({"detail": "there is nothing at this address"}, 404)
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


def _sweep_regularly(folder: Path) -> None:
    while True:
        time.sleep(_SWEEP_INTERVAL)
        with contextlib.suppress(OSError):  # the folder is gone at the end
            sweep(folder)


def sweep(folder: Path) -> None:
    """Delete old uploads that did not become files of the page, and old empty folders."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # a folder that is not empty
            if time.time() - path.stat().st_mtime > _KEPT:
                path.rmdir() if path.is_dir() else path.unlink()


def _share(page: gr.Blocks, listener: socket) -> str:
    host, port = listener.getsockname()[:2]
    try:
        return networking.setup_tunnel(host, port, page.share_token, None, None)
    except Exception as error:  # of many kinds, all meaning the same to the user
        raise InputError(f"no public address to be had: {error}") from None


def server_config(app: ASGIApp, proxies: Sequence[str] = ()) -> uvicorn.Config:
    """How uvicorn serves an application; see `serve`."""
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
    or in all, the one that has waited longest for its client is closed.

    Args:
        proxies: Networks whose addresses may have any share of all connections.
    """

    def __init__(self, *args: Any, proxies: _Networks, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._proxies = proxies
        self._owner: str | None = None
        self._timer: asyncio.TimerHandle | None = None  # runs while the client has to act
        self._received = 0  # bytes since the timer was started
        self._unsent = 0  # bytes when the timer was started

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room if there are too many."""
        super().connection_made(transport)
        self._update_timer()
        most = _max_connections()
        connections: set[Any] = self.connections
        if self.client and not _is_within(self.client[0], self._proxies):
            self._owner = client_of({"client": self.client})
            _make_room([c for c in connections if c._owner == self._owner], most // 2)
        _make_room(connections, most)

    def data_received(self, data: bytes) -> None:
        """Count what came."""
        self._received += len(data)
        super().data_received(data)
        self._update_timer()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._update_timer()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._update_timer()

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self._update_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(exc)
        self._stop_timer()

    def close(self) -> None:
        """Close the connection at once."""
        self._stop_timer()
        self.connections.discard(self)
        self.transport.abort()

    @property
    def deadline(self) -> float | None:
        """By when the client has to act, on the event loop's clock; none if it has not."""
        return self._timer.when() if self._timer else None

    def _update_timer(self) -> None:
        is_sending = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        if not is_sending and not self.flow.write_paused:
            self._stop_timer()
        elif self._timer is None:
            self._received, self._unsent = 0, self.transport.get_write_buffer_size()
            self._timer = self.loop.call_later(_PATIENCE, self._check)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        moved = self._received + self._unsent - self.transport.get_write_buffer_size()
        # While only reading is paused, the application has not taken what came before.
        is_due = self.flow.write_paused or not self.flow.read_paused
        if is_due and moved < _LEAST_RATE * _PATIENCE:
            self.close()
        else:
            self._timer = None
            self._update_timer()


def _make_room(connections: Collection[Any], most: int) -> None:
    if len(connections) > most:
        waiting = [c for c in connections if c.deadline is not None]  # the newest at least
        min(waiting, key=lambda c: c.deadline).close()


def _is_within(host: str, networks: _Networks) -> bool:
    return any(ipaddress.ip_address(host) in network for network in networks)


def _max_connections() -> int:
    """Three quarters of the file descriptors of this process, and no more than needed."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return _MAX_CONNECTIONS
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS
    return min(_MAX_CONNECTIONS, limit * 3 // 4)
