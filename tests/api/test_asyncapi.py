"""GET /asyncapi.json: the document by AsyncAPI's own schema, and real messages by the document."""

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft7Validator

from server.access.tokens import Scope, TokenEntry
from server.api.asyncapi import document
from server.api.operations import MULTIPLE, SINGLE
from server.api.scopes import SOCKETS
from server.errors import OUTCOMES
from server.realtime.channels import FORMS, SNAPSHOTS
from server.realtime.messages import Message
from server.realtime.operations import FIELDS
from server.settings import KeyPair, Secret, ServerSettings, Settings
from tests.api.test_rest import ask, refused
from tests.conftest import Exchange, Gateway, StartGateway, receive

SCHEMA = Path(__file__).with_name("asyncapi-3.0.0") / "schema.json.gz"
"""AsyncAPI's own, of the npm package @asyncapi/specs (Apache-2.0; see beside it)."""

FORM_OF = {
    "positions:BTCUSDT": "positions:SYMBOL",
    "positions:*": "positions:*",
    "price:BTCUSDT": "price:SYMBOL",
    "balance": "balance",
    "kline:BTCUSDT:1": "kline:SYMBOL:INTERVAL",
    "indicators:BTCUSDT:15:rsi:14,macd": "indicators:SYMBOL:INTERVAL:NAMES",
}
SHORT_S = 0.2
TOKEN, LESSER = "a-token-of-everything-0123456789", "a-token-of-the-market-0123456789"


def hash_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


TOKENS = {
    "tokens": (
        TokenEntry(name="all", hash=hash_of(TOKEN)),
        TokenEntry(name="market", hash=hash_of(LESSER), scopes=(Scope.MARKET,)),
    ),
    "origins": ("https://dash.example",),
}


class Guide:
    """The document as a strict reader takes it: what it does not name must not be there."""

    def __init__(self, text: bytes) -> None:
        self.document: dict[str, Any] = json.loads(text)
        components = self.document["components"]
        self.messages: dict[str, Any] = components["messages"]
        closed = {name: _closed(schema) for name, schema in components["schemas"].items()}
        self._validators = {
            name: Draft7Validator({**message["payload"], "components": {"schemas": closed}})
            for name, message in self.messages.items()
        }

    def names(self, channel: str) -> set[str]:
        """The messages of a channel."""
        return set(self.document["channels"][channel]["messages"])

    def faults(self, name: str, payload: Any) -> list[str]:
        """What is wrong with `payload` as a message of that name."""
        return [f"{error.json_path}: {error.message}" for error in self._validators[name].iter_errors(payload)]

    def name_of(self, payload: Any, channel: str) -> str:
        """The one message of `channel` that `payload` is."""
        faults = {name: self.faults(name, payload) for name in self.names(channel)}
        fitting = [name for name, wrong in faults.items() if not wrong]
        assert len(fitting) == 1, (payload, fitting, faults)
        return fitting[0]


def _closed(schema: Any) -> Any:
    """`schema` without room for fields that it does not name."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    more = {"additionalProperties": False} if "properties" in schema else {}
    return {name: _closed(value) for name, value in schema.items()} | more


def refs(part: Any) -> Iterator[str]:
    """Every reference within `part`."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "$ref":
                yield value
            else:
                yield from refs(value)
    elif isinstance(part, list):
        for each in part:
            yield from refs(each)


def leaves(kind: type[Message]) -> Iterator[type[Message]]:
    """The classes below `kind` that nothing is derived from: those that are sent."""
    for below in kind.__subclasses__():
        yield from leaves(below) if below.__subclasses__() else (below,)


@pytest.fixture(name="guide", scope="module")
def the_guide() -> Guide:
    return Guide(document(Settings()).body)


@pytest.fixture
def fast_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats after a moment of nothing."""
    monkeypatch.setattr("server.realtime.session.HEARTBEAT_S", SHORT_S)


# The document


def test_it_is_an_asyncapi_document(guide: Guide) -> None:
    """It is valid by AsyncAPI's own schema, which refuses one with a mistake."""
    validator = Draft7Validator(json.loads(gzip.decompress(SCHEMA.read_bytes())))
    assert [error.message for error in validator.iter_errors(guide.document)] == []
    wrong = {"action": "push", "channel": {"$ref": "#/channels/multiple"}}
    assert not validator.is_valid(guide.document | {"operations": {"wrong": wrong}})


