"""Prices: the columns that indicators are computed from, what can be made of them, and Heikin-Ashi candles."""

from collections.abc import Callable

import numpy as np
import talib
from msgspec import Struct
from numpy.typing import NDArray

from ...models import Candles

Array = NDArray[np.float64]

CHARTS = ("candles", "heikinashi")


class Prices(Struct, frozen=True, eq=False):
    """Columns of equal length, oldest first: times in Unix milliseconds, everything else as float64."""

    open_times_ms: NDArray[np.int64]
    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array

    def source(self, name: str) -> Array:
        """The column or the mean of columns called `name`, one of `SOURCES`."""
        return SOURCES[name](self)


SOURCES: dict[str, Callable[[Prices], Array]] = {
    "open": lambda prices: prices.open,
    "high": lambda prices: prices.high,
    "low": lambda prices: prices.low,
    "close": lambda prices: prices.close,
    "volume": lambda prices: prices.volume,
    "hl2": lambda prices: (prices.high + prices.low) / 2,
    "hlc3": lambda prices: (prices.high + prices.low + prices.close) / 3,
    "ohlc4": lambda prices: (prices.open + prices.high + prices.low + prices.close) / 4,
    "hlcc4": lambda prices: (prices.high + prices.low + 2 * prices.close) / 4,
}


def charted(candles: Candles, chart: str) -> Prices:
    """The prices of `candles` as `chart` shows them, one of `CHARTS`."""
    prices = Prices(candles.open_times_ms, candles.open, candles.high, candles.low, candles.close, candles.volume)
    return heikin_ashi(prices) if chart == "heikinashi" else prices


def heikin_ashi(prices: Prices) -> Prices:
    """Heikin-Ashi candles, which begin anew with the first candle held.

    Each opens in the middle of the body before, the first in the middle of its own, and closes at the mean of all four
    prices. So the start fades by half with each candle: after 37 of them it no longer tells.
    """
    columns = talib.HA(prices.open, prices.high, prices.low, prices.close)
    return Prices(prices.open_times_ms, *columns, prices.volume)
