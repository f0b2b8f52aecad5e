"""Following: feeds that streams keep; what they confirm, what they leave unsaid, and what must never be believed."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.errors import ExchangeUnreachable
from server.market.drift import GRACE_S
from server.market.feed import QUIET_S, RECONCILE_S
from server.market.feeds import Feeds
from server.market.following import AHEAD, SLOW_S, WANTED_S, Following
from server.market.listings import Listings
from server.models import Coin, Instrument, Kind, Position, PositionRow, Reading, Source, Ticker, Topic, Wallet

PRICE, POSITION = Topic(Kind.TICKER, "BTCUSDT"), Topic(Kind.POSITION, "BTCUSDT")
OTHER, LISTING = Topic(Kind.POSITION, "ETHUSDT"), Topic(Kind.POSITIONS)
OF_USDT, OF_USDC = Topic(Kind.POSITIONS, "USDT"), Topic(Kind.POSITIONS, "USDC")
INSTRUMENTS, WALLET = Topic(Kind.INSTRUMENTS), Topic(Kind.WALLET)
NOW_MS = 1_700_000_000_000


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Line:
    """A line that confirms what the test says."""

    def __init__(self, confirmed_at: float) -> None:
        self.confirmed_at = confirmed_at


def ticker(price: str) -> Ticker:
    """A ticker that says nothing but its price."""
    return Ticker(**{**dict.fromkeys(Ticker.__struct_fields__), "last_price": price})  # type: ignore[arg-type]


def row(sequence: int, *, symbol: str = "BTCUSDT", idx: int = 0, size: str = "1") -> PositionRow:
    """A position, flat for size 0."""
    fields = dict.fromkeys(Position.__struct_fields__)
    position = Position(**{**fields, "symbol": symbol, "position_idx": idx, "side": "Buy", "size": size})  # type: ignore[arg-type]
    return PositionRow(position=position, sequence=sequence, is_open=size != "0")


def wallet(unrealised: str = "0", **balances: str) -> Wallet:
    """A wallet of those coins."""
    coins = tuple(Coin(name, amount, amount, None, "0") for name, amount in balances.items())
    return Wallet("UNIFIED", "USD", "1", "1", "1", unrealised, coins)


class World:
    """An exchange that is called, streams that are told what is wanted, and what stands between them."""

    def __init__(self, max_symbols: int = 10) -> None:
        self.clock = Clock()
        self.values: dict[Topic, Any] = {
            PRICE: ticker("1"),
            POSITION: (row(1, size="0"),),
            OTHER: (row(1, symbol="ETHUSDT", size="0"),),
            LISTING: (),
            OF_USDT: (),
            OF_USDC: (),
            WALLET: wallet(USDT="5"),
            INSTRUMENTS: {name: instrument(name) for name in ("BTCUSDT", "ETHUSDT", "BTCPERP")},
        }
        self.asked: list[Topic] = []
        self.wanted: list[frozenset[Topic]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        listings = Listings(self.fetch, ("USDT", "USDC"), clock=self.clock)
        self.feeds = Feeds(listings.fetch, max_symbols=max_symbols, clock=self.clock)
        listings.attach(self.feeds)
        self.following = Following(
            self.feeds, listing_of=listings.listing_of, reconcile_s=RECONCILE_S, clock=self.clock
        )
        self.following._streams = self  # as run does, without its pace
        self.following._clock = self.clock

    def want(self, topics: Iterable[Topic]) -> None:
        """What the streams are asked to keep."""
        self.wanted.append(frozenset(topics))

    async def fetch(self, topics: frozenset[Topic]) -> dict[Topic, Reading[Any]]:
        """What is, when it is called for; the answer comes once the gate is open."""
        self.asked.extend(topics)
        asked_at, values = self.clock(), {topic: self.values[topic] for topic in topics}
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        time_ms = self.now_ms
        return {topic: Reading(value, asked_at, self.clock(), time_ms) for topic, value in values.items()}

    @property
    def now_ms(self) -> int:
        """The exchange's time."""
        return NOW_MS + round(self.clock() * 1000)

    async def called(self, topic: Topic) -> None:
        """Call for `topic` and wait for the answer."""
        self.feeds.refresh([topic])
        await self.settled()

    async def settled(self) -> None:
        """Wait for the flights under way."""
        while flights := [feed.flight for feed in self.feeds if feed.flight is not None]:
            await asyncio.wait(flights)

    async def looked(self) -> list[Topic]:
        """Look once; gives what was called for."""
        before = len(self.asked)
        self.following.look()
        await self.settled()
        return self.asked[before:]

    def push(self, topic: Topic, value: Any, *, late_s: float = 0.0) -> None:
        """The stream says `value`, `late_s` after it was so."""
        now = self.clock()
        reading = Reading(value, now - late_s, now, self.now_ms - round(late_s * 1000), Source.PUSH)
        self.following.push(topic, reading)

    async def kept(self, *topics: Topic) -> Line:
        """A line that keeps `topics`, which have been called for since."""
        for topic in topics:
            self.feeds.feed(topic)
        self.following.look()
        line = Line(self.clock())
        self.following.changed(frozenset(topics), line)
        for topic in topics:
            await self.called(topic)
        return line

    def turn(self, seconds: float, line: Line | None = None) -> None:
        """Time goes by, and `line` lives."""
        self.clock.now += seconds
        if line is not None:
            line.confirmed_at = self.clock.now

    def value(self, topic: Topic) -> Any:
        """What is in hand."""
        reading = self.feeds.feed(topic).reading
        return None if reading is None else reading.value


