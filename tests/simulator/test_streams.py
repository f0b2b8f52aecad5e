"""The streams: how a client asks, what it is refused, and that what is pushed is what REST answers for that instant."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from server.simulator.child import API_KEY, API_SECRET
from server.simulator.limits import CONNECT_WINDOW_S, REMEMBERED, ConnectLimit
from server.simulator.positions import legs_of
from server.simulator.rows import ticker_row
from server.simulator.signing import signature

from .conftest import NOW_MS, Caller, Start, Stream

BTC, TICKER = "BTCUSDT", "tickers.BTCUSDT"


async def rest_ticker(caller: Caller, category: str = "linear", symbol: str = BTC) -> dict[str, Any]:
    answer = await caller.get("/v5/market/tickers", category=category, symbol=symbol)
    row: dict[str, Any] = answer["result"]["list"][0]
    return row


async def rest_positions(caller: Caller, symbol: str = BTC) -> list[dict[str, Any]]:
    answer = await caller.private("/v5/position/list", f"category=linear&symbol={symbol}")
    rows: list[dict[str, Any]] = answer["result"]["list"]
    return rows


def assert_agrees(pushed: dict[str, Any], row: dict[str, Any]) -> None:
    """Every field that both know is the same."""
    common = pushed.keys() & row.keys()
    assert len(common) >= 9
    assert {name: pushed[name] for name in common} == {name: row[name] for name in common}


async def test_pings(start: Start) -> None:
    """A public pong says so in `ret_msg`, a private one in `op` with the time; each names its request."""
    caller = await start()
    public = await caller.stream()
    answer = await public.ask("ping", req_id="7")
    assert answer == {"success": True, "ret_msg": "pong", "conn_id": answer["conn_id"], "req_id": "7", "op": "ping"}
    assert (await public.ask("ping"))["req_id"] == ""
    private = await caller.stream("private")
    answer = await private.ask("ping", req_id="8")
    assert answer == {"req_id": "8", "op": "pong", "args": [str(NOW_MS)], "conn_id": answer["conn_id"]}
    assert "req_id" not in await private.ask("ping")


async def test_protocol_ping(start: Start) -> None:
    """A ping of the protocol's own is answered with its data."""
    stream = await (await start()).stream()
    await stream.ws.ping(b"there?")
    message = await stream.ws.receive(timeout=10)
    assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PONG, b"there?")


async def test_auth(start: Start) -> None:
    """A good signature opens the private topics, and none before it."""
    caller = await start()
    stream = await caller.stream("private")
    refused = await stream.ask("subscribe", "position", req_id="1")
    assert (refused["success"], refused["ret_msg"]) == (False, "Request not authorized")
    stream = await caller.private_stream()
    answer = await stream.ask("subscribe", "position", "wallet")
    assert answer == {"success": True, "ret_msg": "", "op": "subscribe", "conn_id": answer["conn_id"]}
    assert not (await stream.ask("subscribe", TICKER))["success"]


def _credentials(key: str, secret: str, expires: int) -> list[object]:
    return [key, expires, signature(secret, f"GET/realtime{expires}")]


@pytest.mark.parametrize(
    ("args", "ret_msg"),
    [
        (_credentials(API_KEY, API_SECRET, NOW_MS - 1), "Params Error"),
        (_credentials("nobody", API_SECRET, 4_000_000_000_000), "API key is invalid."),
        (_credentials(API_KEY, "wrong", 4_000_000_000_000), "error sign!"),
        ([API_KEY], "Params Error"),
        ([API_KEY, "soon", "x"], "Request parameter error."),
        ([API_KEY, [1], "x"], "Params Error"),
    ],
)
async def test_refused_auth(start: Start, args: list[object], ret_msg: str) -> None:
    """What has expired, an unknown key, a wrong signature and nonsense are refused, and the connection is closed."""
    stream = await (await start()).stream("private")
    answer = await stream.ask("auth", *args)
    assert answer == {"success": False, "ret_msg": ret_msg, "op": "auth", "conn_id": answer["conn_id"]}
    assert await stream.closing() == 1000


