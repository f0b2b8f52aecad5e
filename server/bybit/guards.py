"""What stands between a call and pybit: bounded pools of threads whose permits come back when the thread does."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ..errors import ExchangeTimeout, ExchangeUnreachable
from .transport import Deadline, bounded

T = TypeVar("T")


class Pool:
    """A few threads for the calls of one endpoint, so that its hanging starves no other.

    A permit is held from before a thread is asked for until that thread is done, whoever has stopped waiting by then:
    calls queue here, on the loop, and never behind hung threads in the executor.
    """

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        self.threads = threads
        self.in_flight = 0
        self._closed = False
        self._permits = asyncio.Semaphore(threads)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"bybit-{name}")

    async def run(self, work: Callable[[], T], *, timeout_s: float) -> T:
        """What `work` returns, from a thread. Raises ExchangeTimeout after `timeout_s`, and cuts the call then.

        Raises ExchangeUnreachable once the pool is closed.
        Cancelling is safe: the call is cut, and the permit comes back when its thread ends.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(end):  # wait_for swallows a cancellation in Python 3.11
                await self._permits.acquire()
        except TimeoutError:
            raise ExchangeTimeout(f"all {self.threads} {self.name} calls hang; none ended in {timeout_s:g} s") from None
        if self._closed:
            self._permits.release()
            raise ExchangeUnreachable("the gateway stops and makes no more calls to the exchange")
        deadline = Deadline()
        self.in_flight += 1
        call = loop.run_in_executor(self._executor, bounded, deadline, work)
        call.add_done_callback(self._ended)
        try:
            async with asyncio.timeout_at(end):
                return await asyncio.shield(call)
        except TimeoutError:
            raise ExchangeTimeout(f"the exchange gave no whole answer in {timeout_s:g} s") from None
        finally:
            if not call.done():
                deadline.cut()

    def _ended(self, call: "asyncio.Future[Any]") -> None:
        self.in_flight -= 1
        self._permits.release()
        call.exception()  # looked at, so that asyncio does not complain of an answer that nobody waited for

    def close(self) -> None:
        """Take no more calls. Threads that hang are left to their deadline; the process does not join them."""
        self._closed = True
        self._executor.shutdown(wait=False)
