"""Feeds: freshness, one flight for everybody, failures, order, and bounds."""

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from server.errors import ExchangeTimeout, ExchangeUnreachable, GatewayError, InternalError, Overloaded
from server.market.feed import BACKOFF_LAST_S, LATE_S, MAX_FLIGHTS
from server.market.feeds import AHEAD, ASKED_S, IDLE_S, Feeds
from server.market.precedence import DISBELIEF_S, LAG_MS, newest
from server.models import Kind, Position, PositionRow, Reading, Source, Topic

PRICE = Topic(Kind.TICKER, "BTCUSDT")
OTHER = Topic(Kind.TICKER, "ETHUSDT")


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Upstream:
    """An exchange that answers when the test says so."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked: list[frozenset[Topic]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None
        self.gate.set()

    async def fetch(self, topics: frozenset[Topic]) -> dict[Topic, Reading[Any]]:
        """A reading of each topic, once the gate is open."""
        self.asked.append(topics)
        asked_at = self.clock()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return {topic: Reading(len(self.asked), asked_at, self.clock(), 0) for topic in topics}


@pytest.fixture
def clock() -> Clock:
    """The test's clock."""
    return Clock()


@pytest.fixture
def upstream(clock: Clock) -> Upstream:
    """The test's exchange."""
    return Upstream(clock)


@pytest.fixture
def feeds(upstream: Upstream, clock: Clock) -> Feeds:
    """Feeds of three symbols at most."""
    return Feeds(upstream.fetch, max_symbols=3, clock=clock)


async def ask(feeds: Feeds, topic: Topic = PRICE, max_age_s: float = 1.0, patience_s: float = 0.5) -> Any:
    """The value of a topic, as REST asks for it."""
    part = await feeds.read(topic, max_age_s=max_age_s, patience_s=patience_s, timeout_s=0.2)
    assert part.reading is not None
    return part.reading.value


async def settled(feeds: Feeds, topic: Topic = PRICE) -> None:
    """Wait for the topic's flight, if there is one."""
    if (flight := feeds.feed(topic).flight) is not None:
        await asyncio.wait({flight})


async def test_young_reading_is_not_asked_for_again(feeds: Feeds, upstream: Upstream, clock: Clock) -> None:
    """A reading serves everybody while it is young."""
    assert await ask(feeds) == 1
    clock.now += AHEAD - 0.1
    assert await ask(feeds) == 1
    assert feeds.feed(PRICE).flight is None
    clock.now += 0.6
    assert await ask(feeds) == 2
    assert upstream.asked == [frozenset({PRICE})] * 2


async def test_what_is_too_old_soon_is_made_anew_behind(feeds: Feeds, upstream: Upstream, clock: Clock) -> None:
    """Whoever asks all the time never waits: the old value is answered at once while its successor is on its way."""
    assert await ask(feeds) == 1
    upstream.gate.clear()
    clock.now += AHEAD + 0.1
    assert await ask(feeds) == await ask(feeds) == 1
    upstream.gate.set()
    await settled(feeds)
    assert await ask(feeds) == 2
    assert len(upstream.asked) == 2


async def test_age_counts_from_asking(feeds: Feeds, upstream: Upstream, clock: Clock) -> None:
    """A slow answer is already old when it arrives."""
    upstream.gate.clear()
    asking = asyncio.create_task(ask(feeds))
    while not upstream.asked:
        await asyncio.sleep(0)
    clock.now += 0.9
    upstream.gate.set()
    await asking
    reading = feeds.part(PRICE).reading
    assert reading is not None
    assert reading.age_s(clock()) == pytest.approx(0.9)
    assert feeds.peek(PRICE, 0.5) is None


async def test_hundred_askers_make_one_call(feeds: Feeds, upstream: Upstream) -> None:
    """Everybody who asks while a call is under way joins it."""
    upstream.gate.clear()
    asking = [asyncio.create_task(ask(feeds)) for _ in range(100)]
    await asyncio.sleep(0)
    upstream.gate.set()
    assert await asyncio.gather(*asking) == [1] * 100
    assert len(upstream.asked) == 1