def instrument(symbol: str) -> Instrument:
    """A contract."""
    coin = "USDC" if symbol.endswith("PERP") else "USDT"
    return Instrument(symbol, "Trading", "X", coin, coin, None, None, None, None)


@pytest.fixture
def world() -> World:
    """The test's world."""
    return World()


async def test_ticker_is_whole_by_a_push(world: World) -> None:
    """A ticker says all there is: it needs no call, and silence on a line that lives says that nothing has changed."""
    feed = world.feeds.feed(PRICE)
    world.following.look()
    line = Line(world.clock())
    world.following.changed(frozenset({PRICE}), line)
    assert not world.feeds.feed(PRICE).is_kept
    world.push(PRICE, ticker("7"))
    assert feed.is_kept
    world.turn(2, line)
    assert feed.as_of == world.clock()
    assert world.feeds.peek(PRICE, 0.1) is feed.reading
    assert world.asked == []


@pytest.mark.parametrize("topic", [POSITION, WALLET, LISTING])
async def test_call_from_before_the_line_is_not_whole(world: World, topic: Topic) -> None:
    """What was asked before the topic came in sync may lack what changed between; what is asked then does not."""
    feed = world.feeds.feed(topic)
    world.following.look()
    world.gate.clear()
    world.feeds.refresh([topic])
    await asyncio.sleep(0)
    world.turn(0.1)
    world.following.changed(frozenset({topic}), Line(world.clock()))
    world.gate.set()
    await world.settled()
    assert feed.reading is not None
    assert not feed.is_kept
    await world.called(topic)
    assert feed.is_kept


@pytest.mark.parametrize(("topic", "value"), [(POSITION, (row(9),)), (WALLET, wallet(USDT="9"))])
async def test_push_with_nothing_in_hand(world: World, topic: Topic, value: Any) -> None:
    """A part of something unknown is not shown, and the call that is older than it does not make it whole."""
    feed = world.feeds.feed(topic)
    world.following.look()
    world.following.changed(frozenset({topic}), Line(world.clock()))
    world.gate.clear()
    world.feeds.refresh([topic])
    await asyncio.sleep(0)
    world.turn(0.1)
    world.push(topic, value)
    assert feed.reading is None
    world.gate.set()
    await world.settled()
    assert not feed.is_kept
    world.turn(0.1)
    await world.called(topic)
    assert feed.is_kept


async def test_pushes_are_laid_over(world: World) -> None:
    """Legs by their index, coins by their name; a lower sequence changes nothing."""
    world.values[POSITION] = (row(5, idx=1), row(6, idx=2))
    world.values[WALLET] = wallet(USDT="5", BTC="1")
    await world.kept(POSITION, WALLET)
    world.push(POSITION, (row(7, idx=2, size="3"),))
    world.push(POSITION, (row(4, idx=1, size="9"),))
    assert world.value(POSITION) == (row(5, idx=1), row(7, idx=2, size="3"))
    world.push(WALLET, wallet(BTC="2"))
    assert [(coin.coin, coin.equity) for coin in world.value(WALLET).coins] == [("USDT", "5"), ("BTC", "2")]


