"""Credentials: no verdict is better than the last answer, one check serves all who wait, and it is asked for again."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from server.bybit import credentials as module
from server.bybit.credentials import DAY_MS, LAST_PAUSE_S, SOON_DAYS, Credentials, keep_checked, pause_s
from server.errors import (
    CredentialsRefused,
    ExchangeBusy,
    ExchangeError,
    ExchangeTimeout,
    ExchangeUnreachable,
    RateExceeded,
    TradingKeyRefused,
)
from server.models import KeyInfo, Reading

from .conftest import until

NOW_MS = 1_795_000_000_000
PERMISSIONS = ("ContractTrade:Order", "ContractTrade:Position", "Wallet:Withdraw")
READING = KeyInfo(is_read_only=True, permissions=PERMISSIONS, expires_at_ms=None, is_address_bound=False)
TRADING = KeyInfo(is_read_only=False, permissions=PERMISSIONS, expires_at_ms=None, is_address_bound=False)

Outcome = KeyInfo | Exception


def expiring(after_ms: int) -> KeyInfo:
    """A key that expires so long after NOW_MS."""
    return KeyInfo(is_read_only=True, permissions=(), expires_at_ms=NOW_MS + after_ms, is_address_bound=False)


Ask = Callable[[], Awaitable[Reading[KeyInfo]]]


def answering(*outcomes: Outcome, gate: asyncio.Event | None = None) -> tuple[Ask, list[Outcome]]:
    """An exchange that gives these answers in turn, the last one again and again, and those that were asked for.

    With a gate, no answer comes before it is set.
    """
    given: list[Outcome] = []

    async def ask() -> Reading[KeyInfo]:
        given.append(outcome := outcomes[min(len(given), len(outcomes) - 1)])
        if gate is not None:
            await gate.wait()
        if isinstance(outcome, Exception):
            raise outcome
        return Reading(value=outcome, asked_at=10.0, arrived_at=10.0, exchange_time_ms=NOW_MS)

    return ask, given


def credentials_of(*outcomes: Outcome, refuse: bool = True, now: float = 10.0) -> Credentials:
    """What is known of a key at `now`, from an exchange that gives these answers."""
    return Credentials(answering(*outcomes)[0], refuse_trading_keys=refuse, clock=lambda: now)


def events(logs: list[Any]) -> list[tuple[str, str]]:
    """Event and level of each line."""
    return [(line["event"], line["log_level"]) for line in logs]


async def test_a_key_that_can_only_read_is_used() -> None:
    """It is admitted after one question, without a word in the log."""
    ask, asked = answering(READING)
    credentials = Credentials(ask, refuse_trading_keys=True)
    with capture_logs() as logs:
        for _ in range(3):
            await credentials.admit()
    assert (len(asked), logs, credentials.refusal, credentials.problem) == (1, [], None, None)


async def test_a_key_that_can_trade_is_refused() -> None:
    """Nothing is admitted; the reason names what the key can do and what to do, and the log has it once."""
    credentials = credentials_of(TRADING)
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(
                TradingKeyRefused, match=r"trade or withdraw \(ContractTrade, Wallet\).*read-only"
            ) as no:
                await credentials.admit()
    assert "bybit.allow_trading_keys" in no.value.detail
    assert (no.value.reason, no.value.temporary) == ("credentials_refused", False)
    assert logs == [{"event": "key_refused", "log_level": "error", "detail": no.value.detail}]
    assert credentials.problem == no.value.detail


async def test_a_key_that_can_write_without_permissions_is_refused_too() -> None:
    """What decides is that it is not read only."""
    info = KeyInfo(is_read_only=False, permissions=(), expires_at_ms=None, is_address_bound=True)
    with pytest.raises(TradingKeyRefused, match="no permission is named"):
        await credentials_of(info).admit()


async def test_where_trading_keys_are_allowed_nobody_waits() -> None:
    """A key is admitted unasked, and one that can trade is a warning."""
    ask, asked = answering(TRADING)
    credentials = Credentials(ask, refuse_trading_keys=False)
    await credentials.admit()
    assert asked == []
    with capture_logs() as logs:
        await credentials.check()
        await credentials.check()
    await credentials.admit()
    assert logs == [{"event": "key_can_trade", "log_level": "warning", "permissions": ["ContractTrade", "Wallet"]}]
    assert (credentials.refusal, credentials.problem) == (None, None)


async def test_a_check_that_fails_admits_nothing() -> None:
    """Until it is known what the key may do, each call gets the failure of the check that it made."""
    ask, asked = answering(ExchangeTimeout("late"), ExchangeBusy("busy"), READING)
    credentials = Credentials(ask, refuse_trading_keys=True)
    with pytest.raises(ExchangeTimeout):
        await credentials.admit()
    with pytest.raises(ExchangeBusy):
        await credentials.admit()
    assert (credentials.describe(), credentials.refusal, credentials.days_left) == (None, None, None)
    await credentials.admit()
    await credentials.admit()
    assert len(asked) == 3


@pytest.mark.parametrize("outcome", [READING, TRADING, ExchangeBusy("busy")])
async def test_one_check_serves_all_who_wait(outcome: Outcome) -> None:
    """Whoever waits shares the check under way and its outcome; one that gives up takes nothing from the others."""
    gate = asyncio.Event()
    ask, asked = answering(outcome, gate=gate)
    credentials = Credentials(ask, refuse_trading_keys=True)
    waiting = [asyncio.ensure_future(credentials.admit()) for _ in range(5)]
    await until(lambda: bool(asked))
    waiting[0].cancel()
    gate.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert len(asked) == 1
    assert isinstance(outcomes[0], asyncio.CancelledError)
    kind = type(None) if outcome is READING else TradingKeyRefused if outcome is TRADING else ExchangeBusy
    assert {type(other) for other in outcomes[1:]} == {kind}


async def test_a_check_that_nobody_waits_for_any_more() -> None:
    """It goes on to its end, and its failure is no unhandled one."""
    gate = asyncio.Event()
    ask, asked = answering(ExchangeBusy("busy"), READING, gate=gate)
    credentials = Credentials(ask, refuse_trading_keys=True)
    waiting = asyncio.ensure_future(credentials.admit())
    await until(lambda: bool(asked))
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    gate.set()
    await until(lambda: credentials._flight is None)
    del waiting  # its traceback holds the check, which complains when it is collected
    gc.collect()
    assert complaints == []
    await credentials.admit()


async def test_closing_ends_the_check() -> None:
    """Who waits for a check when the gateway stops is told so; closing twice does nothing."""
    credentials = Credentials(answering(READING, gate=asyncio.Event())[0], refuse_trading_keys=True)
    waiting = asyncio.ensure_future(credentials.admit())
    await until(lambda: credentials._flight is not None)
    await credentials.close()
    await credentials.close()
    with pytest.raises(ExchangeUnreachable, match="stops"):
        await waiting


async def test_a_key_that_changes() -> None:
    """One that has become able to trade is refused from then on, one that is good again is used; each is told once."""
    credentials = credentials_of(READING, TRADING, TRADING, ExchangeBusy("busy"), READING, READING)
    verdicts: list[bool] = []
    outcomes: list[BaseException | None] = []
    with capture_logs() as logs:
        for _ in range(6):
            outcomes += await asyncio.gather(credentials.check(), return_exceptions=True)
            verdicts.append(credentials.refusal is not None)
    assert verdicts == [False, True, True, True, False, False], "a check that fails changes nothing"
    assert [type(outcome) for outcome in outcomes if outcome] == [TradingKeyRefused, TradingKeyRefused, ExchangeBusy]
    assert events(logs) == [("key_refused", "error"), ("key_can_only_read", "info")]


@pytest.mark.parametrize(
    ("after_ms", "days_left", "problem"),
    [
        ((SOON_DAYS + 1) * DAY_MS, SOON_DAYS + 1, None),
        ((SOON_DAYS + 1) * DAY_MS - 1, SOON_DAYS, "the key expires soon, days left: 14"),
        (DAY_MS - 1, 0, "the key expires soon, days left: 0"),
        (-1, -1, "the key has expired"),
        (-30 * DAY_MS, -30, "the key has expired"),
    ],
)
async def test_expiry_is_told_in_time(after_ms: int, days_left: int, problem: str | None) -> None:
    """From fourteen days on each check warns, and the problem has a name; the key is used all the same."""
    credentials = credentials_of(expiring(after_ms))
    with capture_logs() as logs:
        await credentials.check()
        await credentials.check()
    assert (credentials.days_left, credentials.problem) == (days_left, problem)
    line = {"event": "key_expires_soon", "log_level": "warning", "days_left": days_left}
    assert logs == ([line] * 2 if problem else [])
    await credentials.admit()


async def test_days_pass_between_checks() -> None:
    """Time goes on by the exchange's clock, from the answer on."""
    credentials = credentials_of(expiring(20 * DAY_MS), now=10.0 + 3.5 * DAY_MS / 1000)
    await credentials.check()
    assert credentials.days_left == 16
    assert credentials.describe() == {
        "read_only": True,
        "permissions": (),
        "address_bound": False,
        "expires_at_ms": NOW_MS + 20 * DAY_MS,
        "days_left": 16,
        "checked_s": 3.5 * DAY_MS / 1000,
        "problem": None,
    }


