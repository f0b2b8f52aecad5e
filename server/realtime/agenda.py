"""Agenda: which subscriptions of one session are due next, and when."""

import heapq
import itertools
import math

from .subscription import Subscription

ENDED = 32
"""Subscriptions that have ended and are still noted, beside as many as there were others, before they are cleared."""

numbers = itertools.count()
"""Tells apart what is due at the same moment."""


class Agenda:
    """Open subscriptions by the moment at which they are due, on the session's clock."""

    __slots__ = ("_entries", "_most")

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Subscription]] = []
        self._most = ENDED

    @property
    def next_at(self) -> float:
        """When the next one is due; inf for none."""
        return self._entries[0][0] if self._entries else math.inf

    def put(self, subscription: Subscription, at: float) -> None:
        """Note `subscription` for that moment."""
        heapq.heappush(self._entries, (at, next(numbers), subscription))
        if len(self._entries) > self._most:
            self._entries = [entry for entry in self._entries if entry[2].is_open]
            heapq.heapify(self._entries)
            self._most = 2 * len(self._entries) + ENDED

    def take(self, until: float) -> list[Subscription]:
        """Those that are due until then, and are noted no longer."""
        due = []
        while self._entries and self._entries[0][0] <= until:
            subscription = heapq.heappop(self._entries)[2]
            if subscription.is_open:
                due.append(subscription)
        return due
