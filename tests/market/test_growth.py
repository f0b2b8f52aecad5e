"""Growth: candles that pushes keep are always a state that the exchange really had."""

import asyncio
import gc
import random
import weakref
from collections.abc import Coroutine, Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.market.candlecache import CandleCache
from server.market.candles import DEPTH, assembled
from server.market.counts import Tally
from server.market.feed import Feed
from server.market.feeds import Feeds
from server.market.following import WANTED_S, Following
from server.market.growth import DoesNotFollow, grown
from server.models import CandlePush, CandleRow, Candles, Kind, Reading, Source, Topic

MINUTE = 60_000
TOPIC = Topic(Kind.KLINE, "BTCUSDT", "1")
COLUMNS = ("open", "high", "low", "close", "volume")


def row(number: int, volume: int = 1) -> CandleRow:
    """The candle of minute `number` once so much has been traded."""
    return (str(number * MINUTE), "100", str(101 + volume), "99", str(100 + volume), str(volume), "100")


def candles_of(length: int, *, closed: bool = False) -> Candles:
    """So many candles, the last one forming or closed."""
    rows = [row(number) for number in range(length)]
    return assembled(rows, "1", length * MINUTE + (30_000 if closed else -30_000))


def columns_of(candles: Candles) -> list[list[float]]:
    """What indicators are computed from."""
    return [candles.open_times_ms.tolist(), *(getattr(candles, name).tolist() for name in COLUMNS)]


@pytest.mark.parametrize("length", [1, 30, DEPTH])
@pytest.mark.parametrize("closed", [False, True])
def test_growing_equals_assembling(length: int, closed: bool) -> None:
    """A grown column is what a full answer would have given; what is held elsewhere stays as it was."""
    held = candles_of(length, closed=closed)
    before = (held.rows, columns_of(held))
    held.computed["question"] = "answer"
    after = grown(held, CandlePush(row(length - 1 + closed, 7), is_closed=False), "1")
    rows = [*(row(number) for number in range(length - 1 + closed)), row(length - 1 + closed, 7)][-DEPTH:]
    assert after.rows == tuple(rows)
    assert columns_of(after) == columns_of(assembled(rows, "1", 0))
    assert (held.rows, columns_of(held)) == before
    assert (after.computed, after.last_closed) == ({}, False)


def test_closing_is_the_exchanges_word() -> None:
    """The same row called closed is other candles, with nothing computed; said again it is nothing new."""
    held = candles_of(30)
    held.computed["question"] = "answer"
    assert grown(held, CandlePush(row(29), is_closed=False), "1") is held
    closed = grown(held, CandlePush(row(29), is_closed=True), "1")
    assert (closed.last_closed, closed.computed, held.last_closed) == (True, {}, False)
    for is_closed in (True, False):
        assert grown(closed, CandlePush(row(29), is_closed=is_closed), "1") is closed
        assert grown(closed, CandlePush(row(28), is_closed=is_closed), "1") is closed


@pytest.mark.parametrize(
    ("held", "number", "volume"),
    [
        (candles_of(30), 30, 1),
        (candles_of(30, closed=True), 31, 1),
        (candles_of(30, closed=True), 29, 2),
        (candles_of(30), 28, 2),
        (candles_of(30), 10, 2),
        (assembled([], "1", 0), 0, 1),
    ],
    ids=["after one not closed", "gap", "another closed one", "another one before", "long ago", "nothing in hand"],
)
def test_what_does_not_follow_is_refused(held: Candles, number: int, volume: int) -> None:
    """Nothing is guessed: what does not continue the candles is said to."""
    with pytest.raises(DoesNotFollow):
        grown(held, CandlePush(row(number, volume), is_closed=True), "1")


def test_months_follow_by_the_calendar() -> None:
    """After February comes March, on the first."""
    opens = [int(datetime(2026, month, 1, tzinfo=UTC).timestamp() * 1000) for month in (1, 2, 3)]
    rows: list[CandleRow] = [(str(opened), "1", "1", "1", "1", "1", "1") for opened in opens]
    held = assembled(rows[:2], "M", opens[2] + 5000)
    assert grown(held, CandlePush(rows[2], is_closed=False), "M").rows == tuple(rows)


def test_older_candles_are_let_go() -> None:
    """Newer candles keep none of those before them alive, nor an array that is longer than theirs."""
    candles = candles_of(DEPTH, closed=True)
    gc.disable()
    try:
        for number in range(DEPTH, DEPTH + 20):
            before = weakref.ref(candles)
            candles = grown(candles, CandlePush(row(number), is_closed=True), "1")
            assert before() is None
    finally:
        gc.enable()
    assert all(getattr(candles, name).base is None and len(getattr(candles, name)) == DEPTH for name in COLUMNS)