async def test_a_call_made_too_long_ago_is_followed_by_another(feeds: Feeds, upstream: Upstream, clock: Clock) -> None:
    """Who joins a call under way and wants what is younger than that gets the next one's answer, and one is enough."""
    upstream.gate.clear()
    first = asyncio.create_task(ask(feeds, max_age_s=0.0))
    await eventually_asked(upstream, 1)
    clock.now += 0.2
    content = asyncio.create_task(ask(feeds, max_age_s=0.3))
    strict = [asyncio.create_task(ask(feeds, max_age_s=max_age_s)) for max_age_s in (0.0, 0.1, 0.19)]
    await asyncio.sleep(0)
    upstream.gate.set()
    assert [await asking for asking in (first, content, *strict)] == [1, 1, 2, 2, 2]
    assert len(upstream.asked) == 2


async def test_the_call_after_is_waited_for_within_the_patience(feeds: Feeds, upstream: Upstream, clock: Clock) -> None:
    """Where the next call hangs, what the joined one brought is given, with its age."""
    upstream.gate.clear()
    first = asyncio.create_task(ask(feeds, max_age_s=0.0))
    await eventually_asked(upstream, 1)
    clock.now += 0.2
    strict = asyncio.create_task(ask(feeds, max_age_s=0.1, patience_s=0.1))
    await asyncio.sleep(0)
    upstream.gate.set()
    assert await first == 1
    upstream.gate.clear()
    assert await strict == 1
    assert len(upstream.asked) == 2


async def eventually_asked(upstream: Upstream, times: int) -> None:
    """Wait until the exchange was asked so often."""
    while len(upstream.asked) < times:
        await asyncio.sleep(0)


async def test_waiter_cannot_cancel_the_flight(feeds: Feeds, upstream: Upstream) -> None:
    """One waiter that is cancelled takes nothing from the others."""
    upstream.gate.clear()
    first, second = asyncio.create_task(ask(feeds)), asyncio.create_task(ask(feeds))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    upstream.gate.set()
    assert await second == 1
    assert first.cancelled()


async def test_nothing_in_hand_waits_and_then_says_so(feeds: Feeds, upstream: Upstream) -> None:
    """Without any reading the caller waits for its timeout and gets one of ours."""
    upstream.gate.clear()
    with pytest.raises(ExchangeTimeout):
        await ask(feeds)


async def test_hanging_call_does_not_keep_what_is_in_hand(feeds: Feeds, upstream: Upstream, clock: Clock) -> None:
    """Once a call under way is older than the patience, an old reading is answered at once, with its age."""
    await ask(feeds)
    clock.now += 5
    upstream.gate.clear()
    feeds.refresh([PRICE])
    clock.now += 0.5
    assert await asyncio.wait_for(ask(feeds), 0.1) == 1
    part = feeds.part(PRICE)
    assert part.is_waiting
    assert part.is_stale(clock(), 3.0)


async def test_late_flight_is_joined_by_another(feeds: Feeds, upstream: Upstream, clock: Clock) -> None:
    """A call that hangs does not keep the feed from noticing that the exchange is back; the younger answer stays."""
    await ask(feeds)
    clock.now += 2
    upstream.gate.clear()
    (hung,) = feeds.refresh([PRICE])
    await asyncio.sleep(0)
    clock.now += LATE_S - 0.1
    assert feeds.refresh([PRICE]) == {hung}
    clock.now += 0.1
    old_gate, upstream.gate = upstream.gate, asyncio.Event()
    (second,) = feeds.refresh([PRICE])
    assert second is not hung
    upstream.gate.set()
    await asyncio.wait({second})
    assert feeds.part(PRICE).reading.value == 3  # type: ignore[union-attr]
    upstream.error = ExchangeTimeout("the hung one")
    old_gate.set()
    await asyncio.wait({hung})
    assert feeds.part(PRICE).error is None