@pytest.mark.parametrize(
    ("topic", "value"),
    [(POSITION, (row(2),)), (WALLET, wallet("0.1", USDT="5")), (WALLET, wallet(USDT="5", BTC="1"))],
)
async def test_what_moves_is_called_for(world: World, topic: Topic, value: Any) -> None:
    """Profit moves without a word: its age counts from the call, which is made again in time."""
    world.values[topic] = value
    line = await world.kept(topic)
    asked_at = world.clock()
    world.turn(RECONCILE_S * AHEAD - 0.1, line)
    assert await world.looked() == []
    assert world.feeds.feed(topic).as_of == asked_at
    world.turn(0.2, line)
    assert len(await world.looked()) == 1
    assert world.feeds.feed(topic).as_of == world.clock()


@pytest.mark.parametrize(
    ("topic", "still", "moving"),
    [
        (POSITION, (row(1, idx=1, size="0"), row(1, idx=2, size="0")), (row(2, idx=1),)),
        (WALLET, wallet(USDT="5", USDC="5"), wallet("0.1", USDT="5")),
    ],
)
async def test_what_begins_to_move_is_no_older_for_it(world: World, topic: Topic, still: Any, moving: Any) -> None:
    """What a push does not name was true when the line last said so, long after the call that brought it."""
    world.values[topic] = still
    line = await world.kept(topic)
    world.turn(SLOW_S / 2, line)
    world.push(topic, moving)
    assert world.feeds.feed(topic).moves
    assert world.feeds.feed(topic).as_of == world.clock()


async def test_misjudged_clock_makes_nothing_older(world: World) -> None:
    """A push that is later by the exchange's clock is no older than what it replaces, whatever ours makes of that."""
    await world.called(PRICE)
    now = world.clock()
    reading = Reading(ticker("2"), now - 0.03, now, world.now_ms + 1, Source.PUSH)
    world.following.push(PRICE, reading)
    assert world.value(PRICE) == ticker("2")
    assert world.feeds.feed(PRICE).as_of == now


@pytest.mark.parametrize("topic", [POSITION, WALLET, PRICE])
async def test_what_is_still_is_hardly_called_for(world: World, topic: Topic) -> None:
    """What cannot change unsaid is asked for once a minute, to see that streams are right."""
    line = await world.kept(topic)
    for _ in range(int(SLOW_S) - 1):
        world.turn(1, line)
        assert world.feeds.peek(topic, 0.0) is not None
        assert await world.looked() == []
    world.turn(1, line)
    assert await world.looked() == [topic]


async def test_many_positions_are_reconciled_by_one_listing(world: World) -> None:
    """Two open positions cost one call, and the wallet another."""
    world.values |= {POSITION: (row(2),), OTHER: (row(2, symbol="ETHUSDT"),), WALLET: wallet("1", USDT="5")}
    world.values[OF_USDT] = (row(2), row(2, symbol="ETHUSDT"))
    await world.called(INSTRUMENTS)
    line = await world.kept(POSITION, OTHER, WALLET)
    world.turn(RECONCILE_S, line)
    assert sorted(await world.looked(), key=str) == sorted([OF_USDT, WALLET], key=str)
    assert {world.feeds.feed(topic).as_of for topic in (POSITION, OTHER, WALLET)} == {world.clock()}


async def test_one_position_is_reconciled_by_itself(world: World) -> None:
    """One that is open costs one call, however many others are looked at that streams keep and that are still."""
    world.values[POSITION] = world.values[OF_USDT] = (row(2),)
    await world.called(INSTRUMENTS)
    line = await world.kept(POSITION, OTHER)
    world.turn(RECONCILE_S, line)
    for topic in (POSITION, OTHER):
        world.feeds.peek(topic, RECONCILE_S)
    assert await world.looked() == [POSITION]


