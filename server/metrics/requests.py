"""Requests: how many of each route came to which status, and how long they took."""

from collections.abc import Iterator

from ..histogram import Histogram
from .family import Family, family

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
UNMATCHED = "unmatched"
"""The route of what no route matches: raw paths are anybody's to invent, and each would be a series."""


class Requests:
    """The running numbers by route pattern."""

    def __init__(self) -> None:
        self.statuses: dict[tuple[str, int], int] = {}
        self.durations: dict[str, Histogram] = {}

    def ended(self, route: str, status: int, duration_s: float) -> None:
        """Count one more. Every request passes here."""
        key = route, status
        statuses = self.statuses
        statuses[key] = statuses.get(key, 0) + 1
        if (histogram := self.durations.get(route)) is None:
            histogram = self.durations[route] = Histogram(BOUNDS_S)
        histogram.observe(duration_s)

    def families(self) -> Iterator[Family]:
        """What there is to tell."""
        counts, durations = family("gateway_requests_total"), family("gateway_request_duration_seconds")
        for (route, status), count in self.statuses.items():
            counts.add(count, route=route, status=str(status))
        for route, histogram in self.durations.items():
            durations.add_histogram(histogram, route=route)
        yield from (counts, durations)
