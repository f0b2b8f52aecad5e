"""Outbox: whole frames over a real socket, and what a reader that has stopped gets instead of them."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from server.realtime.farewell import Socket
from server.realtime.frames import Frame, text_frame
from server.realtime.outbox import DRAIN_LOOK_S, Outbox
from server.realtime.subscription import Subscription
from server.settings import WebSocketSettings

from .sockets import CLOSE, SMALL_BUFFER_BYTES, TEXT, RawSocket, eventually


class Pen:
    """An outbox, and the one subscription that writes to it."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        channel: Any = None
        owner: Any = None
        self.subscription = Subscription(
            channel, interval_s=0, max_age_s=1.0, owner=owner, outbox=outbox, now=outbox.sent_at
        )

    @property
    def frames_sent(self) -> int:
        return self.outbox.frames_sent + self.subscription.frames_sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self.outbox if hasattr(self.outbox, name) else self.subscription, name)


class Line:
    """The server's end of one socket, and the client's."""

    def __init__(self, ws: Socket, transport: asyncio.Transport, client: RawSocket) -> None:
        self.ws, self.transport, self.client = ws, transport, client
        self.now = 0.0
        self.gave_up = 0

    def outbox(self, **options: Any) -> Pen:
        """An outbox on this line, by a clock that a test moves."""
        limits = {"high_water_bytes": 4096, "slow_limit_bytes": 1 << 20, "slow_limit_s": 5.0}
        settings = WebSocketSettings(**(limits | options))
        return Pen(Outbox(self.ws, self.transport, settings=settings, too_slow=self.give_up, clock=lambda: self.now))

    def give_up(self) -> None:
        self.gave_up += 1

    @property
    def queued(self) -> int:
        return self.transport.get_write_buffer_size()

    async def received(self, count: int) -> list[bytes]:
        """The payloads of the next frames."""
        return [(await self.client.frame())[1] for _ in range(count)]


Connect = Callable[[], Awaitable[Line]]


@pytest.fixture
async def connect(aiohttp_client: Any) -> AsyncIterator[Connect]:
    """Connect a raw client to a handler that does nothing but receive; little is buffered by the kernel."""
    lines: asyncio.Queue[tuple[Socket, asyncio.Transport]] = asyncio.Queue()
    clients: list[RawSocket] = []

    async def handler(request: web.Request) -> web.WebSocketResponse:
        ws = Socket(compress=False, timeout=0.2)
        await ws.prepare(request)
        assert isinstance(request.transport, asyncio.Transport)
        line = request.transport.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER_BYTES)
        lines.put_nowait((ws, request.transport))
        with contextlib.suppress(RuntimeError):
            async for _ in ws:
                pass
        request.transport.abort()
        return ws

    app = web.Application()
    app.router.add_get("/", handler)
    gateway = await aiohttp_client(app)

    async def connected() -> Line:
        client = await RawSocket.connect(gateway, "/", small=True)
        clients.append(client)
        return Line(*await lines.get(), client)

    yield connected
    for client in clients:
        client.close()


def frame(number: int, size: int = 20) -> Frame:
    """Frame `number`, whose payload is that number, padded to a size."""
    return Frame(text_frame((b"%d" % number).ljust(size)), number, (), 7.0, (None, None, None))


def fill(outbox: Pen) -> int:
    """Offer a large frame, far over high water, and one that is held back; gives the latter's number."""
    large: int = outbox.last_sequence + 1
    held = large + 1
    outbox.offer(frame(large, 60_000))
    outbox.offer(frame(held))
    assert outbox.last_sequence == large
    return held


async def test_what_is_offered_arrives_in_order(connect: Connect) -> None:
    """Snapshots and other frames go out whole and in order, and are counted."""
    line = await connect()
    outbox = line.outbox()
    line.now = 7.0
    outbox.offer(frame(1))
    outbox.send(text_frame(b"status"))
    outbox.offer(frame(2))
    assert [text.strip() for text in await line.received(3)] == [b"1", b"status", b"2"]
    assert (outbox.frames_sent, outbox.frames_conflated, outbox.last_sequence) == (3, 0, 2)
    assert outbox.sent_at == 7.0