@pytest.mark.parametrize(
    ("path", "topic", "ret_msg"),
    [
        ("public/linear", "tickers.NOPEUSDT", "error:handler not found,topic:tickers.NOPEUSDT"),
        ("public/linear", "tickers.btcusdt", "error:handler not found,topic:tickers.btcusdt"),
        ("public/linear", "kline.7.BTCUSDT", "error:handler not found,topic:kline.7.BTCUSDT"),
        ("public/linear", "tickers.BTCUSD", "error:handler not found,topic:tickers.BTCUSD"),
        ("public/linear", "position", "error:handler not found,topic:position"),
        ("public/spot", "tickers.NOPE", "Invalid symbol :[tickers.NOPE]"),
    ],
)
async def test_unknown_topics(start: Start, path: str, topic: str, ret_msg: str) -> None:
    """One topic that does not exist fails the whole request."""
    caller = await start()
    stream = await caller.stream(path)
    answer = await stream.ask("subscribe", TICKER, topic, req_id="r")
    assert (answer["success"], answer["ret_msg"], answer["req_id"]) == (False, ret_msg, "r")
    assert not caller.simulator.streams.followers
    assert await stream.quiet(caller)


async def test_refused_operations(start: Start) -> None:
    """A topic twice, an unknown operation, no arguments and what is not JSON are refused; what was followed stays."""
    caller = await start()
    stream = await caller.stream()
    assert (await stream.ask("subscribe", TICKER, TICKER))["success"]
    assert (await stream.next(TICKER))["type"] == "snapshot"
    assert (await stream.ask("subscribe", TICKER))["ret_msg"] == f"error:already subscribed,topic:{TICKER}"
    assert (await stream.ask("order.create"))["ret_msg"] == "error:invalid op"
    assert (await stream.ask("auth", "a", 1, "b"))["ret_msg"] == "error:invalid op"
    assert (await stream.ask("subscribe"))["ret_msg"] == "Params Error"
    assert (await stream.ask("subscribe", 5))["ret_msg"] == "Params Error"
    await stream.ws.send_str("hello")
    assert (await stream.read())["ret_msg"].startswith("Failed to decode incoming data")
    caller.freeze(NOW_MS + 1_000)
    assert (await stream.next(TICKER))["type"] == "delta"


async def test_how_much_may_be_asked(start: Start) -> None:
    """Spot takes ten topics a request; a connection 21,000 characters of topics in all."""
    caller = await start(symbols=900)
    spot = await caller.stream("public/spot")
    names = [f"kline.{interval}.BTCUSDT" for interval in ("1", "3", "5", "15", "30", "60", "120", "240", "D", "W", "M")]
    assert (await spot.ask("subscribe", *names))["ret_msg"] == "args size >10"
    answer = await spot.ask("subscribe", *names[:10])
    assert (answer["success"], answer["ret_msg"]) == (True, "subscribe")
    linear = await caller.stream()
    topics = [f"tickers.{symbol}" for symbol in caller.simulator.exchange.catalogue["linear"]]  # type: ignore[index]
    assert (await linear.ask("subscribe", *topics[:700]))["success"]
    refused = await linear.ask("subscribe", *(f"kline.1.{one.partition('.')[2]}" for one in topics[:700]))
    assert (refused["success"], refused["ret_msg"]) == (False, "args length >21000")


async def test_unsubscribe(start: Start) -> None:
    """What was unsubscribed is neither sent nor worked out any more; other topics go on."""
    caller = await start()
    stream = await caller.stream()
    await stream.ask("subscribe", TICKER, "tickers.ETHUSDT")
    for topic in (TICKER, "tickers.ETHUSDT"):
        await stream.next(topic)
    answer = await stream.ask("unsubscribe", TICKER, "tickers.NOPE", req_id="u")
    assert (answer["success"], answer["op"], answer["req_id"]) == (True, "unsubscribe", "u")
    assert list(caller.simulator.streams.topics) == [("linear", "tickers.ETHUSDT")]
    caller.freeze(NOW_MS + 1_000)
    assert (await stream.next("tickers.ETHUSDT"))["type"] == "delta"
    assert not stream.passed
    await stream.ws.close()
    await asyncio.wait_for(_ended(caller), 10)
    assert not caller.simulator.streams.topics


async def _ended(caller: Caller) -> None:
    while caller.simulator.streams.connections:
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(("category", "symbol"), [("linear", BTC), ("linear", "BTCPERP"), ("inverse", "BTCUSD")])
async def test_contract_tickers(start: Start, category: str, symbol: str) -> None:
    """A snapshot, then only what changed; put together they are what REST answers at `ts`, and `cs` grows."""
    caller = await start()
    stream = await caller.stream(f"public/{category}")
    await stream.ask("subscribe", f"tickers.{symbol}")
    snapshot = await stream.next(f"tickers.{symbol}")
    assert (snapshot["type"], snapshot["ts"]) == ("snapshot", NOW_MS)
    assert_agrees(snapshot["data"], await rest_ticker(caller, category, symbol))
    merged, last = dict(snapshot["data"]), snapshot
    for step in range(1, 6):
        caller.freeze(NOW_MS + step * 1_300)
        delta = await stream.next(f"tickers.{symbol}")
        assert (delta["type"], delta["ts"]) == ("delta", NOW_MS + step * 1_300)
        assert delta["cs"] > last["cs"]
        assert delta["data"].pop("symbol") == symbol
        assert all(merged[name] != value for name, value in delta["data"].items())
        merged |= delta["data"]
        assert_agrees(merged, await rest_ticker(caller, category, symbol))
        last = delta
    assert "fundingRate" not in last["data"]
    assert await stream.quiet(caller)


