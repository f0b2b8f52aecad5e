"""Spellings: what TA-Lib's parameters and outputs are called here, and what the parameters mean."""

PARAMETERS: dict[str, tuple[str, str]] = {
    "timeperiod": ("period", "Candles that are looked back"),
    "timeperiod1": ("first", "Candles of the shortest part"),
    "timeperiod2": ("second", "Candles of the middle part"),
    "timeperiod3": ("third", "Candles of the longest part"),
    "fastperiod": ("fast", "Candles of the fast average"),
    "slowperiod": ("slow", "Candles of the slow average"),
    "signalperiod": ("signal", "Candles of the signal line"),
    "firstperiod": ("first", "Candles of the first smoothing"),
    "secondperiod": ("second", "Candles of the smoothing of the first"),
    "fastk_period": ("k", "Candles whose range the line k is placed in"),
    "slowk_period": ("smooth", "Candles that the line k is smoothed over"),
    "slowd_period": ("d", "Candles of the line d, an average of k"),
    "fastd_period": ("d", "Candles of the line d, an average of k"),
    "atrperiod": ("atr", "Candles of the average true range"),
    "minperiod": ("shortest", "Fewest candles of the average"),
    "maxperiod": ("longest", "Most candles of the average"),
    "wmaperiod": ("smooth", "Candles of the weighted average over both rates"),
    "roc1period": ("first", "Candles that the first rate of change reaches back"),
    "roc2period": ("second", "Candles that the second rate of change reaches back"),
    "rocperiod": ("change", "Candles that the rate of change reaches back"),
    "stddevperiod": ("deviation", "Candles of the deviation"),
    "leftbars": ("left", "Candles before a turn that are less extreme"),
    "rightbars": ("right", "Candles after a turn that are less extreme; it is told that much later"),
    "nbdevup": ("up", "Deviations that the upper band is away"),
    "nbdevdn": ("down", "Deviations that the lower band is away"),
    "nbdev": ("deviations", "How many deviations are given"),
    "multiplier": ("multiplier", "Average true ranges that the line is away"),
    "vfactor": ("factor", "Volume factor: 0 is plain, 1 is DEMA thrice"),
    "fastlimit": ("fast_limit", "Upper limit of the weight"),
    "slowlimit": ("slow_limit", "Lower limit of the weight"),
    "percentile": ("percentile", "Percentile in the window"),
    "penetration": ("penetration", "How far one candle reaches into the body of another, as a part of it"),
    "acceleration": ("acceleration", "Step of the acceleration factor, and its beginning"),
    "maximum": ("maximum", "Most that the acceleration factor grows to"),
    "startvalue": ("start", "Where it starts: over 0 long, under 0 short, 0 by the first candles"),
    "offsetonreverse": ("offset", "Part that the stop is moved away by at a reversal"),
    "accelerationinitlong": ("long_initial", "First acceleration factor, long"),
    "accelerationlong": ("long_step", "Step of the acceleration factor, long"),
    "accelerationmaxlong": ("long_maximum", "Most of the acceleration factor, long"),
    "accelerationinitshort": ("short_initial", "First acceleration factor, short"),
    "accelerationshort": ("short_step", "Step of the acceleration factor, short"),
    "accelerationmaxshort": ("short_maximum", "Most of the acceleration factor, short"),
    "matype": ("ma", "Kind of average"),
    "fastmatype": ("fast_ma", "Kind of the fast average"),
    "slowmatype": ("slow_ma", "Kind of the slow average"),
    "signalmatype": ("signal_ma", "Kind of average of the signal line"),
    "slowk_matype": ("smooth_ma", "Kind of average that smooths the line k"),
    "slowd_matype": ("d_ma", "Kind of average of the line d"),
    "fastd_matype": ("d_ma", "Kind of average of the line d"),
}

OF_ONE_FUNCTION: dict[tuple[str, str], tuple[str, str]] = {
    ("KC", "nbdev"): ("multiplier", "Average true ranges that each band is away"),
    ("SMI", "slowperiod"): ("slow", "Candles of the first smoothing"),
    ("SMI", "fastperiod"): ("fast", "Candles of the smoothing of the first"),
    ("MASSI", "fastperiod"): ("fast", "Candles of both averages of the range"),
    ("MASSI", "slowperiod"): ("slow", "Candles that the ratio is summed over"),
}
"""Parameters that mean something else in one function than elsewhere."""

DECIMALS: dict[str, tuple[float, float]] = {
    "nbdevup": (0, 100),
    "nbdevdn": (0, 100),
    "nbdev": (0, 100),
    "multiplier": (0, 100),
    "vfactor": (0, 1),
    "fastlimit": (0.01, 0.99),
    "slowlimit": (0.01, 0.99),
    "percentile": (0, 100),
    "penetration": (0, 1),
    "acceleration": (0, 1),
    "maximum": (0, 1),
    "startvalue": (-1e9, 1e9),
    "offsetonreverse": (0, 1),
    "accelerationinitlong": (0, 1),
    "accelerationlong": (0, 1),
    "accelerationmaxlong": (0, 1),
    "accelerationinitshort": (0, 1),
    "accelerationshort": (0, 1),
    "accelerationmaxshort": (0, 1),
}
"""Ranges of the parameters that are not whole, within TA-Lib's own: those often end at 3e37, which means nothing."""

DEFAULTS: dict[tuple[str, str], int] = {("SMA", "timeperiod"): 20, ("EMA", "timeperiod"): 20}
"""Defaults that are not TA-Lib's."""

OUTPUTS: dict[str, str] = {
    "macdsignal": "signal",
    "macdhist": "histogram",
    "smisignal": "signal",
    "slowk": "k",
    "slowd": "d",
    "fastk": "k",
    "fastd": "d",
    "aroondown": "down",
    "aroonup": "up",
    "upperband": "upper",
    "middleband": "middle",
    "lowerband": "lower",
    "minidx": "min_index",
    "maxidx": "max_index",
    "bullpower": "bull",
    "bearpower": "bear",
    "swinghigh": "high",
    "swinglow": "low",
    "plusvi": "plus",
    "minusvi": "minus",
    "leadsine": "lead",
    "haopen": "open",
    "hahigh": "high",
    "halow": "low",
    "haclose": "close",
}


def parameter(function: str, name: str) -> tuple[str, str]:
    """What TA-Lib's parameter `name` of `function` is called here, and what it means."""
    return OF_ONE_FUNCTION.get((function, name)) or PARAMETERS[name]


def outputs(function: str, names: list[str]) -> tuple[str, ...]:
    """What the outputs of `function` are called: a single one is called like the function."""
    return (function.lower(),) if len(names) == 1 else tuple(OUTPUTS.get(name, name) for name in names)
