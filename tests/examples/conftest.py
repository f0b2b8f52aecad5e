"""What the clients are tried on: a gateway that can go away and come back, and a line that can die."""

import asyncio
import contextlib
import hashlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from server.api.keys import HUB
from server.app import create_app
from tests.conftest import Exchange, settings_for
from tests.processes import ROOT

EXAMPLES = ROOT / "examples"
TOKEN = "a-token-of-the-examples-0123456789"
AUTH = {"tokens": (hashlib.sha256(TOKEN.encode()).hexdigest(),)}


class Place:
    """An address of this machine where a gateway is, or is not."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def app(self) -> web.Application:
        assert self._runner is not None
        return self._runner.app

    async def open(self, **sections: dict[str, Any]) -> None:
        """Have a new gateway there, with an epoch of its own."""
        self._runner = web.AppRunner(create_app(settings_for(self._exchange.url, **sections)), shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """End the gateway: its sockets are closed with 1001."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def restart(self, **sections: dict[str, Any]) -> None:
        await self.close()
        await self.open(**sections)


@pytest.fixture
async def place(exchange: Exchange) -> AsyncIterator[Place]:
    """A gateway at a place of its own."""
    place = Place(exchange)
    await place.open()
    yield place
    await place.close()


ECHO_S = 0.03


class Line:
    """A TCP line to a port, that can die without a word, or stutter: what the far end writes comes again, later."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._pumps: set[asyncio.Task[None]] = set()
        self._dead = 0
        self.connections = 0
        self.writes = 0
        self.echoes = 0
        self.stutters = False
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def die(self) -> None:
        """From now on swallow all that is written to the connections there are, both ways."""
        self._dead = self.connections

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, both ways, to its end."""
        self.connections += 1
        number, task = self.connections, asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            await asyncio.gather(self._hither(number, far_reader, writer), self._thither(number, reader, far_writer))
        finally:
            writer.close()
            far_writer.close()

    async def _hither(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if number > self._dead:
                    writer.write(data)
                    if self.stutters and not data.startswith(b"HTTP/"):
                        asyncio.get_running_loop().call_later(ECHO_S, self._again, writer, data)
        writer.close()

    def _again(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if not writer.is_closing():
            self.echoes += 1
            writer.write(data)

    async def _thither(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self.writes += 1
                if number > self._dead:
                    writer.write(data)
        writer.close()

    async def end(self) -> None:
        """Cut what is left."""
        for pump in self._pumps:
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)


StartLine = Callable[[int], Awaitable[Line]]


@pytest.fixture
async def start_line() -> AsyncIterator[StartLine]:
    """Start a line to a port."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(port: int) -> Line:
            line = Line(port)
            server = await asyncio.start_server(line.carry, "127.0.0.1", 0)
            stack.push_async_callback(line.end)
            stack.callback(server.close)
            line.port = server.sockets[0].getsockname()[1]
            return line

        yield start


@asynccontextmanager
async def closing_with(code: int, reason: str) -> AsyncIterator[str]:
    """The address of a server that ends each socket with that code, or refuses its upgrade where it is a status."""

    async def end(request: web.Request) -> web.StreamResponse:
        if code < 1000:
            return web.Response(status=code, headers={"Retry-After": reason})
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.close(code=code, message=reason.encode())
        return ws

    app = web.Application()
    app.router.add_get("/ws", end)
    async with TestServer(app) as server:
        yield f"ws://127.0.0.1:{server.port}"


def paces_s(place: Place) -> dict[str, float]:
    """What the gateway's one session is subscribed to, as the gateway sees it."""
    (session,) = place.app[HUB].sessions
    return {name: subscription.interval_s for name, subscription in session.subscriptions.items()}


@pytest.fixture(scope="session")
def node() -> None:
    """Node with its `ws`, installed from the pins; where there is no Node, or no way to `ws`, it is left out."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    if not (EXAMPLES / "node_modules" / "ws").exists():
        try:
            subprocess.run(("npm", "ci", "--silent", "--prefix", str(EXAMPLES)), check=True, timeout=45)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"npm cannot install ws: {error}")