async def test_lost_line_keeps_what_it_confirmed(world: World) -> None:
    """What was confirmed stays said and ages from there; calls take over, and another line ends them."""
    line = await world.kept(POSITION)
    feed = world.feeds.feed(POSITION)
    world.turn(10, line)
    world.following.changed(frozenset({POSITION}), None)
    lost_at = world.clock()
    world.turn(1)
    line.confirmed_at = world.clock()
    assert feed.as_of == lost_at
    assert world.feeds.peek(POSITION, 0.5) is None
    assert world.feeds.peek(POSITION, 1.5) is not None
    await world.feeds.read(POSITION, max_age_s=0.5, patience_s=1, timeout_s=1)
    assert feed.as_of == world.clock()
    line = Line(world.clock())
    world.following.changed(frozenset({POSITION}), line)
    await world.called(POSITION)
    world.turn(5, line)
    assert world.feeds.peek(POSITION, 0.5) is not None


async def test_silent_line_does_not_keep(world: World) -> None:
    """A line that confirms nothing any more makes nothing young, before anybody has said that it is lost."""
    await world.kept(POSITION)
    world.turn(QUIET_S + 0.1)
    assert world.feeds.peek(POSITION, 1.0) is None


async def test_failing_reconciliation(world: World) -> None:
    """A kept reading that is still stays good; what moves does not."""
    world.values[WALLET] = wallet("1", USDT="5")
    line = await world.kept(POSITION, WALLET)
    world.error = ExchangeUnreachable("away")
    world.turn(SLOW_S, line)
    for topic in (POSITION, WALLET):
        world.feeds.feed(topic)
    assert sorted(await world.looked(), key=str) == sorted([POSITION, WALLET], key=str)
    assert not world.feeds.part(POSITION).is_stale(world.clock(), 3.0)
    assert world.feeds.part(WALLET).has_failed


async def test_failing_calls_pause_while_the_stream_goes_on(world: World) -> None:
    """What the stream says meanwhile makes calls no better: they grow rarer, as without it."""
    line = await world.kept(PRICE)
    world.error = ExchangeUnreachable("away")
    world.turn(SLOW_S, line)
    before = len(world.asked)
    for number in range(50):
        world.feeds.feed(PRICE)
        world.following.look()
        world.turn(0.1, line)
        world.push(PRICE, ticker(str(number)))
        await world.settled()
        world.turn(0.1, line)
    assert 4 <= len(world.asked) - before <= 10
    assert not world.feeds.part(PRICE).has_failed
    world.error = None
    world.turn(3, line)
    assert await world.looked() == [PRICE]


@pytest.mark.parametrize("late_s", [0.3, 0.9])
async def test_a_ticker_that_seems_older_is_called_for(world: World, late_s: float) -> None:
    """A machine whose clock is behind may say what is new: until that is known, what is in hand is not vouched for."""
    line = await world.kept(PRICE)
    world.push(PRICE, ticker("2"))
    assert world.feeds.feed(PRICE).is_kept
    await world.called(PRICE)
    world.turn(0.1, line)
    world.push(PRICE, ticker("3"), late_s=late_s)
    assert not world.feeds.feed(PRICE).is_kept
    world.values[PRICE] = ticker("3")
    world.turn(0.1, line)
    await world.called(PRICE)
    assert world.feeds.feed(PRICE).is_kept
    assert world.value(PRICE) == ticker("3")


async def test_drift_counts_after_its_grace(world: World) -> None:
    """A call that is faster than the push is no drift; one that no push follows is."""
    line = await world.kept(POSITION)
    feed = world.feeds.feed(POSITION)
    world.turn(1, line)
    world.values[POSITION] = (row(2, size="0"),)
    await world.called(POSITION)
    world.push(POSITION, (row(2, size="0"),))
    world.turn(GRACE_S + 1, line)
    world.values[POSITION] = (row(3, size="0"),)
    await world.called(POSITION)
    assert feed.drifts == 0
    world.turn(GRACE_S / 2, line)
    await world.called(POSITION)
    assert feed.drifts == 0
    world.turn(GRACE_S, line)
    with capture_logs() as logs:
        await world.called(POSITION)
    assert feed.drifts == 1
    assert "stream_drifted" in [line["event"] for line in logs]


