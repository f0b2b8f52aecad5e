"""Credentials: what is known of the API key, whether the gateway may use it, and asking again and again."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Never

from ..errors import ExchangeUnreachable, GatewayError, InternalError, TradingKeyRefused
from ..models import KeyInfo, Reading
from ..telemetry import get_logger

log = get_logger(__name__)

DAY_MS = 86_400_000
SOON_DAYS = 14
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 60.0
RECHECK_S = 3600.0


class Credentials:
    """What the exchange last said of the key, and what follows from it for the calls that use it.

    Invariant: where trading keys are refused, `admit` returns only if the last answer about the key was that it can
    only read. A later check that fails changes nothing: what was said last holds.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[Reading[KeyInfo]]],
        *,
        refuse_trading_keys: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._refuse_trading_keys = refuse_trading_keys
        self._clock = clock
        self._flight: asyncio.Task[None] | None = None
        self.reading: Reading[KeyInfo] | None = None

    @property
    def refusal(self) -> TradingKeyRefused | None:
        """Why the key must not be used, or None; without an answer about it there is none yet."""
        if not self._refuse_trading_keys or self.reading is None or self.reading.value.is_read_only:
            return None
        groups = ", ".join(groups_of(self.reading.value)) or "no permission is named"
        return TradingKeyRefused(
            f"this key can trade or withdraw ({groups}): use a read-only key or set bybit.allow_trading_keys"
        )

    @property
    def is_usable(self) -> bool:
        """Whether nothing is known against the use of the key, and enough for it."""
        return self.refusal is None and not (self._refuse_trading_keys and self.reading is None)

    @property
    def days_left(self) -> int | None:
        """Whole days until the key expires, by the exchange's clock; below zero afterwards, None if it never does."""
        if self.reading is None or self.reading.value.expires_at_ms is None:
            return None
        now_ms = self.reading.exchange_time_ms + (self._clock() - self.reading.arrived_at) * 1000
        return int((self.reading.value.expires_at_ms - now_ms) // DAY_MS)

    @property
    def problem(self) -> str | None:
        """What is wrong with the key, for people: it is refused, or expires soon, or has expired."""
        if (refusal := self.refusal) is not None:
            return refusal.detail
        days = self.days_left
        if days is None or days > SOON_DAYS:
            return None
        return "the key has expired" if days < 0 else f"the key expires soon, days left: {days}"

    def replace(self, reading: Reading[KeyInfo]) -> None:
        """Another key takes the place of this one. Raises TradingKeyRefused, and changes nothing, if it must not."""
        former, self.reading = self.reading, reading
        if (refusal := self.refusal) is not None:
            self.reading = former
            raise refusal

    async def admit(self) -> None:
        """Return if the key may be used. Raises TradingKeyRefused, or the ExchangeError that kept it from being known.

        Cancelling is safe.
        """
        if self._refuse_trading_keys and self.reading is None:
            await self.check()
        if (refusal := self.refusal) is not None:
            raise refusal

    async def check(self) -> None:
        """Ask what the key may do, or join the check under way. Raises ExchangeError, TradingKeyRefused among them.

        Cancelling is safe: the check goes on for the others.
        """
        flight = self._flight
        if flight is None:
            flight = self._flight = asyncio.create_task(self._check(), name="key check")
            flight.add_done_callback(self._landed)
        await asyncio.wait({flight})
        if flight.cancelled():
            raise ExchangeUnreachable("the gateway stops and makes no more calls to the exchange")
        flight.result()

    async def _check(self) -> None:
        reading = await self._ask()
        known, self.reading = self.reading, reading
        self._tell(could_write=known is not None and not known.value.is_read_only, info=reading.value)
        if (refusal := self.refusal) is not None:
            raise refusal

    def _landed(self, flight: "asyncio.Task[None]") -> None:
        self._flight = None
        if not flight.cancelled():
            flight.exception()  # looked at, so that asyncio does not complain of a check that nobody waited for

    def _tell(self, *, could_write: bool, info: KeyInfo) -> None:
        days = self.days_left
        if days is not None and days <= SOON_DAYS:
            log.warning("key_expires_soon", days_left=days)
        if could_write and info.is_read_only:
            log.info("key_can_only_read")
        if could_write or info.is_read_only:
            return
        if (refusal := self.refusal) is not None:
            log.error("key_refused", detail=refusal.detail)
        else:
            log.warning("key_can_trade", permissions=groups_of(info))

    def describe(self) -> dict[str, Any] | None:
        """For people to look at, without anything that tells whose key it is; None before the first answer."""
        if self.reading is None:
            return None
        info = self.reading.value
        return {
            "read_only": info.is_read_only,
            "permissions": info.permissions,
            "address_bound": info.is_address_bound,
            "expires_at_ms": info.expires_at_ms,
            "days_left": self.days_left,
            "checked_s": round(self.reading.age_s(self._clock()), 1),
            "problem": self.problem,
        }

    async def close(self) -> None:
        """End the check under way, if there is one."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait({self._flight})


def groups_of(info: KeyInfo) -> list[str]:
    """The groups in which the key has permissions: ContractTrade of ContractTrade:Order."""
    return sorted({permission.partition(":")[0] for permission in info.permissions})


async def keep_checked(credentials: Credentials) -> Never:
    """Check the key for ever: soon again until it is known and good, then every hour. Cancelling is safe."""
    failures = 0
    while True:
        error = await _failure(credentials)
        failures = 0 if error is None else failures + 1
        await asyncio.sleep(RECHECK_S if error is None else pause_s(failures, error))


async def _failure(credentials: Credentials) -> GatewayError | None:
    try:
        await credentials.check()
    except GatewayError as error:
        return error  # its call is in the log already
    except Exception:
        log.exception("key_check_crashed")
        return InternalError("a bug of the gateway; the log has it")
    return None


def pause_s(failures: int, error: GatewayError) -> float:
    """Seconds until the next check after so many `failures` (from 1) in a row, never before the time `error` names."""
    backoff_s = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10)) * random.uniform(0.5, 1.0)
    return max(backoff_s, error.retry_after_s or 0.0)
