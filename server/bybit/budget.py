"""How often Bybit may be called: windows of calls that no schedule exceeds, shared out, and taught by its answers."""

from collections import deque
from collections.abc import Mapping

ADDRESS_CALLS = 600
ADDRESS_PERIOD_S = 5.0
ACCOUNT_CALLS = {"position": 50, "wallet": 50, "key": 10}
"""Bybit's limits of the account's endpoints, in calls per `ACCOUNT_PERIOD_S`."""
ACCOUNT_PERIOD_S = 1.0
RESERVE = 0.2
"""What is left unused of every limit: for other programs of the same user, and for clocks that differ."""

ACCOUNT_ENDPOINTS = tuple(ACCOUNT_CALLS)
LONGEST_RESET_S = 60.0


class Window:
    """At most `calls` in any `period_s`, whenever they are taken."""

    def __init__(self, calls: int, period_s: float) -> None:
        self.calls = calls
        self.period_s = period_s
        self._taken: deque[float] = deque()

    def wait_s(self, now: float) -> float:
        """Seconds until one more call is allowed; 0 for now."""
        self._forget(now)
        if len(self._taken) < self.calls:
            return 0.0
        return max(0.0, self._taken[len(self._taken) - self.calls] + self.period_s - now)

    def take(self, now: float) -> None:
        """Count a call at `now`."""
        self._taken.append(now)

    def left(self, now: float) -> int:
        """How many calls are allowed at once."""
        self._forget(now)
        return max(0, self.calls - len(self._taken))

    def _forget(self, now: float) -> None:
        while self._taken and now - self._taken[0] >= self.period_s:
            self._taken.popleft()


class Budget:
    """This process's share of Bybit's limits: one window for the address, one for each endpoint of the account.

    Invariant: no schedule of calls that `wait_s` allowed exceeds the share, less the reserve, in any period.
    """

    def __init__(self, *, share: float = 1.0) -> None:
        self._share = share
        self._address = Window(self._part_of(ADDRESS_CALLS), ADDRESS_PERIOD_S)
        self._account = {name: Window(self._part_of(calls), ACCOUNT_PERIOD_S) for name, calls in ACCOUNT_CALLS.items()}

    def _part_of(self, calls: float) -> int:
        return max(1, int(calls * (1 - RESERVE) * self._share))

    def wait_s(self, endpoint: str, now: float) -> float:
        """Seconds until a call of `endpoint` fits; 0 for now. Asking takes nothing."""
        window = self._account.get(endpoint)
        return max(self._address.wait_s(now), 0.0 if window is None else window.wait_s(now))

    def is_at_ease(self, now: float) -> bool:
        """Whether most of the address's share is unused: then there are calls to spare for what can wait."""
        return self._address.left(now) * 2 > self._address.calls

    def take(self, endpoint: str, now: float) -> None:
        """Count a call of `endpoint`, which `wait_s` has allowed."""
        self._address.take(now)
        if (window := self._account.get(endpoint)) is not None:
            window.take(now)

    def learn(self, endpoint: str, headers: Mapping[str, str]) -> None:
        """Take the account's limit of `endpoint` from the headers of an answer, if it says a believable one."""
        window, text = self._account.get(endpoint), headers.get("X-Bapi-Limit", "")
        if window is not None and text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= ADDRESS_CALLS:
            window.calls = self._part_of(int(text))

    def left(self, now: float) -> dict[str, int]:
        """Calls left at once, by window, for people to look at."""
        return {"address": self._address.left(now), **{name: w.left(now) for name, w in self._account.items()}}


def reset_wait_s(headers: Mapping[str, str], now_ms: float) -> float | None:
    """Seconds until the limit's reset that an answer names; None where it names none that can be believed."""
    text = headers.get("X-Bapi-Limit-Reset-Timestamp", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        return None
    wait_s = (int(text) - now_ms) / 1000
    return wait_s if 0 < wait_s <= LONGEST_RESET_S else None
