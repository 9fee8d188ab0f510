"""What one client may ask of a server: from which pages, as whom, how often and how much.

All of it is ASGI middleware: it holds for the page and both APIs alike, and refuses before anything
is parsed. A refusal is JSON, {"detail": "..."}, which the page shows.
"""

import base64
import binascii
import ipaddress
import math
import secrets
import time
from collections.abc import Callable, Collection, Mapping

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter, RateLimiter, SlidingWindowCounterRateLimiter
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 2**16  # bytes; the page sends a few thousand, and Gradio keeps names of sessions
MAX_UPLOAD = 64 * 2**20  # bytes; a grid of ours of 512 px has up to 20 million
_UPLOADS = "/gradio_api/upload"
MAX_WEIGHTS = 2**30  # bytes of an upload where visitors may bring weights
_UPLOADED_BY_ONE = 2  # longest uploads an hour
_UPLOADED_BY_ALL = 8
_DRAINED = 2**30  # bytes that are read and dropped, so that the sender reads the answer

# What makes the server draw; load a model, as a search of classes may; or keep a file.
_COUNTED_PATHS = tuple(
    f"/api/{name}" for name in ("sample", "interpolate", "sweep", "directions", "classes")
)
_COUNTED_POSTS = ("/gradio_api/queue/join", "/gradio_api/call/", _UPLOADS)

_WRONG_PER_MINUTE = 20  # passwords of one client
_WRONG_FOR_NAME = 60  # a minute: more than one client may, or it could shut others out

Check = Callable[[Request], JSONResponse | None]


def client_of(scope: Scope) -> str:
    """The client of a request: an IPv4 address, or a /64 network of IPv6, which one client has."""
    host = (scope.get("client") or ("",))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return host if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


class Limit:
    """So much of each client in a window of time; the default strategy keeps the time of a hit."""

    def __init__(
        self, amount: int, seconds: int, strategy: type[RateLimiter] = MovingWindowRateLimiter
    ) -> None:
        self._item = RateLimitItemPerSecond(amount, seconds)
        self._limiter = strategy(MemoryStorage())

    def take(self, client: str, cost: int = 1) -> int:
        """Count something; returns 0, or if it would exceed the limit the seconds to wait."""
        hit = not cost or self._limiter.hit(self._item, client, cost=cost)
        return 0 if hit else self._seconds(client)

    def wait(self, client: str) -> int:
        """The seconds until something more may come, 0 if it may."""
        return 0 if self._limiter.test(self._item, client) else self._seconds(client)

    def _seconds(self, client: str) -> int:
        reset = self._limiter.get_window_stats(self._item, client).reset_time
        return max(1, math.ceil(reset - time.time()))


def per_minute(amount: int) -> Limit:
    """So many a minute, half of them at once."""
    half = math.ceil(amount / 2)
    return Limit(half, round(60 * half / amount))


class Guard:
    """Middleware that answers a request itself where one of its checks refuses it."""

    def __init__(self, app: ASGIApp, *checks: Check) -> None:
        self._app = app
        self._checks = checks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        refusals = (check(Request(scope)) for check in self._checks if scope["type"] == "http")
        await next(filter(None, refusals), self._app)(scope, receive, send)


def check_origin(allowed: Collection[str]) -> Check:
    """Refuses requests that pages of other sites make in a visitor's browser.

    The browser names the site in the header `Origin`, as "https://example.org".
    """

    def check(request: Request) -> JSONResponse | None:
        origin = request.headers.get("origin")
        # A proxy may replace Host. No page can set the other without being asked for its origin.
        hosts = filter(None, map(request.headers.get, ("host", "x-forwarded-host")))
        if origin is None or origin in allowed or origin.partition("://")[2] in hosts:
            return None
        return _refuse(
            403, f"pages of {origin[:100]} may not use this server; --allow-origin admits them"
        )

    return check


