"""What one client may ask of a server: from which pages, how long a request, and how many a minute.

All are ASGI middleware (https://asgi.readthedocs.io), so that they hold for the page and for the
HTTP API alike, and refuse before anything is parsed. A refusal is JSON, {"detail": "..."}, which
the page shows.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 2**16  # bytes; Gradio keeps names of 2,000 sessions; the page sends a few thousand
MAX_UPLOAD = 64 * 2**20  # bytes; a grid of ours of 512 px has up to 20 million
_UPLOADS = "/gradio_api/upload"
_UPLOADED_BY_ONE = 2 * MAX_UPLOAD  # bytes an hour
_UPLOADED_BY_ALL = 8 * MAX_UPLOAD
_DRAINED = 16 * MAX_UPLOAD  # bytes that are read and dropped, so that the sender reads the answer

# What makes the server draw; load a model, as a search of classes may; or keep a file.
_COUNTED_PATHS = ("/api/sample", "/api/interpolate", "/api/sweep", "/api/classes")
_COUNTED_POSTS = ("/gradio_api/queue/join", "/gradio_api/call/", _UPLOADS)
_BURST = 0.5  # minutes: what a client that was quiet may ask for at once
_REMEMBERED = 10_000  # clients


class OriginLimit:
    """Refuses requests that pages of other sites make in a visitor's browser, with status 403.

    The browser names the site in the header `Origin`.

    Args:
        app: What is behind it.
        allowed: Origins of sites that may, as "https://example.org".
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str]) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        origin = headers.get("origin")
        # A proxy may replace Host. No page can set the other without being asked for its origin.
        hosts = filter(None, (headers.get("host"), headers.get("x-forwarded-host")))
        if origin is None or origin in self._allowed or origin.partition("://")[2] in hosts:
            await self._app(scope, receive, send)
            return
        told = f"pages of {origin[:100]} may not use this server; --allow-origin lets them"
        await _refuse(403, told)(scope, receive, send)


class BodyLimit:
    """Refuses bodies that are longer than any honest request's, with status 413.

    They are never held in memory, announced or not. Uploads are kept for an hour: of one client,
    and of all, so much is taken in an hour.

    Args:
        app: What is behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._by_one = Buckets(_UPLOADED_BY_ONE / 60, burst=60)
        self._by_all = Buckets(_UPLOADED_BY_ALL / 60, burst=60)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_upload = scope["path"].startswith(_UPLOADS)
        most = MAX_UPLOAD if is_upload else MAX_BODY
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > most:
            if int(announced) <= _DRAINED:
                await _drain(receive)
            await _refuse(413, _too_long(most))(scope, receive, send)
            return
        received = 0
        is_complete = False

        async def counted() -> Message:
            nonlocal received, is_complete
            message = await receive()
            size = len(message.get("body", b""))
            received += size
            if received > most and not is_upload:
                raise HTTPException(413, _too_long(most))
            if is_upload and not is_complete:
                # For this exception alone Gradio deletes what came; "maximum allowed size" makes
                # it answer with status 413, and other words with 400.
                if message["type"] == "http.disconnect":
                    raise MultiPartException("the upload was broken off")
                wait = self._by_one.take(client_of(scope), size) or self._by_all.take("", size)
                if received > most or wait:
                    raise MultiPartException(_too_long(most) if not wait else _too_many(wait))
            is_complete = not message.get("more_body", False)
            return message

        await self._app(scope, counted, send)


async def _drain(receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


def _too_long(most: int) -> str:
    return f"the request is too long: the maximum allowed size is {most:,} bytes"


def _too_many(wait: int) -> str:
    return f"uploads exceed the maximum allowed size for an hour: try again in {wait} s"


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
        per_minute: Tokens that come in a minute.
        clock: Seconds.
        burst: Minutes in which an empty bucket is filled.
    """

    def __init__(
        self,
        per_minute: float,
        clock: Callable[[], float] = time.monotonic,
        burst: float = _BURST,
    ) -> None:
        self._rate = per_minute / 60
        self._full = max(1.0, burst * per_minute)
        self._clock = clock
        self._tokens: OrderedDict[str, tuple[float, float]] = OrderedDict()  # how many, and when

    def take(self, client: str, tokens: int = 1) -> int:
        """Take tokens of a client's.

        Returns:
            0, or if there are too few the whole seconds until there are enough.
        """
        wait = self.wait(client, tokens)
        if not wait:
            left, then = self._tokens[client]
            self._tokens[client] = (left - tokens, then)
        return wait

    def wait(self, client: str, needed: int = 1) -> int:
        """The whole seconds until a client has so many tokens; 0 if it has."""
        now = self._clock()
        tokens, then = self._tokens.pop(client, (self._full, now))
        tokens = min(self._full, tokens + self._rate * (now - then))
        self._tokens[client] = (tokens, now)
        if len(self._tokens) > _REMEMBERED:
            self._tokens.popitem(last=False)  # whose bucket is the likeliest to be full
        return 0 if tokens >= needed else math.ceil((needed - tokens) / self._rate)


def _refuse(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)
