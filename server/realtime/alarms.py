"""Alarms: wakes sessions at their moments, those of about the same one together."""

import asyncio
import itertools
import math
import time
from collections.abc import Callable
from typing import Protocol

SLOT_S = 0.01
"""How much later than asked for somebody may be woken."""
SLICE = 25
"""How many are woken before the loop has its turn."""


class Sleeper(Protocol):
    """What is woken."""

    def ring(self) -> None:
        """The moment has come."""


Slot = dict[Sleeper, None]


class Alarms:
    """One timer of the loop for all whose moments fall into the same hundredth of a second, whatever their number.

    With a timer each, ten thousand sockets keep the loop busy with putting these in order, and take 400 bytes more.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._slots: dict[int, Slot] = {}

    def set(self, sleeper: Sleeper, seconds: float) -> Slot:
        """Ring for `sleeper` in so many seconds, never earlier; whoever takes it out of the slot is not rung for."""
        number = math.floor((self._clock() + max(0.0, seconds)) / SLOT_S) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
            self._wait(number)
        slot[sleeper] = None
        return slot

    def _wait(self, number: int) -> None:
        asyncio.get_running_loop().call_later(number * SLOT_S - self._clock(), self._ring, number)

    def _ring(self, number: int) -> None:
        if self._clock() < number * SLOT_S:
            self._wait(number)  # timers of uvloop count whole milliseconds, from the beginning of the loop's turn
            return
        slot = self._slots[number]
        for sleeper in [*itertools.islice(slot, SLICE)]:
            if sleeper in slot:
                del slot[sleeper]
                sleeper.ring()
        if slot:
            asyncio.get_running_loop().call_soon(self._ring, number)
        else:
            del self._slots[number]
