"""An exchange with one kline topic, whose minutes pass when a test says so, and a gateway's market before it."""

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from server.errors import ExchangeUnreachable
from server.market.candlecache import CandleCache
from server.market.checking import Checks
from server.market.counts import CandleCounts, Tally
from server.market.feeds import Feeds
from server.market.history import History
from server.models import CandlePush, CandleRow, Candles, Kind, Reading, Source, Topic

MINUTE = 60_000
TOPIC = Topic(Kind.KLINE, "BTCUSDT", "1")

Answer = Reading[tuple[CandleRow, ...]]


def row(minute: int, version: int = 0) -> CandleRow:
    """The candle of that minute after so many changes."""
    price = 100 + minute % 13
    return (
        str(minute * MINUTE),
        f"{price}.50",
        f"{price + version}.750",
        f"{price}.0",
        f"{price}",
        f"{version}",
        "100",
    )


class KlineExchange:
    """Every candle since the listing, the last one forming, and the questions it was asked as (limit, end_ms)."""

    def __init__(self, length: int) -> None:
        self.minute = int(datetime.now(UTC).timestamp() * 1000) // MINUTE
        self.rows = [row(minute) for minute in range(self.minute - length + 1, self.minute + 1)]
        self.asked: list[tuple[int, int | None]] = []
        self.now = 1000.0
        self.is_away = False

    @property
    def time_ms(self) -> int:
        """Its clock: half of the last candle has gone by."""
        return self.minute * MINUTE + MINUTE // 2

    async def klines(self, topic: Topic, limit: int, *, end_ms: int | None = None) -> Answer:
        """The call, as the client makes it."""
        self.asked.append((limit, end_ms))
        return self.answer(limit, end_ms)

    def answer(self, limit: int, end_ms: int | None) -> Answer:
        """What it answers at this moment."""
        if self.is_away:
            raise ExchangeUnreachable("away")
        last = len(self.rows) if end_ms is None else end_ms // MINUTE - self.minute + len(self.rows)
        rows = tuple(self.rows[max(0, last - limit) : max(0, last)])
        return Reading(rows, self.now, self.now, self.time_ms)

    def trade(self) -> None:
        """The forming candle changes."""
        self.rows[-1] = row(self.minute, int(self.rows[-1][5]) + 1)

    def roll(self, minutes: int = 1) -> None:
        """Candles end, others begin."""
        for _ in range(minutes):
            self.minute += 1
            self.rows.append(row(self.minute))

    def correct(self, place: int) -> None:
        """A closed candle has been another, all the time."""
        minute = self.minute - len(self.rows) + 1 + place % len(self.rows)
        self.rows[place] = row(minute, int(self.rows[place][5]) + 1000)


class Market:
    """Feeds, cache, history and checks before an exchange."""

    def __init__(
        self,
        exchange: KlineExchange,
        klines: Callable[..., Any] | None = None,
        *,
        max_candles: int = 5000,
        max_bytes: int = 2**26,
    ) -> None:
        def clock() -> float:
            return exchange.now

        def held(topic: Topic) -> Candles | None:
            reading = self.feeds.in_hand(topic)
            return None if reading is None else reading.value

        async def fetch(topics: frozenset[Topic]) -> dict[Topic, Reading[Any]]:
            return {topic: await self.cache.fetch(topic) for topic in topics}

        tally, call = Tally(), klines or exchange.klines
        self.cache = CandleCache(call, held, tally)
        self.exchange = exchange
        self.feeds = Feeds(fetch, max_symbols=50, clock=clock)
        self.history = History(self.feeds, call, tally, max_candles=max_candles, max_bytes=max_bytes, clock=clock)
        self.checks = Checks(self.feeds, call, tally, is_at_ease=lambda: True, clock=clock)

    async def poll(self, topic: Topic = TOPIC) -> Candles:
        """Call for what is missing, and give what is in hand then."""
        self.exchange.now += 1
        await asyncio.wait(self.feeds.refresh([topic]))
        return self.held(topic)

    async def reach(self, count: int, topic: Topic = TOPIC, *, patience_s: float = 10.0) -> Candles:
        """Want so many candles, and give what is in hand then."""
        await self.history.reach(topic, count, patience_s=patience_s)
        return self.held(topic)

    def held(self, topic: Topic = TOPIC) -> Candles:
        """What is in hand."""
        reading = self.feeds.in_hand(topic)
        assert reading is not None
        candles: Candles = reading.value
        return candles

    def push(self, *, is_closed: bool = False) -> None:
        """The stream tells of the last candle."""
        self.exchange.now += 1
        now, push = self.exchange.now, CandlePush(self.exchange.rows[-1], is_closed)
        self.feeds.push(TOPIC, Reading(push, now, now, self.exchange.time_ms, Source.PUSH))

    def counts(self) -> CandleCounts:
        """What is counted."""
        return self.history.counts()


class Delay:
    """Answers that come when a test says so, as they were when asked for or as they are then; or do not come."""

    def __init__(self, exchange: KlineExchange, chance: random.Random) -> None:
        self._exchange = exchange
        self._chance = chance
        self._waiting: list[asyncio.Event] = []
        self._is_failing = False

    async def klines(self, topic: Topic, limit: int, *, end_ms: int | None = None) -> Answer:
        """The call, under way for a while."""
        asked_at, early = self._exchange.now, self._exchange.answer(limit, end_ms)
        event = asyncio.Event()
        self._waiting.append(event)
        await event.wait()
        if self._is_failing:
            raise ExchangeUnreachable("away")
        answer = early if self._chance.random() < 0.5 else self._exchange.answer(limit, end_ms)
        return Reading(answer.value, asked_at, self._exchange.now, answer.exchange_time_ms)

    async def release(self, *, is_failing: bool = False) -> bool:
        """Have one of the answers come, and whatever follows from it; says whether there was one."""
        if not self._waiting:
            return False
        self._is_failing = is_failing
        self._waiting.pop(self._chance.randrange(len(self._waiting))).set()
        for _ in range(10):
            await asyncio.sleep(0)
        return True
