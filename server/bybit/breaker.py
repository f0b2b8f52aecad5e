"""Circuit breakers: what an error of Bybit means for the calls after it, and for which of them."""

import random
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..errors import (
    AddressBanned,
    BadAnswer,
    ClockSkew,
    CredentialsRefused,
    ExchangeBusy,
    ExchangeError,
    ExchangeTimeout,
    ExchangeUnreachable,
    RateExceeded,
)

BAN_S = 600.0
CREDENTIALS_S = 60.0
RATE_S = 1.0
FIRST_PAUSE_S = 0.5
LAST_PAUSE_S = 3.0
TOLERATED = 3
"""Transient failures in a row before an endpoint pauses: one is an accident."""
PROBE_LOOK_S = 0.25
"""When to ask again while a probe is under way, or after one that failed by accident."""

ADDRESS = "address"
ACCOUNT = "account"

TRANSIENT = (ExchangeBusy, ExchangeTimeout, ExchangeUnreachable, BadAnswer, ClockSkew)


class Opened(NamedTuple):
    """Why a scope is silent, from when on an answer would prove the contrary, and until when it is silent."""

    error: ExchangeError
    since: float
    until: float


class Breaker:
    """The silence of one scope: the address, the account, or one endpoint.

    Closed, it lets everything through. Open, it refuses until its time has come, then lets one probe through, whose
    outcome closes it or opens it anew. A probe that never reports is given up after `probe_s`: it is never stuck.
    """

    def __init__(self, *, probe_s: float) -> None:
        self._probe_s = probe_s
        self._opened: Opened | None = None
        self._probing_until = float("-inf")
        self.failures = 0

    def refusal(self, now: float) -> ExchangeError | None:
        """The error that keeps a call from being made at `now`, with when to come back; None for none."""
        if self._opened is None:
            return None
        error, _, until = self._opened
        if now < until:
            return type(error)(error.detail, retry_after_s=until - now)
        if now < self._probing_until:
            return type(error)(error.detail, retry_after_s=min(PROBE_LOOK_S, self._probing_until - now))
        return None

    def enter(self, now: float) -> None:
        """A call that was not refused is made at `now`; it is the probe if the scope was open."""
        if self._opened is not None:
            self._probing_until = now + self._probe_s

    def open(self, error: ExchangeError, now: float, pause_s: float, *, since: float) -> None:
        """Be silent for `pause_s` because of `error`, which held from `since` on; a longer silence is not shortened."""
        self.failures += 1
        self._probing_until = float("-inf")
        until, opened = now + pause_s, self._opened
        if opened is not None:
            since = max(since, opened.since)
            if opened.until >= until:
                error, until = opened.error, opened.until
        self._opened = Opened(error, since, until)

    def miss(self, now: float, asked_at: float) -> None:
        """A call of `asked_at` failed by accident: if it was the probe, another one may go in a moment."""
        if self._opened is not None and asked_at >= self._opened.until:
            self._probing_until = min(self._probing_until, now + PROBE_LOOK_S)

    def close(self, asked_at: float) -> None:
        """Let everything through, as a call of `asked_at` was answered; one from before the trouble proves nothing."""
        if self._opened is None or asked_at >= self._opened.since:
            self._opened = None
            self._probing_until = float("-inf")
            self.failures = 0

    def describe(self, now: float) -> dict[str, object]:
        """For people to look at."""
        if self._opened is None:
            return {"state": "closed"}
        error, _, until = self._opened
        state = "open" if now < until else "half-open"
        return {"state": state, "reason": error.reason, "retry_after_s": round(max(0.0, until - now), 1)}


