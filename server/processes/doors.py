"""Doors: which listening sockets this process accepts on. One can be left to others without losing who stands in it."""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Sequence

from aiohttp import web

from ..loops import connect_accepted
from ..telemetry import Sampler, get_logger

log = get_logger(__name__)

SETTLE_S = 0.25
"""How long after the last accept a connection has to bring its first request."""
BATCH = 64
"""Connections accepted in one turn of the loop."""
LOOK_S = 0.05
"""How often it is looked whether there is room again."""
TOLD_S = 5.0
"""How often it is logged that there is none."""
KEPT_DESCRIPTORS = 100
"""Kept from all connections together: a call to the exchange needs two."""
LINES_PER_S = 1
"""Of connections that were not set up: whoever scans for ports must not fill the log."""


class Doors:
    """The process's listening sockets, of which some are open: there it accepts, and aiohttp serves.

    Accepting is done here, without a server of asyncio's between: such a one loses what it has accepted and not yet set
    up when it closes, and knows no end of descriptors but the last one, with which no call can be made any more. Here
    connections wait outside while descriptors are short; what is inside goes on.
    """

    def __init__(
        self,
        runner: web.AppRunner,
        listeners: Sequence[socket.socket],
        *,
        backlog: int,
        descriptors: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`descriptors` is how many this process may have, None for any number; with `tls` nothing else is spoken."""
        self._runner = runner
        self._listeners = listeners
        self._backlog = backlog
        self._tls = tls
        self._lines = Sampler(LINES_PER_S)
        self._open: dict[int, socket.socket] = {}
        self._takers: dict[socket.socket, asyncio.Future[None]] = {}
        self._settling: set[asyncio.Task[object]] = set()
        self._limit = float("inf") if descriptors is None else descriptors - min(KEPT_DESCRIPTORS, descriptors // 2)
        self._pause: asyncio.TimerHandle | None = None
        self._told_at = float("-inf")

    def open(self, index: int) -> None:
        """Accept on that listening socket, if that is not so already."""
        if index in self._open:
            return
        door = self._open[index] = self._listeners[index]
        door.setblocking(False)
        door.listen(self._backlog)
        if self._pause is None:
            self._watch(door)

    def leave(self, index: int) -> None:
        """Accept there no more. Who has come in stays."""
        if (door := self._open.pop(index, None)) is not None:
            self._ignore(door)

    def stop_accepting(self) -> None:
        """Accept nowhere any more."""
        for index in [*self._open]:
            self.leave(index)
        if self._pause is not None:
            self._pause.cancel()

    def _watch(self, door: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            loop.add_reader(door, self._accept, door)
        except NotImplementedError:  # Windows' own loop
            self._takers[door] = asyncio.ensure_future(self._take(door))

    def _ignore(self, door: socket.socket) -> None:
        if (taker := self._takers.pop(door, None)) is not None:
            taker.cancel()
        else:
            asyncio.get_running_loop().remove_reader(door)

    async def _take(self, door: socket.socket) -> None:
        while True:
            connection, _ = await asyncio.get_running_loop().sock_accept(door)
            self._let_in(connection)

    def _accept(self, door: socket.socket) -> None:
        """Take in who waits at `door`, so many at a time that others have their turn."""
        for _ in range(BATCH):
            try:
                connection, _ = door.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._close_for_now(error.strerror or str(error))
                return
            self._let_in(connection)
            if connection.fileno() >= self._limit:
                self._close_for_now("new connections wait until others have gone")
                return

    def _let_in(self, connection: socket.socket) -> None:
        server = self._runner.server
        assert server is not None, "the runner is set up before any door is opened"
        connection.setblocking(False)
        task: asyncio.Task[object] = asyncio.ensure_future(connect_accepted(server, connection, self._tls))
        self._settling.add(task)
        task.add_done_callback(self._settled)

    def _settled(self, task: "asyncio.Task[object]") -> None:
        self._settling.discard(task)
        if task.cancelled() or (error := task.exception()) is None or (unlogged := self._lines.admit()) is None:
            return
        detail = getattr(error, "reason", None) or str(error) or type(error).__name__
        log.warning("connection_not_set_up", detail=detail, **({"unlogged": unlogged} if unlogged else {}))

    def _close_for_now(self, detail: str) -> None:
        now = time.monotonic()
        if now - self._told_at > TOLD_S:
            log.warning("descriptors_short", detail=detail)
            self._told_at = now
        for door in self._open.values():
            self._ignore(door)
        self._pause = asyncio.get_running_loop().call_later(LOOK_S, self._reopen)

    def _reopen(self) -> None:
        if not self._has_room():
            self._pause = asyncio.get_running_loop().call_later(LOOK_S, self._reopen)
            return
        self._pause = None
        for door in self._open.values():
            self._watch(door)

    def _has_room(self) -> bool:
        try:
            lowest = os.dup(self._listeners[0].fileno())
        except OSError:
            return False
        os.close(lowest)
        return lowest < self._limit
