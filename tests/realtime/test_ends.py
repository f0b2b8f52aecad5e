"""The socket of many channels at its bounds: its heartbeat, who is let in, what it may say, and how it is closed."""

import asyncio
import hashlib
import json
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from server.api.keys import HUB, LOAD
from server.api.ws import drain
from tests.conftest import Exchange, StartGateway, closing, receive

from .sockets import CLOSE, PING, TEXT, RawSocket, client_frame, eventually, raw, settled

TOKEN = "a-token-of-many-channels-0123456789"
PAGE = {"Origin": "https://page.example"}
"""Of a browser, which cannot send its token but as the first message."""
TOKENS = {"tokens": (hashlib.sha256(TOKEN.encode()).hexdigest(),), "origins": (PAGE["Origin"],)}
RIGHT = {"Authorization": f"Bearer {TOKEN}"}
GONE = (1001, "the gateway is restarting")


async def subscribe(ws: aiohttp.ClientWebSocketResponse, interval: float, *channels: str) -> None:
    """Subscribe, and wait for the first snapshot of each."""
    await ws.send_json({"op": "subscribe", "channels": channels, "interval": interval})
    assert (await receive(ws, "ack"))["subscribed"] == [*channels]
    left = set(channels)
    while left:
        left.discard((await receive(ws))["channel"])


async def say(client: RawSocket, op: str, **fields: Any) -> None:
    """Send an operation."""
    await client.send(TEXT, json.dumps({"op": op, **fields}).encode())


@pytest.fixture
def fast_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat after 0.2 s without a word."""
    monkeypatch.setattr("server.realtime.session.HEARTBEAT_S", 0.2)


@pytest.fixture
def short_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A farewell that waits less for whoever does not answer."""
    monkeypatch.setattr("server.realtime.farewell.CLOSE_S", 0.2)


# Heartbeat


