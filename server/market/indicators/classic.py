"""The classic set: what is answered without names, and under which keys."""

from .questions import question

NAMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("sma:20", ("sma20",)),
    ("sma:50", ("sma50",)),
    ("sma:200", ("sma200",)),
    ("ema:20", ("ema20",)),
    ("ema:200", ("ema200",)),
    ("rsi:14", ("rsi14",)),
    ("macd:12:26:9", ("macd", "macd_signal", "macd_histogram")),
    ("bbands:20:2:2:sma", ("bb_upper", "bb_middle", "bb_lower", "bb_width", "bb_percent")),
    ("atr:14", ("atr14",)),
    ("obv", ("obv",)),
    ("adx:14", ("adx14",)),
    ("plus_di:14", ("dmp14",)),
    ("minus_di:14", ("dmn14",)),
)

CLASSIC = tuple((question(name), keys) for name, keys in NAMES)
"""Each question of the set, and the keys of its outputs."""
