"""Listings: many symbols become one call, and a listing is never taken for more than it says."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import ExchangeUnreachable
from server.market.feeds import Feeds
from server.market.listings import DEMAND_S, JUST_S, LISTED, PAGE_ROWS, WORTH, Listings, derived
from server.models import Instrument, Kind, Position, PositionRow, Reading, Topic

SYMBOLS = [f"S{number}USDT" for number in range(30)]
MANY = WORTH[Kind.TICKER]


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def row(symbol: str, sequence: int = 1, *, idx: int = 0, size: str = "1") -> PositionRow:
    """A position of `symbol`, flat for size 0."""
    fields = dict.fromkeys(Position.__struct_fields__)
    position = Position(**{**fields, "symbol": symbol, "position_idx": idx, "side": "Buy", "size": size})  # type: ignore[arg-type]
    return PositionRow(position=position, sequence=sequence, is_open=size != "0")


class Exchange:
    """An exchange that counts what it is asked."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked: list[Topic] = []
        self.open: list[PositionRow] = []
        self.error: Exception | None = None

    async def fetch(self, topics: frozenset[Topic]) -> dict[Topic, Reading[Any]]:
        """A reading of each topic."""
        self.asked.extend(topics)
        asked_at = self.clock()
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return {topic: Reading(self._value(topic), asked_at, self.clock(), 0) for topic in topics}

    def _value(self, topic: Topic) -> Any:
        match topic.kind:
            case Kind.TICKERS:
                return {symbol: f"{symbol} {len(self.asked)}" for symbol in SYMBOLS[:-1]}
            case Kind.POSITIONS:
                return tuple(self.open)
            case Kind.POSITION:
                rows = tuple(held for held in self.open if held.position.symbol == topic.symbol)
                return rows or (row(topic.symbol, 99, size="0"),)
            case Kind.INSTRUMENTS:
                coins = dict.fromkeys(SYMBOLS, "USDT") | {SYMBOLS[-1]: "USDC"}
                rest = dict.fromkeys(Instrument.__struct_fields__)
                return {
                    symbol: Instrument(**{**rest, "symbol": symbol, "settle_coin": coin})  # type: ignore[arg-type]
                    for symbol, coin in coins.items()
                }
            case _:
                return topic.symbol


@pytest.fixture
def clock() -> Clock:
    """The test's clock."""
    return Clock()


@pytest.fixture
def exchange(clock: Clock) -> Exchange:
    """The test's exchange."""
    return Exchange(clock)


@pytest.fixture
async def feeds(exchange: Exchange, clock: Clock) -> Feeds:
    """Feeds behind listings by USDT, with the instruments read."""
    listings = Listings(exchange.fetch, ("USDT",), clock=clock)
    feeds = Feeds(listings.fetch, max_symbols=100, clock=clock)
    listings.attach(feeds)
    await asyncio.wait(feeds.refresh([Topic(Kind.INSTRUMENTS)]))
    exchange.asked.clear()
    return feeds


async def ask(feeds: Feeds, kind: Kind, symbols: list[str]) -> dict[str, Any]:
    """The values of `symbols`, wanted at once."""
    topics = [Topic(kind, symbol) for symbol in symbols]
    for topic in topics:
        feeds.feed(topic)
    missing = [topic for topic in topics if feeds.peek(topic, 0.5) is None]
    if missing:
        await asyncio.wait(feeds.refresh(missing))
    readings = {topic.symbol: feeds.part(topic).reading for topic in topics}
    return {symbol: reading and reading.value for symbol, reading in readings.items()}


async def test_few_symbols_are_asked_one_by_one(feeds: Feeds, exchange: Exchange) -> None:
    """Below the number from which on a listing is cheaper, each symbol has its call."""
    await ask(feeds, Kind.TICKER, SYMBOLS[: MANY - 1])
    assert {topic.kind for topic in exchange.asked} == {Kind.TICKER}
    assert len(exchange.asked) == MANY - 1


@pytest.mark.parametrize("kind", WORTH)
async def test_many_symbols_are_one_call(feeds: Feeds, exchange: Exchange, kind: Kind) -> None:
    """From that number on, all of them cost one call, and so does everybody who asks in the next moment."""
    exchange.open = [row(symbol) for symbol in SYMBOLS[:5]]
    values = await ask(feeds, kind, SYMBOLS[:20])
    assert None not in values.values()
    assert [LISTED[topic.kind] for topic in exchange.asked] == [kind]
    await ask(feeds, kind, SYMBOLS[:20])
    assert len(exchange.asked) == 1


@pytest.mark.parametrize(("late_s", "calls"), [(JUST_S / 2, 0), (JUST_S * 2, 1)])
async def test_who_comes_a_moment_too_late(
    feeds: Feeds, exchange: Exchange, clock: Clock, late_s: float, calls: int
) -> None:
    """A flight that starts as a listing has just come takes that; a moment later it makes a new one, never a single."""
    await ask(feeds, Kind.TICKER, SYMBOLS[:20])
    exchange.asked.clear()
    clock.now += late_s
    await asyncio.wait(feeds.refresh([Topic(Kind.TICKER, SYMBOLS[0])]))
    assert [topic.kind for topic in exchange.asked] == [Kind.TICKERS] * calls


