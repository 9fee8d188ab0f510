"""Files by address: fetched whole, verified, resumed where a connection broke, and kept.

    https://host/file      downloaded once into the cache; http:// as well
    file:///folder/file    read where it is
    hf://owner/repo[@revision][/file]    see `biggan.hub`

A file grows as `<path>.part` and gets its name when all of it is there. Beside it,
`<path>.part.etag` says which version it is the beginning of: a later try asks for the rest of that
version (Range with If-Range), and takes the file from its start if the server has another by then.

urllib follows redirects and finds proxies in the environment. The certificates are the system's, or
those that SSL_CERT_FILE, REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE name.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus, client
from pathlib import Path, PurePosixPath
from threading import Timer
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urldefrag, urlsplit
from urllib.request import (
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    Request,
    build_opener,
    url2pathname,
)

from tqdm import tqdm

from biggan._version import __version__
from biggan.errors import InputError
from biggan.hub import is_offline
from biggan.weights.files import cache_dir, exclusive

MAX_BYTES = 4 << 30
"""Larger files are refused; the largest generator known has a third of a gigabyte."""

_LOG = logging.getLogger("biggan.weights")

_WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before the second and each later try
_TIMEOUT = 30.0  # seconds of silence; also for connecting, and for the whole head of an answer
_WINDOW = 30.0  # seconds over which the rate of a body is measured
_LEAST_BYTES = 30_000  # in a window; a slower download is given up
_CHUNK = 1 << 18
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{0,500}"')
_RANGE_REFUSED = frozenset({400, 412, 416})  # what servers answer to a range they do not take
_WEB_PAGES = (b"<!doctype", b"<html")
_RETRIED = frozenset({408, 416, 429, 500, 502, 503, 504})
_URL_CHARACTERS = "!#$%&'()*+,/:;=?@[]~"  # have a meaning in an address: sent as they are


class DownloadError(InputError):
    """A host did not give a file: the reason without the address, and the HTTP status, if any."""

    def __init__(self, url: str, reason: str, status: int | None = None) -> None:
        super().__init__(f"cannot download {without_secrets(url)}: {reason}")
        self.reason = reason
        self.status = status


class _DroppedError(DownloadError):
    """What came is good as far as it goes, or the host was busy: try again."""


def without_secrets(url: str) -> str:
    """An address as messages and logs may show it: without a password, or a signed query."""
    match = re.fullmatch(r"(https?://)(?:[^/?#]*@)?([^?#]*)(.*)", url, re.DOTALL | re.IGNORECASE)
    shown = url if match is None else f"{match[1]}{match[2]}{'?...' if match[3] else ''}"
    return shown if shown.isprintable() else ascii(shown)


def without_folder(source: str) -> str:
    """A source of weights or data without local folders and secrets, for a file that is shared."""
    if re.match(r"(?!file:)[a-z][a-z0-9+.-]*://", source, re.IGNORECASE):
        return without_secrets(source)
    return Path(source).expanduser().resolve().name


def obtain_address(address: str, kind: str = "generator", *, offline: bool = False) -> Path:
    """The file or folder that an address leads to, downloaded if it is not in the cache.

    The kind is the network that is wanted of a repository.
    """
    scheme = address.partition("://")[0].lower()
    shown = without_secrets(address)
    if scheme not in ("https", "http", "hf", "file"):
        raise InputError(f"{shown}: only https://, http://, hf:// and file:// can be read")
    if scheme == "hf":
        from biggan.hub import obtain_from_hub

        return obtain_from_hub(address, kind=kind, offline=offline)
    try:
        parts = urlsplit(address)
    except ValueError:
        raise InputError(f"{shown} is not a well-formed address") from None
    if scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise InputError(f"{shown}: a local file has three slashes, file:///folder/file")
        local = url2pathname(parts.path)
        if not local.isprintable():
            raise InputError(f"{address!a} is not the address of a file")
        return Path(local)
    # Called as in the address, so that people recognise it in the cache.
    name = re.sub(r"[^\w.-]", "-", PurePosixPath(unquote(parts.path)).name, flags=re.ASCII)
    name = name[-80:].lstrip(".") or "weights"
    digest = hashlib.sha256(address.encode(errors="surrogateescape")).hexdigest()
    path = cache_dir() / "addresses" / f"{digest[:24]}-{name}" / name
    if not path.is_file():
        if is_offline(offline):
            raise InputError(
                f"{shown} is not in the cache {cache_dir()}, and nothing is downloaded offline"
            )
        with exclusive(path, shown):
            if not path.is_file():
                fetch(address, path)
    return path


Report = Callable[[int, int | None], object]
"""Called with the bytes that have come and those of the whole file, None if the host does not say.

