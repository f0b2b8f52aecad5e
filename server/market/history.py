"""History: how far back the candles of each kline topic reach, page by page, and within how much memory."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from msgspec.structs import replace

from ..errors import BadAnswer, GatewayError
from ..models import Candles, Kind, Reading, Topic
from ..telemetry import get_logger
from .candlecache import CandleRows, Klines
from .candles import DEPTH, assembled, corrected, follow_each_other, preceded, shortened
from .counts import CandleCounts, FetchKind, Tally
from .feeds import Feeds

log = get_logger(__name__)

CANDLE_BYTES = 128
"""About what a candle takes in memory."""
AT_ONCE = 2
"""Topics that are paged at the same time; the others wait for their turn."""
IDLE_S = 60.0
"""A deep history that nobody asked for in that long makes room for another one."""
PAUSE_FIRST_S = 5.0
PAUSE_LAST_S = 300.0


class Want(NamedTuple):
    """How many candles of a topic are wanted, and when somebody last asked for them."""

    candles: int
    asked_at: float


class Flight(NamedTuple):
    """Pages under way, one after the other."""

    task: "asyncio.Task[None]"
    started_at: float


class History:
    """Makes the histories in hand reach further back than 1,000 candles, for those topics that somebody wants so.

    Pages come one after the other, each joined to what is in hand at that moment. One that does not join, or does not
    come, leaves what is there. What was once reached stays for as long as its feed, unless memory runs short: then the
    deep histories that were asked for longest ago are cut back to 1,000.
    """

    def __init__(
        self,
        feeds: Feeds,
        klines: Klines,
        tally: Tally,
        *,
        max_candles: int,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._feeds = feeds
        self._klines = klines
        self._tally = tally
        self._max_candles = max_candles
        self._max_bytes = max_bytes
        self._clock = clock
        self._wants: dict[Topic, Want] = {}
        self._flights: dict[Topic, Flight] = {}
        self._pauses: dict[Topic, tuple[int, float]] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)

    def counts(self) -> CandleCounts:
        """What is held, called for and contradicted."""
        return self._tally.counts(candles for _, candles in self._held())

    def _held(self) -> Iterator[tuple[Topic, Candles]]:
        for feed in self._feeds:
            if feed.topic.kind is Kind.KLINE and feed.reading is not None:
                yield feed.topic, feed.reading.value

    async def reach(self, topic: Topic, count: int, *, patience_s: float) -> None:
        """Return when `count` candles of `topic` are in hand, or all that there are, or all that can be had now.

        Pages that have been under way for `patience_s` are not waited for any longer. Cancelling is safe.
        """
        if (flight := self.want(topic, count)) is not None:
            await asyncio.wait({flight.task}, timeout=max(0.0, flight.started_at + patience_s - self._clock()))

    def want(self, topic: Topic, count: int) -> Flight | None:
        """Have `count` candles of `topic` for a while from now on; the flight that brings what lacks, None for none."""
        if count <= DEPTH:
            return None
        now, former = self._clock(), self._wants.get(topic)
        count = max(min(count, self._max_candles), 0 if former is None else former.candles)
        self._wants[topic] = Want(count, now)
        if self._lacking(topic) is None or now < self._pauses.get(topic, (0, now))[1]:
            return None
        return self._flights.get(topic) or self._start(topic)

    def _start(self, topic: Topic) -> Flight:
        task = asyncio.create_task(self._deepen(topic), name=f"history {topic}")
        flight = self._flights[topic] = Flight(task, self._clock())
        task.add_done_callback(lambda _: self._flights.pop(topic))
        return flight

    def _lacking(self, topic: Topic) -> Candles | None:
        """The candles in hand if older ones are wanted, and there may be some."""
        reading, want = self._feeds.in_hand(topic), self._wants.get(topic)
        if reading is None or want is None:
            return None
        candles: Candles = reading.value
        is_all = len(candles) >= want.candles or candles.is_from_start or len(candles) < 2
        return None if is_all else candles

    async def _deepen(self, topic: Topic) -> None:
        try:
            async with self._turn:
                while (candles := self._lacking(topic)) is not None:
                    count = self._wants[topic].candles
                    limit = min(DEPTH, count - len(candles) + 1)
                    if not self._make_room(limit):
                        self._pauses[topic] = 0, self._clock() + PAUSE_FIRST_S
                        return
                    await self._page(topic, candles, count, limit)
            self._pauses.pop(topic, None)
        except GatewayError as error:
            log.warning("history_not_reached", topic=str(topic), detail=error.detail)
            self._pause(topic)
        except Exception:
            log.exception("history_crashed", topic=str(topic))
            self._pause(topic)

    def _pause(self, topic: Topic) -> None:
        failures = self._pauses.get(topic, (0, 0.0))[0] + 1
        pause_s = min(PAUSE_LAST_S, PAUSE_FIRST_S * 2 ** min(failures - 1, 10)) * random.uniform(0.5, 1.0)
        self._pauses[topic] = failures, self._clock() + pause_s

    async def _page(self, topic: Topic, candles: Candles, count: int, limit: int) -> None:
        """Put one older page before what is in hand, so that it grows up to `count`; the two share a candle.

        Raises ExchangeError; BadAnswer where they do not join.
        """
        if candles.depth < count:
            candles = replace(candles, depth=count)
            self._feeds.amend(topic, candles)
        self._tally.fetches[FetchKind.DEEPEN] += 1
        first_ms = int(candles.open_times_ms[0])
        answer = await self._klines(topic, limit, end_ms=first_ms)
        reading = self._feeds.in_hand(topic)
        if reading is None or int(reading.value.open_times_ms[0]) != first_ms:
            return  # cut, or read anew: the page is no longer the next one
        if not follow_each_other(answer.value, topic.interval):
            raise BadAnswer("the exchange's older candles have a gap")
        self._feeds.amend(topic, self._joined(topic, reading.value, answer))

    def _joined(self, topic: Topic, held: Candles, answer: Reading[CandleRows]) -> Candles:
        """`held` after the page: of a candle that is in both, the page's word is the later one. Raises BadAnswer."""
        told = corrected(held, answer.value, topic.interval)
        self._tally.contradictions += told is not held
        page = assembled(answer.value, topic.interval, answer.exchange_time_ms)
        deeper = None if told is None else preceded(told, page)
        if deeper is None:
            raise BadAnswer("the exchange's older candles do not join those that are held")
        # Asked for more, the exchange had only the one that was known.
        return replace(deeper, is_from_start=True) if len(page) == 1 else deeper

    def _make_room(self, candles: int) -> bool:
        """Whether so many more fit into memory, after cutting what nobody has asked for lately."""
        return self._cut(self._max_bytes - candles * CANDLE_BYTES, self._clock() - IDLE_S)

    def trim(self) -> None:
        """Keep the bound on memory, and forget the wants of feeds that are gone. To be called from time to time."""
        for topic in [topic for topic in self._wants if self._feeds.in_hand(topic) is None]:
            del self._wants[topic]
            self._pauses.pop(topic, None)
        self._cut(self._max_bytes, self._clock())

    def _cut(self, max_bytes: int, idle_since: float) -> bool:
        """Cut the histories asked for longest ago, none after `idle_since`, until all fit; says whether they do."""
        excess = sum(candles.nbytes for _, candles in self._held()) - max_bytes
        wants = sorted((want.asked_at, topic) for topic, want in self._wants.items())
        for asked_at, topic in wants:
            reading = self._feeds.in_hand(topic)
            if excess <= 0 or asked_at > idle_since:
                break
            if reading is not None and len(reading.value) > DEPTH:
                kept = shortened(reading.value)
                excess -= reading.value.nbytes - kept.nbytes
                self._feeds.amend(topic, kept)
                del self._wants[topic]
                self._pauses.pop(topic, None)
                log.info("history_cut", topic=str(topic), candles=len(reading.value))
        return excess <= 0

    async def close(self) -> None:
        """Cancel the pages under way and wait for their ends."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
