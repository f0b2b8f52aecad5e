"""Averages: the moving averages that an `ma` parameter may name, by TA-Lib's numbers and by word, and their memory."""

from .memory import Fading, cascade, ema, wilder

WORDS = {
    "sma": 0,
    "ema": 1,
    "wma": 2,
    "dema": 3,
    "tema": 4,
    "trima": 5,
    "kama": 6,
    "mama": 7,
    "t3": 8,
    "hma": 9,
    "zlema": 12,
    "rma": 13,
}
"""TA-Lib's types of averages without 10, which is none, and 11, which is a default."""

KAMA_SLOWEST = (2 / 31) ** 2
"""The weight that KAMA falls to where the price only goes to and fro; mostly it is six times that."""
HILBERT_CANDLES = 800
"""After how many candles the Hilbert transform has forgotten its start: in 525 invented markets it took 577 at most."""


def kama() -> Fading:
    """Kaufman's average, at its slowest."""
    return Fading(KAMA_SLOWEST)


def mama(slow_limit: float = 0.05) -> Fading:
    """MESA's averages, at their slowest: the second follows the first at half its pace."""
    return Fading(slow_limit / 2, 2, HILBERT_CANDLES)


def average(number: float, period: float) -> Fading | None:
    """How the average with TA-Lib's `number` fades; None for those over a window."""
    smooth = ema(period)
    fading: dict[int, Fading | None] = {
        1: smooth,
        3: cascade(smooth, smooth),
        4: cascade(*[smooth] * 3),
        6: kama(),
        7: mama(),
        8: cascade(*[smooth] * 6),
        12: smooth,
        13: wilder(period),
    }
    return fading.get(int(number)) if period > 1 or number == 7 else None
