"""Dialling: when a connection to the exchange may be opened, for all lines of the process together."""

import random
import time
from collections.abc import Callable
from math import inf

from .budget import Window

CONNECTS = 100
"""How many connections are opened in a period. Bybit allows 500 from one address, and others may live there too."""
CONNECTS_PERIOD_S = 300.0
BAN_S = 60.0
FIRST_PAUSE_S = 0.25
LAST_PAUSE_S = 10.0


class Dialling:
    """The budget of connections, shared by every line, and the ban that silences them all.

    Invariant: no more than the share of CONNECTS is taken in any CONNECTS_PERIOD_S.
    """

    def __init__(
        self,
        *,
        share: float = 1.0,
        ban_s: float = BAN_S,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._window = Window(max(2, int(CONNECTS * share)), CONNECTS_PERIOD_S)
        self._ban_s = ban_s
        self._clock = clock
        self._jitter = jitter
        self._banned_until = -inf

    def wait_s(self) -> float:
        """Seconds until a connection may be opened; 0 for now."""
        now = self._clock()
        return max(0.0, self._banned_until - now, self._window.wait_s(now))

    def take(self) -> None:
        """Count a connection that is opened now."""
        self._window.take(self._clock())

    def ban(self) -> None:
        """Open nothing for a while: the exchange refuses this address."""
        self._banned_until = self._clock() + self._ban_s * (1 + self._jitter() / 4)

    def pause_s(self, failures: int) -> float:
        """How long to wait after so many `failures` in a row: anywhere between the first pause and a growing one."""
        longest_s = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures, 10))
        return FIRST_PAUSE_S + self._jitter() * (longest_s - FIRST_PAUSE_S)
