"""The socket of many channels, over real sockets: its operations, what is pushed, and what is left behind."""

import hashlib
import json
from typing import Any

import aiohttp
import pytest

from server.api.keys import HUB
from tests.conftest import Exchange, Gateway, StartGateway, closing, receive
from tests.realtime.sockets import eventually, settled

Socket = aiohttp.ClientWebSocketResponse

TOKEN = "a-token-of-the-channels-0123456789"
PAGE = {"Origin": "https://dash.example"}
TOKENS = {"tokens": (hashlib.sha256(TOKEN.encode()).hexdigest(),), "origins": (PAGE["Origin"],)}
LONG_AGO = {"max_age_ms": "60000"}
SINGLE = ("price:BTCUSDT", "balance", "kline:BTCUSDT:1", "positions:*")
MIDNIGHT_MS = 1_760_313_600_000
"""2025-10-13, 00:00 UTC."""
HELD_AT_TIMES = ("SOLUSDT", "DOGEUSDT", "BNBUSDT", "ADAUSDT", "ETHUSDT", "BTCUSDT", "BTCPERP")
OURS = ("type", "channel", "epoch", "seq", "timestamp_ms", "age_ms")
"""What only pushes have, or what differs from one moment to the next."""


async def ask(ws: Socket, op: str, kind: str = "ack", **fields: Any) -> Any:
    """The answer to an operation."""
    await ws.send_json({"op": op, **fields})
    return await receive(ws, kind)


async def first_of_each(ws: Socket, *names: str) -> dict[str, Any]:
    """The next snapshot of each of these channels; of others there must be none."""
    snapshots: dict[str, Any] = {}
    while len(snapshots) < len(names):
        message = await receive(ws)
        assert message["channel"] in names
        snapshots.setdefault(message["channel"], message)
    return snapshots


async def body(gateway: Gateway, path: str, **query: str) -> Any:
    """What a REST route answers from what is known."""
    async with gateway.get(path, params=LONG_AGO | query) as response:
        assert response.status == 200, await response.text()
        return await response.json()


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    """What is the same in a push and in an answer of the same reading."""
    return {name: value for name, value in document.items() if name not in OURS}


# Operations


async def test_a_socket_begins_with_nothing(start_gateway: StartGateway) -> None:
    """Nobody is pushed what was not asked for, and `list` says so."""
    gateway = await start_gateway()
    async with gateway.ws_connect("/ws") as ws:
        await ws.send_json({"op": "list", "id": 1})
        assert await ws.receive_json() == {"type": "list", "id": 1, "channels": []}
    await settled(gateway)


async def test_an_ack_tells_what_was_had_and_what_not(start_gateway: StartGateway) -> None:
    """The good channels of a request begin, each bad one is named with its reason, and each name counts once."""
    gateway = await start_gateway()
    async with gateway.ws_connect("/ws") as ws:
        names = ["balance", "nothing:BTCUSDT", "price:btc", "kline:BTCUSDT:2", "price:BTCUSDT", "balance"]
        ack = await ask(ws, "subscribe", id="a", channels=names)
        assert (ack["id"], ack["op"]) == ("a", "subscribe")
        assert ack["subscribed"] == ["balance", "price:BTCUSDT"]
        assert [error["channel"] for error in ack["errors"]] == ["nothing:BTCUSDT", "price:btc", "kline:BTCUSDT:2"]
        assert all(error["code"].startswith("invalid_") and error["detail"] for error in ack["errors"])
        await first_of_each(ws, "balance", "price:BTCUSDT")
        ack = await ask(ws, "unsubscribe", id=2, channels=["balance", "kline:BTCUSDT:1"])
        assert (ack["id"], ack["unsubscribed"]) == (2, ["balance"])
        assert [(error["channel"], error["code"]) for error in ack["errors"]] == [("kline:BTCUSDT:1", "not_subscribed")]
        assert (await ask(ws, "list", "list"))["channels"] == [{"channel": "price:BTCUSDT", "interval": 5.0}]
    await settled(gateway)