What it raises ends the download; the part that has come is kept.
"""


def fetch(url: str, path: Path, *, sha256: str | None = None, report: Report | None = None) -> None:
    """Download a file, resuming an earlier try; it appears whole or not at all.

    The folder is created, and an older file replaced. `sha256` is in hex, or the beginning of it;
    of a file with another one nothing is kept.

    Raises:
        DownloadError: The host does not give it, or not as it should be.
        InputError: It cannot be written.
    """
    partial = _PartialFile(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for wait in (*_WAITS, None):
            try:
                _receive(url, partial, report)
                break
            except _DroppedError as error:
                if wait is None:
                    raise
                _LOG.info("%s; trying again", error)
                time.sleep(wait)
        _verify(url, partial, sha256)
        partial.finish()
    except OSError as error:  # a disk's: those of the network have become DownloadErrors
        reason = error.strerror or error
        raise InputError(f"cannot write {path} (from {without_secrets(url)}): {reason}") from None


class _PartialFile:
    """The beginning of a file that will be called `whole`, and which version's it is."""

    def __init__(self, whole: Path) -> None:
        self.whole = whole
        self.path = whole.with_name(f"{whole.name}.part")
        self._etag = whole.with_name(f"{whole.name}.part.etag")

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
        self._etag.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def finish(self) -> None:
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.replace(self.whole)
        self._etag.unlink(missing_ok=True)


def newest_kaggle_version(model_url: str) -> str:
    """The address of the archive of a model's newest version, in Kaggle's API.

    Args:
        model_url: `.../api/v1/models/OWNER/MODEL/FRAMEWORK/VARIATION`.
    """
    url = f"{model_url}/get"
    try:
        with _open(url, {}) as response:
            number = int(json.loads(response.read(_CHUNK))["versionNumber"])
    except DownloadError:
        raise
    except (OSError, client.HTTPException, ValueError, LookupError, TypeError, RecursionError):
        raise DownloadError(url, "the answer states no version") from None
    return f"{model_url}/{number}/download"


def _receive(url: str, partial: _PartialFile, report: Report | None) -> None:
    """Receive what is missing of a file; `_DroppedError` where another try may bring the rest."""
    size, etag = partial.resumable()
    asked = {"Range": f"bytes={size}-", "If-Range": etag} if size else {}
    try:
        response = _open(url, asked)
    except DownloadError as error:
        if size and error.status in _RANGE_REFUSED:
            partial.discard()  # it is no beginning of what the server has
            raise _DroppedError(url, error.reason, error.status) from None
        raise
    with response:
        found_range = response.headers.get("Content-Range", "")
        found_etag = response.headers.get("ETag", "")
        if not _STRONG_ETAG.fullmatch(found_etag):
            found_etag = ""
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            size = 0
            partial.restart(found_etag)
        elif not found_range.startswith(f"bytes {size}-") or found_etag != etag:
            partial.discard()
            raise _DroppedError(url, "the server sent another part than requested")
        total = None if response.length is None else size + response.length
        announced = found_range.rpartition("/")[2]
        if response.status == HTTPStatus.PARTIAL_CONTENT and announced.isdecimal():
            total = int(announced)
        if total is None or total <= MAX_BYTES:
            size = _append(url, response, partial, size, total, report)
    if max(size, total or 0) > MAX_BYTES:
        partial.discard()
        raise DownloadError(url, f"it is larger than {MAX_BYTES >> 30} GiB")
    if total is not None and size < total:
        raise _DroppedError(url, f"the connection was closed after {size:,} of {total:,} bytes")


