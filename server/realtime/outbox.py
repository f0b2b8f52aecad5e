"""Outbox: what one socket is given to write, and what happens when its reader is slow."""

import asyncio
import time
from collections.abc import Callable

from ..settings import WebSocketSettings
from .farewell import Socket
from .frames import Frame

DRAIN_LOOK_S = 0.05
LAST_LOOK_S = 0.4
"""Looks at a reader that has stopped come half as often each time: thousands of them must not cost the others."""


class Outbox:
    """Whole frames onto one transport, never waiting for it.

    While more than `high_water_bytes` wait in the transport's buffer nothing is added but the newest snapshot is kept,
    for when it drains; longer than `slow_limit_s` of that, or over `slow_limit_bytes`, is reported once as too slow.
    aiohttp's own frames (ping, pong, close) are whole too, so nothing interleaves; after a close frame nothing follows.
    """

    # Slots lie in one piece of memory: while thousands are written to, what is spread is fetched anew each time.
    __slots__ = (
        "_clock",
        "_is_shut",
        "_look",
        "_look_s",
        "_pending",
        "_settings",
        "_slow_since",
        "_too_slow",
        "_transport",
        "frames_conflated",
        "frames_sent",
        "last_sequence",
        "sent_at",
    )

    def __init__(
        self,
        ws: Socket,
        transport: asyncio.Transport,
        *,
        settings: WebSocketSettings,
        too_slow: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        ws.before_close = self.shut
        self._is_shut = False
        self._transport = transport
        self._settings = settings
        self._too_slow = too_slow
        self._clock = clock
        self._pending: Frame | None = None
        self._slow_since: float | None = None
        self._look: asyncio.TimerHandle | None = None
        self._look_s = DRAIN_LOOK_S
        self.last_sequence = 0
        self.sent_at = clock()
        self.frames_sent = 0
        self.frames_conflated = 0

    @property
    def is_open(self) -> bool:
        """Whether a frame can still be written."""
        return not (self._is_shut or self._transport.is_closing())

    def shut(self) -> None:
        """Write nothing any more: the close frame goes out."""
        self._is_shut = True

    def offer(self, frame: Frame) -> None:
        """Write a snapshot, or keep it as the newest for when the reader catches up. Never twice, never backwards."""
        transport = self._transport
        if (
            self._pending is None
            and frame.sequence > self.last_sequence
            and transport.get_write_buffer_size() <= self._settings.high_water_bytes
        ):
            # The common case, for each of thousands of sockets.
            if not (self._is_shut or transport.is_closing()):
                self.last_sequence = frame.sequence
                self._slow_since = None
                transport.write(frame.data)
                self.sent_at = frame.encoded_at
                self.frames_sent += 1
            return
        newest = self.last_sequence if self._pending is None else self._pending.sequence
        if frame.sequence <= newest or not self.is_open:
            return
        self.frames_conflated += self._pending is not None
        self._pending = frame
        if self._is_low():
            self._write_snapshot(frame)

    def send(self, data: bytes) -> bool:
        """Write a frame that is no snapshot; says whether it did. A reader that is too slow for it loses it."""
        if not (self.is_open and self._is_low()):
            return False
        self._write(data)
        return True

    def control(self, data: bytes) -> bool:
        """The same for a control frame, which clients in browsers do not see: it counts as no sign of ours."""
        if not (self.is_open and self._is_low()):
            return False
        self._transport.write(data)
        return True

    def close(self) -> None:
        """Forget what is pending, and the session: two that hold each other wait for the garbage collector."""
        self._pending = None
        self._too_slow = _nobody
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _write_snapshot(self, frame: Frame) -> None:
        self.last_sequence = frame.sequence
        self._pending = None
        self._write(frame.data)

    def _write(self, data: bytes) -> None:
        self._transport.write(data)
        self.sent_at = self._clock()
        self.frames_sent += 1

    def _is_low(self) -> bool:
        """Whether the reader keeps up; where it does not, looks again soon, until it does or is too slow."""
        queued = self._transport.get_write_buffer_size()
        if queued <= self._settings.high_water_bytes:
            self._slow_since, self._look_s = None, DRAIN_LOOK_S
            return True
        now = self._clock()
        self._slow_since = self._slow_since if self._slow_since is not None else now
        if queued > self._settings.slow_limit_bytes or now - self._slow_since > self._settings.slow_limit_s:
            self._too_slow()
        elif self._look is None:
            self._look = asyncio.get_running_loop().call_later(self._look_s, self._look_again)
            self._look_s = min(LAST_LOOK_S, self._look_s * 2)
        return False

    def _look_again(self) -> None:
        self._look = None
        if self.is_open and self._is_low() and self._pending is not None:
            self._write_snapshot(self._pending)


def _nobody() -> None:
    """Nobody is to be told any more."""
