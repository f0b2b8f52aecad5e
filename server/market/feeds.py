"""Feeds: the latest reading of each topic, found or made for whoever asks, bounded, and forgotten when nobody does.

Whoever wants a topic asks for a reading no older than X. A feed in hand of one answers at once; otherwise its one
flight, the call under way, is made or joined. So a thousand sockets on a symbol cost what one costs, and when nobody
asks, nobody polls.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..errors import Overloaded
from ..models import Kind, Part, Reading, Topic
from .feed import LATE_S, RECONCILE_S, Feed, Fetch, Line

AHEAD = 0.6
"""Of the age that is allowed: a reading older than this is made anew before it is too old."""
IDLE_S = 75.0
"""For how long a topic that was asked for is kept: longer than the longest interval of a socket."""
ASKED_S = 5.0
"""For how long one that no socket shows is kept from others, where there is no more room."""
SWEEP_S = 15.0


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
        reconcile_s: float = RECONCILE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._late_s = late_s
        self._reconcile_s = reconcile_s
        self._clock = clock
        self._max_symbols = max_symbols
        self._feeds: dict[Topic, Feed] = {}
        self._watchers: list[Callable[[Topic], None]] = []
        self._is_shown: Callable[[Topic], bool] = lambda _: True
        self._swept_at = clock()
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._feeds)

    def __iter__(self) -> Iterator[Feed]:
        return iter(self._feeds.values())

    def watch(self, changed: Callable[[Topic], None]) -> None:
        """Have `changed` called with each topic that has a new reading, or a new failure."""
        self._watchers.append(changed)

    def shown_by(self, is_shown: Callable[[Topic], bool]) -> None:
        """Have `is_shown` say of which topics sockets show something, so that no room is made at their cost."""
        self._is_shown = is_shown

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
            feed = self._feeds[topic] = Feed(
                topic, self._fetch, self._clock, self._tell, self._late_s, self._reconcile_s
            )
        feed.wanted_at = self._clock()
        return feed

    def _make_room(self, kind: Kind) -> None:
        """Forget the feed of `kind` that may go first, if one may go now: not what a socket shows or is called for.

        So whoever asks once for as much as there is room for keeps it from others for a moment only.
        """
        oldest = min((feed for feed in self._feeds.values() if feed.topic.kind is kind), key=self._until)
        if self._until(oldest) > self._clock():
            raise Overloaded(
                f"{self._max_symbols} {kind.value} topics are in use, and freshness.max_symbols allows no more",
                retry_after_s=ASKED_S,
            )
        self._forget(oldest)

    def _until(self, feed: Feed) -> float:
        """Until when `feed` is not given up for another one."""
        is_needed = feed.flight is not None or self._is_shown(feed.topic)
        return feed.wanted_at + (IDLE_S if is_needed else ASKED_S)

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

    def known(self, topic: Topic) -> Part | None:
        """The same without wanting it; None where there is no such feed."""
        feed = self._feeds.get(topic)
        return None if feed is None else feed.part

    def in_hand(self, topic: Topic) -> Reading[Any] | None:
        """The newest reading of `topic`, if there is one; does not count as wanting it either."""
        feed = self._feeds.get(topic)
        return None if feed is None else feed.reading

    def amend(self, topic: Topic, value: Any) -> None:
        """Put another value into the reading in hand of `topic`, if there is one: no younger, and not wanted by it."""
        if (feed := self._feeds.get(topic)) is not None:
            feed.amend(value)

    def refresh(self, topics: Iterable[Topic]) -> "set[asyncio.Task[None]]":
        """The flights, made or joined, that make `topics` younger; to be waited for with asyncio.wait."""
        flights = (self.feed(topic).refresh() for topic in topics)
        return {flight for flight in flights if flight is not None}

    def follow(self, topic: Topic, line: Line) -> None:
        """`line` keeps `topic` from now on, if there is a feed of it."""
        if (feed := self._feeds.get(topic)) is not None:
            feed.follow(line)

    def unfollow(self, topic: Topic) -> None:
        """No line keeps `topic` any more."""
        if (feed := self._feeds.get(topic)) is not None:
            feed.unfollow()

    def push(self, topic: Topic, reading: Reading[Any]) -> None:
        """A stream has said something of `topic`: news for its feed, if there is one."""
        if (feed := self._feeds.get(topic)) is not None:
            feed.push(reading)

    def young(self, topic: Topic, max_age_s: float) -> Part | None:
        """What is known of `topic` if it is no older than `max_age_s`; made anew behind where it soon will be."""
        feed = self.feed(topic)
        if (reading := feed.peek(max_age_s)) is None:
            return None
        if not feed.is_kept and reading.age_s(self._clock()) > max_age_s * AHEAD:
            feed.refresh()
        return feed.part

    async def read(self, topic: Topic, *, max_age_s: float, patience_s: float, timeout_s: float) -> Part:
        """What is known of `topic`, no older than `max_age_s` if that can be had without a wait that helps nobody.

        Nothing in hand: waits for the flight up to `timeout_s`, and raises its GatewayError. Something in hand: waits
        until the flight is `patience_s` old; not at all where the last refresh failed. A flight that was under way
        already may bring what is older than was asked for: then the next one is waited for too, as far as the patience
        goes. What will be too old soon is answered at once, and made younger behind: whoever asks all the time never
        waits. Cancelling is safe.
        """
        if (young := self.young(topic, max_age_s)) is not None:
            return young
        feed, asked_at = self.feed(topic), self._clock()
        had_failed = feed.error is not None
        flight = feed.refresh()
        if feed.reading is None:
            await self._first(feed, timeout_s)
        elif flight is not None and not had_failed:
            waited_s = self._clock() - feed.waiting_since
            await asyncio.wait({flight}, timeout=max(0.0, patience_s - waited_s))
        waited_s = self._clock() - asked_at
        if flight is not None and flight.done() and feed.error is None and feed.peek(waited_s + max_age_s) is None:
            after = feed.refresh()
            if after is not None:
                await asyncio.wait({after}, timeout=max(0.0, patience_s - waited_s))
        if feed.reading is None:
            raise feed.failure(f"the exchange gave no {topic.kind.value} in {timeout_s:g} s")
        return feed.part

    async def _first(self, feed: Feed, timeout_s: float) -> None:
        """Wait for the first reading, or for a failure; a call that is late is joined by another one meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while feed.reading is None and feed.refresh() is not None:
                    done, _ = await asyncio.wait(
                        feed.flights, timeout=self._late_s, return_when=asyncio.FIRST_COMPLETED
                    )
                    if done:
                        return

    async def close(self) -> None:
        """Cancel every flight and wait for their ends."""
        flights = [flight for feed in self._feeds.values() for flight in feed.cancel()]
        await asyncio.gather(*flights, return_exceptions=True)
        self._feeds.clear()
