"""WebSocket routes over real sockets: admission, parameters, limits, the drain, and what each close says."""

import asyncio
import hashlib
import json
from collections.abc import MutableMapping
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from server.api.keys import HUB, LOAD
from server.api.ws import drain
from server.app import create_app
from server.errors import TooSlow
from server.realtime.farewell import CLOSE_S
from server.realtime.session import Session
from tests.conftest import Exchange, Gateway, StartGateway, closing, receive, settings_for
from tests.realtime.sockets import (
    CLOSE,
    PING,
    TEXT,
    RawSocket,
    WorkerServer,
    client_frame,
    eventually,
    narrow,
    only_left,
    raw,
    settled,
)

BTC = "/ws/positions/BTCUSDT"
TOKEN = "a-token-of-the-sockets-0123456789"
PAGE = {"Origin": "https://dash.example"}
"""A browser's page: it cannot send the token in a header."""
TOKENS = {"tokens": (hashlib.sha256(TOKEN.encode()).hexdigest(),), "origins": (PAGE["Origin"],)}
RIGHT = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def start_gateway(exchange: Exchange, aiohttp_client: Any) -> StartGateway:
    """Start a gateway as the worker runs it; keyword arguments are sections of settings."""

    async def start(**sections: dict[str, Any]) -> Gateway:
        client: Gateway = await aiohttp_client(WorkerServer(create_app(settings_for(exchange.url, **sections))))
        return client

    return start


def now() -> float:
    """The loop's clock, in seconds."""
    return asyncio.get_running_loop().time()


def auth(token: object, number: object = 1) -> dict[str, object]:
    """The auth operation."""
    return {"op": "auth", "id": number, "token": token}


# Before the upgrade


@pytest.mark.parametrize(
    ("method", "status", "code"), [("GET", 400, "invalid_upgrade"), ("POST", 405, "method_not_allowed")]
)
async def test_without_an_upgrade_it_is_a_problem(
    start_gateway: StartGateway, method: str, status: int, code: str
) -> None:
    """A plain request to the route is told that it speaks WebSocket only."""
    gateway = await start_gateway()
    async with gateway.request(method, BTC) as response:
        assert (response.status, response.content_type) == (status, "application/problem+json")
        assert (await response.json(content_type=None))["code"] == code


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-WebSocket-Version": "1"},
        {"Sec-WebSocket-Key": "short"},
        {"Upgrade": "h2c"},
    ],
    ids=["version", "key", "upgrade"],
)
async def test_a_bad_handshake_is_a_problem(start_gateway: StartGateway, headers: dict[str, str]) -> None:
    """A handshake that is none is refused in HTTP, too."""
    gateway = await start_gateway()
    good = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with gateway.get(BTC, headers=good | headers) as response:
        assert response.status == 400
        assert (await response.json(content_type=None))["code"] == "invalid_upgrade"
    assert not gateway.app[LOAD].sockets


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Origin": "http://evil.example"}, 403, "forbidden"),
        ({"Origin": "null"}, 403, "forbidden"),
        ({"Host": "evil.example"}, 421, "bad_host"),
    ],
)
async def test_foreign_pages_get_no_socket(
    start_gateway: StartGateway, headers: dict[str, str], status: int, code: str
) -> None:
    """A foreign Origin or Host is answered in plain HTTP before the upgrade, with and without a token."""
    gateway = await start_gateway(auth=TOKENS)
    for more in ({}, RIGHT):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await gateway.ws_connect(BTC, headers=headers | more)
        assert refused.value.status == status
    async with gateway.get(BTC, headers=headers) as response:
        assert (await response.json(content_type=None))["code"] == code
    assert not gateway.app[LOAD].sockets


async def test_our_own_pages_get_a_socket(start_gateway: StartGateway) -> None:
    """The gateway's own Origin and those of auth.origins are let in."""
    gateway = await start_gateway(auth={"origins": ("https://good.example",)})
    for origin in ("https://good.example", f"http://{gateway.host}:{gateway.port}"):
        async with gateway.ws_connect(BTC, headers={"Origin": origin}) as ws:
            assert (await receive(ws))["type"] == "snapshot"


@pytest.mark.parametrize("path", ["/ws/positions/", "/ws/positions/BTCUSDT/more", "/ws/other", "/wsx"])
async def test_other_routes_are_not_found(start_gateway: StartGateway, path: str) -> None:
    """A route that does not exist is 404 before any upgrade."""
    gateway = await start_gateway()
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await gateway.ws_connect(path)
    assert refused.value.status == 404


