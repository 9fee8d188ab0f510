"""Files from the network: whole, verified, and resumed where a connection broke.

A file grows as `<path>.part` and gets its name when all of it is there. Beside it,
`<path>.part.etag` says which version it is the beginning of: a later try asks for the rest of that
version (Range with If-Range), and takes the file from its start if the server has another by then.

On the standard library's urllib, which follows redirects and finds proxies in the environment. The
certificates that it trusts are the system's, or those that SSL_CERT_FILE, REQUESTS_CA_BUNDLE or
CURL_CA_BUNDLE name.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPMessage,
    HTTPResponse,
    HTTPSConnection,
    InvalidURL,
    responses,
)
from pathlib import Path
from threading import Timer
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urldefrag, urlsplit
from urllib.request import (
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    Request,
    build_opener,
)

from tqdm import tqdm

from biggan._version import __version__
from biggan.errors import InputError

MAX_BYTES = 4 << 30
"""Larger files are refused; the largest generator known has a third of a gigabyte."""

_LOG = logging.getLogger("biggan.weights")

_WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before the second and each later try
_TIMEOUT = 30.0  # seconds of silence; also for connecting, and for the whole head of an answer
_WINDOW = 30.0  # seconds over which the rate of a body is measured
_LEAST_BYTES = 30_000  # in a window; a slower download is given up
_CHUNK = 1 << 18
_MAX_DOCUMENT_BYTES = 16 << 20
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{0,500}"')
# What servers answer to a range or a tag that they do not take.
_RANGE_REFUSED = frozenset({400, 412, 416})
_WEB_PAGES = (b"<!doctype", b"<html")
_PASSING = frozenset({408, 416, 429, 500, 502, 503, 504})  # statuses that may be gone the next time
_URL_CHARACTERS = (
    "!#$%&'()*+,/:;=?@[]~"  # those with a meaning in an address, and so sent as they are
)


class DownloadError(InputError):
    """A host did not give a file.

    Attributes:
        url: What was asked for.
        reason: Why it did not come, without the address.
        status: The HTTP status, if the host answered with an error.
    """

    def __init__(self, url: str, reason: str, status: int | None = None) -> None:
        super().__init__(f"cannot download {without_secrets(url)}: {reason}")
        self.url = url
        self.reason = reason
        self.status = status


class _DroppedError(DownloadError):
    """What came is good as far as it goes, or the host was busy: try again."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on the network and what it is called here."""

    url: str
    name: str
    """Relative path, with slashes, under which it is saved."""
    sha256: str | None = None
    """What its bytes must have, in hex; None where nobody has published it."""
    token: str | None = field(default=None, repr=False)
    """Sent to the url's own host as proof of who asks."""


def without_secrets(url: str) -> str:
    """An address as messages and logs may show it: without a password, or a signed query."""
    match = re.fullmatch(r"(https?://)(?:[^/?#]*@)?([^?#]*)(.*)", url, re.DOTALL | re.IGNORECASE)
    shown = url if match is None else f"{match[1]}{match[2]}{'?...' if match[3] else ''}"
    return shown if shown.isprintable() else ascii(shown)


def fetch_all(files: Sequence[RemoteFile], folder: Path) -> None:
    """Download files into a folder; those that an earlier call brought there are left.

    Raises:
        InputError: As `fetch`.
    """
    for file in files:
        path = folder / file.name
        try:
            is_there = path.exists() and file.sha256 in (None, _sha256(path))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from None
        if not is_there:
            fetch(file.url, path, sha256=file.sha256, token=file.token)


