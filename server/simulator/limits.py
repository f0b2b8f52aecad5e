"""Rate limits as Bybit keeps them: requests and connections per IP, and calls per second per key and endpoint."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

IP_REQUESTS, IP_WINDOW_S = 600, 5.0
CONNECTS, CONNECT_WINDOW_S = 500, 300.0
REMEMBERED = 1_024


class IpLimit:
    """600 requests in any 5 s from one address, then a ban. Remembers a bounded number of addresses.

    Invariant: once banned, an address is refused until the ban is over, whatever it sends meanwhile.
    """

    def __init__(self, ban_s: float) -> None:
        self.ban_s = ban_s
        self._times_s: OrderedDict[str, deque[float]] = OrderedDict()
        self._banned_until_s: OrderedDict[str, float] = OrderedDict()

    def admits(self, address: str, now_s: float) -> bool:
        """Counts one request from `address` at `now_s` (a monotonic clock); False while it is banned."""
        if now_s < self._banned_until_s.get(address, now_s):
            return False
        times_s = self._times_s.setdefault(address, deque(maxlen=IP_REQUESTS))
        if len(times_s) == IP_REQUESTS and now_s - times_s[0] < IP_WINDOW_S:
            self._banned_until_s[address] = now_s + self.ban_s
            times_s.clear()
            return False
        times_s.append(now_s)
        for remembered in (self._times_s, self._banned_until_s):
            while len(remembered) > REMEMBERED:
                remembered.popitem(last=False)
        return True


class ConnectLimit:
    """So many new stream connections in any five minutes from one address; no ban. Bounded in memory."""

    def __init__(self, connects: int = CONNECTS) -> None:
        self.connects = connects
        self._times_s: OrderedDict[str, deque[float]] = OrderedDict()

    def admits(self, address: str, now_s: float) -> bool:
        """Counts one connection from `address` at `now_s` (a monotonic clock) if it is within the limit."""
        times_s = self._times_s.setdefault(address, deque())
        while times_s and now_s - times_s[0] >= CONNECT_WINDOW_S:
            times_s.popleft()
        if len(times_s) >= self.connects:
            return False
        times_s.append(now_s)
        while len(self._times_s) > REMEMBERED:
            self._times_s.popitem(last=False)
        return True


class Allowance(NamedTuple):
    """What is left of a limit after a call; `remaining` is negative where the call went over it."""

    limit: int
    remaining: int
    reset_ms: int


class KeyLimit:
    """So many calls in each second of the clock, per key and endpoint. Remembers a bounded number of pairs."""

    def __init__(self) -> None:
        self._used: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

    def take(self, key: str, path: str, per_second: int, now_ms: int) -> Allowance:
        """Counts one call at `now_ms`."""
        second, used = self._used.get((key, path), (0, 0))
        used = used + 1 if second == now_ms // 1_000 else 1
        self._used[key, path] = (now_ms // 1_000, used)
        while len(self._used) > REMEMBERED:
            self._used.popitem(last=False)
        return Allowance(per_second, per_second - used, (now_ms // 1_000 + 1) * 1_000 if used > per_second else now_ms)