@pytest.mark.parametrize(
    "number",
    [0, -1, 7, 2**63 - 1, -(2**63), 2**64, -(2**63) - 1, 10**300, "", "a", "\u00fc\U0001f600", "x" * 500, None],
)
async def test_ids_are_echoed(start_gateway: StartGateway, number: int | str | None) -> None:
    """An id of any allowed type comes back as it was, with every kind of answer."""
    gateway = await start_gateway()
    async with gateway.ws_connect("/ws") as ws:
        for op, kind in (("ping", "pong"), ("list", "list"), ("auth", "ack"), ("subscribe", "error"), ("x", "error")):
            assert (await ask(ws, op, kind, id=number))["id"] == number


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"op":1}', "$.op"),
        ('{"op":"ping","id":1.5}', "$.id"),
        ('{"op":"ping","id":[]}', "$.id"),
        ('{"op":"subscribe","channels":"balance"}', "$.channels"),
        ('{"op":"subscribe","channels":[1]}', "$.channels[0]"),
        ('{"op":"subscribe","channels":["balance"],"interval":"5"}', "$.interval"),
        ('{"op":"subscribe","channels":["balance"],"interval":true}', "$.interval"),
        ('{"op":"subscribe","channels":["balance"],"interval":1e400}', "interval"),
        ('{"op":"subscribe","channels":[]}', "channels"),
        ('{"op":"unsubscribe"}', "channels"),
        ('{"op":"dance"}', "dance"),
        ("{}", "op"),
        ("[]", "object"),
        ("{", "JSON"),
        ("", "JSON"),
        ("[" * 5000, "object"),
    ],
)
async def test_what_is_wrong_is_named(start_gateway: StartGateway, text: str, named: str) -> None:
    """A message that cannot be obeyed is answered by the name of what is wrong, and changes nothing."""
    gateway = await start_gateway()
    async with gateway.ws_connect("/ws") as ws:
        await ws.send_str(text)
        error = await receive(ws, "error")
        assert error["code"].startswith("invalid_")
        assert named in error["detail"]
        assert (await ask(ws, "list", "list", more={"unknown": [1]}))["channels"] == []


# Pushes


async def test_the_first_push_is_what_rest_answers(start_gateway: StartGateway) -> None:
    """The first push of every channel is whole, and equals the body of the REST route of the same reading."""
    gateway = await start_gateway()
    async with gateway.ws_connect("/ws") as ws:
        await ask(ws, "subscribe", channels=[*SINGLE, "positions:BTCUSDT"], interval=60)
        shown = await first_of_each(ws, *SINGLE, "positions:BTCUSDT")
        price, balance = await body(gateway, "/price/BTCUSDT"), await body(gateway, "/balance")
        listed, own = await body(gateway, "/positions"), await body(gateway, "/positions/BTCUSDT")
        klines = await body(gateway, "/klines/BTCUSDT", interval="1", limit="5")
    assert without_times(shown["price:BTCUSDT"]) == without_times(price)
    money = {name: balance[name] for name in shown["balance"]["balance"]}
    assert shown["balance"]["balance"] == money
    assert without_times(shown["positions:*"]) == without_times(listed)
    candle = shown["kline:BTCUSDT:1"]
    assert (candle["candle"], candle["closed"]) == (klines["candles"][-1], klines["closed"])
    whole = shown["positions:BTCUSDT"]
    assert (whole["positions"], whole["has_position"]) == (own["positions"], own["has_position"])
    assert (whole["balance"], whole["current_price"]) == (money, price["last_price"])
    assert whole["stale"] == []
    assert len({message["epoch"] for message in shown.values()}) == 1


