"""The market's numbers: pure in (seed, time), and the same through every window one can look at them."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.simulator.candles import FIXED_MS, INTERVALS, MINUTE_MS, Candle, Forming, opens_between
from server.simulator.instruments import CATALOGUE, DAY_MS, Category, Instrument
from server.simulator.market import Market
from server.simulator.noise import key_of, unit, units, word, words
from server.simulator.rows import kline_rows, plain, short, ticker_row

from .conftest import NOW_MS

MARKET = Market(7)
BTC = CATALOGUE[Category.LINEAR]["BTCUSDT"]
EVERYTHING = [one for category in CATALOGUE.values() for one in category.values()]
instants = st.integers(1_700_000_000_000, 1_900_000_000_000)
chosen = st.sampled_from(EVERYTHING)


def joined(candles: list[Candle]) -> Candle:
    """One candle made of many."""
    return Candle(
        candles[0].open_ms,
        candles[0].open,
        max(one.high for one in candles),
        min(one.low for one in candles),
        candles[-1].close,
        sum(one.volume for one in candles),
        sum(one.turnover for one in candles),
    )


def test_hash_one_by_one_and_in_arrays() -> None:
    """The vectorised hash gives the same words as the scalar one, and both are splitmix64."""
    key = key_of(1, "x")
    assert words(key, 50).tolist() == [word(key, position) for position in range(50)]
    assert units(key, 50).tolist() == [unit(key, position) for position in range(50)]
    assert word(1234567, 0) == 6457827717110365317  # the reference implementation's first output for that seed


@given(now_ms=instants, instrument=chosen, smaller=st.sampled_from(["1", "3", "5", "15", "30"]))
@settings(max_examples=60, deadline=None)
def test_candles_aggregate_exactly(now_ms: int, instrument: Instrument, smaller: str) -> None:
    """Every larger interval's last two candles are exactly what the smaller ones inside them are."""
    for interval in ("15", "30", "60", "120", "240", "360", "720"):
        if FIXED_MS[interval] % FIXED_MS[smaller]:
            continue
        for large in MARKET.kline(instrument, interval, now_ms, limit=2):
            end_ms = large.open_ms + FIXED_MS[interval] - 1
            small = MARKET.kline(instrument, smaller, now_ms, limit=1_000, start_ms=large.open_ms, end_ms=end_ms)
            assert joined(small) == large


@given(now_ms=instants, instrument=chosen, pair=st.sampled_from([("60", "D"), ("D", "W"), ("D", "M"), ("30", "D")]))
@settings(max_examples=60, deadline=None)
def test_calendar_candles_aggregate_exactly(now_ms: int, instrument: Instrument, pair: tuple[str, str]) -> None:
    """Days, weeks and months are exactly what the hours and days inside them are."""
    smaller, interval = pair
    for large in MARKET.kline(instrument, interval, now_ms, limit=2):
        following = opens_between(interval, large.open_ms, large.open_ms + 32 * DAY_MS)[1]
        small = MARKET.kline(instrument, smaller, now_ms, limit=1_000, start_ms=large.open_ms, end_ms=following - 1)
        assert joined(small) == large


@given(now_ms=instants, instrument=chosen)
@settings(max_examples=60, deadline=None)
def test_every_forming_candle_closes_at_the_last_price(now_ms: int, instrument: Instrument) -> None:
    """The ticker's last price is the close of the forming candle of all thirteen intervals."""
    last = MARKET.ticker(instrument, now_ms).last
    assert {MARKET.kline(instrument, interval, now_ms, limit=1)[0].close for interval in INTERVALS} == {last}


@given(now_ms=instants, instrument=chosen)
@settings(max_examples=40, deadline=None)
def test_ticker_is_the_last_1440_minutes(now_ms: int, instrument: Instrument) -> None:
    """The ticker's 24 hours and its hour are those of the minute candles, the forming one among them."""
    minutes = MARKET.kline(instrument, "1", now_ms, limit=1_000)
    older = MARKET.kline(instrument, "1", now_ms, limit=440, end_ms=minutes[0].open_ms - 1)
    day, ticker = joined(older + minutes), MARKET.ticker(instrument, now_ms)
    assert (ticker.previous_24h, ticker.high_24h, ticker.low_24h) == (day.open, day.high, day.low)
    assert (ticker.volume_24h, ticker.turnover_24h) == (day.volume, day.turnover)
    assert ticker.previous_1h == minutes[-60].open
    assert ticker.bid < ticker.ask
    assert ticker.last in (ticker.bid, ticker.ask)


