"""Every function of TA-Lib, against itself called directly."""

from typing import Any

import numpy as np
import pytest
import talib

from server.market.indicators import CATALOGUE, compute, parse_names
from tests.market.indicators.markets import DESCRIBED, FUNCTIONS, answers, direct, market, part

LIBRARY: Any = talib
"""Without its stubs, which are not whole."""

CANDLES = market()
SAME = [name for name in FUNCTIONS if name not in ("BBANDS", "VWAP")]
"""Functions that answer under their own name with their own outputs and no others."""

AVERAGES = {"sma": 0, "ema": 1, "wma": 2, "dema": 3, "tema": 4, "trima": 5, "kama": 6, "mama": 7, "t3": 8}
OURS = {"SMA": {"timeperiod": 20}, "EMA": {"timeperiod": 20}}
"""Defaults that are not TA-Lib's."""


def defaults(function: str) -> dict[str, float]:
    """TA-Lib's defaults with ours over them."""
    return dict(DESCRIBED.Function(function).info["parameters"]) | OURS.get(function, {})


def equal(ours: list[Any], theirs: list[Any]) -> None:
    """Both have the same numbers in the same places, to the last digit, and nothing in the same places."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_function_is_in_the_catalogue() -> None:
    """All 201 of the installed TA-Lib, candle patterns among them, and two more."""
    assert len(FUNCTIONS) == 201
    assert {name.lower() for name in FUNCTIONS} | {"ichimoku", "pivots"} == set(CATALOGUE)


@pytest.mark.parametrize("function", SAME)
def test_defaults_are_talibs(function: str) -> None:
    """A name alone is TA-Lib's function with its defaults, over all candles."""
    equal(answers(CANDLES, function.lower()), direct(function, CANDLES, **defaults(function)))


@pytest.mark.parametrize("function", [name for name in SAME if DESCRIBED.Function(name).info["parameters"]])
def test_parameters_reach_talib_in_their_order(function: str) -> None:
    """Other values, written by position with kinds of averages last, are TA-Lib's with the same values by its names."""
    given = {
        name: 1 if name.endswith("matype") else value + 3 if isinstance(value, int) else round(value * 0.75, 6)
        for name, value in defaults(function).items()
    }
    ordered = sorted(given, key=lambda name: name.endswith("matype"))
    text = ":".join((function.lower(), *(f"{given[name]:g}" for name in ordered)))
    equal(answers(CANDLES, text), direct(function, CANDLES, **given))


@pytest.mark.parametrize("word", AVERAGES)
@pytest.mark.parametrize("function", ["MA", "BBANDS", "APO", "STOCH", "MAVP", "MACDEXT"])
def test_averages_by_word_and_number(function: str, word: str) -> None:
    """Each kind of average is TA-Lib's, whether named by word or by number."""
    name = function.lower()
    last = {"STOCH": "smooth_ma", "MACDEXT": "fast_ma"}.get(function, "ma")
    theirs = {"STOCH": "slowk_matype", "MACDEXT": "fastmatype"}.get(function, "matype")
    by_word, by_number = (answers(CANDLES, f"{name}:{last}={text}") for text in (word, AVERAGES[word]))
    equal(by_word, by_number)
    equal(by_word[:3], direct(function, CANDLES, **{theirs: AVERAGES[word]}))


@pytest.mark.parametrize("source", ["open", "high", "low", "close", "volume", "hl2", "hlc3", "ohlc4", "hlcc4"])
def test_sources_are_what_they_say(source: str) -> None:
    """An average of each source, against plain numpy."""
    bars = CANDLES
    mean = {
        "hl2": (bars.high + bars.low) / 2,
        "hlc3": (bars.high + bars.low + bars.close) / 3,
        "ohlc4": (bars.open + bars.high + bars.low + bars.close) / 4,
        "hlcc4": (bars.high + bars.low + 2 * bars.close) / 4,
    }
    column = mean[source] if source in mean else getattr(bars, source)
    assert answers(bars, f"sma:5@{source}")[0][-1] == pytest.approx(column[-5:].mean(), rel=1e-12)


def test_two_sources_keep_their_order() -> None:
    """What is computed of two series takes the ones named, in the order named."""
    (ours,) = answers(CANDLES, "sub@close/open")
    np.testing.assert_array_equal(ours, CANDLES.close - CANDLES.open)
    equal(answers(CANDLES, "beta:7@close/volume"), [talib.BETA(CANDLES.close, CANDLES.volume, 7)])
    equal(answers(CANDLES, "correl"), [talib.CORREL(CANDLES.high, CANDLES.low, 30)])


