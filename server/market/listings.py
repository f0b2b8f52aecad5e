"""Listings: many symbols wanted in the same moment become one call for all of them."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any

from ..models import Instrument, Kind, PositionRow, PositionRows, Reading, Source, Topic
from .feed import Feed, Fetch
from .feeds import Feeds

DEMAND_S = 2.0
"""A symbol counts as wanted for this long after somebody asked for it."""

WORTH = {Kind.TICKER: 8, Kind.POSITION: 2}
"""From how many wanted symbols on a listing is cheaper than a call for each: of tickers it is large."""
LISTED = {Kind.TICKERS: Kind.TICKER, Kind.POSITIONS: Kind.POSITION}
"""What each listing lists."""

JUST_S = 0.05
"""A listing that has come this moment answers also who asks only now: of many, some always come a moment too late."""

PAGE_ROWS = 200


class Listings:
    """Stands between the feeds of single symbols and the calls: it answers from a listing where that is cheaper.

    A listing is a feed as any other, with its one flight and its pauses; what it brings is offered to every feed of a
    symbol that it covers. It is never taken as the word that a position has gone: that is asked of the symbol itself.
    """

    def __init__(
        self, fetch: Fetch, settle_coins: Iterable[str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._settle_coins = frozenset(settle_coins)
        self._clock = clock
        self._feeds: Feeds | None = None

    def attach(self, feeds: Feeds) -> None:
        """Serve `feeds`, whose calls go through `fetch`."""
        self._feeds = feeds
        feeds.watch(self._spread)

    async def fetch(self, topics: frozenset[Topic]) -> dict[Topic, Reading[Any]]:
        """A reading of each of `topics`. Raises GatewayError where one could not be had."""
        singles = [topic for topic in topics if not self._is_listed(topic)]
        readings = await self._fetch(frozenset(singles)) if singles else {}
        for topic in topics.difference(singles):
            readings[topic] = await self._from_listing(topic)
        return readings

    def _is_listed(self, topic: Topic) -> bool:
        """Whether a listing covers `topic` and so many symbols of its kind are wanted that it is worth it.

        Those that a stream keeps and that are still need no call.
        """
        if self._feeds is None or (listing := self.listing_of(topic)) is None:
            return False
        since, worth = self._clock() - DEMAND_S, WORTH[topic.kind]
        wanted = (
            feed
            for feed in self._of_kind(topic.kind, topic.category)
            if feed.wanted_at >= since and (feed.moves or not feed.is_kept) and self.listing_of(feed.topic) == listing
        )
        return sum(1 for _ in itertools.islice(wanted, worth)) >= worth

    def listing_of(self, topic: Topic) -> Topic | None:
        """The listing that `topic` is in, None for none. Bybit lists linear positions by the coin they settle in."""
        if topic.kind is Kind.TICKER:
            return Topic(Kind.TICKERS, category=topic.category)
        if topic.kind is not Kind.POSITION:
            return None
        if topic.category != "linear":
            return Topic(Kind.POSITIONS, category=topic.category)
        coin = self._settle_coin(topic)
        return Topic(Kind.POSITIONS, coin, category=topic.category) if coin in self._settle_coins else None

    def _settle_coin(self, topic: Topic) -> str | None:
        assert self._feeds is not None, "attached before it is asked"
        listed = self._feeds.part(Topic(Kind.INSTRUMENTS, category=topic.category)).reading
        instrument: Instrument | None = None if listed is None else listed.value.get(topic.symbol)
        return None if instrument is None else instrument.settle_coin

    def _of_kind(self, kind: Kind, category: str) -> Iterable[Feed]:
        assert self._feeds is not None, "attached before it is asked"
        return (feed for feed in self._feeds if feed.topic.kind is kind and feed.topic.category == category)

    async def _from_listing(self, topic: Topic) -> Reading[Any]:
        """The reading of `topic` in its listing, or by itself where the listing cannot be taken for the answer."""
        assert self._feeds is not None, "attached before it is asked"
        since = self._clock() - JUST_S
        listing = self.listing_of(topic)
        assert listing is not None, "it was worth it a moment ago"
        feed = self._feeds.feed(listing)
        if feed.reading is None or feed.error is not None or feed.reading.arrived_at < since:
            if (flight := feed.refresh()) is not None:
                await asyncio.wait({flight})
        if feed.reading is None or feed.error is not None:
            raise feed.failure(f"the exchange gave no {feed.topic.kind.value}")
        reading = derived(topic, feed.reading, self._feeds.feed(topic).reading)
        if reading is None or feed.reading.arrived_at < since:
            return (await self._fetch(frozenset((topic,))))[topic]
        return reading

    def _spread(self, topic: Topic) -> None:
        """A listing has come: offer what it says to every feed of its kind that it is news for."""
        kind = LISTED.get(topic.kind)
        if kind is None or self._feeds is None:
            return
        part = self._feeds.known(topic)
        if part is None or part.reading is None or part.error is not None or part.reading.source is Source.PUSH:
            return
        for feed in [*self._of_kind(kind, topic.category)]:
            held = feed.reading
            if held is not None and held.asked_at >= part.reading.asked_at:
                continue
            reading = derived(feed.topic, part.reading, held) if self._is_in(feed.topic, topic) else None
            if reading is not None:
                feed.offer(reading)

    def _is_in(self, topic: Topic, listing: Topic) -> bool:
        """Whether `listing`, of one coin or of all, speaks of `topic`."""
        own = self.listing_of(topic)
        return own is not None and (own == listing or not listing.symbol)


def derived(topic: Topic, listing: Reading[Any], held: Reading[Any] | None) -> Reading[Any] | None:
    """What `listing` says of `topic`; None where the symbol itself has to be asked."""
    if topic.kind is Kind.TICKER:
        value = listing.value.get(topic.symbol)
    else:
        value = _rows_of(topic.symbol, listing.value, None if held is None else held.value)
    if value is None:
        return None
    return Reading(value, listing.asked_at, listing.arrived_at, listing.exchange_time_ms, listing.source)


def _rows_of(symbol: str, listed: PositionRows, held: PositionRows | None) -> PositionRows | None:
    """The rows of `symbol` in a listing of open positions, with the flat ones that are known beside them.

    None where an open one has vanished, or where nothing is known and the listing has more than a page: a row that
    moves while pages are turned can be missed.
    """
    rows = {row.position.position_idx: row for row in listed if row.position.symbol == symbol}
    if held is None:
        return None if not rows and len(listed) > PAGE_ROWS else tuple(rows.values())
    known: dict[int, PositionRow] = {row.position.position_idx: row for row in held}
    if any(row.is_open and idx not in rows for idx, row in known.items()):
        return None
    return tuple((known | rows)[idx] for idx in sorted(known | rows))