async def test_spot_tickers(start: Start) -> None:
    """On spot each message is a snapshot, and what REST answers."""
    caller = await start()
    stream = await caller.stream("public/spot")
    await stream.ask("subscribe", TICKER)
    for step in range(3):
        caller.freeze(NOW_MS + step * 1_300)
        message = await stream.next(TICKER)
        assert (message["type"], message["ts"]) == ("snapshot", NOW_MS + step * 1_300)
        assert_agrees(message["data"], await rest_ticker(caller, "spot"))


async def test_tickers_while_time_runs(start: Start) -> None:
    """With time running, ten messages in a row put together are each time the ticker of their `ts`."""
    caller = await start(freeze_ms=None, ticks_per_s=50.0)
    exchange = caller.simulator.exchange
    instrument = exchange.catalogue["linear"][BTC]  # type: ignore[index]
    stream = await caller.stream()
    await stream.ask("subscribe", TICKER)
    merged: dict[str, Any] = {}
    for _ in range(10):
        message = await stream.next(TICKER)
        merged |= message["data"]
        assert_agrees(merged, ticker_row(instrument, exchange.market.ticker(instrument, message["ts"])))


async def test_a_late_follower(start: Start) -> None:
    """Who comes later gets a snapshot of now, and from then on the same messages as the others."""
    caller = await start()
    early, late = await caller.stream(), await caller.stream()
    await early.ask("subscribe", TICKER)
    first = await early.next(TICKER)
    caller.freeze(NOW_MS + 2_000)
    await late.ask("subscribe", TICKER)
    snapshot, delta = await late.next(TICKER), await early.next(TICKER)
    assert (snapshot["type"], snapshot["cs"], snapshot["ts"]) == ("snapshot", delta["cs"], NOW_MS + 2_000)
    assert snapshot["data"] == first["data"] | delta["data"]
    caller.freeze(NOW_MS + 4_000)
    assert await late.next(TICKER) == await early.next(TICKER)


def _kline(row: list[str]) -> dict[str, object]:
    names = ("start", "open", "high", "low", "close", "volume", "turnover")
    return dict(zip(names, (int(row[0]), *row[1:]), strict=True))


async def rest_kline(caller: Caller, interval: str) -> dict[int, dict[str, object]]:
    answer = await caller.get("/v5/market/kline", category="linear", symbol=BTC, interval=interval, limit=5)
    return {int(row[0]): _kline(row) for row in answer["result"]["list"]}


@pytest.mark.parametrize(("interval", "width_ms"), [("1", 60_000), ("5", 300_000), ("60", 3_600_000)])
async def test_klines(start: Start, interval: str, width_ms: int) -> None:
    """The forming candle, then the closed one with `confirm`, then the next; each is REST's candle."""
    caller = await start()
    stream, topic = await caller.stream(), f"kline.{interval}.BTCUSDT"
    await stream.ask("subscribe", topic)
    forming = await stream.next(topic)
    [data] = forming["data"]
    opened = NOW_MS // width_ms * width_ms
    assert (forming["type"], forming["ts"], data["confirm"]) == ("snapshot", NOW_MS, False)
    assert (data["start"], data["end"], data["interval"]) == (opened, opened + width_ms - 1, interval)
    assert_candle(data, await rest_kline(caller, interval))
    assert await stream.quiet(caller)
    caller.freeze(opened + width_ms + 20)
    closed, following = (await stream.next(topic))["data"][0], (await stream.next(topic))["data"][0]
    assert (closed["confirm"], closed["start"]) == (True, opened)
    assert (following["confirm"], following["start"]) == (False, opened + width_ms)
    rows = await rest_kline(caller, interval)
    assert_candle(closed, rows)
    assert_candle(following, rows)


def assert_candle(data: dict[str, Any], rows: dict[int, dict[str, object]]) -> None:
    row = rows[data["start"]]
    assert {name: data[name] for name in row} == row


