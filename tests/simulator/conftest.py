"""A simulator on port 0 for each test, with its clock and its handler within reach."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from server.simulator.app import SIMULATOR, Simulator, create_simulator
from server.simulator.child import API_KEY, API_SECRET
from server.simulator.clock import Clock
from server.simulator.signing import signature

NOW_MS = 1_732_280_123_456  # a Friday in November 2024, 12:55:23 UTC


class Caller:
    """A client of one simulator."""

    def __init__(self, url: str, session: aiohttp.ClientSession, app: web.Application) -> None:
        self.url, self.session, self.app = url, session, app

    @property
    def simulator(self) -> Simulator:
        return self.app[SIMULATOR]

    async def get(self, path: str, **query: object) -> dict[str, Any]:
        """The answer's JSON; the status must be 200."""
        async with self.session.get(self.url + path, params={k: str(v) for k, v in query.items()}) as response:
            assert response.status == 200
            answer: dict[str, Any] = await response.json()
            return answer

    def signed(self, query: str = "", *, at_ms: int | None = None, window: int | None = 5_000) -> dict[str, str]:
        """Headers of a good signature over a raw query string."""
        timestamp = str(self.simulator.exchange.clock.now_ms() if at_ms is None else at_ms)
        text = f"{timestamp}{API_KEY}{'' if window is None else window}{query}"
        headers = {
            "X-BAPI-API-KEY": API_KEY,
            "X-BAPI-TIMESTAMP": timestamp,
            "X-BAPI-SIGN": signature(API_SECRET, text),
        }
        return headers if window is None else headers | {"X-BAPI-RECV-WINDOW": str(window)}

    async def private(self, path: str, query: str = "") -> dict[str, Any]:
        """The JSON of a signed call."""
        url = URL(f"{self.url}{path}?{query}", encoded=True)  # the query must arrive as it was signed
        async with self.session.get(url, headers=self.signed(query)) as response:
            answer: dict[str, Any] = await response.json()
            return answer


Start = Callable[..., Awaitable[Caller]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts simulators, frozen at NOW_MS unless told otherwise; all end with the test."""
    servers: list[TestServer] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as session:

        async def started(*, freeze_ms: int | None = NOW_MS, **options: Any) -> Caller:
            clock = Clock()
            clock.set(freeze_ms=freeze_ms)
            app = create_simulator(clock=clock, **options)
            server = TestServer(app)
            await server.start_server()
            servers.append(server)
            return Caller(str(server.make_url("")).rstrip("/"), session, app)

        yield started
    for server in servers:
        await server.close()
