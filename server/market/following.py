"""Following: has the exchange's streams keep what is wanted, and calls for what they leave unsaid."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ..errors import Overloaded
from ..models import Kind, Reading, Topic
from ..telemetry import get_logger
from .feed import Feed, Line
from .feeds import Feeds

log = get_logger(__name__)

LOOK_S = 0.2
"""How often it is looked what is wanted, and what has to be called for."""
WANTED_S = 15.0
"""A topic is wanted for this long after somebody asked for it; then its subscription lingers for a while."""
AHEAD = 0.85
"""Of the age at which what moves has to be called for anew: calls take their time."""
DOUBT_S = 1.5
"""When to call again where a call found something else than the stream had said: one of the two was late."""
SLOW_S = 60.0
"""How often a call is made for what a stream keeps whole: trust, but verify."""

STREAMED = frozenset((Kind.TICKER, Kind.POSITION, Kind.WALLET, Kind.KLINE))


class Streams(Protocol):
    """What is needed of the exchange's streams."""

    def want(self, topics: Iterable[Topic]) -> None:
        """Keep these topics in sync and no others."""


class Following:
    """Between the streams and the feeds: pushes to the feeds they concern, demand to the streams.

    Invariant: a feed follows a line only while its topic is wanted of the streams and they say that it is in sync.
    """

    def __init__(
        self,
        feeds: Feeds,
        *,
        listing_of: Callable[[Topic], Topic | None],
        reconcile_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._feeds = feeds
        self._listing_of = listing_of
        self._reconcile_s = reconcile_s
        self._clock = clock
        self._wanted: frozenset[Topic] = frozenset()
        self._streams: Streams | None = None

    async def run(self, streams: Streams) -> None:
        """Look after the feeds for ever; to be cancelled."""
        self._streams = streams
        while True:
            try:
                self.look()
            except Exception:
                log.exception("following_crashed")
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Want what somebody has asked for lately, and call for what has become too old beside the streams."""
        assert self._streams is not None, "run tells of them"
        since = self._clock() - WANTED_S
        wanted = frozenset(feed.topic for feed in self._feeds if is_streamed(feed.topic) and feed.wanted_at >= since)
        if wanted != self._wanted:
            for topic in self._wanted - wanted:
                self._feeds.unfollow(topic)
            self._wanted = wanted
            self._streams.want(wanted)
        self._reconcile([feed for feed in self._feeds if feed.topic in wanted and self._is_due(feed)])

    def _reconcile(self, due: list[Feed]) -> None:
        """Call for what these feeds lack: several of one listing by that, unless it was just read and left them out."""
        listed: dict[Topic | None, list[Feed]] = {}
        for feed in due:
            listed.setdefault(self._listing_of(feed.topic), []).append(feed)
        for topic, feeds in listed.items():
            listing = None if topic is None or len(feeds) == 1 else self._listing(topic)
            for feed in feeds if listing is None or not self._is_old(listing) else [listing]:
                feed.refresh()

    def _listing(self, topic: Topic) -> Feed | None:
        """The feed of a listing; None where there is no room for it."""
        try:
            return self._feeds.feed(topic)
        except Overloaded:
            return None

    def _is_old(self, listing: Feed) -> bool:
        return self._clock() - listing.polled_at > self._reconcile_s / 2

    def _is_due(self, feed: Feed) -> bool:
        """Whether a call has to say what the stream does not. A feed that none keeps is called for by who wants it."""
        if not feed.is_kept:
            return False
        now = self._clock()
        if feed.moves and now - feed.as_of >= self._reconcile_s * AHEAD:
            return True
        return now - feed.polled_at >= (DOUBT_S if feed.is_in_doubt else SLOW_S)

    def push(self, topic: Topic, reading: Reading[Any]) -> None:
        """The stream has said something of `topic`: every feed that it concerns takes it."""
        self._feeds.push(topic, reading)
        if topic.kind is Kind.POSITION:
            for feed in [feed for feed in self._feeds if is_listing(feed.topic)]:
                feed.push(reading)

    def changed(self, topics: frozenset[Topic], line: Line | None) -> None:
        """These topics came in sync, with their line, or went out of sync."""
        for topic in topics:
            if line is None or topic not in self._wanted:
                self._feeds.unfollow(topic)
            else:
                self._feeds.follow(topic, line)


def is_listing(topic: Topic) -> bool:
    """Whether pushes of single symbols keep it: every open position, not those of one coin, which only calls list."""
    return topic.kind is Kind.POSITIONS and not topic.symbol


def is_streamed(topic: Topic) -> bool:
    """Whether the exchange pushes `topic`."""
    return topic.kind in STREAMED or is_listing(topic)
