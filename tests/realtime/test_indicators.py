"""Indicators on sockets, over real connections: the values of REST, each change once, each candle that closes once."""

import asyncio
import time
from typing import Any

import aiohttp
import pytest

from server.api.keys import CHANNELS, FEEDS
from server.market import answers
from server.market.indicators import Query
from server.models import Candles, Kind, Topic
from tests.conftest import Exchange, Gateway, StartGateway, receive
from tests.market.test_streamed_candles import MINUTE, before_a_minute_ends, now_ms, start
from tests.realtime.sockets import settled

NAMES = "rsi:14,macd,bbands:up=2.5@hl2"
TOPIC = Topic(Kind.KLINE, "BTCUSDT", "1")
POLLED = {"live_poll_s": 0.05}
BODY = ("symbol", "category", "interval", "candle_count", "candle_closed", "data")


async def subscribe(ws: aiohttp.ClientWebSocketResponse, *channels: str, **more: Any) -> Any:
    """The ack of a subscription."""
    await ws.send_json({"op": "subscribe", "channels": channels, **more})
    return await receive(ws, "ack")


async def by_rest(gateway: Gateway, query: str) -> Any:
    """What GET /indicators says of one-minute candles."""
    async with gateway.get(f"/indicators/BTCUSDT?interval=1{query}") as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def move_on(exchange: Exchange, moment_ms: int) -> int:
    """Freeze the exchange two seconds later, and no further from our own clock than it would refuse; gives when."""
    moment_ms = max(moment_ms + 2000, time.time_ns() // 1_000_000)
    await exchange.freeze(moment_ms)
    return moment_ms


def body_of(document: Any) -> Any:
    """What is said of the market, without what belongs to the message."""
    return {name: document[name] for name in BODY}


@pytest.mark.parametrize("more", [{"interval": 0}, {"interval": 60}, {"on": "tick"}, {"on": "close"}])
@pytest.mark.parametrize("names", ["", f":{NAMES}", ":ht_sine,rsi:60"])
async def test_a_snapshot_is_what_rest_says(
    start_gateway: StartGateway, exchange: Exchange, names: str, more: dict[str, Any]
) -> None:
    """The classic set, names, and names that need older candles; on=close shows the last closed candle."""
    gateway = await start_gateway(freshness=POLLED)
    await exchange.freeze(await now_ms(exchange))
    channel, on_close = f"indicators:BTCUSDT:1{names}", more.get("on") == "close"
    async with gateway.ws_connect("/ws") as ws:
        assert (await subscribe(ws, channel, **more))["subscribed"] == [channel]
        snapshot = await receive(ws)
    rest = await by_rest(gateway, f"&names={names[1:]}" * bool(names) + "&closed=true" * on_close)
    assert (snapshot["channel"], snapshot["stale"]) == (channel, False)
    assert body_of(snapshot) == body_of(rest)
    assert snapshot["candle_closed"] is on_close
    assert snapshot["candle_count"] == (2000 if ":60" in names else 1000) - on_close
    await settled(gateway)


async def test_each_change_goes_out_once(start_gateway: StartGateway, exchange: Exchange) -> None:
    """While nothing changes there is nothing new; a candle that moves is shown with what REST says of it."""
    gateway = await start_gateway(freshness=POLLED)
    moment = await now_ms(exchange)
    await exchange.freeze(moment)
    async with gateway.ws_connect("/ws") as ws:
        await subscribe(ws, f"indicators:BTCUSDT:1:{NAMES}", on="tick")
        before = await receive(ws)
        for _ in range(3):
            moment = await move_on(exchange, moment)
            after = await receive(ws)
            assert after["seq"] > before["seq"]
            assert after["data"] != before["data"]
            assert body_of(after) == body_of(await by_rest(gateway, f"&names={NAMES}"))
            before = after
        with pytest.raises(TimeoutError):
            await receive(ws, timeout_s=1.0)
    await settled(gateway)


async def closes(ws: aiohttp.ClientWebSocketResponse, count: int) -> list[Any]:
    """So many snapshots; then none for more than a second."""
    found = [await receive(ws, timeout_s=30.0) for _ in range(count)]
    with pytest.raises(TimeoutError):
        await receive(ws, timeout_s=1.5)
    return found


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_each_candle_that_closes_goes_out_once(
    start_gateway: StartGateway, exchange: Exchange, *, is_streamed: bool
) -> None:
    """The last closed candle at once, the next when the exchange says that it has closed: by polling and by stream."""
    gateway = await (start(start_gateway, exchange) if is_streamed else start_gateway(freshness=POLLED))
    await before_a_minute_ends(exchange, 4000)
    async with gateway.ws_connect("/ws") as ws:
        await subscribe(ws, "indicators:BTCUSDT:1:rsi:14", on="close")
        first, second = await closes(ws, 2)
    opened = [each["data"]["open_time_ms"] for each in (first, second)]
    assert opened[1] == opened[0] + MINUTE
    assert first["candle_closed"] is second["candle_closed"] is True
    assert second["stale"] is False
    assert second["data"]["rsi:14"] == (await by_rest(gateway, "&names=rsi:14&closed=true"))["data"]["rsi:14"]
    await settled(gateway)


async def test_of_several_that_close_at_once_the_newest_goes_out(
    start_gateway: StartGateway, exchange: Exchange
) -> None:
    """A clock that jumps over three candles brings one snapshot."""
    gateway = await start_gateway(freshness=POLLED)
    moment = await now_ms(exchange)
    await exchange.freeze(moment)
    async with gateway.ws_connect("/ws") as ws:
        await subscribe(ws, "indicators:BTCUSDT:1", on="close")
        (first,) = await closes(ws, 1)
        await exchange.freeze(moment + 3 * MINUTE)
        (second,) = await closes(ws, 1)
    assert second["data"]["open_time_ms"] == first["data"]["open_time_ms"] + 3 * MINUTE
    await settled(gateway)


async def test_on_close_tells_of_staleness_by_status(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Trouble and its end are told at once, without a candle a second time."""
    gateway = await start_gateway(freshness=POLLED | {"stale_after_s": 0.5, "max_age_s": 0.2})
    await exchange.freeze(await now_ms(exchange))
    async with gateway.ws_connect("/ws") as ws:
        await subscribe(ws, "indicators:BTCUSDT:1", on="close")
        (first,) = await closes(ws, 1)
        assert first["stale"] is False
        await exchange.fault("kline", status=500)
        assert (await receive(ws, "status"))["stale"] == ["indicators"]
        await exchange.heal()
        assert (await receive(ws, "status"))["stale"] == []
        with pytest.raises(TimeoutError):
            await receive(ws, timeout_s=1.0)
    await settled(gateway)


async def test_many_sockets_compute_once(
    start_gateway: StartGateway, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change costs one computing, however many are subscribed, live and at a pace."""
    computed: list[Candles] = []
    compute = answers._body

    def counted(query: Query, topic: Topic, candles: Candles) -> dict[str, Any]:
        computed.append(candles)
        return compute(query, topic, candles)

    monkeypatch.setattr(answers, "_body", counted)
    gateway = await start_gateway(freshness=POLLED)
    moment = await now_ms(exchange)
    await exchange.freeze(moment)
    sockets = [await gateway.ws_connect("/ws") for _ in range(20)]
    for number, ws in enumerate(sockets):
        await subscribe(ws, f"indicators:BTCUSDT:1:{NAMES}", interval=0.5 * (number % 2))
        await receive(ws)
    for _ in range(2):
        moment = await move_on(exchange, moment)
        data = await _data(gateway)
        snapshots = await asyncio.gather(*(_changed(ws, data) for ws in sockets))
        assert len({str(each["data"]) for each in snapshots}) == 1
    assert len(computed) == len({id(candles) for candles in computed}) == 3
    for ws in sockets:
        await ws.close()
    await settled(gateway)
    assert len(gateway.app[CHANNELS]) == 0


async def _data(gateway: Gateway) -> Any:
    return (await by_rest(gateway, f"&names={NAMES}&max_age_ms=0"))["data"]


async def _changed(ws: aiohttp.ClientWebSocketResponse, data: Any) -> Any:
    while (snapshot := await receive(ws))["data"] != data:
        pass
    return snapshot


async def test_too_few_candles_are_null(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Under twenty candles there is a count and no data, as soon as that is known."""
    await exchange.fault("kline", result={"symbol": "BTCUSDT", "category": "linear", "list": []})
    gateway = await start_gateway(freshness=POLLED)
    async with gateway.ws_connect("/ws") as ws:
        await subscribe(ws, "indicators:BTCUSDT:1", on="tick")
        snapshot = await receive(ws)
    assert (snapshot["data"], snapshot["candle_closed"]) == (None, None)
    await settled(gateway)


@pytest.mark.parametrize(
    ("channel", "code", "says"),
    [
        ("indicators:BTCUSDT", "invalid_channel", "allowed: 1, 3"),
        ("indicators:BTCUSDT:7:rsi", "invalid_channel", "allowed: 1, 3"),
        ("indicators:btcusdt:1:rsi", "invalid_symbol", "capital letters"),
        ("indicators:NOUSDT:1:rsi", "unknown_symbol", "NOUSDT"),
        ("indicators:BTCUSDT:1:", "invalid_names", "a name is empty"),
        ("indicators:BTCUSDT:1:rsy", "invalid_names", "did you mean rsi"),
        ("indicators:BTCUSDT:1:rsi:0", "invalid_names", "rsi"),
        ("indicators:BTCUSDT:1:rsi,rsi", "invalid_names", "twice"),
    ],
)
async def test_what_cannot_be_had(start_gateway: StartGateway, channel: str, code: str, says: str) -> None:
    """Each mistake is an error of the ack that says what is allowed; what else was asked for is there."""
    gateway = await start_gateway()
    async with gateway.get("/symbols") as response:
        assert response.status == 200
    async with gateway.ws_connect("/ws") as ws:
        ack = await subscribe(ws, channel, "balance", on="tick")
        assert ack["subscribed"] == ["balance"]
        (fault,) = ack["errors"]
        assert (fault["channel"], fault["code"]) == (channel, code)
        assert says in fault["detail"]
    await settled(gateway)


async def test_on_is_for_indicators(start_gateway: StartGateway) -> None:
    """Another word than tick and close is refused by name, and so is `on` where nothing of a request heeds it."""
    gateway = await start_gateway()
    async with gateway.ws_connect("/ws") as ws:
        for more in ({"on": "open"}, {"on": 1}):
            await ws.send_json({"op": "subscribe", "id": 1, "channels": ["indicators:BTCUSDT:1"], **more})
            error = await receive(ws, "error")
            assert (error["code"], "$.on" in error["detail"]) == ("invalid_message", True)
        await ws.send_json({"op": "subscribe", "id": 1, "channels": ["price:BTCUSDT"], "on": "tick"})
        assert (await receive(ws, "error"))["code"] == "invalid_on"
    await settled(gateway)


async def test_a_name_is_there_once(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Asked for anew with another `on` it takes the former's place, and its seq goes on; the list tells which it is."""
    gateway = await start_gateway(freshness=POLLED)
    await exchange.freeze(await now_ms(exchange))
    name, sequences = "indicators:BTCUSDT:1:rsi", list[int]()
    async with gateway.ws_connect("/ws") as ws, gateway.ws_connect("/ws") as other:
        await subscribe(other, name, on="close")
        assert (await receive(other))["candle_closed"] is True
        for more, listed in (
            ({"on": "close"}, {"channel": name, "interval": 0, "on": "close"}),
            ({"on": "tick", "interval": 60}, {"channel": name, "interval": 0, "on": "tick"}),
            ({"interval": 60}, {"channel": name, "interval": 60}),
            ({"on": "close"}, {"channel": name, "interval": 0, "on": "close"}),
        ):
            await subscribe(ws, name, **more)
            snapshot = await receive(ws)
            assert snapshot["candle_closed"] is (more.get("on") == "close")
            sequences.append(snapshot["seq"])
            await ws.send_json({"op": "list"})
            assert (await receive(ws, "list"))["channels"] == [listed]
    assert sequences == sorted(set(sequences))
    await settled(gateway)


async def test_there_may_only_be_so_many(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """One channel of indicators over the limit is refused with a clear word; one that ends makes room."""
    monkeypatch.setattr("server.realtime.channels.MOST_ASKED", 2)
    gateway = await start_gateway()
    names = [f"indicators:BTCUSDT:1:rsi:{length}" for length in (10, 11, 12)]
    async with gateway.ws_connect("/ws") as ws:
        ack = await subscribe(ws, *names, on="tick")
        assert ack["subscribed"] == names[:2]
        assert [(fault["channel"], fault["code"]) for fault in ack["errors"]] == [(names[2], "overloaded")]
        await ws.send_json({"op": "unsubscribe", "channels": names[:1]})
        await receive(ws, "ack")
        assert (await subscribe(ws, names[2], on="close"))["subscribed"] == names[2:]
    await settled(gateway)


async def test_older_candles_stay_for_who_follows_them(start_gateway: StartGateway, exchange: Exchange) -> None:
    """A channel that needs older candles wants them for as long as it is followed."""
    gateway = await start_gateway(freshness=POLLED)
    moment = await now_ms(exchange)
    await exchange.freeze(moment)
    async with gateway.ws_connect("/ws") as ws:
        await subscribe(ws, "indicators:BTCUSDT:1:rsi:60", on="tick")
        deadline = time.monotonic() + 10
        while (await receive(ws))["candle_count"] != 2000:
            assert time.monotonic() < deadline
            moment = await move_on(exchange, moment)
        reading = gateway.app[FEEDS].in_hand(TOPIC)
        assert reading is not None
        assert len(reading.value) >= 2000
    await settled(gateway)
