"""The pulse: asks every socket now and then for a sign of life, each in its own moment, so that they make no burst."""

import asyncio
import heapq
import itertools
import random
import time
from collections.abc import Callable
from typing import Protocol

LOOK_S = 0.1
SLICE = 25


class Alive(Protocol):
    """What the pulse needs of a session."""

    def beat(self) -> None:
        """Half a heartbeat has passed: ask for a sign of life, or see whether one came."""


class Beat:
    """When a session is due again; without the session once it has left, so that nothing holds it."""

    __slots__ = ("due", "number", "session")

    def __init__(self, due: float, number: int, session: Alive) -> None:
        self.due, self.number = due, number
        self.session: Alive | None = session

    def __lt__(self, other: "Beat") -> bool:
        return (self.due, self.number) < (other.due, other.number)


class Pulse:
    """Calls each session's `beat` every half `heartbeat_s`, at a phase of its own, in slices.

    aiohttp's own heartbeats fall on whole seconds: a thousand sockets that were opened together are then pinged
    together, every time, and hold the loop for as long as that takes.
    """

    def __init__(self, heartbeat_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._half_s = heartbeat_s / 2
        self._clock = clock
        self._numbers = itertools.count()
        self._queue: list[Beat] = []
        self._of: dict[Alive, Beat] = {}

    def __len__(self) -> int:
        return len(self._of)

    def join(self, session: Alive) -> None:
        """Begin to ask, at a moment in the second half of the next heartbeat."""
        beat = Beat(self._clock() + random.uniform(1, 2) * self._half_s, next(self._numbers), session)
        self._of[session] = beat
        heapq.heappush(self._queue, beat)

    def leave(self, session: Alive) -> None:
        """Ask no more, and forget the session at once."""
        if (beat := self._of.pop(session, None)) is not None:
            beat.session = None

    async def run(self) -> None:
        """Ask for ever."""
        look_s = min(LOOK_S, self._half_s / 4)
        while True:
            await asyncio.sleep(look_s)
            now = self._clock()
            for number in itertools.count(1):
                if not self._queue or self._queue[0].due > now:
                    break
                self._next(now)
                if number % SLICE == 0:
                    await asyncio.sleep(0)

    def _next(self, now: float) -> None:
        beat = heapq.heappop(self._queue)
        if beat.session is not None:
            beat.session.beat()
            # A loop that was late does not make up for it: every answer gets its time.
            beat.due = max(beat.due, now - self._half_s / 2) + self._half_s
            heapq.heappush(self._queue, beat)
