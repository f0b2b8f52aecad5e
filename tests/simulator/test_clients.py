"""Bybit's own client and ccxt, unmodified but for the URL, cannot tell the simulator from Bybit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import ccxt
import ccxt.pro
import pytest
from pybit.exceptions import InvalidRequestError
from pybit.unified_trading import HTTP

from server.simulator.child import API_KEY, API_SECRET, SimulatorProcess


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A simulator in a process of its own, with the real clock."""
    with SimulatorProcess("--no-limits") as process:
        yield process.url


@pytest.fixture
def pybit_session(url: str) -> Iterator[HTTP]:
    session = HTTP(api_key=API_KEY, api_secret=API_SECRET)
    session.endpoint = url
    yield session
    session.client.close()


@pytest.fixture(scope="module")
def exchange(url: str) -> Iterator[Any]:
    """ccxt's Bybit with its markets loaded."""
    bybit = ccxt.bybit({"apiKey": API_KEY, "secret": API_SECRET})
    bybit.urls["api"] = dict.fromkeys(bybit.urls["api"], url)
    bybit.load_markets()
    yield bybit
    bybit.session.close()


def test_pybit_market(pybit_session: HTTP) -> None:
    """Every public call that the gateway makes is answered."""
    assert pybit_session.get_server_time()["retCode"] == 0
    ticker = pybit_session.get_tickers(category="linear", symbol="BTCUSDT")["result"]["list"]
    assert [row["symbol"] for row in ticker] == ["BTCUSDT"]
    assert len(pybit_session.get_tickers(category="linear")["result"]["list"]) >= 33
    kline = pybit_session.get_kline(category="linear", symbol="BTCUSDT", interval="240", limit=1_000)
    assert len(kline["result"]["list"]) == 1_000
    mark = pybit_session.get_mark_price_kline(category="linear", symbol="BTCUSDT", interval="1", limit=5)
    assert len(mark["result"]["list"]) == 5
    assert len(pybit_session.get_instruments_info(category="linear", limit=3)["result"]["list"]) == 3


def test_pybit_account(pybit_session: HTTP) -> None:
    """Every private call that the gateway makes passes the signature check, cursors included."""
    page = pybit_session.get_positions(category="linear", settleCoin="USDT", limit=1)["result"]
    following = pybit_session.get_positions(
        category="linear", settleCoin="USDT", limit=1, cursor=page["nextPageCursor"]
    )["result"]
    assert page["list"][0]["symbol"] < following["list"][0]["symbol"]
    assert pybit_session.get_positions(category="linear", symbol="BTCUSDT")["result"]["list"]
    wallet = pybit_session.get_wallet_balance(accountType="UNIFIED")["result"]["list"][0]
    assert float(wallet["totalAvailableBalance"]) > 0
    assert pybit_session.get_api_key_information()["result"]["readOnly"] == 1
    assert pybit_session.get_account_info()["result"]["marginMode"] == "REGULAR_MARGIN"
    assert pybit_session.get_coin_info()["result"]["rows"]


def test_pybit_errors(pybit_session: HTTP, url: str) -> None:
    """Refusals arrive as pybit's own exception with Bybit's code."""
    with pytest.raises(InvalidRequestError) as unknown:
        pybit_session.get_tickers(category="linear", symbol="NOPEUSDT")
    assert unknown.value.status_code == 10001
    stranger = HTTP(api_key=API_KEY, api_secret="wrong")
    stranger.endpoint = url
    with pytest.raises(InvalidRequestError) as unsigned:
        stranger.get_wallet_balance(accountType="UNIFIED")
    stranger.client.close()
    assert unsigned.value.status_code == 10004


def test_ccxt_markets(exchange: Any) -> None:
    """All four kinds of markets are loaded."""
    kinds = {(market["type"], market["linear"]) for market in exchange.markets.values()}
    assert kinds == {("spot", None), ("swap", True), ("swap", False), ("option", True)}
    assert exchange.market("BTC/USDT:USDT")["precision"] == {"amount": 0.001, "price": 0.1}


def test_ccxt_prices(exchange: Any) -> None:
    """Tickers and candles parse, and agree with each other."""
    ticker = exchange.fetch_ticker("BTC/USDT:USDT")
    assert ticker["bid"] < ticker["ask"]
    assert ticker["low"] <= ticker["last"] <= ticker["high"]
    assert len(exchange.fetch_tickers(params={"category": "linear"})) >= 33
    candles = exchange.fetch_ohlcv("BTC/USDT:USDT", "1h", limit=50)
    assert [later[0] - earlier[0] for earlier, later in pairwise(candles)] == [3_600_000] * 49
    since = candles[10][0]
    assert exchange.fetch_ohlcv("BTC/USDT:USDT", "1h", since=since, limit=3)[0][0] == since
    assert exchange.fetch_ohlcv("BTC/USD:BTC", "1d", limit=2)[0][5] > 0


def test_ccxt_account(exchange: Any) -> None:
    """Positions and balance parse, flat positions among them."""
    positions = exchange.fetch_positions()
    assert positions
    assert all(one["contracts"] > 0 and one["side"] in ("long", "short") for one in positions)
    assert exchange.fetch_position("LTC/USDT:USDT")["contracts"] == 0
    balance = exchange.fetch_balance()
    assert balance["USDT"]["total"] > balance["USDT"]["used"] >= 0


async def test_ccxt_streams(url: str) -> None:
    """Streams of tickers and candles, and auth with the private ones, work with ccxt's client."""
    bybit = ccxt.pro.bybit({"apiKey": API_KEY, "secret": API_SECRET})
    at = url.replace("http", "ws", 1)
    private = f"{at}/v5/private"
    streams = {
        "public": {category: f"{at}/v5/public/{category}" for category in ("spot", "linear", "inverse")},
        "private": {"spot": {"unified": private}, "contract": private},
    }
    bybit.urls["api"] = dict.fromkeys(bybit.urls["api"], url) | {"ws": streams}
    try:
        async with asyncio.timeout(30):
            first, second = [dict(await bybit.watch_ticker("BTC/USDT:USDT")) for _ in range(2)]
            assert second["open"] == first["open"]  # which a delta does not have
            assert second["timestamp"] > first["timestamp"]
            assert (await bybit.watch_ticker("BTC/USDT"))["last"] > 0
            assert len((await bybit.watch_ohlcv("BTC/USDT:USDT", "1m"))[-1]) == 6
            await bybit.watch_positions()
    finally:
        await bybit.close()
