"""Serving the page and the HTTP API on this machine, and on nothing else unless asked."""

import contextlib
import errno
import re
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from socket import socket

import gradio as gr
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

from biggan.demo.api import build_api
from biggan.demo.connections import server_config
from biggan.demo.limits import MAX_UPLOAD, BodyLimit, OriginLimit, RateLimit
from biggan.demo.line import Line
from biggan.demo.page import build_page
from biggan.demo.shelf import ModelShelf
from biggan.demo.style import SCRIPT, css, theme
from biggan.demo.users import BasicAuth
from biggan.errors import InputError

_OFFERED = re.compile(  # of Gradio's: what the page and gradio_client ask for
    r"/|/config/?|/theme\.css|/(static|assets|svelte)/.+|/favicon\.ico|/manifest\.json|/robots\.txt|"
    r"/gradio_api/(info/?|openapi\.json|app_id|heartbeat/[^/]+|queue/(join|data|status)|call/.+|"
    r"run/predict|cancel|reset|upload|upload_progress|file=/.+)"
)
# What Gradio raises for requests that it cannot read.
_MISREAD = (
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    OSError,
    RecursionError,
    FnIndexInferError,
    InvalidURL,
)
# Visitors of whom Gradio keeps the page's state, some 150 KiB each and more with more classes. It
# takes 10,000, and counts every call of a program for one. Who is forgotten notices nothing: all
# that the page's functions need is sent along.
_SESSIONS = 100
_SWEEP_INTERVAL = 60  # seconds
_KEPT = 3600  # seconds since a file or a folder was written to


def serve(
    shelf: ModelShelf,
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
        shelf: What can be drawn with.
        listener: A listening socket; closed at the end.
        address: Its address for a browser.
        users: The password of each user; empty to let all in.
        queue: The most requests that wait, of the page and of the HTTP API together.
        per_minute: Most requests for pictures from one client in a minute; 0 for any number.
        origins: Sites whose pages may use the server, as "https://example.org".
        proxies: Addresses and networks of proxies, whose `X-Forwarded-For` names the client.
        folder: Gradio's folder, if it is this server's alone: uploads that broke off are deleted.
        share: Also offer the page to the internet, through Gradio's relay.
        show_paths: See `build_page`.
        open_browser: Open the page in the user's browser.
        announce: Called with each address of the page once it can be opened.

    Raises:
        InputError: `share`, and the relay cannot be reached.
    """
    line = Line(queue)
    page = build_page(shelf, line, show_paths=show_paths)
    addresses = [address, _share(page, listener)] if share else [address]
    app = build_app(shelf, page, line, users, per_minute, [*origins, *addresses[1:]])
    for each in addresses:
        announce(each)
    if folder is not None:
        threading.Thread(target=_sweep_for_ever, args=(folder,), daemon=True).start()
    if open_browser:  # a thread, because a browser in the terminal would keep this one
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(server_config(app, proxies)).run(sockets=[listener])
    finally:
        line.close()


def build_app(
    shelf: ModelShelf,
    page: gr.Blocks,
    line: Line,
    users: Mapping[str, str],
    per_minute: int,
    origins: Collection[str] = (),
) -> FastAPI:
    """All that is served, as one ASGI application.

    Args:
        shelf: What can be drawn with.
        page: What `build_page` returns.
        line: Where requests wait; the page's are to wait in the same.
        users: See `serve`.
        per_minute: See `serve`.
        origins: See `serve`.
    """
    page.state_session_capacity = _SESSIONS
    # Not open: what is asked for directly would pass by the queue, and be drawn at once.
    page.queue(max_size=line.limit, api_open=False)
    # Gradio polls for work every millisecond and for progress every ten, which takes 5% of a
    # processor, and makes statistics of all requests after each.
    page._queue.sleep_when_free = 0.05
    page._queue.progress_update_sleep_when_free = 0.25
    page._queue.ANAYLTICS_CACHE_FREQUENCY = sys.maxsize
    app = build_api(shelf, line)
    # The last added is the first to see a request.
    if per_minute:
        app.add_middleware(RateLimit, per_minute=per_minute)
    app.add_middleware(BodyLimit)
    if users:
        app.add_middleware(BasicAuth, users=users)
    # Gradio would add one that allows all origins wherever it is not on this machine.
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["*"],
        allow_headers=["*"],
        allow_credentials=True,
    )
    app.add_middleware(OriginLimit, allowed=origins)
    gr.mount_gradio_app(
        app,
        page,
        "/",
        theme=theme(),
        css=css(shelf.get(shelf.default).config.resolution),
        js=SCRIPT,
        footer_links=["api"],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        max_file_size=MAX_UPLOAD,
        show_error=False,  # but for those that are meant for visitors: others name files of ours
    )
    # `launch` says so, mounting does not; and only then does Gradio check that the files that a
    # request names are among those that were uploaded, or any file of this machine could be had.
    page.has_launched = page.is_running = True
    gradio_app = app.routes[-1].app  # type: ignore[attr-defined]
    gradio_app.add_middleware(_OfferedRoutes)
    for kind in _MISREAD:
        gradio_app.add_exception_handler(kind, _refuse)
    gradio_app.add_exception_handler(RequestValidationError, _refuse_body)
    gradio_app.add_exception_handler(HTTPException, _shorten)
    return app


class _OfferedRoutes:
    """Hides the routes of Gradio that no page needs: some fetch addresses or write files."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""

        async def send_mended(message: Message) -> None:
            if message.get("status") == 500:  # what Gradio makes of a mistake outside its queue
                message["status"] = 422
            await send(message)

        if scope["type"] != "http" or _OFFERED.fullmatch(scope["path"]):
            await self._app(scope, receive, send_mended)
        else:
            answer = JSONResponse({"detail": "there is nothing at this address"}, 404)
            await answer(scope, receive, send)


async def _refuse(_request: Request, error: Exception) -> JSONResponse:
    """Answer what Gradio does not know or cannot read; what is asked for is drawn later."""
    if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
        raise error
    told = "no such endpoint, or not these parameters; the page's footer leads to the API"
    return JSONResponse({"detail": told}, 404)


async def _refuse_body(_request: Request, _error: Exception) -> JSONResponse:
    """Answer without the values, which JSON may not be able to repeat."""
    return JSONResponse({"detail": "not what this address takes; see /gradio_api/info"}, 422)


async def _shorten(_request: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"detail": str(error.detail)[:100]}, error.status_code, error.headers)


def _sweep_for_ever(folder: Path) -> None:
    while True:
        time.sleep(_SWEEP_INTERVAL)
        with contextlib.suppress(OSError):  # the folder is gone at the end
            sweep(folder)


def sweep(folder: Path) -> None:
    """Delete old uploads that did not become files of the page, and old empty folders."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime < _KEPT:
                continue
            if path.is_dir():
                path.rmdir()  # fails where there is a file
            else:
                path.unlink()


def _share(page: gr.Blocks, listener: socket) -> str:
    host, port = listener.getsockname()[:2]
    try:
        return networking.setup_tunnel(host, port, page.share_token, None, None)
    except Exception as error:  # of many kinds, all meaning the same to the user
        raise InputError(f"no public address to be had: {error}") from None
