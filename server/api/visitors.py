"""Visitors: what each address and each token takes of the limits of this process, in bounded memory."""

import functools
import ipaddress
import math
import time
from collections import Counter
from collections.abc import Callable

from ..errors import Quota, RateLimited, TooManyConnections
from ..settings import Settings

MOST = 10_000
"""Addresses remembered; at that many, those are forgotten that take nothing at the moment."""
V6_PREFIX = 64
"""Bits of an IPv6 address that whoever has one has been given whole."""
RETURN_S = 5.0


@functools.lru_cache(4096)
def visitor_of(address: str) -> str | None:
    """By what an address is counted: IPv6 by its network. None for this machine's own, which nothing counts."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or parsed
    if parsed.is_loopback:
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((parsed, V6_PREFIX), strict=False))
    return str(parsed)


class Visit:
    """What one address has taken: of its requests what is left, its sockets, and its wrong tokens of late."""

    __slots__ = ("failing_since", "failures", "left", "looked_at", "sockets")

    def __init__(self, burst: float, now: float) -> None:
        self.left = burst
        self.looked_at = now
        self.sockets = 0
        self.failures = 0
        self.failing_since = now


class Visitors:
    """The limits by address, which is that of the client also behind a listed proxy, and by token; 0 is no limit.

    Requests pass a bucket that holds a burst and fills at the rate allowed. Wrong tokens are counted in windows, each
    from its first one on; at the limit the address is admitted with no token until the window ends.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = settings.server.requests_per_s
        self._burst = float(settings.server.requests_burst)
        self._max_sockets = settings.websocket.max_per_address
        self._max_of_token = settings.websocket.max_per_token
        self._max_failures = settings.auth.max_failures
        self._window_s = settings.auth.failures_window_s
        self._clock = clock
        self._visits: dict[str, Visit] = {}
        self._of_tokens: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._visits)

    def take_request(self, address: str) -> None:
        """Count one more request. Raises RateLimited where the bucket is empty."""
        if not self._per_s or (visit := self._visit(address)) is None:
            return
        now = self._clock()
        visit.left = min(self._burst, visit.left + (now - visit.looked_at) * self._per_s)
        visit.looked_at = now
        if visit.left < 1:
            raise RateLimited(
                f"more than {self._per_s:g} requests a second come from this address (server.requests_per_s)",
                retry_after_s=(1 - visit.left) / self._per_s,
                quota=Quota("requests", int(self._burst), self._burst / self._per_s),
            )
        visit.left -= 1

    def take_socket(self, address: str) -> Visit | None:
        """Count one more socket, until `give_socket` has what this gives. Raises TooManyConnections at the limit."""
        if (visit := self._visit(address)) is None:
            return None
        if 0 < self._max_sockets <= visit.sockets:
            detail = f"this address has {visit.sockets} sockets and may have no more (websocket.max_per_address)"
            raise TooManyConnections(detail, retry_after_s=RETURN_S)
        visit.sockets += 1
        return visit

    def give_socket(self, visit: Visit | None) -> None:
        """One fewer."""
        if visit is not None:
            visit.sockets -= 1

    def take_token(self, digest: bytes) -> None:
        """Count one more socket of the token with that hash. Raises TooManyConnections at the limit."""
        if digest and 0 < self._max_of_token <= self._of_tokens[digest]:
            detail = f"this token has {self._max_of_token} sockets and may have no more (websocket.max_per_token)"
            raise TooManyConnections(detail, retry_after_s=RETURN_S)
        if digest:
            self._of_tokens[digest] += 1

    def give_token(self, digest: bytes) -> None:
        """One fewer."""
        if digest:
            self._of_tokens[digest] -= 1
            if self._of_tokens[digest] <= 0:
                del self._of_tokens[digest]

    def check_failures(self, address: str) -> None:
        """Return if a token from there is looked at. Raises RateLimited where too many were wrong."""
        key = visitor_of(address)
        if (visit := self._visits.get(key) if key is not None else None) is None or not self._max_failures:
            return
        left_s = visit.failing_since + self._window_s - self._clock()
        if visit.failures >= self._max_failures and left_s > 0:
            raise RateLimited(
                f"{visit.failures} wrong tokens came from this address: none is looked at for a while",
                retry_after_s=left_s,
                quota=Quota("failures", self._max_failures, self._window_s),
            )

    def count_failure(self, address: str) -> None:
        """A wrong token came from there."""
        if (visit := self._visit(address)) is None:
            return
        now = self._clock()
        if now - visit.failing_since >= self._window_s:
            visit.failures = 0
        if not visit.failures:
            visit.failing_since = now
        visit.failures += 1

    def _visit(self, address: str) -> Visit | None:
        if (key := visitor_of(address)) is None:
            return None
        visit = self._visits.get(key)
        if visit is None:
            if len(self._visits) >= MOST:
                self._forget()
            visit = self._visits[key] = Visit(self._burst, self._clock())
        return visit

    def _forget(self) -> None:
        """Forget who takes nothing; where everybody does, those without sockets that came first, a tenth of all."""
        now = self._clock()
        for key in [key for key, visit in self._visits.items() if self._is_idle(visit, now)]:
            del self._visits[key]
        excess = len(self._visits) - MOST + MOST // 10
        for key in [key for key, visit in self._visits.items() if not visit.sockets][: max(0, excess)]:
            del self._visits[key]

    def _is_idle(self, visit: Visit, now: float) -> bool:
        filled_s = math.inf if not self._per_s else self._burst / self._per_s
        is_full = not self._per_s or now - visit.looked_at > filled_s
        return not visit.sockets and is_full and (not visit.failures or now - visit.failing_since >= self._window_s)
