"""Answers that leave in one piece, seen from the wire: whatever kind of client asks, HTTP is as HTTP is."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from server.api.keys import LOAD
from server.api.whole import answered
from tests.conftest import Gateway, StartGateway

PRICE = "/price/BTCUSDT?max_age_ms=60000"


class Line:
    """A connection to the gateway, below any client."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __aenter__(self) -> "Line":
        self.reader, self.writer = await asyncio.open_connection(self._gateway.host, self._gateway.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    def ask(self, path: str, *headers: str, method: str = "GET", version: str = "1.1") -> None:
        """Send one request."""
        lines = (f"{method} {path} HTTP/{version}", "Host: localhost", *headers)
        self.writer.write("\r\n".join((*lines, "", "")).encode())

    async def answer(self, *, has_body: bool = True) -> tuple[str, dict[str, str], bytes]:
        """The status line, headers and body of the next answer."""
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.splitlines()[:-1]
            headers = dict(line.split(": ", 1) for line in lines)
            assert len(headers) == len(lines), "no header comes twice"
            return status, headers, await self.reader.readexactly(int(headers["Content-Length"]) * has_body)

    async def is_closed(self) -> bool:
        """Whether the gateway has closed it."""
        async with asyncio.timeout(10):
            return await self.reader.read(1) == b""


@pytest.fixture
async def line(start_gateway: StartGateway) -> AsyncIterator[Line]:
    """A connection to a gateway."""
    async with Line(await start_gateway()) as connected:
        yield connected


async def test_many_on_one_connection(line: Line) -> None:
    """Requests one after the other, and sent at once, are answered in their order on the same connection."""
    for _ in range(2):
        line.ask(PRICE, "X-Request-ID: mine")
        status, headers, body = await line.answer()
        assert (status, headers["X-Request-ID"]) == ("HTTP/1.1 200 OK", "mine")
        assert json.loads(body)["symbol"] == "BTCUSDT"
    paths = ["/livez", PRICE, "/price/NOSUCHUSDT", "/indicators/BTCUSDT?max_age_ms=60000"] * 5
    for number, path in enumerate(paths):
        line.ask(path, f"X-Request-ID: {number}")
    answers = [await line.answer() for _ in paths]
    assert [headers["X-Request-ID"] for _, headers, _ in answers] == [str(number) for number in range(len(paths))]
    assert [status.split()[1] for status, _, _ in answers] == ["200", "200", "404", "200"] * 5


async def test_the_same_as_otherwise(line: Line) -> None:
    """A client of another kind gets the same head and body, but for aiohttp's name."""
    line.ask(PRICE, "X-Request-ID: 1")
    _, whole, body = await line.answer()
    line.ask(PRICE, "X-Request-ID: 1", "Connection: close")
    _, ordinary, other_body = await line.answer()
    assert ordinary.pop("Connection") == "close"
    del ordinary["Server"]
    assert whole.keys() == ordinary.keys()
    for name in ("Content-Type", "Cache-Control", "X-Request-ID"):
        assert whole[name] == ordinary[name]
    assert json.loads(body).keys() == json.loads(other_body).keys()
    assert await line.is_closed()


async def test_old_clients(line: Line) -> None:
    """HTTP/1.0 is answered, and the connection closed."""
    line.ask(PRICE, version="1.0")
    status, _, body = await line.answer()
    assert status == "HTTP/1.0 200 OK"
    assert json.loads(body)["symbol"] == "BTCUSDT"
    assert await line.is_closed()


async def test_head_has_no_body(line: Line) -> None:
    """HEAD says how long the body would be, and the next answer follows at once."""
    line.ask(PRICE, method="HEAD")
    _, headers, body = await line.answer(has_body=False)
    assert int(headers["Content-Length"]) > 100
    assert body == b""
    line.ask("/livez")
    assert (await line.answer())[2] == b'{"status":"alive"}'


async def test_unchanged_has_no_body(line: Line) -> None:
    """What the client has already is 304 without a body."""
    line.ask(PRICE)
    _, headers, _ = await line.answer()
    line.ask(PRICE, f"If-None-Match: {headers['ETag']}")
    status = (await line.reader.readuntil(b"\r\n\r\n")).decode()
    assert status.startswith("HTTP/1.1 304 ")
    assert f"ETag: {headers['ETag']}\r\n" in status
    line.ask("/livez")
    assert (await line.answer())[2] == b'{"status":"alive"}'


async def test_a_drain_closes_behind_the_answer(start_gateway: StartGateway) -> None:
    """While the gateway leaves, the answer says so and the connection ends."""
    gateway = await start_gateway()
    async with Line(gateway) as line:
        line.ask("/livez")
        await line.answer()
        gateway.app[LOAD].is_draining = True
        line.ask("/livez")
        _, headers, _ = await line.answer()
        assert headers["Connection"] == "close"
        assert await line.is_closed()


async def test_who_does_not_read_is_waited_for(start_gateway: StartGateway) -> None:
    """However many requests are sent at once by who reads no answers, few are answered, and the others all the same."""
    gateway = await start_gateway()
    async with Line(gateway) as line, Line(gateway) as other:
        line.ask("/klines/BTCUSDT?limit=1000&max_age_ms=3600000")
        size = len((await line.answer())[2])
        for _ in range(2000):
            line.ask("/klines/BTCUSDT?limit=1000&max_age_ms=3600000")
        for _ in range(50):
            other.ask("/livez")
            await other.answer()
        transports: Any = [connection.transport for connection in gateway.server.runner.server.connections]  # type: ignore[union-attr]
        assert max(transport.get_write_buffer_size() for transport in transports) < 4 * size


async def test_what_waits_for_its_reader_is_held_once(aiohttp_client: Any) -> None:
    """While an answer waits for somebody who does not read it, only the connection has it."""
    gone = asyncio.Event()

    class Body(bytes):
        def __del__(self) -> None:
            gone.set()

    async def handler(request: web.Request) -> web.StreamResponse:
        return answered(request, Body(b"x" * 20_000_000), {})

    app = web.Application()
    app.router.add_get("/", handler)
    gateway = await aiohttp_client(app)
    async with Line(gateway) as line:
        line.ask("/")
        async with asyncio.timeout(10):
            await gone.wait()
        (connection,) = gateway.server.runner.server.connections
        assert connection.transport.get_write_buffer_size() > 0
