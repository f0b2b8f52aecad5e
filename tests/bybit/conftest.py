"""Raw servers and clients, each ended with its test, and every thread seen to come back."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from server.bybit.client import BybitClient
from server.bybit.clock import ExchangeClock, Offset
from server.settings import BybitSettings, Secret

from .servers import NOW_MS, Serve, serving

KEY = "canary-key-5Hq2"
SECRET = "canary-secret-9Zt7"
WAIT_S = 5.0

Connect = Callable[..., BybitClient]


async def until(true: Callable[[], bool]) -> None:
    """Wait for a condition that no event tells of."""
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.001)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts servers for one test."""
    async with serving() as start:
        yield start


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Makes clients with canaries for keys, which know the servers' time.

    Keyword arguments replace settings, and refuse_trading_keys.
    """
    clients: list[BybitClient] = []

    def connected(url: str, exchange_clock: ExchangeClock | None = None, **keys: Any) -> BybitClient:
        canaries = {"api_key": Secret(KEY), "api_secret": Secret(SECRET)}
        refuse = keys.pop("refuse_trading_keys", False)
        settings = BybitSettings(**{**canaries, "call_timeout_s": WAIT_S, **keys})
        if exchange_clock is None:
            exchange_clock = ExchangeClock()
            exchange_clock.set(Offset(NOW_MS - time.time() * 1000, 0))
        clients.append(BybitClient(settings, url, refuse_trading_keys=refuse, exchange_clock=exchange_clock))
        return clients[-1]

    yield connected
    for client in clients:
        await until(lambda client=client: not any(pool.in_flight for pool in client.guards.pools.values()))  # type: ignore[misc]
        await client.close()
