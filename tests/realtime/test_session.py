"""Sessions over real sockets: their pace, what they tell of trouble, what they answer, and every way they end."""

import asyncio
import contextlib
import json
import time
from itertools import pairwise
from statistics import median
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.api.keys import CHANNELS, HUB, LOAD
from server.errors import InvalidRequest, Overloaded, TooSlow, UnknownSymbol
from server.realtime.channel import Channel
from server.realtime.operations import Operation, parse_message
from server.realtime.session import HEARTBEAT_S, Session
from tests.conftest import Exchange, Gateway, StartGateway, closing, receive

from .sockets import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    RawSocket,
    collect,
    eventually,
    jobs,
    narrow,
    only_left,
    raw,
    settled,
)

BTC = "/ws/positions/BTCUSDT"
ENDPOINTS = {"position": "position", "balance": "wallet", "price": "tickers"}
"""The exchange's endpoint behind each part, as faults name it."""

VALUES = {"position": "positions", "balance": "balance", "price": "current_price"}
"""Where a snapshot has each part."""


def now() -> float:
    """The loop's clock, in seconds."""
    return asyncio.get_running_loop().time()


def only(gateway: Gateway) -> Session:
    """The one session there is."""
    (session,) = gateway.app[HUB].sessions
    return session


@pytest.fixture
def short_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A farewell is given 0.3 s instead of one."""
    for module in ("farewell", "session"):
        monkeypatch.setattr(f"server.realtime.{module}.CLOSE_S", 0.3)


# Pace


async def test_a_channel_that_waits_holds_up_no_other(start_gateway: StartGateway, exchange: Exchange) -> None:
    """While the wallet's call hangs, prices of the same socket keep their pace, and the balance has its turns too."""
    gateway = await start_gateway()
    await exchange.fault("wallet", hang=True)
    async with gateway.ws_connect("/ws") as ws:
        await ws.send_json({"op": "subscribe", "channels": ["balance"], "interval": 0.5})
        await ws.send_json({"op": "subscribe", "channels": ["price:BTCUSDT"], "interval": 0.1})
        messages = [message for message in await collect(ws, 4.5) if message["type"] == "snapshot"]
    stamps = {
        name: [m["timestamp_ms"] for m in messages if m["channel"] == name] for name in ("balance", "price:BTCUSDT")
    }
    late = [after - before for before, after in pairwise(stamps["price:BTCUSDT"]) if after - before > 250]
    assert len(late) < 4
    assert len(stamps["balance"]) >= 4


