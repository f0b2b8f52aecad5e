"""Histogram: durations counted by plain numbers, for metrics: what is observed often must cost next to nothing."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence


class Histogram:
    """How many durations fell under each bound, and their sum. For one thread."""

    __slots__ = ("bounds_s", "counts", "total_s")

    def __init__(self, bounds_s: Sequence[float]) -> None:
        """The bounds in rising order; a duration of exactly a bound counts as within it, as Prometheus has it."""
        self.bounds_s = tuple(bounds_s)
        self.counts = [0] * (len(self.bounds_s) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one more."""
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.total_s += seconds

    def cumulative(self) -> Iterator[tuple[str, int]]:
        """Each bound with how many were within it; the last one is infinity, with all of them."""
        so_far = 0
        for bound, count in zip((*map(str, self.bounds_s), "+Inf"), self.counts, strict=True):
            so_far += count
            yield bound, so_far