async def test_positions_open_and_close(start_gateway: StartGateway, exchange: Exchange) -> None:
    """`positions:*` shows a position that opens, and no longer one that has closed."""
    await exchange.freeze(MIDNIGHT_MS + 1000)  # then all are flat
    gateway = await start_gateway(freshness={"live_poll_s": 0.05})
    async with gateway.ws_connect("/ws") as ws:
        await ask(ws, "subscribe", channels=["positions:*"], interval=0)
        assert (await receive(ws))["positions"] == []
        new = HELD_AT_TIMES[0]
        await exchange.trade(new, "Buy", "10")
        while new not in {row["symbol"] for row in (await receive(ws))["positions"]}:
            pass
        await exchange.trade(new, "Sell", "10")
        while new in {row["symbol"] for row in (await receive(ws))["positions"]}:
            pass


# Paces


@pytest.mark.parametrize(
    ("interval", "is_good"),
    [(0, True), (0.1, True), (60, True), (0.099, False), (60.001, False), (-1, False), (-0.0, True)],
)
async def test_the_bounds_of_an_interval(start_gateway: StartGateway, interval: float, is_good: bool) -> None:
    """The bounds themselves are taken; beyond them the request is refused as a whole, saying what is allowed."""
    gateway = await start_gateway()
    async with gateway.ws_connect("/ws") as ws:
        answer = await ask(ws, "subscribe", "ack" if is_good else "error", channels=["balance"], interval=interval)
        listed = (await ask(ws, "list", "list"))["channels"]
        assert listed == ([{"channel": "balance", "interval": interval}] if is_good else [])
        assert is_good or "allowed: 0 for live, or 0.1 to 60 seconds" in answer["detail"]


async def test_resubscribing_changes_the_pace(start_gateway: StartGateway) -> None:
    """Two paces on one socket; a resubscription begins with a new snapshot and goes on at its own pace."""
    gateway = await start_gateway()
    async with gateway.ws_connect("/ws") as ws:
        await ask(ws, "subscribe", channels=["balance"], interval=60)
        slow = await receive(ws)
        await ask(ws, "subscribe", channels=["price:BTCUSDT"], interval=0.1)
        for _ in range(4):
            assert (await receive(ws))["channel"] == "price:BTCUSDT"
        await ask(ws, "unsubscribe", channels=["price:BTCUSDT"])
        await ask(ws, "subscribe", channels=["balance"], interval=0.1)
        sequences = [slow["seq"], *[(await receive(ws))["seq"] for _ in range(4)]]
        assert sequences == sorted(set(sequences))
        assert (await ask(ws, "list", "list"))["channels"] == [{"channel": "balance", "interval": 0.1}]
    await settled(gateway)


async def test_nothing_follows_the_ack_of_an_unsubscription(start_gateway: StartGateway) -> None:
    """In the midst of a burst, a channel's last message comes before the ack that ends it."""
    gateway = await start_gateway(freshness={"live_poll_s": 0.05}, websocket={"messages_per_s": 1000})
    async with gateway.ws_connect("/ws") as ws:
        for interval in (0, 0.1, 0, 0.1):
            await ask(ws, "subscribe", channels=["price:BTCUSDT", "price:ETHUSDT"], interval=interval)
            await first_of_each(ws, "price:BTCUSDT", "price:ETHUSDT")
            await ask(ws, "unsubscribe", channels=["price:BTCUSDT"])
            for _ in range(3):
                assert (await receive(ws))["channel"] == "price:ETHUSDT"


async def test_seq_only_grows_whoever_comes_and_goes(start_gateway: StartGateway) -> None:
    """Within an epoch a channel's seq grows over unsubscriptions, sockets, and times in which nobody has it."""
    gateway = await start_gateway()
    seen: list[int] = []
    epochs: set[str] = set()
    for _ in range(3):
        async with gateway.ws_connect("/ws") as ws:
            for _ in range(2):
                await ask(ws, "subscribe", channels=["balance"], interval=0.1)
                for _ in range(2):
                    message = await receive(ws)
                    seen.append(message["seq"])
                    epochs.add(message["epoch"])
                await ask(ws, "unsubscribe", channels=["balance"])
        await settled(gateway)
    assert seen == sorted(set(seen))
    assert len(epochs) == 1


