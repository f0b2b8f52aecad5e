"""Pivot points: levels for a day from the high, low and close of the day before, in UTC."""

from collections.abc import Callable

import numpy as np

from .conventions import NOTES
from .indicator import Indicator, Values
from .memory import Memory
from .parameters import word
from .prices import Array, Prices
from .sessions import ANCHORS, DAY_MS, beginnings_ms, first_candles

KINDS = {"classic": 0, "fibonacci": 1, "camarilla": 2, "woodie": 3}

Levels = tuple[Array, list[Array], list[Array]]
"""Of each day: the pivot, the resistances above it and the supports below it, nearest first."""


def _classic(high: Array, low: Array, close: Array) -> Levels:
    pivot, span = (high + low + close) / 3, high - low
    ups = [2 * pivot - low, pivot + span, pivot + 2 * span, pivot + 3 * span]
    return pivot, ups, [2 * pivot - high, pivot - span, pivot - 2 * span, pivot - 3 * span]


def _fibonacci(high: Array, low: Array, close: Array) -> Levels:
    pivot, steps = (high + low + close) / 3, [part * (high - low) for part in (0.382, 0.618, 1.0, np.nan)]
    return pivot, [pivot + step for step in steps], [pivot - step for step in steps]


def _camarilla(high: Array, low: Array, close: Array) -> Levels:
    steps = [1.1 * (high - low) / part for part in (12, 6, 4, 2)]
    return (high + low + close) / 3, [close + step for step in steps], [close - step for step in steps]


def _woodie(high: Array, low: Array, close: Array) -> Levels:
    pivot, span = (high + low + 2 * close) / 4, high - low
    ups = [2 * pivot - low, pivot + span, high + 2 * (pivot - low), high + 2 * (pivot - low) + span]
    downs = [2 * pivot - high, pivot - span, low - 2 * (high - pivot), low - 2 * (high - pivot) - span]
    return pivot, ups, downs


DEFINITIONS: tuple[Callable[[Array, Array, Array], Levels], ...] = (_classic, _fibonacci, _camarilla, _woodie)
"""In the order of `KINDS`."""


def _pivots(prices: Prices, _: tuple[Array, ...], values: Values) -> tuple[Array, ...]:
    times = prices.open_times_ms
    days = beginnings_ms(times, ANCHORS["day"])
    starts = first_candles(days)
    lengths = np.diff(starts, append=len(times))
    high, low = np.maximum.reduceat(prices.high, starts), np.minimum.reduceat(prices.low, starts)
    pivot, ups, downs = DEFINITIONS[int(values[0])](high, low, prices.close[starts + lengths - 1])
    levels = np.array([pivot, *ups, *downs])
    is_whole = lengths * np.diff(times).min() == DAY_MS
    is_followed = np.diff(days[starts], append=0) == DAY_MS
    levels[:, ~(is_whole & is_followed)] = np.nan
    of_the_day_before = np.repeat(np.roll(levels, 1, axis=1), lengths, axis=1)
    of_the_day_before[:, : lengths[0]] = np.nan
    return tuple(of_the_day_before)


PIVOTS = Indicator(
    name="pivots",
    title="Pivot Points",
    group="Overlap Studies",
    parameters=(word("kind", "How the levels are drawn", KINDS, "classic"),),
    outputs=("pivot", "r1", "r2", "r3", "r4", "s1", "s2", "s3", "s4"),
    sources=(),
    inputs=("high", "low", "close"),
    function=_pivots,
    warm_up=lambda _: None,
    memory=Memory.SESSION,
    days=lambda _: 2,
    note=NOTES["pivots"],
)
