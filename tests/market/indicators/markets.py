"""Invented candles, and TA-Lib called directly on them."""

from typing import Any

import numpy as np
import talib
from numpy.typing import NDArray
from talib import abstract

from server.market.indicators import parse_names
from server.market.indicators.prices import charted
from server.models import Candles
from server.rows import Rows

Array = NDArray[np.float64]

START_MS = 1_767_225_600_000
"""Thursday, the first of January 2026, midnight in UTC."""
MINUTE_MS = 60_000

FUNCTIONS: list[str] = talib.get_functions()  # type: ignore[no-untyped-call]
DESCRIBED: Any = abstract


def market(length: int = 1000, *, seed: int = 1, step_ms: int = 240 * MINUTE_MS, start_ms: int = START_MS) -> Candles:
    """A market that wanders: each candle with a body, two shadows and a volume."""
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, length)))
    opens = np.concatenate(([close[0] * 1.002], close[:-1])) * (1 + random.normal(0, 0.001, length))
    high = np.maximum(opens, close) * (1 + np.abs(random.normal(0, 0.004, length)))
    low = np.minimum(opens, close) * (1 - np.abs(random.normal(0, 0.004, length)))
    times = start_ms + step_ms * np.arange(length)
    return candles_of(times, opens, high, low, close, np.abs(random.normal(10, 3, length)))


def candles_of(times: Any, opens: Array, high: Array, low: Array, close: Array, volume: Array) -> Candles:
    """Candles with these columns; their rows are empty, for no indicator reads them."""
    rows = Rows.of([("", "", "", "", "", "", "")] * len(close))
    columns = (opens, high, low, close, volume)
    return Candles(rows, np.asarray(times), *columns, last_closed=True, depth=len(close))


def part(candles: Candles, window: slice) -> Candles:
    """Some of `candles`."""
    columns = (candles.open, candles.high, candles.low, candles.close, candles.volume)
    return candles_of(candles.open_times_ms[window], *(column[window] for column in columns))


def direct(function: str, candles: Candles, **given: float) -> list[Array]:
    """The outputs of TA-Lib's function as floats, with nothing in the warm-up."""
    columns = {name: getattr(candles, name) for name in ("open", "high", "low", "close", "volume")}
    described = DESCRIBED.Function(function)
    if given:
        described.parameters = given
    answer = described({**columns, "periods": talib.HT_DCPERIOD(candles.close)})
    arrays = answer if isinstance(answer, list | tuple) else [answer]
    return [blanked(array, described.lookback) for array in arrays]


def blanked(array: Any, warm_up: int) -> Array:
    """`array` as floats, without what stands in its warm-up."""
    floats: Array = np.array(array, dtype=np.float64)
    floats[:warm_up] = np.nan
    return floats


def answers(candles: Candles, name: str, *, chart: str = "candles") -> list[Array]:
    """The outputs of one name, in their order, over however few candles."""
    (question,) = parse_names(name, max_names=1)
    prices = charted(candles, chart)
    return list(question.indicator.function(prices, tuple(map(prices.source, question.sources)), question.values))


def scale(values: Array) -> float:
    """The largest of `values`, or 1 where all of them are 0."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max(initial=0.0)) or 1.0