# Parameters


async def test_intervals_within_bounds_are_taken(start_gateway: StartGateway) -> None:
    """The bounds themselves, what lies between, and 0 for live."""
    gateway = await start_gateway(freshness={"live_poll_s": 0.05})
    for text in ("0.1", "0.100000", "0.11", "5", "59.9", "60", "60.0", "0", "0.0"):
        async with gateway.ws_connect(f"{BTC}?interval={text}") as ws:
            await receive(ws)
            (session,) = gateway.app[HUB].sessions
            assert [one.interval_s for one in session.subscriptions.values()] == [float(text)]
        await settled(gateway)


async def test_without_an_interval_it_is_the_settings(start_gateway: StartGateway) -> None:
    """The default interval is that of websocket.interval_s, and it is 5 s if nobody says otherwise."""
    for websocket, interval_s in (({}, 5.0), ({"interval_s": 0.3}, 0.3)):
        gateway = await start_gateway(websocket=websocket)
        async with gateway.ws_connect(BTC) as ws:
            await receive(ws)
            (session,) = gateway.app[HUB].sessions
            assert [one.interval_s for one in session.subscriptions.values()] == [interval_s]


BAD_INTERVALS = [
    "0.09", "0.099999", "60.000001", "60.1", "61", "999999", "-1", "-0.1", "-0", "+1", "", "%20", "%201", "1%20",
    "five", "NaN", "nan", "inf", "-inf", "Infinity", "1e1", "1E0", "0x1", "1_0", "1,5", "1.", ".5", "true", "null",
    "%D9%A1", "%EF%BC%91", "1%00", "1" * 400, "0.0000001",
]  # fmt: skip


async def test_intervals_out_of_bounds_are_4400(start_gateway: StartGateway) -> None:
    """Whatever else stands there closes with the parameter's name, what it was, and what is allowed."""
    gateway = await start_gateway()
    for text in BAD_INTERVALS:
        async with gateway.ws_connect(f"{BTC}?interval={text}") as ws:
            code, reason = await closing(ws)
        assert code == 4400, text
        assert reason.startswith("interval is "), reason
        assert reason.endswith("allowed: 0 for live, or 0.1 to 60 seconds"), reason
    await settled(gateway)


async def test_unknown_parameters_are_4400(start_gateway: StartGateway) -> None:
    """A parameter that the route does not have is named, with those that it has; no token is taken from a URL."""
    gateway = await start_gateway()
    for name in ("intervall", "token", "x" * 300, "%F0%9F%98%80"):
        async with gateway.ws_connect(f"{BTC}?{name}=1") as ws:
            code, reason = await closing(ws)
        assert code == 4400
        assert reason.startswith("unknown parameter ")
        assert "interval" in reason


@pytest.mark.parametrize(
    "symbol",
    ["btcusdt", "B", "-BTC", "BTC_USDT", "BTC USDT", "%C3%9CSDT", "A" * 41, "%2E%2E%2F", "BTCUSDT%26category=spot"],
)
async def test_malformed_symbols_are_4400(start_gateway: StartGateway, exchange: Exchange, symbol: str) -> None:
    """What cannot be a symbol is closed before anything is asked of the exchange."""
    gateway = await start_gateway()
    before = await exchange.calls()
    async with gateway.ws_connect(f"/ws/positions/{symbol}") as ws:
        code, reason = await closing(ws)
    assert code == 4400
    assert "symbol" in reason
    after = await exchange.calls()
    assert after.get("/v5/position/list", 0) == before.get("/v5/position/list", 0)


async def test_unknown_symbols_are_4404(start_gateway: StartGateway, exchange: Exchange) -> None:
    """What the instrument list does not have is closed by name, without a call for it."""
    gateway = await start_gateway()
    async with gateway.get("/symbols") as response:
        assert response.status == 200
    for interval in ("0", "5"):
        async with gateway.ws_connect(f"/ws/positions/NOSUCHUSDT?interval={interval}") as ws:
            assert await closing(ws) == (4404, "the exchange has no linear symbol NOSUCHUSDT")
    assert (await exchange.calls()).get("/v5/position/list", 0) == 0
    await settled(gateway)


# Tokens


