"""CandleCache: what is missing is fetched, what contradicts is read anew."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from server.errors import BadAnswer
from server.market.candlecache import CandleCache
from server.market.candles import (
    DEPTH,
    SETTLING_MS,
    assembled,
    check,
    closes_at_ms,
    corrected,
    extended,
    missing,
    without_forming,
)
from server.market.counts import Tally
from server.market.growth import grown
from server.models import CandlePush, CandleRow, Candles, Kind, Reading, Topic

MINUTE = 60_000
TOPIC = Topic(Kind.KLINE, "BTCUSDT", "1")


def row(number: int, close: str = "") -> CandleRow:
    """The candle of minute `number`."""
    price = close or str(100 + number % 13)
    return (str(number * MINUTE), price, price, price, price, "1", "100")


class Market:
    """An exchange with one kline topic, whose minutes pass when the test says so."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.revised: dict[int, str] = {}
        self.asked: list[int] = []
        self.held: Candles | None = None

    async def fetch(self, topic: Topic = TOPIC) -> Reading[Candles]:
        """The candles as CandleCache reads them, in hand from then on."""
        reading = await CandleCache(self.klines, lambda _: self.held, Tally()).fetch(topic)
        self.held = reading.value
        return reading

    async def klines(self, topic: Topic, limit: int, *, end_ms: int | None = None) -> Reading[tuple[CandleRow, ...]]:
        """The last `limit` candles."""
        self.asked.append(limit)
        rows = tuple(row(number, self.revised.get(number, "")) for number in range(self.now - limit + 1, self.now + 1))
        return Reading(rows, 0.0, 0.0, self.now * MINUTE + 30_000)

    def expected(self) -> tuple[CandleRow, ...]:
        """The last thousand as they are now."""
        return tuple(row(number, self.revised.get(number, "")) for number in range(self.now - DEPTH + 1, self.now + 1))


def minutes_now() -> int:
    """The minute that is forming by our own clock."""
    return int(datetime.now(UTC).timestamp() * 1000) // MINUTE


async def test_only_what_is_missing_is_asked_for() -> None:
    """The first question asks for a thousand candles, the next for the few since."""
    market = Market(minutes_now())
    first = await market.fetch()
    market.revised[market.now] = "777"
    market.now += 1
    second = await market.fetch()
    assert first.value.rows != second.value.rows == market.expected()
    assert market.asked[0] == DEPTH
    assert all(asked < 10 for asked in market.asked[1:])


async def test_contradiction_is_read_anew() -> None:
    """A closed candle that the exchange has revised makes the whole history be read again."""
    market = Market(minutes_now())
    held = await market.fetch()
    market.revised[market.now - 2] = "555"
    second = await market.fetch()
    assert second.value.rows == market.expected()
    assert market.asked == [DEPTH, market.asked[1], DEPTH]
    assert held.value.rows != second.value.rows


async def test_gap_is_read_anew() -> None:
    """After hours without a question the overlap is lost, and everything is read again."""
    market = Market(minutes_now())
    held = await market.fetch()
    market.now += 300
    second = await market.fetch()
    assert second.value.rows == market.expected()
    assert len(held.value) == DEPTH


async def test_same_rows_are_the_same_object() -> None:
    """Where nothing changed the very candles are kept, and with them what was computed from them."""
    market = Market(minutes_now())
    first = await market.fetch()
    assert (await market.fetch()).value is first.value


async def test_closed_stays_closed() -> None:
    """A candle that a push has called closed is not opened again by a call of the same second."""
    market = Market(minutes_now())
    first = await market.fetch()
    market.held = replace(first.value, last_closed=True)
    assert (await market.fetch()).value is market.held


@given(
    held=st.integers(1, 40),
    fresh=st.integers(1, 40),
    shift=st.integers(0, 30),
    revise=st.none() | st.integers(0, 70),
)
def test_extending_equals_assembling(held: int, fresh: int, shift: int, revise: int | None) -> None:
    """Whatever overlaps, extending gives exactly what a full answer would, or gives up."""
    rows = [row(number) for number in range(held + shift)]
    before = assembled(rows[:held], "1", held * MINUTE - 1)
    if revise is not None and revise < len(rows):
        rows[revise] = row(revise, "9999")
    answer = rows[-fresh:]
    joined = extended(before, answer, "1", len(rows) * MINUTE - 1)
    if joined is None:
        return
    kept = len(rows) - len(answer)
    assert joined.rows == (*before.rows[:kept], *answer)
    assert joined.close.tolist() == [float(values[4]) for values in joined.rows]
    assert joined.open_times_ms.tolist() == [int(values[0]) for values in joined.rows]