async def test_nothing_is_sent_twice_or_backwards(connect: Connect) -> None:
    """A snapshot that is no newer than the last is not sent."""
    line = await connect()
    outbox = line.outbox()
    for number in (3, 3, 2, 1, 5, 4, 6):
        outbox.offer(frame(number))
    assert [int(text) for text in await line.received(3)] == [3, 5, 6]
    assert outbox.frames_sent == 3


async def test_a_reader_that_stops_gets_the_newest_when_it_is_back(connect: Connect) -> None:
    """While the buffer is over high water only the newest snapshot is kept; it follows by itself once there is room."""
    line = await connect()
    outbox = line.outbox()
    held = fill(outbox)
    queued = line.queued
    for number in range(held + 1, held + 50):
        outbox.offer(frame(number))
    outbox.offer(frame(held + 1))
    assert line.queued == queued
    assert outbox.frames_conflated == 49
    assert [int(text) for text in await line.received(2)] == [1, held + 49]
    assert (outbox.last_sequence, outbox.frames_sent) == (held + 49, 2)
    assert line.gave_up == 0


async def test_other_frames_are_lost_to_a_slow_reader(connect: Connect) -> None:
    """A status or an answer is not kept: the state follows anyway."""
    line = await connect()
    outbox = line.outbox()
    held = fill(outbox)
    outbox.send(text_frame(b"lost"))
    assert [int(text) for text in await line.received(2)] == [1, held]
    outbox.send(text_frame(b"found"))
    assert await line.received(1) == [b"found"]


