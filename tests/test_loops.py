"""The loop: which transports carry the connections that are accepted on it."""

import asyncio
import socket
import sys

import aiofastnet
import pytest

from server.loops import connect_accepted, loop_factory


class Kept(asyncio.Protocol):
    """A protocol that keeps its transport."""

    def __init__(self) -> None:
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


async def _carried(connection: socket.socket) -> asyncio.BaseTransport:
    protocol = Kept()
    await connect_accepted(lambda: protocol, connection)
    assert protocol.transport is not None
    protocol.transport.close()
    await asyncio.sleep(0)
    return protocol.transport


def transport_of(runner: asyncio.Runner) -> asyncio.BaseTransport:
    """What an accepted connection is carried by on the runner's loop."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        connection.setblocking(False)
        return runner.run(_carried(connection))


def test_an_accepted_connection_is_carried_by_the_fast_transport() -> None:
    """On the gateway's loop it is aiofastnet that writes: with the loop's own, a frame costs a seventh more."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        assert isinstance(transport_of(runner), aiofastnet.Transport)


def test_it_is_the_systems_own_where_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without aiofastnet the loop's own transport does."""
    monkeypatch.setitem(sys.modules, "aiofastnet", None)
    assert loop_factory() is None
    with asyncio.Runner() as runner:
        transport = transport_of(runner)
    assert isinstance(transport, asyncio.Transport)
    assert not isinstance(transport, aiofastnet.Transport)
