"""Candles kept by the stream, through the whole gateway and over real sockets, against the exchange's own answers."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import aiohttp
import numpy as np
import talib

from server.api.keys import FEEDS
from server.models import CandlePush, Kind, Reading, Source, Topic
from tests.conftest import Exchange, Gateway, StartGateway

MINUTE = 60_000
TOPIC = Topic(Kind.KLINE, "BTCUSDT", "1")
KLINE = "/v5/market/kline"
CANDLES = "/klines/BTCUSDT?interval=1&limit=1000&max_age_ms=1000"


async def until(holds: Callable[[], Awaitable[bool]], timeout_s: float = 30.0) -> None:
    """Wait until `holds`; ask often."""
    async with asyncio.timeout(timeout_s):
        while not await holds():
            await asyncio.sleep(0.05)


async def ask(gateway: Gateway, path: str) -> Any:
    """The JSON of a GET."""
    async with gateway.get(path) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def told(exchange: Exchange) -> list[list[Any]]:
    """The thousand candles that the exchange has now, as the gateway writes them."""
    rows = (await exchange.ask(KLINE, category="linear", symbol="BTCUSDT", interval="1", limit=1000))["list"]
    return [[int(row[0]), *row[1:]] for row in reversed(rows)]


async def now_ms(exchange: Exchange) -> int:
    """The exchange's present time."""
    return int((await exchange.ask("/v5/market/time"))["timeNano"]) // 1_000_000


async def before_a_minute_ends(exchange: Exchange, ms: int) -> None:
    """Shift the exchange's clock so that a minute of it ends in so many milliseconds."""
    await exchange.shift(MINUTE - ms - await now_ms(exchange) % MINUTE)


async def set_streams(exchange: Exchange, **fault: Any) -> None:
    """Break the exchange's streams, or heal them where nothing is said."""
    async with aiohttp.ClientSession() as http:
        url = f"{exchange.url}/_control/stream"
        async with http.put(url, json=fault) if fault else http.delete(url) as response:
            assert response.status < 300, await response.text()


async def limits_asked_for(exchange: Exchange) -> list[int]:
    """How many candles each call wanted, oldest first."""
    async with aiohttp.ClientSession() as http, http.get(f"{exchange.url}/_control/calls") as response:
        recent = (await response.json())["recent"]
    return [int(parse_qs(call["query"])["limit"][0]) for call in recent if call["path"] == KLINE]


async def start(start_gateway: StartGateway, exchange: Exchange) -> Gateway:
    """A gateway that knows where the exchange's streams are."""
    return await start_gateway(bybit={"stream_url": exchange.url.replace("http", "ws", 1)})


async def kept(gateway: Gateway) -> None:
    """Wait until the stream keeps the candles; somebody asks for them all the time."""

    async def is_kept() -> bool:
        await ask(gateway, CANDLES)
        return gateway.app[FEEDS].feed(TOPIC).is_kept

    await until(is_kept)


async def stand_still(gateway: Gateway, exchange: Exchange) -> list[list[Any]]:
    """Stop the exchange's clock just ahead, wait for its last push, and give the candles of that moment."""
    await exchange.freeze(await now_ms(exchange) + 1200)
    truth = await told(exchange)

    async def is_told() -> bool:
        return bool((await ask(gateway, CANDLES))["candles"] == truth)

    await until(is_told)
    return truth


