"""The socket of many channels and a reader that stops: what it finds when it is back, and what it may cost."""

import asyncio
import json
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest

from server.api.keys import HUB, LOAD
from server.realtime.session import Session
from tests.conftest import Gateway, StartGateway, receive

from .sockets import CLOSE, TEXT, RawSocket, eventually, narrow, only_left, raw, settled

CHANNELS = ("price:BTCUSDT", "price:ETHUSDT", "price:SOLUSDT", "positions:BTCUSDT")
FAST = {"live_poll_s": 0.05}
HIGH_WATER_BYTES = 2048
FRAME_BYTES = 4096
"""More than any one frame here has."""


@pytest.fixture
def short_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A farewell that waits less for whoever does not read."""
    monkeypatch.setattr("server.realtime.farewell.CLOSE_S", 0.2)


async def say(client: RawSocket, op: str, **fields: Any) -> None:
    """Send an operation."""
    await client.send(TEXT, json.dumps({"op": op, **fields}).encode())


async def subscribed(client: RawSocket, interval: float, *channels: str) -> None:
    """Subscribe to `channels` and wait for the first snapshot of each."""
    await say(client, "subscribe", channels=channels, interval=interval)
    assert (await client.message("ack"))["subscribed"] == [*channels]
    left = set(channels)
    while left:
        left.discard((await client.message())["channel"])


def only(gateway: Gateway) -> tuple[Session, asyncio.Transport]:
    """The one session and its transport."""
    (session,) = gateway.app[HUB].sessions
    (transport,) = gateway.app[LOAD].sockets.values()
    return session, transport


async def snapshots_until(client: RawSocket, newest: dict[str, int]) -> dict[str, list[int]]:
    """The seq of every snapshot by its channel, until each has come at least to what `newest` says."""
    sequences: dict[str, list[int]] = defaultdict(list)
    async with asyncio.timeout(20):
        while any(not sequences[name] or sequences[name][-1] < seq for name, seq in newest.items()):
            message = await client.message()
            sequences[message["channel"]].append(message["seq"])
    return sequences


@pytest.mark.parametrize("interval", [0, 0.1])
async def test_each_channel_is_conflated_by_itself(start_gateway: StartGateway, interval: float) -> None:
    """Who reads again gets the newest of each channel, nothing twice or backwards; little was buffered meanwhile."""
    limits = {"high_water_bytes": HIGH_WATER_BYTES, "slow_limit_s": 60.0}
    gateway = await start_gateway(freshness=FAST, websocket=limits)
    async with raw(gateway, "/ws", small=True) as client:
        await subscribed(client, interval, *CHANNELS)
        narrow(gateway)
        session, transport = only(gateway)
        outbox = session.outbox
        async with gateway.ws_connect("/ws") as neighbour:
            await neighbour.send_json({"op": "subscribe", "channels": CHANNELS, "interval": interval})
            others: dict[str, list[int]] = defaultdict(list)
            highest = 0
            while len(outbox._kept) < len(CHANNELS) or any(len(others[name]) < 15 for name in CHANNELS):
                message = await receive(neighbour)
                others[message["channel"]].append(message["seq"])
                highest = max(highest, transport.get_write_buffer_size())
            kept = {name: outbox._kept[one].sequence for name, one in session.subscriptions.items()}
            sequences = await snapshots_until(client, kept)
        # What one turn adds is in the buffer before it is looked at again.
        assert highest < HIGH_WATER_BYTES + len(CHANNELS) * FRAME_BYTES
        for name, seq in kept.items():
            assert sequences[name] == sorted(set(sequences[name]))
            passed_over = [b - a for a, b in pairwise(sequences[name])]
            assert max(passed_over) > 1, "it was conflated"
            assert sequences[name][-1] >= seq
            assert others[name] == sorted(set(others[name]))
    await settled(gateway)


async def test_an_answer_reaches_a_slow_reader_and_ends_the_channel(start_gateway: StartGateway) -> None:
    """What is kept for a slow reader goes with its subscription: after the ack nothing of that channel follows."""
    limits = {"high_water_bytes": HIGH_WATER_BYTES, "slow_limit_s": 60.0, "messages_per_s": 100}
    gateway = await start_gateway(freshness=FAST, websocket=limits)
    async with raw(gateway, "/ws", small=True) as client:
        await subscribed(client, 0, *CHANNELS)
        narrow(gateway)
        session, _ = only(gateway)
        await eventually(lambda: len(session.outbox._kept) == len(CHANNELS), timeout_s=20)
        gone, stays = CHANNELS[:2], CHANNELS[2:]
        await say(client, "unsubscribe", channels=gone, id=1)
        await eventually(lambda: [*session.subscriptions] == [*stays])
        assert (await client.message("ack"))["unsubscribed"] == [*gone]
        seen: set[str] = set()
        while seen != set(stays):
            seen.add((await client.message())["channel"])
            assert not seen.intersection(gone)
    await settled(gateway)


@pytest.mark.usefixtures("short_farewell")
async def test_too_slow_for_too_long_is_4408(start_gateway: StartGateway) -> None:
    """The stalled socket of many channels is closed after slow_limit_s, whole; the one beside it has all it wants."""
    gateway = await start_gateway(freshness=FAST, websocket={"high_water_bytes": 1024, "slow_limit_s": 0.4})
    before = asyncio.all_tasks()
    async with raw(gateway, "/ws", small=True) as client:
        await subscribed(client, 0, *CHANNELS)
        narrow(gateway)
        session, transport = only(gateway)
        async with gateway.ws_connect("/ws") as neighbour:
            await neighbour.send_json({"op": "subscribe", "channels": CHANNELS, "interval": 0})
            while not session.ws.closed:
                await receive(neighbour)
            await eventually(lambda: len(gateway.app[HUB]) == 1)
            await eventually(lambda: transport.get_write_buffer_size() == 0)
            for _ in range(8):
                assert (await receive(neighbour))["channel"] in CHANNELS
        assert await client.close_code() in (None, 4408)
    await settled(gateway)
    await only_left(before)


@pytest.mark.usefixtures("short_farewell")
async def test_too_many_unread_answers_are_4408(start_gateway: StartGateway) -> None:
    """Answers are never lost, so who asks and does not read is let go at slow_limit_bytes: memory is bounded."""
    limits = {"high_water_bytes": 1024, "slow_limit_bytes": 16_384, "slow_limit_s": 60.0, "messages_per_s": 10_000}
    gateway = await start_gateway(websocket=limits)
    async with raw(gateway, "/ws", small=True) as client:
        await subscribed(client, 60, "balance")
        narrow(gateway)
        session, transport = only(gateway)
        highest = 0
        for number in range(2000):
            if session.ws.closed:
                break
            await say(client, "ping", id="x" * 200 + str(number))
            await asyncio.sleep(0)
            highest = max(highest, transport.get_write_buffer_size())
        await eventually(lambda: session.ws.closed)
        assert highest < 16_384 + FRAME_BYTES
        frames = await client.rest()
        answers = [json.loads(payload)["type"] for opcode, payload in frames if opcode == TEXT]
        assert set(answers) <= {"pong", "snapshot"}
        codes = [int.from_bytes(payload[:2], "big") for opcode, payload in frames if opcode == CLOSE]
        assert codes in ([], [4408])
    await settled(gateway)


async def test_who_subscribes_again_and_again_costs_no_more(start_gateway: StartGateway) -> None:
    """What a socket had before is not kept until it would have been due, and what it has goes on."""
    gateway = await start_gateway(websocket={"messages_per_s": 10_000})
    async with gateway.ws_connect("/ws") as ws:
        for number in range(200):
            op = "unsubscribe" if number % 5 == 4 else "subscribe"
            await ws.send_json({"op": op, "channels": CHANNELS, "interval": 60})
            assert (await receive(ws, "ack"))["errors"] == []
            left = set(CHANNELS) if op == "subscribe" else set()
            while left:
                left.discard((await receive(ws))["channel"])
        await ws.send_json({"op": "subscribe", "channels": CHANNELS, "interval": 0.1})
        last: dict[str, list[int]] = defaultdict(list)
        while any(len(last[name]) < 4 for name in CHANNELS):
            message = await receive(ws)
            last[message["channel"]].append(message["seq"])
        assert len(gateway.app[HUB].sessions[0]._agenda._entries) < 50
    await settled(gateway)


async def test_many_channels_at_once_make_nobody_slow(start_gateway: StartGateway) -> None:
    """All first snapshots of a large request reach a reader on a narrow line, though together they pass the limit."""
    limits = {"high_water_bytes": 4096, "slow_limit_bytes": 20_480, "slow_limit_s": 60.0}
    gateway = await start_gateway(websocket=limits)
    async with gateway.get("/symbols") as response:
        symbols = [one["symbol"] for one in (await response.json())["symbols"]][:35]
    async with raw(gateway, "/ws", small=True) as client:
        await eventually(lambda: gateway.app[LOAD].sockets)
        narrow(gateway)
        await say(client, "subscribe", channels=[f"positions:{symbol}" for symbol in symbols], interval=60)
        firsts = [await client.frame() for _ in range(1 + len(symbols))]
        assert sum(len(payload) for _, payload in firsts) > 20_480
        await say(client, "ping")
        await client.message("pong")
    await settled(gateway)
