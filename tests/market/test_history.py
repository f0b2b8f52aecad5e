"""History: older pages before what is in hand, and nothing but the exchange's truth, whatever happens meanwhile."""

import asyncio
import random
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from server.market.candles import COLUMNS, DEPTH, assembled, corrected, preceded, without_forming
from server.market.counts import FetchKind
from server.market.history import IDLE_S, PAUSE_FIRST_S, PAUSE_LAST_S
from server.models import CandleRow, Candles, Kind, Topic

from .exchange import MINUTE, TOPIC, Delay, KlineExchange, Market, row


def columns_of(candles: Candles) -> list[list[float]]:
    """What indicators are computed from."""
    return [getattr(candles, name).tolist() for name in COLUMNS]


async def test_older_pages_are_put_before(caplog: pytest.LogCaptureFixture) -> None:
    """Five thousand candles come in pages, one after the other, and are what the exchange has."""
    exchange = KlineExchange(6000)
    market = Market(exchange)
    await market.poll()
    candles = await market.reach(5000)
    assert candles.rows == tuple(exchange.rows[-5000:])
    assert columns_of(candles) == columns_of_rows(exchange.rows[-5000:])
    assert [limit for limit, _ in exchange.asked] == [1000, 1000, 1000, 1000, 1000, 5]
    assert market.counts().fetches == {"whole": 1, "gap": 0, "deepen": 5, "check": 0}
    assert (market.counts().topics, market.counts().candles) == (1, 5000)


def columns_of_rows(rows: list[CandleRow]) -> list[list[float]]:
    """The same straight from rows."""
    return [[float(one[place]) for one in rows] for place in range(len(COLUMNS))]


async def test_depth_stays_and_is_capped() -> None:
    """What was reached goes on at its end and is not asked for again, nor is more than the cap; less is a view."""
    exchange = KlineExchange(6000)
    market = Market(exchange, max_candles=2500)
    await market.poll()
    assert len(await market.reach(4000)) == 2500
    exchange.asked.clear()
    exchange.roll(2)
    candles = await market.poll()
    await market.reach(1500)
    await market.reach(DEPTH)
    assert market.held() is candles
    assert candles.rows == tuple(exchange.rows[-2500:])
    assert all(limit < 10 for limit, _ in exchange.asked)
    view = candles.last(1000)
    assert view.rows == tuple(exchange.rows[-1000:])
    assert all(np.shares_memory(getattr(view, name), getattr(candles, name)) for name in COLUMNS)
    assert all(getattr(view, name).flags.c_contiguous for name in COLUMNS)


async def test_young_listing_ends_at_its_first_candle() -> None:
    """Where the exchange has no more it is asked once, and never again, as long as nothing is let go of the start."""
    exchange = KlineExchange(1700)
    market = Market(exchange)
    await market.poll()
    candles = await market.reach(5000)
    assert candles.rows == tuple(exchange.rows)
    assert candles.is_from_start
    exchange.asked.clear()
    exchange.roll()
    await market.poll()
    assert (await market.reach(5000)).rows == tuple(exchange.rows)
    assert all(end_ms is None for _, end_ms in exchange.asked)


async def test_failure_leaves_what_is_held() -> None:
    """A page that does not come leaves the others, and is asked for again only after a pause."""
    exchange = KlineExchange(6000)
    market = Market(exchange)
    await market.poll()
    await market.reach(2000)
    exchange.is_away = True
    assert len(await market.reach(5000)) == 2000
    exchange.is_away = False
    exchange.asked.clear()
    assert len(await market.reach(5000)) == 2000
    assert not exchange.asked
    exchange.now += PAUSE_LAST_S
    assert len(await market.reach(5000)) == 5000


async def test_page_under_way_is_not_waited_for_too_long() -> None:
    """Who has no patience is answered with what there is; those who ask together share the pages."""
    exchange = KlineExchange(3000)
    delay = Delay(exchange, random.Random(1))
    market = Market(exchange, delay.klines)
    flights = market.feeds.refresh([TOPIC])
    await asyncio.sleep(0)
    while await delay.release():
        pass
    await asyncio.wait(flights)
    assert len(await market.reach(2000, patience_s=0)) == 1000
    assert len(await market.reach(2500, patience_s=0)) == 1000
    assert market.counts().fetches[FetchKind.DEEPEN] == 1
    while await delay.release():
        pass
    assert len(market.held()) == 2500
    assert market.counts().fetches[FetchKind.DEEPEN] == 2
    await market.history.close()