async def test_topic_that_is_left_is_not_vouched_for(world: World) -> None:
    """A live line proves nothing of a topic that nobody wanted meanwhile, however it is told of."""
    line = await world.kept(PRICE)
    feed = world.feeds.feed(PRICE)
    world.turn(WANTED_S + 0.1, line)
    left_at = world.clock()
    await world.looked()
    assert world.wanted[-1] == frozenset()
    world.turn(5, line)
    world.following.changed(frozenset({PRICE}), line)
    assert not feed.is_kept
    assert feed.as_of == left_at
    assert world.feeds.peek(PRICE, 1.0) is None
    await world.looked()
    world.push(PRICE, ticker("3"))
    assert not feed.is_kept
    world.following.changed(frozenset({PRICE}), line)
    assert not feed.is_kept
    world.push(PRICE, ticker("4"))
    assert feed.is_kept


async def test_overtaken_calls_are_not_repeated_at_once(world: World) -> None:
    """A ticker is pushed more often than a call takes: that the call was made is what counts."""
    line = await world.kept(PRICE)
    world.turn(SLOW_S, line)
    world.feeds.feed(PRICE)
    world.gate.clear()
    world.following.look()
    assert world.feeds.feed(PRICE).flight is not None
    await asyncio.sleep(0)
    world.turn(0.1, line)
    world.push(PRICE, ticker("5"))
    world.gate.set()
    await world.settled()
    world.turn(0.2, line)
    assert await world.looked() == []


async def test_listing_from_before_a_push_loses_nothing(world: World) -> None:
    """A position that opens while the listing is under way is not closed by it, though others are in it."""
    world.values[LISTING] = (row(4, symbol="ETHUSDT"),)
    await world.kept(LISTING)
    world.gate.clear()
    world.feeds.refresh([LISTING])
    await asyncio.sleep(0)
    world.turn(0.1)
    world.push(POSITION, (row(9),))
    world.gate.set()
    await world.settled()
    assert row(9) in world.value(LISTING)


@pytest.mark.parametrize("late", ["call", "push"])
async def test_closed_position_stays_closed(world: World, late: str) -> None:
    """Neither a listing from before nor an old push opens what a push has closed."""
    world.values[LISTING] = (row(4), row(4, symbol="ETHUSDT"))
    await world.kept(LISTING)
    world.gate.clear()
    world.feeds.refresh([LISTING])
    await asyncio.sleep(0)
    world.turn(0.1)
    world.push(POSITION, (row(9, size="0"),))
    if late == "push":
        world.push(POSITION, (row(8),))
    world.gate.set()
    await world.settled()
    assert [one.position.symbol for one in world.value(LISTING) if one.is_open] == ["ETHUSDT"]


async def test_listing_of_a_coin_is_only_called_for(world: World) -> None:
    """Pushes are laid over the listing of all positions; which coin a position settles in, they do not say."""
    await world.called(INSTRUMENTS)
    await world.kept(OF_USDT, OF_USDC, LISTING)
    world.push(Topic(Kind.POSITION, "BTCPERP"), (row(9, symbol="BTCPERP"),))
    assert world.value(OF_USDT) == world.value(OF_USDC) == ()
    assert world.value(LISTING) == (row(9, symbol="BTCPERP"),)


async def test_push_that_cannot_be_ordered_is_called_for(world: World) -> None:
    """A wallet's push that seems older than the call may name a coin that the call lacks: only a call can tell."""
    line = await world.kept(WALLET)
    feed = world.feeds.feed(WALLET)
    world.push(WALLET, wallet(BTC="1"), late_s=0.1)
    assert not feed.is_kept
    world.turn(1, line)
    assert feed.as_of < world.clock()
    await world.called(WALLET)
    assert feed.is_kept


async def test_nobody_asks_nobody_calls(world: World) -> None:
    """A listing that moves is let go as everything else is, though its own answers are news."""
    world.values[LISTING] = (row(4),)
    line = await world.kept(LISTING)
    for _ in range(round(WANTED_S) + 5):
        world.turn(1, line)
        await world.looked()
    assert world.wanted[-1] == frozenset()


async def test_no_room_for_a_listing(world: World) -> None:
    """Where the listing has no room each position is called for by itself."""
    world = World(max_symbols=2)
    world.values |= {POSITION: (row(2),), OTHER: (row(2, symbol="ETHUSDT"),)}
    line = await world.kept(POSITION, OTHER)
    for topic in (LISTING, OF_USDC):
        world.feeds.feed(topic)
    await world.called(INSTRUMENTS)
    world.turn(RECONCILE_S, line)
    called = await world.looked()
    assert {POSITION, OTHER} <= set(called)
