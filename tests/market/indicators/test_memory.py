"""How far back each indicator looks: what is promised of warm-up and settling holds on invented markets."""

import math

import numpy as np
import pytest

from server.market.indicators import CATALOGUE, Question, parse_names
from server.market.indicators.memory import PRECISION, Fading, Memory, beside, cascade, ema, fading_candles, wilder
from tests.market.indicators.markets import answers, market, part, scale

OTHERS = (
    "rsi:2", "rsi:50", "ema:200", "macd:5:35:5", "bbands:20:2:2:ema", "bbands:10:2:2:kama", "stoch:14:3:3:rma:ema",
    "stochrsi:14:14:3:ema", "apo:12:26:dema", "ppo:5:20:tema", "pvo:12:26:t3", "ma:20:mama", "ma:20:zlema", "ma:9:hma",
    "macdext:12:26:9:ema:dema:rma", "mama:0.5:0.1", "adx:5", "kc:20:30", "smi:13:10:25:9", "mavp:2:30:ema", "t3:20:0.2",
    "trix:10", "atr:1", "rsi:14@hl2", "kdj:9:3:3:sma:sma", "stochf:5:3:ema", "tema:40",
)  # fmt: skip

LENGTH = 9000


def asked(name: str) -> Question:
    """The question that `name` stands for."""
    (question,) = parse_names(name, max_names=1)
    return question


SETTLING = [name for name in (*CATALOGUE, *OTHERS) if asked(name).settling is not None and name not in ("acos", "asin")]
UNSETTLED = [name for name in CATALOGUE if asked(name).settling is None]


def distance(name: str, candles: int, seed: int) -> float:
    """How far the last value is off if there are only so many candles before it, as a part of the largest value."""
    whole = market(LENGTH, seed=seed)
    pairs = zip(answers(whole, name), answers(part(whole, slice(LENGTH - 1 - candles, None)), name), strict=True)
    return max(float(abs(long[-1] - short[-1])) / scale(long) for long, short in pairs)


@pytest.mark.parametrize("seed", [5, 6])
@pytest.mark.parametrize("name", SETTLING)
def test_settled_value_does_not_know_its_start(name: str, seed: int) -> None:
    """With as many candles before it as its settling says, a value is the same as with thousands, to 1e-9."""
    settling = asked(name).settling
    assert settling is not None
    assert settling < LENGTH
    assert distance(name, settling, seed) <= PRECISION


@pytest.mark.parametrize("name", [name for name in SETTLING if asked(name).indicator.memory is Memory.FADING])
def test_settling_is_not_idle(name: str) -> None:
    """Where the start is said to fade it does tell after the warm-up alone, and nobody waits twenty times too long."""
    question = asked(name)
    if question.describe().memory == "window":
        assert question.settling == question.warm_up
        return
    assert question.settling is not None
    assert question.warm_up is not None
    if name != "ht_trendmode":  # of zeros and ones, which may agree by chance
        assert max(distance(name, question.warm_up, seed) for seed in range(6)) > PRECISION
    if "kama" not in name:
        extra = (question.settling - question.warm_up) // 20
        assert max(distance(name, question.warm_up + extra, seed) for seed in range(6)) > 0


@pytest.mark.parametrize("name", [name for name in SETTLING if asked(name).describe().memory == "window"])
def test_window_holds_at_every_place(name: str) -> None:
    """What looks at a window gives the same at a hundred places with just that window."""
    whole, warm_up = market(3000, seed=9), asked(name).warm_up
    assert warm_up is not None
    long = answers(whole, name)
    for at in range(1000, 3000, 20):
        short = answers(part(whole, slice(at - warm_up, at + 1)), name)
        for one, other in zip(long, short, strict=True):
            assert abs(one[at] - other[-1]) <= PRECISION * scale(one), at


@pytest.mark.parametrize("name", UNSETTLED)
def test_what_never_settles_is_said(name: str) -> None:
    """What no number of candles settles is a path, a session or everything since the first candle."""
    question = asked(name)
    assert question.indicator.memory in (Memory.PATH, Memory.SESSION, Memory.WHOLE)
    if question.indicator.memory is Memory.WHOLE:
        assert max(distance(name, 500, seed) for seed in range(6)) > PRECISION


@pytest.mark.parametrize(("weight", "stages"), [(0.5, 1), (0.1, 1), (2 / 21, 3), (1 / 14, 2), (0.004, 6), (1.0, 3)])
def test_fading_is_counted_to_the_candle(weight: float, stages: int) -> None:
    """The start's weight behind so many averages, stepped through one by one, is under 1e-11 then and not before."""
    left, candles = [1.0] * stages, 0
    while left[-1] > 1e-11 and weight < 1:
        for stage in reversed(range(stages)):
            left[stage] = left[stage] * (1 - weight) + (left[stage - 1] * weight if stage else 0)
        candles += 1
    assert math.isclose(fading_candles(weight, stages), candles, abs_tol=1)


def test_smoothings_combine() -> None:
    """One of the other is slower than both; beside each other the slower one counts; none of them is none."""
    assert cascade(ema(9), wilder(9)) == Fading(1 / 9, 2)
    assert beside(ema(12), ema(26)) == ema(26)
    assert cascade(None, ema(3)) == ema(3)
    assert cascade(None, None) is None
    assert beside(None) is None


def test_heikin_ashi_forgets_its_start() -> None:
    """After 37 candles, as it says, the chart no longer knows where it began."""
    whole = market(400)
    for long, short in zip(answers(whole, "ha"), answers(part(whole, slice(400 - 1 - 37, None)), "ha"), strict=True):
        np.testing.assert_allclose(short[-1], long[-1], rtol=PRECISION)
