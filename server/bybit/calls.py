"""Calls: how many calls to Bybit came to which outcome, and how long they took."""

from ..histogram import Histogram

BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Calls:
    """The running numbers by endpoint. What a guard refused was no call: it is counted apart, by its reason."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], int] = {}
        self.refusals: dict[tuple[str, str], int] = {}
        self.durations: dict[str, Histogram] = {}

    def ended(self, endpoint: str, outcome: str, duration_s: float) -> None:
        """Count a call that was made."""
        self.outcomes[endpoint, outcome] = self.outcomes.get((endpoint, outcome), 0) + 1
        if (histogram := self.durations.get(endpoint)) is None:
            histogram = self.durations[endpoint] = Histogram(BOUNDS_S)
        histogram.observe(duration_s)

    def refused(self, endpoint: str, reason: str) -> None:
        """Count a call that was not made."""
        self.refusals[endpoint, reason] = self.refusals.get((endpoint, reason), 0) + 1
