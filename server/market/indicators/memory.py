"""Memory: how much of the history a value depends on, and after how many candles it has forgotten where that began."""

import enum
import functools
import math
from typing import NamedTuple

PRECISION = 1e-9
"""How far a settled value may still be off, as a part of the largest value that the indicator has taken."""
LARGEST_START = 100
"""How many times as large as the largest value the error at the start is taken for."""


class Memory(enum.StrEnum):
    """What a value depends on."""

    WINDOW = "window"
    """The last candles only: as many as its warm-up, and its own."""
    FADING = "fading"
    """All candles, the old ones ever less: an exponential average, and what is built on one."""
    PATH = "path"
    """The candles since its state last turned over, which no number of candles promises."""
    SESSION = "session"
    """The candles of the day, the week or the month, or of the day before."""
    WHOLE = "whole"
    """Every candle since the first one held: a sum, or a place counted from the first candle."""


class Fading(NamedTuple):
    """Exponential averages one behind the other: the weight of the newest value in the slowest, and how many.

    `after`: the candles that what comes before them needs to settle by itself.
    """

    weight: float
    stages: int = 1
    after: int = 0

    @property
    def candles(self) -> int:
        """How many candles after the first value the start has faded to `PRECISION`."""
        return self.after + fading_candles(self.weight, self.stages)


def ema(period: float) -> Fading:
    """An exponential average of `period` candles."""
    return Fading(2 / (period + 1))


def wilder(period: float) -> Fading:
    """Wilder's smoothing over `period` candles, an exponential average that is about twice as slow."""
    return Fading(1 / period)


def cascade(*fadings: Fading | None) -> Fading | None:
    """One smoothing of the next: no faster than all of them with the slowest one's weight. None: none of them fades."""
    present = [fading for fading in fadings if fading is not None]
    if not present:
        return None
    weight = min(fading.weight for fading in present)
    return Fading(weight, sum(fading.stages for fading in present), max(fading.after for fading in present))


def beside(*fadings: Fading | None) -> Fading | None:
    """Smoothings of the same input: the slowest one counts. None: none of them fades."""
    present = [fading for fading in fadings if fading is not None]
    if not present:
        return None
    return Fading(*(pick(column) for pick, column in zip((min, max, max), zip(*present, strict=True), strict=True)))


@functools.lru_cache(4096)
def fading_candles(weight: float, stages: int) -> int:
    """The fewest candles after which the start has so little weight left that `PRECISION` holds for `LARGEST_START`.

    That weight is the chance that fewer than `stages` of so many tosses of a coin hit, each with the chance `weight`.
    """
    enough = PRECISION / LARGEST_START
    if weight >= 1:
        return 0
    low, high = 0, stages
    while _left(high, weight, stages) > enough:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _left(middle, weight, stages) > enough else (low, middle)
    return high


def _left(candles: int, weight: float, stages: int) -> float:
    log_hit, log_miss = math.log(weight), math.log1p(-weight)
    return sum(
        math.exp(math.log(math.comb(candles, hits)) + hits * log_hit + (candles - hits) * log_miss)
        for hits in range(min(stages, candles + 1))
    )
