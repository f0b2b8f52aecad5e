"""A proxy between the gateway and the simulator that lies, breaks off or falls silent as a proof wants it to.

What it passes on untouched it remembers: that, and nothing else, is what the gateway may show.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import aiohttp
import msgspec
from yarl import URL

ENDPOINTS = {
    "/v5/market/tickers": "tickers",
    "/v5/position/list": "position",
    "/v5/account/wallet-balance": "wallet",
    "/v5/market/kline": "kline",
}
"""The endpoints that faults are made for; every other path passes."""

HEAD_BYTES = 65536

Remember = Callable[[str, dict[str, str], float, Any], None]
"""Takes endpoint, query, the moment of the question, and the result that was passed on."""


class Fault(NamedTuple):
    """One way to misbehave: of an answer (`answer`), or of every connection (`connection`, a mode of Proxy)."""

    name: str
    group: str
    answer: Callable[[Line], Awaitable[None]] | None = None
    connection: str = ""
    scope: str = "endpoint"
    """Whom it may silence: the endpoint, the account where that is concerned, or the whole address."""
    may_be_harmless: bool = False
    """Whether the answer may be taken for what it is, since nothing of it is wrong."""


class Line:
    """One question of the gateway and the connection that waits for its answer."""

    def __init__(
        self,
        proxy: Proxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        target: str,
        headers: dict[str, str],
    ) -> None:
        self._proxy = proxy
        self._reader = reader
        self.writer = writer
        self.target = target
        self.headers = headers
        self.asked_at = time.monotonic()
        self.path, _, query = target.partition("?")
        self.endpoint = ENDPOINTS.get(self.path, "")
        self.query = dict(parse_qsl(query))

    @property
    def released(self) -> asyncio.Event:
        """Set when the fault ends."""
        return self._proxy.released

    @property
    def elsewhere(self) -> str:
        """The address of another host, where no request may ever arrive."""
        return self._proxy.elsewhere

    async def honest(self) -> tuple[int, dict[str, str], bytes]:
        """The simulator's status, headers and body."""
        return await self._proxy.asked(self.target, self.headers)

    async def document(self) -> dict[str, Any]:
        """The simulator's body, decoded."""
        decoded: dict[str, Any] = msgspec.json.decode((await self.honest())[2])
        return decoded

    async def raw(self, data: bytes) -> None:
        """Write `data` as it is. Raises ConnectionResetError where the gateway has gone."""
        if self._reader.at_eof() or self.writer.is_closing():
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()
        await asyncio.sleep(0)  # draining what is drained already gives nobody his turn

    async def send(self, body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> None:
        """Write a whole answer; `length` replaces what Content-Length says."""
        lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers)
        await self.raw("\r\n".join((*lines, "", "")).encode() + body)

    def reset(self) -> None:
        """End the connection with a reset."""
        sock = self.writer.get_extra_info("socket")
        if sock is not None:  # else the gateway was faster
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        """End the connection politely."""
        self.writer.close()


class Proxy:
    """Listens as the exchange; honest until `fault` is set. Connection modes: see `_greeted`."""

    def __init__(self, simulator: str, good: ssl.SSLContext, unknown: ssl.SSLContext, remember: Remember) -> None:
        self._simulator = simulator
        self._good, self._unknown = good, unknown
        self._remember = remember
        self._tasks: set[asyncio.Task[None]] = set()
        self._plugs: list[socket.socket] = []
        self._fault: Fault | None = None
        self._endpoint = ""
        self.released = asyncio.Event()
        self.signatures: set[str] = set()
        self.strayed = 0
        self.faulted = 0
        self.port = 0
        self.elsewhere = ""

    async def __aenter__(self) -> Proxy:
        self._http = aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=30))
        self._stray = await asyncio.start_server(self._strayed_to, "127.0.0.1", 0)
        self.elsewhere = f"https://127.0.0.1:{self._stray.sockets[0].getsockname()[1]}"
        self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._deafen()
        self._stray.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept())

    def _deafen(self) -> None:
        self._accepting.cancel()
        self._listener.close()
        for plug in self._plugs:
            plug.close()
        self._plugs.clear()

    def begin(self, fault: Fault, endpoint: str) -> None:
        """Misbehave from now on, for the questions of `endpoint`, or for every connection."""
        self.released = asyncio.Event()
        self.faulted = 0
        self._fault, self._endpoint = fault, endpoint
        if not fault.connection:
            return
        self._hang_up()
        if fault.connection == "refused":
            self._deafen()
        elif fault.connection == "blackhole":
            self._accepting.cancel()
            self._plug()

    def end(self) -> None:
        """Be honest again; what hangs is cut."""
        fault, self._fault = self._fault, None
        self.released.set()
        if fault is not None and fault.connection:
            self._hang_up()
            if fault.connection != "refused":
                self._deafen()
            self._listen()

    def _hang_up(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _plug(self) -> None:
        """Fill the queue of connections, so that the system answers no further one, as behind a silent firewall."""
        self._listener.listen(0)
        for _ in range(4):
            plug = socket.socket()
            plug.setblocking(False)
            plug.connect_ex(("127.0.0.1", self.port))
            self._plugs.append(plug)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self._listener)
            task = asyncio.create_task(self._served(sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _served(self, sock: socket.socket) -> None:
        writer: asyncio.StreamWriter | None = None
        with contextlib.suppress(OSError, EOFError, ssl.SSLError):
            try:
                reader, writer = await self._greeted(sock)
                while True:
                    await self._answer(await reader.readuntil(b"\r\n\r\n"), reader, writer)
            finally:
                if writer is None:
                    sock.close()
                else:
                    writer.transport.abort()

    async def _greeted(self, sock: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection, once TLS is spoken; or what a mode makes of it, which ends in an OSError."""
        mode = self._fault.connection if self._fault is not None else ""
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(limit=HEAD_BYTES)
        if mode == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise ConnectionResetError
        if mode == "silent":
            await self.released.wait()
            raise ConnectionResetError
        if mode == "no tls":
            await loop.sock_recv(sock, 1)
            await loop.sock_sendall(sock, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            raise ConnectionResetError
        if mode == "closed in tls":
            await loop.sock_recv(sock, 1)
            raise ConnectionResetError
        context = self._unknown if mode == "unknown certificate" else self._good
        transport, protocol = await loop.connect_accepted_socket(
            lambda: asyncio.StreamReaderProtocol(reader), sock, ssl=context, ssl_handshake_timeout=30
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        line = Line(self, reader, writer, first.split(" ")[1], headers)
        if sign := headers.get("x-bapi-sign"):
            self.signatures.add(sign)
        fault = self._fault
        if fault is not None and fault.answer is not None and line.endpoint == self._endpoint:
            self.faulted += 1
            await fault.answer(line)
            return
        status, answered, body = await line.honest()
        kept = [f"{name}: {value}" for name, value in answered.items() if name.lower().startswith(("content-t", "x-"))]
        if status == 200 and line.endpoint:
            document = msgspec.json.decode(body)
            if document["retCode"] == 0:
                self._remember(line.endpoint, line.query, line.asked_at, document["result"])
        await line.send(body, *kept, status=f"{status} OK")

    async def asked(self, target: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """What the simulator answers."""
        passed = {name: value for name, value in headers.items() if name.startswith("x-bapi")}
        async with self._http.get(URL(self._simulator + target, encoded=True), headers=passed) as response:
            return response.status, dict(response.headers), await response.read()

    async def _strayed_to(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.strayed += 1
        writer.close()
