"""The way in to the streams: refusals, the upgrade, and reading what each client says until it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import WSMsgType, web

from .connection import Connection
from .faults import cut
from .frames import pong_frame
from .limits import ConnectLimit
from .operations import Operations
from .streamfaults import EVERY, ActiveStream, Kind
from .streams import GOING_AWAY, PRIVATE, Streams

PATHS: Mapping[str, str] = {
    "/v5/public/linear": "linear",
    "/v5/public/inverse": "inverse",
    "/v5/public/spot": "spot",
    "/v5/private": PRIVATE,
}
MOST_BYTES = 1 << 20
CLOSE_S = 1.0
LOOK_S = 0.1
ENDS = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


class Sockets:
    """The handler of every stream connection."""

    def __init__(self, streams: Streams, limit: ConnectLimit | None) -> None:
        self.streams, self.limit, self.operations = streams, limit, Operations(streams)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serves one connection for as long as it lasts."""
        path, loop = PATHS[request.path], asyncio.get_running_loop()
        if (refusing := self.streams.faults.hit(Kind.REFUSE, path, EVERY)) is not None:
            self.streams.refused += 1
            return await _refuse(refusing, request)
        if self.limit is not None and not self.limit.admits(request.remote or "", loop.time()):
            self.streams.refused += 1
            return web.Response(status=403, text="403 Forbidden")
        socket = web.WebSocketResponse(
            timeout=CLOSE_S, autoclose=False, autoping=False, compress=False, max_msg_size=MOST_BYTES
        )
        await socket.prepare(request)
        assert request.transport is not None
        connection = self.streams.open(path, request.transport)
        try:
            await self._read(socket, connection)
            await self._leave(socket, connection)
        finally:
            self.streams.close(connection)
        return socket

    async def _read(self, socket: web.WebSocketResponse, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        while (message := await socket.receive()).type not in ENDS:
            connection.heard_s = loop.time()
            if message.type is WSMsgType.PING:
                self.streams.send(connection, pong_frame(bytes(message.data)))
            elif message.type is WSMsgType.TEXT and not self.operations.perform(connection, message.data):
                return

    async def _leave(self, socket: web.WebSocketResponse, connection: Connection) -> None:
        """Closes the socket, but not while nothing is to be sent: then it stays as long as the client bears it."""
        while (fault := self.streams.faults.find(Kind.SWALLOW, connection.path)) and not connection.is_gone:
            try:
                await asyncio.wait_for(fault.removed.wait(), LOOK_S)
            except TimeoutError:
                continue
        await socket.close(drain=False)

    async def end(self, _: web.Application) -> None:
        """Ends all that is under way."""
        self.streams.heal()
        self.streams.end_all(code=GOING_AWAY)


async def _refuse(active: ActiveStream, request: web.Request) -> web.Response:
    if active.fault.hang:
        await active.removed.wait()
    if active.fault.hang or active.fault.status is None:
        return cut(request)
    return web.Response(status=active.fault.status, text=str(active.fault.status))
