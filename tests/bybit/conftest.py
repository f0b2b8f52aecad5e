"""Raw servers and clients, each ended with its test, and every thread seen to come back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from server.bybit.client import BybitClient
from server.settings import BybitSettings, Secret

from .servers import Serve, serving

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
    """Makes clients with canaries for keys; keyword arguments replace settings."""
    clients: list[BybitClient] = []

    def connected(url: str, **keys: Any) -> BybitClient:
        canaries = {"api_key": Secret(KEY), "api_secret": Secret(SECRET)}
        clients.append(BybitClient(BybitSettings(**{**canaries, "call_timeout_s": WAIT_S, **keys}), url))
        return clients[-1]

    yield connected
    for client in clients:
        await until(lambda client=client: not any(pool.in_flight for pool in client.guards.pools.values()))  # type: ignore[misc]
        await client.close()
