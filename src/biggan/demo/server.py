"""Serving the page and the HTTP API on this machine, and on nothing else unless asked."""

import contextlib
import threading
import webbrowser
from collections.abc import Callable, Mapping
from socket import socket
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from gradio import networking
from gradio.route_utils import FnIndexInferError

from biggan.demo.api import build_api
from biggan.demo.limits import MAX_UPLOAD, BodyLimit, RateLimit
from biggan.demo.line import Line
from biggan.demo.page import build_page
from biggan.demo.shelf import ModelShelf
from biggan.demo.style import SCRIPT, css, theme
from biggan.demo.users import BasicAuth
from biggan.errors import InputError

_GRADIO_CALLS = ("/gradio_api/call/", "/gradio_api/queue/join")
# Visitors of whom Gradio keeps the page's state, some 150 KiB each and more with more classes. It
# takes 10,000, and counts every call of a program for one. Who is forgotten notices nothing: all
# that the page's functions need is sent along.
_SESSIONS = 100
_MAX_HEAD = 2**16  # bytes of a request's address and headers


def serve(
    shelf: ModelShelf,
    listener: socket,
    address: str,
    *,
    users: Mapping[str, str],
    queue: int = 100,
    per_minute: int = 0,
    share: bool = False,
    open_browser: bool = False,
    announce: Callable[[str], object] = lambda _: None,
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        shelf: What can be drawn with.
        listener: A listening socket; closed at the end.
        address: Its address for a browser.
        users: The password of each user; empty to let all in.
        queue: Most requests that wait, of the page and of the HTTP API each.
        per_minute: Most requests for pictures from one client in a minute; 0 for any number.
        share: Also offer the page to the internet, through Gradio's relay.
        open_browser: Open the page in the user's browser.
        announce: Called with each address of the page once it can be opened.

    Raises:
        InputError: `share`, and the relay cannot be reached.
    """
    line = Line(queue)
    page = build_page(shelf)
    app = build_app(shelf, page, line, users, per_minute)
    announce(address)
    if share:
        announce(_share(page, listener))
    if open_browser:  # a thread, because a browser in the terminal would keep this one
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    # A page that is open keeps a connection: do not wait for it at the end.
    config = uvicorn.Config(
        app,
        http="h11",  # the other one has no limit
        h11_max_incomplete_event_size=_MAX_HEAD,
        log_level="critical",
        timeout_graceful_shutdown=1,
    )
    try:
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        line.close()


def build_app(
    shelf: ModelShelf, page: gr.Blocks, line: Line, users: Mapping[str, str], per_minute: int
) -> FastAPI:
    """All that is served, as one ASGI application.

    Args:
        shelf: What can be drawn with.
        page: What `build_page` returns; its queue is to be as long as the line.
        line: Where requests of the HTTP API wait.
        users: See `serve`.
        per_minute: See `serve`.
    """
    page.state_session_capacity = _SESSIONS
    # Not open: what is asked for directly would pass by the queue, and be drawn at once.
    page.queue(max_size=line.limit, api_open=False)
    app = build_api(shelf, line)
    # The last added is the first to see a request.
    if per_minute:
        app.add_middleware(RateLimit, per_minute=per_minute)
    app.add_middleware(BodyLimit)
    if users:
        app.add_middleware(BasicAuth, users=users)
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
    )
    # `launch` says so, mounting does not; and only then does Gradio check that the files that a
    # request names are among those that were uploaded, or any file of this machine could be had.
    page.has_launched = page.is_running = True
    _refuse_unknown_endpoints(app.routes[-1])
    return app


def _refuse_unknown_endpoints(mounted: Any) -> None:
    """Let Gradio answer what it does not know with status 404, not 500.

    What is asked for is drawn later, so these errors are of reading the request and of no others.
    """

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        if not request.url.path.startswith(_GRADIO_CALLS):
            raise error
        told = "no such endpoint, or not these parameters; the page's footer leads to the API"
        return JSONResponse({"detail": told}, 404)

    for kind in (FnIndexInferError, KeyError, TypeError):
        mounted.app.add_exception_handler(kind, refuse)


def _share(page: gr.Blocks, listener: socket) -> str:
    host, port = listener.getsockname()[:2]
    try:
        return networking.setup_tunnel(host, port, page.share_token, None, None)
    except Exception as error:  # of many kinds, all meaning the same to the user
        raise InputError(f"no public address to be had: {error}") from None
