"""Serving the page on this machine, and on nothing else unless asked."""

import contextlib
import threading
import webbrowser
from collections.abc import Callable
from socket import socket

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio import networking

from biggan.demo.page import build_page
from biggan.demo.style import SCRIPT, css, theme
from biggan.errors import InputError
from biggan.gan import Gan


def serve(
    gan: Gan,
    listener: socket,
    address: str,
    *,
    share: bool = False,
    open_browser: bool = False,
    announce: Callable[[str], object] = lambda _: None,
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        gan: What makes the pictures.
        listener: A listening socket; closed at the end.
        address: Its address for a browser.
        share: Also offer the page to the internet, through Gradio's relay.
        open_browser: Open the page in the user's browser.
        announce: Called with each address of the page once it can be opened.

    Raises:
        InputError: `share`, and the relay cannot be reached.
    """
    page = build_page(gan)
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        "/",
        theme=theme(),
        css=css(gan.config.resolution),
        js=SCRIPT,
        footer_links=["api"],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
    )
    # `launch` says so, mounting does not; and only then does Gradio check that the files that a
    # request names are among those that were uploaded, or any file of this machine could be had.
    page.has_launched = page.is_running = True
    announce(address)
    if share:
        announce(_share(page, listener))
    if open_browser:  # a thread, because a browser in the terminal would keep this one
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    # A page that is open keeps a connection: do not wait for it at the end.
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


def _share(page: gr.Blocks, listener: socket) -> str:
    host, port = listener.getsockname()[:2]
    try:
        return networking.setup_tunnel(host, port, page.share_token, None, None)
    except Exception as error:  # of many kinds, all meaning the same to the user
        raise InputError(f"no public address to be had: {error}") from None
