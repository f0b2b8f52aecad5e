"""Candles of any interval at any instant: closed minutes and hours grouped, the forming one cut off at "now".

Everything is summed from the same integers, so that a large candle is exactly what the small ones inside it are, at
every millisecond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .history import CHUNK_DAYS, CLOSE, DAY_MINUTES, HIGH, LOW, OPEN, TURNOVER, VOLUME, History, Integers
from .instruments import DAY_MS, Category, Instrument
from .noise import key_of, word

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
LEG_MS = MINUTE_MS // 3
QUANTUM_MS = 200  # the last price changes at most this often
FIXED_MS: Mapping[str, int] = {str(m): m * MINUTE_MS for m in (1, 3, 5, 15, 30, 60, 120, 240, 360, 720)}
INTERVALS = (*FIXED_MS, "D", "W", "M")


class Forming(NamedTuple):
    """The minute under way: a candle in integers, and `path`, its price before the last trades' jitter."""

    open: int
    high: int
    low: int
    close: int
    volume: int
    turnover: int
    path: int


class Course(NamedTuple):
    """The whole way of one minute: the corners of its zigzag in ticks, and all that will have been traded in steps."""

    corners: tuple[int, int, int, int]
    volume: int


class Candle(NamedTuple):
    """One candle: its open time in Unix milliseconds, prices in ticks, volume in steps, turnover in its units."""

    open_ms: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    turnover: int


def _month_start(months: int) -> int:
    """Unix milliseconds of the start of a month, counted in months since year 0."""
    return int(datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC).timestamp()) * 1_000


