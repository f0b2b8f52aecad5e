"""Computing: the classic set, answers by name, and that all of it is JSON."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pytest
import talib
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from server.errors import InsufficientCandles
from server.market.candles import assembled
from server.market.indicators import CATALOGUE, CHARTS, Asked, compute, parse_names
from server.models import CandleRow, Candles

from .markets import candles_of as columns_of

prices = st.floats(0.0001, 100_000, allow_nan=False)


def candles_of(closes: list[float]) -> Candles:
    """Candles of one minute around the given closes."""
    start = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
    rows: list[CandleRow] = []
    for number, close in enumerate(closes):
        high, low = close * 1.01, close * 0.99
        texts = (f"{value:.6f}" for value in (close * 0.995, high, low, close, 10 + number % 7, 5))
        rows.append((str(start + number * 60_000), *texts))  # type: ignore[arg-type]
    return assembled(rows, "1", start)


def wave(length: int) -> Candles:
    """Candles that go up and down."""
    return candles_of([100 + 10 * float(np.sin(number / 9)) + number / 50 for number in range(length)])


def test_closed_candles_do_not_depend_on_the_next() -> None:
    """Of closed candles one fewer is looked at than are held, and the same ones before and after the next begins."""
    closed = replace(wave(1000), last_closed=True)
    begun = replace(wave(1001).last(1000), last_closed=False)
    asked = Asked(None, is_closed=True)
    looked_at = [asked.looked_at(candles) for candles in (closed, begun)]
    assert [len(candles) for candles in looked_at] == [999, 999]
    assert looked_at[0].rows == looked_at[1].rows
    assert len(asked.looked_at(closed.last(30))) == 30


def test_classic_set_is_talibs() -> None:
    """Every classic value is what TA-Lib gives on the same arrays, called directly."""
    candles = wave(1000)
    classic = compute(candles, None).at(-1)
    bars = (candles.high, candles.low, candles.close)
    macd = talib.MACD(candles.close, 12, 26, 9)
    upper, middle, lower = talib.BBANDS(candles.close, 20, 2, 2)
    expected = {
        "sma20": talib.SMA(candles.close, 20),
        "sma50": talib.SMA(candles.close, 50),
        "sma200": talib.SMA(candles.close, 200),
        "ema20": talib.EMA(candles.close, 20),
        "ema200": talib.EMA(candles.close, 200),
        "rsi14": talib.RSI(candles.close, 14),
        "macd": macd[0],
        "macd_signal": macd[1],
        "macd_histogram": macd[2],
        "bb_upper": upper,
        "bb_middle": middle,
        "bb_lower": lower,
        "bb_width": 100 * (upper - lower) / middle,
        "bb_percent": (candles.close - lower) / (upper - lower),
        "atr14": talib.ATR(*bars, 14),
        "obv": talib.OBV(candles.close, candles.volume),
        "adx14": talib.ADX(*bars, 14),
        "dmp14": talib.PLUS_DI(*bars, 14),
        "dmn14": talib.MINUS_DI(*bars, 14),
    }
    assert list(classic) == list(expected)
    assert classic == {key: pytest.approx(values[-1], rel=1e-12) for key, values in expected.items()}


def test_band_is_over_the_population() -> None:
    """The deviation of a Bollinger band divides by n, checked against plain numpy."""
    candles = wave(300)
    window = candles.close[-20:]
    answer = compute(candles, None).at(-1)
    assert answer["bb_upper"] == pytest.approx(window.mean() + 2 * window.std(ddof=0), rel=1e-9)
    assert answer["sma20"] == pytest.approx(window.mean(), rel=1e-12)


def test_band_without_width_has_no_percent() -> None:
    """Where the price has not moved, the place within the band is null, not a division by zero."""
    answer = compute(candles_of([100.0] * 60), None).at(-1)
    assert answer["bb_width"] == pytest.approx(0, abs=1e-6)
    assert answer["bb_percent"] is None


@pytest.mark.parametrize(("length", "missing"), [(20, "sma50"), (50, "sma200"), (199, "ema200"), (25, "macd")])
def test_value_without_enough_candles_is_none(length: int, missing: str) -> None:
    """A value whose warm-up is longer than the history is null, and the others are there."""
    answer = compute(wave(length), None).at(-1)
    assert answer[missing] is None
    assert answer["sma20"] is not None


def test_twenty_candles_are_the_least() -> None:
    """Nineteen candles are refused, twenty are not."""
    compute(wave(20), None)
    with pytest.raises(InsufficientCandles, match="19"):
        compute(wave(19), None)


@given(st.lists(prices, min_size=20, max_size=60))
def test_answers_are_always_json(closes: list[float]) -> None:
    """Whatever the prices, every number is finite or null."""
    answer = compute(candles_of(closes), None)
    json.dumps(answer.at(-1), allow_nan=False)
    json.dumps(answer.span(slice(0, None)), allow_nan=False)


def test_names_give_numbers_and_objects() -> None:
    """One output is a number under the name as asked, several are an object."""
    candles = wave(200)
    questions = parse_names("rsi:7,macd:5:10:3,obv", max_names=50)
    answer = compute(candles, questions).at(-1)
    assert answer["rsi:7"] == pytest.approx(talib.RSI(candles.close, 7)[-1])
    assert answer["macd:5:10:3"]["signal"] == pytest.approx(talib.MACD(candles.close, 5, 10, 3)[1][-1])
    assert answer["obv"] == pytest.approx(talib.OBV(candles.close, candles.volume)[-1])


@given(st.lists(prices, min_size=20, max_size=60), st.sampled_from(sorted(CATALOGUE)), st.sampled_from(CHARTS))
def test_every_indicator_is_always_json(closes: list[float], name: str, chart: str) -> None:
    """Whatever the prices, the indicator and the chart: no NaN and no infinity leaves."""
    answer = compute(candles_of(closes), parse_names(name, max_names=1), chart=chart)
    json.dumps(answer.at(-1), allow_nan=False)
    json.dumps(answer.span(slice(0, None)), allow_nan=False)


@pytest.mark.parametrize("name", CATALOGUE)
def test_flat_market_is_always_json(name: str) -> None:
    """Where no price ever moves, what would be a division by zero is null or TA-Lib's own number."""
    flat = np.full(200, 100.0)
    still = columns_of(np.arange(200) * 60_000, flat, flat, flat, flat, flat * 0)
    json.dumps(compute(still, parse_names(name, max_names=1)).span(slice(0, None)), allow_nan=False)


