"""The watchdog: a thread that notices when the event loop is blocked, and says in the log by what.

It is for what takes long and ends: a tenth of a second in which everybody waits. A worker that hangs for good is its
supervisor's to notice, by `server.hang_s`.
"""

import asyncio
import linecache
import selectors
import sys
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from types import CodeType

from .histogram import Histogram
from .telemetry import Sampler, get_logger

log = get_logger(__name__)

LOOK_S = 0.04
"""How often the thread looks, and so how much earlier than asked the loop may have been blocked already."""
BLOCKED_S = 0.1
SUSPECT_S = 0.04
"""How long an answer may take before the thread notes where the loop is: afterwards there is nothing to be seen."""
LINES_PER_S = 0.2
DEPTH = 40
"""Innermost frames that are logged."""
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

IDLE: frozenset[CodeType] = frozenset(
    (asyncio.Runner.run.__code__, selectors.DefaultSelector.select.__code__)  # a loop in C has no frame of its own
)
"""Where a loop that waits for events is found."""

Stack = Sequence[tuple[CodeType, int]]


class Watchdog:
    """Looks where the loop is, and unless it waits for events, has it answer.

    How long the answer takes is the lag. Whatever holds the loop for 100 ms is logged once, with the stack in which the
    loop was found, unless there was a line just before; something a little shorter may be.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.lags = Histogram(BOUNDS_S)
        self.blocked = 0
        self.asked = 0
        self._clock = clock
        self._answers: SimpleQueue[float | None] = SimpleQueue()
        self._sampler = Sampler(LINES_PER_S, clock=clock)

    def start(self) -> None:
        """Watch the running loop, on whose thread this is called."""
        args = asyncio.get_running_loop(), threading.get_ident()
        threading.Thread(target=self._watch, args=args, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no more; the thread ends by itself."""
        self._answers.put(None)

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        """In the thread, until it is told to stop."""
        while True:
            try:
                self._answers.get(timeout=LOOK_S)
            except Empty:
                pass
            else:
                return  # nothing else is said without being asked
            if is_idle(thread):
                self.lags.observe(0.0)
            elif not self._ask(loop, thread):
                return

    def _ask(self, loop: asyncio.AbstractEventLoop, thread: int) -> bool:
        """Have the loop answer, however long that takes; says whether to go on."""
        asked_at, stack = self._clock(), None
        self.asked += 1
        try:
            loop.call_soon_threadsafe(self._answer)
        except RuntimeError:
            return False  # it is closed
        try:
            answered_at = self._answers.get(timeout=SUSPECT_S)
        except Empty:
            stack = stack_of(thread)
            answered_at = self._answers.get()
        if answered_at is not None:
            self.judge(answered_at - asked_at, stack)
        return answered_at is not None

    def _answer(self) -> None:
        self._answers.put(self._clock())

    def judge(self, lag_s: float, stack: Stack | None) -> None:
        """Count a lag, and a blockage where it may have been one; log that."""
        self.lags.observe(lag_s)
        if lag_s < BLOCKED_S - LOOK_S:
            return
        self.blocked += 1
        if (missed := self._sampler.admit()) is not None:
            found = "not seen: the interpreter was held, too" if stack is None else text_of(stack)
            log.warning("loop_blocked", duration_ms=round(lag_s * 1000), stack=found, lines_missed=missed)


def is_idle(thread: int) -> bool:
    """Whether the loop on that thread waits for events, or is in a callback that is no Python."""
    frame = sys._current_frames().get(thread)
    return frame is not None and frame.f_code in IDLE


def stack_of(thread: int) -> Stack:
    """Where that thread is, innermost first; without any value, which may be secret.

    No I/O in here: whoever lets the interpreter go would keep the frames, and all that they hold, from their end.
    """
    frame = sys._current_frames().get(thread)
    stack: list[tuple[CodeType, int]] = []
    while frame is not None and len(stack) < DEPTH:
        # Between two lines a frame is at none, whatever its type says.
        stack.append((frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno))
        frame = frame.f_back
    return stack


def text_of(stack: Stack) -> str:
    """The outermost frame first, as tracebacks have it."""
    return "\n".join(
        f"{code.co_filename}:{line} {code.co_qualname}: {linecache.getline(code.co_filename, line).strip()}"
        for code, line in reversed(stack)
    )
