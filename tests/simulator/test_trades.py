"""Trades on demand: the account as REST shows it after them, and what is no trade."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from server.simulator.instruments import CATALOGUE, Category
from server.simulator.positions import legs_of
from server.simulator.trades import steps_of

from .conftest import NOW_MS, Caller, Start

SOL = CATALOGUE[Category.LINEAR]["SOLUSDT"]


async def rows(caller: Caller, symbol: str = "SOLUSDT") -> list[dict[str, Any]]:
    answer = await caller.private("/v5/position/list", f"category=linear&symbol={symbol}")
    found: list[dict[str, Any]] = answer["result"]["list"]
    return found


async def wallet(caller: Caller) -> dict[str, Any]:
    answer = await caller.private("/v5/account/wallet-balance", "accountType=UNIFIED")
    found: dict[str, Any] = answer["result"]["list"][0]
    return found


def signed(row: dict[str, Any]) -> Decimal:
    return Decimal(row["size"]) * (-1 if row["side"] == "Sell" else 1)


async def test_each_trade_changes_size_seq_and_wallet(start: Start) -> None:
    """Trades in one and the same millisecond add up, each with a greater seq and its fee."""
    caller = await start(control=True)
    [before], money = await rows(caller), await wallet(caller)
    seen = [(before["seq"], signed(before), Decimal(money["totalWalletBalance"]))]
    for side, size in (("Buy", "3"), ("Buy", "0.5"), ("Sell", "3.5")):
        answer = await caller.put("trade", symbol="SOLUSDT", side=side, size=size)
        [row] = await rows(caller)
        assert (answer["row"], answer["time"]) == (row, NOW_MS)
        assert row["updatedTime"] == str(NOW_MS)
        seen.append((row["seq"], signed(row), Decimal((await wallet(caller))["totalWalletBalance"])))
    sequences, sizes, balances = zip(*seen, strict=True)
    assert list(sequences) == sorted(set(sequences))
    assert [after - one for one, after in pairwise(sizes)] == [3, Decimal("0.5"), Decimal("-3.5")]
    assert len(set(balances)) == 4


async def test_the_same_calls_make_the_same_account(start: Start) -> None:
    """Two exchanges of one seed that are asked the same have the same account, now and later."""
    callers = [await start(control=True, seed=3) for _ in range(2)]
    for caller in callers:
        for symbol, side in (("SOLUSDT", "Buy"), ("ETHUSDT", "Sell")):
            await caller.put("trade", symbol=symbol, side=side, size="1")
    for later_ms in (0, 200_000, 3_000_000):
        for caller in callers:
            caller.freeze(NOW_MS + later_ms)
        one, other = [(await rows(caller), await wallet(caller)) for caller in callers]
        assert one == other


async def test_a_trade_ends_with_its_cycle(start: Start) -> None:
    """Whatever was traded, the leg is flat at the end of its cycle and goes on as ever; its seq never goes back."""
    caller, untouched = await start(control=True), await start()
    await caller.put("trade", symbol="SOLUSDT", side="Sell", size="7")
    [leg] = legs_of("SOLUSDT", hedged=False)
    end_ms = (NOW_MS // leg.cycle_ms + 1) * leg.cycle_ms
    [traded] = await rows(caller)
    for one in (caller, untouched):
        one.freeze(end_ms)
    [flat] = await rows(caller)
    assert (flat["size"], flat["side"]) == ("0", "")
    assert flat["seq"] > traded["seq"]
    for one in (caller, untouched):
        one.freeze(end_ms + leg.cycle_ms // 2)
    [row], [expected] = await rows(caller), await rows(untouched)
    assert row["seq"] == expected["seq"] + 1
    different = {name for name in row if row[name] != expected[name]}
    assert different == {"seq", "cumRealisedPnl"}


async def test_hedged_legs_keep_their_side(start: Start) -> None:
    """Each leg of a hedged symbol trades by itself, can be closed, and never turns."""
    caller = await start(control=True)
    body = {"symbol": "XRPUSDT", "position_idx": 2}
    await caller.put("trade", **body, side="Sell", size="100")
    by_index = {row["positionIdx"]: row for row in await rows(caller, "XRPUSDT")}
    size = by_index[2]["size"]
    assert by_index[2]["side"] == "Sell"
    url = f"{caller.url}/_control/trade"
    more = str(Decimal(size) + Decimal("0.1"))
    async with caller.session.put(url, json={**body, "side": "Buy", "size": more}) as response:
        assert response.status == 400
        assert "hedged" in await response.text()
    closed = await caller.put("trade", **body, side="Buy", size=size)
    assert (closed["row"]["size"], closed["row"]["side"]) == ("0", "")
    others = {row["positionIdx"]: row for row in await rows(caller, "XRPUSDT")}
    assert others[1] == by_index[1]
    for minutes in range(0, 60, 2):
        caller.freeze(NOW_MS + minutes * 60_000)
        sides = {row["positionIdx"]: row["side"] for row in await rows(caller, "XRPUSDT")}
        assert sides[1] in ("", "Buy")
        assert sides[2] in ("", "Sell")


async def test_trades_are_forgotten(start: Start) -> None:
    """Without its trades the account is what it was."""
    caller = await start(control=True)
    before = await rows(caller), await wallet(caller)
    await caller.put("trade", symbol="SOLUSDT", side="Buy", size="1")
    assert (await rows(caller), await wallet(caller)) != before
    await caller.delete("trade")
    assert (await rows(caller), await wallet(caller)) == before


@pytest.mark.parametrize(
    "change",
    [
        {"symbol": "LTCUSDT"},
        {"symbol": "NOPE"},
        {"position_idx": 1},
        {"side": "buy"},
        {"size": "0"},
        {"size": "-1"},
        {"size": "0.05"},
        {"size": "NaN"},
        {"size": "1e30"},
        {"size": "much"},
        {"size": 1},
    ],
)
async def test_what_is_no_trade(start: Start, change: dict[str, Any]) -> None:
    """A trade that cannot be is 400 with a reason, and changes nothing."""
    caller = await start(control=True)
    before = await rows(caller)
    body = {"symbol": "SOLUSDT", "side": "Buy", "size": "1", **change}
    async with caller.session.put(f"{caller.url}/_control/trade", json=body) as response:
        assert response.status == 400
        assert await response.text()
    assert await rows(caller) == before


def test_steps() -> None:
    """A size is counted in the steps of its symbol."""
    assert (steps_of(SOL, "0.1"), steps_of(SOL, "12.30")) == (1, 123)