def test_infinity_is_null() -> None:
    """What grows beyond all numbers, or is none, is null."""
    answer = compute(candles_of([100_000.0] * 30), parse_names("exp,acos,cosh,ln", max_names=4)).at(-1)
    assert answer == {"exp": None, "acos": None, "cosh": None, "ln": pytest.approx(np.log(100_000.0))}


def test_heikin_ashi_is_its_definition() -> None:
    """Each candle opens in the middle of the body before; the chart changes what is computed, not the volume."""
    candles = wave(100)
    close = (candles.open + candles.high + candles.low + candles.close) / 4
    opens = [(candles.open[0] + candles.close[0]) / 2]
    for at in range(1, 100):
        opens.append((opens[-1] + close[at - 1]) / 2)
    names = parse_names("sma:2,sma:2@open,sma:2@high,sma:2@volume", max_names=4)
    answer = compute(candles, names, chart="heikinashi").at(-1)
    high = np.maximum(candles.high, np.maximum(opens, close))
    assert answer["sma:2"] == pytest.approx(close[-2:].mean(), rel=1e-12)
    assert answer["sma:2@open"] == pytest.approx(np.mean(opens[-2:]), rel=1e-12)
    assert answer["sma:2@high"] == pytest.approx(high[-2:].mean(), rel=1e-12)
    assert answer["sma:2@volume"] == pytest.approx(candles.volume[-2:].mean(), rel=1e-12)


def test_threads_share_nothing() -> None:
    """Eight threads that ask for everything at once get the same numbers as one."""
    candles, names = wave(300), parse_names(",".join(CATALOGUE), max_names=len(CATALOGUE))
    alone = compute(candles, names).at(-1)
    with ThreadPoolExecutor(8) as threads:
        for answer in threads.map(lambda _: compute(candles, names).at(-1), range(32)):
            assert answer == alone
