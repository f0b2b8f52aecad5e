"""Sessions: which day, week or month of UTC each candle belongs to, and where these begin."""

import numpy as np
from numpy.typing import NDArray

DAY_MS = 86_400_000
MONDAY_MS = 4 * DAY_MS
"""The first Monday: Unix time began on a Thursday."""
ANCHORS = {"day": 0, "week": 1, "month": 2, "start": 3}
DAYS = {ANCHORS["day"]: 1, ANCHORS["week"]: 7, ANCHORS["month"]: 31, ANCHORS["start"]: 0}
"""How long they are at most, in days."""

Times = NDArray[np.int64]


def beginnings_ms(open_times_ms: Times, anchor: int) -> Times:
    """When the session of each candle began; for "start" that is the first candle for all of them."""
    if anchor == ANCHORS["day"]:
        return open_times_ms - open_times_ms % DAY_MS
    if anchor == ANCHORS["week"]:
        return open_times_ms - (open_times_ms - MONDAY_MS) % (7 * DAY_MS)
    if anchor == ANCHORS["month"]:
        months = open_times_ms.astype("datetime64[ms]").astype("datetime64[M]")
        return months.astype("datetime64[ms]").astype(np.int64)
    return np.full(len(open_times_ms), open_times_ms[0])


def first_candles(beginnings: Times) -> NDArray[np.intp]:
    """Where each session begins among the candles, oldest first."""
    return np.flatnonzero(np.diff(beginnings, prepend=beginnings[0] - 1))
