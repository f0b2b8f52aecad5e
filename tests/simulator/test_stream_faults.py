"""Misbehaviour of the streams on demand, each kind and its end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from yarl import URL

from .conftest import NOW_MS, Caller, Start, Stream

TICKER, ETHER = "tickers.BTCUSDT", "tickers.ETHUSDT"
STEP_MS = 1_300
UPGRADE = (
    b"GET /v5/public/linear HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def following(caller: Caller, *topics: str) -> Stream:
    """A stream that has the first snapshots of these tickers."""
    stream = await caller.stream()
    await stream.ask("subscribe", *topics)
    for topic in topics:
        assert (await stream.next(topic))["type"] == "snapshot"
    return stream


def tick(caller: Caller, number: int) -> int:
    """Lets the market move for the `number`-th time, and gives the instant."""
    moment_ms = NOW_MS + number * STEP_MS
    caller.freeze(moment_ms)
    caller.simulator.streams.step(asyncio.get_running_loop().time())
    return moment_ms


async def moments(stream: Stream, topic: str = TICKER) -> list[int]:
    """The times of all messages of a topic that are on their way, as seconds-like steps after the start."""
    await stream.ask("ping")
    found = [message["ts"] for message in stream.passed if message["topic"] == topic]
    stream.passed.clear()
    return [(one - NOW_MS) // STEP_MS for one in found]


@pytest.mark.parametrize("code", [None, 1001, 1013])
async def test_cut(start: Start, code: int | None) -> None:
    """A cut ends every connection of its path at once, by abort or with a code, and new ones are welcome."""
    caller = await start(control=True)
    stream, other = await following(caller, TICKER), await caller.stream("public/spot")
    await caller.put("stream", kind="cut", path="linear", code=code)
    assert await stream.closing() == code
    assert (await other.ask("ping"))["success"]
    await following(caller, TICKER)


async def test_cut_again_and_again(start: Start) -> None:
    """With a period everybody is cut each time, until it is healed."""
    caller = await start(control=True)
    await caller.put("stream", kind="cut", every_s=0.05)
    for _ in range(3):
        assert await (await caller.stream()).closing() is None
    await caller.delete("stream?kind=cut")
    assert not caller.simulator.streams.faults
    assert (await (await caller.stream()).ask("ping"))["success"]


async def test_refused_connects(start: Start) -> None:
    """New connections get a status, or a reset, so many times, and those that are open stay."""
    caller = await start(control=True)
    stream = await caller.stream()
    await caller.put("stream", kind="refuse", status=403, times=2)
    for _ in range(2):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await caller.stream()
        assert refused.value.status == 403
    await caller.stream()
    await caller.put("stream", kind="refuse", path="private")
    with pytest.raises(aiohttp.ClientError):
        await caller.stream("private")
    assert (await stream.ask("ping"))["success"]
    assert caller.simulator.streams.refused >= 3


async def test_connects_that_hang(start: Start) -> None:
    """An upgrade without an answer stays so until it is healed, and is cut then."""
    caller = await start(control=True)
    await caller.put("stream", kind="refuse", hang=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(caller.url).port)  # aiohttp would ask again
    writer.write(UPGRADE)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)
    await caller.delete("stream")
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_swallow_all(start: Start) -> None:
    """Nothing comes any more, neither data nor pongs nor a close, on a connection that stays; healed, all goes on."""
    caller = await start(control=True)
    stream, leaving = await following(caller, TICKER), await caller.stream()
    await caller.put("stream", kind="swallow")
    tick(caller, 1)
    await stream.ws.send_json({"op": "ping"})
    await stream.ws.ping()
    with pytest.raises(TimeoutError):
        await stream.ws.receive(timeout=0.2)
    closing = asyncio.create_task(leaving.ws.close())
    await asyncio.wait({closing}, timeout=0.2)
    assert not closing.done()
    await caller.delete("stream?kind=swallow")
    assert await asyncio.wait_for(closing, 10)
    tick(caller, 2)
    assert (await stream.next(TICKER))["ts"] == NOW_MS + 2 * STEP_MS


async def test_swallow_one_topic(start: Start) -> None:
    """Only the topics that fit stay out; their first snapshot, too."""
    caller = await start(control=True)
    stream = await following(caller, TICKER, ETHER)
    await caller.put("stream", kind="swallow", topic="*.BTCUSDT")
    tick(caller, 1)
    assert await moments(stream, ETHER) == [1]
    other = await caller.stream()
    assert (await other.ask("subscribe", TICKER))["success"]
    assert await moments(other) == []


async def test_delay(start: Start) -> None:
    """What is sent comes late, in order, and answers too; healed, what waits is sent at once."""
    caller = await start(control=True)
    loop = asyncio.get_running_loop()
    stream = await following(caller, TICKER)
    await caller.put("stream", kind="delay", delay_ms=150)
    before = loop.time()
    expected = [tick(caller, 1), tick(caller, 2)]
    assert [(await stream.next(TICKER))["ts"] for _ in range(2)] == expected
    assert (await stream.ask("ping"))["success"]
    assert loop.time() - before >= 0.29
    await caller.put("stream", kind="delay", delay_ms=3_600_000)
    expected = [tick(caller, 3), tick(caller, 4)]
    await caller.delete("stream")
    assert [(await stream.next(TICKER))["ts"] for _ in range(2)] == expected


async def test_delay_of_one_topic(start: Start) -> None:
    """Only the topics that fit are late."""
    caller = await start(control=True)
    stream = await following(caller, TICKER, ETHER)
    await caller.put("stream", kind="delay", delay_ms=3_600_000, topic=TICKER)
    tick(caller, 1)
    assert await moments(stream, ETHER) == [1]
    await caller.delete("stream")
    assert await moments(stream) == [1]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "drop", "every": 3}, [1, 2, 4, 5, 7]),
        ({"kind": "drop", "fraction": 1.0}, []),
        ({"kind": "drop", "fraction": 0.0}, [1, 2, 3, 4, 5, 6, 7]),
        ({"kind": "drop", "times": 2}, [3, 4, 5, 6, 7]),
        ({"kind": "drop", "topic": ETHER}, [1, 2, 3, 4, 5, 6, 7]),
        ({"kind": "drop", "path": "inverse"}, [1, 2, 3, 4, 5, 6, 7]),
        ({"kind": "repeat", "every": 4}, [1, 2, 3, 4, 4, 5, 6, 7]),
        ({"kind": "reorder", "every": 3}, [1, 2, 4, 3, 5, 7, 6]),
    ],
)
async def test_lost_repeated_and_reordered(start: Start, fault: dict[str, Any], expected: list[int]) -> None:
    """Each n-th message of a topic, or the fraction, is hit, in the topics and paths that fit."""
    caller = await start(control=True)
    stream = await following(caller, TICKER)
    await caller.put("stream", **fault)
    for number in range(1, 8):
        tick(caller, number)
    assert await moments(stream) == expected


async def test_a_fraction_is_about_that_many(start: Start) -> None:
    """A quarter is neither none nor all, and each time the same."""
    caller = await start(control=True)
    stream = await following(caller, TICKER)
    found = []
    for turn in range(2):
        await caller.put("stream", kind="drop", fraction=0.25)
        for number in range(1, 41):
            tick(caller, 40 * turn + number)
        found.append([one - 40 * turn for one in await moments(stream)])
    assert found[0] == found[1]
    assert 20 <= len(found[0]) <= 38


async def test_dropped_deltas_leave_a_gap(start: Start) -> None:
    """A dropped delta's changes are not told again, and `cs` jumps over it."""
    caller = await start(control=True)
    stream, whole = await following(caller, TICKER), await following(caller, TICKER)
    await caller.put("stream", kind="drop", times=1)
    tick(caller, 1)
    tick(caller, 2)
    [gapped] = [await stream.next(TICKER)]
    assert gapped == await whole.next(TICKER)
    assert gapped["ts"] == NOW_MS + 2 * STEP_MS


