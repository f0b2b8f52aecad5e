"""What time the exchange thinks it is: the real clock with an offset, or stood still by a test."""

from __future__ import annotations

import time
from collections.abc import Callable


def real_ms() -> int:
    return time.time_ns() // 1_000_000


class Clock:
    """The exchange's clock in Unix milliseconds.

    `now_ms` decides all data, `time` among it; frozen, it stands still. `wall_ms` is the real clock with the offset and
    never stands still: signatures made by clients that keep their own time are checked against it as well.
    """

    def __init__(self, source_ms: Callable[[], int] = real_ms) -> None:
        self._source_ms = source_ms
        self.set()

    def set(self, *, freeze_ms: int | None = None, offset_ms: int = 0) -> None:
        """Stands still at `freeze_ms` (None: runs), with the running clock shifted by `offset_ms`."""
        self.freeze_ms, self.offset_ms = freeze_ms, offset_ms

    def wall_ms(self) -> int:
        return self._source_ms() + self.offset_ms

    def now_ms(self) -> int:
        return self.wall_ms() if self.freeze_ms is None else self.freeze_ms