@given(now_ms=instants, instrument=chosen)
@settings(max_examples=60, deadline=None)
def test_a_minute_only_grows(now_ms: int, instrument: Instrument) -> None:
    """Within a minute highs rise, lows fall, volume and turnover grow, until the closed candle takes their place."""
    start_ms = now_ms // MINUTE_MS * MINUTE_MS
    seen = [MARKET.forming(instrument, start_ms + at) for at in (*range(0, MINUTE_MS, 1_777), MINUTE_MS - 1)]
    closed = MARKET.kline(instrument, "1", start_ms + MINUTE_MS, limit=2)[0]
    steps: list[Forming | Candle] = [*seen, closed]
    for earlier, later in pairwise(steps):
        assert earlier.open == later.open
        assert earlier.high <= later.high
        assert earlier.low >= later.low
        assert earlier.volume <= later.volume
        assert earlier.turnover <= later.turnover
    assert seen[0][:6] == (closed.open, closed.open, closed.open, closed.open, 0, 0)
    assert (seen[-1].high, seen[-1].low) == (closed.high, closed.low)


@given(now_ms=instants, instrument=chosen)
@settings(max_examples=60, deadline=None)
def test_turnover_is_volume_at_traded_prices(now_ms: int, instrument: Instrument) -> None:
    """Each candle's mean price lies between its low and its high, to within one unit of turnover."""
    ratio = instrument.turnover_ratio
    for one in MARKET.kline(instrument, "1", now_ms, limit=30):
        assert one.low <= min(one.open, one.close) <= max(one.open, one.close) <= one.high
        if instrument.category is Category.INVERSE:
            low, high = one.volume * ratio / one.high, one.volume * ratio / one.low
        else:
            low, high = one.volume * ratio * one.low, one.volume * ratio * one.high
        assert low - 1 < one.turnover <= high


def test_candles_join_without_gap() -> None:
    """A candle opens where the one before it closed, over midnight and over the joints of the caches as well."""
    for interval in ("1", "60", "D", "W"):
        for instrument in (BTC, CATALOGUE[Category.LINEAR]["DOTUSDT"]):
            candles = MARKET.kline(instrument, interval, NOW_MS, limit=1_000)
            assert all(earlier.close == later.open for earlier, later in pairwise(candles))


@pytest.mark.parametrize("instrument", EVERYTHING, ids=lambda one: f"{one.category}-{one.symbol}")
def test_history_is_long_and_sane(instrument: Instrument) -> None:
    """Every symbol has three years of days behind NOW_MS, starting at its launch, at prices of many ticks."""
    days = MARKET.kline(instrument, "D", NOW_MS, limit=1_000, start_ms=0)
    assert days[0].open_ms == instrument.launch_ms <= NOW_MS - 3 * 365 * DAY_MS
    assert min(day.low for day in days) > 500
    weeks = MARKET.kline(instrument, "W", NOW_MS, limit=1_000)
    assert weeks[0].open_ms <= instrument.launch_ms < weeks[0].open_ms + 7 * DAY_MS
    assert all(week.turnover > 0 for week in weeks)


def test_aligned_to_utc() -> None:
    """Weeks begin on Monday and months on their first day, at midnight UTC."""
    week = MARKET.kline(BTC, "W", NOW_MS, limit=1)[0]
    month = MARKET.kline(BTC, "M", NOW_MS, limit=2)
    assert week.open_ms == 1_731_888_000_000  # Monday 2024-11-18
    assert [one.open_ms for one in month] == [1_727_740_800_000, 1_730_419_200_000]  # October, November


