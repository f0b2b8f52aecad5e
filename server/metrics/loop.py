"""What there is to tell of the event loop."""

from collections.abc import Iterator

from ..watchdog import Watchdog
from .family import Family, family, single


def of_watchdog(watchdog: Watchdog) -> Iterator[Family]:
    """How late the loop was, and how often it was blocked."""
    yield family("gateway_loop_lag_seconds").add_histogram(watchdog.lags)
    yield single("gateway_loop_blocked_total", watchdog.blocked)
