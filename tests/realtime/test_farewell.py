"""Farewells: every socket is closed once, with its code where that can be told, and never waits for long."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st

from server.api.keys import HUB
from server.errors import GatewayError, GoingAway, TooSlow, UnknownSymbol
from server.realtime.farewell import CLOSE_S, close_reason, farewell
from tests.conftest import StartGateway, closing

from .sockets import CLOSE, raw, settled


def now() -> float:
    """The loop's clock, in seconds."""
    return asyncio.get_running_loop().time()


@pytest.fixture
async def handled(aiohttp_client: Any) -> AsyncIterator[Any]:
    """A server whose handler upgrades, hands its socket over, and returns when told: it never receives."""
    sockets: asyncio.Queue[tuple[web.WebSocketResponse, asyncio.Transport]] = asyncio.Queue()
    done = asyncio.Event()

    async def handler(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False, timeout=CLOSE_S)
        await ws.prepare(request)
        assert isinstance(request.transport, asyncio.Transport)
        sockets.put_nowait((ws, request.transport))
        await done.wait()
        return ws

    app = web.Application()
    app.router.add_get("/", handler)
    gateway = await aiohttp_client(app)
    yield gateway, sockets
    done.set()


async def test_farewell_does_not_need_the_handler_to_receive(handled: Any) -> None:
    """A socket whose handler is busy elsewhere is closed with its code, and the client's answer is waited for."""
    gateway, sockets = handled
    async with gateway.ws_connect("/") as ws:
        server_ws, transport = await sockets.get()
        reading = asyncio.create_task(closing(ws))
        await farewell(server_ws, transport, GoingAway("leaving", retry_after_s=2))
        assert await reading == (1001, "leaving; retry after 2 s")
        assert transport.is_closing()


async def test_farewell_is_bounded(handled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that answers nothing is let go after the farewell's second (here 0.3), the close frame sent."""
    assert CLOSE_S == 1.0
    monkeypatch.setattr("server.realtime.farewell.CLOSE_S", 0.3)
    gateway, sockets = handled
    async with raw(gateway, "/") as client:
        server_ws, transport = await sockets.get()
        started = now()
        await farewell(server_ws, transport, GoingAway("leaving"))
        assert 0.25 < now() - started < 0.8
        assert await client.close_code() == 1001


async def test_farewell_never_raises(handled: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """What goes wrong in closing is logged, and the connection is gone all the same."""
    gateway, sockets = handled
    async with raw(gateway, "/") as client:
        _, transport = await sockets.get()
        await farewell(web.WebSocketResponse(), transport, GoingAway("never prepared"))
        assert transport.is_closing()
        assert await client.close_code() is None


@given(detail=st.text(), retry=st.none() | st.floats(0, 1e9, allow_nan=False))
@example("ü" * 200, 5.0)
@example("𝄞" * 40, None)
def test_close_reasons_fit_a_close_frame(detail: str, retry: float | None) -> None:
    """A reason is at most 123 bytes of whole characters, begins as the detail does, and keeps when to come back."""
    reason = close_reason(GatewayError(detail, retry_after_s=retry))
    assert len(reason) <= 123
    text = reason.decode()
    if retry is None:
        assert detail.startswith(text)
    else:
        said, _, rest = text.rpartition("; retry after ")
        assert detail.startswith(said)
        assert rest == f"{retry:g} s"
    if len(detail.encode()) <= 80:
        assert text.startswith(detail)


def left_to_the_collector() -> Counter[str]:
    """What only the garbage collector can free now, by class."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return Counter(type(one).__name__ for one in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


@pytest.mark.parametrize("interval", ["0", "0.1"])
@pytest.mark.parametrize("how", ["close", "reset", "end", "too slow"])
async def test_an_ended_socket_is_freed_at_once(start_gateway: StartGateway, interval: str, how: str) -> None:
    """However it ends, nothing of a socket waits for a full garbage collection, which is rare: that would be a leak."""
    gateway = await start_gateway()
    path = f"/ws/positions/BTCUSDT?interval={interval}"
    gc.collect()
    gc.disable()
    try:
        async with raw(gateway, path) as client:
            await client.message()
            if how == "close":
                await client.send(CLOSE, b"\x03\xe8")
                assert await client.close_code() == 1000
            elif how == "reset":
                client.reset()
            else:
                (session,) = gateway.app[HUB].sessions
                session.end(TooSlow("for the test") if how == "too slow" else UnknownSymbol("for the test"))
                del session
                assert await client.close_code() in (4404, 4408)
        await settled(gateway)
        await asyncio.sleep(0)
        left = left_to_the_collector()
    finally:
        gc.enable()
    assert not {"Session", "Subscription", "Outbox", "Socket", "Request", "RequestHandler"} & left.keys(), left