# Limits


async def test_as_many_subscriptions_as_allowed(start_gateway: StartGateway) -> None:
    """One less than the most and the most are had; one more is refused by name, until one ends."""
    gateway = await start_gateway(websocket={"max_subscriptions": 3})
    async with gateway.ws_connect("/ws") as ws:
        assert (await ask(ws, "subscribe", channels=[*SINGLE[:2]]))["errors"] == []
        ack = await ask(ws, "subscribe", channels=[*SINGLE[2:]])
        assert ack["subscribed"] == [SINGLE[2]]
        assert [error["channel"] for error in ack["errors"]] == [SINGLE[3]]
        assert "max_subscriptions" in ack["errors"][0]["detail"]
        assert (await ask(ws, "subscribe", channels=[SINGLE[0]]))["errors"] == [], "what it has takes no more room"
        await ask(ws, "unsubscribe", channels=[SINGLE[0]])
        assert (await ask(ws, "subscribe", channels=[SINGLE[3]]))["errors"] == []
        assert len((await ask(ws, "list", "list"))["channels"]) == 3
    await settled(gateway)


@pytest.mark.parametrize(("more", "code"), [(-1, None), (0, None), (1, 1009)])
async def test_the_longest_message(start_gateway: StartGateway, more: int, code: int | None) -> None:
    """A message of message_bytes is taken, and one of a byte more closes the socket."""
    gateway = await start_gateway(websocket={"message_bytes": 1000})
    async with gateway.ws_connect("/ws") as ws:
        text = json.dumps({"op": "ping", "pad": ""})
        await ws.send_str(text.replace('""', f'"{"x" * (1000 + more - len(text))}"'))
        if code is None:
            await receive(ws, "pong")
        else:
            assert (await closing(ws))[0] == code


async def test_a_flood_is_1008(start_gateway: StartGateway) -> None:
    """More messages than allowed end the socket and all that it had."""
    gateway = await start_gateway(websocket={"messages_per_s": 5})
    async with gateway.ws_connect("/ws") as ws:
        for _ in range(20):
            await ws.send_json({"op": "ping"})
        assert (await closing(ws))[0] == 1008
    await settled(gateway)


async def test_a_stranger_gets_no_data(start_gateway: StartGateway) -> None:
    """A subscription before the token closes with 4401; by header or first message the socket opens."""
    gateway = await start_gateway(auth=TOKENS)
    async with gateway.ws_connect("/ws", headers=PAGE) as ws:
        await ws.send_json({"op": "subscribe", "channels": ["balance"]})
        assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
        assert ws.close_code == 4401
    async with gateway.ws_connect("/ws", headers=PAGE) as ws:
        assert await ask(ws, "auth", token=TOKEN, id="a") == {"type": "ack", "id": "a", "op": "auth"}
        assert (await ask(ws, "list", "list"))["channels"] == []
    async with gateway.ws_connect("/ws", headers={"Authorization": f"Bearer {TOKEN}"}) as ws:
        assert (await ask(ws, "list", "list"))["channels"] == []


# Trouble


async def test_an_unknown_symbol_leaves_the_rest(start_gateway: StartGateway) -> None:
    """A symbol that the exchange does not have is named in the ack, and leaves no channel behind."""
    gateway = await start_gateway()
    await body(gateway, "/price/BTCUSDT")
    async with gateway.ws_connect("/ws") as ws:
        ack = await ask(ws, "subscribe", channels=["price:NOSUCHUSDT", "balance"])
        assert ack["subscribed"] == ["balance"]
        assert [(error["channel"], error["code"]) for error in ack["errors"]] == [
            ("price:NOSUCHUSDT", "unknown_symbol")
        ]
        await first_of_each(ws, "balance")
    await settled(gateway)