@pytest.mark.usefixtures("fast_heartbeat")
async def test_the_heartbeat_names_stale_channels(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Only what is stale now is named, by channel and part; what is healed or given up is not any more."""
    await exchange.freeze(1_732_280_123_456)
    gateway = await start_gateway()
    async with gateway.ws_connect("/ws") as ws:
        await subscribe(ws, 60, "balance", "price:BTCUSDT", "positions:BTCUSDT")
        assert (await receive(ws, "heartbeat"))["stale"] == {}
        await exchange.fault("wallet", status=500)
        async with gateway.get("/balance?max_age_ms=0") as response:
            await response.read()
        told = {(status := await receive(ws, "status"))["channel"]: status["stale"] for _ in range(2)}
        assert told == {"balance": ["balance"], "positions:BTCUSDT": ["balance"]}
        assert (await receive(ws, "heartbeat"))["stale"] == told
        await ws.send_json({"op": "unsubscribe", "channels": ["balance"]})
        await receive(ws, "ack")
        assert (await receive(ws, "heartbeat"))["stale"] == {"positions:BTCUSDT": ["balance"]}
        await exchange.heal()
        async with asyncio.timeout(20):
            while (await receive(ws, "heartbeat"))["stale"]:
                async with gateway.get("/balance?max_age_ms=0") as response:
                    await response.read()
    await settled(gateway)


@pytest.mark.usefixtures("fast_heartbeat")
async def test_a_socket_without_channels_has_a_heartbeat(start_gateway: StartGateway) -> None:
    """A socket that has nothing, or nothing any more, is told again and again that it lives."""
    gateway = await start_gateway()
    async with gateway.ws_connect("/ws") as ws:
        stamps = [(await receive(ws, "heartbeat"))["timestamp_ms"] for _ in range(2)]
        await subscribe(ws, 60, "balance")
        await ws.send_json({"op": "unsubscribe", "channels": ["balance"]})
        await receive(ws, "ack")
        for _ in range(2):
            message = await ws.receive_json()
            assert (message["type"], message["stale"]) == ("heartbeat", {})
            stamps.append(message["timestamp_ms"])
        assert all(after - before >= 190 for before, after in pairwise(stamps))
    await settled(gateway)


# Who is let in


@pytest.mark.usefixtures("short_farewell")
async def test_nothing_is_done_before_the_token(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Whatever a stranger asks first, alone or with the token behind it, is closed with 4401 and costs no call."""
    gateway = await start_gateway(auth=TOKENS)
    token = client_frame(TEXT, json.dumps({"op": "auth", "token": TOKEN}).encode())
    for op in ("subscribe", "unsubscribe", "list", "ping"):
        operation = client_frame(TEXT, json.dumps({"op": op, "channels": ["balance"]}).encode())
        for data in (operation, operation + token):
            async with raw(gateway, "/ws", headers=PAGE) as client:
                await client.write(data)
                frames = await client.rest()
            assert [(opcode, payload[:2]) for opcode, payload in frames] == [(CLOSE, (4401).to_bytes(2, "big"))]
    await settled(gateway)
    calls = await exchange.calls()
    assert calls.get("/v5/account/wallet-balance", 0) == 0


async def test_what_follows_the_token_is_obeyed(start_gateway: StartGateway) -> None:
    """Operations sent in one piece with the token are answered in order, after its ack."""
    gateway = await start_gateway(auth=TOKENS)
    asked: list[dict[str, Any]] = [
        {"op": "auth", "token": TOKEN, "id": 1},
        {"op": "subscribe", "channels": ["price:BTCUSDT"], "interval": 60, "id": 2},
        {"op": "list", "id": 3},
    ]
    async with raw(gateway, "/ws", headers=PAGE) as client:
        data = b"".join(client_frame(TEXT, json.dumps(one).encode()) for one in asked)
        await client.write(data)
        answers = [json.loads((await client.frame())[1]) for _ in range(3)]
        assert [(answer["type"], answer["id"]) for answer in answers] == [("ack", 1), ("ack", 2), ("list", 3)]
        assert (await client.message())["channel"] == "price:BTCUSDT"
    await settled(gateway)


@pytest.mark.usefixtures("short_farewell")
async def test_the_deadline_of_the_token(start_gateway: StartGateway) -> None:
    """Who says nothing, or only pings, is closed in time; who has shown the token is past every deadline."""
    gateway = await start_gateway(auth=TOKENS, websocket={"auth_timeout_s": 0.4})
    async with (
        gateway.ws_connect("/ws", headers=PAGE) as friend,
        gateway.ws_connect("/ws", headers=PAGE) as silent,
        raw(gateway, "/ws", headers=PAGE) as pinging,
    ):
        await friend.send_json({"op": "auth", "token": TOKEN})
        await receive(friend, "ack")
        await pinging.send(PING, b"here")
        assert await closing(silent) == (4401, "no token within 0.4 s")
        assert await pinging.close_code() == 4401
        await subscribe(friend, 60, "balance")
    await settled(gateway)


async def test_parameters_are_judged_after_the_token(start_gateway: StartGateway) -> None:
    """`/ws` takes no parameters: a stranger does not learn even that."""
    gateway = await start_gateway(auth=TOKENS)
    for name in ("interval", "token", "channels"):
        async with gateway.ws_connect(f"/ws?{name}=1", headers=PAGE) as ws:
            await ws.send_json({"op": "auth", "token": "wrong"})
            assert (await closing(ws))[0] == 4401
        async with gateway.ws_connect(f"/ws?{name}=1", headers=RIGHT) as ws:
            code, reason = await closing(ws)
            assert (code, name in reason) == (4400, True)
    await settled(gateway)


async def test_a_wrong_token_ends_every_channel(start_gateway: StartGateway) -> None:
    """A wrong token on a running socket is 4401, and nothing of any channel follows."""
    gateway = await start_gateway(auth=TOKENS, freshness={"live_poll_s": 0.05})
    async with gateway.ws_connect("/ws", headers=RIGHT) as ws:
        await subscribe(ws, 0, "balance", "price:BTCUSDT")
        await ws.send_json({"op": "auth", "token": "wrong"})
        assert (await closing(ws))[0] == 4401
        assert (await ws.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING)
    await settled(gateway)


async def test_both_routes_share_the_places(start_gateway: StartGateway) -> None:
    """One less than the most and the most are let in, whichever their route; one more is 4429, until one leaves."""
    gateway = await start_gateway(websocket={"max_connections": 3})
    sockets = [await gateway.ws_connect(path) for path in ("/ws", "/ws/positions/BTCUSDT?interval=60", "/ws")]
    await eventually(lambda: len(gateway.app[HUB]) == 3)
    for path in ("/ws", "/ws/positions/BTCUSDT"):
        async with gateway.ws_connect(path) as ws:
            code, reason = await closing(ws)
            assert (code, "retry after" in reason) == (4429, True)
    await sockets.pop().close()
    await eventually(lambda: len(gateway.app[LOAD].sockets) == 2)
    async with gateway.ws_connect("/ws") as ws:
        await subscribe(ws, 60, "balance")
    for ws in sockets:
        await ws.close()
    await settled(gateway)


# What it may say


@pytest.mark.usefixtures("short_farewell")
@pytest.mark.parametrize(("count", "is_flood"), [(3, False), (4, False), (5, True)])
async def test_as_many_messages_as_allowed(start_gateway: StartGateway, count: int, is_flood: bool) -> None:
    """One less than messages_per_s at once and as many are answered; one more ends the socket, whatever it says."""
    gateway = await start_gateway(websocket={"messages_per_s": 4})
    async with raw(gateway, "/ws") as client:
        await eventually(lambda: len(gateway.app[HUB]) == 1)
        operations = [{"op": "list", "id": number} for number in range(count)]
        operations[0]["op"] = "nonsense"
        data = b"".join(client_frame(TEXT, json.dumps(operation).encode()) for operation in operations)
        await client.write(data)
        for number in range(min(count, 4)):
            assert json.loads((await client.frame())[1])["id"] == number
        if is_flood:
            assert await client.close_code() == 1008
        else:
            await client.send(CLOSE, (1000).to_bytes(2, "big"))
            assert await client.close_code() == 1000
    await settled(gateway)


@pytest.mark.parametrize(("more", "code"), [(-1, None), (0, None), (1, 1009)])
async def test_the_longest_request(start_gateway: StartGateway, more: int, code: int | None) -> None:
    """A subscribe as long as message_bytes is obeyed, in bytes and not characters; a byte more ends every channel."""
    gateway = await start_gateway(websocket={"message_bytes": 1000})
    async with gateway.ws_connect("/ws") as ws:
        await subscribe(ws, 60, "balance")
        request = {"op": "subscribe", "channels": ["price:BTCUSDT"], "id": ""}
        room = 1000 + more - len(json.dumps(request))
        request["id"] = "\u00fc" * (room // 2) + "x" * (room % 2)
        await ws.send_str(text := json.dumps(request, ensure_ascii=False))
        assert len(text.encode()) == 1000 + more
        if code is None:
            assert (await receive(ws, "ack"))["id"] == request["id"]
        else:
            assert (await closing(ws))[0] == code
    await settled(gateway)


# How it is closed


@pytest.mark.usefixtures("short_farewell")
async def test_a_drain_closes_each_socket_once(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Live, paced, without channels, before first answers or the token: one 1001 each, and nothing after it."""
    gateway = await start_gateway(auth=TOKENS, freshness={"live_poll_s": 0.05}, bybit={"call_timeout_s": 30.0})
    before = asyncio.all_tasks()
    clients: list[RawSocket] = []
    for interval in (0, 0.1):
        clients.append(client := await RawSocket.connect(gateway, "/ws", headers=RIGHT))
        await say(client, "subscribe", channels=["price:BTCUSDT", "balance"], interval=interval)
        await client.message()
    clients.append(await RawSocket.connect(gateway, "/ws", headers=RIGHT))
    clients.append(await RawSocket.connect(gateway, "/ws", headers=PAGE))
    await exchange.fault("tickers", hang=True)
    clients.append(waiting := await RawSocket.connect(gateway, "/ws", headers=RIGHT))
    await say(waiting, "subscribe", channels=["price:ETHUSDT", "price:SOLUSDT"], interval=0)
    await waiting.message("ack")
    await eventually(lambda: len(gateway.app[LOAD].sockets) == len(clients))
    await asyncio.gather(drain(gateway.app), drain(gateway.app))
    for client in clients:
        frames = await client.rest()
        closes = [(int.from_bytes(payload[:2], "big"), payload[2:].decode()) for op, payload in frames if op == CLOSE]
        assert closes == [GONE]
        assert frames[-1][0] == CLOSE
        client.close()
    await exchange.heal()
    await settled(gateway)
    await eventually(lambda: not [task for task in asyncio.all_tasks() - before if "feed" not in task.get_name()])


async def test_operations_that_cross_the_drain(start_gateway: StartGateway) -> None:
    """A subscribe that arrives while the socket is closed begins nothing, and is not answered after the close frame."""
    gateway = await start_gateway()
    async with raw(gateway, "/ws") as client:
        await eventually(lambda: len(gateway.app[HUB]) == 1)
        draining = asyncio.create_task(drain(gateway.app))
        await asyncio.sleep(0)
        await say(client, "subscribe", channels=["balance"], interval=0)
        frames = await client.rest()
        closes = [number for number, (opcode, _) in enumerate(frames) if opcode == CLOSE]
        assert closes == [len(frames) - 1]
        await draining
    await settled(gateway)


async def test_a_binary_message_is_no_json(start_gateway: StartGateway) -> None:
    """A binary message is answered like any that is no JSON; the channels go on."""
    gateway = await start_gateway(freshness={"live_poll_s": 0.05})
    async with gateway.ws_connect("/ws") as ws:
        await subscribe(ws, 0, "price:BTCUSDT")
        await ws.send_bytes(json.dumps({"op": "ping"}).encode())
        assert (await receive(ws, "error"))["code"] == "invalid_message"
        assert (await receive(ws))["channel"] == "price:BTCUSDT"
    await settled(gateway)


async def test_too_many_symbols_in_use_refuse_the_channel(start_gateway: StartGateway) -> None:
    """A channel over freshness.max_symbols is an error of the ack with when to come back; all others go on."""
    gateway = await start_gateway(freshness={"max_symbols": 1, "live_poll_s": 0.05})
    async with gateway.ws_connect("/ws") as neighbour, gateway.ws_connect("/ws") as ws:
        await subscribe(neighbour, 0, "price:BTCUSDT")
        names = ["price:BTCUSDT", "price:ETHUSDT", "positions:ETHUSDT", "balance"]
        await ws.send_json({"op": "subscribe", "channels": names, "interval": 0})
        ack = await receive(ws, "ack")
        assert ack["subscribed"] == ["price:BTCUSDT", "balance"]
        assert [(fault["channel"], fault["code"]) for fault in ack["errors"]] == [
            ("price:ETHUSDT", "overloaded"),
            ("positions:ETHUSDT", "overloaded"),
        ]
        assert all("freshness.max_symbols" in fault["detail"] for fault in ack["errors"])
        assert {(await receive(ws))["channel"] for _ in range(2)} == {"price:BTCUSDT", "balance"}
        assert (await receive(neighbour))["stale"] is False
    await settled(gateway)
