"""CandleCache: the last 1,000 candles of each kline topic, of which only what is missing is asked for again."""

import datetime as dt
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from ..errors import BadAnswer
from ..models import INTERVALS_MS, CandleRow, Candles, Reading, Topic

DEPTH = 1000
SETTLING_MS = 1000
"""How long after its end a candle is still taken for forming: the answer may have been put together just before."""
OVERLAP = 3
"""Closed candles asked for again with the missing ones: where they contradict what is held, all is read anew."""

FetchKlines = Callable[[Topic, int], Awaitable[Reading[tuple[CandleRow, ...]]]]
Held = Callable[[Topic], Candles | None]


class CandleCache:
    """Makes readings of kline topics, each from what the reading before it held and the few rows missing since.

    It keeps no candles: `held` gives those in hand, which a stream may have made grow since the last call.
    """

    def __init__(self, fetch: FetchKlines, held: Held) -> None:
        self._fetch = fetch
        self._held = held

    async def fetch(self, topic: Topic) -> Reading[Candles]:
        """The last 1,000 candles of `topic`, the forming one among them. Raises what the call raises."""
        held = self._held(topic)
        limit = DEPTH if held is None else missing(held, topic.interval) + OVERLAP
        answer = await self._fetch(topic, min(limit, DEPTH))
        candles = extended(held, answer.value, topic.interval, answer.exchange_time_ms) if held is not None else None
        if candles is None and limit < DEPTH:
            answer = await self._fetch(topic, DEPTH)
        if candles is None:
            candles = assembled(answer.value, topic.interval, answer.exchange_time_ms)
            check(candles, held, topic.interval)
        return Reading(candles, answer.asked_at, answer.arrived_at, answer.exchange_time_ms)


def check(candles: Candles, held: Candles | None, interval: str) -> None:
    """Raise BadAnswer where candles are not of `interval`, or most of what is held has vanished from them."""
    steps = np.diff(candles.open_times_ms)
    if interval != "M" and len(steps) and int(steps.min()) != INTERVALS_MS[interval]:
        raise BadAnswer(f"the exchange's candles are not of the interval {interval}")
    if held is not None and len(candles) < len(held) / 2:
        raise BadAnswer(f"the exchange sent {len(candles)} candles where it had {len(held)}")


def missing(held: Candles, interval: str) -> int:
    """How many candles to ask for so that the newest one held is among them, as far as our clock can tell."""
    if not len(held):
        return DEPTH
    passed_ms = dt.datetime.now(dt.UTC).timestamp() * 1000 - int(held.open_times_ms[-1])
    return max(0, int(passed_ms // INTERVALS_MS[interval])) + 2


def closes_at_ms(open_time_ms: int, interval: str) -> int:
    """When the candle that opened at `open_time_ms` closes; months by the calendar, in UTC."""
    if interval != "M":
        return open_time_ms + INTERVALS_MS[interval]
    opened = dt.datetime.fromtimestamp(open_time_ms / 1000, dt.UTC)
    following = (opened.replace(day=1) + dt.timedelta(days=32)).replace(day=1)
    return int(following.timestamp() * 1000)


def assembled(rows: Sequence[CandleRow], interval: str, exchange_time_ms: int) -> Candles:
    """Candles from rows as sent, oldest first: at most the last 1,000."""
    rows = tuple(rows[-DEPTH:])
    columns = np.array([[float(value) for value in row[:6]] for row in rows], dtype=np.float64).reshape(-1, 6)
    _, opens, highs, lows, closes, volumes = (np.ascontiguousarray(column) for column in columns.T)
    return Candles(
        rows=rows,
        open_times_ms=np.array([int(row[0]) for row in rows], dtype=np.int64),
        open=opens,
        high=highs,
        low=lows,
        close=closes,
        volume=volumes,
        last_closed=bool(rows) and exchange_time_ms >= closes_at_ms(int(rows[-1][0]), interval) + SETTLING_MS,
    )


def extended(held: Candles, fresh: Sequence[CandleRow], interval: str, exchange_time_ms: int) -> Candles | None:
    """`held` with `fresh` rows over and after its end; None where they contradict what is held or leave a gap.

    The very same object where nothing changed, so that what was computed from it stays known; a candle that the
    exchange has called closed stays closed.
    """
    if not fresh or not len(held):
        return None
    start = int(np.searchsorted(held.open_times_ms, int(fresh[0][0])))
    kept, settled = held.rows[:start], held.rows[start:] if held.last_closed else held.rows[start:-1]
    if start >= len(held) or tuple(fresh[: len(settled)]) != settled or len(fresh) < len(held) - start:
        return None
    tail = assembled(fresh, interval, exchange_time_ms)
    if tail.rows == held.rows[start:] and (held.last_closed or not tail.last_closed):
        return held
    drop = max(0, len(kept) + len(fresh) - DEPTH)
    return Candles(
        rows=(kept + tail.rows)[drop:],
        open_times_ms=np.concatenate((held.open_times_ms[drop:start], tail.open_times_ms)),
        open=np.concatenate((held.open[drop:start], tail.open)),
        high=np.concatenate((held.high[drop:start], tail.high)),
        low=np.concatenate((held.low[drop:start], tail.low)),
        close=np.concatenate((held.close[drop:start], tail.close)),
        volume=np.concatenate((held.volume[drop:start], tail.volume)),
        last_closed=tail.last_closed,
    )


def without_forming(candles: Candles) -> Candles:
    """The closed candles only: the same where the last one is closed, else all but it."""
    if candles.last_closed or not len(candles):
        return candles
    return Candles(
        rows=candles.rows[:-1],
        open_times_ms=candles.open_times_ms[:-1],
        open=candles.open[:-1],
        high=candles.high[:-1],
        low=candles.low[:-1],
        close=candles.close[:-1],
        volume=candles.volume[:-1],
        last_closed=True,
    )
