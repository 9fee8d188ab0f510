"""How many connections a server keeps, without a network."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("gradio")

from uvicorn.server import ServerState

from biggan.demo import connections
from biggan.demo.connections import server_config


class Transport(asyncio.Transport):
    """A connection from an address."""

    def __init__(self, host: str) -> None:
        super().__init__({"peername": (host, 5000)})
        self.is_open = True

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.is_open = False


async def _app(scope: Any, receive: Any, send: Any) -> None: ...


def test_an_ipv6_network_has_the_share_of_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_MAX_CONNECTIONS", 8)

    async def connect() -> list[bool]:
        config, state = server_config(_app), ServerState()
        config.load()
        hosts = [*(f"2001:db8:1:2::{i}" for i in range(6)), "2001:db8:1:3::1", "192.0.2.7"]
        made = [Transport(host) for host in hosts]
        for transport in made:
            protocol: Any = config.http_protocol_class(config, state, {})
            protocol.connection_made(transport)
        return [transport.is_open for transport in made]

    assert asyncio.run(connect()) == [False, False, True, True, True, True, True, True]
