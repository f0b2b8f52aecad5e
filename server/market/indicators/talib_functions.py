"""TA-Lib's functions as indicators, made from the descriptions that come with it. All of them but its VWAP.

TA-Lib's settings (unstable periods, candle patterns, compatibility) are the whole process's: they are never touched.
Its functions let go of the GIL and may be called from several threads at once.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import talib
from talib import abstract

from . import spellings
from .averages import WORDS
from .conventions import NOTES
from .indicator import Function, Indicator, Values
from .parameters import LONGEST, Parameter, word
from .prices import Array, Prices
from .remembering import fading, memory

LIBRARY: Any = talib
DESCRIPTIONS: Any = abstract
"""Both without their stubs, which leave out what describes."""

HILBERT_WARM_UP = 32
"""Candles before the first dominant cycle's period, which MAVP takes its periods from."""


def talib_indicators() -> tuple[Indicator, ...]:
    """Every function of the installed TA-Lib whose name is not used for something else here."""
    return tuple(_indicator(name) for name in LIBRARY.get_functions() if name != "VWAP")


def _indicator(function: str) -> Indicator:
    info = DESCRIPTIONS.Function(function).info
    names = _ordered(list(info["parameters"]))
    parameters = tuple(_parameter(function, name, info["parameters"][name]) for name in names)
    sources = tuple(value for key, value in info["input_names"].items() if key.startswith("price") and key != "prices")
    return Indicator(
        name=function.lower(),
        title=info["display_name"],
        group=info["group"],
        parameters=parameters,
        outputs=spellings.outputs(function, info["output_names"]),
        sources=sources,
        inputs=tuple(info["input_names"].get("prices", ())),
        function=_function(function, names),
        warm_up=functools.partial(_warm_up, function, names),
        memory=memory(function),
        fading=lambda values: fading(function, _given(parameters, values)),
        note=NOTES.get(function.lower(), ""),
    )


def _ordered(names: list[str]) -> tuple[str, ...]:
    """Kinds of averages come last: `stoch:14:3:3` means three numbers of candles."""
    return tuple(sorted(names, key=lambda name: name.endswith("matype")))


def _given(parameters: Sequence[Parameter], values: Values) -> dict[str, float]:
    return {parameter.name: value for parameter, value in zip(parameters, values, strict=True)}


def _parameter(function: str, name: str, default: float) -> Parameter:
    called, title = spellings.parameter(function, name)
    if name.endswith("matype"):
        return word(called, title, WORDS, next(text for text, number in WORDS.items() if number == default))
    if name in spellings.DECIMALS:
        return Parameter(called, title, default, *spellings.DECIMALS[name], is_integer=False)
    default = spellings.DEFAULTS.get((function, name), int(default))
    lowest = next(value for value in range(LONGEST) if lookback(function, ((name, value),)) >= 0)
    return Parameter(called, title, default, lowest, LONGEST)


@functools.lru_cache(4096)
def lookback(function: str, arguments: tuple[tuple[str, float], ...]) -> int:
    """Candles before the first value, by TA-Lib's own word; under 0 where it does not take those arguments."""
    described = DESCRIPTIONS.Function(function)
    if arguments:
        described.parameters = dict(arguments)
    return int(described.lookback)


def _arguments(names: tuple[str, ...], values: Values) -> tuple[tuple[str, float], ...]:
    decimals = spellings.DECIMALS
    return tuple((n, value if n in decimals else int(value)) for n, value in zip(names, values, strict=True))


def _warm_up(function: str, names: tuple[str, ...], values: Values) -> int:
    """Candles before the first value; under 0 where TA-Lib does not take the values together."""
    if function != "MAVP":
        return lookback(function, _arguments(names, values))
    shortest, longest = values[:2]
    return HILBERT_WARM_UP + lookback(function, _arguments(names, values)) if shortest <= longest else -1


def _function(function: str, names: tuple[str, ...]) -> Function:
    call = getattr(LIBRARY, function)
    columns = DESCRIPTIONS.Function(function).info["input_names"].get("prices", ())

    def compute(prices: Prices, sources: tuple[Array, ...], values: Values) -> tuple[Array, ...]:
        periods = (talib.HT_DCPERIOD(sources[0]),) if function == "MAVP" else ()
        arguments = dict(_arguments(names, values))
        answer: Any = call(*sources, *periods, *(prices.source(column) for column in columns), **arguments)
        arrays = answer if isinstance(answer, tuple) else (answer,)
        return tuple(_numbers(array, lookback(function, tuple(arguments.items()))) for array in arrays)

    return compute


def _numbers(array: Any, warm_up: int) -> Array:
    """TA-Lib's floats as they are; its integers as floats, with nothing in the warm-up, where TA-Lib puts zeros."""
    if array.dtype == np.float64:
        return array  # type: ignore[no-any-return]
    numbers: Array = array.astype(np.float64)
    numbers[:warm_up] = np.nan
    return numbers
