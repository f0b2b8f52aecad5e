"""Ichimoku Kinko Hyo: five lines, each as it stands at its candle, none of them from a candle that is still to come."""

import numpy as np
import talib

from .conventions import NOTES
from .indicator import Indicator, Values
from .parameters import period
from .prices import Array, Prices


def _lines(prices: Prices, _: tuple[Array, ...], values: Values) -> tuple[Array, ...]:
    conversion, base, span_b = (talib.MIDPRICE(prices.high, prices.low, int(value)) for value in values[:3])
    shift = int(values[3]) - 1
    span_a = (conversion + base) / 2
    return conversion, base, _later(span_a, shift), _later(span_b, shift), prices.close


def _later(values: Array, candles: int) -> Array:
    """`values`, each of them so many candles later."""
    shifted = np.full(len(values), np.nan)
    shifted[candles:] = values[: max(0, len(values) - candles)]
    return shifted


ICHIMOKU = Indicator(
    name="ichimoku",
    title="Ichimoku Kinko Hyo",
    group="Overlap Studies",
    parameters=(
        period(9, name="conversion", title="Candles of the conversion line (tenkan)"),
        period(26, name="base", title="Candles of the base line (kijun)"),
        period(52, name="span", title="Candles of the second leading span (senkou B)"),
        period(26, name="displacement", title="Candles that the spans are drawn ahead, this one counted", lowest=1),
    ),
    outputs=("conversion", "base", "span_a", "span_b", "lagging"),
    sources=(),
    inputs=("high", "low", "close"),
    function=_lines,
    warm_up=lambda values: int(max(values[:3]) + values[3]) - 2,
    note=NOTES["ichimoku"],
)