async def test_demand_fades(feeds: Feeds, exchange: Exchange, clock: Clock) -> None:
    """When most have gone, the few that are left are asked one by one again."""
    await ask(feeds, Kind.TICKER, SYMBOLS[:20])
    clock.now += DEMAND_S + 1
    exchange.asked.clear()
    await ask(feeds, Kind.TICKER, SYMBOLS[:2])
    assert {topic.kind for topic in exchange.asked} == {Kind.TICKER}


async def test_symbol_that_the_listing_lacks_is_asked_itself(feeds: Feeds, exchange: Exchange) -> None:
    """A ticker that is not in the listing, and a position of another settle coin, have their own calls."""
    assert (await ask(feeds, Kind.TICKER, SYMBOLS))[SYMBOLS[-1]] == SYMBOLS[-1]
    assert {topic.kind for topic in exchange.asked} == {Kind.TICKERS, Kind.TICKER}
    exchange.asked.clear()
    await ask(feeds, Kind.POSITION, SYMBOLS)
    assert [topic.symbol for topic in exchange.asked if topic.kind is Kind.POSITION] == [SYMBOLS[-1]]


async def test_vanished_position_is_confirmed_by_its_symbol(feeds: Feeds, exchange: Exchange, clock: Clock) -> None:
    """An open position that a listing lacks stays open until the symbol's own call says that it is flat."""
    topic = Topic(Kind.POSITION, SYMBOLS[0])
    exchange.open = [row(SYMBOLS[0], 5)]
    await ask(feeds, Kind.POSITION, SYMBOLS[:20])
    exchange.open = []
    exchange.asked.clear()
    clock.now += 1
    listing = feeds.refresh([Topic(Kind.POSITIONS)])
    await asyncio.wait(listing)
    held = feeds.part(topic).reading
    assert held is not None
    assert held.value[0].is_open
    values = await ask(feeds, Kind.POSITION, SYMBOLS[:20])
    assert not values[SYMBOLS[0]][0].is_open
    assert [asked.symbol for asked in exchange.asked if asked.kind is Kind.POSITION] == [SYMBOLS[0]]


async def test_failed_listing_fails_its_symbols(feeds: Feeds, exchange: Exchange, clock: Clock) -> None:
    """When the listing cannot be had, each symbol keeps what it has, says why, and recovers with it."""
    await ask(feeds, Kind.TICKER, SYMBOLS[:10])
    clock.now += 1
    exchange.error = ExchangeUnreachable("away")
    values = await ask(feeds, Kind.TICKER, SYMBOLS[:10])
    assert None not in values.values()
    parts = [feeds.part(Topic(Kind.TICKER, symbol)) for symbol in SYMBOLS[:10]]
    assert all(part.has_failed for part in parts)
    assert len(exchange.asked) == 2
    exchange.error = None
    clock.now += 5
    await ask(feeds, Kind.TICKER, SYMBOLS[:10])
    assert not any(feeds.part(Topic(Kind.TICKER, symbol)).has_failed for symbol in SYMBOLS[:10])


def listing(*rows: PositionRow) -> Reading[Any]:
    """A listing of those rows."""
    return Reading(rows, 10.0, 10.1, 0)


def test_flat_rows_are_kept_beside_a_listing() -> None:
    """A listing has open rows only: the flat ones that are known, and their sequence, stay."""
    topic = Topic(Kind.POSITION, "A")
    held = Reading((row("A", 7, idx=1, size="0"), row("A", 7, idx=2, size="0")), 1.0, 1.0, 0)
    both = derived(topic, listing(row("A", 8, idx=2), row("B", 9)), held)
    assert both is not None
    assert [(held.position.position_idx, held.is_open) for held in both.value] == [(1, False), (2, True)]
    flat = derived(topic, listing(row("B", 9)), held)
    assert flat is not None
    assert flat.value == held.value
    assert flat.asked_at == 10.0


def test_absence_from_several_pages_says_nothing() -> None:
    """A symbol of which nothing is known is flat by a listing of one page, and unknown by one of more."""
    topic = Topic(Kind.POSITION, "A")
    rows = [row(f"X{number}") for number in range(PAGE_ROWS + 1)]
    one_page = derived(topic, listing(*rows[:-1]), None)
    assert one_page is not None
    assert one_page.value == ()
    assert derived(topic, listing(*rows), None) is None


rows_of_a = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9), st.booleans()), unique_by=lambda drawn: drawn[0])


@given(rows_of_a, rows_of_a)
def test_a_listing_never_makes_a_position_vanish(
    before: list[tuple[int, int, bool]], listed: list[tuple[int, int, bool]]
) -> None:
    """Whatever is held and listed: what was open is listed still, or the symbol itself is asked."""
    topic = Topic(Kind.POSITION, "A")
    held = tuple(row("A", sequence, idx=idx, size="1" if is_open else "0") for idx, sequence, is_open in before)
    rows = [row("A", sequence, idx=idx) for idx, sequence, _ in listed]
    reading = derived(topic, listing(*rows), Reading(held, 1.0, 1.0, 0))
    was_open = {known.position.position_idx for known in held if known.is_open}
    now_listed = {known.position.position_idx for known in rows}
    assert (reading is None) == bool(was_open - now_listed)
    if reading is not None:
        assert {known.position.position_idx for known in reading.value if known.is_open} == now_listed
