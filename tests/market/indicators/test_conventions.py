"""Conventions: what the notes say of the beginning and of markets that do not move."""

import numpy as np
import pytest

from server.market.indicators import CATALOGUE
from server.market.indicators.conventions import NOTES
from tests.market.indicators.markets import MINUTE_MS, START_MS, answers, candles_of, market

FLAT = np.full(100, 50.0)
STILL = candles_of(START_MS + MINUTE_MS * np.arange(100), FLAT, FLAT, FLAT, FLAT, FLAT)


def test_notes_are_of_indicators() -> None:
    """No note is left over."""
    assert NOTES.keys() <= CATALOGUE.keys()
    assert {name: CATALOGUE[name].note for name in NOTES} == NOTES


@pytest.mark.parametrize(
    ("name", "expected"),
    [("rsi", [0]), ("stoch", [0, 0]), ("willr", [0]), ("cmf", [0]), ("mfi", [0]), ("aroon", [100, 100])],
)
def test_market_that_does_not_move(name: str, expected: list[float]) -> None:
    """Where nothing moves, the answer is the one that the note tells of."""
    assert [float(array[-1]) for array in answers(STILL, name)] == expected


def test_band_without_width_has_no_percent() -> None:
    """Where the bands meet, the place between them is nothing."""
    upper, middle, lower, width, percent = (array[-1] for array in answers(STILL, "bbands"))
    assert (upper, middle, lower, width) == (50, 50, 50, 0)
    assert np.isnan(percent)


def test_balance_begins_with_the_first_volume() -> None:
    """The first value of OBV is the first candle's volume."""
    bars = market(30)
    assert answers(bars, "obv")[0][0] == bars.volume[0]


@pytest.mark.parametrize(("drift", "trend"), [(0.01, 1.0), (-0.01, -1.0)])
def test_trend_has_the_sign_of_the_market(drift: float, trend: float) -> None:
    """Supertrend's trend is 1 where prices rise, and the line is under them; −1 and over them where they fall."""
    close = 100 * np.exp(drift * np.arange(100))
    bars = candles_of(START_MS + MINUTE_MS * np.arange(100), close, close * 1.001, close * 0.999, close, FLAT)
    line, direction = answers(bars, "supertrend")
    assert direction[-1] == trend
    assert np.sign(close[-1] - line[-1]) == trend


def test_exchanged_averages_are_put_right() -> None:
    """MACD with slow under fast is the same as the other way round."""
    bars = market(200)
    for one, other in zip(answers(bars, "macd:26:12:9"), answers(bars, "macd:12:26:9"), strict=True):
        np.testing.assert_array_equal(one, other)