async def test_klines_after_a_jump(start: Start) -> None:
    """Every candle that closed meanwhile is confirmed, and a clock that is set back starts anew."""
    caller = await start()
    stream, topic = await caller.stream(), "kline.1.BTCUSDT"
    await stream.ask("subscribe", topic)
    first = (await stream.next(topic))["data"][0]["start"]
    caller.freeze(NOW_MS + 180_000)
    candles = [(await stream.next(topic))["data"][0] for _ in range(4)]
    assert [one["start"] for one in candles] == [first + number * 60_000 for number in range(4)]
    assert [one["confirm"] for one in candles] == [True, True, True, False]
    caller.freeze(NOW_MS)
    assert (await stream.next(topic))["data"][0]["start"] == first


def as_pushed(row: dict[str, Any]) -> dict[str, Any]:
    """What the stream makes of a row of position/list: zero for empty, and another name for the average price."""
    zeros = {"positionValue", "takeProfit", "stopLoss", "unrealisedPnl", "liqPrice", "sessionAvgPrice"}
    pushed = {name: "0" if name in zeros and value == "" else value for name, value in row.items()}
    average = pushed.pop("avgPrice")
    return {**pushed, "entryPrice": average, "category": "linear"}


async def test_trades_are_pushed(start: Start) -> None:
    """A trade pushes its leg as position/list has it from then on, its seq greater, and the wallet of that instant."""
    caller = await start(control=True)
    stream = await caller.private_stream("position", "wallet")
    other = await caller.private_stream("position.linear")
    assert await stream.quiet(caller)
    before = (await rest_positions(caller))[0]
    answer = await caller.put("trade", symbol=BTC, side="Buy", size="0.05")
    position, wallet = await stream.next("position"), await stream.next("wallet")
    [row] = await rest_positions(caller)
    assert row == answer["row"]
    assert row["seq"] > before["seq"]
    assert (row["size"], row["updatedTime"]) != (before["size"], before["updatedTime"])
    assert position["data"] == [as_pushed(row)]
    assert position["creationTime"] == wallet["creationTime"] == NOW_MS
    assert (await other.next("position.linear"))["data"] == position["data"]
    answer = await caller.private("/v5/account/wallet-balance", "accountType=UNIFIED&coin=USDT")
    assert wallet["data"] == answer["result"]["list"]
    assert await stream.quiet(caller)


