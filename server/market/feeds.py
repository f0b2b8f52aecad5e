"""Feeds: the latest reading of each topic, and the one call to the exchange that makes it younger.

Whoever wants a topic asks for a reading no older than X. A feed in hand of one answers at once; otherwise its one
flight, the call under way, is made or joined. So a thousand sockets on a symbol cost what one costs, and when nobody
asks, nobody polls.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from ..errors import ExchangeTimeout, GatewayError, InternalError, Overloaded
from ..models import Kind, Part, PositionRow, PositionRows, Reading, Source, Topic
from ..telemetry import get_logger

log = get_logger(__name__)

Fetch = Callable[[frozenset[Topic]], Awaitable[dict[Topic, Reading[Any]]]]

BACKOFF_FIRST_S = 0.25
BACKOFF_LAST_S = 3.0
AHEAD = 0.6
"""Of the age that is allowed: a reading older than this is made anew before it is too old."""
IDLE_S = 75.0
SWEEP_S = 15.0
LATE_S = 2.5
MAX_FLIGHTS = 3
DISBELIEF_S = 30.0
"""How long answers from before the one in hand are disbelieved: then the exchange has begun anew."""
LAG_MS = 1000
"""How far the clocks of the exchange's machines may differ."""


class Feed:
    """One topic: its newest reading, its flight, and the pause after a failure.

    The feed owns its flight: it runs to its own end, whoever has stopped waiting for it. A failure answers all waiters
    and sets the moment before which no new flight starts. A flight that is late is joined by another one, so that the
    end of the trouble is noticed before the last hung call has run out; whichever answers first, the younger one stays.
    """

    def __init__(
        self,
        topic: Topic,
        fetch: Fetch,
        clock: Callable[[], float],
        changed: Callable[[Topic], None],
        late_s: float = LATE_S,
    ) -> None:
        self.topic = topic
        self.wanted_at = clock()
        self.reading: Reading[Any] | None = None
        self.error: GatewayError | None = None
        self._flights: dict[asyncio.Task[None], float] = {}
        self._late_s = late_s
        self._fetch = fetch
        self._clock = clock
        self._changed = changed
        self._failures = 0
        self._not_before = 0.0

    @property
    def part(self) -> Part:
        """What a consumer gets to see."""
        return Part(self.reading, self.error, bool(self._flights))

    @property
    def flight(self) -> "asyncio.Task[None] | None":
        """The latest flight under way."""
        return next(reversed(self._flights), None)

    @property
    def waiting_since(self) -> float:
        """When the oldest flight under way started; now if there is none."""
        return next(iter(self._flights.values()), self._clock())

    def peek(self, max_age_s: float) -> Reading[Any] | None:
        """The reading in hand if it is no older than `max_age_s` and the last refresh did not fail, else None."""
        reading = self.reading
        if reading is None or self.error is not None or self._clock() - reading.asked_at > max_age_s:
            return None
        return reading

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
        if self.reading is not None and self.reading.asked_at > started_at:
            return  # a later flight was answered meanwhile
        self._failures += error.retry_after_s is None
        backoff_s = min(BACKOFF_LAST_S, BACKOFF_FIRST_S * 2 ** min(self._failures - 1, 10)) * random.uniform(0.5, 1.0)
        # An error that knows when to come back was refused before it became a call, or carries the exchange's word.
        self._not_before = self._clock() + (backoff_s if error.retry_after_s is None else error.retry_after_s)
        if self.error is None:
            log.warning("refresh_failed", topic=str(self.topic), detail=error.detail)
        self.error = error
        self._changed(self.topic)

    def retry(self) -> None:
        """End the pause after a failure."""
        self._not_before = 0.0

    def cancel(self) -> "list[asyncio.Task[None]]":
        """Cancel every flight under way, and give them."""
        flights = [*self._flights]
        for flight in flights:
            flight.cancel()
        return flights

    def offer(self, reading: Reading[Any]) -> bool:
        """Take `reading` if nothing newer is in hand; says whether it did. A good reading ends every failure."""
        if reading is self.reading:
            return True
        accepted = newest(self.reading, reading)
        if accepted is None:
            log.warning("reading_out_of_order", topic=str(self.topic), source=reading.source.value)
            return False
        if self.error is not None:
            log.info("refresh_recovered", topic=str(self.topic), failures=self._failures)
        self.reading, self.error, self._failures, self._not_before = accepted, None, 0, 0.0
        self._changed(self.topic)
        return True


def newest(held: Reading[Any] | None, offered: Reading[Any]) -> Reading[Any] | None:
    """What to hold of the two, or None where `offered` is older than `held`.

    Positions are ordered by each row's own sequence; everything else: a poll replaces a push only if it was asked for
    after the push arrived.
    """
    if held is None:
        return offered
    if isinstance(offered.value, tuple) and offered.value and isinstance(offered.value[0], PositionRow):
        return _newest_rows(held, offered)
    if offered.source is Source.POLL and held.source is Source.PUSH:
        return offered if offered.asked_at > held.arrived_at else None
    return None if offered.asked_at < held.asked_at or _lags(held, offered) else offered


def _lags(held: Reading[Any], offered: Reading[Any]) -> bool:
    """Whether a poll was answered by a replica or a cache from before what is in hand; believed again after a while."""
    lag_ms = held.exchange_time_ms - offered.exchange_time_ms
    return lag_ms > LAG_MS and offered.asked_at - held.asked_at < DISBELIEF_S


