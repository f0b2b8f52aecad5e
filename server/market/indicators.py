"""Technical indicators over arrays of candles: pure, arrays in, numbers out. The one place that imports TA-Lib.

Definitions are TA-Lib's: Wilder's smoothing for RSI, ATR and ADX, the deviation of a band over the population, an
exponential average that starts from a simple one. A value without enough candles before it is None.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import talib
from numpy.typing import NDArray

from ..errors import InsufficientCandles, InvalidRequest
from ..models import Candles

Array = NDArray[np.float64]

is_whole = re.compile(r"[0-9]{1,6}").fullmatch
is_decimal = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?").fullmatch

MIN_CANDLES = 20


class Parameter(NamedTuple):
    """One parameter of an indicator, its default, and the range that TA-Lib allows."""

    name: str
    default: float
    lowest: float
    highest: float


class Indicator(NamedTuple):
    """A name, its parameters in their order, its outputs in theirs, and the function from candles to arrays."""

    name: str
    parameters: tuple[Parameter, ...]
    outputs: tuple[str, ...]
    function: Callable[..., tuple[Array, ...]]


def _period(default: int, lowest: int = 2) -> Parameter:
    return Parameter("period", default, lowest, 500)


def _bbands(candles: Candles, period: float, up: float, down: float) -> tuple[Array, ...]:
    upper, middle, lower = talib.BBANDS(candles.close, int(period), up, down)
    with np.errstate(divide="ignore", invalid="ignore"):
        span = upper - lower
        width = 100 * span / middle
        percent = np.where(span > 0, (candles.close - lower) / span, np.nan)
    return upper, middle, lower, width, percent


def _of_close(function: Callable[..., Array]) -> Callable[..., tuple[Array, ...]]:
    return lambda candles, period: (function(candles.close, int(period)),)


def _of_bars(function: Callable[..., Array]) -> Callable[..., tuple[Array, ...]]:
    return lambda candles, period: (function(candles.high, candles.low, candles.close, int(period)),)


def _macd(candles: Candles, fast: float, slow: float, signal: float) -> tuple[Array, ...]:
    return tuple(talib.MACD(candles.close, int(fast), int(slow), int(signal)))


CATALOGUE: dict[str, Indicator] = {
    indicator.name: indicator
    for indicator in (
        Indicator("sma", (_period(20),), ("sma",), _of_close(talib.SMA)),
        Indicator("ema", (_period(20),), ("ema",), _of_close(talib.EMA)),
        Indicator("rsi", (_period(14),), ("rsi",), _of_close(talib.RSI)),
        Indicator(
            "macd",
            (Parameter("fast", 12, 2, 500), Parameter("slow", 26, 2, 500), Parameter("signal", 9, 1, 500)),
            ("macd", "signal", "histogram"),
            _macd,
        ),
        Indicator(
            "bbands",
            (_period(20), Parameter("up", 2, 0.1, 10), Parameter("down", 2, 0.1, 10)),
            ("upper", "middle", "lower", "width", "percent"),
            _bbands,
        ),
        Indicator("atr", (_period(14, 1),), ("atr",), _of_bars(talib.ATR)),
        Indicator("obv", (), ("obv",), lambda candles: (talib.OBV(candles.close, candles.volume),)),
        Indicator("adx", (_period(14),), ("adx",), _of_bars(talib.ADX)),
        Indicator("plus_di", (_period(14, 1),), ("plus_di",), _of_bars(talib.PLUS_DI)),
        Indicator("minus_di", (_period(14, 1),), ("minus_di",), _of_bars(talib.MINUS_DI)),
    )
}

CLASSIC: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("sma", "20", ("sma20",)),
    ("sma", "50", ("sma50",)),
    ("sma", "200", ("sma200",)),
    ("ema", "20", ("ema20",)),
    ("ema", "200", ("ema200",)),
    ("rsi", "14", ("rsi14",)),
    ("macd", "", ("macd", "macd_signal", "macd_histogram")),
    ("bbands", "", ("bb_upper", "bb_middle", "bb_lower", "bb_width", "bb_percent")),
    ("atr", "14", ("atr14",)),
    ("obv", "", ("obv",)),
    ("adx", "14", ("adx14",)),
    ("plus_di", "14", ("dmp14",)),
    ("minus_di", "14", ("dmn14",)),
)
"""The set answered without names: indicator, parameters, and the keys of its outputs."""


class Question(NamedTuple):
    """One asked indicator: its key in the answer, the indicator, the values of its parameters."""

    key: str
    indicator: Indicator
    values: tuple[float, ...]


def parse_names(text: str, *, max_names: int) -> tuple[Question, ...]:
    """`rsi:14,macd:12:26:9` as questions; parameters left out have their defaults. Raises InvalidRequest."""
    names = [name.strip().lower() for name in text.split(",")]
    if len(names) > max_names:
        raise InvalidRequest("names", f"{len(names)} names are asked for; at most {max_names} are allowed")
    if len(set(names)) != len(names):
        raise InvalidRequest("names", "the same name is asked for twice")
    return tuple(_question(name) for name in names)


def _question(name: str) -> Question:
    word, *given = name.split(":")
    indicator = CATALOGUE.get(word)
    if indicator is None:
        raise InvalidRequest("names", f"no indicator {word[:40]!r}; allowed: {', '.join(CATALOGUE)}")
    if len(given) > len(indicator.parameters):
        raise InvalidRequest("names", f"{word} takes {len(indicator.parameters)} parameters: {_usage(indicator)}")
    values = [parameter.default for parameter in indicator.parameters]
    for place, (parameter, value) in enumerate(zip(indicator.parameters, given, strict=False)):
        values[place] = _parameter(indicator, parameter, value)
    return Question(name, indicator, tuple(values))


def _parameter(indicator: Indicator, parameter: Parameter, text: str) -> float:
    is_written = is_decimal if parameter.name in ("up", "down") else is_whole
    value = float(text) if is_written(text) else math.nan
    if not parameter.lowest <= value <= parameter.highest:
        allowed = f"{parameter.lowest:g} to {parameter.highest:g}"
        raise InvalidRequest("names", f"{parameter.name} of {indicator.name} is {text[:20]!r}; allowed: {allowed}")
    return value


def _usage(indicator: Indicator) -> str:
    return ":".join((indicator.name, *(f"{p.name}={p.default:g}" for p in indicator.parameters)))


def _classic_questions() -> tuple[tuple[Question, tuple[str, ...]], ...]:
    return tuple((_question(f"{name}:{given}" if given else name), keys) for name, given, keys in CLASSIC)


CLASSIC_QUESTIONS = _classic_questions()


def number(value: float) -> float | None:
    """A float for JSON: None for what is no finite number."""
    return float(value) if math.isfinite(value) else None


class Computed(NamedTuple):
    """Columns by key, all as long as the candles; grouped outputs are nested one level."""

    columns: dict[str, Array | dict[str, Array]]

    def at(self, index: int) -> dict[str, Any]:
        """The numbers of one candle."""
        return {key: _pick(column, lambda values: number(values[index])) for key, column in self.columns.items()}

    def span(self, window: slice) -> dict[str, Any]:
        """The numbers of several candles, oldest first."""
        return {
            key: _pick(column, lambda values: [number(value) for value in values[window]])
            for key, column in self.columns.items()
        }


def _pick(column: Array | dict[str, Array], take: Callable[[Array], Any]) -> Any:
    if isinstance(column, dict):
        return {output: take(values) for output, values in column.items()}
    return take(column)


def compute(candles: Candles, questions: Sequence[Question] | None) -> Computed:
    """The answers to `questions` over `candles`, or the classic set for None. Raises InsufficientCandles under 20.

    About 0.3 ms for the classic set at 1,000 candles; TA-Lib lets go of the GIL meanwhile.
    """
    if len(candles) < MIN_CANDLES:
        raise InsufficientCandles(f"there are {len(candles)} candles; indicators need at least {MIN_CANDLES}")
    columns: dict[str, Array | dict[str, Array]] = {}
    if questions is None:
        for question, keys in CLASSIC_QUESTIONS:
            columns.update(zip(keys, question.indicator.function(candles, *question.values), strict=True))
    else:
        for question in questions:
            arrays = question.indicator.function(candles, *question.values)
            outputs = question.indicator.outputs
            columns[question.key] = arrays[0] if len(arrays) == 1 else dict(zip(outputs, arrays, strict=True))
    return Computed(columns)