async def test_a_snapshot_that_waits_for_nothing_needs_no_job(
    start_gateway: StartGateway, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is due while everything is young is shown it by the alarm; trouble is told to all all the same."""
    waits: list[float | None] = []
    shown = Session._shown

    def noted(session: Session) -> float | None:
        waits.append(shown(session))
        return waits[-1]

    monkeypatch.setattr(Session, "_shown", noted)
    gateway = await start_gateway()
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(gateway.ws_connect(f"{BTC}?interval=0.5")) for _ in range(10)]
        for ws in sockets:
            frames = [await receive(ws) for _ in range(4)]
            sequences = [frame["seq"] for frame in frames]
            assert sequences == sorted(set(sequences))
            assert all(before <= after for before, after in pairwise(frame["timestamp_ms"] for frame in frames))
        slept = [seconds for seconds in waits if seconds is not None]
        assert len(slept) >= 5
        assert all(0 < seconds <= 0.5 for seconds in slept)
        await exchange.fault("tickers", hang=True)
        for ws in sockets:
            assert (await receive(ws, "status"))["stale"] == ["price"]
        await exchange.heal()
        for ws in sockets:
            assert (await receive(ws, "status"))["stale"] == []
    await settled(gateway)


@pytest.mark.parametrize(("error", "code"), [(RuntimeError("a secret detail"), 1011), (Overloaded("too many"), 4429)])
async def test_what_goes_wrong_in_an_alarm_is_the_jobs(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    """It ends the session as anything in the job does, and wakes the others of the same moment."""
    gateway = await start_gateway()

    def broken(*_: object) -> None:
        raise error

    async with gateway.ws_connect(f"{BTC}?interval=0.2") as ws, gateway.ws_connect("/ws") as other:
        await receive(ws)
        monkeypatch.setattr(Channel, "look", broken)
        assert (await closing(ws)) == (code, "too many" if code == 4429 else "a bug of the gateway")
        await other.send_json({"op": "ping"})
        await receive(other, "pong")
    await settled(gateway)


@pytest.mark.parametrize("part", ENDPOINTS)
async def test_first_snapshot_waits_for_nobody(start_gateway: StartGateway, exchange: Exchange, part: str) -> None:
    """With one part's call hanging the others come within a second, that one null and named; it follows by itself."""
    await exchange.fault(ENDPOINTS[part], hang=True)
    gateway = await start_gateway()
    started = now()
    async with gateway.ws_connect(f"{BTC}?interval=0.2") as ws:
        first = json.loads((await ws.receive()).data)
        assert now() - started < 1.5
        assert first["type"] == "snapshot"
        assert first["stale"] == [part]
        assert [name for name, value in VALUES.items() if first[value] is None] == [part]
        assert (first["has_position"] is None) is (part == "position")
        assert (first["ticker"] is None) is (part == "price")
        status = json.loads((await ws.receive()).data)
        assert (status["type"], status["stale"], status["error"]["code"]) == ("status", [part], "upstream_timeout")
        await exchange.heal()
        while (status := await receive(ws, "status"))["stale"]:
            pass
        assert (await receive(ws))[VALUES[part]] is not None


async def test_pace_is_steady_and_does_not_drift(start_gateway: StartGateway) -> None:
    """By the server's own stamps the mean gap is the interval, and no tick strays from the beat."""
    await _keeps_its_pace(await start_gateway())


async def test_slow_calls_do_not_shift_the_pace(start_gateway: StartGateway, exchange: Exchange) -> None:
    """With every call taking 40 ms, the interval is still the interval."""
    await exchange.fault("*", latency_s=0.04)
    await _keeps_its_pace(await start_gateway())


async def _keeps_its_pace(gateway: Gateway) -> None:
    async with gateway.ws_connect(f"{BTC}?interval=0.1") as ws:
        stamps = [(await receive(ws))["timestamp_ms"] for _ in range(13)]
    gaps = [after - before for before, after in pairwise(stamps)]
    assert 49 <= gaps[0] <= 1.2 * 100 + 50, gaps  # the tick itself may wait half an interval for its parts
    offsets = [(stamp - stamps[1] + 50) % 100 - 50 for stamp in stamps[2:]]
    assert median(map(abs, offsets)) < 15, "on the beat of the first tick, and without drift"
    assert 10.5 < (stamps[-1] - stamps[1]) / 100 < 12.6, "eleven beats, of which a busy machine may miss one"


async def test_a_slow_first_answer_does_not_crowd_the_second(start_gateway: StartGateway, exchange: Exchange) -> None:
    """However long the first snapshot waited, the next one is at least half an interval and at most 1.2 away."""
    await exchange.fault("tickers", hang=True)
    gateway = await start_gateway(bybit={"call_timeout_s": 30.0})
    async with gateway.ws_connect(f"{BTC}?interval=0.5") as ws:
        first = await receive(ws)
        await exchange.heal()
        second = await receive(ws)
    assert 245 <= second["timestamp_ms"] - first["timestamp_ms"] <= 600 + 100


async def test_the_phase_of_sessions_differs(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Sessions that were all held up by the same first answer do not tick together afterwards."""
    await exchange.fault("tickers", latency_s=0.5, times=1)
    gateway = await start_gateway()
    sockets = await asyncio.gather(*(gateway.ws_connect(f"{BTC}?interval=0.6") for _ in range(20)))
    firsts = await asyncio.gather(*(receive(ws) for ws in sockets))
    assert len({first["seq"] for first in firsts}) == 1

    async def arrival(ws: aiohttp.ClientWebSocketResponse) -> float:
        await receive(ws)
        return now()

    spreads: list[float] = []
    while len(spreads) < 4 and max(spreads, default=0.0) < 0.03:  # a busy machine may hold all of them up at once
        arrivals = await asyncio.gather(*map(arrival, sockets))
        spreads.append(max(arrivals) - min(arrivals))
    assert 0.03 <= spreads[-1] < 0.2, spreads


async def test_a_hundred_sockets_cost_what_one_costs(start_gateway: StartGateway, exchange: Exchange) -> None:
    """On one symbol the calls to the exchange follow from the age that is asked for, not from the number of sockets."""
    gateway = await start_gateway()
    sockets = await asyncio.gather(*(gateway.ws_connect(f"{BTC}?interval=0.4") for _ in range(100)))
    await asyncio.gather(*(receive(ws) for ws in sockets))
    before, started = await exchange.calls(), now()
    for _ in range(2):
        await asyncio.gather(*(receive(ws) for ws in sockets))
    elapsed_s, after = now() - started, await exchange.calls()
    for path in ("/v5/market/tickers", "/v5/position/list", "/v5/account/wallet-balance"):
        assert after[path] - before[path] <= elapsed_s / 0.2 + 2, path
    assert after.get("/v5/market/instruments-info", 0) <= 2


# Trouble


@pytest.mark.parametrize(
    ("part", "fault", "code", "temporary"),
    [
        ("position", {"ret_code": 110001}, "upstream_unavailable", True),
        ("balance", {"status": 502}, "upstream_unavailable", True),
        ("price", {"reset": True}, "upstream_unavailable", True),
        ("price", {"hang": True}, "upstream_timeout", True),
    ],
)
async def test_failure_and_recovery_are_told_at_once(
    start_gateway: StartGateway, exchange: Exchange, part: str, fault: dict[str, Any], code: str, temporary: bool
) -> None:
    """A failed part is told in a status with its error, keeps its last value, and its recovery is told as well."""
    await exchange.freeze(1_732_280_123_456)
    gateway = await start_gateway(bybit={"call_timeout_s": 0.5 if "hang" in fault else 5.0})
    async with gateway.ws_connect(f"{BTC}?interval=0.1") as ws:
        healthy = await receive(ws)
        assert healthy["stale"] == []
        await exchange.fault(ENDPOINTS[part], **fault)
        status = await receive(ws, "status")
        assert list(status) == ["type", "channel", "symbol", "stale", "error", "timestamp_ms"]
        assert (status["channel"], status["symbol"]) == ("positions:BTCUSDT", "BTCUSDT")
        assert status["stale"] == [part]
        error = status["error"]
        assert (error["code"], error["temporary"], error["retry_after_ms"]) == (code, temporary, None)
        assert error["detail"]
        ages = []
        for _ in range(3):
            broken = await receive(ws)
            assert broken["stale"] == [part]
            assert [broken[value] for value in VALUES.values()] == [healthy[value] for value in VALUES.values()]
            ages.append(broken["age_ms"][part])
        assert ages[0] < ages[1] < ages[2]
        await exchange.heal()
        status = await receive(ws, "status")
        assert (status["stale"], status["error"]) == ([], None)
        assert (await receive(ws))["stale"] == []


async def test_an_idle_session_is_told_by_the_failure_of_another(
    start_gateway: StartGateway, exchange: Exchange
) -> None:
    """A session that asks once a minute hears of a failure and a recovery when they happen, not when it asks next."""
    gateway = await start_gateway()
    async with gateway.ws_connect(f"{BTC}?interval=60") as idle, gateway.ws_connect(f"{BTC}?interval=0.1") as busy:
        await receive(idle)
        await receive(busy)
        for part in ("price", "position", "balance"):
            await exchange.fault(ENDPOINTS[part], status=500)
            assert (await receive(idle, "status", timeout_s=3))["stale"] == [part]
            await exchange.heal()
            assert (await receive(idle, "status", timeout_s=3))["stale"] == []


async def test_nothing_is_waited_for_where_nothing_is_under_way(
    start_gateway: StartGateway, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Bybit is away a socket is looked after about as often as it is shown something, and shown in time."""
    ticks, tick = list[float](), Session._tick

    async def counted(session: Session, due: Any) -> None:
        ticks.append(time.monotonic())
        await tick(session, due)

    gateway = await start_gateway()
    async with gateway.ws_connect("/ws/positions/BTCUSDT?interval=1") as ws:
        await receive(ws)
        await exchange.fault("*", status=500)
        while len((await receive(ws, "status"))["stale"]) < 3:
            pass
        monkeypatch.setattr(Session, "_tick", counted)
        for _ in range(4):
            assert (await receive(ws))["stale"] == ["position", "balance", "price"]
    assert len(ticks) <= 12  # up to eleven for one snapshot, where each waits for half a second


async def test_a_hanging_call_makes_a_part_stale_by_age(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Without any failure a part is told stale once it is too old, without an error, and its last value stays."""
    gateway = await start_gateway(freshness={"stale_after_s": 0.4, "max_age_s": 0.1}, bybit={"call_timeout_s": 30.0})
    async with gateway.ws_connect(f"{BTC}?interval=0.2") as ws:
        healthy = await receive(ws)
        await exchange.fault("wallet", hang=True)
        status = await receive(ws, "status")
        assert (status["stale"], status["error"]["code"]) == (["balance"], "upstream_timeout")
        old = await receive(ws)
        assert old["stale"] == ["balance"]
        assert old["balance"] == healthy["balance"]
        assert old["age_ms"]["balance"] > 400
        await exchange.heal()
        while (await receive(ws, "status"))["stale"]:
            pass
        assert (await receive(ws))["stale"] == []


async def test_between_its_questions_a_hanging_call_is_told_when_it_is_overdue(
    start_gateway: StartGateway, exchange: Exchange
) -> None:
    """A session that has asked and got no answer is told when its part becomes too old, before it asks again."""
    gateway = await start_gateway(freshness={"stale_after_s": 1.2, "max_age_s": 0.01}, bybit={"call_timeout_s": 30.0})
    async with gateway.ws_connect(f"{BTC}?interval=60") as ws:
        first = await receive(ws)
    await eventually(lambda: _age_s(first) > 0.1)
    await exchange.fault("tickers", hang=True)
    async with gateway.ws_connect(f"{BTC}?interval=60") as ws:
        snapshot = await receive(ws)  # after the first wait of nearly a second: the price is old, but not yet stale
        assert snapshot["stale"] == []
        status = await receive(ws, "status", timeout_s=3)
    assert (status["stale"], status["error"]["code"]) == (["price"], "upstream_timeout")
    assert 1_200 <= status["timestamp_ms"] - snapshot["timestamp_ms"] + snapshot["age_ms"]["price"] < 1_500


async def test_a_healthy_session_is_not_told_stale_between_its_ticks(start_gateway: StartGateway) -> None:
    """Readings grow older than the limit between two questions, and that is as it should be: no status at all."""
    gateway = await start_gateway(freshness={"stale_after_s": 0.2, "max_age_s": 0.1})
    async with gateway.ws_connect(f"{BTC}?interval=0.4") as ws:
        messages = await collect(ws, 1.1)
    assert {message["type"] for message in messages} == {"snapshot"}
    assert len(messages) >= 3
    assert all(message["stale"] == [] for message in messages)


async def test_only_what_failed_is_told_between_the_ticks(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Another's call under way makes nothing stale for one that waits for its next tick, whatever else fails then."""
    gateway = await start_gateway(freshness={"stale_after_s": 0.2, "max_age_s": 0.1})
    async with gateway.ws_connect(f"{BTC}?interval=60") as idle:
        first = await receive(idle)
        await eventually(lambda: _age_s(first) > 0.3)
        await exchange.fault("tickers", latency_s=0.4)
        await exchange.fault("position", latency_s=0.4)
        await exchange.fault("wallet", status=500)
        async with gateway.ws_connect(f"{BTC}?interval=60") as other:
            assert (await receive(idle, "status"))["stale"] == ["balance"]
            await receive(other)
            await exchange.heal()
            async with gateway.get("/balance?max_age_ms=0") as response:
                await response.read()
        assert [message["stale"] for message in await collect(idle, 0.4) if message["type"] == "status"] in ([], [[]])


def _age_s(snapshot: dict[str, Any]) -> float:
    """How long ago a snapshot was encoded."""
    return time.time() - float(snapshot["timestamp_ms"]) / 1000


async def test_an_answer_that_came_too_late_does_not_hide_the_next(
    start_gateway: StartGateway, exchange: Exchange
) -> None:
    """A reading that is stale on arrival heals nothing; the next good one is told to a session that waits."""
    gateway = await start_gateway(freshness={"stale_after_s": 0.3, "max_age_s": 0.1}, bybit={"call_timeout_s": 30.0})
    await exchange.fault("tickers", latency_s=1.3, times=1)
    async with gateway.ws_connect(f"{BTC}?interval=0.2") as busy:
        asked_at = now()
        await eventually(lambda: now() > asked_at + 0.15)
        async with gateway.ws_connect(f"{BTC}?interval=60") as idle:
            assert (await receive(idle))["current_price"] is None
            assert (await receive(idle, "status"))["stale"] == ["price"]
            assert (await receive(idle, "status", timeout_s=3))["stale"] == []
            await receive(busy)


async def test_without_keys_there_is_market_data_only(start_gateway: StartGateway) -> None:
    """Positions and balance are null and stale, the status says why and that it will not pass, and prices flow."""
    gateway = await start_gateway(bybit={"api_key": None, "api_secret": None})
    async with gateway.ws_connect(f"{BTC}?interval=0.1") as ws:
        first = await receive(ws)
        assert first["stale"] == ["position", "balance"]
        assert (first["has_position"], first["positions"], first["balance"]) == (None, None, None)
        assert first["age_ms"]["position"] is first["age_ms"]["balance"] is None
        assert first["current_price"] is not None
        error = (await receive(ws, "status"))["error"]
        assert (error["code"], error["reason"]) == ("upstream_unavailable", "credentials_missing")
        assert error["temporary"] is False
        later = await collect(ws, 0.6)
        assert {message["type"] for message in later} == {"snapshot"}


async def test_everything_comes_back_with_the_exchange(start_gateway: StartGateway, exchange: Exchange) -> None:
    """A gateway that starts while the exchange resets every call serves nulls, and heals when it is back."""
    await exchange.fault("*", reset=True)
    gateway = await start_gateway()
    for interval in ("0.2", "0"):
        async with gateway.ws_connect(f"{BTC}?interval={interval}") as ws:
            first = await receive(ws)
            assert first["stale"] == ["position", "balance", "price"]
            assert first["positions"] is first["balance"] is first["ticker"] is None or interval == "0"
            await exchange.heal()
            while (await receive(ws, "status"))["stale"]:
                pass
            whole = await receive(ws)
            assert whole["stale"] == []
            assert None not in (whole["positions"], whole["balance"], whole["current_price"], whole["has_position"])
            await exchange.fault("*", reset=True)
            while len((await receive(ws, "status"))["stale"]) < 3:
                pass


async def test_each_list_is_told_once(start_gateway: StartGateway, exchange: Exchange) -> None:
    """However long a failure lasts, its status is sent once; what it says is what the snapshots say."""
    gateway = await start_gateway()
    async with gateway.ws_connect(f"{BTC}?interval=0.1") as ws:
        await receive(ws)
        await exchange.fault("wallet", status=500)
        messages = await collect(ws, 0.7)
    statuses = [message["stale"] for message in messages if message["type"] == "status"]
    assert statuses == [["balance"]]
    assert messages[-1]["stale"] == ["balance"]


# Heartbeats


@pytest.fixture
def fast_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats after 0.2 s of nothing instead of 15."""
    assert HEARTBEAT_S == 15.0
    monkeypatch.setattr("server.realtime.session.HEARTBEAT_S", 0.2)


@pytest.mark.usefixtures("fast_heartbeat")
@pytest.mark.parametrize("interval", ["60", "0"])
async def test_a_quiet_socket_has_a_heartbeat(start_gateway: StartGateway, exchange: Exchange, interval: str) -> None:
    """When nothing was sent for a while a heartbeat is, again and again, with what is stale."""
    await exchange.freeze(1_732_280_123_456)
    gateway = await start_gateway()
    async with gateway.ws_connect(f"{BTC}?interval={interval}") as ws:
        stamps = [(await receive(ws))["timestamp_ms"]]
        for _ in range(2):
            beat = await receive(ws, "heartbeat")
            assert list(beat) == ["type", "timestamp_ms", "stale"]
            assert beat["stale"] == {}
            stamps.append(beat["timestamp_ms"])
        assert all(after - before >= 190 for before, after in pairwise(stamps))
        await exchange.fault("wallet", status=500)
        async with gateway.get("/balance?max_age_ms=0") as response:
            await response.read()
        assert (await receive(ws, "status"))["stale"] == ["balance"]
        assert (await receive(ws, "heartbeat"))["stale"] == {"positions:BTCUSDT": ["balance"]}


@pytest.mark.usefixtures("fast_heartbeat")
async def test_a_busy_socket_has_no_heartbeat(start_gateway: StartGateway) -> None:
    """Snapshots and answers put the heartbeat off."""
    gateway = await start_gateway(websocket={"messages_per_s": 100})
    async with gateway.ws_connect(f"{BTC}?interval=0.1") as busy, gateway.ws_connect(f"{BTC}?interval=60") as asking:
        await receive(asking)
        kinds, end = set(), now() + 0.5
        while (sent_at := now()) < end:
            await asking.send_json({"op": "ping"})
            kinds.add((await asking.receive_json())["type"])
            await eventually(lambda sent_at=sent_at: now() > sent_at + 0.05)  # type: ignore[misc]
        assert kinds == {"pong"}
        assert {message["type"] for message in await collect(busy, 0.1)} == {"snapshot"}


@pytest.mark.usefixtures("fast_heartbeat")
async def test_heartbeats_go_on_for_a_reader_that_stops(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heartbeats that a slow reader cannot take are dropped, and the session goes on without spinning."""
    beats: list[float] = []
    beat = Session._beat

    def counted(session: Session) -> None:
        beats.append(now())
        beat(session)

    monkeypatch.setattr(Session, "_beat", counted)
    gateway = await start_gateway(websocket={"high_water_bytes": 1024, "slow_limit_s": 60.0})
    async with raw(gateway, f"{BTC}?interval=60", small=True) as client:
        await client.message()
        narrow(gateway)
        session = only(gateway)
        (transport,) = gateway.app[LOAD].sockets.values()
        transport.write((b"\x8a\x7d" + bytes(125)) * 1_000)  # unasked pongs: they may always be sent
        sent, started = session.frames_sent, now()
        assert transport.get_write_buffer_size() > 1024
        await eventually(lambda: now() > started + 0.5)
        assert session.frames_sent == sent
        assert 1 <= len(beats) <= 4
        assert (await client.message("heartbeat"))["type"] == "heartbeat"


# Messages


async def test_ping_is_answered_with_its_id(start_gateway: StartGateway) -> None:
    """A pong has the id that was given, of whichever kind, and the time."""
    gateway = await start_gateway(websocket={"messages_per_s": 100})
    async with gateway.ws_connect(f"{BTC}?interval=60") as ws:
        await receive(ws)
        for number in (1, 0, -(2**53), 2**63, "a-1", "", "ü", None):
            await ws.send_json({"op": "ping", "id": number})
            pong = await receive(ws, "pong")
            assert list(pong) == ["type", "id", "timestamp_ms"]
            assert pong["id"] == number
        await ws.send_json({"op": "ping"})
        assert (await receive(ws, "pong"))["id"] is None


BAD_MESSAGES: list[str | bytes] = [
    "",
    "nonsense",
    "{",
    '{"op":"ping"',
    "[]",
    "null",
    "1",
    '"ping"',
    "{}",
    '{"op":null}',
    '{"op":1}',
    '{"op":["ping"]}',
    '{"op":"ping","id":{}}',
    '{"op":"ping","id":1.5}',
    '{"op":"ping","id":true}',
    '{"op":"ping","id":' + "9" * 5000 + "}",
    '{"op":"auth","token":5}',
    '{"op":"ping","id":"\\ud800"}',
    '{"op":"ping","x":' + "[" * 7000,
    "[" * 16000,
    b"\x00\xff",
    b'{"op":"ping"}',
]


async def test_a_bad_message_is_answered_and_the_socket_lives_on(start_gateway: StartGateway) -> None:
    """No JSON, JSON of other types, and binary messages get an error frame each; the next ping its pong."""
    gateway = await start_gateway(websocket={"messages_per_s": 1000})
    async with gateway.ws_connect(f"{BTC}?interval=60") as ws:
        await receive(ws)
        for message in BAD_MESSAGES:
            await (ws.send_bytes(message) if isinstance(message, bytes) else ws.send_str(message))
            error = json.loads((await ws.receive()).data)
            assert list(error) == ["type", "id", "code", "detail"], message
            assert (error["type"], error["id"], error["code"]) == ("error", None, "invalid_message")
            assert error["detail"]
            await ws.send_json({"op": "ping", "id": 7})
            assert (await receive(ws, "pong"))["id"] == 7


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ('{"op":"subscribe","id":7,"channels":"price:BTCUSDT"}', "$.channels`; expected a list of names"),
        ('{"op":"subscribe","id":7,"channels":[5]}', "$.channels"),
        (
            '{"op":"subscribe","id":7,"channels":["balance"],"interval":"1"}',
            "$.interval`; expected a number of seconds",
        ),
        ('{"op":"subscribe","id":7,"channels":["balance"],"on":"foo"}', "$.on`; expected tick or close"),
        ('{"id":7,"token":5,"op":"auth"}', "$.token`; expected a text"),
        ('{"id":7}', 'expected {"op": one of subscribe'),
        ('{"id":7,"op":[]}', 'expected {"op": one of subscribe'),
    ],
)
async def test_a_field_of_the_wrong_type_is_named(start_gateway: StartGateway, message: str, says: str) -> None:
    """With what it may be, and the id of the request, whatever else is wrong with that."""
    gateway = await start_gateway()
    async with gateway.ws_connect("/ws") as ws:
        await ws.send_str(message)
        error = await receive(ws, "error")
        assert (error["id"], error["code"]) == (7, "invalid_message")
        assert says in error["detail"]


async def test_an_unknown_operation_is_named(start_gateway: StartGateway) -> None:
    """The error has the id and says what is allowed; a long name is cut."""
    gateway = await start_gateway()
    async with gateway.ws_connect(f"{BTC}?interval=60") as ws:
        await receive(ws)
        for operation in ("subscribe", "PING", "x" * 5000):
            await ws.send_json({"op": operation, "id": 3, "more": [1]})
            error = await receive(ws, "error")
            assert (error["id"], error["code"]) == (3, "invalid_op")
            assert operation[:40] in error["detail"]
            assert "ping, auth" in error["detail"]
            assert len(error["detail"]) < 120


async def test_auth_is_acknowledged_where_no_token_is_needed(start_gateway: StartGateway) -> None:
    """Whoever authenticates all the same is told that it is fine."""
    gateway = await start_gateway()
    async with gateway.ws_connect(f"{BTC}?interval=60") as ws:
        await receive(ws)
        await ws.send_json({"op": "auth", "id": "x", "token": "whatever"})
        assert await receive(ws, "ack") == {"type": "ack", "id": "x", "op": "auth"}


async def test_a_message_over_the_limit_ends_the_socket(start_gateway: StartGateway) -> None:
    """A message as long as allowed is answered, one byte more is 1009."""
    gateway = await start_gateway(websocket={"message_bytes": 300})
    async with gateway.ws_connect(f"{BTC}?interval=60") as ws:
        await receive(ws)
        await ws.send_str('{"op":"ping","id":"' + "x" * (300 - 21) + '"}')
        assert (await receive(ws, "pong"))["id"] == "x" * 279
        await ws.send_str('{"op":"ping","id":"' + "x" * (301 - 21) + '"}')
        assert (await closing(ws))[0] == 1009
    await settled(gateway)


async def test_a_flood_ends_the_socket(start_gateway: StartGateway) -> None:
    """As many messages a second as allowed are answered; one more is 1008 with the limit in its reason."""
    gateway = await start_gateway(websocket={"messages_per_s": 5})
    async with gateway.ws_connect(f"{BTC}?interval=60") as ws:
        await receive(ws)
        for number in range(6):
            await ws.send_json({"op": "ping", "id": number})
        for number in range(5):
            assert (await receive(ws, "pong"))["id"] == number
        code, reason = await closing(ws)
        assert code == 1008
        assert "5 messages" in reason
    await settled(gateway)


async def test_messages_within_the_rate_are_no_flood(start_gateway: StartGateway) -> None:
    """The allowance comes back with time, but never more than that of one second."""
    gateway = await start_gateway(websocket={"messages_per_s": 5})
    async with gateway.ws_connect(f"{BTC}?interval=60") as ws:
        await receive(ws)
        for count in (5, 1):
            for number in range(count):
                await ws.send_json({"op": "ping", "id": number})
                assert (await receive(ws, "pong"))["id"] == number
            sent_at = now()
            await eventually(lambda sent_at=sent_at: now() > sent_at + 0.25)  # type: ignore[misc]
        await eventually(lambda: now() > sent_at + 1.3)
        for _ in range(6):
            await ws.send_json({"op": "ping"})
        assert (await closing(ws))[0] == 1008


@pytest.mark.usefixtures("short_farewell")
async def test_a_flood_of_garbage_counts_too(start_gateway: StartGateway) -> None:
    """Messages that cannot be obeyed use up the allowance as well."""
    gateway = await start_gateway(websocket={"messages_per_s": 3})
    async with raw(gateway, f"{BTC}?interval=60") as client:
        await client.message()
        flooding = asyncio.create_task(client.flood(BINARY, b"x"))
        assert await client.close_code() == 1008
        await asyncio.wait({flooding})
        assert isinstance(flooding.exception(), OSError)
    await settled(gateway)


# Ends


@pytest.mark.parametrize("interval", ["0.1", "0"])
async def test_nothing_is_left_of_sockets_that_have_gone(start_gateway: StartGateway, interval: str) -> None:
    """Closed, dropped or reset: afterwards there is no session, no place taken, no job, no task."""
    gateway = await start_gateway(freshness={"live_poll_s": 0.05})
    async with gateway.ws_connect(f"{BTC}?interval={interval}") as ws:
        await receive(ws)
    await settled(gateway)
    before = asyncio.all_tasks()
    async with gateway.ws_connect(f"{BTC}?interval={interval}") as ws:
        await receive(ws)
    clients = [await RawSocket.connect(gateway, f"{BTC}?interval={interval}") for _ in range(9)]
    for client in clients:
        await client.message()
    assert len(gateway.app[HUB]) == len(gateway.app[LOAD].sockets) == 9
    for client in clients[:3]:
        client.reset()
    for client in clients[3:6]:
        client.close()
    for client in clients[6:]:
        await client.send(CLOSE, b"\x03\xe8")
        assert await client.close_code() == 1000
        client.close()
    await settled(gateway)
    await only_left(before)


async def test_clients_may_vanish_before_their_first_snapshot(start_gateway: StartGateway, exchange: Exchange) -> None:
    """A session that ends while its first answer is under way leaves nothing behind, and the call goes on alone."""
    await exchange.fault("tickers", hang=True)
    gateway = await start_gateway(bybit={"call_timeout_s": 30.0})
    clients = [await RawSocket.connect(gateway, f"{BTC}?interval={interval}") for interval in ("0", "1", "60")]
    await eventually(lambda: len(gateway.app[HUB]) == 3)
    clients[0].reset()
    clients[1].close()
    await clients[2].send(CLOSE, b"")
    await settled(gateway, timeout_s=0.8)
    clients[2].close()
    await exchange.heal()


async def test_silence_ends_the_session(start_gateway: StartGateway) -> None:
    """A client that answers no protocol ping is let go after one and a half heartbeats, as too slow."""
    gateway = await start_gateway(websocket={"heartbeat_s": 0.2})
    async with gateway.ws_connect(f"{BTC}?interval=60") as alive, raw(gateway, f"{BTC}?interval=60") as client:
        reading = asyncio.create_task(collect(alive, 0.9))  # reading is what answers pings
        assert (await client.frame())[0] == TEXT
        assert (await client.frame())[0] == PING
        await eventually(lambda: len(gateway.app[HUB]) == 1, timeout_s=3)
        assert await client.close_code() == 4408
        assert {message["type"] for message in await reading} == {"snapshot"}
        assert len(gateway.app[HUB]) == 1
    await settled(gateway)


class Stalled:
    """A gateway with one reader that has stopped and one that reads on."""

    def __init__(self, gateway: Gateway, client: RawSocket) -> None:
        self.gateway, self.client = gateway, client
        self.session = only(gateway)
        (self.transport,) = gateway.app[LOAD].sockets.values()

    @property
    def queued(self) -> int:
        return self.transport.get_write_buffer_size()


async def stalled(gateway: Gateway, client: RawSocket) -> Stalled:
    """After the first snapshot: the kernel keeps little, and the client reads no more."""
    await client.message()
    narrow(gateway)
    return Stalled(gateway, client)


async def test_a_reader_that_stops_costs_itself_alone(start_gateway: StartGateway) -> None:
    """Only the newest snapshot is kept for it, little is buffered, others keep their pace, and it catches up."""
    gateway = await start_gateway(websocket={"high_water_bytes": 2048, "slow_limit_s": 60.0})
    async with raw(gateway, "/ws/positions/XRPUSDT?interval=0.1", small=True) as client:
        line = await stalled(gateway, client)
        outbox = line.session.outbox
        async with gateway.ws_connect("/ws/positions/XRPUSDT?interval=0.1") as other:
            highest, stamps = 0, []
            while outbox.frames_conflated < 6:
                stamps.append((await receive(other))["timestamp_ms"])
                highest = max(highest, line.queued)
            assert highest < 2048 + 4096
            assert max(after - before for before, after in pairwise(stamps)) < 400
            (newest,) = outbox._kept.values()
            sequences: list[int] = []
            while not sequences or sequences[-1] < newest.sequence:
                sequences.append((await client.message())["seq"])
            sequences += [(await client.message())["seq"] for _ in range(3)]
        assert sequences == sorted(set(sequences))
        assert max(after - before for before, after in pairwise(sequences)) > 6
        (subscription,) = line.session.subscriptions.values()
        assert subscription.last_sequence >= sequences[-1]
    await settled(gateway)


@pytest.mark.usefixtures("short_farewell")
async def test_too_slow_for_too_long_is_let_go(start_gateway: StartGateway) -> None:
    """After slow_limit_s over high water the socket is closed, or aborted where it still reads nothing; bounded."""
    gateway = await start_gateway(websocket={"high_water_bytes": 1024, "slow_limit_s": 0.3})
    before = asyncio.all_tasks()
    async with raw(gateway, f"{BTC}?interval=0.1", small=True) as client:
        line = await stalled(gateway, client)
        await eventually(lambda: line.session.ws.closed)
        assert line.queued > 1024
        closed_at = now()
        await settled(gateway)
        assert now() - closed_at < 0.3 + 1.0
        assert line.queued == 0
        assert await client.close_code() in (None, 4408)
    await only_left(before)


async def test_a_slow_reader_that_wakes_up_is_told_why(start_gateway: StartGateway) -> None:
    """Who reads again within the farewell finds 4408 after what was on its way."""
    gateway = await start_gateway(websocket={"high_water_bytes": 1024, "slow_limit_s": 0.3})
    async with raw(gateway, f"{BTC}?interval=0.1", small=True) as client:
        line = await stalled(gateway, client)
        await eventually(lambda: line.session.ws.closed)
        assert await client.close_code() == 4408
    await settled(gateway)


@pytest.mark.usefixtures("short_farewell")
async def test_a_stalled_reader_does_not_outlive_its_own_mistake(start_gateway: StartGateway) -> None:
    """A client that reads nothing and sends too large a message is let go, though it never reads its 1009."""
    gateway = await start_gateway(websocket={"message_bytes": 256})
    async with raw(gateway, f"{BTC}?interval=0.1", small=True) as client:
        line = await stalled(gateway, client)
        line.transport.set_write_buffer_limits(1024)
        await eventually(lambda: line.queued > 1024)
        await client.send(TEXT, b"x" * 1000)
        await eventually(lambda: line.session.ws.closed)
        await settled(gateway, timeout_s=6)


@pytest.mark.parametrize("opcode", [PING, PONG])
async def test_control_frames_are_messages_too(start_gateway: StartGateway, opcode: int) -> None:
    """A flood of pings or pongs ends the socket like one of any messages."""
    gateway = await start_gateway(websocket={"messages_per_s": 5})
    async with raw(gateway, f"{BTC}?interval=60") as client:
        await client.message()
        for _ in range(10):
            await client.send(opcode, b"x")
        assert await client.close_code() == 1008
    await settled(gateway)


@pytest.mark.usefixtures("short_farewell")
async def test_a_flood_of_pings_from_a_stalled_reader_ends(start_gateway: StartGateway) -> None:
    """Pongs that are not read do not pile up: the socket is too slow like any other."""
    gateway = await start_gateway(websocket={"high_water_bytes": 1024, "slow_limit_s": 0.3})
    async with raw(gateway, f"{BTC}?interval=0.1", small=True) as client:
        line = await stalled(gateway, client)
        flooding = asyncio.create_task(client.flood(PING, b"x" * 125))
        highest = 0

        def is_gone() -> bool:
            nonlocal highest
            highest = max(highest, line.queued)
            return not len(gateway.app[HUB])

        await eventually(is_gone)
        await asyncio.wait({flooding})
        assert isinstance(flooding.exception(), OSError)
        assert highest < 400_000
    await settled(gateway)


@pytest.mark.usefixtures("short_farewell")
async def test_a_stalled_reader_may_take_its_leave(start_gateway: StartGateway) -> None:
    """A client that closes without having read what is on its way is given time for it, and then let go."""
    gateway = await start_gateway()
    async with raw(gateway, f"{BTC}?interval=0.1", small=True) as client, raw(gateway, f"{BTC}?interval=60") as other:
        await client.message()
        await other.message()
        narrow(gateway)
        transports = gateway.app[LOAD].sockets.values()
        await eventually(lambda: max(transport.get_write_buffer_size() for transport in transports) > 2000)
        await client.send(CLOSE, b"\x03\xe8")
        await settled(gateway, but=1, timeout_s=3)
        assert await client.close_code() is None


async def test_a_reader_behind_may_take_its_leave_politely(start_gateway: StartGateway) -> None:
    """Who closes and then reads on finds what was on its way, and the answer to its close."""
    gateway = await start_gateway()
    async with raw(gateway, f"{BTC}?interval=0.1", small=True) as client:
        line = await stalled(gateway, client)
        await eventually(lambda: line.queued > 2000)
        await client.send(CLOSE, b"\x03\xe8")
        await eventually(lambda: line.session.ws.closed)
        assert await client.close_code() == 1000
    await settled(gateway)


async def test_an_unknown_symbol_is_found_out_when_the_list_comes(
    start_gateway: StartGateway, exchange: Exchange
) -> None:
    """While there is no list a well-formed symbol is served; when it comes, what is not in it is 4404, live or not."""
    await exchange.fault("instruments", hang=True)
    gateway = await start_gateway(bybit={"call_timeout_s": 30.0}, freshness={"live_poll_s": 0.1})
    async with (
        gateway.ws_connect("/ws/positions/NOSUCH?interval=0.3") as polled,
        gateway.ws_connect("/ws/positions/NOSUCH?interval=0") as live,
        gateway.ws_connect("/ws/positions/BTCUSDT?interval=0") as good,
    ):
        for ws in (polled, live):
            first = await receive(ws)
            assert first["positions"] is first["current_price"] is None
            assert first["stale"] == ["position", "price"]
        await exchange.heal()
        for ws in (polled, live):
            code, reason = await closing(ws)
            assert code == 4404
            assert "NOSUCH" in reason
        await receive(good)
        await eventually(lambda: len(gateway.app[HUB]) == 1)
    await settled(gateway)


async def test_ending_twice_keeps_the_first_reason(start_gateway: StartGateway) -> None:
    """The first reason to end is the one that is told, and both callers get the same farewell."""
    gateway = await start_gateway()
    async with gateway.ws_connect(f"{BTC}?interval=0.1") as ws:
        await receive(ws)
        session = only(gateway)
        first = session.end(UnknownSymbol("the first"))
        second = session.end(TooSlow("the second"))
        assert first is second
        assert await closing(ws) == (4404, "the first")
        assert session.end(TooSlow("the third")) is first
    await settled(gateway)


async def test_a_session_that_ended_takes_nothing_more(start_gateway: StartGateway) -> None:
    """Shown a frame, woken or made live after its end, a session does nothing and leaves nothing behind."""
    gateway = await start_gateway(freshness={"live_poll_s": 0.05})
    async with gateway.ws_connect(f"{BTC}?interval=0.1") as ws:
        await receive(ws)
        session = only(gateway)
    await settled(gateway)
    hub, sent = gateway.app[HUB], session.frames_sent
    (subscription,) = session.subscriptions.values()
    frame = gateway.app[CHANNELS].positions("BTCUSDT").frame(1.0)
    subscription.wake()
    subscription.show(frame, hub)
    subscription.announce(("price",), hub)
    session.outbox.close()
    hub.leave(session)
    await session.finish()
    await hub.go_live(subscription, frame)
    await eventually(lambda: "asker positions:BTCUSDT" in jobs(gateway))
    hub.leave(session)
    await settled(gateway)
    assert session.frames_sent == sent


async def test_sessions_that_come_and_go_at_once_leave_nothing(start_gateway: StartGateway) -> None:
    """Many sockets that connect, read, and vanish in every way at the same time leave no trace."""
    gateway = await start_gateway(freshness={"live_poll_s": 0.02})
    before = asyncio.all_tasks()

    async def visit(number: int) -> None:
        async with raw(gateway, f"{BTC}?interval={('0', '0.1')[number % 2]}") as client:
            for _ in range(number % 4):
                await client.frame()
            if number % 3 == 0:
                client.reset()
            elif number % 3 == 1:
                await client.send(CLOSE, b"\x03\xe8")

    for _ in range(3):
        await asyncio.gather(*(visit(number) for number in range(40)))
    await settled(gateway)
    await only_left(before)


async def test_a_bug_ends_the_session_without_details(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected exception is 1011, says nothing of itself, and spares the other sessions' sockets."""
    gateway = await start_gateway()
    async with gateway.ws_connect(f"{BTC}?interval=0.3") as ws, gateway.ws_connect(f"{BTC}?interval=60") as idle:
        await receive(ws)
        await receive(idle)
        monkeypatch.setattr(Channel, "state", _broken)
        code, reason = await closing(ws)
        assert code == 1011
        assert "secret" not in reason
        monkeypatch.undo()
        await idle.send_json({"op": "ping"})
        await receive(idle, "pong")
    await settled(gateway)


def _broken(*_: object) -> None:
    raise RuntimeError("a secret detail")


# Texts


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["op", "id", "token", "x"]), inner),
    max_leaves=10,
)


