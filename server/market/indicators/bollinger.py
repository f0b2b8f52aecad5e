"""Bollinger Bands with two outputs more than TA-Lib's: how wide they are, and where the price stands in them."""

import msgspec
import numpy as np

from .indicator import Indicator, Values
from .prices import Array, Prices


def with_width(bands: Indicator) -> Indicator:
    """TA-Lib's bands, and their width in percent of the middle and the price's place between them, 0 to 1."""

    def compute(prices: Prices, sources: tuple[Array, ...], values: Values) -> tuple[Array, ...]:
        upper, middle, lower = bands.function(prices, sources, values)
        with np.errstate(divide="ignore", invalid="ignore"):
            span = upper - lower
            width = 100 * span / middle
            percent = np.where(span > 0, (sources[0] - lower) / span, np.nan)
        return upper, middle, lower, width, percent

    return msgspec.structs.replace(bands, function=compute, outputs=(*bands.outputs, "width", "percent"))
