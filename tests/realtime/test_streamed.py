"""The socket of many channels while the exchange's streams keep what it shows: every kind live, each turn one write."""

import asyncio
import json
import time
from collections import defaultdict
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from server.api.keys import FEEDS, FOLLOWING, HUB, LOAD
from server.models import Kind, Reading, Source, Topic
from tests.conftest import Exchange, Gateway, StartGateway, receive

from .sockets import TEXT, RawSocket, eventually, parse_frame, raw, settled

EVERY = ("positions:BTCUSDT", "positions:*", "price:BTCUSDT", "balance", "kline:BTCUSDT:1")
MOVING = ("positions:BTCUSDT", "price:BTCUSDT", "kline:BTCUSDT:1")
ACCOUNT = ("positions:BTCUSDT", "positions:*", "balance")
FLAT_MS = 1_760_313_601_000
"""2025-10-13, a second past midnight UTC: the account holds nothing."""
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "DOGEUSDT", "BNBUSDT", "ADAUSDT", "LTCUSDT")
CALLS = ("/v5/market/tickers", "/v5/market/kline")


async def start(start_gateway: StartGateway, exchange: Exchange, **sections: Any) -> Gateway:
    """A gateway with streams."""
    return await start_gateway(bybit={"stream_url": exchange.url.replace("http", "ws", 1)}, **sections)


async def in_sync(gateway: Gateway, public: int, private: int) -> None:
    """Wait until the streams keep that many channels."""
    async with asyncio.timeout(20):
        while True:
            async with gateway.get("/health") as response:
                streams = (await response.json())["streams"]
            if (streams["public"]["in_sync"], streams["private"]["in_sync"]) == (public, private):
                return


async def subscribe(ws: aiohttp.ClientWebSocketResponse, interval: float, *channels: str) -> dict[str, Any]:
    """Subscribe; gives the first snapshot of each."""
    await ws.send_json({"op": "subscribe", "channels": channels, "interval": interval})
    assert (await receive(ws, "ack"))["subscribed"] == [*channels]
    firsts: dict[str, Any] = {}
    while len(firsts) < len(channels):
        message = await receive(ws)
        firsts.setdefault(message["channel"], message)
    return firsts


async def test_every_kind_of_channel_is_live(start_gateway: StartGateway, exchange: Exchange) -> None:
    """What moves is pushed as it moves, whole and in order, and soon by the streams alone: no call is made for it."""
    gateway = await start(start_gateway, exchange)
    async with gateway.ws_connect("/ws") as ws, asyncio.timeout(30):
        newest = await subscribe(ws, 0, *EVERY)
        assert set(newest) == set(EVERY)
        await in_sync(gateway, public=2, private=2)
        before: dict[str, int] = {}
        while (calls := await called(exchange)) != before:
            before = calls
            values: dict[str, set[str]] = defaultdict(set)
            while any(len(values[name]) < 3 for name in MOVING):
                message = await receive(ws)
                assert message["seq"] > newest[message["channel"]]["seq"]
                assert message["stale"] in (False, [])
                newest[message["channel"]] = message
                values[message["channel"]].add(json.dumps(price_of(message)))
    await settled(gateway)


async def called(exchange: Exchange) -> dict[str, int]:
    """How often the exchange was asked for what moves."""
    calls = await exchange.calls()
    return {path: calls.get(path, 0) for path in CALLS}


def price_of(message: dict[str, Any]) -> Any:
    """What moves in a snapshot."""
    return message.get("current_price") or message.get("last_price") or message.get("candle")


async def test_a_trade_is_pushed_to_all_it_concerns(start_gateway: StartGateway, exchange: Exchange) -> None:
    """A trade of an account at rest shows in every channel that has to do with it, position and balance together."""
    await exchange.freeze(FLAT_MS)
    gateway = await start(start_gateway, exchange)
    async with gateway.ws_connect("/ws") as ws:
        firsts = await subscribe(ws, 0, *ACCOUNT, "price:BTCUSDT")
        assert firsts["positions:BTCUSDT"]["has_position"] is False
        assert firsts["positions:*"]["has_position"] is False
        await in_sync(gateway, public=1, private=2)
        await exchange.trade("BTCUSDT", "Buy", "0.1")
        pushes: dict[str, list[Any]] = defaultdict(list)
        last: dict[str, Any] = dict(firsts)

        def is_shown() -> bool:
            whole, listed, money = (last[name] for name in ACCOUNT)
            has_all = whole["has_position"] and listed["has_position"]
            return bool(has_all) and whole["balance"] == money["balance"] != firsts["balance"]["balance"]

        while not is_shown():
            message = await receive(ws)
            last[message["channel"]] = message
            pushes[message["channel"]].append(message)
        whole = last["positions:BTCUSDT"]
        assert [(row["side"], row["size"]) for row in whole["positions"]] == [("Buy", "0.1")]
        assert [row["symbol"] for row in last["positions:*"]["positions"]] == ["BTCUSDT"]
        assert whole["current_price"] == firsts["price:BTCUSDT"]["last_price"] is not None
        assert whole["stale"] == []
        # The two pushes of the exchange may come in one turn of the loop or in two; a call may say it once more.
        assert 1 <= len(pushes["positions:BTCUSDT"]) <= 4
        assert "price:BTCUSDT" not in pushes or pushes["price:BTCUSDT"][-1]["last_price"] == whole["current_price"]
    await settled(gateway)


