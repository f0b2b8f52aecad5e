"""One client's stream connection as the exchange sees it: what it follows, who it is, and the way to its socket."""

from __future__ import annotations

import asyncio
from collections import deque

from .frames import close_frame
from .signing import ApiKey

OVERFULL_BYTES = 1 << 26


class Connection:
    """Writes whole frames, at once or later, in order. A client that does not read is aborted at 64 MiB.

    `transport` is the connection's own, after the upgrade. `heard_s`: when it last said something, by the loop's clock.
    """

    def __init__(self, identity: str, path: str, transport: asyncio.Transport) -> None:
        self.identity, self.path = identity, path
        self.key: ApiKey | None = None
        self.topics: set[str] = set()
        self._transport, self._loop = transport, asyncio.get_running_loop()
        self.heard_s = self._loop.time()
        self._late: deque[tuple[float, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_gone(self) -> bool:
        return self._transport.is_closing()

    def write(self, frame: bytes) -> None:
        """Sends a frame now."""
        if self._transport.is_closing():
            return
        self._transport.write(frame)
        if self._transport.get_write_buffer_size() > OVERFULL_BYTES:
            self._transport.abort()

    def write_later(self, frame: bytes, delay_s: float) -> None:
        """Sends a frame after the delay, and after all that were to be sent later before it."""
        due_s = self._loop.time() + delay_s
        self._late.append((max(due_s, self._late[-1][0]) if self._late else due_s, frame))
        if self._timer is None:
            self._timer = self._loop.call_at(self._late[0][0], self._write_due)

    def _write_due(self) -> None:
        self._timer = None
        while self._late and self._late[0][0] <= self._loop.time():
            self.write(self._late.popleft()[1])
        if self._late:
            self._timer = self._loop.call_at(self._late[0][0], self._write_due)

    def flush(self) -> None:
        """Sends all that were to be sent later."""
        while self._late:
            self.write(self._late.popleft()[1])

    def end(self, code: int | None) -> None:
        """Closes with a code, or aborts."""
        self._late.clear()
        if self._timer is not None:
            self._timer.cancel()
        if code is None:
            self._transport.abort()
        elif not self._transport.is_closing():
            self._transport.write(close_frame(code))
            self._transport.close()