class Line:
    """A line that proves itself alive all the time."""

    confirmed_at = 0.0


class World:
    """An exchange with one kline topic, what it has said, and a feed that hears some of it.

    `states` are the rows after each change, oldest first; one event happens in each second of the monotonic clock.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.minute = int(datetime.now(UTC).timestamp() * 1000) // MINUTE + 10
        self.now, self.time_ms, self.is_closed = 0.0, self.minute * MINUTE, False
        self.rows = tuple(row(self.minute - 29 + number) for number in range(30))
        self.states = [self.rows]
        self.closed: set[CandleRow] = set(self.rows[:-1])
        self.said: list[Reading[CandlePush]] = []
        self.answers: list[Reading[Candles]] = []
        self.feed = Feed(TOPIC, self._never, lambda: self.now, lambda _: None)
        self.rank = -1
        self.seen: Candles | None = None

    async def _never(self, _: frozenset[Topic]) -> dict[Topic, Reading[Any]]:
        raise AssertionError("calls are made by the test")

    def _say(self) -> None:
        push = CandlePush(self.rows[-1], self.is_closed)
        self.said.append(Reading(push, self.now, self.now, self.time_ms, Source.PUSH))

    def trade(self) -> None:
        """Something is traded: the forming candle grows."""
        if self.is_closed:
            self.open()
            return
        self.time_ms += 1
        last = self.rows[-1]
        self.rows = (*self.rows[:-1], row(self.minute, int(last[5]) + 1))
        self.states.append(self.rows)
        self._say()

    def close(self) -> None:
        """The candle ends, and the next one begins in the same moment or later."""
        if self.is_closed:
            self.open()
            return
        self.time_ms = (self.minute + 1) * MINUTE
        self.is_closed = True
        self.closed.add(self.rows[-1])
        self._say()
        if self.chance.random() < 0.5:
            self.open()

    def open(self) -> None:
        """The next candle begins."""
        self.time_ms += self.chance.choice((0, 1, 1500))
        self.minute, self.is_closed = self.minute + 1, False
        self.rows = (*self.rows, row(self.minute, 0))
        self.states.append(self.rows)
        self._say()

    def ask(self) -> None:
        """A call is made, and answered by the exchange; the answer is under way."""

        async def klines(topic: Topic, limit: int, *, end_ms: int | None = None) -> Reading[tuple[CandleRow, ...]]:
            return Reading(self.rows[-limit:], self.now, self.now, self.time_ms)

        reading = self.feed.reading
        held: Candles | None = None if reading is None else reading.value
        self.answers.append(result(CandleCache(klines, lambda _: held, Tally()).fetch(TOPIC)))

    def answer(self) -> None:
        """One of the answers under way arrives."""
        if self.answers:
            reading = self.answers.pop(self.chance.randrange(len(self.answers)))
            self.feed.offer(Reading(reading.value, reading.asked_at, self.now, reading.exchange_time_ms))

    def hear(self) -> None:
        """A push arrives: mostly the next one; one may be lost, come again, or late."""
        if not self.said:
            return
        place = self.chance.choice((0, self.chance.randrange(len(self.said))))
        push = self.said[place]
        if self.chance.random() < 0.8:
            self.said.pop(place)
        if self.chance.random() < 0.9:
            self.take(push)

    def take(self, push: Reading[CandlePush]) -> None:
        """The feed hears `push`, now."""
        self.feed.push(Reading(push.value, push.asked_at, self.now, push.exchange_time_ms, Source.PUSH))

    def lie(self) -> None:
        """A push says of a closed candle what never was, or tells of one that nobody has come to."""
        if self.feed.reading is None:
            return
        candles: Candles = self.feed.reading.value
        closed = int(candles.rows[-1][0]) // MINUTE - (not candles.last_closed)
        number = closed - self.chance.randrange(3) if self.chance.random() < 0.5 else self.minute + 2
        push = CandlePush(row(number, 5000), is_closed=self.chance.random() < 0.5)
        self.take(Reading(push, self.now, self.now, self.time_ms, Source.PUSH))

    def follow(self) -> None:
        """A new line keeps the topic."""
        self.feed.follow(Line())

    def unfollow(self) -> None:
        """The line is lost."""
        self.feed.unfollow()

    def look(self) -> None:
        """What is in hand is a state that was, whole in every column, and none before the one seen last."""
        if self.feed.reading is None:
            return
        candles: Candles = self.feed.reading.value
        rank = self.states.index(candles.rows[:])
        assert rank >= self.rank
        assert columns_of(candles) == columns_of(assembled(candles.rows, "1", 0))
        assert not candles.last_closed or candles.rows[-1] in self.closed
        if self.seen is not None and self.seen.rows == candles.rows:
            assert candles.last_closed or not self.seen.last_closed
        self.rank, self.seen = rank, candles

    @property
    def shown(self) -> tuple[CandleRow, ...]:
        """The rows in hand."""
        assert self.feed.reading is not None
        candles: Candles = self.feed.reading.value
        return candles.rows[:]

    @property
    def is_kept(self) -> bool:
        """Whether the feed takes the rows in hand for true."""
        return self.feed.is_kept

    def settle(self) -> None:
        """Nothing is lost from here on: a trade and its push, and a call if the stream has not kept up."""
        self.said.clear()
        self.answers.clear()
        self.now += 1
        self.trade()
        self.take(self.said[-1])
        if not self.is_kept:
            self.now += 1
            self.ask()
            self.answer()


def result(coroutine: Coroutine[Any, Any, Reading[Candles]]) -> Reading[Candles]:
    """What a coroutine gives that waits for nothing."""
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    value: Reading[Candles] = stopped.value.value
    return value


EVENTS = ("trade", "trade", "close", "ask", "answer", "hear", "hear", "hear", "hear", "lie", "follow", "unfollow")


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.lists(st.sampled_from(EVENTS), min_size=20, max_size=60))
def test_every_history_shows_what_was(chance: random.Random, events: list[str]) -> None:
    """Whatever is lost, late, repeated or wrong, and however calls cross it: never a mixture, never backwards."""
    world = World(chance)
    for event in ("ask", "answer", "follow", *events):
        world.now += 1
        getattr(world, event)()
        world.look()
    world.settle()
    world.look()
    assert world.shown == world.rows


def test_undisturbed_pushes_need_no_call() -> None:
    """As long as nothing is lost the stream alone keeps the candles, over the end of many of them."""
    world = World(random.Random(1))
    world.ask()
    world.answer()
    world.follow()
    for event in ("trade", "close", "trade", "trade") * 10:
        world.now += 1
        getattr(world, event)()
        for push in world.said:
            world.take(push)
        world.said.clear()
        world.look()
        assert world.is_kept
        assert world.shown == world.rows


def test_lost_close_is_not_kept() -> None:
    """After a closing word that never came the candles are not whole, until a call that is made after that."""
    world = World(random.Random(2))
    world.ask()
    world.answer()
    world.follow()
    world.trade()
    world.take(world.said[-1])
    assert world.is_kept
    world.now += 1
    world.ask()
    world.is_closed = True
    world.open()
    world.now += 1
    world.take(world.said[-1])
    kept = [world.is_kept]
    world.answer()
    kept.append(world.is_kept)
    world.now += 1
    world.ask()
    world.answer()
    assert [*kept, world.is_kept] == [False, False, True]
    world.look()


class Wishes:
    """Streams that remember what they were asked for."""

    def __init__(self) -> None:
        self.wanted: asyncio.Queue[frozenset[Topic]] = asyncio.Queue()

    def want(self, topics: Iterable[Topic]) -> None:
        """Remember."""
        self.wanted.put_nowait(frozenset(topics))


async def test_demand_subscribes_and_unsubscribes() -> None:
    """A kline topic is wanted of the streams while somebody asks for it, and a while longer."""
    now = 0.0

    async def fetch(_: frozenset[Topic]) -> dict[Topic, Reading[Any]]:
        raise AssertionError("nobody calls")

    feeds = Feeds(fetch, max_symbols=10, clock=lambda: now)
    following = Following(feeds, listing_of=lambda _: None, reconcile_s=3.0, clock=lambda: now)
    wishes = Wishes()
    feeds.feed(TOPIC)
    running = asyncio.create_task(following.run(wishes))
    try:
        async with asyncio.timeout(10):
            assert await wishes.wanted.get() == {TOPIC}
            now = WANTED_S + 1
            assert feeds.in_hand(TOPIC) is None  # which is not to want it
            assert await wishes.wanted.get() == frozenset()
    finally:
        running.cancel()
        await asyncio.wait({running})
