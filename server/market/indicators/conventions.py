"""Conventions: how the usual indicators are defined here, and where TradingView's built-in ones differ."""

NOTES: dict[str, str] = {
    "rsi": "Wilder's smoothing of gains and losses, which begins with a simple average, as TradingView's. Where the "
    "price has not moved at all it is 0 (TradingView: 100).",
    "ema": "Weight 2 / (period + 1). It begins with a simple average; by its reference, TradingView's begins with "
    "the first price, which fades. The default is 20, TA-Lib's is 30.",
    "sma": "As TradingView's; the default is 20, TA-Lib's is 30.",
    "bbands": "The deviation is over the population (divided by n), as TradingView's. width is 100 · (upper − lower) / "
    "middle, percent is (price − lower) / (upper − lower), null where the bands meet.",
    "macd": "Both averages begin at the same candle, the slow one's first, with simple averages; TradingView's begin "
    "with the first price, which fades. histogram is macd − signal. Where slow is under fast the two are "
    "exchanged.",
    "atr": "Wilder's smoothing of the true range from the second candle on. TradingView counts the first candle's "
    "range too, which fades.",
    "adx": "Wilder's smoothing of the movement index of Wilder's sums. TradingView's averages begin with one candle "
    "more, which fades.",
    "plus_di": "From Wilder's sums. TradingView's averages have the same ratio and begin with one candle more, which "
    "fades.",
    "minus_di": "From Wilder's sums. TradingView's averages have the same ratio and begin with one candle more, which "
    "fades.",
    "stoch": "Defaults are TA-Lib's, 5:3:3; TradingView shows 14:1:3. Where high and low are the same all over the "
    "window, k is 0.",
    "stochrsi": "k is not smoothed and the defaults are TA-Lib's, 14:5:3. TradingView looks 14 candles back and "
    "smooths k over 3: its k is the d of stochrsi:14:14:3.",
    "mfi": "Money flow of typical prices; as TradingView's. Candles whose typical price did not change count for "
    "neither side.",
    "cci": "Over typical prices with Lambert's 0.015; the default is TA-Lib's 14, TradingView shows 20.",
    "roc": "In percent; the default is TA-Lib's 10, TradingView shows 9.",
    "sar": "It begins by the directional movement of the first two candles; TradingView's by their closes. They "
    "agree after the first reversals.",
    "tema": "3 · (e1 − e2) + e3, averages one of the other that begin with simple ones. TradingView's begin with the "
    "first price, which fades.",
    "dema": "2 · e1 − e2, averages one of the other that begin with simple ones. TradingView's begin with the first "
    "price, which fades.",
    "wma": "Linear weights; as TradingView's.",
    "hma": "wma over √period of 2 · wma(period / 2) − wma(period); half and root are rounded down, as TradingView's.",
    "t3": "Tillson's, of six averages one of the other that begin with simple ones. TradingView has none of its own.",
    "cmf": "As TradingView's; a candle without range counts with its volume and no flow.",
    "obv": "Begins with the first candle's volume; TradingView begins with 0 at the first candle of its history. "
    "Only its changes mean something.",
    "vwap": "Of the typical price, anchored at the day in UTC, as TradingView's Session for a market that never "
    "closes. Null in the first session held unless its first candle is there. anchor=start is TA-Lib's VWAP.",
    "supertrend": "Bands around hl2 by Wilder's average true range (TradingView's default too); trend is 1 rising, −1 "
    "falling. TradingView's direction has the opposite sign.",
    "ichimoku": "Each line as it stands at its candle, computed from that candle and earlier ones only: the spans are "
    "those of displacement − 1 candles ago, as TradingView draws them. lagging is the close, to be drawn "
    "displacement − 1 candles back. A line is there as soon as its own candles are; warm_up is that of the "
    "last one.",
    "kc": "Exponential average of the typical price, bands by Wilder's average true range of another length (10), "
    "both from the same candle on. TradingView averages the close.",
    "donchian": "Highest high and lowest low, this candle counted, as TradingView's.",
    "willr": "−100 to 0; as TradingView's. Where high and low are the same all over the window it is 0.",
    "ao": "sma 5 − sma 34 of hl2; as TradingView's.",
    "aroon": "100 · (period − candles since the extreme) / period, over period + 1 candles; the latest of equal "
    "extremes counts.",
    "pivots": "From the day before in UTC, held for the day; null where that day is not there whole, and for candles "
    "longer than a day. classic is TradingView's Classic (its default, Traditional, has other third and "
    "fourth levels). fibonacci has no fourth levels. woodie counts the close of the day before twice; "
    "TradingView the day's open.",
    "mavp": "The length of each candle's average is the dominant cycle's period (ht_dcperiod) of the source, kept "
    "between shortest and longest.",
    "add": "Of two columns of the candles, high and low unless two others are named: add@open/close.",
    "sub": "Of two columns of the candles, high and low unless two others are named: sub@close/open.",
    "mult": "Of two columns of the candles, high and low unless two others are named: mult@close/volume.",
    "div": "Of two columns of the candles, high and low unless two others are named: div@close/open.",
    "beta": "Between the changes of two columns, high and low unless two others are named: beta:5@close/volume.",
    "correl": "Between two columns, high and low unless two others are named: correl:30@close/volume.",
    "maxindex": "The place among the candles held, 0 for the oldest.",
    "minindex": "The place among the candles held, 0 for the oldest.",
    "minmaxindex": "Places among the candles held, 0 for the oldest.",
    "fractal": "100 where a turn is confirmed, right candles after it; else 0.",
    "ha": "Begins anew with the first candle held; chart=heikinashi computes any indicator from these.",
    "kama": "Its settling holds where the price only goes to and fro; mostly it takes a sixth of that.",
}
"""By indicator; those that are not here are TA-Lib's without a word to add."""
