"""Feed: one topic's newest reading, the call that makes it younger, and the stream that keeps it so."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from msgspec.structs import replace

from ..errors import ExchangeTimeout, GatewayError, InternalError
from ..models import CandlePush, Part, PositionRow, Reading, Source, Topic, Wallet
from ..telemetry import get_logger
from .drift import Drift
from .growth import DoesNotFollow
from .precedence import laid_over, newest

log = get_logger(__name__)

Fetch = Callable[[frozenset[Topic]], Awaitable[dict[Topic, Reading[Any]]]]

BACKOFF_FIRST_S = 0.25
BACKOFF_LAST_S = 3.0
LATE_S = 2.5
MAX_FLIGHTS = 3
RECONCILE_S = 3.0
QUIET_S = 3.0
"""How long a stream is taken to be alive after its last sign of that: its own watch finds it dead before."""
PARTIAL = (tuple, Wallet, CandlePush)
"""What a push may say a part of only."""
STABLE_COINS = frozenset(("USD", "USDT", "USDC", "USDE", "USDB", "FDUSD", "DAI"))
"""Coins whose worth in USD does not move with the market."""


class Line(Protocol):
    """A stream's connection, for the topics that it keeps in step."""

    @property
    def confirmed_at(self) -> float:
        """Until when all that the exchange had to say is here, on the monotonic clock."""


