"""Outbox: what one socket is given to write, and what happens when its reader is slow."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from ..settings import WebSocketSettings
from .farewell import Socket
from .frames import Frame

DRAIN_LOOK_S = 0.05
LAST_LOOK_S = 0.4
"""Looks at a reader that has stopped come half as often each time: thousands of them must not cost the others."""


class Recipient(Protocol):
    """Who a kept frame is for."""

    def wrote(self, frame: Frame) -> None:
        """It was written."""


class Outbox:
    """Whole frames onto one transport, never waiting for it.

    By its settings: while more than `high_water_bytes` wait in the transport's buffer nothing is added, but the newest
    snapshot of each channel is kept for when it drains; longer than `slow_limit_s` of that, or over `slow_limit_bytes`,
    is reported once as too slow. aiohttp's own frames (close) are whole too, so nothing interleaves; after a close
    frame nothing follows.

    `turn` holds what waits for the flush at the end of the loop's turn, in one piece; `is_full`: no more goes into that
    piece, or it would itself be over what a reader may be behind. `is_clear`: nothing waits there, nothing is kept, and
    it is not shut. `frames_sent` leaves out what subscriptions that are still there count.
    """

    # Slots: while thousands are written to, what is spread in memory is fetched anew each time.
    __slots__ = (
        "_clock",
        "_is_shut",
        "_kept",
        "_look",
        "_look_s",
        "_settings",
        "_slow_since",
        "_too_slow",
        "_turn_bytes",
        "frames_conflated",
        "frames_sent",
        "high_water_bytes",
        "is_clear",
        "is_full",
        "sent_at",
        "transport",
        "turn",
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
        self.transport = transport
        self.high_water_bytes = settings.high_water_bytes
        self.is_clear, self.is_full = True, False
        self.sent_at = clock()
        self.frames_conflated = self.frames_sent = 0
        self._settings = settings
        self._too_slow = too_slow
        self._clock = clock
        self._is_shut = False
        self._kept: dict[Recipient, Frame] = {}
        self.turn: list[bytes] = []
        self._turn_bytes = 0
        self._slow_since: float | None = None
        self._look: asyncio.TimerHandle | None = None
        self._look_s = DRAIN_LOOK_S

    @property
    def is_open(self) -> bool:
        """Whether a frame can still be written."""
        return not (self._is_shut or self.transport.is_closing())

    def shut(self) -> None:
        """Write nothing any more: the close frame goes out."""
        self._is_shut, self.is_clear = True, False
        self._kept.clear()
        self.turn.clear()

    def keep(self, recipient: Recipient, frame: Frame) -> None:
        """Keep `frame` as the newest of its channel, for when the reader has caught up."""
        if not self.is_open:
            return
        self.flush()
        newest = self._kept.get(recipient)
        if newest is not None and newest.sequence >= frame.sequence:
            return
        self.frames_conflated += newest is not None
        self._kept[recipient] = frame
        self.is_clear = False
        if self._is_low():
            self._write_kept()

    def forget(self, recipient: Recipient) -> None:
        """Nothing is kept for `recipient` any more."""
        self._kept.pop(recipient, None)
        self._settle()

    def add(self, data: bytes) -> None:
        """Write `data` at the next flush, for which whoever was first has to see."""
        self.turn.append(data)
        self._turn_bytes += len(data)
        limits = self._settings
        self.is_clear = False
        self.is_full = 2 * self._turn_bytes >= limits.slow_limit_bytes - limits.high_water_bytes

    def flush(self) -> None:
        """Write what was added, in one piece."""
        if not self.turn:
            return
        turn, self.turn = self.turn, []
        self._turn_bytes, self.is_full = 0, False
        self._settle()
        if self.is_open:
            self.transport.write(turn[0] if len(turn) == 1 else b"".join(turn))
            self._is_low()

    def send(self, data: bytes) -> bool:
        """Write a frame that is no snapshot; says whether it did. A reader that is too slow for it loses it."""
        if not (self.is_open and self._is_low()):
            return False
        self.flush()
        self._write_kept()  # what is older goes first, a status would seem to be taken back by it
        if self._kept:
            return False
        self.transport.write(data)
        self.sent_at = self._clock()
        self.frames_sent += 1
        return True

    def reply(self, data: bytes) -> None:
        """Write an answer, of which a client may have only so many: it is never lost, however slow the reader."""
        if self.is_open:
            self.flush()
            self.transport.write(data)
            self.sent_at = self._clock()
            self.frames_sent += 1
            self._is_low()

    def control(self, data: bytes) -> bool:
        """The same for a control frame, which clients in browsers do not see: it counts as no sign of ours."""
        if not (self.is_open and self._is_low()):
            return False
        self.transport.write(data)
        return True

    def close(self) -> None:
        """Forget what is kept, and the session: two that hold each other wait for the garbage collector."""
        self.shut()
        self._too_slow = _nobody
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _write_kept(self) -> None:
        """Write what is kept, as far as the reader takes it."""
        while self._kept and self._is_low():
            recipient = next(iter(self._kept))
            frame = self._kept.pop(recipient)
            self.transport.write(frame.data)
            recipient.wrote(frame)
        self._settle()

    def _settle(self) -> None:
        self.is_clear = not (self._kept or self.turn or self._is_shut)

    def _is_low(self) -> bool:
        """Whether the reader keeps up; where it does not, looks again soon, until it does or is too slow."""
        queued = self.transport.get_write_buffer_size()
        if queued <= self.high_water_bytes:
            self._slow_since, self._look_s = None, DRAIN_LOOK_S
            return True
        now = self._clock()
        self._slow_since = self._slow_since if self._slow_since is not None else now
        limits = self._settings
        if queued > limits.slow_limit_bytes or now - self._slow_since > limits.slow_limit_s:
            self._too_slow()
        elif self._look is None:
            self._look = asyncio.get_running_loop().call_later(self._look_s, self._look_again)
            self._look_s = min(LAST_LOOK_S, self._look_s * 2)
        return False

    def _look_again(self) -> None:
        self._look = None
        if self.is_open and self._is_low():
            self._write_kept()


def _nobody() -> None:
    """Nobody is to be told any more."""
