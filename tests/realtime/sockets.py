"""Clients below aiohttp's own: a WebSocket over bare TCP that reads only when told, and what is left after a socket."""

import asyncio
import contextlib
import json
import os
import socket
import struct
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol
from urllib.parse import urlencode

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiojobs.aiohttp import get_scheduler_from_app

from server.api.keys import HUB, LOAD
from server.simulator.child import API_KEY, API_SECRET
from server.simulator.signing import signature
from tests.conftest import Exchange, Gateway

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
SMALL_BUFFER_BYTES = 2048
HUB_JOBS = {"deliverer", "herald", "lookout", "pulse"}


class Listening(Protocol):
    """Where something listens: a test server's client, or an address."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int | None: ...


class WorkerServer(TestServer):
    """A test server that treats handlers as the worker's does: a lost connection does not cancel them."""

    async def _make_runner(self, **kwargs: Any) -> web.AppRunner:
        return web.AppRunner(self.app, **(kwargs | {"handler_cancellation": False, "access_log": None}))


def parse_frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """The opcode and payload of the first frame of `data`, and the rest; None while it is not whole (RFC 6455, 5.2)."""
    if len(data) < 2:
        return None
    assert data[0] & 0xF0 == 0x80, "final, nothing reserved"
    assert data[1] < 0x80, "a server does not mask"
    length, start = data[1], 2
    if length >= 126:
        start = 4 if length == 126 else 10
        if len(data) < start:
            return None
        length = int.from_bytes(data[2:start], "big")
        assert length > 0xFFFF or (start == 4 and length > 125), "the shortest form"
    if len(data) < start + length:
        return None
    return data[0] & 0x0F, data[start : start + length], data[start + length :]


def client_frame(opcode: int, payload: bytes) -> bytes:
    """A final frame as clients have to send it: masked."""
    mask, length = os.urandom(4), len(payload)
    if length < 126:
        head = bytes((0x80 | opcode, 0x80 | length))
    elif length < 65536:
        head = bytes((0x80 | opcode, 0xFE)) + length.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0xFF)) + length.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


