"""Who may ask: keys, signatures, and the window of time they hold for."""

from __future__ import annotations

from typing import Any

import pytest
from yarl import URL

from server.simulator.child import API_KEY, TRADING_KEY, TRADING_SECRET
from server.simulator.clock import real_ms
from server.simulator.signing import signature

from .conftest import NOW_MS, Caller, Start

INFO = "/v5/user/query-api"


async def ask(caller: Caller, headers: dict[str, str], query: str = "") -> dict[str, Any]:
    """The answer to one private call with these headers; always HTTP 200."""
    async with caller.session.get(URL(f"{caller.url}{INFO}?{query}", encoded=True), headers=headers) as response:
        assert response.status == 200
        answer: dict[str, Any] = await response.json()
        return answer


async def test_good_signature(start: Start) -> None:
    """A signed call is answered, with or without a recv_window of its own."""
    caller = await start()
    for window in (5_000, None):
        answer = await ask(caller, caller.signed("a=1&b=%2C", window=window), "a=1&b=%2C")
        assert answer["retCode"] == 0


async def test_the_raw_query_is_signed(start: Start) -> None:
    """The signature covers the query as it was sent, escapes and order included."""
    caller = await start()
    for other in ("a=1&b=,", "b=%2C&a=1", "a=1&b=%2c", ""):
        assert (await ask(caller, caller.signed(other), "a=1&b=%2C"))["retCode"] == 10004


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"X-BAPI-API-KEY": "unknown"}, 10003),
        ({"X-BAPI-SIGN": "0" * 64}, 10004),
        ({"X-BAPI-SIGN": "é"}, 10004),
        ({"X-BAPI-SIGN": ""}, 10001),
        ({"X-BAPI-API-KEY": ""}, 10001),
        ({"X-BAPI-TIMESTAMP": ""}, 10001),
        ({"X-BAPI-TIMESTAMP": "now"}, 10001),
        ({"X-BAPI-RECV-WINDOW": "6000"}, 10004),
        ({"X-BAPI-RECV-WINDOW": "-1"}, 10001),
    ],
)
async def test_refusals(start: Start, changed: dict[str, str], code: int) -> None:
    """Each thing that can be wrong with the headers has Bybit's code, and no account data with it."""
    caller = await start()
    answer = await ask(caller, caller.signed() | changed)
    assert (answer["retCode"], answer["result"]) == (code, {})


async def test_no_headers(start: Start) -> None:
    """A private call without any authentication is refused, a public one needs none."""
    caller = await start()
    assert (await ask(caller, {}))["retMsg"] == "empty value: apiTimestamp[] apiKey[] apiSignature[]"
    assert (await caller.get("/v5/market/time"))["retCode"] == 0


@pytest.mark.parametrize(
    ("offset_ms", "window", "good"),
    [
        (-5_001, 5_000, False),
        (-5_000, 5_000, True),
        (-4_999, 5_000, True),
        (-5_001, None, False),
        (-5_000, None, True),
        (-101, 100, False),
        (-100, 100, True),
        (999, 5_000, True),
        (1_000, 5_000, False),
        (1_001, 5_000, False),
    ],
)
async def test_window(start: Start, offset_ms: int, window: int | None, good: bool) -> None:
    """A timestamp is good from recv_window before the server's time to less than a second after it."""
    caller = await start()
    answer = await ask(caller, caller.signed(at_ms=NOW_MS + offset_ms, window=window))
    assert answer["retCode"] == (0 if good else 10002)
    if not good:
        window = 5_000 if window is None else window
        assert f"req_timestamp[{NOW_MS + offset_ms}],server_timestamp[{NOW_MS}]" in answer["retMsg"]
        assert answer["retMsg"].endswith(f"recv_window[{window}]")


async def test_real_time_signs_under_a_frozen_clock(start: Start) -> None:
    """While the clock stands still, clients that keep the real time are still believed; others are not."""
    caller = await start()
    assert (await ask(caller, caller.signed(at_ms=real_ms())))["retCode"] == 0
    assert (await ask(caller, caller.signed(at_ms=real_ms() - 3_600_000)))["retCode"] == 10002


async def test_an_offset_moves_the_window(start: Start) -> None:
    """With an offset the exchange's time is that much ahead, and the real time is no longer good."""
    caller = await start(freeze_ms=None)
    caller.simulator.exchange.clock.set(offset_ms=60_000)
    assert (await ask(caller, caller.signed(at_ms=real_ms())))["retCode"] == 10002
    assert (await ask(caller, caller.signed(at_ms=real_ms() + 60_000)))["retCode"] == 0


async def test_keys(start: Start) -> None:
    """The read-only key says so; the other one may trade and withdraw; both expire in the future."""
    caller = await start()
    reading = (await ask(caller, caller.signed()))["result"]
    text = f"{NOW_MS}{TRADING_KEY}"
    headers = {"X-BAPI-API-KEY": TRADING_KEY, "X-BAPI-TIMESTAMP": str(NOW_MS)}
    trading = (await ask(caller, headers | {"X-BAPI-SIGN": signature(TRADING_SECRET, text)}))["result"]
    assert (reading["apiKey"], reading["readOnly"], reading["permissions"]["Wallet"]) == (API_KEY, 1, [])
    assert (trading["apiKey"], trading["readOnly"]) == (TRADING_KEY, 0)
    assert "Withdraw" in trading["permissions"]["Wallet"]
    assert reading["expiredAt"] == "2025-02-01T00:00:00Z"
    assert reading["deadlineDay"] == 70