class Breakers:
    """One breaker per cause: a ban silences the address, refused credentials the account, the rest one endpoint.

    | error | scope | silence |
    |---|---|---|
    | AddressBanned (403) | address | the ban, ten minutes |
    | CredentialsRefused | the endpoint, and the account where it is one of its | a minute |
    | RateExceeded (10006) | endpoint | until the reset that the answer names, else a growing pause |
    | transient ones, from the third in a row | endpoint | a growing pause with jitter, at most three seconds |

    Everything else says something about one question only, and its feed pauses by itself. A transient failure speaks of
    the moment when its call was made, and not of when it ran out of time: it says nothing against an endpoint that
    has answered a later call, whichever of the two comes back first.
    """

    def __init__(
        self,
        endpoints: Iterable[str],
        *,
        account_endpoints: Iterable[str],
        probe_s: float,
        ban_s: float = BAN_S,
        key_retry_s: float = CREDENTIALS_S,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),
    ) -> None:
        self._account_endpoints = frozenset(account_endpoints)
        self._ban_s = ban_s
        self._key_retry_s = key_retry_s
        self._jitter = jitter
        self._in_a_row = dict.fromkeys(endpoints, 0)
        self._answered_at = dict.fromkeys(self._in_a_row, float("-inf"))
        self.scopes = {name: Breaker(probe_s=probe_s) for name in (ADDRESS, ACCOUNT, *self._in_a_row)}

    def _of(self, endpoint: str) -> list[Breaker]:
        names = (ADDRESS, ACCOUNT, endpoint) if endpoint in self._account_endpoints else (ADDRESS, endpoint)
        return [self.scopes[name] for name in names]

    def admit(self, endpoint: str, now: float) -> None:
        """Return if a call of `endpoint` may be made now. Raises the error that silences it, with when to come back."""
        breakers = self._of(endpoint)
        for breaker in breakers:
            if (refusal := breaker.refusal(now)) is not None:
                try:
                    raise refusal
                finally:
                    del refusal  # or frame and error hold each other
        for breaker in breakers:
            breaker.enter(now)

    def succeeded(self, endpoint: str, asked_at: float) -> None:
        """A call of `endpoint`, made at `asked_at`, was answered: nothing that it passed is broken."""
        self._in_a_row[endpoint] = 0
        self._answered_at[endpoint] = max(asked_at, self._answered_at[endpoint])
        for breaker in self._of(endpoint):
            breaker.close(asked_at)

    def failed(self, endpoint: str, error: ExchangeError, now: float, asked_at: float) -> None:
        """A call of `endpoint`, made at `asked_at`, failed: open the scope that its error speaks of."""
        own = self.scopes[endpoint]
        if isinstance(error, AddressBanned):
            self.scopes[ADDRESS].open(error, now, self._ban_s, since=now)
        elif isinstance(error, CredentialsRefused):
            for breaker in self._of(endpoint)[1:]:
                breaker.open(error, now, self._key_retry_s, since=now)
        elif isinstance(error, RateExceeded):
            own.open(error, now, error.retry_after_s or self._pause_s(own, RATE_S), since=now)
        elif not isinstance(error, TRANSIENT):
            self.succeeded(endpoint, asked_at)  # a refusal of this one question is an answer
        elif asked_at >= self._answered_at[endpoint]:
            self._in_a_row[endpoint] += 1
            for breaker in self._of(endpoint):
                breaker.miss(now, asked_at)
            if self._in_a_row[endpoint] >= TOLERATED:
                own.open(error, now, self._pause_s(own, FIRST_PAUSE_S), since=asked_at)

    def _pause_s(self, breaker: Breaker, first_s: float) -> float:
        return min(LAST_PAUSE_S, first_s * 2.0 ** min(breaker.failures, 10)) * self._jitter()

    def mend_account(self, now: float) -> None:
        """Forget what was held against the account: it has another key."""
        for name in (ACCOUNT, *self._account_endpoints):
            self.scopes[name].close(now)

    def describe(self, now: float) -> dict[str, dict[str, object]]:
        """Every scope's state, for people to look at."""
        return {name: breaker.describe(now) for name, breaker in self.scopes.items()}