async def test_a_refusal_is_told_before_expiry() -> None:
    """Of two problems, the one that keeps the account away."""
    info = KeyInfo(is_read_only=False, permissions=PERMISSIONS, expires_at_ms=NOW_MS, is_address_bound=False)
    credentials = credentials_of(info)
    with pytest.raises(TradingKeyRefused) as caught:
        await credentials.check()
    assert (credentials.days_left, credentials.problem) == (0, caught.value.detail)


@given(failures=st.integers(1, 10**6), retry_after_s=st.none() | st.floats(0, 600))
def test_pauses(failures: int, retry_after_s: float | None) -> None:
    """They grow from a second to a minute, with jitter, and never end before the time that the failure names."""
    pause = pause_s(failures, RateExceeded("later", retry_after_s=retry_after_s))
    grown = min(LAST_PAUSE_S, 2.0 ** min(failures - 1, 6))
    assert max(grown / 2, retry_after_s or 0) <= pause <= max(grown, retry_after_s or 0)


async def checked_until(ask: Ask, is_over: Callable[[], bool]) -> None:
    """Keep a key checked until something is true."""
    credentials = Credentials(ask, refuse_trading_keys=True)
    checker = asyncio.ensure_future(keep_checked(credentials))
    await until(is_over)
    checker.cancel()
    await asyncio.wait({checker})
    assert checker.cancelled()
    await credentials.close()


