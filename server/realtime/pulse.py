"""The pulse: asks every socket now and then for a sign of life, each in its own moment, so that they make no burst."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol

TURN_S = 0.1
SLICE = 25


class Alive(Protocol):
    """What the pulse needs of a session."""

    def beat(self) -> None:
        """Half a heartbeat has passed: ask for a sign of life, or see whether one came."""


class Pulse:
    """Calls each session's `beat` every half `heartbeat_s`, at a phase of its own, in slices.

    A hand goes round once in that time, over slots that sessions are in by chance: what the pulse costs does not grow
    with how many there are to choose from. aiohttp's own heartbeats fall on whole seconds: a thousand sockets that were
    opened together are then pinged together, every time, and hold the loop for as long as that takes.
    """

    def __init__(self, heartbeat_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._half_s = heartbeat_s / 2
        self._clock = clock
        # By session: whether the hand has been there since it joined; the first time it is passed over.
        self._slots: list[dict[Alive, bool]] = [{} for _ in range(max(4, round(self._half_s / TURN_S)))]
        self._slot_of: dict[Alive, dict[Alive, bool]] = {}

    def __len__(self) -> int:
        return len(self._slot_of)

    def join(self, session: Alive) -> None:
        """Begin to ask, at a moment in the second half of the next heartbeat."""
        slot = self._slot_of[session] = random.choice(self._slots)
        slot[session] = False

    def leave(self, session: Alive) -> None:
        """Ask no more, and forget the session at once."""
        if (slot := self._slot_of.pop(session, None)) is not None:
            del slot[session]

    async def run(self) -> None:
        """Ask for ever."""
        turn_s, due = self._half_s / len(self._slots), self._clock()
        while True:
            for slot in self._slots:
                # A loop that was late does not make up for it: every answer gets its time.
                due = max(due + turn_s, self._clock() - self._half_s / 2)
                await asyncio.sleep(max(0.0, due - self._clock()))
                await self._visit(slot)

    async def _visit(self, slot: dict[Alive, bool]) -> None:
        for number, session in enumerate([*slot], 1):
            if slot.get(session):
                session.beat()
            elif session in slot:
                slot[session] = True
            if number % SLICE == 0:
                await asyncio.sleep(0)
