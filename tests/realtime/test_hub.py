"""The hub over real sockets: live delivery, one asker a symbol, and telling everybody whom trouble concerns."""

import asyncio
import contextlib
import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from server.api.keys import CHANNELS, FEEDS, HUB
from server.models import Kind, Topic
from server.realtime.channel import Channel
from server.realtime.frames import Frame
from server.realtime.hub import LIVE_SNAPSHOT_S, SLICE, in_slices
from server.realtime.session import Session
from tests.conftest import Exchange, Gateway, StartGateway, closing, receive

from .sockets import RawSocket, collect, eventually, jobs, only_left, raw, settled
from .test_channels import MOMENT_MS, ticker_row, wallet_row

LIVE = "/ws/positions/BTCUSDT?interval=0"
IDLE = "/ws/positions/BTCUSDT?interval=60"
PATHS = ("/v5/market/tickers", "/v5/position/list", "/v5/account/wallet-balance")


def content(snapshot: dict[str, Any]) -> dict[str, Any]:
    """What a snapshot says, without when it was said."""
    return {name: value for name, value in snapshot.items() if name not in ("seq", "timestamp_ms", "age_ms")}


async def ask(gateway: Gateway, path: str) -> int:
    """The status of a GET that makes the gateway ask the exchange."""
    async with gateway.get(f"{path}?max_age_ms=0") as response:
        await response.read()
        return response.status


# Live delivery


async def test_each_change_is_shown_once(start_gateway: StartGateway, exchange: Exchange) -> None:
    """While nothing changes nothing is sent; a change is sent as it happens, once, to the exchange's digit."""
    await exchange.freeze(MOMENT_MS)
    gateway = await start_gateway(freshness={"live_poll_s": 0.05})
    async with gateway.ws_connect(LIVE) as ws:
        shown = [await receive(ws)]
        assert await collect(ws, 0.4) == []
        for seconds in (1, 2):
            await exchange.freeze(MOMENT_MS + seconds * 1000)
            messages = await collect(ws, 0.3)
            assert 1 <= len(messages) <= 3, "once for each part that changed, at the most"
            shown += messages
    assert {message["type"] for message in shown} == {"snapshot"}
    assert all(content(before) != content(after) for before, after in pairwise(shown))
    assert shown[-1]["current_price"] == (await ticker_row(exchange, "BTCUSDT"))["lastPrice"]
    assert shown[-1]["balance"]["equity"] == (await wallet_row(exchange))["totalEquity"]


async def test_candles_before_the_last_one_are_no_news(start_gateway: StartGateway, exchange: Exchange) -> None:
    """A channel of candles says nothing while others have older ones read, or read anew."""
    await exchange.freeze(MOMENT_MS)
    gateway = await start_gateway(freshness={"live_poll_s": 0.05})
    topic = Topic(Kind.KLINE, "BTCUSDT", "1")
    async with gateway.ws_connect("/ws") as ws:
        await ws.send_json({"op": "subscribe", "channels": ["kline:BTCUSDT:1"], "interval": 0})
        first = await receive(ws)
        for depth in (2000, 3000):
            held = gateway.app[FEEDS].in_hand(topic)
            assert held is not None
            gateway.app[FEEDS].amend(topic, msgspec.structs.replace(held.value, depth=depth))
            assert await collect(ws, 0.3) == []
        await exchange.freeze(MOMENT_MS + 2000)
        assert (await receive(ws))["candle"] != first["candle"]


async def test_a_slow_first_answer_is_shown_once(start_gateway: StartGateway, exchange: Exchange) -> None:
    """The first snapshot is not repeated when its readings took long: nothing in it has changed."""
    await exchange.freeze(MOMENT_MS)
    await exchange.fault("tickers", latency_s=0.4)
    gateway = await start_gateway()
    async with gateway.ws_connect(LIVE) as ws:
        await receive(ws)
        assert await collect(ws, 0.7) == []


