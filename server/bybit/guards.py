"""What every call to Bybit passes: the breakers, the budget, and the pool of its endpoint."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..errors import ExchangeError, RateExceeded
from .breaker import BAN_S, CREDENTIALS_S, Breakers
from .budget import ACCOUNT_ENDPOINTS, Budget
from .pool import Pool

T = TypeVar("T")


class Guards:
    """The order in which a call is let through: is it silenced, does it fit the budget, is there a thread.

    What the first two refuse costs no call and counts as no failure.
    """

    def __init__(
        self,
        threads: Mapping[str, int],
        *,
        probe_s: float,
        share: float = 1.0,
        ban_s: float = BAN_S,
        key_retry_s: float = CREDENTIALS_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.pools = {name: Pool(name, number, clock=clock) for name, number in threads.items()}
        self.budget = Budget(share=share)
        self.breakers = Breakers(
            threads, account_endpoints=ACCOUNT_ENDPOINTS, probe_s=probe_s, ban_s=ban_s, key_retry_s=key_retry_s
        )

    async def admit(self, endpoint: str, *, timeout_s: float) -> None:
        """Return when a call of `endpoint` may be made. Raises what silences it, or RateExceeded if it cannot wait.

        Cancelling is safe: what does not return takes nothing.
        """
        end = self._clock() + timeout_s
        while (wait_s := self.budget.wait_s(endpoint, self._clock())) > 0:
            if self._clock() + wait_s > end:
                raise RateExceeded("this gateway's share of the exchange's limit is used up", retry_after_s=wait_s)
            await asyncio.sleep(wait_s)
        self.breakers.admit(endpoint, self._clock())
        self.budget.take(endpoint, self._clock())

    async def run(self, endpoint: str, work: Callable[[], T], *, timeout_s: float) -> T:
        """What `work` returns from a thread, once admitted. Raises ExchangeError, and learns from it."""
        asked_at = self._clock()
        try:
            answer = await self.pools[endpoint].run(work, timeout_s=timeout_s)
        except ExchangeError as error:
            self.breakers.failed(endpoint, error, self._clock(), asked_at)
            raise
        self.breakers.succeeded(endpoint, asked_at)
        return answer

    def describe(self) -> dict[str, Any]:
        """What is silenced and why, what is left of the budget, and how many threads are busy."""
        now = self._clock()
        return {
            "breakers": self.breakers.describe(now),
            "budget_left": self.budget.left(now),
            "calls_in_flight": {name: pool.in_flight for name, pool in self.pools.items()},
        }

    def close(self) -> None:
        """Take no more calls."""
        for pool in self.pools.values():
            pool.close()
