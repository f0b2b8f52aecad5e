"""Pools: a permit belongs to the thread and comes back with it, however the waiter fares."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from server.bybit.pool import Pool
from server.bybit.transport import Deadline, _current
from server.errors import ExchangeTimeout, ExchangeUnreachable

from .conftest import until

LONG_S = 10.0
SHORT_S = 0.05


class Gate:
    """Work that holds its thread until it is let go; counts those inside."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.inside = 0
        self._lock = threading.Lock()

    def work(self) -> str:
        with self._lock:
            self.inside += 1
        assert self.open.wait(LONG_S)
        return "done"

    async def holds(self, threads: int) -> None:
        """Wait until that many threads are inside."""
        await until(lambda: self.inside >= threads)


Make = Callable[[int], Pool]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Makes pools; in the end every thread has come back and every permit is free."""
    pools: list[Pool] = []

    def pool(threads: int) -> Pool:
        pools.append(Pool("test", threads))
        return pools[-1]

    yield pool
    for one in pools:
        await until(lambda one=one: one.in_flight == 0)  # type: ignore[misc]
        if not one._executor._shutdown:
            await _all_permits_are_free(one)
        one.close()


async def _all_permits_are_free(pool: Pool) -> None:
    """As many calls as threads run at once."""
    barrier = threading.Barrier(pool.threads)
    await asyncio.gather(*(pool.run(lambda: barrier.wait(LONG_S), timeout_s=LONG_S) for _ in range(pool.threads)))


@pytest.fixture
def gate() -> Gate:
    return Gate()


def started(awaitable: Awaitable[Any]) -> "asyncio.Future[Any]":
    """The awaitable as a task whose failure nobody needs to look at."""
    task = asyncio.ensure_future(awaitable)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


async def test_result_and_error(make: Make) -> None:
    """What the work returns or raises arrives, from a thread of the pool's name."""
    pool = make(1)
    assert (await pool.run(lambda: threading.current_thread().name, timeout_s=LONG_S)).startswith("bybit-test")
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 // 0, timeout_s=LONG_S)


async def test_never_more_than_its_threads(make: Make, gate: Gate) -> None:
    """Calls beyond the threads wait, and each has its turn."""
    pool = make(3)
    calls = [started(pool.run(gate.work, timeout_s=LONG_S)) for _ in range(10)]
    await gate.holds(3)
    await asyncio.sleep(0)
    assert (gate.inside, pool.in_flight) == (3, 3)
    gate.open.set()
    assert await asyncio.gather(*calls) == ["done"] * 10


async def test_a_permit_outlives_its_waiter(make: Make, gate: Gate) -> None:
    """A call that was given up holds its permit until its thread ends, so none is asked of a hung pool in vain."""
    pool = make(1)
    with pytest.raises(ExchangeTimeout, match=r"no whole answer in 0\.05 s"):
        await pool.run(gate.work, timeout_s=SHORT_S)
    assert pool.in_flight == 1
    asked = threading.Event()
    with pytest.raises(ExchangeTimeout, match="all 1 test calls hang"):
        await pool.run(asked.set, timeout_s=SHORT_S)
    assert not asked.is_set()
    gate.open.set()
    assert await pool.run(lambda: "well again", timeout_s=LONG_S) == "well again"


