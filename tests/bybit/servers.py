"""Exchanges that answer whatever a test says, over raw sockets on a free port, and what an answer looks like."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple, Self

NOW_MS = 1_732_280_123_456


class Request(NamedTuple):
    """One request as it came over the wire; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """The query, undecoded."""
        pairs = (pair.partition("=") for pair in self.target.partition("?")[2].split("&") if pair)
        return {name: value for name, _, value in pairs}


Write = Callable[[bytes], Awaitable[None]]
Answer = Callable[[Request, Write], Awaitable[bytes | None]]
"""Gives the bytes of the answer, or writes them itself; None closes the connection."""


class Server:
    """Counts connections and keeps requests; `connected` and `asked` are set by the first of each."""

    def __init__(self, answer: bytes | Answer) -> None:
        self.answer = answer
        self.connections = 0
        self.requests: list[Request] = []
        self.asked = asyncio.Event()
        self.connected = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self._tls = False

    async def start(self, tls: ssl.SSLContext | None = None) -> Self:
        self._tls = tls is not None
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls, limit=2**20)
        return self

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.connected.set()
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            await self._talk(reader, writer)
        writer.transport.abort()
        self._tasks.discard(task)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        while True:
            request = parsed(await reader.readuntil(b"\r\n\r\n"))
            self.requests.append(request)
            self.asked.set()
            answer = self.answer if isinstance(self.answer, bytes) else await self.answer(request, write)
            if answer is None:
                writer.close()
                return await writer.wait_closed()
            await write(answer)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()


def parsed(head: bytes) -> Request:
    """A request's head."""
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = (line.split(": ", 1) for line in lines)
    return Request(method, target, {name.lower(): value for name, value in headers})


Serve = Callable[..., Awaitable[Server]]


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Serve]:
    """Starts servers; all end with the context."""
    servers: list[Server] = []

    async def serve(answer: bytes | Answer, tls: ssl.SSLContext | None = None) -> Server:
        servers.append(Server(answer))
        return await servers[-1].start(tls)

    yield serve
    for server in servers:
        await server.close()


def answer_of(body: bytes | str, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """A whole HTTP answer."""
    body = body.encode() if isinstance(body, str) else body
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers)
    return "\r\n".join((*lines, "\r\n")).encode() + body


def envelope(result: Any, ret_code: int = 0, ret_msg: str = "OK", **more: Any) -> bytes:
    """Bybit's envelope as a whole HTTP answer."""
    document = {"retCode": ret_code, "retMsg": ret_msg, "result": result, "retExtInfo": {}, "time": NOW_MS, **more}
    return answer_of(json.dumps(document), "Content-Type: application/json; charset=utf-8")


async def silent(_: Request, __: Write) -> None:
    """Never answers."""
    await asyncio.get_running_loop().create_future()


def dripping(head: bytes, body: bytes, every_s: float) -> Answer:
    """Sends `head` at once, then `body` byte by byte, then closes."""

    async def answer(_: Request, write: Write) -> None:
        await write(head)
        for byte in body:
            await write(bytes((byte,)))
            await asyncio.sleep(every_s)

    return answer
