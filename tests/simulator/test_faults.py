"""Misbehaviour on demand, and the rest of the control routes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import pytest
from yarl import URL

from .conftest import NOW_MS, Caller, Start

TICKERS, TIME = "/v5/market/tickers", "/v5/market/time"
BTC = {"category": "linear", "symbol": "BTCUSDT"}


async def put(caller: Caller, what: str, **body: Any) -> None:
    async with caller.session.put(f"{caller.url}/_control/{what}", json=body) as response:
        assert response.status == 200, await response.text()


async def heal(caller: Caller, endpoint: str = "") -> None:
    query = f"?endpoint={endpoint}" if endpoint else ""
    async with caller.session.delete(f"{caller.url}/_control/fault{query}") as response:
        assert response.status == 200


async def test_codes_and_results(start: Start) -> None:
    """A fault changes code, message and result of its endpoint's envelope, of no other, until it is removed."""
    caller = await start(control=True)
    await put(caller, "fault", endpoint="tickers", ret_code=10016, ret_msg="Server error.")
    answer = await caller.get(TICKERS, **BTC)
    assert (answer["retCode"], answer["retMsg"], answer["result"]) == (10016, "Server error.", {})
    assert (await caller.get(TIME))["retCode"] == 0
    await put(caller, "fault", endpoint="tickers", result={"list": None})
    assert (await caller.get(TICKERS, **BTC))["result"] == {"list": None}
    await heal(caller, "tickers")
    assert (await caller.get(TICKERS, **BTC))["retCode"] == 0


async def test_http_answers(start: Start) -> None:
    """Status, raw body, a body of a given size and headers are as asked."""
    caller = await start(control=True)
    url = caller.url + TIME
    await put(caller, "fault", endpoint="time", status=502, headers={"Retry-After": "7"})
    async with caller.session.get(url) as response:
        assert (response.status, response.headers["Retry-After"]) == (502, "7")
        assert b"502" in await response.read()
    await put(caller, "fault", endpoint="time", body="[1,")
    async with caller.session.get(url) as response:
        assert (response.status, await response.read()) == (200, b"[1,")
    await put(caller, "fault", endpoint="time", body_bytes=3_000_000)
    async with caller.session.get(url) as response:
        assert len(await response.read()) == 3_000_000


async def test_times_and_symbols(start: Start) -> None:
    """A fault holds for so many calls, and only for its symbols, and one for all endpoints for every path."""
    caller = await start(control=True)
    await put(caller, "fault", endpoint="*", ret_code=10000, times=2, symbols=["ETHUSDT"])
    codes = [(await caller.get(TICKERS, category="linear", symbol=s))["retCode"] for s in ("BTCUSDT", "ETHUSDT")]
    codes += [(await caller.get("/v5/market/kline", symbol="ETHUSDT", interval="1"))["retCode"] for _ in range(2)]
    assert codes == [0, 10000, 10000, 0]


async def test_latency(start: Start) -> None:
    """Latency delays the answer and leaves it whole."""
    caller = await start(control=True)
    await put(caller, "fault", endpoint="time", latency_s=0.15)
    before = time.monotonic()
    assert (await caller.get(TIME))["retCode"] == 0
    assert 0.15 <= time.monotonic() - before < 5.0


async def ask_raw(caller: Caller, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A call without a client: aiohttp's would ask again after a closed connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(caller.url).port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return reader, writer


async def test_reset(start: Start) -> None:
    """A reset closes the connection without an answer."""
    caller = await start(control=True)
    await put(caller, "fault", endpoint="time", reset=True, times=1)
    reader, writer = await ask_raw(caller, TIME)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    assert (await caller.get(TIME))["retCode"] == 0


async def test_hang_until_removed(start: Start) -> None:
    """A hanging call stays without an answer, others are answered; its connection closes when the fault is removed."""
    caller = await start(control=True)
    await put(caller, "fault", endpoint="time", hang=True)
    reader, writer = await ask_raw(caller, TIME)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)
    assert caller.simulator.calls.counts[TIME] == 1
    assert (await caller.get(TICKERS, **BTC))["retCode"] == 0
    await heal(caller)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_drip(start: Start) -> None:
    """A dripping answer has its headers and first byte at once, and is cut off when the fault is removed."""
    caller = await start(control=True)
    await put(caller, "fault", endpoint="time", drip=True)
    async with aiohttp.ClientSession() as session, session.get(caller.url + TIME) as response:
        assert await asyncio.wait_for(response.content.readexactly(1), 5) == b"{"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(response.content.readexactly(3), 0.1)
        await heal(caller)
        with pytest.raises(aiohttp.ClientPayloadError):
            await asyncio.wait_for(response.read(), 5)


async def test_calls(start: Start) -> None:
    """Calls are counted by path, the last ones with their query, and forgotten on request."""
    caller = await start(control=True)
    await caller.get(TICKERS, **BTC)
    await caller.get(TICKERS, **BTC)
    async with caller.session.get(caller.url + "/_control/calls") as response:
        calls = await response.json()
    assert calls[TICKERS] == calls["counts"][TICKERS] == 2
    assert calls["recent"][-1]["query"] == "category=linear&symbol=BTCUSDT"
    async with caller.session.delete(caller.url + "/_control/calls") as response:
        assert response.status == 200
    assert not caller.simulator.calls.counts


async def test_clock(start: Start) -> None:
    """The clock freezes, runs with an offset, and is set right again."""
    caller = await start(control=True, freeze_ms=None)
    await put(caller, "clock", freeze_ms=NOW_MS)
    assert (await caller.get(TIME))["time"] == NOW_MS
    await put(caller, "clock", offset_ms=3_600_000)
    assert abs((await caller.get(TIME))["time"] - time.time() * 1_000 - 3_600_000) < 5_000
    await put(caller, "clock")
    assert abs((await caller.get(TIME))["time"] - time.time() * 1_000) < 5_000


async def test_account(start: Start) -> None:
    """Margin and hedge modes change at once, each without the other."""
    caller = await start(control=True)
    await put(caller, "account", margin="isolated")
    await put(caller, "account", hedge=["BTCUSDT"])
    assert (await caller.private("/v5/account/info"))["result"]["marginMode"] == "ISOLATED_MARGIN"
    rows = (await caller.private("/v5/position/list", "category=linear&symbol=BTCUSDT"))["result"]["list"]
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("fault", {"endpoint": "nothing"}),
        ("fault", {"endpoint": "time", "unknown": 1}),
        ("fault", {"endpoint": "time", "latency_s": "long"}),
        ("clock", {"freeze": 1}),
        ("clock", {"freeze_ms": -1}),
        ("clock", {"freeze_ms": 10**15}),
        ("account", {"margin": "portfolio"}),
        ("account", {"hedge": ["NOPE"]}),
    ],
)
async def test_bad_control(start: Start, what: str, body: dict[str, Any]) -> None:
    """A control body that says nothing sensible is 400 with a reason, and changes nothing."""
    caller = await start(control=True)
    async with caller.session.put(f"{caller.url}/_control/{what}", json=body) as response:
        assert response.status == 400
        assert await response.text()
    assert (await caller.get(TIME))["time"] == NOW_MS
