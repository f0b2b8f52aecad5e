"""The answers over HTTP: Bybit's envelope, rows, messages, pages and limits."""

from __future__ import annotations

import re
from typing import Any

import pytest

from server.simulator.app import PRIVATE, PUBLIC, create_simulator
from server.simulator.candles import INTERVALS
from server.simulator.instruments import CATALOGUE, Category

from .conftest import NOW_MS, Start

TICKERS, KLINE, INSTRUMENTS = "/v5/market/tickers", "/v5/market/kline", "/v5/market/instruments-info"
POSITIONS, WALLET = "/v5/position/list", "/v5/account/wallet-balance"
decimal = re.compile(r"-?\d+(\.\d+)?").fullmatch


async def test_envelope_and_time(start: Start) -> None:
    """Every answer has Bybit's five fields, and the time is the exchange's clock."""
    answer = await (await start()).get("/v5/market/time")
    assert list(answer) == ["retCode", "retMsg", "result", "retExtInfo", "time"]
    assert (answer["retCode"], answer["retMsg"], answer["retExtInfo"], answer["time"]) == (0, "OK", {}, NOW_MS)
    assert answer["result"]["timeSecond"] == str(NOW_MS // 1_000)
    assert int(answer["result"]["timeNano"]) // 1_000_000 == NOW_MS


async def test_catalogue(start: Start) -> None:
    """There are at least 30 USDT perpetuals, and USDC, inverse, spot and option listings beside them."""
    caller = await start()
    linear = (await caller.get(INSTRUMENTS, category="linear"))["result"]["list"]
    assert sum(row["settleCoin"] == "USDT" for row in linear) >= 30
    assert {"BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "DOGEUSDT", "ADAUSDT", "BNBUSDT", "LTCUSDT"} <= {
        row["symbol"] for row in linear
    }
    assert sum(row["settleCoin"] == "USDC" for row in linear) >= 2
    for category in ("inverse", "spot", "option"):
        rows = (await caller.get(INSTRUMENTS, category=category))["result"]["list"]
        assert {row["status"] for row in rows} == {"Trading"}
        if category == "option":
            assert all(int(row["deliveryTime"]) > NOW_MS + 5 * 86_400_000 for row in rows)


@pytest.mark.parametrize("category", ["linear", "inverse", "spot"])
async def test_tickers_are_strings_of_numbers(start: Start, category: str) -> None:
    """A listing has every symbol, the same row as asked for alone, and only decimal strings or ""."""
    caller = await start()
    rows = (await caller.get(TICKERS, category=category))["result"]["list"]
    assert [row["symbol"] for row in rows] == list(CATALOGUE[Category(category)])
    single = await caller.get(TICKERS, category=category, symbol=rows[0]["symbol"])
    assert single["result"] == {"category": category, "list": [rows[0]]}
    for row in rows:
        assert all(text == "" or decimal(text) for name, text in row.items() if name != "symbol")
        assert float(row["lowPrice24h"]) <= float(row["lastPrice"]) <= float(row["highPrice24h"])


async def test_option_tickers(start: Start) -> None:
    """Options are listed by base coin, and found by symbol."""
    caller = await start()
    rows = (await caller.get(TICKERS, category="option", baseCoin="BTC"))["result"]["list"]
    assert len(rows) >= 4
    again = (await caller.get(TICKERS, category="option", symbol=rows[2]["symbol"]))["result"]["list"]
    assert again == [rows[2]]
    assert (await caller.get(TICKERS, category="option"))["retCode"] == 10001


@pytest.mark.parametrize("interval", INTERVALS)
async def test_kline(start: Start, interval: str) -> None:
    """Candles come newest first, 200 by default, the forming one closing at the ticker's last price."""
    caller = await start()
    result = (await caller.get(KLINE, category="linear", symbol="ETHUSDT", interval=interval))["result"]
    ticker = (await caller.get(TICKERS, category="linear", symbol="ETHUSDT"))["result"]["list"][0]
    rows = result["list"]
    opens = [int(row[0]) for row in rows]
    assert opens == sorted(set(opens), reverse=True)
    assert len(rows) == 200 or interval in "WM"
    assert all(len(row) == 7 and all(decimal(text) for text in row) for row in rows)
    assert float(rows[0][4]) == float(ticker["lastPrice"])
    assert (result["symbol"], result["category"]) == ("ETHUSDT", "linear")


async def test_kline_of_every_category(start: Start) -> None:
    """Inverse and spot have candles too; mark and index candles have no volume."""
    caller = await start()
    for category, symbol in (("inverse", "BTCUSD"), ("spot", "BTCUSDT"), ("linear", "BTCPERP")):
        answer = await caller.get(KLINE, category=category, symbol=symbol, interval="60", limit=1_000)
        assert len(answer["result"]["list"]) == 1_000
    for path in ("/v5/market/mark-price-kline", "/v5/market/index-price-kline"):
        rows = (await caller.get(path, category="linear", symbol="BTCUSDT", interval="5", limit=3))["result"]["list"]
        assert [len(row) for row in rows] == [5, 5, 5]


@pytest.mark.parametrize(
    ("path", "query", "message"),
    [
        (TICKERS, {"category": "margin"}, "params error: Category is invalid"),
        (TICKERS, {}, "Illegal category"),
        (TICKERS, {"category": "linear", "symbol": "NOPEUSDT"}, "params error: Symbol Is Invalid"),
        (INSTRUMENTS, {"category": "linear", "symbol": "NOPEUSDT"}, "params error: Symbol Is Invalid"),
        (INSTRUMENTS, {"category": "linear", "limit": 1_001}, "params error: limit is invalid"),
        (INSTRUMENTS, {"category": "linear", "limit": "x"}, "params error: limit is invalid"),
        (KLINE, {"symbol": "NOPEUSDT", "interval": "1"}, "Not supported symbols"),
        (KLINE, {"symbol": "BTCUSDT", "interval": "2"}, "Invalid period!"),
        (KLINE, {"symbol": "BTCUSDT"}, "Invalid period!"),
        (KLINE, {"symbol": "BTCUSDT", "interval": "1", "limit": 0}, "params error: limit is invalid"),
        (KLINE, {"symbol": "BTCUSDT", "interval": "1", "limit": 1_001}, "params error: limit is invalid"),
        (KLINE, {"symbol": "BTCUSDT", "interval": "1", "start": "-5"}, "params error: start is invalid"),
        (KLINE, {"category": "option", "symbol": "BTCUSDT", "interval": "1"}, "params error: Category is invalid"),
    ],
)
async def test_bad_parameters(start: Start, path: str, query: dict[str, Any], message: str) -> None:
    """Bad parameters are retCode 10001 with Bybit's kind of message, over HTTP 200."""
    answer = await (await start()).get(path, **query)
    assert (answer["retCode"], answer["retMsg"], answer["result"]) == (10001, message, {})


async def test_unknown_path(start: Start) -> None:
    """A path that the exchange does not have is HTTP 404, and so is control where it was not asked for."""
    caller = await start()
    for path in ("/v5/market/nothing", "/", "/_control/calls"):
        async with caller.session.get(caller.url + path) as response:
            assert response.status == 404


async def test_instrument_pages(start: Start) -> None:
    """Pages of any size add up to the whole list; the cursor is escaped and empty on the last page."""
    caller = await start()
    everything = (await caller.get(INSTRUMENTS, category="linear"))["result"]
    assert everything["nextPageCursor"] == ""
    rows: list[Any] = []
    cursor = ""
    for _ in range(50):
        page = (await caller.get(INSTRUMENTS, category="linear", limit=7, cursor=cursor))["result"]
        assert len(page["list"]) <= 7
        rows += page["list"]
        if not (cursor := page["nextPageCursor"]):
            break
    assert rows == everything["list"]


async def test_instrument_filters(start: Start) -> None:
    """Symbol, base coin and status narrow the list; nothing is in pre-launch."""
    caller = await start()

    async def symbols(**query: object) -> list[str]:
        answer = await caller.get(INSTRUMENTS, category="linear", **query)
        return [row["symbol"] for row in answer["result"]["list"]]

    assert await symbols(symbol="BTCUSDT") == ["BTCUSDT"]
    assert await symbols(baseCoin="BTC") == ["BTCPERP", "BTCUSDT"]
    assert await symbols(status="PreLaunch") == []
    assert len(await symbols(status="Trading")) == len(CATALOGUE[Category.LINEAR])


async def test_position_pages(start: Start) -> None:
    """Pages of one row add up to the listing, the cursor sent back escaped as it came; an empty page ends them."""
    caller = await start()
    whole = (await caller.private(POSITIONS, "category=linear&settleCoin=USDT"))["result"]["list"]
    assert len(whole) >= 2
    rows: list[Any] = []
    query = "category=linear&settleCoin=USDT&limit=1"
    cursor = ""
    for _ in range(50):
        page = (await caller.private(POSITIONS, f"{query}&cursor={cursor}" if cursor else query))["result"]
        rows += page["list"]
        if not (cursor := page["nextPageCursor"]):
            break
        assert "%2C" in cursor
    assert rows == whole


async def test_positions_by_symbol_and_by_coin(start: Start) -> None:
    """A symbol has its rows even when flat; a settle or base coin lists open positions only."""
    caller = await start()
    flat = (await caller.private(POSITIONS, "category=linear&symbol=LTCUSDT"))["result"]["list"]
    assert [row["size"] for row in flat] == ["0"]
    listed = (await caller.private(POSITIONS, "category=linear&settleCoin=USDT&limit=200"))["result"]["list"]
    assert all(float(row["size"]) > 0 and row["symbol"].endswith("USDT") for row in listed)
    row = listed[0]
    base = row["symbol"].removesuffix("USDT")
    assert row in (await caller.private(POSITIONS, f"category=linear&baseCoin={base}"))["result"]["list"]
    assert row in (await caller.private(POSITIONS, f"category=linear&symbol={row['symbol']}"))["result"]["list"]
    hedged = (await caller.private(POSITIONS, "category=linear&symbol=XRPUSDT"))["result"]["list"]
    assert sorted(row["positionIdx"] for row in hedged) == [1, 2]
    assert (await caller.private(POSITIONS, "category=inverse"))["result"]["list"] == []


@pytest.mark.parametrize(
    ("path", "query", "message"),
    [
        (POSITIONS, "category=linear", "Missing some parameters that must be filled in, symbol or settleCoin"),
        (POSITIONS, "category=spot&symbol=BTCUSDT", "params error: Category is invalid"),
        (POSITIONS, "category=linear&symbol=NOPEUSDT", "params error: Symbol Is Invalid"),
        (POSITIONS, "category=linear&settleCoin=USDT&limit=201", "params error: limit is invalid"),
        (POSITIONS, "category=linear&settleCoin=USDT&cursor=x", "params error: cursor is invalid"),
        (WALLET, "accountType=SPOT", "accountType only support UNIFIED."),
    ],
)
async def test_bad_private_parameters(start: Start, path: str, query: str, message: str) -> None:
    """Private endpoints refuse bad parameters as the public ones do."""
    answer = await (await start()).private(path, query)
    assert (answer["retCode"], answer["retMsg"]) == (10001, message)


async def test_wallet_coin_filter(start: Start) -> None:
    """The coin filter narrows the coins, not the totals."""
    caller = await start()
    whole = (await caller.private(WALLET, "accountType=UNIFIED"))["result"]["list"][0]
    part = (await caller.private(WALLET, "accountType=UNIFIED&coin=BTC,USDC"))["result"]["list"][0]
    assert [coin["coin"] for coin in part["coin"]] == ["USDC", "BTC"]
    assert part["totalEquity"] == whole["totalEquity"]


async def test_margin_mode(start: Start) -> None:
    """The margin option shows in the account's info and in the wallet."""
    isolated = await start(margin="isolated", hedged=())
    assert (await isolated.private("/v5/account/info"))["result"]["marginMode"] == "ISOLATED_MARGIN"
    assert (await isolated.private(WALLET, "accountType=UNIFIED"))["result"]["list"][0]["totalAvailableBalance"] == ""
    assert len((await isolated.private(POSITIONS, "category=linear&symbol=XRPUSDT"))["result"]["list"]) == 1


async def test_the_same_instant_gives_the_same_bytes(start: Start) -> None:
    """Two simulators, one warmed up otherwise, answer every public and private call byte for byte alike."""
    one, other = await start(), await start()
    await other.get(KLINE, category="linear", symbol="BTCUSDT", interval="D", limit=900)
    query = "category=linear&symbol=BTCUSDT&interval=240&settleCoin=USDT&accountType=UNIFIED"
    for path in (*PUBLIC, *PRIVATE):
        bodies = []
        for caller in (one, other):
            async with caller.session.get(f"{caller.url}{path}?{query}", headers=caller.signed(query)) as response:
                bodies.append(await response.read())
        assert bodies[0] == bodies[1]
        assert b'"retCode":0' in bodies[0]


def test_unknown_modes_are_refused() -> None:
    """A margin mode or hedged symbol that does not exist is a ValueError that names it."""
    from server.simulator.app import create_simulator

    with pytest.raises(ValueError, match="portfolio"):
        create_simulator(margin="portfolio")
    with pytest.raises(ValueError, match="NOPEUSDT"):
        create_simulator(hedged=["BTCUSDT", "NOPEUSDT"])


async def test_more_symbols(start: Start) -> None:
    """An exchange can have more symbols than the catalogue: each with its instrument, its ticker and its candles."""
    caller = await start(symbols=100)
    listed = (await caller.get(INSTRUMENTS, category="linear"))["result"]["list"]
    rows = (await caller.get(TICKERS, category="linear"))["result"]["list"]
    assert [row["symbol"] for row in listed] == [row["symbol"] for row in rows]
    assert len(rows) == 100
    candles = await caller.get(KLINE, category="linear", symbol="FILL042USDT", interval="1")
    assert len(candles["result"]["list"]) == 200
    with pytest.raises(ValueError, match="at most"):
        create_simulator(symbols=2_001)