async def test_a_newer_one_replaces_what_was_kept(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is room before the next look, the offered frame goes out and the kept one counts as passed over."""
    monkeypatch.setattr("server.realtime.outbox.DRAIN_LOOK_S", 60.0)
    line = await connect()
    outbox = line.outbox()
    held = fill(outbox)
    await line.received(1)
    outbox.offer(frame(held + 1))
    assert [int(text) for text in await line.received(1)] == [held + 1]
    assert outbox.frames_conflated == 1
    outbox.close()


async def test_what_is_kept_goes_before_a_status(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is room before the next look, a status does not overtake the older snapshot that is kept."""
    monkeypatch.setattr("server.realtime.outbox.DRAIN_LOOK_S", 60.0)
    line = await connect()
    outbox = line.outbox()
    held = fill(outbox)
    await line.received(1)
    assert outbox.send(text_frame(b"status"))
    assert await line.received(2) == [frame(held).data[2:], b"status"]
    outbox.close()


async def test_what_is_kept_and_fills_the_line_costs_a_status(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where not all that is kept finds room, a status is lost to the slow reader like any other."""
    monkeypatch.setattr("server.realtime.outbox.DRAIN_LOOK_S", 60.0)
    line = await connect()
    outbox = line.outbox()
    held = fill(outbox)
    outbox.offer(frame(held + 1, 60_000))
    other = Pen(outbox.outbox)
    other.offer(frame(1))
    await line.received(1)
    assert not outbox.send(text_frame(b"status"))
    assert (outbox.last_sequence, other.last_sequence) == (held + 1, 0)
    outbox.close()


async def test_a_large_turn_is_no_slow_reader(connect: Connect) -> None:
    """What is added in one turn is written in pieces that no reader is given up for, and whoever reads gets it all."""
    line = await connect()
    outbox = line.outbox(slow_limit_bytes=20_000)
    pens = [Pen(outbox.outbox) for _ in range(100)]
    for pen in pens:
        pen.subscription.add(frame(1, 1000))
        assert line.queued < 20_000
    outbox.flush()
    assert len(await line.received(100)) == 100
    assert line.gave_up == 0


async def test_too_much_in_the_buffer_is_too_slow(connect: Connect) -> None:
    """Over the limit in bytes the reader is given up at once, without waiting."""
    line = await connect()
    outbox = line.outbox(slow_limit_bytes=200_000)
    outbox.offer(frame(1, 150_000))
    outbox.offer(frame(2, 100))
    assert line.gave_up == 0
    line.transport.write(text_frame(b"x" * 60_000))
    outbox.offer(frame(3, 100))
    assert line.gave_up == 1


async def test_too_long_over_high_water_is_too_slow(connect: Connect) -> None:
    """Longer than the limit over high water the reader is given up, also when nothing more is offered."""
    line = await connect()
    outbox = line.outbox()
    fill(outbox)
    line.now += 5.0
    looks = asyncio.get_running_loop().time() + 3 * DRAIN_LOOK_S
    await eventually(lambda: asyncio.get_running_loop().time() > looks)
    assert line.gave_up == 0
    line.now += 0.001
    await eventually(lambda: line.gave_up)


async def test_catching_up_in_between_is_forgiven(connect: Connect) -> None:
    """The time over high water counts anew after each time that the reader has caught up."""
    line = await connect()
    outbox = line.outbox()
    for _ in range(3):
        held = fill(outbox)
        line.now += 4.0
        assert [int(text) for text in await line.received(2)] == [held - 1, held]
    assert line.gave_up == 0


async def test_nothing_is_written_after_the_close_frame(connect: Connect) -> None:
    """Once the socket is closing, neither snapshots nor other frames follow."""
    line = await connect()
    outbox = line.outbox()
    outbox.offer(frame(1))
    closing = asyncio.create_task(line.ws.close(code=4404))
    await eventually(lambda: line.ws.closed)
    assert not outbox.is_open
    outbox.offer(frame(2))
    outbox.send(text_frame(b"late"))
    assert (await line.client.frame())[0] == TEXT
    assert await line.client.close_code() == 4404
    await closing
    assert outbox.frames_sent == 1


async def test_a_lost_connection_takes_nothing_more(connect: Connect) -> None:
    """After a reset nothing is written, and what was kept is not looked after."""
    line = await connect()
    outbox = line.outbox()
    fill(outbox)
    sent = outbox.frames_sent
    line.client.reset()
    await eventually(lambda: not outbox.is_open)
    outbox.offer(frame(outbox.last_sequence + 10))
    looks = asyncio.get_running_loop().time() + 3 * DRAIN_LOOK_S
    await eventually(lambda: asyncio.get_running_loop().time() > looks)
    assert outbox.frames_sent == sent
    assert line.gave_up == 0


async def test_closing_forgets_what_was_kept(connect: Connect) -> None:
    """After close nothing kept is written, though the reader is back; closing twice does nothing."""
    line = await connect()
    outbox = line.outbox()
    fill(outbox)
    outbox.close()
    outbox.close()
    await line.received(1)
    with pytest.raises(TimeoutError):
        await line.client.frame(timeout_s=3 * DRAIN_LOOK_S)


async def test_nothing_follows_the_close_frame(connect: Connect) -> None:
    """Once aiohttp closes, of itself or because we want it, the outbox is shut, though the transport is still open."""
    line = await connect()
    outbox = line.outbox()
    closing = asyncio.create_task(line.ws.close(drain=False))
    await asyncio.sleep(0)
    assert not line.transport.is_closing()
    outbox.offer(frame(1))
    assert not outbox.send(text_frame(b"status"))
    assert not outbox.control(text_frame(b"ping"))
    async with asyncio.timeout(5):
        assert (await line.client.frame())[0] == CLOSE
        with contextlib.suppress(EOFError, ConnectionError):
            assert not await line.client.frame()
    await closing


async def test_frames_of_any_size_reach_aiohttp(aiohttp_client: Any) -> None:
    """A real client reads a burst of large and small frames as they were."""
    sizes = [1, 125, 126, 65_535, 65_536, 300_000, 5]

    async def handler(request: web.Request) -> Socket:
        ws = Socket(compress=False)
        await ws.prepare(request)
        assert isinstance(request.transport, asyncio.Transport)
        settings = WebSocketSettings(high_water_bytes=1 << 20, slow_limit_bytes=1 << 22)
        outbox = Pen(Outbox(ws, request.transport, settings=settings, too_slow=lambda: None))
        for number, size in enumerate(sizes, 1):
            outbox.offer(frame(number, size))
        await ws.close(code=4000)
        return ws

    app = web.Application()
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    ws: aiohttp.ClientWebSocketResponse
    async with client.ws_connect("/") as ws:
        texts = [message.data async for message in ws]
    assert [(len(text), int(text)) for text in texts] == [(size, number) for number, size in enumerate(sizes, 1)]
    assert ws.close_code == 4000