def _parsed(text: str) -> Operation | InvalidRequest:
    try:
        return parse_message(text)
    except InvalidRequest as error:
        return error


@given(st.text() | JSON.map(json.dumps))
@example('{"op":"ping","id":' + "9" * 5000 + "}")
@example('{"op":"\\udc80"}')
def test_any_text_is_a_message_or_a_bad_request(text: str) -> None:
    """Whatever comes is parsed or refused, nothing else; what is parsed can be said back."""
    parsed = _parsed(text)
    if isinstance(parsed, InvalidRequest):
        assert parsed.parameter == "message"
        assert parsed.detail
        return
    document = json.loads(text)
    assert (parsed.op, parsed.id) == (document["op"], document.get("id"))
    assert msgspec.json.decode(msgspec.json.encode(parsed.id)) == parsed.id


@given(op=st.text(), number=st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(), token=st.none() | st.text())
def test_good_messages_are_taken_as_they_are(op: str, number: int | str | None, token: str | None) -> None:
    """Operation, id and token come through, and unknown fields do no harm."""
    text = json.dumps({"op": op, "id": number, "token": token, "more": {"op": 1}})
    assert parse_message(text) == Operation(op, number, token)


def test_aiohttp_is_what_was_measured() -> None:
    """The closing of sockets leans on this version's ways."""
    assert tuple(int(part) for part in aiohttp.__version__.split(".")[:2]) >= (3, 14)