async def test_what_is_held_back_is_sent_when_healed(start: Start) -> None:
    """A reordered message whose successor never comes is sent at the end of the fault."""
    caller = await start(control=True)
    stream = await following(caller, TICKER)
    await caller.put("stream", kind="reorder")
    tick(caller, 1)
    assert await moments(stream) == []
    await caller.delete("stream")
    assert await moments(stream) == [1]


async def garbled(caller: Caller, stream: Stream, number: int, **fault: Any) -> aiohttp.WSMessage:
    await caller.put("stream", kind="garbage", times=1, **fault)
    tick(caller, number)
    return await stream.ws.receive(timeout=10)


async def test_garbage(start: Start) -> None:
    """Messages come as broken JSON, in another shape, with other types, with NaN, and huge; after each, good ones."""
    caller = await start(control=True)
    ws = await caller.session.ws_connect(f"{caller.url}/v5/public/linear", max_msg_size=1 << 25)
    stream = Stream(ws)
    await stream.ask("subscribe", TICKER)
    await stream.next(TICKER)
    with pytest.raises(json.JSONDecodeError):
        json.loads((await garbled(caller, stream, 1)).data)
    assert isinstance(json.loads((await garbled(caller, stream, 2, rubbish="shape")).data)["data"], list)
    data = json.loads((await garbled(caller, stream, 3, rubbish="types")).data)["data"]
    assert isinstance(data["lastPrice"], list)
    data = json.loads((await garbled(caller, stream, 4, rubbish="nan")).data)["data"]
    assert (data["lastPrice"], data["symbol"]) == ("NaN", "BTCUSDT")
    huge = await garbled(caller, stream, 5, rubbish="huge", size_bytes=5_000_000)
    assert len(huge.data) == 5_000_000
    assert json.loads(huge.data)["topic"] == TICKER
    tick(caller, 6)
    assert (await stream.next(TICKER))["ts"] == NOW_MS + 6 * STEP_MS