async def test_the_right_header_opens(start_gateway: StartGateway) -> None:
    """With the token in the header the first message is the snapshot."""
    gateway = await start_gateway(auth=TOKENS)
    for scheme in ("Bearer", "bearer"):
        async with gateway.ws_connect(BTC, headers={"Authorization": f"{scheme} {TOKEN}"}) as ws:
            assert json.loads((await ws.receive()).data)["type"] == "snapshot"


@pytest.mark.parametrize("header", ["Bearer wrong", "Bearer", "Basic eDp5", f"Bearer {TOKEN}x", TOKEN])
async def test_a_wrong_header_is_4401(start_gateway: StartGateway, header: str) -> None:
    """A wrong or malformed header closes at once, without any data before."""
    gateway = await start_gateway(auth=TOKENS)
    async with gateway.ws_connect(BTC, headers={"Authorization": header}) as ws:
        message = await ws.receive()
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4401)
        assert message.extra
        assert TOKEN not in message.extra
    await settled(gateway)


async def test_the_right_first_message_opens(start_gateway: StartGateway) -> None:
    """Without a header the first message authenticates: its acknowledgement comes first, then the snapshot."""
    gateway = await start_gateway(auth=TOKENS)
    for number in (7, "a", None):
        async with gateway.ws_connect(f"{BTC}?interval=60", headers=PAGE) as ws:
            await ws.send_json(auth(TOKEN, number))
            assert json.loads((await ws.receive()).data) == {"type": "ack", "id": number, "op": "auth"}
            assert json.loads((await ws.receive()).data)["type"] == "snapshot"


NOT_AUTH = [
    json.dumps(auth("wrong")),
    json.dumps(auth("")),
    json.dumps(auth(None)),
    json.dumps(auth(TOKEN[:-1])),
    json.dumps(auth([TOKEN])),
    '{"op":"auth"}',
    json.dumps({"op": "ping", "id": 1, "token": TOKEN}),
    TOKEN,
    "",
    "{",
    "[]",
    json.dumps(auth(TOKEN)).encode(),
    b"\x00",
]


@pytest.mark.parametrize("message", NOT_AUTH)
async def test_any_other_first_message_is_4401(start_gateway: StartGateway, message: str | bytes) -> None:
    """A wrong token, another operation, no JSON, a binary message: closed, with no data before."""
    gateway = await start_gateway(auth=TOKENS)
    async with gateway.ws_connect(BTC, headers=PAGE) as ws:
        await (ws.send_bytes(message) if isinstance(message, bytes) else ws.send_str(message))
        closed = await ws.receive()
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 4401)
        assert closed.extra
    await settled(gateway)
    assert gateway.app[HUB].sessions == []


async def test_a_late_first_message_is_4401(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not authenticate in time is closed, whatever protocol pings it sends meanwhile."""
    monkeypatch.setattr("server.realtime.farewell.CLOSE_S", 0.2)
    gateway = await start_gateway(auth=TOKENS, websocket={"auth_timeout_s": 0.4})
    started = now()
    async with gateway.ws_connect(BTC, headers=PAGE) as ws, raw(gateway, BTC, headers=PAGE) as pinging:

        async def ping() -> None:
            while now() < started + 3:
                await pinging.send(PING, b"still here")
                await asyncio.sleep(0.05)

        pings = asyncio.create_task(ping())
        code, reason = await closing(ws)
        assert (code, reason) == (4401, "no token within 0.4 s")
        assert await pinging.close_code() == 4401
        assert 0.4 <= now() - started < 2.0
        pings.cancel()
        await asyncio.wait({pings})
    await settled(gateway)


async def test_a_stalled_stranger_is_let_go(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unauthenticated client that fills the line with pongs it does not read loses its place all the same."""
    monkeypatch.setattr("server.realtime.farewell.CLOSE_S", 0.2)
    gateway = await start_gateway(auth=TOKENS, websocket={"auth_timeout_s": 0.3})
    async with raw(gateway, BTC, headers=PAGE, small=True) as client:
        await eventually(lambda: gateway.app[LOAD].sockets)
        narrow(gateway)
        flooding = asyncio.create_task(client.flood(PING, b"x" * 125))
        await settled(gateway, timeout_s=3)
        await asyncio.wait({flooding})
        assert isinstance(flooding.exception(), OSError)


async def test_strangers_that_vanish_leave_nothing(start_gateway: StartGateway) -> None:
    """Closed, dropped or reset before the token: nothing is left, and nothing was sent."""
    gateway = await start_gateway(auth=TOKENS)
    before = asyncio.all_tasks()
    clients = [await RawSocket.connect(gateway, BTC, headers=PAGE) for _ in range(4)]
    await eventually(lambda: len(gateway.app[LOAD].sockets) == 4)
    await clients[0].send(CLOSE, b"\x03\xe8")
    assert await clients[0].frame() == (CLOSE, b"\x03\xe8")
    await clients[1].send(TEXT, b"x" * 20_000)
    assert await clients[1].close_code() == 1009
    clients[2].reset()
    clients[3].close()
    clients[0].close()
    clients[1].close()
    await settled(gateway)
    await only_left(before)


async def test_a_wrong_token_ends_a_running_session(start_gateway: StartGateway) -> None:
    """The token again is acknowledged; a wrong one, or none, is 4401 and the last thing that is said."""
    gateway = await start_gateway(auth=TOKENS)
    for token in ("wrong", None):
        async with gateway.ws_connect(f"{BTC}?interval=60", headers=RIGHT) as ws:
            await receive(ws)
            await ws.send_json(auth(TOKEN, 2))
            assert await receive(ws, "ack") == {"type": "ack", "id": 2, "op": "auth"}
            await ws.send_json(auth(token, 3))
            await ws.send_json({"op": "ping"})
            message = await ws.receive()
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4401)
    await settled(gateway)