def check_rate(amount: int) -> Check:
    """Refuses requests that cost the server much, of a client that makes too many a minute."""
    limit = per_minute(amount)

    def check(request: Request) -> JSONResponse | None:
        path = request.scope["path"]  # not of `request.url`, which the client's Host may change
        counted = path.startswith(_COUNTED_PATHS)
        counted |= request.method == "POST" and path.startswith(_COUNTED_POSTS)
        if counted and (wait := limit.take(client_of(request.scope))):
            return _refuse_until(wait, f"more than {amount} requests a minute")
        return None

    return check


def check_password(users: Mapping[str, str]) -> Check:
    """Asks for the name and the password of a user (HTTP Basic, RFC 7617).

    After too many wrong ones a client has to wait, whatever it then sends. After too many for one
    name, all clients that give it have to wait, but for those that were let in before.
    """
    wrong, wrong_for_name = per_minute(_WRONG_PER_MINUTE), per_minute(_WRONG_FOR_NAME)
    known: set[tuple[str, str]] = set()  # clients and names

    def check(request: Request) -> JSONResponse | None:
        client, given = client_of(request.scope), request.headers.get("authorization")
        name, password = _credentials(given or "")
        name = name if name in users else ""  # so that unknown names take no memory
        # Before the password is looked at: a right one among too many guesses is a guess, too.
        wait = wrong.wait(client)
        if given is not None and (client, name) not in known:
            wait = max(wait, wrong_for_name.wait(name))
        if wait:
            return _refuse_until(wait, "too many wrong passwords")
        if name and secrets.compare_digest(password.encode(), users[name].encode()):
            known.add((client, name))
            return None
        if given is not None:
            wrong.take(client)
            wrong_for_name.take(name)
        challenge = {"WWW-Authenticate": 'Basic realm="biggan", charset="UTF-8"'}
        return _refuse(401, "a name and a password are needed here (HTTP Basic)", challenge)

    return check


def _credentials(authorization: str) -> tuple[str, str]:
    scheme, _, encoded = authorization.partition(" ")
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return "", ""
    return (name, password) if scheme.lower() == "basic" else ("", "")


class BodyLimit:
    """Middleware that refuses bodies that are too long; they are never held in memory.

    Gradio keeps uploads for an hour: so much is taken in an hour of one client, and of all.
    """

    def __init__(self, app: ASGIApp, max_upload: int = MAX_UPLOAD) -> None:
        self._app = app
        self._max_upload = max_upload
        by_one, by_all = _UPLOADED_BY_ONE * max_upload, _UPLOADED_BY_ALL * max_upload
        self._by_one = Limit(by_one, 3600, SlidingWindowCounterRateLimiter)
        self._by_all = Limit(by_all, 3600, SlidingWindowCounterRateLimiter)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_upload = scope["path"].startswith(_UPLOADS)
        most = self._max_upload if is_upload else MAX_BODY
        too_long = f"the request is too long: the maximum allowed size is {most:,} bytes"
        announced = Request(scope).headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > most:
            if int(announced) <= _DRAINED:
                while (await receive()).get("more_body"):
                    pass
            await _refuse(413, too_long)(scope, receive, send)
            return
        received, is_complete = 0, False

        async def limited() -> Message:
            nonlocal received, is_complete
            message = await receive()
            size = len(message.get("body", b""))
            received += size
            if received > most and not is_upload:
                raise HTTPException(413, too_long)
            if is_upload and not is_complete:
                # For this exception alone Gradio deletes what came; it answers with status 413 to
                # "maximum allowed size", and with 400 to other words.
                if message["type"] == "http.disconnect":
                    raise MultiPartException("the upload was interrupted")
                if received > most:
                    raise MultiPartException(too_long)
                if wait := self._by_one.take(client_of(scope), size) or self._by_all.take("", size):
                    raise MultiPartException(
                        f"uploads exceed the maximum allowed size per hour: wait {wait} s"
                    )
            is_complete = not message.get("more_body", False)
            return message

        await self._app(scope, limited, send)


def _refuse(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)


def _refuse_until(wait: int, detail: str) -> JSONResponse:
    return _refuse(429, f"{detail}: try again in {wait} s", {"Retry-After": str(wait)})
