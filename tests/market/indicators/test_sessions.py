"""What follows the calendar: VWAP, pivot points, and Ichimoku's lines at their candles."""

import numpy as np
import pytest
import talib

from tests.market.indicators.definitions import typical
from tests.market.indicators.markets import MINUTE_MS, START_MS, answers, candles_of, market, part

HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
OUTPUTS = ("pivot", "r1", "r2", "r3", "r4", "s1", "s2", "s3", "s4")


def test_vwap_from_the_start_is_talibs() -> None:
    """With anchor=start it is TA-Lib's, over all candles."""
    bars = market(300)
    np.testing.assert_allclose(
        answers(bars, "vwap:start")[0], talib.VWAP(bars.high, bars.low, bars.close, bars.volume), rtol=1e-12
    )


@pytest.mark.parametrize(("anchor", "begins"), [("day", "2026-02-10"), ("week", "2026-02-09"), ("month", "2026-02-01")])
def test_vwap_begins_with_its_session(anchor: str, begins: str) -> None:
    """The last candle's average goes back to midnight, to Monday or to the first of the month, in UTC."""
    bars = market(24 * 40 + 12, step_ms=HOUR_MS)  # from January the first to noon of February the tenth, a Tuesday
    first = int(np.datetime64(begins, "ms").astype(np.int64))
    since = bars.open_times_ms >= first
    expected = np.average(typical(bars)[since], weights=bars.volume[since])
    assert answers(bars, f"vwap:{anchor}")[0][-1] == pytest.approx(expected, rel=1e-12)


def test_vwap_of_a_session_without_its_beginning_is_null() -> None:
    """The first day held has none unless its first candle is there; the next one has."""
    bars = part(market(60, step_ms=HOUR_MS), slice(1, None))
    (average,) = answers(bars, "vwap")
    assert np.isnan(average[:23]).all()
    assert np.isfinite(average[23:]).all()


def test_vwap_of_long_candles_is_each_ones_own() -> None:
    """Where a candle is a day or longer, its session is itself."""
    for step_ms in (DAY_MS, 7 * DAY_MS):
        bars = market(30, step_ms=step_ms)
        np.testing.assert_allclose(answers(bars, "vwap")[0], typical(bars), rtol=1e-12)


def test_vwap_takes_another_price() -> None:
    """Its source can be chosen."""
    bars = market(30, step_ms=DAY_MS)
    np.testing.assert_allclose(answers(bars, "vwap@close")[0], bars.close, rtol=1e-12)


def levels(kind: str) -> dict[str, float]:
    """The levels after a day with high 110, low 90 and close 105."""
    times = START_MS + 12 * HOUR_MS * np.arange(4)
    high, low, close = np.array([[108.0, 110, 107, 109], [95, 90, 103, 104], [101, 105, 106, 107]])
    columns = answers(candles_of(times, close, high, low, close, np.ones(4)), f"pivots:{kind}")
    for column in columns:
        assert np.isnan(column[:2]).all()
        np.testing.assert_array_equal(column[2], column[3])
    return {name: float(column[-1]) for name, column in zip(OUTPUTS, columns, strict=True)}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("classic", (305 / 3, 610 / 3 - 90, 305 / 3 + 20, 305 / 3 + 40, 305 / 3 + 60, 610 / 3 - 110, 305 / 3 - 20)),
        (
            "fibonacci",
            (305 / 3, 305 / 3 + 7.64, 305 / 3 + 12.36, 305 / 3 + 20, np.nan, 305 / 3 - 7.64, 305 / 3 - 12.36),
        ),
        ("camarilla", (305 / 3, 105 + 22 / 12, 105 + 22 / 6, 105 + 22 / 4, 105 + 11, 105 - 22 / 12, 105 - 22 / 6)),
        ("woodie", (102.5, 115.0, 122.5, 135.0, 155.0, 95.0, 82.5)),
    ],
)
def test_levels_of_each_kind(kind: str, expected: tuple[float, ...]) -> None:
    """Each kind by its formulas, worked out by hand."""
    assert list(levels(kind).values())[:7] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("kind", ["classic", "fibonacci", "camarilla", "woodie"])
def test_levels_stand_in_order(kind: str) -> None:
    """Resistances rise, supports fall, and the close lies between the first ones."""
    of = {name: level for name, level in levels(kind).items() if np.isfinite(level)}
    ups, downs = ([of[name] for name in OUTPUTS if name in of and name[0] == side] for side in "rs")
    assert ups == sorted(ups)
    assert downs == sorted(downs, reverse=True)
    assert downs[0] < 105 < ups[0]


@pytest.mark.parametrize("minutes", [15, 30, 60, 120, 240, 360, 720, 1440])
def test_pivots_on_every_interval_of_a_day(minutes: int) -> None:
    """From the second whole day on there are levels; a day that lacks its first candle gives none."""
    bars, a_day = market(400, step_ms=minutes * MINUTE_MS), 1440 // minutes
    pivot = answers(bars, "pivots")[0]
    assert np.isnan(pivot[:a_day]).all()
    assert np.isfinite(pivot[a_day:]).all()
    expected = (bars.high[:a_day].max() + bars.low[:a_day].min() + bars.close[a_day - 1]) / 3
    assert pivot[a_day] == pytest.approx(expected, rel=1e-12)
    if a_day > 1:
        later = answers(part(bars, slice(1, None)), "pivots")[0]
        assert np.isnan(later[: 2 * a_day - 1]).all()
        assert later[2 * a_day - 1] == pivot[2 * a_day]


def test_pivots_need_days() -> None:
    """Weeks and months have no day before."""
    for days in (7, 31):
        assert np.isnan(answers(market(40, step_ms=days * DAY_MS), "pivots")).all()


def test_gap_gives_no_levels() -> None:
    """Where the day before is missing, or lacks a candle, there is nothing to draw."""
    bars = market(24 * 6, step_ms=HOUR_MS)
    kept = np.delete(np.arange(len(bars)), [30, *range(72, 96)])
    holed = candles_of(
        bars.open_times_ms[kept],
        *(column[kept] for column in (bars.open, bars.high, bars.low, bars.close, bars.volume)),
    )
    days = (holed.open_times_ms - START_MS) // DAY_MS
    known = np.isfinite(answers(holed, "pivots")[0])
    assert [bool(known[days == day].all()) for day in (0, 1, 2, 4, 5)] == [False, True, False, False, True]
    assert not known[days == 2].any()
    assert not known[days == 4].any()


def test_each_line_of_ichimoku_begins_by_itself() -> None:
    """A line is there as soon as its own candles are; the warm-up is that of the last one."""
    first = [int(np.argmax(np.isfinite(line))) for line in answers(market(200), "ichimoku")]
    assert first == [8, 25, 50, 76, 0]
