"""The watchdog: what blocks the loop is named in the log, once; what does not, is not."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.watchdog import BLOCKED_S, Watchdog


@pytest.fixture(autouse=True)
def blockbuster() -> None:
    """Here the loop is blocked on purpose."""


@pytest.fixture
async def watchdog() -> AsyncIterator[Watchdog]:
    """A watchdog of this loop that has heard a beat."""
    watchdog = Watchdog()
    watchdog.start()
    await beats(watchdog, 1)
    yield watchdog
    watchdog.stop()


async def beats(watchdog: Watchdog, more: int) -> None:
    """Return after that many more beats."""
    async with asyncio.timeout(10):
        count = sum(watchdog.lags.counts) + more
        while sum(watchdog.lags.counts) < count:
            await asyncio.sleep(0.005)


async def lines(logs: list[Any], count: int) -> list[Any]:
    """The lines of blocked loops, once there are so many."""
    async with asyncio.timeout(10):
        while len(found := [line for line in logs if line["event"] == "loop_blocked"]) < count:
            await asyncio.sleep(0.005)
    return found


def hold_the_loop(seconds: float) -> None:
    """What a bug might do."""
    a_secret_of_the_frame = "hunter2"
    time.sleep(seconds)
    assert a_secret_of_the_frame


async def test_a_blocked_loop_is_logged_with_its_stack(watchdog: Watchdog) -> None:
    """One line tells how long, and the function that did it, but no values."""
    with capture_logs() as logs:
        hold_the_loop(4 * BLOCKED_S)
        (line,) = await lines(logs, 1)
        await beats(watchdog, 5)
    assert line["duration_ms"] >= 400
    assert "hold_the_loop" in line["stack"]
    assert "time.sleep(seconds)" in line["stack"]
    assert "hunter2" not in str(line)
    assert watchdog.blocked >= 1
    assert sum(watchdog.lags.counts[-4:]) >= 1


async def test_blockages_are_all_counted_and_few_are_logged(watchdog: Watchdog) -> None:
    """Of many in a row one is logged: the log must not drown in what is slow already."""
    with capture_logs() as logs:
        for number in range(1, 4):
            hold_the_loop(1.5 * BLOCKED_S)
            async with asyncio.timeout(10):
                while watchdog.blocked < number:
                    await asyncio.sleep(0.005)
        found = await lines(logs, 1)
        await beats(watchdog, 4)
    assert watchdog.blocked >= 3
    assert len(found) == len([line for line in logs if line["event"] == "loop_blocked"]) == 1


async def test_what_ends_in_time_is_not_logged() -> None:
    """On a clock of the test's: silences under 100 ms count as lag only, one of exactly that long is a blockage."""
    now = 0.0
    loop = asyncio.get_running_loop()
    watchdog = Watchdog(clock=lambda: now)
    for silence_s, blocked in ((0.025, 0), (0.099, 0), (0.1, 1), (0.05, 1)):
        now += silence_s
        watchdog._beat(loop)
        assert watchdog.blocked == blocked
        watchdog.stop()
    assert sum(watchdog.lags.counts) == 4


async def test_it_ends(watchdog: Watchdog) -> None:
    """Stopped, it beats no more, and its thread is gone."""
    import threading

    watchdog.stop()
    count = sum(watchdog.lags.counts)
    async with asyncio.timeout(10):
        while any(thread.name == "watchdog" for thread in threading.enumerate()):
            await asyncio.sleep(0.005)
    assert sum(watchdog.lags.counts) == count