class Feed:
    """One topic: its newest reading, its flight, the pause after a failure, and the line of the stream that keeps it.

    The feed owns its flight: it runs to its own end, whoever has stopped waiting for it. A failure answers all waiters
    and sets the moment before which no new flight starts. A flight that is late is joined by another one, so that the
    end of the trouble is noticed before the last hung call has run out; whichever answers first, the younger one stays.

    While a line keeps the topic, and the reading is whole, silence says that nothing has changed. It says nothing of
    what moves by itself, with the market: that is as old as the call that brought it.
    """

    def __init__(
        self,
        topic: Topic,
        fetch: Fetch,
        clock: Callable[[], float],
        changed: Callable[[Topic], None],
        late_s: float = LATE_S,
        reconcile_s: float = RECONCILE_S,
    ) -> None:
        self.topic = topic
        self.wanted_at = clock()
        self.reading: Reading[Any] | None = None
        self.error: GatewayError | None = None
        self.polled_at = float("-inf")
        self._flights: dict[asyncio.Task[None], float] = {}
        self._late_s = late_s
        self._reconcile_s = reconcile_s
        self._fetch = fetch
        self._clock = clock
        self._changed = changed
        self._failures = 0
        self._not_before = 0.0
        self._line: Line | None = None
        self._whole_from = float("inf")
        self._is_whole = False
        self._drift = Drift()
        self.moves = False
        """Whether something in the reading in hand moves without a word of any stream."""

    @property
    def part(self) -> Part:
        """What a consumer gets to see."""
        return Part(self.reading, self.error, bool(self._flights), self.as_of, self.is_kept)

    @property
    def is_kept(self) -> bool:
        """Whether a stream keeps the reading in hand true, but for what moves by itself."""
        return self._line is not None and self._is_whole

    @property
    def as_of(self) -> float:
        """Until when the reading in hand is known to have been true, on the monotonic clock; -inf: there is none."""
        reading, line = self.reading, self._line
        if reading is None:
            return float("-inf")
        if line is None or not self._is_whole or self.moves:
            return reading.asked_at
        return max(reading.asked_at, line.confirmed_at)

    @property
    def flight(self) -> "asyncio.Task[None] | None":
        """The latest flight under way."""
        return next(reversed(self._flights), None)

    @property
    def flights(self) -> "list[asyncio.Task[None]]":
        """All that are under way, the oldest first."""
        return [*self._flights]

    @property
    def waiting_since(self) -> float:
        """When the oldest flight under way started; now if there is none."""
        return next(iter(self._flights.values()), self._clock())

    def peek(self, max_age_s: float) -> Reading[Any] | None:
        """The reading in hand if it is no older than `max_age_s` and the last refresh did not fail, else None.

        One that a stream keeps is young enough for anybody: a call could not bring a younger one, as long as what moves
        by itself is called for often enough.
        """
        reading = self.reading
        if reading is None or self.error is not None:
            return None
        if self.is_kept:
            max_age_s = max(max_age_s, self._reconcile_s if self.moves else QUIET_S)
        return reading if self._clock() - self.as_of <= max_age_s else None

    def follow(self, line: Line) -> None:
        """From now on `line` keeps the topic: all changes from this moment on will be offered."""
        self._line, self._whole_from, self._is_whole = line, self._clock(), False

    def unfollow(self) -> None:
        """The line has broken, or left the topic: what it confirmed last stays said."""
        if self.reading is not None and self.as_of > self.reading.asked_at:
            self.reading = self.reading.confirmed(self.as_of)
        self._line, self._is_whole = None, False

    def refresh(self) -> "asyncio.Task[None] | None":
        """The flight under way, or a new one; None while the pause after a failure lasts. It never raises."""
        now, flight = self._clock(), self.flight
        is_due = flight is None or (now - self._flights[flight] >= self._late_s and len(self._flights) < MAX_FLIGHTS)
        if is_due and now >= self._not_before:
            flight = asyncio.create_task(self._fly(now), name=f"feed {self.topic}")
            self._flights[flight] = now
            flight.add_done_callback(self._flights.pop)
        return flight

    async def _fly(self, started_at: float) -> None:
        try:
            readings = await self._fetch(frozenset((self.topic,)))
            self.offer(readings[self.topic])
        except GatewayError as error:
            self._fail(error, started_at)
        except Exception:
            log.exception("refresh_crashed", topic=str(self.topic))
            self._fail(InternalError("a bug of the gateway; the log has it"), started_at)

    def _fail(self, error: GatewayError, started_at: float) -> None:
        if self.polled_at > started_at:
            return  # a later flight was answered meanwhile
        self._failures += error.retry_after_s is None
        backoff_s = min(BACKOFF_LAST_S, BACKOFF_FIRST_S * 2 ** min(self._failures - 1, 10)) * random.uniform(0.5, 1.0)
        # An error that knows when to come back was refused before it became a call, or carries the exchange's word.
        self._not_before = self._clock() + (backoff_s if error.retry_after_s is None else error.retry_after_s)
        if self.is_kept and not self.moves:
            log.warning("reconciliation_failed", topic=str(self.topic), detail=error.detail)
            return  # the stream goes on saying what is
        if self.reading is not None and self.reading.asked_at > started_at:
            return  # a stream has said meanwhile what is
        if self.error is None:
            log.warning("refresh_failed", topic=str(self.topic), detail=error.detail)
        # Kept for as long as the trouble lasts, and raised again and again: without the frames that it came through.
        self.error = error.with_traceback(None)
        self._changed(self.topic)

    def failure(self, otherwise: str) -> GatewayError:
        """Why there is no reading, to be raised: `otherwise` where nothing has failed yet."""
        return ExchangeTimeout(otherwise) if self.error is None else self.error.with_traceback(None)

    def retry(self) -> None:
        """End the pause after a failure."""
        self._not_before = 0.0

    def cancel(self) -> "list[asyncio.Task[None]]":
        """Cancel every flight under way, and give them."""
        flights = self.flights
        for flight in flights:
            flight.cancel()
        return flights

    def offer(self, reading: Reading[Any]) -> bool:
        """Take `reading` if nothing newer is in hand; says whether it did. A good reading ends every failure."""
        if reading is self.reading:
            return True
        if reading.source is Source.POLL:
            self.polled_at = max(self.polled_at, reading.asked_at)  # overtaken by a push, too, it was an answer
        accepted = newest(self.reading, reading)
        if accepted is None:
            # A call that a push has overtaken is nothing to tell of.
            write = log.debug if self._line is not None else log.warning
            write("reading_out_of_order", topic=str(self.topic), source=reading.source.value)
            return False
        if reading.source is Source.POLL:
            if self.is_kept and self.reading is not None:
                self._look_for_drift(self.reading, reading)
            self._is_whole = self._is_whole or reading.asked_at >= self._whole_from
        self._take(accepted)
        return True

    def amend(self, value: Any) -> None:
        """Hold more or less of what was, or what it really was: neither younger nor news, but another object."""
        if self.reading is not None:
            self.reading = replace(self.reading, value=value, arrived_at=self._clock())

    def _look_for_drift(self, held: Reading[Any], found: Reading[Any]) -> None:
        for what in self._drift.called(held, found, self._clock()):
            log.warning("stream_drifted", topic=str(self.topic), what=what)

    @property
    def is_in_doubt(self) -> bool:
        """Whether the last call found what the stream had not said, and the stream has not said it since."""
        return self._drift.is_open

    @property
    def drifts(self) -> int:
        """How often a call found what the stream had not said."""
        return self._drift.count

    def push(self, reading: Reading[Any]) -> bool:
        """Lay what the stream says over the reading in hand; says whether it was news.

        A ticker says all there is, and so does a candle that continues those in hand. A position or a wallet may name
        a part. With nothing in hand, or nothing that it continues, a push waits for a call that is made after it; so
        does one that seems older than what is in hand by clocks that differ: it may be news.
        """
        if self.reading is None and not _is_complete(reading.value):
            return self._miss(reading)
        self._drift.pushed(reading)
        as_of = self.as_of
        try:
            whole = laid_over(self.reading, reading, self.topic)
        except DoesNotFollow as why:
            log.debug("push_does_not_follow", topic=str(self.topic), detail=str(why))
            return self._miss(reading)
        if whole is None:
            # A row with a lower sequence is surely older. Clocks are not that sure: what seems older may be news.
            return False if isinstance(reading.value, tuple) else self._miss(reading)
        says_all = _is_complete(reading.value) or isinstance(reading.value, CandlePush)
        self._is_whole = self._is_whole or (self._line is not None and says_all)
        # By the exchange's order it came after all that was known, whatever clocks make of that. And what begins to
        # move is no longer confirmed by the line: what that has confirmed so far must not be forgotten.
        self._take(whole if whole.asked_at >= as_of else whole.confirmed(as_of))
        return True

    def _miss(self, reading: Reading[Any]) -> bool:
        """Something was said that cannot be kept: only a call made after it will know of it."""
        self._is_whole = False
        self._whole_from = max(self._whole_from, reading.arrived_at)
        return False

    def _take(self, reading: Reading[Any]) -> None:
        if self.error is not None:
            log.info("refresh_recovered", topic=str(self.topic), failures=self._failures)
        self.reading, self.error = reading, None
        if reading.source is Source.POLL:
            self._failures, self._not_before = 0, 0.0  # what a stream says does not make calls any better
        self.moves = _moves(reading.value)
        self._changed(self.topic)


def _is_complete(value: object) -> bool:
    """Whether a push with this value leaves nothing of its topic unsaid."""
    return not isinstance(value, PARTIAL)


def _moves(value: object) -> bool:
    """Whether a value holds something that changes with the market's prices, of which streams say nothing.

    An open position's mark price and profit do; so does a wallet while a position is open, or while it holds what is
    not worth its own number in USD.
    """
    if isinstance(value, tuple):
        return any(isinstance(row, PositionRow) and row.is_open for row in value)
    if isinstance(value, Wallet):
        return _is_something(value.unrealised_pnl) or any(
            coin.coin not in STABLE_COINS and _is_something(coin.equity) for coin in value.coins
        )
    return False


def _is_something(amount: str | None) -> bool:
    return amount is not None and bool(amount.strip("-0."))
