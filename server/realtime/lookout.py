"""Lookout: sees for all sockets at once when a stream no longer keeps a reading young."""

import asyncio
import time
from collections.abc import Callable, Iterable

from ..models import Part, Topic

LOOK_S = 0.25


class Lookout:
    """Looks again and again which of `topics` a stream vouches for, and tells `lost` of each that it did and does not.

    A topic that it vouches for may be as old as its line's last sign of life; without this every socket would set its
    own timer for the moment at which that would be too old, and be woken for nothing each time.
    """

    def __init__(
        self,
        topics: Callable[[], Iterable[Topic]],
        part: Callable[[Topic], Part],
        lost: Callable[[Topic], None],
        *,
        stale_after_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.vouched: frozenset[Topic] = frozenset()
        """What a stream kept and had confirmed lately at the last look; `lost` is told as soon as that is over."""
        self._topics = topics
        self._part = part
        self._lost = lost
        self._stale_after_s = stale_after_s
        self._clock = clock

    async def run(self) -> None:
        """The job."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Look once. About 1 µs a topic."""
        before, now = self.vouched, self._clock()
        self.vouched = frozenset(topic for topic in self._topics() if self._is_vouched(self._part(topic), now))
        for topic in before - self.vouched:
            self._lost(topic)

    def _is_vouched(self, part: Part, now: float) -> bool:
        return part.is_kept and not part.is_stale(now, self._stale_after_s)