async def test_who_has_nothing_yet_is_served_by_whichever_call_is_answered() -> None:
    """The first call hangs: whoever waits for it makes another once it is late, and takes that one's answer."""
    calls, hung = 0, asyncio.Event()

    async def fetch(topics: frozenset[Topic]) -> dict[Topic, Reading[Any]]:
        nonlocal calls
        calls += 1
        if calls == 1:
            await hung.wait()
        return {topic: Reading("here", time.monotonic(), time.monotonic(), 0) for topic in topics}

    feeds = Feeds(fetch, max_symbols=3, late_s=0.05)
    async with asyncio.timeout(5):
        part = await feeds.read(PRICE, max_age_s=1.0, patience_s=0.5, timeout_s=10.0)
    assert part.reading is not None
    assert (part.reading.value, calls) == ("here", 2)
    hung.set()
    await feeds.close()


async def test_flights_are_bounded(feeds: Feeds, upstream: Upstream, clock: Clock) -> None:
    """However long the exchange hangs, a feed has only so many calls under way."""
    upstream.gate.clear()
    for _ in range(50):
        feeds.refresh([PRICE])
        await asyncio.sleep(0)
        clock.now += LATE_S
    assert len(upstream.asked) == MAX_FLIGHTS
    await feeds.close()


async def test_failure_answers_all_and_pauses(feeds: Feeds, upstream: Upstream, clock: Clock) -> None:
    """A failure reaches every waiter, and no new flight starts before its pause is over."""
    upstream.error = ExchangeUnreachable("away")
    with pytest.raises(ExchangeUnreachable):
        await ask(feeds)
    with pytest.raises(ExchangeUnreachable):
        await ask(feeds)
    assert len(upstream.asked) == 1
    clock.now += BACKOFF_LAST_S
    upstream.error = None
    assert await ask(feeds) == 2
    assert feeds.part(PRICE).error is None


async def test_failure_keeps_the_last_reading_as_stale(feeds: Feeds, upstream: Upstream, clock: Clock) -> None:
    """What was known stays known, marked, and is answered without waiting for the next try."""
    await ask(feeds)
    clock.now += 2
    upstream.error = ExchangeUnreachable("away")
    assert await ask(feeds) == 1
    part = feeds.part(PRICE)
    assert part.has_failed
    assert part.is_stale(clock(), 1e9)
    assert isinstance(part.error, ExchangeUnreachable)


async def test_failed_feed_answers_at_once_and_heals_behind(feeds: Feeds, upstream: Upstream, clock: Clock) -> None:
    """While it fails, asking starts a try but does not wait for it; the next asker has its fruit."""
    await ask(feeds)
    upstream.error = ExchangeUnreachable("away")
    clock.now += 2
    await ask(feeds)
    clock.now += BACKOFF_LAST_S
    upstream.error = None
    upstream.gate.clear()
    assert await asyncio.wait_for(ask(feeds), 0.1) == 1
    upstream.gate.set()
    await settled(feeds)
    assert await ask(feeds) == 3


async def test_pauses_grow_to_their_bound(feeds: Feeds, upstream: Upstream, clock: Clock) -> None:
    """Failures in a row make fewer and fewer calls, but never fewer than one in the longest pause."""
    upstream.error = ExchangeUnreachable("away")
    for _ in range(600):
        feeds.refresh([PRICE])
        await settled(feeds)
        clock.now += 0.1
    assert 60 / BACKOFF_LAST_S <= len(upstream.asked) <= 60 / (BACKOFF_LAST_S / 2) + 6