async def test_parameters_are_judged_after_the_token(start_gateway: StartGateway) -> None:
    """A stranger learns nothing about symbols or limits."""
    gateway = await start_gateway(auth=TOKENS)
    path = "/ws/positions/NOSUCHUSDT?interval=0.001"
    async with gateway.ws_connect(path, headers=PAGE) as ws:
        await ws.send_json(auth("wrong"))
        assert (await closing(ws))[0] == 4401
    async with gateway.ws_connect(path, headers=PAGE) as ws:
        await ws.send_json(auth(TOKEN))
        assert (await closing(ws))[0] == 4400


# Limits


async def test_as_many_sockets_as_allowed(start_gateway: StartGateway) -> None:
    """The limit itself fits, one more is 4429 with when to come back, and a place that is left is free again."""
    gateway = await start_gateway(websocket={"max_connections": 3}, auth=TOKENS)
    sockets = [await gateway.ws_connect(f"{BTC}?interval=60", headers=RIGHT) for _ in range(2)]
    for ws in sockets:
        await receive(ws)
    stranger = await gateway.ws_connect(BTC, headers=PAGE)  # has no token yet, but has a place
    await eventually(lambda: len(gateway.app[LOAD].sockets) == 3)
    for _ in range(2):
        async with gateway.ws_connect(BTC, headers=RIGHT) as ws:
            code, reason = await closing(ws)
            assert code == 4429
            assert reason.endswith("; retry after 5 s"), reason
    await stranger.close()
    await eventually(lambda: len(gateway.app[LOAD].sockets) == 2)
    async with gateway.ws_connect(BTC, headers=RIGHT) as ws:
        await receive(ws)
        assert len(gateway.app[LOAD].sockets) == 3
    for ws in sockets:
        await ws.close()
    await settled(gateway)


async def test_too_many_symbols_are_refused_with_when_to_come_back(start_gateway: StartGateway) -> None:
    """A symbol over freshness.max_symbols is closed with the reason; those that are served stay so."""
    gateway = await start_gateway(freshness={"max_symbols": 1})
    async with gateway.ws_connect(f"{BTC}?interval=0.1") as ws:
        await receive(ws)
        for interval in ("0", "1"):
            async with gateway.ws_connect(f"/ws/positions/ETHUSDT?interval={interval}") as other:
                code, reason = await closing(other)
                assert code not in (None, 1000, 1006)
                assert "freshness.max_symbols" in reason
                assert "retry after" in reason
        assert (await receive(ws))["stale"] == []
    await settled(gateway)


# The end


