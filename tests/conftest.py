"""What the tests stand on: a simulator in a process of its own, gateways on port 0, and a loop that must not block."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import hypothesis
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from blockbuster import BlockBuster, blockbuster_ctx

from server.app import create_app
from server.settings import Environment, Profile, Secret, Settings
from server.simulator.child import API_KEY, API_SECRET, SimulatorProcess

Gateway = TestClient[web.Request, web.Application]
StartGateway = Callable[..., Awaitable[Gateway]]

# What is slow says nothing here: the machine may be busy with other things.
hypothesis.settings.register_profile("calm", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("calm")


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """A blocking call on the event loop fails the test that made it."""
    with blockbuster_ctx() as watch:
        # coverage may lock its own data on the loop while threads are measured
        watch.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", "lock_data")
        yield watch


@pytest.fixture(scope="session")
def simulator() -> Iterator[SimulatorProcess]:
    """One simulator for all tests, with its control routes and without rate limits."""
    with SimulatorProcess("--control", "--no-limits", "--seed", "7") as process:
        yield process


class Exchange:
    """The simulator as a test steers it."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self._http = http

    async def fault(self, endpoint: str, **fault: Any) -> None:
        """Break `endpoint` from now on."""
        await self._control("PUT", "fault", {"endpoint": endpoint, **fault})

    async def heal(self) -> None:
        """End every fault; calls that hang are released."""
        await self._control("DELETE", "fault")

    async def disturb(self, kind: str, **fault: Any) -> None:
        """Break the streams from now on, or once where that is what `kind` does."""
        await self._control("PUT", "stream", {"kind": kind, **fault})

    async def calm(self) -> None:
        """End every fault of the streams; what they held back is sent."""
        await self._control("DELETE", "stream")

    async def streams(self) -> Any:
        """What is connected and subscribed, and how much was sent."""
        async with self._http.get(f"{self.url}/_control/streams") as response:
            return await response.json()

    async def freeze(self, moment_ms: int) -> None:
        """Stop the exchange's clock at `moment_ms`."""
        await self._control("PUT", "clock", {"freeze_ms": moment_ms})

    async def shift(self, offset_ms: int) -> None:
        """Let the exchange's clock differ from ours."""
        await self._control("PUT", "clock", {"offset_ms": offset_ms})

    async def calls(self) -> dict[str, int]:
        """Calls by path since the last reset."""
        async with self._http.get(f"{self.url}/_control/calls") as response:
            answer = await response.json()
        counts: dict[str, int] = answer.get("counts", answer)
        return counts

    async def reset(self) -> None:
        """As it was at the start."""
        await self.heal()
        await self.calm()
        await self._control("DELETE", "trade")
        await self._control("DELETE", "calls")
        await self._control("PUT", "clock", {})
        await self._control("PUT", "account", {"margin": "cross"})

    async def ask(self, path: str, **query: Any) -> Any:
        """The result of a public call, straight from the exchange."""
        async with self._http.get(f"{self.url}{path}", params=query) as response:
            return (await response.json())["result"]

    async def account(self, **account: Any) -> None:
        """Change the account's modes."""
        await self._control("PUT", "account", account)

    async def trade(self, symbol: str, side: str, size: str) -> None:
        """Have the account trade now."""
        await self._control("PUT", "trade", {"symbol": symbol, "side": side, "size": size})

    async def _control(self, method: str, what: str, body: Any = None) -> None:
        async with self._http.request(method, f"{self.url}/_control/{what}", json=body) as response:
            assert response.status < 300, await response.text()


@pytest.fixture
async def exchange(simulator: SimulatorProcess) -> AsyncIterator[Exchange]:
    """The simulator, as it was at the start, before and after the test."""
    async with aiohttp.ClientSession() as http:
        exchange = Exchange(simulator.url, http)
        await exchange.reset()
        yield exchange
        await exchange.reset()


def settings_for(url: str, **sections: dict[str, Any]) -> Settings:
    """Settings against the exchange at `url`; each section's keys replace its defaults."""
    settings = Settings()
    bybit = {
        "environment": Environment.SIMULATOR,
        "rest_url": url,
        "api_key": Secret(API_KEY),
        "api_secret": Secret(API_SECRET),
        "call_timeout_s": 2.0,
    }
    sections = {**sections, "bybit": {**bybit, **sections.get("bybit", {})}}
    replaced = {name: msgspec.structs.replace(getattr(settings, name), **keys) for name, keys in sections.items()}
    return msgspec.structs.replace(settings, **replaced)


@pytest.fixture
def start_gateway(exchange: Exchange, aiohttp_client: Any) -> StartGateway:
    """Start a gateway against the exchange; keyword arguments are the profile and sections of settings."""

    async def start(profile: Profile = Profile.DEVELOPMENT, **sections: dict[str, Any]) -> Gateway:
        settings = msgspec.structs.replace(settings_for(exchange.url, **sections), profile=profile)
        client: Gateway = await aiohttp_client(create_app(settings))
        return client

    return start


async def receive(ws: aiohttp.ClientWebSocketResponse, kind: str = "snapshot", *, timeout_s: float = 10.0) -> Any:
    """The next message of type `kind`; others before it are passed over."""
    async with asyncio.timeout(timeout_s):
        while True:
            message = await ws.receive()
            assert message.type is aiohttp.WSMsgType.TEXT, f"{message.type!r} {message.data!r} {message.extra!r}"
            if (document := json.loads(message.data))["type"] == kind:
                return document


async def closing(ws: aiohttp.ClientWebSocketResponse, *, timeout_s: float = 10.0) -> tuple[int | None, str]:
    """The close code and reason that end the socket; messages before it are passed over."""
    async with asyncio.timeout(timeout_s):
        while True:
            message = await ws.receive()
            if message.type is aiohttp.WSMsgType.CLOSE:
                return message.data, message.extra or ""
            assert message.type is aiohttp.WSMsgType.TEXT, repr(message)