async def test_pages_end_with_the_history() -> None:
    """Closing cancels what is under way."""
    exchange = KlineExchange(3000)
    market = Market(exchange)
    await market.poll()
    market.history._klines = Delay(exchange, random.Random(1)).klines
    await market.reach(2000, patience_s=0.01)
    await market.history.close()
    assert not market.history._flights


async def test_page_with_a_gap_is_not_joined() -> None:
    """A page that lacks a candle is refused; once the exchange has it, the page is joined."""
    exchange = KlineExchange(3000)
    market = Market(exchange)
    await market.poll()
    whole = exchange.rows[:]
    lost = exchange.rows.pop(1500)
    exchange.rows.insert(0, lost)
    assert len(await market.reach(2000)) == 1000
    exchange.rows = whole
    exchange.now += PAUSE_LAST_S
    assert len(await market.reach(2000)) == 2000


@pytest.mark.parametrize("late_by", [1, 2000])
async def test_page_that_ends_elsewhere_is_not_joined(late_by: int) -> None:
    """A page must end with the oldest candle held: one that ends before it, or is empty, is refused."""
    exchange = KlineExchange(2500)
    market = Market(exchange)

    async def elsewhere(topic: Topic, limit: int, *, end_ms: int | None = None) -> Any:
        assert end_ms is not None
        return exchange.answer(limit, end_ms - late_by * MINUTE)

    await market.poll()
    market.history._klines = elsewhere
    assert len(await market.reach(2000)) == 1000
    assert market.history._pauses


async def test_page_of_what_was_cut_is_dropped() -> None:
    """What is cut while its next page is under way stays cut; the page comes too late, and breaks nothing."""
    exchange = KlineExchange(4000)
    market = Market(exchange)
    await market.poll()
    await market.reach(2000)
    delay = Delay(exchange, random.Random(1))
    market.history._klines = delay.klines
    await market.reach(3000, patience_s=0)
    exchange.now += 1
    market.history._cut(0, exchange.now)
    while await delay.release():
        pass
    assert market.held().rows == tuple(exchange.rows[-1000:])
    assert not market.history._pauses


async def test_gap_is_found_and_repaired() -> None:
    """A candle that an answer lacked is read with all others; one that was lacking all the time, once it is there."""
    exchange = KlineExchange(3000)
    market = Market(exchange)
    await market.poll()
    whole = exchange.rows[:]
    exchange.asked.clear()
    lost = exchange.rows.pop(-3)
    exchange.rows.insert(0, lost)
    candles = await market.poll()
    assert [limit for limit, _ in exchange.asked] == [5, 1000]
    assert lost not in candles.rows
    exchange.rows = whole
    await market.checks.read_anew(TOPIC, 0)
    assert market.held().rows == tuple(whole[-1000:])
    assert columns_of(market.held()) == columns_of_rows(whole[-1000:])


async def test_candle_in_both_is_told_by_the_later_word() -> None:
    """Where the page contradicts the oldest candle held, it is replaced, and the contradiction counted."""
    exchange = KlineExchange(3000)
    market = Market(exchange)
    await market.poll()
    exchange.correct(-1000)
    assert (await market.reach(2000)).rows == tuple(exchange.rows[-2000:])
    assert market.counts().contradictions == 1


async def test_contradiction_at_the_end_keeps_what_is_before() -> None:
    """A correction near the end has the last thousand read anew; what is older stays with them."""
    exchange = KlineExchange(3000)
    market = Market(exchange)
    await market.poll()
    await market.reach(2000)
    exchange.correct(-2)
    exchange.asked.clear()
    assert (await market.poll()).rows == tuple(exchange.rows[-2000:])
    assert [limit for limit, _ in exchange.asked][-1] == 1000
    assert market.counts().contradictions == 1


