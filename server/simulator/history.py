"""Closed candles: every minute of every day as exact integers, computed from (seed, symbol, day) alone.

A day runs between two prices that smooth noise gives for midnight; inside, one of a set of hashed bridges is stretched
between them. Time does not enter: history knows the future too, and candles.py cuts it at "now".
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .instruments import Category, Instrument
from .noise import Reals, key_of, normals, smooth, unit, units, word

Integers = NDArray[np.int64]
# Rows of a candle table, shape (6, candles): ticks, ticks, ticks, ticks, steps, turnover units.
OPEN, HIGH, LOW, CLOSE, VOLUME, TURNOVER = range(6)

DAY_MINUTES = 1_440
TEMPLATES = 128
CHUNK_DAYS = 64
BLOCK_DAYS = 8  # working arrays of about 90 kB: they stay in the processor's cache
OCTAVES = ((1_024, 0.55), (256, 0.35), (64, 0.20), (16, 0.09), (4, 0.045), (1, 0.02))


class Templates(NamedTuple):
    """The shapes a day can have, each (TEMPLATES, 1440): a path from and back to zero, wicks, shares of volume."""

    path: Reals
    above: Reals
    below: Reals
    volume: Reals


def make_templates(seed: int) -> Templates:
    """All shapes of one seed: bridges of unit-variance days, and what goes with their minutes."""
    shape, count = (TEMPLATES, DAY_MINUTES), TEMPLATES * DAY_MINUTES
    steps = normals(key_of(seed, "path"), count).reshape(shape)
    walk = np.cumsum(steps, axis=1)
    ramp = np.arange(1, DAY_MINUTES + 1, dtype=np.float64) / DAY_MINUTES
    path = (walk - ramp * walk[:, -1:]) / math.sqrt(DAY_MINUTES)
    above, below = (units(key_of(seed, name), count).reshape(shape) ** 2 for name in ("above", "below"))
    volume = 0.25 + units(key_of(seed, "volume"), count).reshape(shape) + 0.5 * np.abs(steps)
    return Templates(path, above * 0.03, below * 0.03, volume / (1.15 * DAY_MINUTES))


def whole_turnover(instrument: Instrument, candles: Integers) -> Integers:
    """Turnover of whole minutes: volume at the mean price of the path open, extreme, extreme, close.

    Volume flows evenly along a path of three equally long legs, so that the mean is (O + 2H + 2L + C) / 6.
    """
    sum6: Integers = candles[OPEN] + candles[CLOSE] + 2 * (candles[HIGH] + candles[LOW])
    ratio = instrument.turnover_ratio
    if instrument.category is Category.INVERSE:
        turnover: Integers = candles[VOLUME] * (6 * ratio.numerator) // (sum6 * ratio.denominator)
    else:
        turnover = candles[VOLUME] * sum6 * ratio.numerator // (6 * ratio.denominator)
    return turnover


class History:
    """The closed candles of every symbol under one seed, made on demand and kept in bounded caches.

    Invariant: what it answers depends on the seed and the arguments only, never on earlier questions.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.templates = lru_cache(maxsize=1)(lambda: make_templates(seed))
        self.minutes = lru_cache(maxsize=768)(self._minutes)
        self.hours = lru_cache(maxsize=1_024)(self._hours)
        self.midnight_price = lru_cache(maxsize=65_536)(self._midnight_price)

    def _midnight_price(self, coin: str, day: int) -> float:
        """The coin's price at the start of the day, as a multiple of its base price."""
        exponent = 0.0
        for period, amplitude in OCTAVES:
            exponent += amplitude * smooth(key_of(self.seed, "midnight", coin, str(period)), day, period)
        return math.exp(exponent)

    def _minutes(self, instrument: Instrument, day: int) -> Integers:
        """The minute candles of one UTC day (days since 1970), shape (6, 1440); not to be changed."""
        candles = self._days(instrument, day, 1)[:, 0]
        candles.flags.writeable = False
        return candles

    def _hours(self, instrument: Instrument, chunk: int) -> Integers:
        """The hour candles of CHUNK_DAYS days from day `chunk * CHUNK_DAYS`, shape (6, hours); not to be changed."""
        hours = np.empty((6, CHUNK_DAYS, 24), dtype=np.int64)
        for offset in range(0, CHUNK_DAYS, BLOCK_DAYS):
            days = self._days(instrument, chunk * CHUNK_DAYS + offset, BLOCK_DAYS)
            minutes = days.reshape(6, BLOCK_DAYS, 24, 60)
            block = hours[:, offset : offset + BLOCK_DAYS]
            block[OPEN], block[CLOSE] = minutes[OPEN, :, :, 0], minutes[CLOSE, :, :, -1]
            block[HIGH], block[LOW] = minutes[HIGH].max(axis=2), minutes[LOW].min(axis=2)
            block[VOLUME], block[TURNOVER] = minutes[VOLUME].sum(axis=2), minutes[TURNOVER].sum(axis=2)
        candles = hours.reshape(6, CHUNK_DAYS * 24)
        candles.flags.writeable = False
        return candles

    def _shape_of_day(self, instrument: Instrument, day: int) -> tuple[int, float, float]:
        """Which template the day follows, how far it swings (a part of the price), and its volume in steps."""
        coin = key_of(self.seed, "day", instrument.base)
        template = word(coin, 3 * day) % TEMPLATES
        swing = (0.016 + 0.018 * unit(coin, 3 * day + 1)) * (1.0 if word(coin, 3 * day + 2) & 1 else -1.0)
        busy = 0.6 + 0.8 * unit(key_of(self.seed, "volume", instrument.category, instrument.symbol), day)
        traded = instrument.daily_turnover_usd / float(instrument.step)
        if instrument.category is not Category.INVERSE:
            traded /= instrument.base_price
        return template, swing, traded * busy

    def _days(self, instrument: Instrument, first_day: int, count: int) -> Integers:
        """The minute candles of `count` days, shape (6, count, 1440)."""
        days = range(first_day, first_day + count)
        shapes = [self._shape_of_day(instrument, day) for day in days]
        scale = instrument.base_price / float(instrument.tick)
        prices = np.array([self.midnight_price(instrument.base, day) * scale for day in (*days, days[-1] + 1)])
        which = np.array([template for template, _, _ in shapes])
        swing = np.array([part for _, part, _ in shapes])[:, None] * prices[:-1, None]
        volume = np.array([steps for _, _, steps in shapes])[:, None]
        return self._walk(instrument, prices, which, swing, volume)

    def _walk(self, instrument: Instrument, prices: Reals, which: Integers, swing: Reals, volume: Reals) -> Integers:
        templates, count = self.templates(), len(which)
        ramp = np.arange(1, DAY_MINUTES + 1, dtype=np.float64) / DAY_MINUTES
        path = templates.path[which] * swing + ramp * (prices[1:, None] - prices[:-1, None]) + prices[:-1, None]
        path[:, -1] = prices[1:]  # the same float as the next day's first, whatever the sum rounds to
        candles = np.empty((6, count, DAY_MINUTES), dtype=np.int64)
        candles[CLOSE] = np.rint(path)
        candles[OPEN, :, 1:] = candles[CLOSE, :, :-1]
        candles[OPEN, :, 0] = np.rint(prices[:-1])
        reach = np.abs(swing)
        above, below = templates.above[which] * reach, templates.below[which] * reach
        candles[HIGH] = np.maximum(candles[OPEN], candles[CLOSE]) + above.astype(np.int64) + 2
        candles[LOW] = np.minimum(candles[OPEN], candles[CLOSE]) - below.astype(np.int64) - 2
        candles[VOLUME] = (templates.volume[which] * volume).astype(np.int64) + 1
        candles[TURNOVER] = whole_turnover(instrument, candles)
        return candles
