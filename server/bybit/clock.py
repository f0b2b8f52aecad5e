"""The exchange's clock against ours: how far they are apart, and whether an answer is of the present."""

import time
from collections.abc import Callable
from typing import NamedTuple

SLACK_MS = 3000
"""How far an answer's time may be off: machines of the exchange differ, and an answer may wait for a second."""
RENEWED_MS = 600_000
"""How old a measurement may be: clocks drift."""


def wall_ms() -> float:
    """Our clock, in Unix milliseconds."""
    return time.time() * 1000


class Offset(NamedTuple):
    """What our clock lacked to the exchange's at one answer, and by how much that may be wrong: half its way."""

    ms: float
    uncertain_ms: float


class ExchangeClock:
    """Keeps the offset that the exchange's clock has shown, to which every other answer is compared.

    Answers never change it, or what a cache repeats for ever would take it along, second by second.
    """

    def __init__(self, wall: Callable[[], float] = wall_ms) -> None:
        self._wall = wall
        self._measured_ms = float("-inf")
        self._offset: Offset | None = None

    @property
    def offset_ms(self) -> int | None:
        """What our clock lacks to the exchange's; None before it was measured."""
        return None if self._offset is None else round(self._offset.ms)

    @property
    def is_due(self) -> bool:
        """Whether the offset was measured so long ago, or before our clock was set back, that it should be again."""
        return not 0 <= self._wall() - self._measured_ms < RENEWED_MS

    def now_ms(self) -> float:
        """Our own clock."""
        return self._wall()

    def offset_of(self, time_ms: int, sent_ms: float) -> Offset | None:
        """The offset that an answer shows, which came now to a question of `sent_ms`; None if it names no time."""
        received_ms = self._wall()
        if not time_ms:
            return None
        return Offset(time_ms - (sent_ms + received_ms) / 2, (received_ms - sent_ms) / 2)

    def agrees(self, offset: Offset | None) -> bool:
        """Whether an answer's offset is near the one known; an answer that names no time says nothing against it."""
        if offset is None or self._offset is None:
            return offset is None
        return abs(offset.ms - self._offset.ms) <= SLACK_MS + offset.uncertain_ms + self._offset.uncertain_ms

    def set(self, offset: Offset) -> None:
        """Take `offset` for what it is: it comes from the exchange's clock, or nothing better is to be had."""
        self._offset = offset
        self._measured_ms = self._wall()
