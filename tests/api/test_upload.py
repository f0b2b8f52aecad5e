"""Bodies on their way: whom they keep out, and what it is when one never is whole."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.api.keys import LOAD
from server.app import create_app
from tests.conftest import Exchange, Gateway, settings_for
from tests.realtime.sockets import WorkerServer, eventually

QUESTION = {"questions": [{"symbol": "BTCUSDT", "names": "rsi:14"}]}


@pytest.fixture
async def gateway(exchange: Exchange, aiohttp_client: Any) -> Gateway:
    """A gateway as the worker runs it, with room for two requests."""
    settings = settings_for(exchange.url, server={"max_requests": 2, "body_timeout_s": 30.0})
    client: Gateway = await aiohttp_client(WorkerServer(create_app(settings)))
    return client


@contextlib.asynccontextmanager
async def begun(
    gateway: Gateway, body: bytes = b"{"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A POST whose body has begun, and promises 40 bytes."""
    reader, writer = await asyncio.open_connection(gateway.host, gateway.port)
    head = f"POST /indicators HTTP/1.1\r\nHost: {gateway.host}:{gateway.port}\r\nContent-Length: 40\r\n\r\n"
    writer.write(head.encode() + b"{")
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_whose_body_is_on_its_way_keeps_nobody_out(gateway: Gateway) -> None:
    """As many may be awaited as may be in progress, one more is 503; who brings all at once is answered meanwhile."""
    load = gateway.app[LOAD]
    async with begun(gateway), begun(gateway) as (reader, writer):
        await eventually(lambda: load.awaited == 2)
        async with gateway.get("/price/BTCUSDT") as response:
            assert response.status == 200
        async with begun(gateway) as (refused, _):
            async with asyncio.timeout(10):
                assert (await refused.readline()).startswith(b"HTTP/1.1 503 ")
                assert b'"code":"overloaded"' in await refused.readuntil(b'"request_id"')
        async with gateway.post("/indicators", json=QUESTION) as response:
            assert response.status == 200
        writer.write(b" " * 39)
        async with asyncio.timeout(10):
            assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        assert load.awaited == 1
    await eventually(lambda: (load.awaited, load.requests) == (0, 0))


async def test_who_comes_with_the_last_byte_may_find_all_places_taken(gateway: Gateway, exchange: Exchange) -> None:
    """A body that is whole at last needs a place as any other request, and is 503 where there is none."""
    load = gateway.app[LOAD]
    await exchange.fault("kline", hang=True)
    async with begun(gateway) as (reader, writer):
        await eventually(lambda: load.awaited == 1)
        hanging = [asyncio.create_task(gateway.get(f"/klines/{symbol}")) for symbol in ("BTCUSDT", "ETHUSDT")]
        await eventually(lambda: load.requests == 3)
        writer.write(b" " * 39)
        async with asyncio.timeout(10):
            assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")
        await exchange.heal()
        for task in hanging:
            (await task).release()
    await eventually(lambda: (load.awaited, load.requests) == (0, 0))


async def test_who_leaves_within_his_body(gateway: Gateway) -> None:
    """That is the client's doing: no crash, and no place is lost."""
    load = gateway.app[LOAD]
    with capture_logs() as logs:
        async with begun(gateway):
            await eventually(lambda: load.awaited == 1)
        await eventually(lambda: [line for line in logs if line["event"].startswith("request_")])
    ends = [(line["event"], line.get("status")) for line in logs if line["event"].startswith("request_")]
    assert ends == [("request_ended", 400)]
    assert (load.awaited, load.requests) == (0, 0)
