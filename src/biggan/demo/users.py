"""Who may use a server: names and passwords, asked for by the browser (HTTP Basic, RFC 7617)."""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from biggan.demo.limits import Buckets, client_of
from biggan.errors import InputError

_WRONG_PER_MINUTE = 20
_WRONG_FOR_NAME = 60  # a minute: more than one client may, or it could shut others out


def read_users(path: Path) -> dict[str, str]:
    """Read names and passwords.

    Args:
        path: A text file of lines `NAME:PASSWORD`; the password may hold colons.

    Raises:
        InputError: It cannot be read, a line is something else, or there is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise InputError(f"cannot read the users in {path}: {reason}") from None
    users: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        name, colon, password = line.strip().partition(":")
        if not line.strip():
            continue
        if not (name and colon and password):
            raise InputError(f"line {number} of {path} must be NAME:PASSWORD")
        if name in users:
            raise InputError(f"line {number} of {path}: {name} is there twice")
        users[name] = password
    if not users:
        raise InputError(f"{path} names no user: give lines NAME:PASSWORD")
    return users


class BasicAuth:
    """Lets only known users in: to the page, its API and its pictures alike.

    Passwords are kept as keyed digests, which take the same time to compare whatever they are.
    After 10 wrong ones at once, or 20 a minute, a client has to wait, whatever it then sends. After
    30 wrong ones for one name, or 60 a minute, all clients have to wait that give this name, but
    for those that were let in before.

    Args:
        app: What is behind it.
        users: The password of each name.
    """

    def __init__(self, app: ASGIApp, users: Mapping[str, str]) -> None:
        self._app = app
        self._key = secrets.token_bytes(32)
        self._digests = {name: self._digest(password) for name, password in users.items()}
        self._wrong = Buckets(_WRONG_PER_MINUTE)
        self._wrong_for_name = Buckets(_WRONG_FOR_NAME)
        self._known: set[tuple[str, str]] = set()  # clients and names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or ask for a name and a password."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        client, given = client_of(scope), Headers(scope=scope).get("authorization")
        name, password = _credentials(given or "")
        if name not in self._digests:
            name = ""  # one for all, or many of them would push out the known ones
        # Before the password is looked at: a right one among too many guesses is a guess, too.
        wait = self._wrong.wait(client)
        if given is not None and (client, name) not in self._known:
            wait = max(wait, self._wrong_for_name.wait(name))
        if wait:
            answer = JSONResponse(
                {"detail": f"too many wrong passwords: try again in {wait} s"},
                429,
                {"Retry-After": str(wait)},
            )
        elif hmac.compare_digest(self._digest(password), self._digests.get(name, b"")):
            self._known.add((client, name))
            await self._app(scope, receive, send)
            return
        else:
            if given is not None:
                self._wrong.take(client)
                self._wrong_for_name.take(name)
            answer = JSONResponse(
                {"detail": "a name and a password are needed here (HTTP Basic)"},
                401,
                {"WWW-Authenticate": 'Basic realm="biggan", charset="UTF-8"'},
            )
        await answer(scope, receive, send)

    def _digest(self, password: str) -> bytes:
        return hashlib.blake2b(password.encode(), key=self._key).digest()


def _credentials(authorization: str) -> tuple[str, str]:
    """The name and the password; both empty if the header has none."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return "", ""
    return (name, password) if scheme.lower() == "basic" else ("", "")