async def test_retry_after_is_respected(feeds: Feeds, upstream: Upstream, clock: Clock) -> None:
    """An error that knows when to come back sets the pause."""
    upstream.error = GatewayError("later", retry_after_s=60)
    feeds.refresh([PRICE])
    await settled(feeds)
    clock.now += 59
    assert feeds.refresh([PRICE]) == set()
    clock.now += 1
    assert len(feeds.refresh([PRICE])) == 1
    await settled(feeds)


async def test_bug_in_fetch_is_named_and_survived(feeds: Feeds, upstream: Upstream, clock: Clock) -> None:
    """An unexpected exception is logged with its traceback, shown without it, and the feed lives on."""
    upstream.error = ZeroDivisionError("secret internals")
    with capture_logs() as logs, pytest.raises(InternalError) as caught:
        await ask(feeds)
    assert "internals" not in caught.value.detail
    assert "refresh_crashed" in [line["event"] for line in logs]
    clock.now += BACKOFF_LAST_S
    upstream.error = None
    assert await ask(feeds) == 2


async def test_changes_are_told(feeds: Feeds, upstream: Upstream, clock: Clock) -> None:
    """Watchers hear of each new reading and each failure."""
    heard: list[tuple[Topic, bool]] = []
    feeds.watch(lambda topic: heard.append((topic, feeds.part(topic).has_failed)))
    await ask(feeds)
    clock.now += 2
    upstream.error = ExchangeUnreachable("away")
    await ask(feeds)
    assert heard == [(PRICE, False), (PRICE, True)]


async def test_cap_holds_and_idle_feeds_make_room(feeds: Feeds, clock: Clock) -> None:
    """At the cap a new symbol is refused while the others are in use, and takes the place of an idle one."""
    for symbol in ("A", "B", "C"):
        feeds.feed(Topic(Kind.TICKER, symbol))
    with pytest.raises(Overloaded, match="max_symbols"):
        feeds.feed(Topic(Kind.TICKER, "D"))
    feeds.feed(Topic(Kind.POSITION, "D"))
    clock.now += IDLE_S - 1
    feeds.feed(Topic(Kind.TICKER, "B"))
    feeds.feed(Topic(Kind.TICKER, "C"))
    clock.now += 2
    feeds.feed(Topic(Kind.TICKER, "D"))
    assert {feed.topic.symbol for feed in feeds if feed.topic.kind is Kind.TICKER} == {"B", "C", "D"}


async def test_what_was_asked_for_once_makes_room_for_others(feeds: Feeds, upstream: Upstream, clock: Clock) -> None:
    """Neither what a socket shows nor what is being called for gives way; what was asked for once does, in a moment."""
    shown, called, asked, new = (Topic(Kind.KLINE, "BTCUSDT", interval) for interval in ("1", "3", "5", "15"))
    feeds.shown_by(lambda topic: topic == shown)
    for topic in (shown, asked):
        await ask(feeds, topic)
    upstream.gate.clear()
    feeds.refresh((called,))
    clock.now += ASKED_S - 0.1
    with pytest.raises(Overloaded) as caught:
        feeds.feed(new)
    assert caught.value.retry_after_s == ASKED_S
    clock.now += 0.1
    feeds.feed(new)
    assert {feed.topic for feed in feeds} == {shown, called, new}
    upstream.gate.set()
    await feeds.close()


async def test_idle_feeds_are_forgotten(feeds: Feeds, upstream: Upstream, clock: Clock) -> None:
    """A feed that nobody asked for in a while goes, with its flight."""
    upstream.gate.clear()
    feeds.refresh([PRICE, OTHER])
    await asyncio.sleep(0)
    flight = feeds.feed(PRICE).flight
    clock.now += IDLE_S + 1
    feeds.feed(OTHER)
    feeds.sweep(force=True)
    assert [feed.topic for feed in feeds] == [OTHER]
    assert feeds.evicted == 1
    assert flight is not None
    await asyncio.wait({flight})
    assert flight.cancelled()
    await feeds.close()
    assert len(feeds) == 0