async def test_checks_repeat_until_one_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures, crashes and refusals are followed by the next check soon, success by none before its hour."""
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)
    bug = ZeroDivisionError("internals")
    ask, asked = answering(ExchangeTimeout("late"), bug, CredentialsRefused("no"), TRADING, READING, TRADING)
    with capture_logs() as logs:
        await checked_until(ask, lambda: len(asked) == 5)
        assert [type(outcome) for outcome in asked][:3] == [ExchangeTimeout, ZeroDivisionError, CredentialsRefused]
    assert events(logs)[:2] == [("key_check_crashed", "error"), ("key_refused", "error")]
    assert asked[-1] is READING


async def test_good_keys_are_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After success the next check comes in its time, for ever."""
    monkeypatch.setattr(module, "RECHECK_S", 0.001)
    ask, asked = answering(READING)
    await checked_until(ask, lambda: len(asked) >= 5)


async def test_a_named_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure that names its time is not followed by a check before."""
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)
    errors: list[ExchangeError] = [RateExceeded("later", retry_after_s=0.2), RateExceeded("later", retry_after_s=300.0)]
    ask, asked = answering(*errors)
    loop = asyncio.get_running_loop()
    started = loop.time()
    await checked_until(ask, lambda: len(asked) == 2)
    assert loop.time() - started >= 0.2
