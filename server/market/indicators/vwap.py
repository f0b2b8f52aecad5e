"""VWAP: the average price of a session by volume, from the session's first candle on."""

import numpy as np
from numpy.typing import NDArray

from .conventions import NOTES
from .indicator import Indicator, Values
from .memory import Memory
from .parameters import word
from .prices import Array, Prices
from .sessions import ANCHORS, DAYS, beginnings_ms, first_candles


def _vwap(prices: Prices, sources: tuple[Array, ...], values: Values) -> tuple[Array, ...]:
    beginnings = beginnings_ms(prices.open_times_ms, int(values[0]))
    starts = first_candles(beginnings)
    with np.errstate(divide="ignore", invalid="ignore"):
        average = _sums(sources[0] * prices.volume, starts) / _sums(prices.volume, starts)
    if prices.open_times_ms[0] != beginnings[0]:
        average[: starts[1] if len(starts) > 1 else None] = np.nan  # the session began before the candles do
    return (average,)


def _sums(values: Array, starts: NDArray[np.intp]) -> Array:
    """Running sums that begin anew at each of `starts`, a row for each: none leaves its rounding to the next."""
    lengths = np.diff(starts, append=len(values))
    is_there = np.arange(lengths.max()) < lengths[:, None]
    rows = np.zeros(is_there.shape)
    rows[is_there] = values
    sums: Array = np.cumsum(rows, axis=1)[is_there]
    return sums


VWAP = Indicator(
    name="vwap",
    title="Volume Weighted Average Price",
    group="Volume Indicators",
    parameters=(word("anchor", "Where it begins, in UTC: weeks on Monday; start is the first candle", ANCHORS, "day"),),
    outputs=("vwap",),
    sources=("hlc3",),
    inputs=("volume",),
    function=_vwap,
    warm_up=lambda values: 0 if values[0] == ANCHORS["start"] else None,
    memory=Memory.SESSION,
    days=lambda values: DAYS[int(values[0])],
    note=NOTES["vwap"],
)