def reading(value: Any, asked_at: float, source: Source = Source.POLL, arrived_at: float | None = None) -> Reading[Any]:
    """A reading asked for and arrived at the given moments."""
    return Reading(value, asked_at, asked_at if arrived_at is None else arrived_at, 0, source)


def test_poll_replaces_push_only_if_asked_for_later() -> None:
    """A poll that was under way when a push arrived does not overwrite it."""
    push = reading("push", 10.0, Source.PUSH, arrived_at=10.5)
    assert newest(push, reading("poll", 10.4)) is None
    assert newest(push, reading("poll", 10.6)) is not None
    assert newest(reading("poll", 10.0), push) is push


def test_lagging_answer_is_disbelieved_for_a_while() -> None:
    """A poll from an exchange whose clock is behind the answer in hand is refused, until it must be meant."""
    held = Reading("new", 10.0, 10.0, 5_000)
    assert newest(held, Reading("old", 11.0, 11.0, 5_000 - LAG_MS - 1)) is None
    assert newest(held, Reading("same", 11.0, 11.0, 5_000 - LAG_MS)) is not None
    assert newest(held, Reading("old", 10.0 + DISBELIEF_S, 41.0, 0)) is not None


def test_older_poll_never_overtakes() -> None:
    """Of two polls the one asked for later stays."""
    assert newest(reading("b", 2.0), reading("a", 1.0)) is None
    assert newest(None, reading("a", 1.0)) is not None


def rows(sequence: int, idx: int = 0) -> tuple[PositionRow, ...]:
    """One open row with that sequence."""
    empty = dict.fromkeys(
        ("entry_price", "mark_price", "leverage", "position_value", "unrealised_pnl", "realised_pnl"), "1"
    ) | dict.fromkeys(("liquidation_price", "take_profit", "stop_loss", "updated_time_ms"))
    position = Position(symbol="BTCUSDT", position_idx=idx, side="Buy", size="1", **empty)  # type: ignore[arg-type]
    return (PositionRow(position=position, sequence=sequence, is_open=True),)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 20), st.sampled_from(Source)), max_size=20))
def test_positions_never_go_backwards(offers: list[tuple[int, float, Source]]) -> None:
    """In any order of arrival, the sequence in hand only grows, and equals the greatest that was offered."""
    held: Reading[Any] | None = None
    for sequence, asked_at, source in offers:
        before = held.value[0].sequence if held else -1
        held = newest(held, reading(rows(sequence), asked_at, source)) or held
        assert held is not None
        assert held.value[0].sequence >= before
    if held is not None:
        assert held.value[0].sequence == max(sequence for sequence, *_ in offers)


def test_equal_sequence_goes_to_the_one_asked_for_later() -> None:
    """Mark-dependent fields move without a new sequence: the later question wins."""
    held = reading(rows(5), 10.0)
    assert newest(held, reading(rows(5), 9.0)) is None
    assert newest(held, reading(rows(5), 11.0)) is not None


def test_exchange_that_begins_anew_is_believed_at_last() -> None:
    """Lower sequences are disbelieved for a while, then the exchange must have restarted its numbers."""
    held = reading(rows(500), 10.0)
    assert newest(held, reading(rows(3), 10.0 + DISBELIEF_S - 1)) is None
    assert newest(held, reading(rows(3), 10.0 + DISBELIEF_S)) is not None


async def test_lagging_replica_is_logged_and_ages(feeds: Feeds, clock: Clock) -> None:
    """An answer from before what is in hand is not taken, so the reading's age goes on growing."""
    topic = Topic(Kind.POSITION, "BTCUSDT")
    feed = feeds.feed(topic)
    assert feed.offer(reading(rows(7), clock()))
    with capture_logs() as logs:
        assert not feed.offer(reading(rows(6), clock() + 1))
    assert logs[0]["event"] == "reading_out_of_order"
    held = feeds.part(topic).reading
    assert held is not None
    assert held.value[0].sequence == 7