async def test_memory_is_bounded() -> None:
    """Deep histories get what room there is; the one asked for longest ago gives way, one just asked for does not."""
    exchange = KlineExchange(6000)
    topics = [Topic(Kind.KLINE, name, "1") for name in ("AAAUSDT", "BBBUSDT", "CCCUSDT")]
    market = Market(exchange, max_bytes=1_110_000)
    for topic in topics:
        await market.poll(topic)
    for topic in topics[:2]:
        assert len(await market.reach(5000, topic)) == 5000
        exchange.now += 1
    assert len(await market.reach(5000, topics[2])) == 1000
    exchange.now += IDLE_S - 1.5
    assert len(await market.reach(5000, topics[2])) == 5000
    assert [len(market.held(topic)) for topic in topics] == [1000, 5000, 5000]
    shallow = market.held(topics[0])
    assert shallow.rows == tuple(exchange.rows[-1000:])
    assert all(getattr(shallow, name).base is None for name in COLUMNS)
    assert market.counts().bytes <= 1_110_000


async def test_where_there_is_no_room_it_is_looked_for_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often older candles are asked for that do not fit, all that is held is not summed up each time."""
    market, looks = Market(KlineExchange(6000), max_bytes=200_000), 0
    await market.poll()
    make_room = market.history._make_room

    def counted(candles: int) -> bool:
        nonlocal looks
        looks += 1
        return make_room(candles)

    monkeypatch.setattr(market.history, "_make_room", counted)
    for _ in range(50):
        assert len(await market.reach(5000)) == 1000
    assert looks == 1
    market.exchange.now += PAUSE_FIRST_S
    market.history._max_bytes = 10_000_000
    assert len(await market.reach(5000)) == 5000


async def test_bound_is_kept_by_all() -> None:
    """Where other topics have taken the room, deep histories are cut, those asked for longest ago first."""
    exchange = KlineExchange(6000)
    deep, *others = (Topic(Kind.KLINE, f"{number}USDT", "1") for number in range(10))
    market = Market(exchange, max_bytes=1_200_000)
    await market.poll(deep)
    assert len(await market.reach(5000, deep)) == 5000
    for topic in others:
        await market.poll(topic)
    market.history.trim()
    assert len(market.held(deep)) == 1000
    assert market.counts().bytes <= 1_200_000


async def test_only_what_is_needed_is_cut() -> None:
    """Of several deep histories only so many are cut as it takes, those asked for longest ago first."""
    exchange = KlineExchange(6000)
    topics = [Topic(Kind.KLINE, f"{number}USDT", "1") for number in range(3)]
    market = Market(exchange)
    for topic in topics:
        await market.poll(topic)
        await market.reach(5000, topic)
    exchange.now += 1
    await market.reach(2000, topics[0])
    market.history._max_bytes = market.counts().bytes - 1
    market.history.trim()
    assert [len(market.held(topic)) for topic in topics] == [5000, 1000, 5000]


async def test_few_are_paged_at_once() -> None:
    """Pages of a third topic wait until one of two others is done."""
    exchange = KlineExchange(3000)
    delay = Delay(exchange, random.Random(1))
    topics = [Topic(Kind.KLINE, f"{number}USDT", "1") for number in range(3)]
    market = Market(exchange)
    for topic in topics:
        await market.poll(topic)
    market.history._klines = delay.klines
    for topic in topics:
        await market.reach(2000, topic, patience_s=0.01)
    assert market.counts().fetches[FetchKind.DEEPEN] == 2
    while await delay.release():
        pass
    assert [len(market.held(topic)) for topic in topics] == [2000] * 3


async def test_older_candles_are_no_younger() -> None:
    """A deeper history has the age of what was in hand, but it is another answer, with a tag of its own."""
    exchange = KlineExchange(3000)
    market = Market(exchange)
    await market.poll()
    before = market.feeds.in_hand(TOPIC)
    exchange.now += 1
    await market.reach(2000)
    after = market.feeds.in_hand(TOPIC)
    assert before is not None
    assert after is not None
    assert (after.asked_at, after.exchange_time_ms) == (before.asked_at, before.exchange_time_ms)
    assert after.arrived_at > before.arrived_at


@pytest.mark.parametrize("meanwhile", ["deeper", "pushed"])
async def test_call_under_way_loses_nothing(meanwhile: str) -> None:
    """An answer is joined to what is in hand when it comes, and costs no second call where a push has overtaken it."""
    exchange = KlineExchange(3000)
    delay = Delay(exchange, random.Random(1))
    market = Market(exchange)
    await market.poll()
    market.cache._klines = delay.klines
    exchange.now += 1
    market.feeds.refresh([TOPIC])
    await asyncio.sleep(0)
    early = exchange.rows[:]
    if meanwhile == "deeper":
        await market.reach(2000)
    else:
        market.push(is_closed=True)
        exchange.roll()
        market.push()
    late, exchange.rows = exchange.rows, early
    minute, exchange.minute = exchange.minute, int(early[-1][0]) // MINUTE
    while await delay.release():
        pass
    exchange.rows, exchange.minute = late, minute
    assert market.held().rows == tuple(late[-2000:] if meanwhile == "deeper" else late[-1000:])
    assert market.counts().fetches[FetchKind.WHOLE] == 1


async def test_feed_forgotten_meanwhile() -> None:
    """A page, or a check, of a topic that was forgotten while it was under way comes to nobody."""
    exchange = KlineExchange(3000)
    delay = Delay(exchange, random.Random(1))
    market = Market(exchange)
    await market.poll()
    market.history._klines = market.checks._klines = delay.klines
    await market.reach(2000, patience_s=0.01)
    check = asyncio.create_task(market.checks.read_anew(TOPIC, 0))
    await asyncio.sleep(0)
    exchange.now += 1000
    market.feeds.sweep(force=True)
    while await delay.release():
        pass
    await check
    await market.checks.read_anew(TOPIC, 0)
    assert market.feeds.in_hand(TOPIC) is None
    assert not market.history._flights
    assert market.counts().fetches[FetchKind.CHECK] == 1


async def test_bug_of_ours_is_no_end() -> None:
    """What nobody has foreseen is logged, and leaves what is held; who waits is answered, and tries again later."""
    exchange = KlineExchange(3000)
    market = Market(exchange)
    await market.poll()

    async def broken(topic: Topic, limit: int, *, end_ms: int | None = None) -> Any:
        raise ZeroDivisionError

    whole, market.history._klines, market.checks._klines = market.history._klines, broken, broken
    assert len(await market.reach(2000)) == 1000
    await market.checks._check(TOPIC, 0)
    market.history._klines = whole
    exchange.now += PAUSE_LAST_S
    assert len(await market.reach(2000)) == 2000


async def test_forgotten_feeds_are_forgotten() -> None:
    """With its feed the want of a deep history goes; who comes next begins with a thousand."""
    exchange = KlineExchange(6000)
    market = Market(exchange)
    await market.poll()
    await market.reach(3000)
    exchange.now += 1000
    market.feeds.sweep(force=True)
    market.history.trim()
    assert not market.history._wants
    assert len(await market.poll()) == 1000


def test_months_join_by_the_calendar() -> None:
    """Older months are put before newer ones, and corrected, whatever their length."""
    opens = [int(datetime(2024 + at // 12, at % 12 + 1, 1, tzinfo=UTC).timestamp() * 1000) for at in range(24)]
    rows: list[CandleRow] = [(str(at), "1", "2", "1", "2", "5", "9") for at in opens]
    held, page = assembled(rows[10:], "M", 0), assembled(rows[:11], "M", 0)
    whole = preceded(held, page)
    assert whole is not None
    assert whole.rows == tuple(rows)
    rows[3] = (*rows[3][:5], "6", "9")
    told = corrected(whole, rows[:12], "M")
    assert told is not None
    assert told.rows == tuple(rows)


def test_preceding_keeps_to_the_depth() -> None:
    """No more than the depth is kept, the newest; and nothing is joined that does not share its first candle."""
    rows = [row(minute) for minute in range(60)]
    held, page = replace(assembled(rows[30:], "1", 0), depth=40), assembled(rows[:31], "1", 0)
    whole = preceded(held, replace(page, is_from_start=True))
    assert whole is not None
    assert whole.rows == tuple(rows[20:])
    assert not whole.is_from_start
    assert preceded(held, assembled(rows[:30], "1", 0)) is None
    assert preceded(held, assembled([*rows[:30], row(30, 9)], "1", 0)) is None
    assert preceded(held, assembled([], "1", 0)) is None
    assert without_forming(whole).rows == tuple(rows[20:-1])


class World(Market):
    """A market and its exchange, in which anything may happen."""

    def __init__(self, chance: random.Random, length: int) -> None:
        self.chance = chance
        self.delay = Delay(KlineExchange(length), chance)
        super().__init__(self.delay._exchange, self.delay.klines, max_candles=2600)
        self.final: dict[str, set[CandleRow]] = {}
        self.wanted = DEPTH
        self.tasks: set[asyncio.Task[None]] = set()
        self._remember()

    def _remember(self) -> None:
        for one in self.exchange.rows[:-1]:
            self.final.setdefault(one[0], set()).add(one)

    def _spawn(self, task: "asyncio.Task[None]") -> None:
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def trade(self) -> None:
        """Something is traded, and perhaps heard of."""
        self.exchange.trade()
        if self.chance.random() < 0.7:
            self.push()

    async def roll(self) -> None:
        """The candle ends, another one begins; the stream may lose either word."""
        if self.chance.random() < 0.8:
            self.push(is_closed=True)
        self.exchange.roll()
        self._remember()
        if self.chance.random() < 0.8:
            self.push()

    async def pass_by(self) -> None:
        """Time goes by unheard of: minutes, or the better part of a day."""
        self.exchange.roll(self.chance.choice((2, 5, 1100)))
        self._remember()

    async def correct(self) -> None:
        """A closed candle is corrected: one near the end, or any."""
        length = len(self.exchange.rows)
        if length > 5:
            self.exchange.correct(-self.chance.choice((2, 3, 5, self.chance.randrange(2, length))))
        self._remember()

    async def ask(self) -> None:
        """A call for what is missing."""
        self.feeds.refresh([TOPIC])

    async def want(self) -> None:
        """Somebody wants more history."""
        count = self.chance.choice((1200, 2000, 2600))
        self.wanted = max(self.wanted, count)
        await self.history.reach(TOPIC, count, patience_s=0)

    async def check(self) -> None:
        """A page is read anew."""
        self._spawn(asyncio.create_task(self.checks._check(TOPIC, self.chance.randrange(3))))

    async def answer(self) -> None:
        """One of the answers comes."""
        await self.delay.release()

    async def fail(self) -> None:
        """One of the calls fails."""
        await self.delay.release(is_failing=True)

    async def cut(self) -> None:
        """Memory runs short."""
        self.history._cut(0, self.exchange.now)

    async def step(self, event: str) -> None:
        """Something happens, and what follows from it."""
        self.exchange.now += 1
        await getattr(self, event)()
        await asyncio.sleep(0)

    def look(self) -> None:
        """What is in hand is in order, without gap, whole in every column, and of candles that were."""
        if self.feeds.in_hand(TOPIC) is None:
            return
        candles = self.held()
        rows = candles.rows[:]
        assert len(rows) <= candles.depth
        assert columns_of(candles) == columns_of_rows([*rows])
        assert set(np.diff(candles.open_times_ms).tolist()) <= {MINUTE}
        closed = rows if candles.last_closed else rows[:-1]
        assert all(one in self.final[one[0]] for one in closed if one[0] in self.final)
        assert all(one[0] in self.final for one in closed[:-1])
        if candles.is_from_start:
            assert rows[0][0] == self.exchange.rows[0][0]

    async def drain(self) -> None:
        """All that is under way comes to its end."""
        for _ in range(3):
            await asyncio.sleep(0)
        while await self.delay.release():
            self.look()
        if self.tasks:
            await asyncio.wait(self.tasks)

    async def settle(self) -> None:
        """Nothing more happens: one call, one want, and every page read anew."""
        await self.drain()
        self.exchange.now += PAUSE_LAST_S
        self.exchange.roll()
        self._remember()
        self.feeds.refresh([TOPIC])
        await self.drain()
        await self.history.reach(TOPIC, self.wanted, patience_s=0)
        await self.drain()
        for page in range(3):
            self._spawn(asyncio.create_task(self.checks._check(TOPIC, page)))
            await self.drain()


EVENTS = ("trade", "trade", "roll", "pass_by", "correct", "ask", "ask", "want", "check", "fail", "cut", *["answer"] * 6)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from((1, 2, 30, 999, 1000, 1001, 1700, 2700)),
    st.lists(st.sampled_from(EVENTS), min_size=10, max_size=40),
)
def test_what_is_held_is_the_exchanges_truth(seed: int, length: int, events: list[str]) -> None:
    """Whatever mix of calls, pushes, gaps, corrections, failures, pages and cuts: in the end it is the last N."""

    async def story() -> None:
        world = World(random.Random(seed), length)
        for event in ("ask", "answer", *events):
            await world.step(event)
            world.look()
        await world.settle()
        world.look()
        assert world.held().rows == tuple(world.exchange.rows[-world.wanted :])
        await world.history.close()
        await world.feeds.close()

    asyncio.run(story())