async def test_garbage_that_is_no_text(start: Start) -> None:
    """A text message that is not UTF-8 ends the connection of a client that checks."""
    caller = await start(control=True)
    stream = await following(caller, TICKER)
    message = await garbled(caller, stream, 1, rubbish="not_utf8")
    assert message.type is aiohttp.WSMsgType.ERROR


async def test_refused_auth(start: Start) -> None:
    """A good signature is refused in the words asked for, so many times."""
    caller = await start(control=True)
    await caller.put("stream", kind="auth", ret_msg="Your api key has expired.", times=1)
    stream = await caller.stream("private")
    answer = await stream.ask("auth", "key", 1, "sign")
    assert (answer["success"], answer["ret_msg"]) == (False, "Your api key has expired.")
    assert await stream.closing() == 1000
    await caller.private_stream("wallet")


async def test_subscribes_without_an_answer(start: Start) -> None:
    """The subscription holds and its data comes; the answer never, or late."""
    caller = await start(control=True)
    stream = await caller.stream()
    await caller.put("stream", kind="ack", times=1)
    await stream.ws.send_json({"op": "subscribe", "args": [TICKER], "req_id": "lost"})
    assert (await stream.read())["type"] == "snapshot"
    assert (await stream.ask("ping", req_id="p"))["req_id"] == "p"
    await caller.put("stream", kind="ack", delay_ms=50)
    await stream.ws.send_json({"op": "subscribe", "args": [ETHER], "req_id": "late"})
    assert (await stream.read())["topic"] == ETHER
    assert (await stream.read())["req_id"] == "late"


async def test_failed_subscribes(start: Start) -> None:
    """Requests with a topic that fits fail whole; others succeed."""
    caller = await start(control=True)
    stream = await caller.stream()
    await caller.put("stream", kind="subscribe", topic="*.BTCUSDT")
    answer = await stream.ask("subscribe", ETHER, TICKER)
    assert (answer["success"], answer["ret_msg"]) == (False, f"error:handler not found,topic:{TICKER}")
    assert (await stream.ask("subscribe", ETHER))["success"]
    await caller.put("stream", kind="subscribe", topic="*.BTCUSDT", ret_msg="Server error")
    assert (await stream.ask("subscribe", TICKER))["ret_msg"] == "Server error"
    await caller.delete("stream")
    assert (await stream.ask("subscribe", TICKER))["success"]


async def test_old_positions(start: Start) -> None:
    """After the push of a trade comes one with the row before it, and its lower seq."""
    caller = await start(control=True)
    stream = await caller.private_stream("position")
    await caller.put("stream", kind="old", times=1)
    answer = await caller.put("trade", symbol="BTCUSDT", side="Buy", size="0.5")
    new, old = (await stream.next("position"))["data"][0], (await stream.next("position"))["data"][0]
    assert new["seq"] == answer["row"]["seq"]
    assert old["seq"] < new["seq"]
    assert (old["size"], old["side"]) != (new["size"], new["side"])
    await caller.put("trade", symbol="BTCUSDT", side="Sell", size="0.5")
    await stream.next("position")
    assert await stream.quiet(caller)


async def test_a_reader_that_stalls(start: Start) -> None:
    """A client that does not read is cut when too much waits for it, and nobody else is kept."""
    caller = await start(control=True)
    stalled, other = await following(caller, TICKER), await caller.stream()
    transport = stalled.ws._response.connection.transport  # type: ignore[union-attr]
    transport.pause_reading()  # type: ignore[union-attr]
    await caller.put("stream", kind="garbage", rubbish="huge", size_bytes=1 << 26)
    tick(caller, 1)
    tick(caller, 2)
    async with asyncio.timeout(10):
        while len(caller.simulator.streams.connections) > 1:
            await asyncio.sleep(0.001)
    assert (await other.ask("ping"))["success"]


async def test_the_end_closes_everybody(start: Start) -> None:
    """Clients of an exchange that ends are told so, in spite of every fault."""
    caller = await start(control=True)
    stream = await following(caller, TICKER)
    await caller.put("stream", kind="delay", delay_ms=3_600_000)
    ending = asyncio.create_task(caller.app.shutdown())
    assert await stream.closing() == 1001
    await ending


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "earthquake"},
        {"kind": "drop", "path": "option"},
        {"kind": "drop", "every": 0},
        {"kind": "drop", "fraction": 1.5},
        {"kind": "drop", "unknown": 1},
        {"kind": "cut", "every_s": 0},
        {"kind": "cut", "code": 999},
        {"kind": "garbage", "rubbish": "nice"},
    ],
)
async def test_bad_faults(start: Start, body: dict[str, Any]) -> None:
    """A fault that says nothing sensible is 400 with a reason, and none is put in force."""
    caller = await start(control=True)
    async with caller.session.put(f"{caller.url}/_control/stream", json=body) as response:
        assert response.status == 400
        assert await response.text()
    async with caller.session.delete(f"{caller.url}/_control/stream?kind=earthquake") as response:
        assert response.status == 400
    assert not caller.simulator.streams.faults
