"""Candles: made of rows, and those of one topic joined, extended, corrected and cut; without any I/O."""

import datetime as dt
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
from msgspec.structs import replace

from ..errors import BadAnswer
from ..models import INTERVALS_MS, CandleRow, Candles
from ..rows import WIDTH, Rows

DEPTH = 1000
"""How many candles of a topic are held at least, where the exchange has them: what one call brings."""
SETTLING_MS = 1000
"""How long after its end a candle is still taken for forming: the answer may have been put together just before."""
COLUMNS = ("open_times_ms", "open", "high", "low", "close", "volume")


def check(candles: Candles, held: Candles | None, interval: str) -> None:
    """Raise BadAnswer where candles are not of `interval`, or most of what is held has vanished from them."""
    steps = np.diff(candles.open_times_ms)
    if interval != "M" and len(steps) and int(steps.min()) != INTERVALS_MS[interval]:
        raise BadAnswer(f"the exchange's candles are not of the interval {interval}")
    if held is not None and len(candles) < min(len(held), DEPTH) / 2:
        raise BadAnswer(f"the exchange sent {len(candles)} candles where it had {len(held)}")


def follow_each_other(rows: Sequence[CandleRow], interval: str) -> bool:
    """Whether each candle begins where the one before it closes."""
    return all(closes_at_ms(int(one[0]), interval) == int(next_one[0]) for one, next_one in pairwise(rows))


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
    rows = rows[-DEPTH:]
    return Candles(
        rows=Rows.of(rows),
        **_columns(rows),
        last_closed=bool(rows) and exchange_time_ms >= closes_at_ms(int(rows[-1][0]), interval) + SETTLING_MS,
        depth=DEPTH,
    )


def _columns(rows: Sequence[CandleRow]) -> dict[str, Any]:
    """The rows' columns, each in memory of its own; their times, in ms, are exact as floats, too."""
    table = np.fromiter(map(float, chain.from_iterable(rows)), np.float64, len(rows) * WIDTH).reshape(-1, WIDTH)
    columns: dict[str, Any] = {name: np.ascontiguousarray(table[:, place]) for place, name in enumerate(COLUMNS)}
    columns["open_times_ms"] = columns["open_times_ms"].astype(np.int64)
    return columns


def extended(held: Candles, fresh: Sequence[CandleRow], interval: str, exchange_time_ms: int) -> Candles | None:
    """`held` with `fresh` rows over and after its end; None where they contradict what is held or leave a gap.

    The very same object where nothing changed, so that what was computed from it stays known; a candle that the
    exchange has called closed stays closed.
    """
    if not fresh or not len(held) or not follow_each_other(fresh, interval):
        return None
    start = place_of(held, int(fresh[0][0]))
    if start >= len(held) or len(fresh) < len(held) - start or contradict(held, fresh):
        return None
    tail = assembled(fresh, interval, exchange_time_ms)
    if tail.rows == held.rows[start:] and (held.last_closed or not tail.last_closed):
        return held
    return _spliced(held, start, tail, len(held))


def place_of(held: Candles, open_time_ms: int) -> int:
    """How many candles opened before that moment."""
    return int(np.searchsorted(held.open_times_ms, open_time_ms))


def contradict(held: Candles, fresh: Sequence[CandleRow]) -> bool:
    """Whether `fresh` rows tell of closed candles that are held otherwise."""
    start = place_of(held, int(fresh[0][0])) if fresh else len(held)
    settled = held.rows[start:] if held.last_closed else held.rows[start:-1]
    return tuple(fresh[: len(settled)]) != settled[: len(fresh)]


def _spliced(held: Candles, start: int, middle: Candles, end: int) -> Candles:
    """`held` with its candles from `start` up to `end` replaced by `middle`; at most its depth of them, the newest."""
    drop = max(0, start + len(middle) + len(held) - end - held.depth)
    rows = held.rows.first(start).plus((*middle.rows, *held.rows[end:]))
    return Candles(
        rows=rows.last(held.depth),
        **_columns_joined((held, slice(start)), (middle, slice(None)), (held, slice(end, None)), drop=drop),
        last_closed=middle.last_closed if end == len(held) else held.last_closed,
        depth=held.depth,
        is_from_start=held.is_from_start and not drop,
    )


def _columns_joined(*parts: tuple[Candles, slice], drop: int) -> dict[str, Any]:
    """The columns of parts of candles one after the other, without the first `drop`, in memory of their own."""
    joined = {name: np.concatenate([getattr(candles, name)[part] for candles, part in parts]) for name in COLUMNS}
    return {name: column[drop:].copy() for name, column in joined.items()} if drop else joined


def preceded(newer: Candles, older: Candles) -> Candles | None:
    """`newer` with what `older` has before it, as far as its depth allows.

    None where `older` does not have the first candle of `newer`, the same in all its numbers: nothing else says that
    there is neither a gap nor a contradiction between the two.
    """
    if not len(newer) or not len(older):
        return None
    start = place_of(older, int(newer.open_times_ms[0]))
    if start >= len(older) or older.rows[start] != newer.rows[0]:
        return None
    drop = max(0, start + len(newer) - newer.depth)
    return Candles(
        rows=newer.rows.after(older.rows[drop:start]),
        **_columns_joined((older, slice(start)), (newer, slice(None)), drop=drop),
        last_closed=newer.last_closed,
        depth=newer.depth,
        is_from_start=(older.is_from_start or (not start and newer.is_from_start)) and not drop,
    )


def corrected(held: Candles, page: Sequence[CandleRow], interval: str) -> Candles | None:
    """`held` with closed candles as `page` tells of them; the very same where it says nothing else.

    What `page` has from before `held` is left out. None where the rest does not begin and end with closed candles of
    `held`, or brings a gap.
    """
    page = page[sum(int(row[0]) < int(held.open_times_ms[0]) for row in page) :] if len(held) else ()
    if not page:
        return None
    start, end = place_of(held, int(page[0][0])), place_of(held, int(page[-1][0]) + 1)
    ours = held.rows[start:end]
    if not ours or (ours[0][0], ours[-1][0]) != (page[0][0], page[-1][0]):
        return None
    if ours == tuple(page):
        return held
    if (end == len(held) and not held.last_closed) or not follow_each_other(page, interval):
        return None
    return _spliced(held, start, replace(assembled(page, interval, 0), last_closed=True), end)


def shortened(candles: Candles) -> Candles:
    """The last 1,000 in arrays of their own, so that the memory of the others is given back."""
    kept = candles.last(DEPTH)
    columns = {name: getattr(kept, name).copy() for name in COLUMNS}
    return replace(kept, **columns, depth=DEPTH, computed={})


def without_forming(candles: Candles) -> Candles:
    """The closed candles only: the same where the last one is closed, else all but it."""
    if candles.last_closed or not len(candles):
        return candles
    return candles.first(len(candles) - 1)
