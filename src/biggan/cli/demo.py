"""`biggan demo`: the web page."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import signal
import socket
import sys
import tempfile
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from biggan.cli.options import (
    choose_device,
    device_option,
    engine_options,
    model_option,
    offline_option,
    share_processor,
)
from biggan.errors import InputError

if TYPE_CHECKING:
    from biggan.engine_names import EngineName, Precision


@click.command
@model_option
@offline_option
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 lets other machines in.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=7860,
    show_default=True,
    help="Port to listen on; 0 for any free one.",
)
@click.option(
    "--share", is_flag=True, help="Also offer the page to the internet, through Gradio's relay."
)
@click.option("--open", "open_browser", is_flag=True, help="Open the page in a browser.")
@device_option
@engine_options
def command(
    model: str | None,
    offline: bool,
    host: str,
    port: int,
    share: bool,
    open_browser: bool,
    device: str | None,
    engine: EngineName,
    precision: Precision,
) -> None:
    """Open a web page with sliders: explore a class, morph one into another.

    \b
    Examples:
      biggan demo
      biggan demo --model runs/digits --port 8000 --open

    Prints the page's address once it can be opened; Ctrl-C ends it. Needs no internet.
    """
    with contextlib.closing(_listen(host, port)) as listener:
        if find_spec("gradio") is None:
            raise InputError("the page needs Gradio: pip install 'biggan[demo]'")
        if sys.stderr.isatty():
            click.echo("Loading the model and the page ...", err=True)
        share_processor()
        from biggan.gan import load

        gan = load(
            model, device=choose_device(device), offline=offline, engine=engine, precision=precision
        )
        gan.warm_up()
        # A kill ends it as Ctrl-C does: its temporary pictures go with it.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        with tempfile.TemporaryDirectory(prefix="biggan-demo-") as pictures:
            # Gradio's own folder belongs to whoever first ran it on this machine. Read on import.
            os.environ["GRADIO_TEMP_DIR"] = pictures
            from biggan.demo import serve  # last: it takes seconds, and the rest may fail at once

            serve(
                gan,
                listener,
                _address(host, listener),
                share=share,
                open_browser=open_browser,
                announce=click.echo,
            )


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything slow happens; a browser that comes early then waits.

    Raises:
        InputError: The port or the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    foreign = f"{host} is no address of this machine; use 127.0.0.1, or 0.0.0.0 for all that it has"
    try:
        address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
        return socket.create_server((address[0], port), family=family)
    except (socket.gaierror, UnicodeError):
        raise InputError(foreign) from None
    except OSError as error:
        known = {
            errno.EADDRINUSE: f"port {port} is in use: stop the other program or choose another "
            "with --port",
            errno.EADDRNOTAVAIL: foreign,
            errno.EACCES: f"port {port} is reserved for the system; choose one above 1023 "
            "with --port",
        }
        other = f"cannot listen on {host}, port {port}: {error.strerror}"
        raise InputError(known.get(error.errno or 0, other)) from None


def _address(host: str, listener: socket.socket) -> str:
    """What to type into a browser on this machine."""
    bound, port = listener.getsockname()[:2]
    if ipaddress.ip_address(bound).is_unspecified:  # it listens on all addresses: name one
        host = "::1" if ":" in bound else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