def moved(gateway: Gateway, symbol: str, price: str) -> None:
    """The stream says that `symbol` trades at `price` now."""
    topic = Topic(Kind.TICKER, symbol)
    held = gateway.app[FEEDS].feed(topic).reading
    assert held is not None
    now = time.monotonic()
    value = replace(held.value, last_price=price)
    gateway.app[FOLLOWING].push(topic, Reading(value, now, now, held.exchange_time_ms + 1, Source.PUSH))


def frames_of(data: bytes) -> list[Any]:
    """The messages that are whole in `data`, and nothing else is there."""
    messages = []
    while data:
        parsed = parse_frame(data)
        assert parsed is not None
        opcode, payload, data = parsed
        assert opcode == TEXT
        messages.append(json.loads(payload))
    return messages


async def ready(client: RawSocket, channels: list[str]) -> None:
    """Subscribe live and wait for every first snapshot."""
    await client.send(TEXT, json.dumps({"op": "subscribe", "channels": channels, "interval": 0}).encode())
    left = set(channels)
    while left:
        left.discard((await client.message())["channel"])


async def test_what_changes_in_one_turn_is_one_write(
    start_gateway: StartGateway, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen channels of eight tickers that move in one turn reach each of two sockets in one piece, each once."""
    monkeypatch.setattr("server.realtime.hub.LIVE_SNAPSHOT_S", 60.0)  # else one may come between
    await exchange.freeze(FLAT_MS)
    gateway = await start(start_gateway, exchange)
    channels = [f"{kind}:{symbol}" for symbol in SYMBOLS for kind in ("price", "positions")]
    async with raw(gateway, "/ws") as one, raw(gateway, "/ws") as other:
        await ready(one, channels)
        await ready(other, channels[::-1])
        await in_sync(gateway, public=len(SYMBOLS), private=2)
        await eventually(lambda: not any(feed.flight for feed in gateway.app[FEEDS]))
        written: dict[asyncio.Transport, list[bytes]] = {}
        for transport in gateway.app[LOAD].sockets.values():
            pieces = written[transport] = []
            write = transport.write

            def noted(data: bytes, *, write: Any = write, pieces: list[bytes] = pieces) -> None:
                pieces.append(data)
                write(data)

            monkeypatch.setattr(transport, "write", noted)
        for turn in range(3):
            price = str(70_000 + turn)
            for symbol in SYMBOLS:
                moved(gateway, symbol, price)
            await eventually(lambda turn=turn: all(len(pieces) > turn for pieces in written.values()))  # type: ignore[misc]
            for pieces in written.values():
                messages = frames_of(pieces[turn])
                assert sorted(message["channel"] for message in messages) == sorted(channels)
                assert {message.get("last_price") or message["current_price"] for message in messages} == {price}
        assert {len(pieces) for pieces in written.values()} == {3}
        for client in (one, other):
            received = [(await client.message())["seq"] for _ in range(3 * len(channels))]
            assert len(received) == 3 * len(channels)
    await settled(gateway)


async def test_one_that_changes_twice_in_a_turn_is_shown_once(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Of several changes in one turn only the last is shown, and what ends as it began is no news."""
    await exchange.freeze(FLAT_MS)
    gateway = await start(start_gateway, exchange)
    async with gateway.ws_connect("/ws") as ws:
        first = (await subscribe(ws, 0, "price:BTCUSDT"))["price:BTCUSDT"]
        await in_sync(gateway, public=1, private=0)
        for price in ("1", "2", "3"):
            moved(gateway, "BTCUSDT", price)
        assert (await receive(ws))["last_price"] == "3"
        for price in ("4", "3"):
            moved(gateway, "BTCUSDT", price)
        await asyncio.sleep(0)
        moved(gateway, "BTCUSDT", first["last_price"])
        assert (await receive(ws))["last_price"] == first["last_price"]
        assert len(gateway.app[HUB]) == 1
    await settled(gateway)