def test_every_reference_leads_somewhere(guide: Guide) -> None:
    """No reference without what it names, and nothing declared that no reference names."""
    found = set(refs(guide.document))
    for ref in found:
        place: Any = guide.document
        for step in ref.removeprefix("#/").split("/"):
            place = place[step]
    components = guide.document["components"]
    declared = {f"#/components/{section}/{name}" for section, parts in components.items() for name in parts}
    assert declared == {ref for ref in found if ref.startswith("#/components/")}


def test_every_example_fits_its_message_alone(guide: Guide) -> None:
    """Each message has an example, which is that message and, on its channel, no other."""
    for channel in guide.document["channels"]:
        for name in guide.names(channel):
            (example,) = guide.messages[name]["examples"]
            assert guide.name_of(example["payload"], channel) == name


def test_every_message_that_can_be_sent_is_in_it(guide: Guide) -> None:
    """Sockets are sent Messages only: each kind of them is described, and nothing else is."""
    sent = {kind.__name__ for kind in leaves(Message)}
    asked = {f"{name.capitalize()}Operation" for name in MULTIPLE}
    assert set(guide.messages) == sent | asked
    assert set(MULTIPLE) == FIELDS.keys()
    assert guide.names("multiple") == set(guide.messages)


def test_every_operation_is_in_it(guide: Guide) -> None:
    """Each socket sends by itself, receives the operations that its clients may ask for, and answers each of them."""
    for channel, allowed in (("positions", SINGLE), ("multiple", MULTIPLE)):
        of = {name: one for name, one in guide.document["operations"].items() if name.startswith(f"{channel}.")}
        assert of.keys() == {f"{channel}.{name}" for name in ("push", *allowed)}
        used = {ref.rpartition("/")[2] for ref in refs(of) if "/messages/" in ref}
        assert used == guide.names(channel)
        assert all((one["action"] == "send") == name.endswith(".push") for name, one in of.items())
        assert all(one["action"] == "send" or one["reply"] for one in of.values())


def test_every_channel_is_in_it(guide: Guide) -> None:
    """Both routes are there, and the snapshot of each form of a channel's name."""
    assert {channel["address"] for channel in guide.document["channels"].values()} == SOCKETS
    assert {one["x-channel"] for one in guide.messages.values() if "x-channel" in one} == set(FORMS)


def test_every_close_code_is_in_it(guide: Guide) -> None:
    """Each code that an error closes with has its meaning, its advice and the errors' own codes; no other is there."""
    closes = guide.document["x-close-codes"]
    assert {int(code) for code in closes} == {one.close_code for one in OUTCOMES.values() if one.close_code}
    assert all(close["meaning"] and close["reconnect"] for close in closes.values())
    assert closes["4429"]["codes"] == ["too_many_subscriptions", "rate_limited", "too_many_connections", "overloaded"]
    assert (closes["1001"]["reconnect"], closes["4401"]["reconnect"]) == ("at once, with jitter", "no")


def test_the_pages_have_the_same_close_codes(guide: Guide) -> None:
    """docs/protocol.md has each of them, in the row of its advice."""
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith(("| 1", "| 4")) and line.count("|") == 4]
    told = {code.strip("| "): row[2].strip("| ") for row in rows for code in row[0].split("·")}
    closes = guide.document["x-close-codes"]
    assert set(closes) <= set(told)
    assert all(closes[code]["reconnect"].startswith(told[code]) for code in closes)


# Real messages