async def test_nothing_is_pushed_when_only_prices_move(start: Start) -> None:
    """The mark price moves the unrealised PnL of REST, and no push comes of it."""
    caller = await start()
    leg = legs_of(BTC, hedged=False)[0]
    cycle = caller.simulator.exchange.account.positions.cycle(leg, NOW_MS // leg.cycle_ms)
    caller.freeze(cycle[0].changed_ms)
    stream = await caller.private_stream("position", "wallet")
    before = await rest_positions(caller)
    caller.freeze(cycle[0].changed_ms + 900)
    after = await rest_positions(caller)
    assert after[0]["unrealisedPnl"] != before[0]["unrealisedPnl"]
    assert await stream.quiet(caller)


async def test_the_account_trades_by_itself(start: Start) -> None:
    """A fill of its own history pushes position and wallet; set stops push the position alone."""
    caller = await start()
    leg = legs_of(BTC, hedged=False)[0]
    cycle = caller.simulator.exchange.account.positions.cycle(leg, NOW_MS // leg.cycle_ms)
    bought, stopped = cycle[1].changed_ms, cycle[2].changed_ms
    assert cycle[2].take_profit is not None
    for moment, topics in ((bought, ["position", "wallet"]), (stopped, ["position"])):
        caller.freeze(moment - 1)
        stream = await caller.private_stream("position", "wallet")
        caller.freeze(moment)
        assert not await stream.quiet(caller)
        assert [message["topic"] for message in stream.passed] == topics
        [pushed] = stream.passed[0]["data"]
        [row] = await rest_positions(caller)
        assert (pushed["seq"], pushed["size"], pushed["entryPrice"]) == (row["seq"], row["size"], row["avgPrice"])
        await stream.ws.close()
        await asyncio.wait_for(_ended(caller), 10)


async def test_modes_are_pushed(start: Start) -> None:
    """Another margin mode pushes open legs and the wallet; hedging a symbol pushes its two legs."""
    caller = await start(control=True)
    await caller.put("trade", symbol=BTC, side="Buy", size="1")
    stream = await caller.private_stream("position", "wallet")
    await caller.put("account", margin="isolated")
    assert (await stream.next("wallet"))["data"][0]["totalAvailableBalance"] == ""
    stream.passed.clear()
    await caller.put("account", hedge=["BTCUSDT", "XRPUSDT"])
    rows = (await stream.next("position"))["data"]
    assert [(row["symbol"], row["positionIdx"]) for row in rows] == [(BTC, 1), (BTC, 2)]


async def test_connect_limit(start: Start) -> None:
    """One connection more than the limit allows is HTTP 403; REST goes on."""
    caller = await start(connects=2)
    await caller.stream()
    await caller.stream("private")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await caller.stream()
    assert refused.value.status == 403
    assert (await caller.get("/v5/market/time"))["retCode"] == 0


def test_connects_are_counted_by_address_and_forgotten() -> None:
    """500 in five minutes pass, one more does not, and each address has its own; memory is bounded."""
    limit = ConnectLimit()
    assert all(limit.admits("a", number / 10) for number in range(500))
    assert not limit.admits("a", 60.0)
    assert limit.admits("b", 60.0)
    assert limit.admits("a", CONNECT_WINDOW_S)
    for number in range(2 * REMEMBERED):
        limit.admits(str(number), 400.0)
    assert len(limit._times_s) == REMEMBERED


async def test_silent_clients_are_closed(start: Start) -> None:
    """Who says nothing for too long is closed; who pings is not."""
    caller = await start(idle_s=0.3)
    silent, talking = await caller.stream(), await caller.stream()
    closing = asyncio.create_task(silent.closing())
    while not closing.done():
        await talking.ask("ping")
    assert closing.result() == 1000
    assert (await talking.ask("ping"))["success"]


async def test_counts(start: Start) -> None:
    """The control route tells connections, subscriptions, messages and calls, and forgets the counts on request."""
    caller = await start(control=True)
    one, other = await caller.stream(), await caller.stream()
    for stream in (one, other):
        await stream.ask("subscribe", TICKER)
        await stream.next(TICKER)
    await caller.stream("private")
    await rest_ticker(caller)
    async with caller.session.get(f"{caller.url}/_control/streams") as response:
        counts = await response.json()
    assert counts == {
        "made": 3,
        "refused": 0,
        "open": {"linear": 2, "private": 1},
        "subscriptions": {f"linear/{TICKER}": 2},
        "answers": 2,
        "sent": {TICKER: 2},
        "calls": {"/v5/market/tickers": 1},
    }
    await caller.delete("streams")
    assert (caller.simulator.streams.made, caller.simulator.streams.sent) == (0, {})


async def test_a_plain_request_is_refused(start: Start) -> None:
    """A stream's path without an upgrade is 400."""
    caller = await start()
    async with caller.session.get(f"{caller.url}/v5/private") as response:
        assert response.status == 400


@pytest.mark.parametrize("ticks_per_s", [0.0, -1.0, 51.0])
async def test_tick_rates(start: Start, ticks_per_s: float) -> None:
    """A rate that cannot be kept is refused at the start."""
    with pytest.raises(ValueError, match="ticks per second"):
        await start(ticks_per_s=ticks_per_s)


async def test_slow_ticks(start: Start) -> None:
    """At one tick a second nothing changes before the second is over."""
    caller = await start(ticks_per_s=1.0)
    stream = await caller.stream()
    await stream.ask("subscribe", TICKER)
    await stream.next(TICKER)
    assert await stream.quiet(caller)
    due_ms = caller.simulator.streams.topics["linear", TICKER].due_ms
    assert NOW_MS < due_ms <= NOW_MS + 1_000
    caller.freeze(due_ms - 1)
    assert await stream.quiet(caller)
    caller.freeze(due_ms)
    assert (await stream.next(TICKER))["ts"] == due_ms


async def test_a_clock_set_back(start: Start) -> None:
    """Tickers follow a clock that is set back; the account is not pushed again."""
    caller = await start()
    stream = await caller.stream()
    private = await caller.private_stream("position", "wallet")
    await stream.ask("subscribe", TICKER)
    await stream.next(TICKER)
    caller.freeze(NOW_MS - 3_600_000)
    assert (await stream.next(TICKER))["ts"] == NOW_MS - 3_600_000
    assert await private.quiet(caller)


async def test_messages_are_shared(start: Start) -> None:
    """Everybody's message is the same bytes."""
    caller = await start()
    streams: list[Stream] = [await caller.stream() for _ in range(3)]
    for stream in streams:
        await stream.ask("subscribe", TICKER)
        await stream.next(TICKER)
    caller.freeze(NOW_MS + 2_000)
    texts = {(await stream.ws.receive(timeout=10)).data for stream in streams}
    assert len(texts) == 1
    assert json.loads(texts.pop())["type"] == "delta"
