"""A simulator on port 0 for each test, with its clock and its handler within reach."""

from __future__ import annotations

import asyncio
import json
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
        self.streams: list[Stream] = []  # one that nobody holds would be closed at any time

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

    async def put(self, what: str, **body: Any) -> dict[str, Any]:
        """The answer to a control call, which must be taken."""
        async with self.session.put(f"{self.url}/_control/{what}", json=body) as response:
            assert response.status == 200, await response.text()
            answer: dict[str, Any] = await response.json()
            return answer

    async def delete(self, what: str) -> None:
        async with self.session.delete(f"{self.url}/_control/{what}") as response:
            assert response.status == 200, await response.text()

    def freeze(self, moment_ms: int) -> None:
        self.simulator.exchange.clock.set(freeze_ms=moment_ms)

    async def stream(self, path: str = "public/linear") -> Stream:
        """A new stream connection."""
        ws = await self.session.ws_connect(f"{self.url}/v5/{path}", autoclose=False, autoping=False)
        self.streams.append(Stream(ws))
        return self.streams[-1]

    async def private_stream(self, *topics: str) -> Stream:
        """A stream that has shown who it is, and follows these topics."""
        stream = await self.stream("private")
        expires = self.simulator.exchange.clock.wall_ms() + 10_000
        args = [API_KEY, expires, signature(API_SECRET, f"GET/realtime{expires}")]
        assert (await stream.ask("auth", *args))["success"]
        if topics:
            assert (await stream.ask("subscribe", *topics))["success"]
        return stream


class Stream:
    """A plain client of the streams; what comes while it waits for something else is kept in `passed`."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.passed: list[dict[str, Any]] = []

    async def read(self) -> dict[str, Any]:
        """The next message, whatever it is."""
        message = await self.ws.receive(timeout=10)
        assert message.type is aiohttp.WSMsgType.TEXT, f"{message.type!r} {message.data!r}"
        document: dict[str, Any] = json.loads(message.data)
        return document

    async def ask(self, op: str, *args: object, **more: object) -> dict[str, Any]:
        """The answer to an operation."""
        await self.ws.send_json({"op": op, **({"args": args} if args else {}), **more})
        while "topic" in (answer := await self.read()):
            self.passed.append(answer)
        return answer

    async def next(self, topic: str) -> dict[str, Any]:
        """The next message of a topic that has not been looked at."""
        for index, message in enumerate(self.passed):
            if message["topic"] == topic:
                return self.passed.pop(index)
        while (message := await self.read()).get("topic") != topic:
            self.passed.append(message)
        return message

    async def quiet(self, caller: Caller) -> bool:
        """Whether the exchange has nothing to say now."""
        caller.simulator.streams.step(asyncio.get_running_loop().time())
        await self.ask("ping")
        return not self.passed

    async def closing(self) -> int | None:
        """The code that the exchange closes with, None if it aborts; messages before it are passed over."""
        while (message := await self.ws.receive(timeout=10)).type is aiohttp.WSMsgType.TEXT:
            pass
        return message.data if message.type is aiohttp.WSMsgType.CLOSE else None


Start = Callable[..., Awaitable[Caller]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts simulators, frozen at NOW_MS unless told otherwise; all end with the test."""
    servers: list[TestServer] = []
    callers: list[Caller] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as session:

        async def started(*, freeze_ms: int | None = NOW_MS, **options: Any) -> Caller:
            clock = Clock()
            clock.set(freeze_ms=freeze_ms)
            app = create_simulator(clock=clock, **options)
            server = TestServer(app)
            await server.start_server()
            servers.append(server)
            callers.append(Caller(str(server.make_url("")).rstrip("/"), session, app))
            return callers[-1]

        yield started
    for server in servers:
        await server.close()