@given(now_ms=instants, start=st.integers(-5_000, 100), length=st.integers(-50, 3_000), limit=st.integers(1, 1_000))
@settings(max_examples=80, deadline=None)
def test_windows(now_ms: int, start: int, length: int, limit: int) -> None:
    """A start alone gives the first candles from there, an end the last ones up to it, none from the future."""
    start_ms = now_ms + start * MINUTE_MS
    end_ms = start_ms + length * MINUTE_MS
    opens = range(start_ms // MINUTE_MS * MINUTE_MS, min(end_ms, now_ms) + 1, MINUTE_MS)
    both = MARKET.kline(BTC, "1", now_ms, limit=limit, start_ms=start_ms, end_ms=end_ms)
    assert [one.open_ms for one in both] == (list(opens[-limit:]) if start_ms <= min(end_ms, now_ms) else [])
    forwards = MARKET.kline(BTC, "1", now_ms, limit=limit, start_ms=start_ms)
    expected = range(start_ms // MINUTE_MS * MINUTE_MS, now_ms + 1, MINUTE_MS)
    assert [one.open_ms for one in forwards] == (list(expected[:limit]) if start_ms <= now_ms else [])


@given(now_ms=instants, kind=st.sampled_from(["mark", "index"]), instrument=chosen)
@settings(max_examples=30, deadline=None)
def test_mark_and_index_candles(now_ms: int, kind: str, instrument: Instrument) -> None:
    """The forming mark and index candles close at the ticker's mark and index price."""
    ticker = MARKET.ticker(instrument, now_ms)
    price = ticker.mark if kind == "mark" else ticker.index
    for interval in ("1", "60", "D"):
        candle = MARKET.kline(instrument, interval, now_ms, kind=kind, limit=2)[-1]
        assert candle.close == price
        assert candle.low <= price <= candle.high


def test_the_price_moves_every_second() -> None:
    """Over two minutes the last price changes in nearly every second, for coarse and fine ticks alike."""
    for symbol in ("BTCUSDT", "XRPUSDT", "LTCUSDT", "BNBUSDT", "DOGEUSDT"):
        instrument = CATALOGUE[Category.LINEAR][symbol]
        prices = [MARKET.last(instrument, NOW_MS + at) for at in range(0, 120_000, 200)]
        moving = sum(len(set(prices[second : second + 6])) > 1 for second in range(0, 600, 5))
        assert moving >= 110


def test_two_markets_agree_and_two_seeds_do_not() -> None:
    """A market asked in another order gives the same answers; another seed is another world."""
    one, other, foreign = Market(3), Market(3), Market(4)
    other.kline(BTC, "M", NOW_MS, limit=1_000)
    for interval in reversed(INTERVALS):
        asked = [market.kline(BTC, interval, NOW_MS, limit=300) for market in (one, other, foreign)]
        assert asked[0] == asked[1] != asked[2]
    assert one.ticker(BTC, NOW_MS) == other.ticker(BTC, NOW_MS) != foreign.ticker(BTC, NOW_MS)


@given(units_=st.integers(-(10**18), 10**18), decimals=st.integers(0, 8))
def test_decimal_texts(units_: int, decimals: int) -> None:
    """Texts are the number exactly, with all decimals or without trailing zeros."""
    assert Fraction(plain(units_, decimals)) == Fraction(short(units_, decimals)) == Fraction(units_, 10**decimals)
    text = short(units_, decimals)
    assert "." not in text or text[-1] not in "0."


@given(now_ms=instants, instrument=chosen)
@settings(max_examples=30, deadline=None)
def test_kline_texts_are_the_candles(now_ms: int, instrument: Instrument) -> None:
    """The rows of a kline answer, newest first, are the candles' numbers exactly."""
    candles = MARKET.kline(instrument, "W", now_ms, limit=50)
    tick, step = Fraction(instrument.tick), Fraction(instrument.step)
    for row, one in zip(kline_rows(instrument, candles), reversed(candles), strict=True):
        numbers = [Fraction(text) for text in row]
        turnover = Fraction(one.turnover, 10**instrument.turnover_decimals)
        assert numbers == [one.open_ms, *(price * tick for price in one[1:5]), one.volume * step, turnover]
        assert all("." not in text or text[-1] not in "0." for text in row)


def test_ticker_texts() -> None:
    """Ticker prices have all the decimals of the price scale, the change six, funding at most eight."""
    row = ticker_row(BTC, MARKET.ticker(BTC, NOW_MS))
    last, previous = (Fraction(str(row[name])) for name in ("lastPrice", "prevPrice24h"))
    assert abs(Fraction(str(row["price24hPcnt"])) - (last - previous) / previous) <= Fraction(1, 2_000_000)
    for name in ("lastPrice", "markPrice", "bid1Price", "highPrice24h"):
        assert len(str(row[name]).partition(".")[2]) == 2
    assert len(str(row["turnover24h"]).partition(".")[2]) == 4