async def test_a_snapshot_comes_at_least_every_so_often(
    start_gateway: StartGateway, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unchanged, a symbol is shown again within the limit of 5 s (here 0.6), wherever the polls fall."""
    assert LIVE_SNAPSHOT_S == 5.0
    monkeypatch.setattr("server.realtime.hub.LIVE_SNAPSHOT_S", 0.6)
    await exchange.freeze(MOMENT_MS)
    gateway = await start_gateway(freshness={"live_poll_s": 0.16})
    async with gateway.ws_connect(LIVE) as ws:
        stamps = [(await receive(ws))["timestamp_ms"] for _ in range(3)]
    gaps = [after - before for before, after in pairwise(stamps)]
    assert max(gaps) <= 600 + 30
    assert min(gaps) >= 200, "nor is everything sent at every poll"


async def test_a_hundred_live_sockets_cost_what_one_costs(start_gateway: StartGateway, exchange: Exchange) -> None:
    """One asker serves them all: as many calls as polls, and the very same bytes to each."""
    gateway = await start_gateway(freshness={"live_poll_s": 0.15})
    clients = await asyncio.gather(*(RawSocket.connect(gateway, LIVE) for _ in range(100)))
    try:
        await asyncio.gather(*(client.message() for client in clients))
        assert jobs(gateway).count("asker positions:BTCUSDT") == 1
        loop = asyncio.get_running_loop()
        before, started = await exchange.calls(), loop.time()
        newest = (await clients[0].message())["seq"]
        shown: list[set[bytes]] = []
        for client in clients:
            while json.loads(payload := (await client.frame())[1])["seq"] <= newest:
                pass
            shown.append({payload, *[(await client.frame())[1] for _ in range(2)]})
        elapsed_s, after = loop.time() - started, await exchange.calls()
        assert len(set.intersection(*shown)) >= 2
        assert all(after[path] - before[path] <= elapsed_s / 0.15 + 2 for path in PATHS)
    finally:
        for client in clients:
            client.close()
    await settled(gateway)


async def test_the_asker_ends_with_its_last_session(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Polled sessions need no asker, the last live one takes its symbol's along, and a later one gets a new one."""
    gateway = await start_gateway(freshness={"live_poll_s": 0.05})
    before = asyncio.all_tasks()
    for _ in range(2):
        async with gateway.ws_connect(IDLE) as idle:
            await receive(idle)
            assert "asker positions:BTCUSDT" not in jobs(gateway)
            async with gateway.ws_connect(LIVE) as one:
                await receive(one)
                async with gateway.ws_connect(LIVE) as two, gateway.ws_connect(LIVE.replace("BTC", "ETH")) as other:
                    await receive(two)
                    await receive(other)
                    assert [name for name in jobs(gateway) if name != "herald" and name and "asker" in name] == [
                        "asker positions:BTCUSDT",
                        "asker positions:ETHUSDT",
                    ]
                await eventually(lambda: "asker positions:ETHUSDT" not in jobs(gateway))
                assert "asker positions:BTCUSDT" in jobs(gateway)
                await receive(one)
            await eventually(lambda: "asker positions:BTCUSDT" not in jobs(gateway))
            calls = await exchange.calls()
            assert await collect(idle, 0.2) == []
            assert await exchange.calls() == calls
    await settled(gateway)
    await only_left(before)


async def test_sockets_that_leave_while_a_frame_goes_round(start_gateway: StartGateway) -> None:
    """Sessions that end between two slices of a delivery disturb neither it nor those that stay."""
    gateway = await start_gateway(freshness={"live_poll_s": 0.03})
    clients = await asyncio.gather(*(RawSocket.connect(gateway, LIVE) for _ in range(3 * SLICE)))
    staying, leaving = clients[::3], [client for client in clients if client not in clients[::3]]
    try:
        await asyncio.gather(*(client.message() for client in clients))
        for number, client in enumerate(leaving):
            (client.reset if number % 2 else client.close)()
            await asyncio.sleep(0)
        sequences = [[(await client.message())["seq"] for _ in range(5)] for client in staying]
        assert all(found == sorted(set(found)) for found in sequences)
        await eventually(lambda: len(gateway.app[HUB]) == len(staying))
    finally:
        for client in staying:
            client.close()
    await settled(gateway)


async def test_delivery_is_in_slices(start_gateway: StartGateway) -> None:
    """The loop has its turn after each slice, and one that leaves meanwhile harms nothing."""
    gateway = await start_gateway()
    order: list[str] = []
    async with gateway.ws_connect(IDLE) as ws:
        await receive(ws)
        (session,) = gateway.app[HUB].sessions
        loop = asyncio.get_running_loop()
        loop.call_soon(order.append, "turn")
        await in_slices([session] * (SLICE + 1), lambda _: order.append("act"))
    assert order == ["act"] * SLICE + ["turn", "act"]


@pytest.mark.parametrize("interval", ["0", "0.1"])
async def test_live_and_polled_share_what_is_known(start_gateway: StartGateway, interval: str) -> None:
    """Sessions of either kind on one symbol see one sequence, each of them growing."""
    gateway = await start_gateway(freshness={"live_poll_s": 0.05})
    async with gateway.ws_connect(LIVE) as live, gateway.ws_connect(LIVE[:-1] + interval) as other:
        for ws in (live, other):
            sequences = [(await receive(ws))["seq"] for _ in range(5)]
            assert sequences == sorted(set(sequences))


async def test_a_bug_of_the_asker_ends_whom_it_served(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Live sessions whose asker crashes are closed with 1011, without details; others live on, and new ones work."""
    gateway = await start_gateway(freshness={"live_poll_s": 0.1})
    async with gateway.ws_connect(LIVE) as one, gateway.ws_connect(LIVE) as two, gateway.ws_connect(IDLE) as idle:
        for ws in (one, two, idle):
            await receive(ws)
        monkeypatch.setattr(Channel, "state", _broken)
        for ws in (one, two):
            code, reason = await closing(ws)
            assert code == 1011
            assert "secret" not in reason
        monkeypatch.undo()
        await idle.send_json({"op": "ping"})
        await receive(idle, "pong")
        async with gateway.ws_connect(LIVE) as again:
            await receive(again)
            await receive(again)
    await settled(gateway)


def _broken(*_: object) -> None:
    raise RuntimeError("a secret detail")


# Trouble


async def test_a_broken_wallet_concerns_everybody(start_gateway: StartGateway, exchange: Exchange) -> None:
    """The wallet's failure and recovery are told to the sessions of every symbol; a price's to those of its own."""
    gateway = await start_gateway()
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    async with contextlib.AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(gateway.ws_connect(f"/ws/positions/{symbol}?interval=60"))
            for symbol in symbols
        ]
        for ws in sockets:
            assert (await receive(ws))["stale"] == []
        await exchange.fault("wallet", ret_code=10016)
        await ask(gateway, "/balance")
        for ws in sockets:
            status = await receive(ws, "status", timeout_s=2)
            assert (status["stale"], status["error"]["code"]) == (["balance"], "upstream_unavailable")
        await exchange.heal()
        await eventually_fresh(gateway, "/balance")
        for ws in sockets:
            assert (await receive(ws, "status", timeout_s=2))["stale"] == []
        await exchange.fault("tickers", status=500)
        await ask(gateway, "/price/ETHUSDT")
        assert (await receive(sockets[1], "status", timeout_s=2))["stale"] == ["price"]
        assert await collect(sockets[0], 0.1) == await collect(sockets[2], 0.1) == []


async def eventually_fresh(gateway: Gateway, path: str) -> None:
    """Ask until the answer is fresh again: after a failure the gateway pauses."""
    async with asyncio.timeout(5):
        while True:
            async with gateway.get(f"{path}?max_age_ms=0") as response:
                if (await response.json()).get("stale") is False:
                    return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("on_close", [False, True])
async def test_who_was_slow_when_a_trouble_ended_is_told_later(
    start_gateway: StartGateway, exchange: Exchange, *, on_close: bool
) -> None:
    """A live reader that could not be told that all is well again hears of it as soon as it keeps up."""
    await exchange.freeze(MOMENT_MS)
    gateway = await start_gateway(freshness={"live_poll_s": 0.05})
    channel, endpoint = ("indicators:BTCUSDT:1:rsi", "kline") if on_close else ("price:BTCUSDT", "tickers")
    topic = Topic(Kind.KLINE, "BTCUSDT", "1") if on_close else Topic(Kind.TICKER, "BTCUSDT")
    async with gateway.ws_connect("/ws") as ws:
        await ws.send_json(
            {"op": "subscribe", "channels": [channel], **({"on": "close"} if on_close else {"interval": 0})}
        )
        await receive(ws)
        await exchange.fault(endpoint, status=500)
        assert (await receive(ws, "status"))["stale"] != []
        (session,) = gateway.app[HUB].sessions
        outbox = session.outbox
        high_water_bytes, outbox.high_water_bytes = outbox.high_water_bytes, -1
        await exchange.heal()
        await eventually(lambda: not gateway.app[FEEDS].part(topic).has_failed)
        assert await collect(ws, 0.3) == []
        outbox.high_water_bytes = high_water_bytes
        assert (await receive(ws, "status"))["stale"] == []


async def test_trouble_is_told_to_those_who_come_later(start_gateway: StartGateway, exchange: Exchange) -> None:
    """What broke and healed while nobody watched does not hide the next failure from who watches now."""
    gateway = await start_gateway()
    async with gateway.ws_connect(IDLE) as ws:
        await receive(ws)
        await exchange.fault("wallet", status=500)
        await ask(gateway, "/balance")
        assert (await receive(ws, "status"))["stale"] == ["balance"]
    await settled(gateway)
    await exchange.heal()
    await eventually_fresh(gateway, "/balance")
    async with gateway.ws_connect(IDLE) as ws:
        assert (await receive(ws))["stale"] == []
        await exchange.fault("wallet", status=500)
        await ask(gateway, "/balance")
        assert (await receive(ws, "status", timeout_s=2))["stale"] == ["balance"]


async def test_trouble_of_a_session_that_has_left_is_forgotten(start_gateway: StartGateway, exchange: Exchange) -> None:
    """A session that is shown a last frame while it leaves does not keep its symbol's trouble alive."""
    gateway = await start_gateway()
    async with gateway.ws_connect(IDLE) as ws:
        await receive(ws)
        (session,) = gateway.app[HUB].sessions
    await settled(gateway)
    (subscription,) = session.subscriptions.values()
    subscription.announce(("position", "balance", "price"), gateway.app[HUB])
    async with gateway.ws_connect(IDLE) as ws:
        assert (await receive(ws))["stale"] == []
        for endpoint, part, path in (
            ("tickers", "price", "/price/BTCUSDT"),
            ("position", "position", "/positions/BTCUSDT"),
            ("wallet", "balance", "/balance"),
        ):
            await exchange.fault(endpoint, status=500)
            await ask(gateway, path)
            assert part in (await receive(ws, "status", timeout_s=2))["stale"]


async def test_trouble_of_other_symbols_is_nobodys(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Failures of symbols that nobody watches, and of klines, wake nobody and are not kept."""
    gateway = await start_gateway()
    async with gateway.ws_connect(IDLE) as ws:
        await receive(ws)
        await exchange.fault("*", status=500)
        for path in ("/price/ETHUSDT", "/positions/ETHUSDT", "/positions", "/indicators/BTCUSDT"):
            async with gateway.get(path) as response:
                assert response.status == 503
        assert await collect(ws, 0.2) == []
        await exchange.heal()
        async with gateway.ws_connect("/ws/positions/ETHUSDT?interval=60") as other:
            await receive(other)
            await eventually_fresh(gateway, "/price/ETHUSDT")
            await exchange.fault("tickers", status=500)
            await ask(gateway, "/price/ETHUSDT")
            while "price" not in (await receive(other, "status", timeout_s=2))["stale"]:
                pass


async def test_live_sessions_are_told_of_age_and_of_failure(start_gateway: StartGateway, exchange: Exchange) -> None:
    """A live session hears of a part that hangs once it is too old, and of the recovery, each in a status."""
    await exchange.freeze(MOMENT_MS)
    gateway = await start_gateway(freshness={"live_poll_s": 0.1, "stale_after_s": 0.4}, bybit={"call_timeout_s": 30.0})
    async with gateway.ws_connect(LIVE) as ws:
        healthy = await receive(ws)
        await exchange.fault("position", hang=True)
        old = await receive(ws)
        status = await receive(ws, "status")
        assert (old["stale"], status["stale"], status["error"]["code"]) == (
            ["position"],
            ["position"],
            "upstream_timeout",
        )
        assert content(old) == content(healthy) | {"stale": ["position"]}
        await exchange.heal()
        while (await receive(ws, "status"))["stale"]:
            pass
        await exchange.fault("position", status=500)
        status = await receive(ws, "status")
        assert (status["stale"], status["error"]["code"]) == (["position"], "upstream_unavailable")


async def test_a_live_session_hears_of_another_symbols_question(
    start_gateway: StartGateway, exchange: Exchange
) -> None:
    """Between two polls of its asker, a live session is told what the question of another found broken."""
    gateway = await start_gateway(freshness={"live_poll_s": 30.0})
    async with gateway.ws_connect(LIVE) as ws:
        await receive(ws)
        await exchange.fault("wallet", status=500)
        await ask(gateway, "/balance")
        assert (await receive(ws, "status", timeout_s=2))["stale"] == ["balance"]


async def test_a_symbol_that_nobody_watches_costs_no_frame(start_gateway: StartGateway) -> None:
    """The last session of a symbol takes its channel along."""
    gateway = await start_gateway()
    channels = gateway.app[CHANNELS]
    async with gateway.ws_connect(IDLE) as one:
        await receive(one)
        async with gateway.ws_connect(IDLE) as two:
            await receive(two)
        await settled(gateway, but=1)
        assert len(channels) == 1
    await settled(gateway)
    assert len(channels) == 0


async def test_who_leaves_before_the_first_answers_leaves_nothing(
    start_gateway: StartGateway, exchange: Exchange
) -> None:
    """First snapshots that come due between a session's leaving and its end start no asker that nobody would stop."""
    gateway = await start_gateway()
    await exchange.fault("wallet", hang=True)
    async with gateway.ws_connect("/ws") as ws:
        await ws.send_json({"op": "subscribe", "channels": ["balance"], "interval": 0})
        await receive(ws, "ack")
        await eventually(lambda: "first snapshots" in jobs(gateway))
        gateway.app[HUB].leave(gateway.app[HUB].sessions[0])
        await eventually(lambda: "first snapshots" not in jobs(gateway))
        assert "asker balance" not in jobs(gateway)
    await exchange.heal()
    await settled(gateway)


async def test_what_has_ended_is_told_nothing(start_gateway: StartGateway) -> None:
    """A stale frame that still goes round when its subscription ends makes no status after the ack."""
    gateway = await start_gateway()
    hub = gateway.app[HUB]
    async with gateway.ws_connect("/ws") as ws:
        await ws.send_json({"op": "subscribe", "channels": ["balance"], "interval": 0})
        await receive(ws)
        subscription = hub.sessions[0].subscriptions["balance"]
        await ws.send_json({"op": "unsubscribe", "channels": ["balance"]})
        await receive(ws, "ack")
        subscription.show(Frame(b"", subscription.channel.sequence + 1, ("balance",), 0.0, (None,)), hub)
        await ws.send_json({"op": "ping"})
        assert (await ws.receive_json())["type"] == "pong"


async def test_leaving_twice_does_nothing(start_gateway: StartGateway) -> None:
    """A session that has left can leave again, and what remains is counted right."""
    gateway = await start_gateway()
    hub = gateway.app[HUB]
    async with raw(gateway, LIVE) as one, raw(gateway, LIVE) as two:
        await one.message()
        await two.message()
        first: Session = hub.sessions[0]
        assert len(hub) == 2
        hub.leave(first)
        hub.leave(first)
        assert len(hub) == len(hub.sessions) == 1
    await settled(gateway)
