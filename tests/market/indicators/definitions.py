"""The usual indicators, written down once more from their definitions: plain numpy, candle by candle, no TA-Lib."""

from collections.abc import Callable

import numpy as np

from server.models import Candles
from tests.market.indicators.markets import Array

Definition = Callable[[Candles], tuple[Array, ...]]


def rolling(values: Array, length: int, function: Callable[[Array], float]) -> Array:
    """`function` of each window that is all numbers."""
    answer = np.full(len(values), np.nan)
    for at in range(length - 1, len(values)):
        window = values[at + 1 - length : at + 1]
        if np.isfinite(window).all():
            answer[at] = function(window)
    return answer


def sma(values: Array, length: int) -> Array:
    return rolling(values, length, lambda window: float(window.mean()))


def wma(values: Array, length: int) -> Array:
    weights = np.arange(1, length + 1)
    return rolling(values, length, lambda window: float(window @ weights / weights.sum()))


def smoothed(values: Array, length: int, weight: float) -> Array:
    """Each value moves the average by its weight; the first is the mean of the first `length` values there are."""
    answer = np.full(len(values), np.nan)
    first = int(np.argmax(np.isfinite(values)))
    begin = first + length - 1
    answer[begin] = values[first : begin + 1].mean()
    for at in range(begin + 1, len(values)):
        answer[at] = answer[at - 1] + weight * (values[at] - answer[at - 1])
    return answer


def ema(values: Array, length: int) -> Array:
    return smoothed(values, length, 2 / (length + 1))


def rma(values: Array, length: int) -> Array:
    return smoothed(values, length, 1 / length)


def highest(values: Array, length: int) -> Array:
    return rolling(values, length, lambda window: float(window.max()))


def lowest(values: Array, length: int) -> Array:
    return rolling(values, length, lambda window: float(window.min()))


def changes(values: Array) -> Array:
    """From one candle to the next; nothing for the first."""
    return np.concatenate(([np.nan], np.diff(values)))


def typical(bars: Candles) -> Array:
    return (bars.high + bars.low + bars.close) / 3


def true_range(bars: Candles) -> Array:
    before = np.concatenate(([np.nan], bars.close[:-1]))
    return np.maximum(bars.high, before) - np.minimum(bars.low, before)


def rsi(values: Array, length: int = 14) -> Array:
    moved = changes(values)
    gains, losses = (rma(np.where(np.isnan(moved), np.nan, part), length) for part in (moved.clip(0), (-moved).clip(0)))
    return 100 * gains / (gains + losses)


def macd(values: Array) -> tuple[Array, ...]:
    fast = np.concatenate((np.full(14, np.nan), ema(values[14:], 12)))  # begins where the slow one does
    line = fast - ema(values, 26)
    signal = ema(line, 9)
    return line, signal, line - signal


def bands(values: Array) -> tuple[Array, ...]:
    middle = sma(values, 20)
    deviation = rolling(values, 20, lambda window: float(np.sqrt(((window - window.mean()) ** 2).mean())))
    upper, lower = middle + 2 * deviation, middle - 2 * deviation
    return upper, middle, lower, 100 * (upper - lower) / middle, (values - lower) / (upper - lower)


def directional(bars: Candles, length: int = 14) -> tuple[Array, Array, Array]:
    """ADX, +DI and −DI: sums by Wilder, which begin with the first changes."""
    up, down = changes(bars.high), -changes(bars.low)
    plus, minus = np.where((up > down) & (up > 0), up, 0.0), np.where((down > up) & (down > 0), down, 0.0)
    sums = []
    for column in (plus, minus, true_range(bars)):
        total = np.full(len(column), np.nan)
        total[length - 1] = column[1:length].sum()
        for at in range(length, len(column)):
            total[at] = total[at - 1] - total[at - 1] / length + column[at]
        total[length - 1] = np.nan
        sums.append(total)
    plus_di, minus_di = 100 * sums[0] / sums[2], 100 * sums[1] / sums[2]
    return rma(100 * np.abs(plus_di - minus_di) / (plus_di + minus_di), length), plus_di, minus_di


def place(values: Array, high: Array, low: Array, length: int) -> Array:
    """Where each value stands between the lowest and the highest of its window, in percent."""
    bottom, top = lowest(low, length), highest(high, length)
    return 100 * (values - bottom) / (top - bottom)