async def test_candles_of_another_interval_are_refused() -> None:
    """Rows that do not step by the interval are no answer, and neither is one from which most has vanished."""
    market = Market(minutes_now())
    with pytest.raises(BadAnswer, match="interval 5"):
        await market.fetch(Topic(Kind.KLINE, "BTCUSDT", "5"))
    held = await market.fetch()
    with pytest.raises(BadAnswer, match="0 candles where it had 1000"):
        check(assembled([], "1", 0), held.value, "1")
    check(assembled([], "1", 0), None, "1")


def test_overlap_that_agrees_is_accepted() -> None:
    """An answer that begins within what is held and agrees with it is never refused."""
    rows = [row(number) for number in range(50)]
    before = assembled(rows[:40], "1", 40 * MINUTE - 1)
    assert extended(before, rows[36:], "1", 50 * MINUTE - 1) is not None
    assert extended(before, rows[41:], "1", 50 * MINUTE - 1) is None
    assert extended(before, [], "1", 50 * MINUTE - 1) is None
    assert extended(before, [*rows[36:42], *rows[43:]], "1", 50 * MINUTE - 1) is None


def test_start_is_known_until_it_is_let_go() -> None:
    """That there is nothing before the first candle holds for as long as that one is among them."""
    rows = [row(number) for number in range(51)]
    young = replace(assembled(rows[:50], "1", 0), is_from_start=True, depth=51)
    full = replace(young, depth=50)
    push = CandlePush(rows[50], is_closed=False)
    grown_up = [grown(replace(candles, last_closed=True), push, "1") for candles in (young, full)]
    read = [extended(candles, rows[46:], "1", 0) for candles in (young, full)]
    assert [candles is not None and candles.is_from_start for candles in (*grown_up, *read)] == [True, False] * 2
    assert [len(candles or ()) for candles in read] == [51, 50]
    assert (young.last(20).is_from_start, young.first(20).is_from_start) == (False, True)


def test_only_closed_candles_are_corrected() -> None:
    """A page is no word about the forming candle, whose next push may be here before it."""
    rows = [row(number) for number in range(50)]
    forming = assembled(rows, "1", 0)
    closed = replace(forming, last_closed=True)
    page = [*rows[40:49], row(49, "777")]
    assert corrected(forming, page, "1") is None
    assert corrected(forming, [*page, row(50)], "1") is None
    assert corrected(forming, [], "1") is None
    told = corrected(closed, page, "1")
    assert told is not None
    assert told.rows == (*rows[:49], page[-1])


@pytest.mark.parametrize(
    ("opened", "interval", "closes"),
    [
        ("2026-01-01T00:00", "M", "2026-02-01T00:00"),
        ("2024-02-01T00:00", "M", "2024-03-01T00:00"),
        ("2026-12-01T00:00", "M", "2027-01-01T00:00"),
        ("2026-11-16T00:00", "W", "2026-11-23T00:00"),
        ("2026-11-22T20:00", "240", "2026-11-23T00:00"),
        ("2026-11-22T00:00", "D", "2026-11-23T00:00"),
    ],
)
def test_candles_close_by_the_calendar(opened: str, interval: str, closes: str) -> None:
    """Each interval ends where the next one of the calendar begins, in UTC."""
    opened_ms, closes_ms = (
        int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000) for text in (opened, closes)
    )
    assert closes_at_ms(opened_ms, interval) == closes_ms


def test_closed_is_by_the_exchanges_clock() -> None:
    """The last candle is closed a second after its end on the exchange's clock, whatever ours says."""
    rows = [row(1), row(2)]
    assert not assembled(rows, "1", 3 * MINUTE + SETTLING_MS - 1).last_closed
    assert assembled(rows, "1", 3 * MINUTE + SETTLING_MS).last_closed


def test_without_forming_leaves_one_out() -> None:
    """999 of 1,000 candles are closed while the last one forms; all of them once it is closed."""
    rows = [row(number) for number in range(1, DEPTH + 1)]
    forming = assembled(rows, "1", (DEPTH + 1) * MINUTE - 1)
    assert len(without_forming(forming)) == DEPTH - 1
    assert without_forming(forming).last_closed
    closed = assembled(rows, "1", (DEPTH + 1) * MINUTE + SETTLING_MS)
    assert without_forming(closed) is closed
    nothing = assembled([], "1", 0)
    assert without_forming(nothing) is nothing
    assert missing(nothing, "1") == DEPTH
