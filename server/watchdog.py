"""The watchdog: a thread that notices when the event loop is blocked, and says in the log by what.

It is for what takes long and ends: a tenth of a second in which everybody waits. A worker that hangs for good is its
supervisor's to notice, by `server.hang_s`.
"""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import NamedTuple

from .histogram import Histogram
from .telemetry import Sampler, get_logger

log = get_logger(__name__)

BEAT_S = 0.025
SUSPECT_S = 0.06
"""Silence after which the thread looks what the loop is at, so that it knows if that becomes a blockage."""
BLOCKED_S = 0.1
LINES_PER_S = 0.2
DEPTH = 40
"""Innermost frames that are logged."""
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Silence(NamedTuple):
    """Between two beats of the loop: when the first one was, on the monotonic clock, and how long after it the next."""

    since: float
    seconds: float


class Watchdog:
    """Has the loop beat, and a thread listen to it.

    A beat that comes late tells the lag. Whatever holds the loop for 100 ms makes a silence of at least as long between
    two beats, and is logged once, with the stack in which the loop was found, unless there was a line just before.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.lags = Histogram(BOUNDS_S)
        self.blocked = 0
        self._clock = clock
        self._beat_at = clock()
        self._silences: SimpleQueue[Silence | None] = SimpleQueue()
        self._sampler = Sampler(LINES_PER_S, clock=clock)
        self._timer: asyncio.TimerHandle | None = None
        self._loop_thread = 0

    def start(self) -> None:
        """Watch the running loop, on whose thread this is called."""
        self._loop_thread, self._beat_at = threading.get_ident(), self._clock()
        self._timer = asyncio.get_running_loop().call_later(BEAT_S, self._beat, asyncio.get_running_loop())
        threading.Thread(target=self._listen, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no more; the thread ends by itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._silences.put(None)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        now = self._clock()
        silence, self._beat_at = Silence(self._beat_at, now - self._beat_at), now
        self.lags.observe(max(0.0, silence.seconds - BEAT_S))
        if silence.seconds >= BLOCKED_S:
            self.blocked += 1
            self._silences.put(silence)
        self._timer = loop.call_later(BEAT_S, self._beat, loop)

    def _listen(self) -> None:
        """In the thread: sleep until the loop is suspiciously silent, or a long silence has ended."""
        seen_since, stack = -1.0, None
        while True:
            due_s = self._beat_at + SUSPECT_S - self._clock()
            try:
                silence = self._silences.get(timeout=due_s if due_s > 0 else BEAT_S)
            except Empty:
                if self._clock() - (beat_at := self._beat_at) >= SUSPECT_S and beat_at != seen_since:
                    seen_since, stack = beat_at, self._stack()
                continue
            if silence is None:
                return
            self._tell(silence.seconds, stack if seen_since == silence.since else None)

    def _stack(self) -> traceback.StackSummary | None:
        """Where the loop is now; without the values of anything, which may be secret."""
        frame = sys._current_frames().get(self._loop_thread)
        if frame is None:
            return None
        return traceback.StackSummary.extract(traceback.walk_stack(frame), limit=DEPTH, lookup_lines=False)

    def _tell(self, silence_s: float, stack: traceback.StackSummary | None) -> None:
        if (missed := self._sampler.admit()) is None:
            return
        found = "not seen: what blocked held the interpreter, too" if stack is None else _text(stack)
        log.warning("loop_blocked", duration_ms=round(silence_s * 1000), stack=found, lines_missed=missed)


def _text(stack: traceback.StackSummary) -> str:
    """The outermost frame first, as tracebacks have it."""
    stack.reverse()
    return "".join(stack.format())