def stochastic(bars: Candles) -> tuple[Array, ...]:
    k = sma(place(bars.close, bars.high, bars.low, 5), 3)
    return k, sma(k, 3)


def stochastic_rsi(bars: Candles) -> tuple[Array, ...]:
    line = rsi(bars.close)
    k = place(line, line, line, 5)
    return k, sma(k, 3)


def money_flow(bars: Candles, length: int = 14) -> Array:
    moved, flow = changes(typical(bars)), typical(bars) * bars.volume
    gains, losses = (
        rolling(np.where(np.isnan(moved), np.nan, flow * side), length, lambda window: float(window.sum()))
        for side in (moved > 0, moved < 0)
    )
    return 100 * gains / (gains + losses)


def cci(bars: Candles) -> Array:
    return rolling(
        typical(bars),
        14,
        lambda window: float((window[-1] - window.mean()) / (0.015 * np.abs(window - window.mean()).mean())),
    )


def parabolic(bars: Candles, step: float = 0.02, most: float = 0.2) -> Array:
    """Wilder's stop and reverse; the first two candles say which way it begins."""
    high, low = bars.high, bars.low
    up, down = high[1] - high[0], low[0] - low[1]
    is_long = not (down > 0 and down > up)
    stop, extreme = (low[0], high[1]) if is_long else (high[0], low[1])
    factor, answer = step, np.full(len(high), np.nan)
    for at in range(1, len(high)):
        side = slice(at - 1 if at > 1 else at, at + 1)
        if (low[at] <= stop) if is_long else (high[at] >= stop):
            is_long = not is_long
            stop = min(extreme, low[side].min()) if is_long else max(extreme, high[side].max())
            answer[at], factor, extreme = stop, step, high[at] if is_long else low[at]
        else:
            answer[at] = stop
            if (high[at] > extreme) if is_long else (low[at] < extreme):
                extreme, factor = high[at] if is_long else low[at], min(most, factor + step)
        stop += factor * (extreme - stop)
        stop = min(stop, low[side].min()) if is_long else max(stop, high[side].max())
    return answer


def tillson(values: Array, length: int = 5, factor: float = 0.7) -> Array:
    averages = [values]
    for _ in range(6):
        averages.append(ema(averages[-1], length))
    square, cube = factor**2, factor**3
    weights = (-cube, 3 * square + 3 * cube, -6 * square - 3 * factor - 3 * cube, 1 + 3 * factor + cube + 3 * square)
    return np.asarray(sum(weight * average for weight, average in zip(weights, averages[:2:-1], strict=True)))


