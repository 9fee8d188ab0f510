"""`biggan demo`: the web page."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import webbrowser
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from biggan.cli import options
from biggan.errors import InputError

_LIMIT = 120


@click.command
@click.option(
    "--model",
    "models",
    metavar="NAME|PATH",
    multiple=True,
    help="As in biggan sample; repeatable. Visitors can choose among these models; the first is "
    "selected.  [default: the bundled models, and downloaded ones whose licence is known]",
)
@options.offline
@click.option(
    "--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 admits other machines."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=7860,
    help="Port to listen on; 0 for any free one.",
)
@click.option(
    "--share", is_flag=True, help="Also publish the page on the internet through Gradio's relay."
)
@click.option(
    "--user",
    "names",
    metavar="NAME",
    multiple=True,
    help="Require this user's password, which is asked for; repeatable.",
)
@click.option(
    "--users",
    metavar="FILE",
    type=options.PATH,
    envvar="BIGGAN_USERS",
    show_envvar=True,
    help="Require the password of a user in this file, with lines NAME:PASSWORD.",
)
@click.option(
    "--queue",
    type=click.IntRange(min=1),
    default=100,
    help="Maximum number of waiting requests; further ones are refused with status 503.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help="Maximum number of image requests per client and minute, half of them at once; 0 for no "
    f"limit.  [default: {_LIMIT} with --share or a --host that is not this machine's own, else "
    "0]",
)
@click.option(
    "--allow-origin",
    "origins",
    metavar="URL",
    multiple=True,
    help="Accept requests from pages of this site, such as https://example.org; repeatable. Other "
    "sites are refused.",
)
@click.option(
    "--trusted-proxy",
    "proxies",
    metavar="ADDRESS",
    multiple=True,
    help="Trust X-Forwarded-For from the proxy at this IP address or in this network, such as "
    "10.0.0.0/8; repeatable.",
)
@click.option(
    "--downloads/--no-downloads",
    default=None,
    help="Whether visitors may download published models.  [default: only if the page is for this "
    "machine alone]",
)
@click.option(
    "--uploads/--no-uploads",
    default=None,
    help="Whether visitors may bring weights of their own.  [default: only if the page is for this "
    "machine alone]",
)
@click.option(
    "--root-path",
    metavar="/PATH",
    default="",
    show_default=False,
    help="The path below which a proxy offers the page, such as /biggan.",
)
@click.option("--open", "open_browser", is_flag=True, help="Open the page in a browser.")
@options.device
@options.engine
@options.precision
def command(
    models: tuple[str, ...],
    host: str,
    port: int,
    share: bool,
    names: tuple[str, ...],
    users: Path | None,
    queue: int,
    limit: int | None,
    origins: tuple[str, ...],
    proxies: tuple[str, ...],
    downloads: bool | None,
    uploads: bool | None,
    root_path: str,
    open_browser: bool,
    device: str | None,
    **how: Any,
) -> None:
    """Serve the web page and the HTTP API.

    \b
    Examples:
      biggan demo
      biggan demo --model runs/digits --port 8000 --open
      biggan demo --model biggan-deep-256 --model biggan-deep-512
      biggan demo --host 0.0.0.0 --user ann --user bob
      biggan demo --root-path /biggan --trusted-proxy 127.0.0.1 --limit 60

    Prints the page's address when the page is ready; Ctrl-C stops the server. Needs no internet
    but to download published models, which the page's menu offers. The HTTP API for programs is
    documented at /api/docs.
    """
    origins = tuple(origin.lower() for origin in origins)  # as browsers send them
    _check_origins(origins)
    _check_proxies(proxies)
    root_path = _check_root_path(root_path)
    with contextlib.closing(_listen(host, port)) as listener:
        if find_spec("gradio") is None:
            raise InputError("the page needs Gradio: pip install 'biggan[demo]'")
        options.report("Loading the model and the page")
        options.set_environment()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the server's own way to end
        temporary = tempfile.TemporaryDirectory
        with temporary(prefix="biggan-demo-") as pictures, temporary() as weights:
            # Gradio's own folder belongs to the user who first ran it. Read on import.
            os.environ["GRADIO_TEMP_DIR"] = pictures
            passwords = _passwords(names, users)

            from biggan.demo.models import ModelCache
            from biggan.demo.renderer import Renderer
            from biggan.devices import find_device
            from biggan.gan import load
            from biggan.weights.files import BUNDLED
            from biggan.weights.published import PUBLISHED, cached_path

            is_local = _is_local(listener) and not (share or proxies or root_path)
            downloads = is_local if downloads is None else downloads
            uploads = is_local if uploads is None else uploads
            load = partial(load, device=find_device(device), **how)
            licensed = [
                name
                for name, entry in PUBLISHED.items()
                if entry.is_open and cached_path(name).is_file()
            ]
            cache = ModelCache(
                models or (*BUNDLED, *licensed),
                load,
                downloads=downloads,
                offline=how["offline"],
                uploads=Path(weights) if uploads else None,
            )
            cache.load_all()
            cache.get(cache.default).sample()  # the first is ready to draw

            from biggan.demo import server  # takes seconds, and the rest may fail at once

            if limit is None:
                limit = _LIMIT if share or not _is_local(listener) else 0
            renderer = Renderer(cache, Path(pictures), queue)
            addresses = [_address(host, listener)]
            if share:
                addresses.append(server.share(listener))
            app = server.build_app(
                renderer,
                users=passwords,
                per_minute=limit,
                origins=[*origins, *addresses[1:]],
                root_path=root_path,
                show_paths=is_local,
            )
            for address in addresses:
                click.echo(address)
            if open_browser:  # a thread, because a browser in the terminal would keep this one
                threading.Thread(target=webbrowser.open, args=(addresses[0],), daemon=True).start()
            server.run(app, renderer, listener, proxies)


def _passwords(names: tuple[str, ...], users: Path | None) -> dict[str, str]:
    """The password of each user; empty if all are let in.

    Raises:
        InputError: A password on the command line, a name twice, or a file that is none of users.
    """
    passwords = {} if users is None else _read_users(users)
    for name in names:
        if ":" in name:
            raise InputError(
                "other users of this machine can see a password on the command line: use --user "
                "NAME, which asks for it, or --users FILE"
            )
        if not name:
            raise InputError("a user has no name")
        if name in passwords:
            raise InputError(f"the user {name} is given twice")
        if not _is_terminal():
            raise InputError("--user needs a terminal to ask for the password: use --users FILE")
        passwords[name] = click.prompt(
            f"Password of {name}", hide_input=True, confirmation_prompt=True, err=True
        )
    return passwords


def _read_users(path: Path) -> dict[str, str]:
    """Read names and passwords: lines `NAME:PASSWORD`; the password may hold colons.

    Raises:
        InputError: The file cannot be read, a line is something else, or there is none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"cannot read the users in {path}: {reason}") from None
    users: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, password = line.strip().partition(":")
        if not (name and password):
            raise InputError(f"line {number} of {path} must be NAME:PASSWORD")
        if name in users:
            raise InputError(f"line {number} of {path}: {name} is there twice")
        users[name] = password
    if not users:
        raise InputError(f"{path} names no user: give lines NAME:PASSWORD")
    return users


