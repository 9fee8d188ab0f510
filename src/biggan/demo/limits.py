"""What one client may ask of a server: how long its requests may be, and how many a minute.

Both are ASGI middleware (https://asgi.readthedocs.io), so that they hold for the page and for the
HTTP API alike, and refuse before anything is parsed. A refusal is JSON, {"detail": "..."}, which
the page shows.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 2**20  # bytes; the page's own messages have a few thousand
MAX_UPLOAD = 64 * 2**20  # bytes; a grid of ours of 512 px has up to 20 million
_UPLOADS = "/gradio_api/upload"
_DRAINED = 16  # times what is allowed: read and dropped, so that the sender gets to read the answer

# What makes the server draw; load a model, as a search of classes may; or keep a file.
_COUNTED_PATHS = ("/api/sample", "/api/interpolate", "/api/sweep", "/api/classes")
_COUNTED_POSTS = ("/gradio_api/queue/join", "/gradio_api/call/", _UPLOADS)
_BURST = 0.5  # minutes: what a client that was quiet may ask for at once
_REMEMBERED = 10_000  # clients


class BodyLimit:
    """Refuses bodies that are longer than any honest request's, with status 413.

    They are never held in memory, announced or not.

    Args:
        app: What is behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = MAX_UPLOAD if scope["path"].startswith(_UPLOADS) else MAX_BODY
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > most:
            if int(announced) <= _DRAINED * most:
                await _drain(receive)
            await _refuse(413, _too_long(most))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise HTTPException(413, _too_long(most))
            return message

        await self._app(scope, counted, send)


async def _drain(receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


def _too_long(most: int) -> str:
    return f"the request is too long: at most {most:,} bytes are taken"


class RateLimit:
    """Refuses requests for pictures of a client that asks too often, with status 429.

    Only those that cost the server much are counted, searches of classes and uploads too: the page
    itself is always shown.

    Args:
        app: What is behind it.
        per_minute: Requests of one client; half as many may come at once.
    """

    def __init__(self, app: ASGIApp, per_minute: int) -> None:
        self._app = app
        self._per_minute = per_minute
        self._buckets = Buckets(per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        wait = self._buckets.take(client_of(scope)) if _is_counted(scope) else 0
        if wait:
            told = f"more than {self._per_minute} requests a minute: try again in {wait} s"
            await _refuse(429, told, {"Retry-After": str(wait)})(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _is_counted(scope: Scope) -> bool:
    if scope["type"] != "http":
        return False
    path: str = scope["path"]
    return path.startswith(_COUNTED_PATHS) or (
        scope["method"] == "POST" and path.startswith(_COUNTED_POSTS)
    )


def client_of(scope: Scope) -> str:
    """Whom a request is from: an IPv4 address, or an IPv6 network, of which one client has all."""
    host = (scope.get("client") or ("",))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False))


class Buckets:
    """Token buckets, one a client: full at first, refilled evenly.

    Args:
        per_minute: Tokens that come in a minute; half as many fill a bucket.
        clock: Seconds.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = per_minute / 60
        self._full = max(1.0, _BURST * per_minute)
        self._clock = clock
        self._tokens: OrderedDict[str, tuple[float, float]] = OrderedDict()  # how many, and when

    def take(self, client: str) -> int:
        """Take a token of a client's.

        Returns:
            0, or if there is none the whole seconds until there is.
        """
        wait = self.wait(client)
        if not wait:
            tokens, then = self._tokens[client]
            self._tokens[client] = (tokens - 1, then)
        return wait

    def wait(self, client: str) -> int:
        """The whole seconds until a client has a token; 0 if it has one."""
        now = self._clock()
        tokens, then = self._tokens.pop(client, (self._full, now))
        tokens = min(self._full, tokens + self._rate * (now - then))
        self._tokens[client] = (tokens, now)
        if len(self._tokens) > _REMEMBERED:
            self._tokens.popitem(last=False)  # whose bucket is the likeliest to be full
        return 0 if tokens >= 1 else math.ceil((1 - tokens) / self._rate)


def _refuse(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)