async def test_a_permit_outlives_a_cancelled_waiter(make: Make, gate: Gate) -> None:
    """Cancelling frees the waiter at once, and the permit when the thread ends."""
    pool = make(1)
    call = started(pool.run(gate.work, timeout_s=LONG_S))
    await gate.holds(1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert pool.in_flight == 1
    gate.open.set()
    await until(lambda: pool.in_flight == 0)


@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_giving_up_cuts_the_call(make: Make, how: str) -> None:
    """Whoever stops waiting cuts the call's connection; one that has its answer is not cut."""
    pool, gate = make(1), Gate()
    deadlines: list[Deadline] = []

    def work() -> str:
        assert _current.deadline is not None
        deadlines.append(_current.deadline)
        return gate.work()

    call = started(pool.run(work, timeout_s=SHORT_S if how == "timeout" else LONG_S))
    await gate.holds(1)
    if how == "cancel":
        call.cancel()
    await asyncio.wait({call})
    assert deadlines[0].passed
    gate.open.set()
    await pool.run(work, timeout_s=LONG_S)
    assert not deadlines[1].passed
    assert _current.deadline is None


async def test_a_full_pool_of_hung_calls(make: Make, gate: Gate) -> None:
    """While every thread hangs, each call ends within its time; then the pool recovers by itself."""
    pool = make(4)
    start = time.monotonic()
    outcomes = await asyncio.gather(*(pool.run(gate.work, timeout_s=0.2) for _ in range(40)), return_exceptions=True)
    assert 0.2 <= time.monotonic() - start < 1.0
    assert {type(outcome) for outcome in outcomes} == {ExchangeTimeout}
    assert (pool.in_flight, gate.inside) == (4, 4)
    gate.open.set()
    await until(lambda: pool.in_flight == 0)
    assert await asyncio.gather(*(pool.run(gate.work, timeout_s=LONG_S) for _ in range(8))) == ["done"] * 8


async def test_waiting_for_a_permit_counts(make: Make, gate: Gate) -> None:
    """The time is the whole call's: what is spent waiting for a permit is not there for the answer."""
    pool, hung = make(1), Gate()
    first = started(pool.run(gate.work, timeout_s=LONG_S))
    await gate.holds(1)
    start = time.monotonic()
    second = started(pool.run(hung.work, timeout_s=0.3))
    asyncio.get_running_loop().call_later(0.2, gate.open.set)
    await first
    with pytest.raises(ExchangeTimeout, match="no whole answer"):
        await second
    assert time.monotonic() - start < 0.45
    hung.open.set()


@pytest.mark.parametrize("ticks", range(8))
async def test_cancelling_while_waiting_for_a_permit(make: Make, gate: Gate, ticks: int) -> None:
    """A waiter that is cancelled at whatever moment a permit reaches it goes, and the permit is not lost."""
    pool = make(1)
    started(pool.run(gate.work, timeout_s=LONG_S))
    await gate.holds(1)
    second_ran = threading.Event()
    second = started(pool.run(lambda: second_ran.wait(LONG_S), timeout_s=LONG_S))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gate.open.set()
    async with asyncio.timeout(LONG_S):
        while pool.in_flight:
            await asyncio.sleep(0)
    for _ in range(ticks):
        await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait({second}, timeout=1.0)
    assert second.cancelled()
    second_ran.set()


@pytest.mark.parametrize("ticks", range(4))
async def test_cancelling_while_the_answer_arrives(make: Make, gate: Gate, ticks: int) -> None:
    """A waiter that is cancelled just when its answer is there is cancelled all the same, or has its answer."""
    pool = make(1)
    call = started(pool.run(gate.work, timeout_s=LONG_S))
    await gate.holds(1)
    gate.open.set()
    async with asyncio.timeout(LONG_S):
        while pool.in_flight:
            await asyncio.sleep(0)
    for _ in range(ticks):
        await asyncio.sleep(0)
    heeded = call.cancel()
    await asyncio.wait({call}, timeout=1.0)
    assert call.cancelled() if heeded else call.result() == "done"


async def test_a_closed_pool(make: Make, gate: Gate) -> None:
    """A closed pool takes no more calls, says so, and leaves threads that hang to their deadline."""
    pool = make(1)
    hung = started(pool.run(gate.work, timeout_s=SHORT_S))
    await gate.holds(1)
    waiting = started(pool.run(gate.work, timeout_s=LONG_S))
    start = time.monotonic()
    pool.close()
    pool.close()
    assert time.monotonic() - start < 1.0
    with pytest.raises(ExchangeTimeout):
        await hung
    gate.open.set()
    with pytest.raises(ExchangeUnreachable, match="no more calls"):
        await waiting
    with pytest.raises(ExchangeUnreachable, match="no more calls"):
        await pool.run(gate.work, timeout_s=LONG_S)
    assert pool.in_flight == 0


async def test_failures_that_nobody_waits_for_are_quiet(make: Make, gate: Gate) -> None:
    """An error of a call that was given up reaches neither the loop's handler nor anybody else."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    pool = make(1)

    def fail() -> None:
        gate.work()
        raise OSError("cut")

    with pytest.raises(ExchangeTimeout):
        await pool.run(fail, timeout_s=SHORT_S)
    gate.open.set()
    await until(lambda: pool.in_flight == 0)
    assert heard == []


async def test_no_thread_to_be_had(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system refuses a thread the call fails, and the next one finds the pool as it was."""
    pool, refused = make(1), [True, True]

    def start(thread: threading.Thread) -> None:
        if refused:
            refused.pop()
            raise RuntimeError("can't start new thread")
        real_start(thread)

    real_start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="can't start"):
            await pool.run(lambda: "left behind", timeout_s=LONG_S)
    assert await pool.run(lambda: "done", timeout_s=LONG_S) == "done"


async def test_a_call_in_the_turn_in_which_another_ends(make: Make) -> None:
    """A permit on its way to one that waits is neither free nor anybody's: who comes then waits, too."""
    pool = make(1)

    async def asked_again_and_again() -> None:
        for _ in range(200):
            asking.append(asyncio.create_task(pool.run(lambda: "done", timeout_s=LONG_S)))
            await asyncio.sleep(0)

    asking: list[asyncio.Task[str]] = []
    await asked_again_and_again()
    assert await asyncio.gather(*asking) == ["done"] * 200


async def test_waiting_for_what_cannot_be_cut_costs_nothing(make: Make, gate: Gate) -> None:
    """A call that goes on although it was cut, as one that looks up a name does, is waited for asleep."""
    pool = make(1)
    hung = asyncio.create_task(pool.run(gate.work, timeout_s=0.2))
    await gate.holds(1)
    with pytest.raises(ExchangeTimeout):
        await hung
    turns, waiting = 0, asyncio.create_task(pool.run(gate.work, timeout_s=0.6))
    acquire = pool._permits.acquire

    async def counted() -> Any:
        nonlocal turns
        turns += 1
        return await acquire()

    pool._permits.acquire = counted  # type: ignore[method-assign]
    with pytest.raises(ExchangeTimeout):
        await waiting
    assert 1 <= turns <= 5
    gate.open.set()
