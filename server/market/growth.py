"""Growth: what one push of a stream makes of the candles in hand, without asking for anything."""

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from ..models import CandlePush, Candles
from .candles import closes_at_ms


class DoesNotFollow(Exception):
    """A push does not continue the candles in hand: something between them is not known, or one of the two is wrong."""


def grown(held: Candles, push: CandlePush, interval: str) -> Candles:
    """`held` with the candle of `push`; the very same object where that says nothing new, never an array of it changed.

    A push replaces the candle that is forming, and begins the next one only after one that the exchange has called
    closed. Raises DoesNotFollow for everything else. About 4 µs at 1,000 candles, 5 at 5,000;
    13 and 16 where one begins.
    """
    if not len(held):
        raise DoesNotFollow("there are no candles to continue")
    last_open_ms, open_time_ms = int(held.open_times_ms[-1]), int(push.row[0])
    if open_time_ms == last_open_ms:
        return _with_last(held, push)
    if open_time_ms < last_open_ms:
        return _known(held, push, 3)
    if not held.last_closed or open_time_ms != closes_at_ms(last_open_ms, interval):
        raise DoesNotFollow("what came before the candle is not known to its end")
    return _with_next(held, push)


def _known(held: Candles, push: CandlePush, newest: int) -> Candles:
    """`held` if `push` only repeats what is closed among so many of the newest: a late or repeated word about it."""
    if push.row not in held.rows[-newest:]:
        raise DoesNotFollow("a closed candle is told of anew, and differently")
    return held


def _with_last(held: Candles, push: CandlePush) -> Candles:
    if held.last_closed:
        return _known(held, push, 1)
    if push.row == held.rows[-1]:
        return replace(held, last_closed=True, computed={}) if push.is_closed else held
    _, opened, high, low, close, volume, _ = push.row
    return Candles(
        rows=held.rows.with_newest(push.row),
        open_times_ms=held.open_times_ms,
        open=_ending(held.open, opened),
        high=_ending(held.high, high),
        low=_ending(held.low, low),
        close=_ending(held.close, close),
        volume=_ending(held.volume, volume),
        last_closed=push.is_closed,
        depth=held.depth,
        is_from_start=held.is_from_start,
    )


def _ending(column: NDArray[np.float64], text: str) -> NDArray[np.float64]:
    """The column with another last value: itself where that is the same, for nobody ever writes into one."""
    value = float(text)
    if column[-1] == value:
        return column
    column = column.copy()
    column[-1] = value
    return column


def _with_next(held: Candles, push: CandlePush) -> Candles:
    start = max(0, len(held) + 1 - held.depth)
    open_time, opened, high, low, close, volume, _ = push.row
    return Candles(
        rows=held.rows.plus((push.row,)).last(held.depth),
        open_times_ms=np.append(held.open_times_ms[start:], np.int64(open_time)),
        open=np.append(held.open[start:], float(opened)),
        high=np.append(held.high[start:], float(high)),
        low=np.append(held.low[start:], float(low)),
        close=np.append(held.close[start:], float(close)),
        volume=np.append(held.volume[start:], float(volume)),
        last_closed=push.is_closed,
        depth=held.depth,
        is_from_start=held.is_from_start and not start,
    )
