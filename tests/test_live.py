"""The whole gateway and the exchange's streams: cut, silent or refused, they are noticed and polling takes over."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from server.settings import Profile, Secret
from server.simulator.child import TRADING_KEY, TRADING_SECRET
from tests.conftest import Exchange, Gateway, StartGateway, receive
from tests.realtime.sockets import settled

TICKERS, WALLET = "/v5/market/tickers", "/v5/account/wallet-balance"
FLAT_MS = 1_760_313_601_000
"""2025-10-13, a second past midnight UTC: the account holds nothing."""
LONG_S = 30.0


class World:
    """A gateway with streams, and the exchange behind it."""

    def __init__(self, gateway: Gateway, exchange: Exchange) -> None:
        self.gateway, self.exchange = gateway, exchange

    async def streams(self) -> Any:
        """What the gateway says of its streams."""
        async with self.gateway.get("/health") as response:
            return (await response.json())["streams"]

    async def until(self, kind: str, **expected: int) -> dict[str, Any]:
        """Wait until the streams of a kind are so; gives all that is said of them."""
        async with asyncio.timeout(LONG_S):
            while True:
                said: dict[str, Any] = (await self.streams())[kind]
                if all(said[name] == value for name, value in expected.items()):
                    return said

    async def calls(self, path: str) -> int:
        """How often the exchange was asked so far."""
        return (await self.exchange.calls()).get(path, 0)

    async def called(self, path: str, more: int) -> None:
        """Wait for so many more calls."""
        before = await self.calls(path)
        async with asyncio.timeout(LONG_S):
            while await self.calls(path) < before + more:
                pass

    async def silent(self, ws: aiohttp.ClientWebSocketResponse, path: str) -> None:
        """Wait for a while of ten pushes in which nothing is asked of the exchange."""
        async with asyncio.timeout(LONG_S):
            while True:
                before = await self.calls(path)
                for _ in range(10):
                    await receive(ws)
                if await self.calls(path) == before:
                    return


@contextlib.asynccontextmanager
async def world(
    start_gateway: StartGateway, exchange: Exchange, profile: Profile = Profile.DEVELOPMENT, **bybit: Any
) -> AsyncIterator[tuple[World, aiohttp.ClientWebSocketResponse]]:
    """A gateway whose live channels are called for ten times a second without streams, and a socket of it."""
    bybit = {"stream_url": exchange.url.replace("http", "ws", 1), "key_retry_s": 0.3, **bybit}
    gateway = await start_gateway(profile, bybit=bybit, freshness={"live_poll_s": 0.1})
    async with gateway.ws_connect("/ws") as ws:
        yield World(gateway, exchange), ws
    await settled(gateway)


async def subscribe(ws: aiohttp.ClientWebSocketResponse, *channels: str) -> None:
    """Have these channels live."""
    await ws.send_json({"op": "subscribe", "channels": channels, "interval": 0})
    assert (await receive(ws, "ack"))["subscribed"] == [*channels]


async def test_polling_takes_over_and_falls_silent(start_gateway: StartGateway, exchange: Exchange) -> None:
    """While the streams are away for long prices go on by calls; when they are back the calls end, on one socket."""
    async with world(start_gateway, exchange) as (it, ws):
        await subscribe(ws, "price:BTCUSDT")
        await it.until("public", in_sync=1)
        await it.silent(ws, TICKERS)
        await exchange.disturb("refuse", status=503)
        await exchange.disturb("cut")
        await it.until("public", in_sync=0, lines=0)
        await it.called(TICKERS, more=8)
        prices = {(message := await receive(ws))["last_price"] for _ in range(5)}
        assert len(prices) > 1
        assert message["stale"] is False
        assert (await exchange.streams())["refused"] > 0
        await exchange.calm()
        assert (await it.until("public", in_sync=1))["reconnects"] == 1
        await it.silent(ws, TICKERS)
        assert (await receive(ws))["stale"] is False


async def test_positions_are_known_all_along(start_gateway: StartGateway, exchange: Exchange) -> None:
    """What the account does is shown while the private stream is there, while it is away, and when it is back."""
    await exchange.freeze(FLAT_MS)
    async with world(start_gateway, exchange) as (it, ws):
        await subscribe(ws, "positions:*")
        await it.until("private", in_sync=1)
        assert (await receive(ws))["positions"] == []
        await exchange.disturb("refuse", path="private", status=503)
        await exchange.disturb("cut", path="private")
        await it.until("private", in_sync=0)
        await it.called("/v5/position/list", more=4)
        await exchange.trade("BTCUSDT", "Buy", "0.1")
        while not (message := await receive(ws))["positions"]:
            pass
        assert [row["symbol"] for row in message["positions"]] == ["BTCUSDT"]
        await exchange.trade("BTCUSDT", "Sell", "0.1")
        while (await receive(ws))["positions"]:
            pass
        await exchange.calm()
        await it.until("private", in_sync=1)
        await exchange.trade("ETHUSDT", "Buy", "1")
        while [row["symbol"] for row in (await receive(ws))["positions"]] != ["ETHUSDT"]:
            pass


async def test_a_half_open_stream_is_noticed(start_gateway: StartGateway, exchange: Exchange) -> None:
    """A connection that stays but says nothing any more, no pong either, is given up: calls, then another one."""
    async with world(start_gateway, exchange) as (it, ws):
        await subscribe(ws, "price:BTCUSDT")
        await it.until("public", in_sync=1)
        await exchange.disturb("swallow")
        await it.until("public", in_sync=0)
        await it.called(TICKERS, more=5)
        assert (await receive(ws))["stale"] is False
        await exchange.calm()
        await exchange.disturb("cut")  # else one on which an answer was swallowed may wait a minute to ask again
        assert (await it.until("public", in_sync=1))["connections"] >= 2
        await it.silent(ws, TICKERS)


async def test_a_key_that_is_refused_and_then_accepted(start_gateway: StartGateway, exchange: Exchange) -> None:
    """While the stream refuses the key the account is called for, and the market goes on; then it is streamed again."""
    await exchange.disturb("auth", ret_msg="API key is invalid.")
    async with world(start_gateway, exchange) as (it, ws):
        await subscribe(ws, "price:BTCUSDT", "balance")
        await it.until("public", in_sync=1)
        assert (await it.until("private", in_sync=0))["lines"] == 0
        await it.called(WALLET, more=3)
        while (message := await receive(ws))["channel"] != "balance":
            pass
        assert message["balance"] is not None
        await exchange.calm()
        await it.until("private", in_sync=1)
        assert (await it.until("public", in_sync=1))["reconnects"] == 0


async def test_an_unknown_key_leaves_the_market(start_gateway: StartGateway, exchange: Exchange) -> None:
    """With a key that the exchange does not know nothing private is in sync or shown; prices are streamed."""
    async with world(start_gateway, exchange, api_key=Secret("nobody"), key_retry_s=3600.0) as (it, ws):
        await subscribe(ws, "price:BTCUSDT", "balance")
        await it.until("public", in_sync=1)
        while (message := await receive(ws))["channel"] != "balance":
            pass
        assert (message["balance"], message["stale"]) == (None, True)
        await it.until("private", in_sync=0, connections=1)
        while (await receive(ws))["channel"] != "price:BTCUSDT":
            pass
        await it.silent(ws, TICKERS)
        assert (await it.streams())["private"]["connections"] == 1


@pytest.mark.parametrize("is_allowed", [False, True])
async def test_a_key_that_turns_out_to_trade(
    start_gateway: StartGateway, exchange: Exchange, monkeypatch: pytest.MonkeyPatch, is_allowed: bool
) -> None:
    """Production opens no private stream before it knows the key, nor with one that can trade, unless allowed to."""
    monkeypatch.setattr("server.app.FIRST_CHECK_S", 0.2)
    await exchange.fault("query-api", hang=True)
    key = {"api_key": Secret(TRADING_KEY), "api_secret": Secret(TRADING_SECRET), "allow_trading_keys": is_allowed}
    async with world(start_gateway, exchange, Profile.PRODUCTION, **key) as (it, ws):
        await subscribe(ws, "price:BTCUSDT", "balance")
        await it.until("public", in_sync=1)
        assert (await it.streams())["private"]["connections"] == int(is_allowed)
        await exchange.heal()
        async with asyncio.timeout(LONG_S):
            while True:
                async with it.gateway.get("/health") as response:
                    if (key_now := (await response.json())["key"]) is not None:
                        break
        assert key_now["read_only"] is False
        await it.silent(ws, TICKERS)
        assert (await it.streams())["private"]["connections"] == int(is_allowed)
        if is_allowed:
            await it.until("private", in_sync=1)