async def test_staleness_is_told_and_healed(start_gateway: StartGateway, exchange: Exchange) -> None:
    """A channel whose refresh fails says so at once, another does not, and the end of it is told, too."""
    gateway = await start_gateway(freshness={"live_poll_s": 0.05})
    async with gateway.ws_connect("/ws") as ws:
        await ask(ws, "subscribe", channels=["balance", "price:BTCUSDT"], interval=0.1)
        await first_of_each(ws, "balance", "price:BTCUSDT")
        await exchange.fault("wallet", status=500)
        status = await receive(ws, "status")
        assert (status["channel"], status["stale"]) == ("balance", ["balance"])
        assert status["error"]["code"]
        await exchange.heal()
        status = await receive(ws, "status", timeout_s=30)
        assert (status["channel"], status["stale"], status["error"]) == ("balance", [], None)
    await settled(gateway)


async def test_nothing_of_a_channel_comes_before_its_first_snapshot(
    start_gateway: StartGateway, exchange: Exchange
) -> None:
    """While the first answer is awaited a reading in hand becomes too old: the snapshot is first, then the status."""
    gateway = await start_gateway(freshness={"stale_after_s": 0.25, "max_age_s": 0.001})
    async with gateway.ws_connect("/ws") as ws:
        await ask(ws, "subscribe", channels=["price:BTCUSDT"], interval=0.1)
        await body(gateway, "/balance")
        await exchange.fault("wallet", hang=True)
        await ws.send_json({"op": "subscribe", "channels": ["balance"], "interval": 60})
        kinds: list[str] = []
        while len(kinds) < 2:
            message = await ws.receive_json(timeout=10)
            if message.get("channel") == "balance":
                kinds.append(message["type"])
        assert kinds == ["snapshot", "status"]
    await exchange.heal()


async def test_nothing_is_left_behind(start_gateway: StartGateway) -> None:
    """Sockets that go without a word leave no session, channel, task or job."""
    gateway = await start_gateway()
    sockets = [await gateway.ws_connect("/ws") for _ in range(4)]
    for number, ws in enumerate(sockets):
        await ask(ws, "subscribe", channels=[*SINGLE, "positions:BTCUSDT"], interval=number % 2 and 0.1)
    await eventually(lambda: len(gateway.app[HUB].sessions) == 4)
    for ws in sockets:
        await ws.close()
    await settled(gateway)


async def test_a_late_list_ends_what_it_has_not(start_gateway: StartGateway, exchange: Exchange) -> None:
    """While there is no list of symbols all are let in; once it comes, live or paced, those that it lacks are ended."""
    await exchange.fault("instruments", status=500)
    gateway = await start_gateway()
    async with gateway.ws_connect("/ws") as ws:
        channels = ["price:BTCUSDT", "price:NOSUCHUSDT"]
        await ws.send_json({"op": "subscribe", "channels": channels, "interval": 0})
        assert (await receive(ws, "ack"))["subscribed"] == channels
        await ws.send_json({"op": "subscribe", "channels": ["positions:NOSUCHUSDT"], "interval": 0.1})
        assert (await receive(ws, "ack"))["subscribed"] == ["positions:NOSUCHUSDT"]
        await exchange.heal()
        errors = [await receive(ws, "error", timeout_s=20) for _ in range(2)]
        assert {(error["channel"], error["code"]) for error in errors} == {
            ("price:NOSUCHUSDT", "unknown_symbol"),
            ("positions:NOSUCHUSDT", "unknown_symbol"),
        }
        await ws.send_json({"op": "list"})
        assert [one["channel"] for one in (await receive(ws, "list"))["channels"]] == ["price:BTCUSDT"]
        while (await receive(ws))["channel"] != "price:BTCUSDT":
            pass
