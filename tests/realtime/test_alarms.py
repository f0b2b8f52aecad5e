"""Alarms: nobody is woken early, nor after he has taken it back; those of one moment share a timer, not a turn."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from server.realtime.alarms import SLICE, SLOT_S, Alarms
from tests.realtime.sockets import eventually


class Sleeper:
    """Notes when it was woken, and does something then."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.woken: list[float] = []
        self.act = act

    def ring(self) -> None:
        self.woken.append(time.monotonic())
        self.act()


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.003, 0.0171, 0.05])
async def test_nobody_is_woken_early(seconds: float) -> None:
    """Not before the moment, whatever the loop's timers make of it; and once."""
    alarms, sleeper, began_at = Alarms(), Sleeper(), time.monotonic()
    alarms.set(sleeper, seconds)
    await eventually(lambda: sleeper.woken)
    await asyncio.sleep(2 * SLOT_S)
    (woken_at,) = sleeper.woken
    assert woken_at >= began_at + seconds


async def test_a_timer_that_comes_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timers of uvloop may come a millisecond early: what is left is waited for."""
    loop = asyncio.get_running_loop()
    call_later, delays = loop.call_later, []

    def early(delay: float, callback: Any, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        delays.append(delay)
        return call_later(delay - 0.002, callback, *args, **kwargs)

    alarms, sleeper, began_at = Alarms(), Sleeper(), time.monotonic()
    monkeypatch.setattr(loop, "call_later", early)
    alarms.set(sleeper, 0.02)
    monkeypatch.undo()
    await eventually(lambda: sleeper.woken)
    assert sleeper.woken[0] >= began_at + 0.02
    assert len(delays) == 1


async def test_who_takes_it_back_sleeps_on() -> None:
    """Also where another one of the same moment is woken first."""
    now = 1000.0
    alarms = Alarms(clock=lambda: now)
    slots: list[dict[Any, None]] = []
    third = Sleeper()
    first, second = Sleeper(lambda: slots[2].pop(third)), Sleeper()
    slots += [alarms.set(sleeper, 0.02) for sleeper in (first, second, third)]
    assert slots[0] is slots[1] is slots[2]
    slots[1].pop(second)
    now += 1
    await eventually(lambda: first.woken)
    await asyncio.sleep(0.02)
    assert second.woken == third.woken == []


async def test_one_timer_for_a_moment_and_a_turn_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds cost one timer, and others have their turn between slices; whoever sleeps again is woken again."""
    now, loop = 1000.0, asyncio.get_running_loop()
    call_later, timers = loop.call_later, 0

    def counted(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        nonlocal timers
        timers += 1
        return call_later(*args, **kwargs)

    alarms = Alarms(clock=lambda: now)
    sleepers = [Sleeper() for _ in range(4 * SLICE)]
    sleepers[0].act = lambda: len(sleepers[0].woken) < 2 and alarms.set(sleepers[0], 0.0)
    monkeypatch.setattr(loop, "call_later", counted)
    for sleeper in sleepers:
        alarms.set(sleeper, 0.02)
    monkeypatch.undo()
    assert timers == 1
    now += 0.03
    counts = []
    while not all(sleeper.woken for sleeper in sleepers):
        await asyncio.sleep(0)
        counts.append(sum(len(sleeper.woken) for sleeper in sleepers))
    steps = {after - before for before, after in zip([0, *counts], counts, strict=False)}
    assert max(steps) == SLICE
    now += 2 * SLOT_S
    await eventually(lambda: len(sleepers[0].woken) == 2)
    assert not alarms._slots
