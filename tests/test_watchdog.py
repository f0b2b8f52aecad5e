"""The watchdog: what blocks the loop is named in the log, once; what does not, is not."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.loops import loop_factory
from server.watchdog import BLOCKED_S, LOOK_S, Watchdog, stack_of, text_of


@pytest.fixture(autouse=True)
def blockbuster() -> None:
    """Here the loop is blocked on purpose."""


@pytest.fixture
async def watchdog() -> AsyncIterator[Watchdog]:
    """A watchdog of this loop that has looked at it."""
    watchdog = Watchdog()
    watchdog.start()
    await looks(watchdog, 1)
    yield watchdog
    watchdog.stop()


async def looks(watchdog: Watchdog, more: int) -> None:
    """Return after that many more looks."""
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
        await looks(watchdog, 5)
    assert line["duration_ms"] >= 300
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
        await looks(watchdog, 4)
    assert watchdog.blocked >= 3
    assert len(found) == len([line for line in logs if line["event"] == "loop_blocked"]) == 1


def test_what_ends_in_time_is_not_logged() -> None:
    """An answer that comes at once is a lag only; one that took so long that 100 ms were possible is a blockage."""
    watchdog = Watchdog(clock=lambda: 0.0)
    with capture_logs() as logs:
        for lag_s, blocked in ((0.0, 0), (BLOCKED_S - LOOK_S - 1e-6, 0), (BLOCKED_S - LOOK_S, 1), (0.05, 1)):
            watchdog.judge(lag_s, None)
            assert watchdog.blocked == blocked
    assert sum(watchdog.lags.counts) == 4
    assert [line["event"] for line in logs] == ["loop_blocked"]
    assert "not seen" in logs[0]["stack"]


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, loop_factory()])
def test_a_loop_at_rest_is_left_alone(factory: Callable[[], asyncio.AbstractEventLoop] | None) -> None:
    """While it waits for events it is looked at, and not woken; also the loop that production has."""
    watchdog = Watchdog()

    async def rest() -> None:
        watchdog.start()
        try:
            async with asyncio.timeout(20):
                while sum(watchdog.lags.counts) - watchdog.asked < 10:
                    await asyncio.sleep(0.3)
        finally:
            watchdog.stop()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(rest())
    assert watchdog.asked < sum(watchdog.lags.counts)


async def test_it_ends(watchdog: Watchdog) -> None:
    """Stopped, it looks no more, and its thread is gone."""
    import threading

    watchdog.stop()
    count = sum(watchdog.lags.counts)
    async with asyncio.timeout(10):
        while any(thread.name == "watchdog" for thread in threading.enumerate()):
            await asyncio.sleep(0.005)
    assert sum(watchdog.lags.counts) == count


def test_a_frame_between_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter tells no line there; the stack names the function's first one."""
    code = hold_the_loop.__code__
    frame = SimpleNamespace(f_code=code, f_lineno=None, f_back=None)
    monkeypatch.setattr("server.watchdog.sys._current_frames", lambda: {7: frame})
    stack = stack_of(7)
    assert stack == [(code, code.co_firstlineno)]
    assert "def hold_the_loop" in text_of(stack)
