"""Pools: a few threads per endpoint, whose permits come back when the thread does."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ..errors import ExchangeError, ExchangeTimeout, ExchangeUnreachable
from .failures import empty
from .transport import Deadline, bounded

T = TypeVar("T")

GIVE_WAY = 0.4
"""Of a call's time: older than this, the oldest call of a full pool is cut for the sake of one that waits."""


class Pool:
    """A few threads for the calls of one endpoint, so that its hanging starves no other.

    A permit is held from before a thread is asked for until that thread is done, whoever has stopped waiting by then:
    calls queue here, on the loop, and never behind hung threads in the executor. Where all threads hang, the oldest
    call gives way to the next, so that the end of the trouble is noticed before the last of its calls has run out.
    """

    def __init__(self, name: str, threads: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.threads = threads
        self._clock = clock
        self._closed = False
        self.waiting = 0
        """How many calls wait for a thread."""
        self._under_way: dict[Deadline, float] = {}
        self._permits = asyncio.Semaphore(threads)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"bybit-{name}")

    @property
    def in_flight(self) -> int:
        """How many threads are busy."""
        return len(self._under_way)

    async def run(self, work: Callable[[], T], *, timeout_s: float) -> T:
        """What `work` returns, from a thread. Raises ExchangeTimeout after `timeout_s`, and cuts the call then.

        Raises ExchangeUnreachable once the pool is closed.
        Cancelling is safe: the call is cut, and the permit comes back when its thread ends.
        """
        end = self._clock() + timeout_s
        self.waiting += 1
        try:
            await self._permit(end, timeout_s)
        finally:
            self.waiting -= 1
        if self._closed:
            self._permits.release()
            raise ExchangeUnreachable("the gateway stops and makes no more calls to the exchange")
        deadline = Deadline()
        call = self._started(deadline, work)
        try:
            answer: T = await asyncio.wait_for(asyncio.shield(call), end - self._clock())
            _heed_cancellation()
            return answer
        except TimeoutError:
            raise ExchangeTimeout(f"the exchange gave no whole answer in {timeout_s:g} s") from None
        except ExchangeError as error:
            if deadline.passed:
                raise ExchangeTimeout("the exchange gave no answer while other calls waited") from error
            raise
        finally:
            if not call.done():
                deadline.cut()

    def _started(self, deadline: Deadline, work: Callable[[], T]) -> "asyncio.Future[T]":
        """The call in its thread. Raises RuntimeError where there is no thread to be had; the permit is free then."""
        try:
            call = asyncio.get_running_loop().run_in_executor(self._executor, bounded, deadline, work)
        except BaseException:
            deadline.cut()  # it is in the executor's queue all the same, for the next thread that is free
            self._permits.release()
            raise
        self._under_way[deadline] = self._clock()
        call.add_done_callback(lambda done: self._ended(deadline, done))
        return call

    async def _permit(self, end: float, timeout_s: float) -> None:
        """Return with a permit, from a call that gives way if need be. Raises ExchangeTimeout at `end`."""
        while self._permits.locked():
            # None is there while one that waits has been given its permit, and has not taken its turn yet.
            whole = ((call, started) for call, started in self._under_way.items() if not call.passed)
            oldest, started = next(whole, (None, self._clock()))
            patience = min(end, started + GIVE_WAY * timeout_s) - self._clock()
            try:
                async with asyncio.timeout(max(0.0, patience)):
                    await self._permits.acquire()
                return
            except TimeoutError:
                if self._clock() >= end:
                    detail = f"all {self.threads} {self.name} calls hang; none ended in {timeout_s:g} s"
                    raise ExchangeTimeout(detail) from None
                if oldest is not None:
                    oldest.cut()
                    await asyncio.sleep(0.01)
        await self._permits.acquire()

    def _ended(self, deadline: Deadline, call: "asyncio.Future[Any]") -> None:
        del self._under_way[deadline]
        self._permits.release()
        # Looked at, so that asyncio does not complain of an answer that nobody waited for.
        if (error := call.exception()) is not None:
            empty(error)

    def close(self) -> None:
        """Take no more calls. Threads that hang are left to their deadline; the process does not join them."""
        self._closed = True
        self._executor.shutdown(wait=False)


def _heed_cancellation() -> None:
    """Be cancelled if that was asked for: in Python 3.11, wait_for loses a cancellation that meets the answer."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
