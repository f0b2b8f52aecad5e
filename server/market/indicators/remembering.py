"""Remembering: which of TA-Lib's functions depend on more than a window of candles, and how their start fades.

TA-Lib flags the functions that are recursive themselves, not those that are built on them; this table has both. That
all others keep to their window is tested.
"""

from collections.abc import Callable, Mapping

from .averages import HILBERT_CANDLES, average, kama, mama
from .memory import Fading, Memory, beside, cascade, ema, wilder

Given = Mapping[str, float]
"""The values of an indicator's parameters by name."""

UNFADING: dict[str, Memory] = {
    "SAR": Memory.PATH,
    "SAREXT": Memory.PATH,
    "SUPERTREND": Memory.PATH,
    "AD": Memory.WHOLE,
    "CUMSUM": Memory.WHOLE,
    "MAXINDEX": Memory.WHOLE,
    "MININDEX": Memory.WHOLE,
    "MINMAXINDEX": Memory.WHOLE,
    "NVI": Memory.WHOLE,
    "OBV": Memory.WHOLE,
    "PVI": Memory.WHOLE,
    "PVT": Memory.WHOLE,
    "WAD": Memory.WHOLE,
}


def _hilbert(_: Given) -> Fading:
    return Fading(1, 1, HILBERT_CANDLES)


def _ema(given: Given) -> Fading:
    return ema(given["period"])


def _wilder(given: Given) -> Fading:
    return wilder(given["period"])


def _twice_wilder(given: Given) -> Fading | None:
    return cascade(_wilder(given), _wilder(given))


def _averages(given: Given) -> Fading | None:
    return beside(average(given["ma"], given["fast"]), average(given["ma"], given["slow"]))


def _macdext(given: Given) -> Fading | None:
    lines = beside(average(given["fast_ma"], given["fast"]), average(given["slow_ma"], given["slow"]))
    return cascade(lines, average(given["signal_ma"], given["signal"]))


def _stochastic(given: Given) -> Fading | None:
    return cascade(average(given["smooth_ma"], given["smooth"]), average(given["d_ma"], given["d"]))


def _fast_d(given: Given) -> Fading | None:
    return average(given["d_ma"], given["d"])


FADING: dict[str, Callable[[Given], Fading | None]] = {
    "ADOSC": lambda given: beside(ema(given["fast"]), ema(given["slow"])),
    "ADX": _twice_wilder,
    "ADXR": _twice_wilder,
    "APO": _averages,
    "ATR": _wilder,
    "BBANDS": lambda given: average(given["ma"], given["period"]),
    "CMO": _wilder,
    "CVI": _ema,
    "DEMA": lambda given: average(3, given["period"]),
    "DX": _wilder,
    "EFI": _ema,
    "EMA": _ema,
    "ERI": _ema,
    "HA": lambda _: Fading(0.5),
    "HT_DCPERIOD": _hilbert,
    "HT_DCPHASE": _hilbert,
    "HT_PHASOR": _hilbert,
    "HT_SINE": _hilbert,
    "HT_TRENDLINE": _hilbert,
    "HT_TRENDMODE": _hilbert,
    "KAMA": lambda _: kama(),
    "KC": lambda given: beside(ema(given["period"]), wilder(given["atr"])),
    "KDJ": _stochastic,
    "MA": lambda given: average(given["ma"], given["period"]),
    "MACD": lambda given: cascade(beside(ema(given["fast"]), ema(given["slow"])), ema(given["signal"])),
    "MACDEXT": _macdext,
    "MACDFIX": lambda given: cascade(ema(26), ema(given["signal"])),
    "MAMA": lambda given: mama(min(given["slow_limit"], given["fast_limit"])),
    "MASSI": lambda given: cascade(ema(given["fast"]), ema(given["fast"])),
    "MAVP": lambda given: beside(_hilbert(given), average(given["ma"], given["longest"])),
    "MINUS_DI": _wilder,
    "MINUS_DM": _wilder,
    "NATR": _wilder,
    "PLUS_DI": _wilder,
    "PLUS_DM": _wilder,
    "PPO": _averages,
    "PVO": _averages,
    "RMA": _wilder,
    "RSI": _wilder,
    "RVI": _wilder,
    "SMI": lambda given: cascade(ema(given["slow"]), ema(given["fast"]), ema(given["signal"])),
    "STOCH": _stochastic,
    "STOCHF": _fast_d,
    "STOCHRSI": lambda given: cascade(wilder(given["period"]), _fast_d(given)),
    "T3": lambda given: average(8, given["period"]),
    "TEMA": lambda given: average(4, given["period"]),
    "TRIX": lambda given: average(4, given["period"]),
    "TSI": lambda given: cascade(ema(given["first"]), ema(given["second"])),
    "ZLEMA": _ema,
}


def memory(function: str) -> Memory:
    """What the values of TA-Lib's `function` depend on."""
    return UNFADING.get(function) or (Memory.FADING if function in FADING else Memory.WINDOW)


def fading(function: str, given: Given) -> Fading | None:
    """How the start of the history fades from the values of TA-Lib's `function`; None where it does not, or at once."""
    return FADING[function](given) if function in FADING else None