class RawSocket:
    """A WebSocket client over bare TCP. It reads only when told, answers no ping, and can vanish in any way."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = b""
        self.response = ""

    @classmethod
    async def connect(
        cls, gateway: Listening, path: str, *, headers: dict[str, str] | None = None, small: bool = False
    ) -> "RawSocket":
        """Connect and upgrade; `small` keeps what the kernel buffers for a reader that stops to a few kilobytes."""
        self = await cls.ask(gateway, path, headers=headers, small=small)
        async with asyncio.timeout(10):
            while b"\r\n\r\n" not in self._data:
                await self._receive()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        self.response = head.decode()
        return self

    @classmethod
    async def ask(
        cls, gateway: Listening, path: str, *, headers: dict[str, str] | None = None, small: bool = False
    ) -> "RawSocket":
        """Connect and send the handshake, without waiting for its answer."""
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setblocking(False)
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        await loop.sock_connect(sock, (gateway.host, gateway.port))
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {gateway.host}:{gateway.port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Extensions: permessage-deflate",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        await loop.sock_sendall(sock, ("\r\n".join(lines) + "\r\n\r\n").encode())
        return cls(sock)

    async def _receive(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self._sock, 65536)
        if not data:
            raise EOFError
        self._data += data

    async def frame(self, *, timeout_s: float = 10.0) -> tuple[int, bytes]:
        """The next frame's opcode and payload. Raises EOFError or ConnectionError at the connection's end."""
        async with asyncio.timeout(timeout_s):
            while (parsed := parse_frame(self._data)) is None:
                await self._receive()
        opcode, payload, self._data = parsed
        return opcode, payload

    async def message(self, kind: str = "snapshot", *, timeout_s: float = 10.0) -> Any:
        """The next message of type `kind`; other frames before it are passed over, but no close."""
        async with asyncio.timeout(timeout_s):
            while True:
                opcode, payload = await self.frame()
                assert opcode != CLOSE, payload
                if opcode == TEXT and (document := json.loads(payload))["type"] == kind:
                    return document

    async def rest(self, *, timeout_s: float = 10.0) -> list[tuple[int, bytes]]:
        """Every frame until the connection's end, however it ends."""
        frames: list[tuple[int, bytes]] = []
        with contextlib.suppress(EOFError, ConnectionError):
            async with asyncio.timeout(timeout_s):
                while True:
                    frames.append(await self.frame())
        return frames

    async def close_code(self, *, timeout_s: float = 10.0) -> int | None:
        """The code of the close frame, after which nothing follows; None where the connection ends without one."""
        codes = [
            int.from_bytes(payload[:2], "big") if opcode == CLOSE else None
            for opcode, payload in await self.rest(timeout_s=timeout_s)
        ]
        assert all(code is None for code in codes[:-1])
        return codes[-1] if codes else None

    async def send(self, opcode: int, payload: bytes = b"") -> None:
        """Send one frame."""
        await self.write(client_frame(opcode, payload))

    async def write(self, data: bytes) -> None:
        """Send frames, or what else `data` is, in one piece."""
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def flood(self, opcode: int, payload: bytes) -> None:
        """Send that frame for ever, until the connection is lost. Raises OSError then."""
        frames = client_frame(opcode, payload) * 200
        while True:
            await asyncio.get_running_loop().sock_sendall(self._sock, frames)

    def reset(self) -> None:
        """Vanish with a TCP reset."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def close(self) -> None:
        """Vanish without a close frame."""
        self._sock.close()


@contextlib.asynccontextmanager
async def raw(gateway: Listening, path: str, **options: Any) -> AsyncIterator[RawSocket]:
    """A RawSocket that is closed at the end, however it ends."""
    client = await RawSocket.connect(gateway, path, **options)
    try:
        yield client
    finally:
        client.close()


def narrow(gateway: Gateway) -> None:
    """Have the kernel buffer little of what the gateway's sockets write, as the worker's listener does by SO_SNDBUF."""
    for transport in gateway.app[LOAD].sockets.values():
        line = transport.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER_BYTES)


async def eventually(check: Callable[[], object], *, timeout_s: float = 10.0) -> None:
    """Return as soon as `check` is true."""
    async with asyncio.timeout(timeout_s):
        while not check():
            await asyncio.sleep(0.002)


def jobs(gateway: Gateway) -> list[str | None]:
    """The names of the scheduler's jobs; sessions have none of their own."""
    scheduler = get_scheduler_from_app(gateway.app)
    assert scheduler is not None
    return sorted((job.get_name() for job in scheduler), key=str)


async def settled(gateway: Gateway, *, but: int = 0, timeout_s: float = 10.0) -> None:
    """Return once no trace of a socket is left: no session, no place taken, and no job but the hub's own.

    `but` polled sessions may be left, with their places and jobs.
    """
    app = gateway.app

    def left() -> tuple[int, int, int]:
        return len(app[HUB]), len(app[LOAD].sockets), len(jobs(gateway))

    try:
        await eventually(lambda: left() == (but, but, but + len(HUB_JOBS)), timeout_s=timeout_s)
    except TimeoutError:
        raise AssertionError(f"left are (sessions, sockets, jobs) {left()}: {jobs(gateway)}") from None
    assert set(jobs(gateway)) >= HUB_JOBS


async def only_left(before: set["asyncio.Task[Any]"]) -> None:
    """Return once every task that is not among `before` has ended."""
    await eventually(lambda: asyncio.all_tasks() <= before)


async def collect(ws: aiohttp.ClientWebSocketResponse, for_s: float) -> list[dict[str, Any]]:
    """Every message that arrives within `for_s`."""
    messages: list[dict[str, Any]] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(for_s):
            async for message in ws:
                messages.append(json.loads(message.data))  # noqa: PERF401  what has come stays, when the time is up
    return messages


async def signed(exchange: Exchange, path: str, **query: str) -> Any:
    """The result of a private call, straight from the exchange."""
    text, stamp = urlencode(query), str(time.time_ns() // 1_000_000)
    headers = {
        "X-BAPI-API-KEY": API_KEY,
        "X-BAPI-TIMESTAMP": stamp,
        "X-BAPI-SIGN": signature(API_SECRET, f"{stamp}{API_KEY}{text}"),
    }
    async with exchange._http.get(f"{exchange.url}{path}?{text}", headers=headers) as response:
        answer = await response.json()
    assert answer["retCode"] == 0, answer
    return answer["result"]
