"""How many connections a server keeps, and how long it waits for what a client is to send."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from biggan.demo.limits import client_of

_MAX_HEAD = 2**16  # bytes of a request's address and headers
_MAX_CONNECTIONS = 1024  # half of them of one client
_PATIENCE = 10  # seconds
_LEAST_RATE = 2**10  # bytes a second


def server_config(app: ASGIApp, proxies: Sequence[str] = ()) -> uvicorn.Config:
    """How uvicorn serves an application.

    Args:
        app: The application.
        proxies: Addresses and networks of proxies, whose `X-Forwarded-For` names the client.
    """
    networks = [ipaddress.ip_network(proxy, strict=False) for proxy in proxies]
    # asyncio logs each connection for which there is no file descriptor, hundreds a second.
    logging.getLogger("asyncio").addFilter(lambda r: "out of system resource" not in str(r.msg))
    return uvicorn.Config(
        app,
        http=partial(BoundedProtocol, proxies=networks),  # type: ignore[arg-type]
        ws="none",
        h11_max_incomplete_event_size=_MAX_HEAD,
        backlog=128,  # connections that are accepted at once, before any of them is closed
        proxy_headers=bool(networks),
        forwarded_allow_ips=[str(network) for network in networks],
        log_level="critical",
        timeout_graceful_shutdown=1,  # a page that is open keeps a connection
    )


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 that closes slow connections, and idle ones when there are too many.

    A client that is to send a request, or to read what is ready for it, must move 10 KiB in 10 s or
    finish. Making an answer may take any time.

    When there are too many connections, of one client or in all, the one that has waited longest
    for its client is closed. One that is being answered is not.

    Args:
        proxies: Networks whose addresses may have any share of all connections.
    """

    def __init__(
        self,
        *args: Any,
        proxies: Collection[ipaddress.IPv4Network | ipaddress.IPv6Network],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._proxies = proxies
        self._owner: str | None = None
        self._timer: asyncio.TimerHandle | None = None  # runs while the client has to act
        self._received = 0  # bytes since the timer was started
        self._unsent = 0  # bytes when the timer was started

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room if there are too many."""
        super().connection_made(transport)
        self._update_timer()
        most = _max_connections()
        open_: set[Any] = self.connections
        if self.client and not _is_within(self.client[0], self._proxies):
            self._owner = client_of({"client": self.client})
            _make_room([c for c in open_ if c._owner == self._owner], most // 2)
        _make_room(open_, most)

    def data_received(self, data: bytes) -> None:
        """Count what came."""
        self._received += len(data)
        super().data_received(data)
        self._update_timer()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._update_timer()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._update_timer()

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self._update_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(exc)
        self._stop_timer()

    def close(self) -> None:
        """Close the connection at once."""
        self._stop_timer()
        self.connections.discard(self)
        self.transport.abort()

    @property
    def deadline(self) -> float | None:
        """By when the client has to act, on the event loop's clock; none if it has not."""
        return self._timer.when() if self._timer else None

    def _update_timer(self) -> None:
        is_sending = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        if not is_sending and not self.flow.write_paused:
            self._stop_timer()
        elif self._timer is None:
            self._received, self._unsent = 0, self.transport.get_write_buffer_size()
            self._timer = self.loop.call_later(_PATIENCE, self._check)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        moved = self._received + self._unsent - self.transport.get_write_buffer_size()
        # While only reading is paused, the application has not taken what came before.
        is_due = self.flow.write_paused or not self.flow.read_paused
        if is_due and moved < _LEAST_RATE * _PATIENCE:
            self.close()
        else:
            self._timer = None
            self._update_timer()


def _make_room(connections: Collection[Any], most: int) -> None:
    if len(connections) > most:
        waiting = [c for c in connections if c.deadline is not None]  # the newest at least
        min(waiting, key=lambda c: c.deadline).close()


def _is_within(
    host: str, networks: Collection[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> bool:
    return any(ipaddress.ip_address(host) in network for network in networks)


def _max_connections() -> int:
    """Three quarters of the file descriptors of this process, and no more than needed."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return _MAX_CONNECTIONS
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (
        _MAX_CONNECTIONS
        if limit == resource.RLIM_INFINITY
        else min(_MAX_CONNECTIONS, limit * 3 // 4)
    )