def test_average_of_varying_length_follows_the_cycle() -> None:
    """MAVP's lengths are the dominant cycle's of the source."""
    prices = (CANDLES.high + CANDLES.low) / 2
    equal(answers(CANDLES, "mavp:5:40@hl2"), [LIBRARY.MAVP(prices, talib.HT_DCPERIOD(prices), 5, 40)])


def test_turns_are_told_when_they_are_confirmed() -> None:
    """A fractal stands at the candle that confirms it, not at the turn: nothing looks ahead."""
    high, _ = answers(CANDLES, "fractal:2:2")
    confirmed = [at for at in range(4, len(CANDLES)) if high[at] == 100]
    assert confirmed
    assert all(CANDLES.high[at - 2] == CANDLES.high[at - 4 : at + 1].max() for at in confirmed)


@pytest.mark.parametrize("name", CATALOGUE)
def test_nothing_looks_ahead(name: str) -> None:
    """A value does not change when later candles come."""
    for whole, before in zip(answers(CANDLES, name), answers(part(CANDLES, slice(700)), name), strict=True):
        np.testing.assert_allclose(whole[:700], before, rtol=1e-9)


WARM = [name for name in CATALOGUE if name not in ("acos", "asin", "pivots", "vwap")]
"""Those whose first value is so many candles away: not of the calendar, and of prices over 1."""


@pytest.mark.parametrize("length", [20, 40, 64, 1000])
@pytest.mark.parametrize("name", WARM)
def test_warm_up_is_null_and_no_longer(name: str, length: int) -> None:
    """Before the warm-up there is nothing, at its end there is a number in each output, however few candles."""
    (question,) = parse_names(name, max_names=1)
    assert question.warm_up is not None
    for array in answers(part(CANDLES, slice(length)), name):
        assert len(array) == length
        assert np.isnan(array[: question.warm_up]).all() or name == "ichimoku"
        assert np.isfinite(array[question.warm_up :][:1]).all()


def usages(name: str) -> list[str]:
    """The name with the least and with the most of each of its parameters."""
    parameters = CATALOGUE[name].parameters
    least, most = ([(p.name, getattr(p, end)) for p in parameters] for end in ("lowest", "highest"))
    return [":".join((name, *(f"{key}={value:.12g}" for key, value in ends))) for ends in (least, most)]


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("length", [20, 1000])
def test_ends_of_every_range_can_be_computed(name: str, length: int) -> None:
    """The least and the most of every parameter give an answer, over few candles and over many."""
    for text in usages(name):
        compute(part(CANDLES, slice(length)), parse_names(text, max_names=1)).at(-1)


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name.upper() in SAME])
def test_ranges_begin_where_talibs_do(name: str) -> None:
    """One under the least of a period is refused by TA-Lib itself."""
    info = DESCRIBED.Function(name.upper()).info["parameters"]
    periods = [key for key, value in info.items() if isinstance(value, int) and not key.endswith("matype")]
    ours = [parameter for parameter in CATALOGUE[name].parameters if parameter.is_integer and not parameter.words]
    for key, parameter in zip(periods, ours, strict=True):
        described = DESCRIBED.Function(name.upper())
        described.parameters = {key: int(parameter.lowest) - 1}
        assert described.lookback < 0
        described.parameters = {key: int(parameter.lowest)}
        assert described.lookback >= 0


def test_candle_patterns_are_numbers() -> None:
    """A pattern is 100, −100 or 0 (200 where it is confirmed), and null before it can be seen."""
    for function in (name for name in FUNCTIONS if name.startswith("CDL")):
        (array,) = answers(CANDLES, function.lower())
        assert set(array[np.isfinite(array)]) <= {-200.0, -100.0, -80.0, 0.0, 80.0, 100.0, 200.0}, function
    assert compute(CANDLES, parse_names("cdlengulfing", max_names=1)).at(0) == {"cdlengulfing": None}


def test_talibs_own_settings_are_untouched() -> None:
    """The process's settings stand as they are delivered."""
    assert LIBRARY.get_unstable_period("RSI") == LIBRARY.get_unstable_period("EMA") == 0
    assert LIBRARY.get_compatibility() == 0