def _append(
    url: str,
    response: client.HTTPResponse,
    partial: _PartialFile,
    size: int,
    total: int | None,
    report: Report | None,
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
    begun, before = time.monotonic(), size  # of the window
    with bar, partial.path.open("ab") as file:
        while size <= MAX_BYTES:  # else a server that never stops
            try:
                chunk = response.read1(_CHUNK)
            except (OSError, client.HTTPException) as error:
                raise _DroppedError(url, f"the connection failed ({error})") from None
            if not chunk:  # perhaps before the announced length
                break
            file.write(chunk)
            bar.update(len(chunk))
            size += len(chunk)
            if report:
                report(size, total)
            if time.monotonic() - begun > _WINDOW:
                if size - before < _LEAST_BYTES:
                    raise _DroppedError(url, f"only {size - before:,} bytes came in {_WINDOW:g} s")
                begun, before = time.monotonic(), size
    return size


def _verify(url: str, partial: _PartialFile, sha256: str | None) -> None:
    with partial.path.open("rb") as file:
        head = file.read(100).lstrip().lower()
        fault = "the answer is empty" if not head else None
        if head.startswith(_WEB_PAGES):
            fault = "the answer is a web page: an error, or a login"
        if not fault and sha256 is not None:
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if not found.startswith(sha256):
                fault = (
                    f"its sha256 is {found}, not {sha256}: not the expected file; it was deleted"
                )
    if fault:
        partial.discard()
        raise DownloadError(url, fault)


def _open(url: str, headers: Mapping[str, str]) -> client.HTTPResponse:
    """Ask for a file, following redirects."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise DownloadError(url, str(error)) from None
    if parts.scheme not in ("https", "http"):
        raise DownloadError(url, "only https:// and http:// addresses are downloaded")
    if not parts.hostname:
        raise DownloadError(url, "the address has no host")
    opener = build_opener(_Redirects, _TimedHandler(context=_trusted()))
    try:
        sent = quote(urldefrag(url).url, safe=_URL_CHARACTERS)
        sent_headers = {"User-Agent": f"biggan/{__version__}", **headers}
        request = Request(sent, headers=sent_headers)  # noqa: S310  (the scheme is checked above)
        response: client.HTTPResponse = opener.open(request, timeout=_TIMEOUT)
    except HTTPError as error:
        with error:
            if error.code in client.responses and error.code // 100 != 3:
                reason = f"HTTP {error.code} {client.responses[error.code]}"
            else:  # urllib says what is wrong with a redirect
                reason = f"HTTP {error.code} {' '.join(str(error.reason).split())}"
            kind = _DroppedError if error.code in _RETRIED else DownloadError
            raise kind(url, reason, error.code) from None
    except URLError as error:
        why = error.reason
        reason = f"no connection ({why.strerror or why})" if isinstance(why, OSError) else str(why)
        raise DownloadError(url, reason) from None
    except (client.InvalidURL, ValueError):
        raise DownloadError(url, "the address is not well formed") from None
    except (OSError, client.HTTPException) as error:
        raise _DroppedError(url, f"the connection failed ({error})") from None
    return response


def _trusted() -> ssl.SSLContext:
    """The certificates to trust: those of requests' and curl's variables, or else the system's."""
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


class _TimedConnection(client.HTTPConnection):
    """A connection with a time limit for connecting and for the whole head of the answer."""

    def connect(self) -> None:
        with self._deadline():
            super().connect()

    def getresponse(self) -> client.HTTPResponse:
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


class _TimedHTTPSConnection(_TimedConnection, client.HTTPSConnection):
    pass


class _TimedHandler(HTTPHandler, HTTPSHandler):
    def http_open(self, req: Request) -> client.HTTPResponse:
        return self.do_open(_TimedConnection, req)

    def https_open(self, req: Request) -> client.HTTPResponse:
        return self.do_open(_TimedHTTPSConnection, req, context=self._context)  # type: ignore[attr-defined]


class _Redirects(HTTPRedirectHandler):
    """Follows redirects, but not from https to anything less."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme != "https" and new.scheme != old.scheme:
            reason = f"it redirects to {new.scheme}://{new.netloc}, which is not followed"
            raise HTTPError(req.full_url, code, reason, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