def hull(values: Array, length: int = 20) -> Array:
    return wma(2 * wma(values, length // 2) - wma(values, length), int(np.sqrt(length)))


def chaikin(bars: Candles) -> Array:
    flow = bars.volume * (2 * bars.close - bars.low - bars.high) / (bars.high - bars.low)
    flows, volumes = (rolling(column, 20, lambda window: float(window.sum())) for column in (flow, bars.volume))
    return flows / volumes


def balance(bars: Candles) -> Array:
    return np.cumsum(np.concatenate((bars.volume[:1], np.sign(np.diff(bars.close)) * bars.volume[1:])))


def day_average(bars: Candles) -> Array:
    days = bars.open_times_ms // 86_400_000
    answer = np.full(len(bars), np.nan)
    for at in range(len(bars)):
        same = np.flatnonzero(days[: at + 1] == days[at])
        if bars.open_times_ms[same[0]] % 86_400_000 == 0:
            answer[at] = np.average(typical(bars)[same], weights=bars.volume[same])
    return answer


def supertrend(bars: Candles, length: int = 10, multiplier: float = 3.0) -> tuple[Array, Array]:
    """Each band only comes nearer until the price closes through the line."""
    middle, width = (bars.high + bars.low) / 2, multiplier * rma(true_range(bars), length)
    line, trend = np.full(len(bars), np.nan), np.full(len(bars), np.nan)
    upper, lower, rising = np.inf, -np.inf, 1.0
    for at in range(length, len(bars)):
        before = bars.close[at - 1]
        upper = min(upper, middle[at] + width[at]) if before <= upper else middle[at] + width[at]
        lower = max(lower, middle[at] - width[at]) if before >= lower else middle[at] - width[at]
        if bars.close[at] > upper:
            rising = 1.0
        elif bars.close[at] < lower:
            rising = -1.0
        line[at], trend[at] = (lower if rising > 0 else upper), rising
    return line, trend


def keltner(bars: Candles) -> tuple[Array, ...]:
    ranges = np.concatenate((np.full(10, np.nan), true_range(bars)[10:]))  # their average begins with the other one
    middle, width = ema(typical(bars), 20), 2 * rma(ranges, 10)
    return middle + width, middle, middle - width


def donchian(bars: Candles) -> tuple[Array, ...]:
    upper, lower = highest(bars.high, 20), lowest(bars.low, 20)
    return upper, (upper + lower) / 2, lower


def aroon(bars: Candles, length: int = 14) -> tuple[Array, ...]:
    def since(values: Array) -> Array:
        return rolling(
            values, length + 1, lambda window: 100 * int(np.flatnonzero(window == window.max())[-1]) / length
        )

    return since(-bars.low), since(bars.high)


def ichimoku(bars: Candles) -> tuple[Array, ...]:
    conversion, base, slow = ((highest(bars.high, n) + lowest(bars.low, n)) / 2 for n in (9, 26, 52))
    ahead = np.full(25, np.nan)
    span_a, span_b = (np.concatenate((ahead, span[:-25])) for span in ((conversion + base) / 2, slow))
    return conversion, base, span_a, span_b, bars.close


def awesome(bars: Candles) -> Array:
    middle = (bars.high + bars.low) / 2
    return sma(middle, 5) - sma(middle, 34)


def pivots(bars: Candles) -> tuple[Array, ...]:
    days = bars.open_times_ms // 86_400_000
    columns = np.full((9, len(bars)), np.nan)
    for at in range(len(bars)):
        before = np.flatnonzero(days == days[at] - 1)
        if len(before) == 6:
            high, low, close = bars.high[before].max(), bars.low[before].min(), bars.close[before[-1]]
            pivot = (high + low + close) / 3
            ups = [2 * pivot - low, *(pivot + times * (high - low) for times in (1, 2, 3))]
            downs = [2 * pivot - high, *(pivot - times * (high - low) for times in (1, 2, 3))]
            columns[:, at] = [pivot, *ups, *downs]
    return tuple(columns)


def dema(values: Array, length: int = 30) -> Array:
    once = ema(values, length)
    return 2 * once - ema(once, length)


def tema(values: Array, length: int = 30) -> Array:
    once = ema(values, length)
    twice = ema(once, length)
    return 3 * once - 3 * twice + ema(twice, length)


DEFINITIONS: dict[str, Definition] = {
    "rsi": lambda bars: (rsi(bars.close),),
    "ema": lambda bars: (ema(bars.close, 20),),
    "sma": lambda bars: (sma(bars.close, 20),),
    "bbands": lambda bars: bands(bars.close),
    "macd": lambda bars: macd(bars.close),
    "atr": lambda bars: (rma(true_range(bars), 14),),
    "adx": lambda bars: (directional(bars)[0],),
    "plus_di": lambda bars: (directional(bars)[1],),
    "minus_di": lambda bars: (directional(bars)[2],),
    "stoch": stochastic,
    "stochrsi": stochastic_rsi,
    "mfi": lambda bars: (money_flow(bars),),
    "cci": lambda bars: (cci(bars),),
    "roc": lambda bars: (np.concatenate((np.full(10, np.nan), 100 * (bars.close[10:] / bars.close[:-10] - 1))),),
    "sar": lambda bars: (parabolic(bars),),
    "tema": lambda bars: (tema(bars.close),),
    "dema": lambda bars: (dema(bars.close),),
    "wma": lambda bars: (wma(bars.close, 30),),
    "hma": lambda bars: (hull(bars.close),),
    "t3": lambda bars: (tillson(bars.close),),
    "cmf": lambda bars: (chaikin(bars),),
    "obv": lambda bars: (balance(bars),),
    "vwap": lambda bars: (day_average(bars),),
    "supertrend": supertrend,
    "ichimoku": ichimoku,
    "kc": keltner,
    "donchian": donchian,
    "willr": lambda bars: (place(bars.close, bars.high, bars.low, 14) - 100,),
    "ao": lambda bars: (awesome(bars),),
    "aroon": aroon,
    "pivots": pivots,
}