def fetch(url: str, path: Path, *, sha256: str | None = None, token: str | None = None) -> None:
    """Download a file, going on where an earlier try ended; it appears whole or not at all.

    Args:
        url: Where it is, `https://` or `http://`.
        path: Where it goes. Its folder is created; an older file is replaced.
        sha256: What it must have, in hex. If it has another, nothing of it is kept.
        token: Sent as a bearer token to the url's own host, and to no other that it redirects to.

    Raises:
        DownloadError: The host does not give it, or not as it should be.
        InputError: It cannot be written.
    """
    partial = _PartialFile(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _receive_persistently(url, partial, token)
        _verify(url, partial, sha256)
        partial.finish()
    except OSError as error:  # a disk's: those of the network have become DownloadErrors
        reason = error.strerror or error
        raise InputError(f"cannot write {path} (from {without_secrets(url)}): {reason}") from None


def read_document(url: str, *, token: str | None = None) -> bytes:
    """Read a small document, such as a listing, into memory.

    Raises:
        DownloadError: The host does not give it, or it is not small.
    """
    document = bytearray()
    with _open(url, {}, token) as response:
        for chunk in _chunks(url, response):
            document += chunk
            if len(document) > _MAX_DOCUMENT_BYTES:
                raise DownloadError(url, f"it is larger than {_MAX_DOCUMENT_BYTES >> 20} MiB")
        if response.length:  # bytes that were announced and did not come
            raise DownloadError(url, "the connection was closed too early")
    return bytes(document)


class _PartialFile:
    """The beginning of a file, and beside it which version's.

    Args:
        path: What it will be called when it is whole.
    """

    def __init__(self, path: Path) -> None:
        self.whole = path
        self.path = path.with_name(f"{path.name}.part")
        self._etag = path.with_name(f"{path.name}.part.etag")

    def resumable(self) -> tuple[int, str]:
        """How many bytes of which version are there; 0 where they cannot be built upon."""
        try:
            size, etag = self.path.stat().st_size, self._etag.read_text(encoding="latin-1")
        except FileNotFoundError:
            return 0, ""
        return (size, etag) if _STRONG_ETAG.fullmatch(etag) else (0, "")

    def restart(self, etag: str) -> None:
        """Begin anew with a version; an empty tag for one that cannot be told from others."""
        # In this order, so that a kill never leaves one version's bytes under another's tag.
        self._etag.unlink(missing_ok=True)
        self.path.write_bytes(b"")
        self._etag.write_text(etag, encoding="latin-1")

    def discard(self) -> None:
        """Keep nothing."""
        self._etag.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the file its name."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.replace(self.whole)
        self._etag.unlink(missing_ok=True)


def _receive_persistently(url: str, partial: _PartialFile, token: str | None) -> None:
    """Receive all of a file, though the connection break now and then."""
    for wait in _WAITS:
        try:
            return _receive(url, partial, token)
        except _DroppedError as error:
            _LOG.info("%s; trying again", error)
            time.sleep(wait)
    return _receive(url, partial, token)


def _receive(url: str, partial: _PartialFile, token: str | None) -> None:
    """Receive what is missing of a file.

    Raises:
        _DroppedError: Some of it is still missing.
        DownloadError: Another try would end the same way.
    """
    size, etag = partial.resumable()
    asked = {"Range": f"bytes={size}-", "If-Range": etag} if size else {}
    try:
        response = _open(url, asked, token)
    except DownloadError as error:
        if size and error.status in _RANGE_REFUSED:
            partial.discard()  # it is no beginning of what the server has
            raise _DroppedError(url, error.reason, error.status) from None
        raise
    with response:
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            size = 0
            partial.restart(_strong_etag(response))
        elif not _continues(response, size, etag):
            partial.discard()
            raise _DroppedError(url, "the server sent another part than the one asked for")
        total = _total_bytes(response, size)
        if total is None or total <= MAX_BYTES:
            size = _append(url, response, partial, size, total)
    if max(size, total or 0) > MAX_BYTES:
        partial.discard()
        raise DownloadError(url, f"it is larger than {MAX_BYTES >> 30} GiB")
    if total is not None and size < total:
        raise _DroppedError(url, f"the connection was closed after {size:,} of {total:,} bytes")


def _append(
    url: str, response: HTTPResponse, partial: _PartialFile, size: int, total: int | None
) -> int:
    """Write a response's body behind the `size` bytes that are there; returns the new size."""
    bar = tqdm(
        desc=partial.whole.name,
        initial=size,
        total=total,
        unit="B",
        unit_scale=True,
        delay=2,
        disable=None,
    )
    with bar, partial.path.open("ab") as file:
        for chunk in _chunks(url, response):
            file.write(chunk)
            bar.update(len(chunk))
            size += len(chunk)
            if size > MAX_BYTES:  # a server that never stops
                break
    return size


def _chunks(url: str, response: HTTPResponse) -> Iterator[bytes]:
    """A response's body as it arrives; it may end before the announced length."""
    begun, received = time.monotonic(), 0
    try:
        while chunk := response.read1(_CHUNK):
            yield chunk
            received += len(chunk)
            if time.monotonic() - begun > _WINDOW:
                if received < _LEAST_BYTES:
                    raise _DroppedError(url, f"only {received:,} bytes came in {_WINDOW:g} s")
                begun, received = time.monotonic(), 0
    except (OSError, HTTPException) as error:
        raise _DroppedError(url, f"the connection broke ({error})") from None


def _strong_etag(response: HTTPResponse) -> str:
    """The tag of a version byte for byte; empty where there is none to build upon."""
    etag = response.headers.get("ETag", "")
    return etag if _STRONG_ETAG.fullmatch(etag) else ""


def _continues(response: HTTPResponse, size: int, etag: str) -> bool:
    """Whether a part begins where ours ends, and is of the same version.

    The server has been asked to make sure of that. Some do not.
    """
    begins = response.headers.get("Content-Range", "").startswith(f"bytes {size}-")
    return begins and _strong_etag(response) == etag


def _total_bytes(response: HTTPResponse, size: int) -> int | None:
    """The length of the whole file, if the server says it.

    Args:
        response: Its beginning lies behind it: nothing has been read of it.
        size: Bytes of the file that come before the response's.
    """
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    if response.status == HTTPStatus.PARTIAL_CONTENT and total.isdecimal():
        return int(total)
    return None if response.length is None else size + response.length


def _verify(url: str, partial: _PartialFile, sha256: str | None) -> None:
    if sha256 is None:
        with partial.path.open("rb") as file:
            head = file.read(100).lstrip().lower()
        if not head or head.startswith(_WEB_PAGES):
            partial.discard()
            what = "a web page: an error, or a login" if head else "empty"
            raise DownloadError(url, f"the answer is {what}")
        return
    found = _sha256(partial.path)
    if found != sha256:
        partial.discard()
        raise DownloadError(
            url, f"its sha256 is {found}, not {sha256}: not the expected file, and not kept"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(url: str, headers: Mapping[str, str], token: str | None) -> HTTPResponse:
    """Ask for a file, following redirects.

    Raises:
        _DroppedError: There is no answer this time.
        DownloadError: The answer is no, or there is nobody to ask.
    """
    request = _request(url, headers)
    if token is not None:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    opener = build_opener(_Redirects, _HTTPHandler, _HTTPSHandler(context=_trusted()))
    try:
        response: HTTPResponse = opener.open(request, timeout=_TIMEOUT)
    except HTTPError as error:
        with error:
            raise _refusal(url, error) from None
    except URLError as error:
        why = error.reason
        reason = f"no connection ({why.strerror or why})" if isinstance(why, OSError) else str(why)
        raise DownloadError(url, reason) from None
    except (InvalidURL, ValueError):
        raise DownloadError(url, "the address, or the token, is not well formed") from None
    except (OSError, HTTPException) as error:
        raise _DroppedError(url, f"the connection broke ({error})") from None
    return response


def _request(url: str, headers: Mapping[str, str]) -> Request:
    """A request for an address of the web; never for a file or a stranger's scheme."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise DownloadError(url, str(error)) from None
    if parts.scheme not in ("https", "http"):
        raise DownloadError(url, "only https:// and http:// addresses are downloaded")
    if not parts.hostname:
        raise DownloadError(url, "the address names no host")
    sent = quote(urldefrag(url).url, safe=_URL_CHARACTERS)
    agent = {"User-Agent": f"biggan/{__version__}"}
    return Request(sent, headers={**agent, **headers})  # noqa: S310  (the scheme is checked above)


def _refusal(url: str, error: HTTPError) -> DownloadError:
    if error.code in responses and error.code // 100 != 3:
        reason = f"HTTP {error.code} {responses[error.code]}"
    else:  # of a redirect, urllib's own words say what is wrong with it
        reason = f"HTTP {error.code} {' '.join(str(error.reason).split())}"
    kind = _DroppedError if error.code in _PASSING else DownloadError
    return kind(url, reason, error.code)


def _trusted() -> ssl.SSLContext:
    """The certificates to trust: where the libraries of others look, or else the system's."""
    chosen = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    try:
        if chosen and Path(chosen).is_dir():
            return ssl.create_default_context(capath=chosen)
        return ssl.create_default_context(cafile=chosen or None)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"cannot read the certificates {chosen}, which REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE "
            f"names: {reason}"
        ) from None


class _TimedConnection(HTTPConnection):
    """A connection with a time limit for connecting and for the whole head of the answer."""

    def connect(self) -> None:
        """Connect, through a proxy and TLS where they are wanted."""
        with self._deadline():
            super().connect()

    def getresponse(self) -> HTTPResponse:
        """Read the head of the answer."""
        with self._deadline():
            return super().getresponse()

    @contextmanager
    def _deadline(self) -> Iterator[None]:
        timer = Timer(_TIMEOUT, self._hang_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _hang_up(self) -> None:
        with suppress(OSError, AttributeError):  # it is not connected yet, or not any more
            self.sock.shutdown(socket.SHUT_RDWR)


class _TimedHTTPSConnection(_TimedConnection, HTTPSConnection):
    pass


class _HTTPHandler(HTTPHandler):
    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_TimedConnection, req)


class _HTTPSHandler(HTTPSHandler):
    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_TimedHTTPSConnection, req, context=self._context)  # type: ignore[attr-defined]


class _Redirects(HTTPRedirectHandler):
    """Follows redirects, but not from https to less, and a token only within its host."""

    def redirect_request(
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> Request | None:
        """The request to go on with."""
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme != "https" and new.scheme != old.scheme:
            reason = f"it redirects to {new.scheme}://{new.netloc}, which is not followed"
            raise HTTPError(req.full_url, code, reason, headers, fp)
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if request and token and (old.scheme, old.netloc) == (new.scheme, new.netloc):
            request.add_unredirected_header("Authorization", token)
        return request