def _check_origins(origins: tuple[str, ...]) -> None:
    for origin in origins:
        if not re.fullmatch(r"https?://[^/?#@*\s]+", origin):
            raise InputError(
                f"--allow-origin {origin[:100]!r} must look like https://example.org or "
                "http://example.org:8000, without a path"
            )


def _check_proxies(proxies: tuple[str, ...]) -> None:
    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            raise InputError(
                f"--trusted-proxy {proxy[:100]!r} must be an IP address such as 127.0.0.1, or a "
                "network such as 10.0.0.0/8"
            ) from None


def _check_root_path(path: str) -> str:
    """The path without a slash at its end; "" and "/" are none."""
    path = path.rstrip("/")
    parts = path.split("/")
    if path and (
        not re.fullmatch(r"(/[\w.~-]+)+", path, re.ASCII) or not {".", ".."}.isdisjoint(parts)
    ):
        raise InputError(f"--root-path {path[:100]!r} must look like /biggan or /apps/biggan")
    if parts[1:2] in (["api"], ["gradio_api"]):
        raise InputError(f"--root-path {path[:100]!r} is an address of the API: choose another")
    return path


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _is_local(listener: socket.socket) -> bool:
    """Whether this machine alone can connect."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything slow happens; a browser that comes early then waits.

    Raises:
        InputError: The port or the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    foreign = f"{host} is not an address of this machine; use 127.0.0.1, or 0.0.0.0 for all of them"
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
