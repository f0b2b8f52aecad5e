"""When the dead are started again, and when that is given up. Pure: it is told the times."""

YOUNG_S = 5.0
"""Who lived shorter than this is not started again at once."""
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 8.0
MOST_STILLBORN = 5


class Backoff:
    """The waits before one worker's restarts: none after a long life, and ever longer ones after short lives."""

    def __init__(self) -> None:
        self._wait_s = 0.0

    def wait_s(self, lived_s: float) -> float:
        """Seconds to wait after a life of `lived_s`."""
        short = min(LONGEST_WAIT_S, max(FIRST_WAIT_S, self._wait_s * 2))
        self._wait_s = short if lived_s < YOUNG_S else 0.0
        return self._wait_s


class Stillbirths:
    """How many workers in a row died before they were ready, in the whole gateway."""

    def __init__(self) -> None:
        self.in_a_row = 0
        self.has_any_been_ready = False

    def ready(self) -> None:
        self.in_a_row, self.has_any_been_ready = 0, True

    def died_early(self) -> None:
        self.in_a_row += 1

    @property
    def are_too_many(self) -> bool:
        return self.in_a_row >= MOST_STILLBORN