def _newest_rows(held: Reading[PositionRows], offered: Reading[PositionRows]) -> Reading[PositionRows] | None:
    sequences = {(row.position.symbol, row.position.position_idx): row.sequence for row in held.value}
    for row in offered.value:
        known = sequences.get((row.position.symbol, row.position.position_idx), row.sequence)
        if row.sequence < known and offered.asked_at - held.asked_at < DISBELIEF_S:
            return None
        if row.sequence == known and offered.asked_at < held.asked_at:
            return None
    return offered


def is_evictable(feed: Feed) -> bool:
    """Whether a feed may be forgotten. The lists of symbols are kept: few, and what tells a wrong symbol for ever."""
    return feed.topic.kind is not Kind.INSTRUMENTS


class Feeds:
    """Finds or makes the feed of a topic; bounded per kind, and forgets those that nobody asks for.

    `fetch` gets the topics wanted; `watch` callbacks are told of each topic whose reading or failure changed.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        max_symbols: int,
        late_s: float = LATE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._late_s = late_s
        self._clock = clock
        self._max_symbols = max_symbols
        self._feeds: dict[Topic, Feed] = {}
        self._watchers: list[Callable[[Topic], None]] = []
        self._swept_at = clock()
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._feeds)

    def __iter__(self) -> Iterator[Feed]:
        return iter(self._feeds.values())

    def watch(self, changed: Callable[[Topic], None]) -> None:
        """Have `changed` called with each topic that has a new reading, or a new failure."""
        self._watchers.append(changed)

    def _tell(self, topic: Topic) -> None:
        for changed in self._watchers:
            changed(topic)

    def feed(self, topic: Topic) -> Feed:
        """The feed of `topic`, made if need be. Raises Overloaded where that many symbols are asked for already."""
        feed = self._feeds.get(topic)
        if feed is None:
            self.sweep(force=False)
            if sum(other.kind is topic.kind for other in self._feeds) >= self._max_symbols:
                self._make_room(topic.kind)
            feed = self._feeds[topic] = Feed(topic, self._fetch, self._clock, self._tell, self._late_s)
        feed.wanted_at = self._clock()
        return feed

    def _make_room(self, kind: Kind) -> None:
        """Forget the feed of `kind` that was wanted longest ago, if that is long enough ago to be nobody's."""
        of_kind = (feed for feed in self._feeds.values() if feed.topic.kind is kind)
        oldest = min(of_kind, key=lambda feed: feed.wanted_at)
        if self._clock() - oldest.wanted_at < IDLE_S:
            raise Overloaded(
                f"{self._max_symbols} {kind.value} topics are in use, and freshness.max_symbols allows no more",
                retry_after_s=SWEEP_S,
            )
        self._forget(oldest)

    def _forget(self, feed: Feed) -> None:
        self.evicted += 1
        del self._feeds[feed.topic]
        feed.cancel()

    def retry(self) -> None:
        """Let whoever waits for another try have it at once: what stood in the way has gone."""
        for feed in self._feeds.values():
            feed.retry()

    def sweep(self, *, force: bool) -> None:
        """Forget the feeds that nobody asked for in IDLE_S; looks at most every SWEEP_S unless forced."""
        now = self._clock()
        if not force and now - self._swept_at < SWEEP_S:
            return
        self._swept_at = now
        for feed in [feed for feed in self._feeds.values() if now - feed.wanted_at > IDLE_S and is_evictable(feed)]:
            self._forget(feed)

    def peek(self, topic: Topic, max_age_s: float) -> Reading[Any] | None:
        """The reading in hand of `topic` if it is young enough; synchronous, for the common case."""
        return self.feed(topic).peek(max_age_s)

    def part(self, topic: Topic) -> Part:
        """What is known of `topic` now, whatever its age; asks nobody."""
        return self.feed(topic).part

    def refresh(self, topics: Iterable[Topic]) -> "set[asyncio.Task[None]]":
        """The flights, made or joined, that make `topics` younger; to be waited for with asyncio.wait."""
        flights = (self.feed(topic).refresh() for topic in topics)
        return {flight for flight in flights if flight is not None}

    async def read(self, topic: Topic, *, max_age_s: float, patience_s: float, timeout_s: float) -> Part:
        """What is known of `topic`, no older than `max_age_s` if that can be had without a wait that helps nobody.

        Nothing in hand: waits for the flight up to `timeout_s`, and raises its GatewayError. Something in hand: waits
        until the flight is `patience_s` old; not at all where the last refresh failed. What will be too old soon is
        answered at once, and made younger behind: whoever asks all the time never waits. Cancelling is safe.
        """
        feed = self.feed(topic)
        if (reading := feed.peek(max_age_s)) is not None:
            if reading.age_s(self._clock()) > max_age_s * AHEAD:
                feed.refresh()
            return feed.part
        had_failed = feed.error is not None
        flight = feed.refresh()
        if flight is not None and not (feed.reading is not None and had_failed):
            waited_s = self._clock() - feed.waiting_since
            await asyncio.wait({flight}, timeout=timeout_s if feed.reading is None else max(0.0, patience_s - waited_s))
        if feed.reading is None:
            raise feed.error or ExchangeTimeout(f"the exchange gave no {topic.kind.value} in {timeout_s:g} s")
        return feed.part

    async def close(self) -> None:
        """Cancel every flight and wait for their ends."""
        flights = [flight for feed in self._feeds.values() for flight in feed.cancel()]
        await asyncio.gather(*flights, return_exceptions=True)
        self._feeds.clear()
