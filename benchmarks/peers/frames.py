"""The classic set, two names and everything there is, by pandas-ta-classic: as its documentation has it."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pandas_ta_classic as ta

warnings.filterwarnings("ignore")

COLUMNS = ("open_time_ms", "open", "high", "low", "close", "volume", "turnover")

Answer = dict[str, float | None]


def framed(rows: Sequence[Sequence[str]]) -> pd.DataFrame:
    """Klines as the exchange sends them, oldest first, as a frame of numbers."""
    return pd.DataFrame(rows, columns=COLUMNS).astype(float)


def classic(frame: pd.DataFrame, talib: bool) -> Answer:
    """The newest values of the gateway's classic set."""
    high, low, close = frame["high"], frame["low"], frame["close"]
    columns = {
        **{f"sma{length}": ta.sma(close, length=length, talib=talib) for length in (20, 50, 200)},
        **{f"ema{length}": ta.ema(close, length=length, talib=talib) for length in (20, 200)},
        "rsi14": ta.rsi(close, length=14, talib=talib),
        "atr14": ta.atr(high, low, close, length=14, talib=talib),
        "obv": ta.obv(close, frame["volume"], talib=talib),
    }
    tables = (
        ta.macd(close, fast=12, slow=26, signal=9, talib=talib),
        ta.bbands(close, length=20, std=2, talib=talib),
        ta.adx(high, low, close, length=14, talib=talib),
    )
    columns.update((str(name), column) for table in tables for name, column in table.items())
    return {name: newest(column) for name, column in columns.items()}


def some(frame: pd.DataFrame, talib: bool, length: int = 12, slow: int = 26) -> Answer:
    """RSI and MACD."""
    close = frame["close"]
    columns: dict[str, Any] = {"rsi": ta.rsi(close, length=length, talib=talib)}
    columns.update(ta.macd(close, fast=length, slow=slow, signal=9, talib=talib).items())
    return {str(name): newest(column) for name, column in columns.items()}


def all_names(frame: pd.DataFrame) -> list[str]:
    """What it can compute of such a frame with its defaults."""
    indexed = frame.set_index(pd.to_datetime(frame["open_time_ms"], unit="ms"))
    return [name for name in indexed.ta.indicators(as_list=True) if _works(indexed, name)]


def _works(frame: pd.DataFrame, name: str) -> bool:
    try:
        getattr(frame.ta, name)(append=False)
    except Exception:  # noqa: BLE001  # each of them raises something else on what it does not like
        return False
    return True


def everything(frame: pd.DataFrame, names: Sequence[str]) -> Answer:
    """The newest value of each column of `names`."""
    answer: Answer = {}
    indexed = frame.set_index(pd.to_datetime(frame["open_time_ms"], unit="ms"))
    for name in names:
        computed = getattr(indexed.ta, name)(append=False)
        table = computed.to_frame() if isinstance(computed, pd.Series) else computed
        if isinstance(table, pd.DataFrame):
            answer.update((str(title), newest(column)) for title, column in table.items())
    return answer


def newest(column: "pd.Series[Any]") -> float | None:
    """Its last value, None where that is no number."""
    value = column.iloc[-1]
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