async def test_stream_keeps_candles_over_their_end(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Over the end of a candle and longer nothing is called for, and rows and indicators are the exchange's own."""
    await before_a_minute_ends(exchange, 8000)
    gateway = await start(start_gateway, exchange)
    await kept(gateway)
    first = await ask(gateway, CANDLES)
    calls = (await exchange.calls())[KLINE]
    seen = []

    async def has_grown() -> bool:
        seen.append(await ask(gateway, CANDLES))
        return bool(seen[-1]["candles"][-1][0] > first["candles"][-1][0])

    await until(has_grown)
    assert not any(answer["stale"] for answer in seen)
    assert all(len(answer["candles"]) == 1000 and answer["age_ms"] < 3000 for answer in seen)
    assert (await exchange.calls())[KLINE] == calls
    truth = await stand_still(gateway, exchange)
    assert (await exchange.calls())[KLINE] == calls + 1  # our own question
    close = np.array([float(row[4]) for row in truth])
    answer = await ask(gateway, "/indicators/BTCUSDT?interval=1")
    assert answer["data"]["close_price"] == close[-1]
    assert answer["data"]["rsi14"] == float(talib.RSI(close, 14)[-1])
    assert answer["data"]["ema200"] == float(talib.EMA(close, 200)[-1])


async def test_changed_candle_changes_the_tag(start_gateway: StartGateway, exchange: Exchange) -> None:
    """A tag is answered 304 as long as the very candles are in hand, and never with another candle behind it."""
    gateway = await start(start_gateway, exchange)
    await kept(gateway)
    bodies: dict[str, Any] = {}

    async def has_changed_twice() -> bool:
        async with gateway.get(CANDLES) as response:
            candle = (await response.json())["candles"][-1]
            assert bodies.setdefault(response.headers["ETag"], candle) == candle
        return len(bodies) > 2

    await until(has_changed_twice)
    await stand_still(gateway, exchange)
    async with gateway.get(CANDLES) as response:
        tag = response.headers["ETag"]
    async with gateway.get(CANDLES, headers={"If-None-Match": tag}) as response:
        assert response.status == 304


async def test_calls_take_over_while_the_stream_is_away(start_gateway: StartGateway, exchange: Exchange) -> None:
    """With its stream cut and refused the gateway calls; healed, the stream keeps the candles again."""
    gateway = await start(start_gateway, exchange)
    await kept(gateway)
    await set_streams(exchange, kind="refuse", status=503)
    await set_streams(exchange, kind="cut")
    calls = (await exchange.calls())[KLINE]

    async def are_called_for() -> bool:
        await ask(gateway, CANDLES)
        return (await exchange.calls())[KLINE] > calls + 1

    await until(are_called_for)
    assert not gateway.app[FEEDS].feed(TOPIC).is_kept
    first, *later = await limits_asked_for(exchange)
    assert first == 1000
    assert max(later) < 20, "pushed candles are known to the calls after them"
    await stand_still(gateway, exchange)
    await exchange.shift(0)
    await set_streams(exchange)
    await kept(gateway)
    await stand_still(gateway, exchange)


async def test_stream_keeps_deep_histories(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Older candles come before those that the stream keeps, and it goes on with them: all are the exchange's own."""
    await before_a_minute_ends(exchange, 4000)
    gateway = await start(start_gateway, exchange)
    await kept(gateway)
    first = (await ask(gateway, CANDLES))["candles"][-1][0]
    path = "/indicators/BTCUSDT?interval=1&names=ema:500"
    assert (await ask(gateway, path))["candle_count"] == 5000

    async def has_grown() -> bool:
        return bool((await ask(gateway, path))["data"]["open_time_ms"] > first)

    await until(has_grown)
    truth = await stand_still(gateway, exchange)
    query: dict[str, Any] = {"category": "linear", "symbol": "BTCUSDT", "interval": "1", "limit": 1000}
    rows = [(str(row[0]), *row[1:]) for row in truth]
    while len(rows) < 5000:
        page = (await exchange.ask(KLINE, **query, end=int(rows[0][0]) - 1))["list"]
        rows = [*(tuple(row) for row in reversed(page)), *rows]
    reading = gateway.app[FEEDS].in_hand(TOPIC)
    assert reading is not None
    assert reading.value.rows == tuple(rows)
    assert gateway.app[FEEDS].feed(TOPIC).is_kept
    close = np.array([float(row[4]) for row in rows])
    assert (await ask(gateway, path))["data"]["ema:500"] == float(talib.EMA(close, 500)[-1])


async def test_pushes_of_one_moment_have_tags_of_their_own(start_gateway: StartGateway, exchange: Exchange) -> None:
    """A candle's last word and the first of the next are said in one moment: each answer has its own tag."""
    gateway = await start_gateway()
    path = CANDLES.replace("1000", "60000").replace("limit=60000", "limit=1")
    await ask(gateway, path)
    feed = gateway.app[FEEDS].feed(TOPIC)
    reading = feed.reading
    assert reading is not None
    tags = []
    for volume in ("5000001", "5000002"):
        push = CandlePush((*reading.value.rows[-1][:5], volume, "1"), is_closed=False)
        moment = reading.exchange_time_ms + 1
        assert feed.push(Reading(push, reading.asked_at, time.monotonic(), moment, Source.PUSH))
        async with gateway.get(path) as response:
            assert (await response.json())["candles"][-1][5] == volume
            tags.append(response.headers["ETag"])
    assert tags[0] != tags[1]