@pytest.mark.usefixtures("fast_heartbeat")
async def test_all_that_a_socket_of_many_channels_is_sent(start_gateway: StartGateway, exchange: Exchange) -> None:
    """One of every message of the document comes from a running gateway, and fits its own description alone."""
    gateway = await start_gateway(auth=TOKENS, websocket={"messages_per_s": 100})
    guide = await _guide(gateway, Authorization=f"Bearer {TOKEN}")
    seen: dict[str, Any] = {}
    async with gateway.ws_connect("/ws", headers={"Origin": "https://dash.example"}) as ws:

        async def have(name: str, **asked: Any) -> None:
            """Ask for something, and look at all that comes until there was a message of that name."""
            if asked:
                assert guide.name_of(asked, "multiple") == f"{asked['op'].capitalize()}Operation"
                await ws.send_json(asked)
            seen.pop(name, None)
            while name not in seen:
                _note(guide, seen, await _next(ws), "multiple")

        await have("AuthMessage", op="auth", token=TOKEN)
        names = [*FORM_OF, "price:btcusdt"]
        await have("SubscribedMessage", op="subscribe", id="a", channels=names, interval=60)
        assert [fault["code"] for fault in seen["SubscribedMessage"]["errors"]] == ["invalid_symbol"]
        for name in sorted(form.__name__ for form in SNAPSHOTS.values()):
            while name not in seen:
                _note(guide, seen, await _next(ws), "multiple")
        await have("ListMessage", op="list", id=1)
        await have("PongMessage", op="ping", id=None)
        await have("HeartbeatMessage")
        await exchange.fault("wallet", status=500)
        async with gateway.get("/balance?max_age_ms=0", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
            await response.read()
        await have("StatusMessage")
        assert seen["StatusMessage"]["error"]["reason"] == "busy"
        await have("UnsubscribedMessage", op="unsubscribe", channels=["price:BTCUSDT", "price:ETHUSDT"])
        assert [fault["code"] for fault in seen["UnsubscribedMessage"]["errors"]] == ["not_subscribed"]
        await ws.send_str("{")
        await have("ErrorMessage")
        assert "channel" not in seen["ErrorMessage"]
        await have("ErrorMessage", op="auth", token=LESSER)
        assert seen["ErrorMessage"]["channel"] in FORM_OF
    assert seen.keys() == {name for name in guide.messages if not name.endswith("Operation")}


@pytest.mark.usefixtures("fast_heartbeat")
async def test_all_that_a_socket_of_one_symbol_is_sent(start_gateway: StartGateway, exchange: Exchange) -> None:
    """The same on the socket of one symbol."""
    gateway = await start_gateway()
    guide = await _guide(gateway)
    seen: dict[str, Any] = {}
    async with gateway.ws_connect("/ws/positions/BTCUSDT?interval=60") as ws:
        for text in ('{"op":"ping","id":7}', '{"op":"auth","token":"any"}', '{"op":"list"}'):
            await ws.send_str(text)
        wanted = {name for name in guide.names("positions") if not name.endswith("Operation")}
        while not seen.keys() >= wanted - {"StatusMessage"}:
            _note(guide, seen, await _next(ws), "positions")
        await exchange.fault("wallet", status=500)
        async with gateway.get("/balance?max_age_ms=0") as response:
            await response.read()
        while seen.keys() != wanted:
            _note(guide, seen, await _next(ws), "positions")


async def test_what_is_unknown_fits_too(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Snapshots of what was never read are null where the document allows that."""
    for endpoint in ("tickers", "position", "wallet", "kline"):
        await exchange.fault(endpoint, status=500)
    gateway = await start_gateway(bybit={"stream_url": "ws://127.0.0.1:1"})
    guide = await _guide(gateway)
    async with gateway.ws_connect("/ws") as ws:
        await ws.send_json({"op": "subscribe", "channels": [*FORM_OF], "interval": 60})
        shown: dict[str, Any] = {}
        while shown.keys() != FORM_OF.keys():
            snapshot = await receive(ws)
            shown[snapshot["channel"]] = snapshot
    for channel, snapshot in shown.items():
        name = guide.name_of(snapshot, "multiple")
        assert guide.messages[name]["x-channel"] == FORM_OF[channel]
    assert shown["price:BTCUSDT"]["last_price"] is None
    assert shown["kline:BTCUSDT:1"]["candle"] is None
    assert shown["positions:BTCUSDT"]["balance"] is None


async def test_operations_need_what_it_says(start_gateway: StartGateway) -> None:
    """Each operation is obeyed with what the document requires alone, and never without one of those fields."""
    gateway = await start_gateway(auth=TOKENS, websocket={"messages_per_s": 100})
    guide = await _guide(gateway, Authorization=f"Bearer {TOKEN}")
    examples = {"op": "", "channels": ["price:BTCUSDT"], "token": TOKEN}
    for op in MULTIPLE:
        name = f"{op.capitalize()}Operation"
        required = guide.document["components"]["schemas"][name]["required"]
        message = {field: examples[field] for field in required} | {"op": op}
        assert guide.faults(name, message) == []
        assert await _answer(gateway, message) in {"ack", "list", "pong"}
        for field in set(required) - {"op"}:
            lacking = {name: value for name, value in message.items() if name != field}
            assert guide.faults(name, lacking)
            assert await _answer(gateway, lacking) in {"error", "4401"}


async def _answer(gateway: Gateway, message: Any) -> str:
    """The type of the first answer, or the close code."""
    async with gateway.ws_connect("/ws", headers={"Authorization": f"Bearer {TOKEN}"}) as ws:
        await ws.send_json(message)
        answer = await ws.receive(timeout=10)
        kind: str = answer.json()["type"] if answer.type is aiohttp.WSMsgType.TEXT else str(answer.data)
        return kind


async def _guide(gateway: Gateway, **headers: str) -> Guide:
    async with gateway.get("/asyncapi.json", headers=headers) as response:
        assert response.status == 200
        return Guide(await response.read())


async def _next(ws: aiohttp.ClientWebSocketResponse) -> Any:
    message = await ws.receive(timeout=10)
    assert message.type is aiohttp.WSMsgType.TEXT, message
    return message.json()


def _note(guide: Guide, seen: dict[str, Any], payload: Any, channel: str) -> None:
    name = guide.name_of(payload, channel)
    seen[name] = payload
    if payload["type"] == "snapshot":
        assert guide.messages[name]["x-channel"] == FORM_OF[payload["channel"]]


# The route


async def test_it_is_an_answer_that_stays(start_gateway: StartGateway) -> None:
    """JSON with a tag that is the same in every process, 304 for one who has it, and no parameters."""
    gateway, other = await start_gateway(), await start_gateway()
    tags = []
    for each in (gateway, other):
        async with each.get("/asyncapi.json") as response:
            assert response.content_type == "application/json"
            assert response.headers["Cache-Control"] == "private, no-cache"
            tags.append(response.headers["ETag"])
    assert tags[0] == tags[1]
    async with gateway.get("/asyncapi.json", headers={"If-None-Match": tags[0]}) as response:
        assert (response.status, await response.read()) == (304, b"")
    await refused(gateway, "/asyncapi.json?a=1", 400, "invalid_parameter")


async def test_it_needs_a_token(start_gateway: StartGateway) -> None:
    """Where tokens are set, it is no open route; it names both ways to show one."""
    gateway = await start_gateway(auth=TOKENS)
    await refused(gateway, "/asyncapi.json", 401, "unauthenticated")
    answer = await ask(gateway, "/asyncapi.json", Authorization=f"Bearer {LESSER}")
    schemes = answer["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer"
    assert '{"op":"auth","token":"TOKEN"}' in schemes["firstMessage"]["description"]


async def test_it_says_what_the_settings_say(start_gateway: StartGateway) -> None:
    """Its hosts, bounds and defaults are this gateway's."""
    pace = {"min_interval_s": 0.3, "interval_s": 7.0}
    gateway = await start_gateway(auth={"hosts": ("gate.example",)}, websocket=pace)
    answer = await ask(gateway, "/asyncapi.json")
    assert {one["variables"]["host"]["default"] for one in answer["servers"].values()} == {"gate.example"}
    interval = answer["channels"]["positions"]["bindings"]["ws"]["query"]["properties"]["interval"]
    assert (interval["default"], interval["anyOf"][1]["minimum"]) == (7.0, 0.3)
    assert "simulator" in answer["info"]["title"]


def test_servers_speak_what_is_spoken() -> None:
    """A gateway with a certificate of its own is described as one that speaks TLS."""
    pair = KeyPair(chain="", key=Secret("key"))
    plain, secure = Settings(), Settings(server=ServerSettings(key_pair=pair))
    described = [json.loads(document(settings).body)["servers"] for settings in (plain, secure)]
    assert [servers["direct"]["protocol"] for servers in described] == ["ws", "wss"]
