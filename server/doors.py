"""Doors: which listening sockets this process accepts on. One can be left to others without losing who stands in it."""

import asyncio
import contextlib
import socket
from collections.abc import Sequence

from aiohttp import web

SETTLE_S = 0.25
"""How long after the last accept a connection has to bring its first request."""


class Doors:
    """The process's listening sockets and the sites on them.

    Each site has a descriptor of its own, so that ending it takes nothing from other holders of the socket. asyncio
    loses connections that it has accepted but not yet set up when their server closes, and aiohttp those that have
    not asked yet: so a door first stops accepting, and its site ends a while later.
    """

    def __init__(self, runner: web.AppRunner, listeners: Sequence[socket.socket], *, backlog: int) -> None:
        self._runner = runner
        self._listeners = listeners
        self._backlog = backlog
        self._open: dict[int, tuple[socket.socket, web.SockSite]] = {}

    async def open(self, index: int) -> None:
        """Accept on that listening socket, if that is not so already."""
        if index not in self._open:
            door = self._listeners[index].dup()
            site = web.SockSite(self._runner, door, backlog=self._backlog)
            self._open[index] = door, site
            await site.start()

    async def leave(self, index: int) -> None:
        """Accept there no more, and end its site once its last connections are settled."""
        if index in self._open:
            door, site = self._open.pop(index)
            _stop_accepting(door)
            await asyncio.sleep(SETTLE_S)
            await site.stop()

    def stop_accepting(self) -> None:
        """Accept nowhere any more; the sites stay for the runner to end."""
        for door, _ in self._open.values():
            _stop_accepting(door)


def _stop_accepting(door: socket.socket) -> None:
    with contextlib.suppress(NotImplementedError):  # Windows' own loop
        asyncio.get_running_loop().remove_reader(door)