def _month_of(at_ms: int) -> int:
    date = datetime.fromtimestamp(at_ms // 1_000, UTC)
    return date.year * 12 + date.month - 1


def opens_between(interval: str, first_ms: int, last_ms: int) -> Sequence[int]:
    """The open times of the candles from the one that contains `first_ms` to the one that contains `last_ms`.

    D, W and M are aligned to UTC, W starts on Monday.
    """
    if interval == "M":
        return [_month_start(month) for month in range(_month_of(first_ms), _month_of(last_ms) + 1)]
    if interval == "W":
        monday, step = 4 * DAY_MS, 7 * DAY_MS  # 1970-01-05
        return range((first_ms - monday) // step * step + monday, last_ms + 1, step)
    step = DAY_MS if interval == "D" else FIXED_MS[interval]
    return range(first_ms // step * step, last_ms + 1, step)


def _away(distance: int, part_ms: int) -> int:
    """`distance * part / leg`, rounded away from zero: the path then never lags behind what it really reached."""
    moved = -(-abs(distance) * part_ms // LEG_MS)
    return moved if distance >= 0 else -moved


def _partial_turnover(instrument: Instrument, corners: Sequence[int], volume: int, traded: int) -> int:
    """Turnover of the first `traded` of `volume` steps, which flow evenly along the legs between the corners."""
    sum6 = 0  # six times the sum of the prices of all traded steps, times `volume`
    left = 3 * traded
    for start, end in pairwise(corners):
        part = min(left, volume)
        sum6 += 2 * part * start * volume + part * part * (end - start)
        left -= part
    ratio = instrument.turnover_ratio
    if not traded:
        return 0
    if instrument.category is Category.INVERSE:
        return traded * traded * 6 * volume * ratio.numerator // (sum6 * ratio.denominator)
    return sum6 * ratio.numerator // (6 * volume * ratio.denominator)


class Candles:
    """Candles over a History. Pure in (seed, instrument, instant)."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.seed = history.seed
        self.course = lru_cache(maxsize=8_192)(self._course)
        self.jitter_key = lru_cache(maxsize=8_192)(lambda one: key_of(self.seed, "jitter", one.category, one.symbol))

    def _course(self, instrument: Instrument, minute: int) -> Course:
        day, index = divmod(minute, DAY_MINUTES)
        opening, high, low, close, volume, _ = (int(x) for x in self.history.minutes(instrument, day)[:, index])
        upwards_last = word(key_of(self.seed, "turns", instrument.base), minute) & 1
        turns = (low, high) if upwards_last else (high, low)
        return Course((opening, *turns, close), volume)

    def forming(self, instrument: Instrument, now_ms: int) -> Forming:
        """The minute candle under way at `now_ms`: a zigzag through three legs of 20 s, as far as it has come."""
        minute, elapsed_ms = divmod(now_ms, MINUTE_MS)
        corners, volume = self.course(instrument, minute)
        leg, part_ms = divmod(elapsed_ms, LEG_MS)
        path = corners[leg] + _away(corners[leg + 1] - corners[leg], part_ms)
        seen = (*corners[: leg + 1], path)
        jitter = word(self.jitter_key(instrument), now_ms // QUANTUM_MS) % 7 - 3
        last = min(max(path + jitter, min(seen)), max(seen))
        traded = volume * elapsed_ms // MINUTE_MS
        turnover = _partial_turnover(instrument, corners, volume, traded)
        return Forming(corners[0], max(seen), min(seen), last, traded, turnover, path)

    def minutes(self, instrument: Instrument, first_ms: int, now_ms: int) -> Integers:
        """Minute candles from the one at `first_ms` (on a minute) to the forming one, shape (6, n)."""
        first_day, last_day = first_ms // DAY_MS, now_ms // DAY_MS
        days = [self.history.minutes(instrument, day) for day in range(first_day, last_day + 1)]
        start, end = first_ms // MINUTE_MS, now_ms // MINUTE_MS + 1
        offset = first_day * DAY_MINUTES
        table = np.concatenate(days, axis=1)[:, start - offset : end - offset]
        table[:, -1] = self.forming(instrument, now_ms)[:6]
        return table

    def hours(self, instrument: Instrument, first_ms: int, now_ms: int) -> Integers:
        """Hour candles from the one at `first_ms` (on an hour) to the forming one, shape (6, n)."""
        size_ms = CHUNK_DAYS * DAY_MS
        first, last = first_ms // size_ms, now_ms // size_ms
        chunks = [self.history.hours(instrument, chunk) for chunk in range(first, last + 1)]
        start, end, offset = first_ms // HOUR_MS, now_ms // HOUR_MS + 1, first * CHUNK_DAYS * 24
        table = np.concatenate(chunks, axis=1)[:, start - offset : end - offset]
        table[:, -1] = grouped(self.minutes(instrument, (end - 1) * HOUR_MS, now_ms), np.array([0]))[:, 0]
        return table

    def listing(
        self,
        instrument: Instrument,
        interval: str,
        now_ms: int,
        *,
        limit: int = 200,
        start_ms: int | None = None,
        end_ms: int | None = None,
    ) -> list[Candle]:
        """Candles oldest first, at most `limit`: from `start_ms` on if it comes alone, else the last ones to `end_ms`.

        Never before the launch, never after `now_ms`; the one that contains `start_ms` is among them.
        """
        launch_ms, last_ms = instrument.launch_ms, min(now_ms, now_ms if end_ms is None else end_ms)
        first_ms = max(launch_ms, launch_ms if start_ms is None else start_ms)
        if first_ms > last_ms:
            return []
        opens = opens_between(interval, first_ms, last_ms)
        forwards = start_ms is not None and end_ms is None
        chosen = opens[:limit] if forwards else opens[-limit:]
        return self._grouped(instrument, interval, chosen, now_ms)

    def _grouped(self, instrument: Instrument, interval: str, opens: Sequence[int], now_ms: int) -> list[Candle]:
        """The candles that open at `opens`, which follow each other without gap."""
        following = opens_between(interval, opens[-1], opens[-1] + 32 * DAY_MS)[1]
        until_ms = min(now_ms, following - 1)
        by_minutes = interval in FIXED_MS and FIXED_MS[interval] < HOUR_MS
        base_ms, table_of = (MINUTE_MS, self.minutes) if by_minutes else (HOUR_MS, self.hours)
        first_ms = max(opens[0], instrument.launch_ms)
        if until_ms < now_ms:  # all closed: cut at the last candle's end without touching its last row
            table = table_of(instrument, first_ms, until_ms + 1)[:, :-1]
        else:
            table = table_of(instrument, first_ms, now_ms)
        starts = (np.maximum(np.array(opens, dtype=np.int64), first_ms) - first_ms) // base_ms
        rows = grouped(table, starts).T.tolist()
        return [Candle(open_ms, *row) for open_ms, row in zip(opens, rows, strict=True)]


def grouped(table: Integers, starts: Integers) -> Integers:
    """One candle per group of columns; a group begins at each index of `starts`, the first at 0. Shape (6, groups)."""
    result = np.empty((6, len(starts)), dtype=np.int64)
    ends = np.append(starts[1:], table.shape[1]) - 1
    result[OPEN], result[CLOSE] = table[OPEN, starts], table[CLOSE, ends]
    result[HIGH] = np.maximum.reduceat(table[HIGH], starts)
    result[LOW] = np.minimum.reduceat(table[LOW], starts)
    result[VOLUME] = np.add.reduceat(table[VOLUME], starts)
    result[TURNOVER] = np.add.reduceat(table[TURNOVER], starts)
    return result