async def test_draining_tells_everybody(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Polled, live, idle, waiting for data or for its token: every socket gets 1001, and nothing is left."""
    before = asyncio.all_tasks()
    gateway = await start_gateway(auth=TOKENS, bybit={"call_timeout_s": 30.0})
    sockets = [await gateway.ws_connect(f"{BTC}?interval={text}", headers=RIGHT) for text in ("0.1", "0", "60")]
    for ws in sockets:
        await receive(ws)
    await exchange.fault("tickers", hang=True)
    sockets.append(await gateway.ws_connect("/ws/positions/ETHUSDT", headers=RIGHT))
    sockets += [await gateway.ws_connect(BTC, headers=PAGE) for _ in range(3)]
    await eventually(lambda: len(gateway.app[LOAD].sockets) == 7)
    ends = [asyncio.create_task(closing(ws)) for ws in sockets]
    started = now()
    await gateway.server.close()
    assert now() - started < CLOSE_S + 1.5
    assert await asyncio.gather(*ends) == [(1001, "the gateway is restarting")] * 7
    assert len(gateway.app[HUB]) == 0
    assert not gateway.app[LOAD].sockets
    await gateway.session.close()
    await exchange.heal()
    await only_left(before)


async def test_draining_is_bounded_by_nobody(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that do not answer, or do not even read, hold the drain up for one farewell, all together."""
    monkeypatch.setattr("server.realtime.farewell.CLOSE_S", 0.3)
    gateway = await start_gateway(auth=TOKENS)
    client: RawSocket
    async with (
        raw(gateway, f"{BTC}?interval=0.1", headers=RIGHT, small=True) as client,
        raw(gateway, f"{BTC}?interval=0.1", headers=RIGHT) as mute,
        raw(gateway, BTC, headers=PAGE) as stranger,
    ):
        await client.message()
        await mute.message()
        narrow(gateway)
        transports = list(gateway.app[LOAD].sockets.values())
        await eventually(lambda: any(transport.get_write_buffer_size() for transport in transports))
        started = now()
        await gateway.server.close()
        assert now() - started < 0.3 + 1.5
        assert [await mute.close_code(), await stranger.close_code()] == [1001, 1001]
    assert not gateway.app[LOAD].sockets


async def test_a_reader_that_is_a_little_behind_still_hears_the_close(start_gateway: StartGateway) -> None:
    """What is on its way when the drain begins is given time: the close frame comes after it, not a reset."""
    gateway = await start_gateway()
    async with raw(gateway, f"{BTC}?interval=0.1", small=True) as client:
        await client.message()
        narrow(gateway)
        (transport,) = gateway.app[LOAD].sockets.values()
        await eventually(lambda: transport.get_write_buffer_size() > 2000)
        draining = asyncio.create_task(drain(gateway.app))
        await eventually(lambda: all(ws.closed for ws in gateway.app[LOAD].sockets))
        assert await client.close_code() == 1001
        await draining
    await settled(gateway)


async def test_a_drain_is_spread(start_gateway: StartGateway) -> None:
    """Closes come evenly over the time that is given, each socket's once, and the others are served meanwhile."""
    gateway = await start_gateway()
    sockets = [await gateway.ws_connect(f"{BTC}?interval=0.1") for _ in range(5)]
    started, ends = now(), list[float]()

    async def end_of(ws: aiohttp.ClientWebSocketResponse) -> int | None:
        code, _ = await closing(ws)
        ends.append(now() - started)
        return code

    codes = asyncio.gather(*map(end_of, sockets))
    await drain(gateway.app, over_s=0.5)
    assert await codes == [1001] * 5
    assert [at >= 0.1 * number - 0.01 for number, at in enumerate(ends)] == [True] * 5
    assert ends[0] < 0.3
    await settled(gateway)


async def test_who_comes_while_draining_is_sent_away(start_gateway: StartGateway) -> None:
    """A socket that was on its way in gets the same code, with a token or without, and a drain can come twice."""
    gateway = await start_gateway(auth=TOKENS)
    await drain(gateway.app)
    for headers in (PAGE, RIGHT):
        async with gateway.ws_connect(BTC, headers=headers) as ws:
            assert await closing(ws) == (1001, "the gateway is restarting")
    await drain(gateway.app)
    await settled(gateway)


async def test_a_token_that_crosses_the_drain(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first message that arrives as the socket is closed is not acknowledged after the close frame."""
    monkeypatch.setattr("server.realtime.farewell.CLOSE_S", 0.2)
    gateway = await start_gateway(auth=TOKENS)
    async with raw(gateway, BTC, headers=PAGE) as client:
        await eventually(lambda: gateway.app[LOAD].sockets)
        ((ws, transport),) = gateway.app[LOAD].sockets.items()
        protocol = transport.get_protocol()
        assert isinstance(protocol, asyncio.Protocol)
        draining = asyncio.create_task(drain(gateway.app))
        await asyncio.sleep(0)  # the farewells are tasks now, and run next
        protocol.data_received(client_frame(TEXT, json.dumps(auth(TOKEN)).encode()))
        assert [opcode for opcode, _ in await client.rest()] == [CLOSE]
        await draining
        assert ws.closed
    await settled(gateway)


async def test_a_bug_in_admission_is_1011(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong before the session begins is closed without details, and its place is free again."""
    gateway = await start_gateway()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(Session, "__init__", broken)
    async with gateway.ws_connect(BTC) as ws:
        code, reason = await closing(ws)
        assert code == 1011
        assert "secret" not in reason
    await settled(gateway)


async def test_clients_that_vanish_within_the_handshake(start_gateway: StartGateway) -> None:
    """A reset at any moment of the upgrade is no bug of ours: nothing is left, and no error is logged."""
    gateway = await start_gateway()
    before = asyncio.all_tasks()
    with capture_logs() as logs:
        for turns in (0, 1, 2, 3) * 10:
            client = await RawSocket.ask(gateway, BTC)
            for _ in range(turns):
                await asyncio.sleep(0)
            client.reset()
        await only_left(before)
    await settled(gateway)
    assert {line["event"] for line in logs} >= {"request_ended"}, "some were lost before the upgrade was written"
    assert [line for line in logs if line["log_level"] in ("error", "critical")] == []


async def test_who_is_gone_before_it_begins(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that resets within the handshake takes no place and makes no session."""
    prepare = web.WebSocketResponse.prepare
    gone = asyncio.Event()

    async def lost(self: web.WebSocketResponse, request: web.Request) -> Any:
        written = await prepare(self, request)
        assert request.transport is not None
        request.transport.abort()
        await eventually(lambda: request.transport is None)
        gone.set()
        return written

    monkeypatch.setattr(web.WebSocketResponse, "prepare", lost)
    gateway = await start_gateway()
    taken: list[object] = []
    monkeypatch.setattr(type(gateway.app[LOAD]), "take_socket", lambda *_: taken.append(1))
    async with raw(gateway, BTC):
        await gone.wait()
    await settled(gateway)
    assert taken == []


def ended(logs: list[MutableMapping[str, Any]]) -> list[MutableMapping[str, Any]]:
    """The lines at the ends of connections."""
    return [line for line in logs if line["event"] == "connection_ended"]


async def test_the_log_tells_how_each_socket_ended(start_gateway: StartGateway) -> None:
    """One line at the end of each connection, with the code that was sent, or the client's where it went first."""
    gateway = await start_gateway(websocket={"messages_per_s": 1})
    with capture_logs() as logs:
        async with gateway.ws_connect(f"{BTC}?interval=7") as ws:
            await receive(ws)
            await ws.close(code=4123)
        async with gateway.ws_connect(f"{BTC}?interval=8") as ws:
            await receive(ws)
            await ws.send_str("x")
            await ws.send_str("x")
            assert (await closing(ws))[0] == 1008
        async with gateway.ws_connect(f"{BTC}?interval=9") as ws:
            await receive(ws)
            await settled(gateway, but=1)
            gateway.app[HUB].sessions[0].end(TooSlow("for the test"))
            assert (await closing(ws))[0] == 4408
        async with gateway.ws_connect("/ws/positions/x") as ws:
            assert (await closing(ws))[0] == 4400
        await eventually(lambda: len(ended(logs)) == 4)
    lines = ended(logs)
    assert [(line["interval_s"], line["code"]) for line in lines] == [(7, 4123), (8, 1008), (9, 4408), (None, 4400)]
    assert all(line["path"] and line["remote"] == "127.0.0.1" and line["duration_s"] >= 0 for line in lines)
    assert [line["frames"] for line in lines] == [1, 2, 1, 0]


@pytest.mark.parametrize("field", ["Key: \xff\xff", "Key: dGhlIHNhbXBsZSBub25jZQ\xff==", "Version: 13\xff"])
async def test_a_handshake_of_stray_bytes(start_gateway: StartGateway, field: str) -> None:
    """It is refused like every other that is malformed, and is no crash of ours."""
    gateway = await start_gateway()
    kept = {"Key": "dGhlIHNhbXBsZSBub25jZQ==", "Version": "13"}
    name, _, value = field.partition(": ")
    fields = "".join(f"Sec-WebSocket-{key}: {one}\r\n" for key, one in {**kept, name: value}.items())
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    upgrade = f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{fields}\r\n"
    writer.write(upgrade.encode("latin-1"))
    async with asyncio.timeout(10):
        line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert line.split()[1] == b"400"
