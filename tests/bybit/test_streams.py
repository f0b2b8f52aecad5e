"""Streams: against real exchanges that misbehave, what is wanted comes in sync, and nothing wrong is ever offered."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.bybit.line import Line
from server.bybit.streams import PRIVATE, PUBLIC, Streams
from server.models import CandlePush, Kind, Reading, Source, Topic
from server.settings import Secret

from .conftest import KEY, SECRET, WAIT_S, until
from .exchanges import CANDLE, POSITION, WALLET, Connection, StreamExchange, now_ms, stream_exchange

BTC, ETH = Topic(Kind.TICKER, "BTCUSDT"), Topic(Kind.TICKER, "ETHUSDT")
KLINE = Topic(Kind.KLINE, "BTCUSDT", "5")
POSITION_BTC, WALLET_TOPIC = Topic(Kind.POSITION, "BTCUSDT"), Topic(Kind.WALLET)


class Reader:
    """One who wants topics and keeps what is offered and told."""

    def __init__(self, exchange: StreamExchange, **options: Any) -> None:
        self.readings: list[tuple[Topic, Reading[Any]]] = []
        self.told: list[tuple[frozenset[Topic], Line | None]] = []
        self.keys: tuple[Secret, Secret] | None = (Secret(KEY), Secret(SECRET))
        url = options.pop("url", exchange.url)
        self.streams = Streams(
            url,
            url,
            category="linear",
            keys=lambda: self.keys,
            **{**self.defaults(), **options},
        )

    def defaults(self) -> dict[str, Any]:
        """Options of Streams, without chance and lingering."""
        return {
            "offer": lambda topic, reading: self.readings.append((topic, reading)),
            "changed": lambda topics, line: self.told.append((topics, line)),
            "now_ms": now_ms,
            "jitter": lambda: 0.0,
            "linger_s": 0.0,
        }

    async def synced(self, *topics: Topic) -> None:
        """Wait until `topics` are in sync."""
        await until(lambda: all(self.streams.line(topic) is not None for topic in topics))

    async def lost(self, *topics: Topic) -> None:
        """Wait until none of `topics` is in sync."""
        await until(lambda: all(self.streams.line(topic) is None for topic in topics))

    def prices(self, topic: Topic = BTC) -> list[str]:
        """The last prices offered of `topic`."""
        return [reading.value.last_price for of, reading in self.readings if of == topic]

    def newest(self, topic: Topic) -> Reading[Any]:
        """What was offered last of `topic`."""
        return next(reading for of, reading in reversed(self.readings) if of == topic)


Start = Callable[..., Awaitable[Reader]]


@pytest.fixture
async def exchange() -> AsyncIterator[StreamExchange]:
    """An exchange that behaves until told otherwise."""
    async with stream_exchange() as exchange:
        exchange.keys[KEY] = SECRET
        yield exchange


@pytest.fixture
async def start(exchange: StreamExchange) -> AsyncIterator[Start]:
    """Starts streams for one test; arguments are the topics wanted, and options of Streams."""
    readers: list[Reader] = []

    async def started(*topics: Topic, **options: Any) -> Reader:
        readers.append(reader := Reader(exchange, **options))
        await reader.streams.start()
        reader.streams.want(topics)
        return reader

    yield started
    for reader in readers:
        await asyncio.wait_for(reader.streams.close(), WAIT_S)


async def test_a_ticker(exchange: StreamExchange, start: Start) -> None:
    """A ticker is offered whole after each push, as young as the exchange says, and is in sync with its line."""
    reader = await start(BTC)
    await reader.synced(BTC)
    assert exchange.last.path == "/v5/public/linear"
    await exchange.last.ticker("delta", markPrice="5", ts=now_ms() - 700)
    await exchange.last.ticker("delta", lastPrice="7", ts=now_ms() + 60_000)
    await until(lambda: len(reader.readings) == 3)
    first, late, early = (reading for _, reading in reader.readings)
    assert (first.value.last_price, first.source) == ("66666.60", Source.PUSH)
    assert (late.value.last_price, late.value.mark_price) == ("66666.60", "5")
    assert 0.69 < late.arrived_at - late.asked_at < 5
    assert early.value.last_price == "7"
    assert early.asked_at == early.arrived_at <= time.monotonic()
    line = reader.streams.line(BTC)
    assert line is not None
    assert line.confirmed_at == early.asked_at
    assert reader.told == [(frozenset({BTC}), line)]


async def test_private_topics(exchange: StreamExchange, start: Start) -> None:
    """Positions and wallet are in sync once confirmed, are offered as they change, and ask for pongs meanwhile."""
    reader = await start(POSITION_BTC, WALLET_TOPIC, ping_s=0.05)
    await reader.synced(POSITION_BTC, WALLET_TOPIC, Topic(Kind.POSITION, "NEWUSDT"))
    assert exchange.last.path == "/v5/private"
    line = reader.streams.line(WALLET_TOPIC)
    assert line is not None
    before = time.monotonic()
    await until(lambda: line.confirmed_at > before)
    await exchange.last.push("wallet", WALLET)
    await exchange.last.push("position", POSITION, {**POSITION, "symbol": "ETHUSDT"})
    await until(lambda: len(reader.readings) == 3)
    assert reader.newest(WALLET_TOPIC).value.equity == "10262.91335023"
    assert reader.newest(POSITION_BTC).value[0].position.position_idx == 2
    assert reader.newest(Topic(Kind.POSITION, "ETHUSDT")).value[0].sequence == 8327597863
    assert dict(reader.told) == {frozenset({POSITION_BTC}): line, frozenset({WALLET_TOPIC}): line}
    reader.streams.want({WALLET_TOPIC, POSITION_BTC, Topic(Kind.POSITION, "ETHUSDT")})
    assert reader.told[-1] == (frozenset({Topic(Kind.POSITION, "ETHUSDT")}), line)


async def test_candles(exchange: StreamExchange, start: Start) -> None:
    """A kline is in sync from its first push on, and says whether the candle is closed."""
    reader = await start(KLINE)
    await until(lambda: bool(exchange.connections) and "kline.5.BTCUSDT" in exchange.last.subscribed)
    assert reader.streams.line(KLINE) is None
    await exchange.last.say(topic="kline.5.BTCUSDT", ts=now_ms(), type="snapshot", data=[CANDLE])
    await reader.synced(KLINE)
    assert reader.newest(KLINE).value == CandlePush(
        ("1672324800000", "16649.5", "16677", "16608", "16677", "2.081", "34666.4005"), is_closed=False
    )


async def test_answers_without_numbers(exchange: StreamExchange, start: Start) -> None:
    """Answers that carry no req_id are understood as well."""
    exchange.numbers_acks = False
    reader = await start(BTC, WALLET_TOPIC, ping_s=0.05)
    await reader.synced(BTC, WALLET_TOPIC)
    line = reader.streams.line(WALLET_TOPIC)
    assert line is not None
    await until(lambda: line.confirmed_at > 0)


async def test_reconnects(exchange: StreamExchange, start: Start) -> None:
    """A line that ends proves nothing from then on; everything is subscribed anew on another, and begins anew."""
    reader = await start(BTC, WALLET_TOPIC)
    await reader.synced(BTC, WALLET_TOPIC)
    lines = {topic: reader.streams.line(topic) for topic in (BTC, WALLET_TOPIC)}
    for connection in list(exchange.connections):
        await connection.ws.close()
    await until(lambda: reader.told.count((frozenset({BTC}), None)) == 1)
    await until(lambda: reader.told.count((frozenset({WALLET_TOPIC}), None)) == 1)
    assert all(line is not None and line.is_over for line in lines.values())
    await reader.synced(BTC, WALLET_TOPIC)
    assert all(reader.streams.line(topic) is not line for topic, line in lines.items())
    assert all(line is not None and line.is_over for line in lines.values())
    assert (reader.streams.counts[PUBLIC].reconnects, reader.streams.counts[PRIVATE].reconnects) == (1, 1)


@pytest.mark.parametrize(
    "garbage",
    [
        "not json",
        "[1]",
        "null",
        "{}",
        '{"op":"subscribe"}',
        '{"topic":"tickers.BTCUSDT","type":"delta","cs":9999,"data":{"lastPrice":"1"}}',
        '{"topic":"tickers.BTCUSDT","type":"delta","cs":9999,"ts":"1","data":{}}',
        '{"topic":"tickers.BTCUSDT","type":"delta","cs":9999,"ts":1,"data":{"lastPrice":"NaN"}}',
        '{"topic":"tickers.BTCUSDT","type":"snapshot","cs":9999,"ts":1,"data":{"symbol":"ETHUSDT","lastPrice":"1"}}',
        b"binary",
        "x" * (1024 * 1024 + 1),
        "[" * 100_000,
    ],
    ids=lambda garbage: str(garbage[:40]),
)
async def test_garbage(exchange: StreamExchange, start: Start, garbage: str | bytes) -> None:
    """What cannot be believed ends the line, is counted, and another one takes over with a new snapshot."""
    reader = await start(BTC)
    await reader.synced(BTC)
    connection = exchange.last
    await (connection.ws.send_bytes(garbage) if isinstance(garbage, bytes) else connection.ws.send_str(garbage))
    await until(lambda: len(exchange.connections) == 2)
    await reader.synced(BTC)
    assert reader.prices() == ["66666.60"] * 2
    assert reader.streams.counts[PUBLIC].garbage == 1


@pytest.mark.parametrize("push", [("delta", 998), ("delta", 999), ("snapshot", 999)])
async def test_disorder(exchange: StreamExchange, start: Start, push: tuple[str, int]) -> None:
    """A push that repeats or goes back is not offered: its topic is left and joined anew, on the same line."""
    reader = await start(BTC, ETH)
    await reader.synced(BTC, ETH)
    await exchange.last.ticker(push[0], lastPrice="1", cs=min(1000, push[1]))
    await reader.lost(BTC)
    assert reader.streams.line(ETH) is not None
    await reader.synced(BTC)
    assert "1" not in reader.prices()
    assert len(exchange.connections) == 1
    assert reader.streams.counts[PUBLIC].gaps == 1
    ops = [(request["op"], request["args"]) for request in exchange.last.requests if request["op"] != "ping"]
    assert ops[1:] == [("unsubscribe", ["tickers.BTCUSDT"]), ("subscribe", ["tickers.BTCUSDT"])]


async def test_leftovers(exchange: StreamExchange, start: Start) -> None:
    """What still comes of a topic that was left is offered to nobody, and disturbs nothing."""
    reader = await start(BTC, ETH)
    await reader.synced(BTC, ETH)
    reader.streams.want({ETH})
    await until(lambda: "tickers.BTCUSDT" not in exchange.last.subscribed)
    await exchange.last.ticker("delta", lastPrice="1")
    await exchange.last.ticker("delta", "ETHUSDT", lastPrice="2")
    await until(lambda: reader.prices(ETH)[-1] == "2")
    assert reader.prices(BTC) == ["66666.60"]
    assert reader.streams.line(BTC) is None


async def test_leftovers_of_a_renewal(exchange: StreamExchange, start: Start) -> None:
    """What comes of a topic between leaving it and joining it anew is of the old subscription, and not believed."""

    async def late(connection: Connection, request: dict[str, Any]) -> bool:
        if request["op"] == "unsubscribe":
            await connection.ticker("snapshot", lastPrice="1")
        return False

    exchange.habit = late
    reader = await start(BTC)
    await reader.synced(BTC)
    await exchange.last.ticker("delta", lastPrice="2", cs=1)
    await reader.lost(BTC)
    await reader.synced(BTC)
    assert reader.prices() == ["66666.60"] * 2


async def test_who_is_told_may_want_something_else(exchange: StreamExchange, start: Start) -> None:
    """Wishes may change in the very call that tells of a topic."""

    def changed(topics: frozenset[Topic], line: Line | None) -> None:
        reader.told.append((topics, line))
        reader.streams.want({ETH})

    reader = await start(changed=changed)
    reader.streams.want({BTC})
    await reader.synced(ETH)
    await exchange.last.ws.close()
    await until(lambda: (frozenset({ETH}), None) in reader.told)
    await reader.synced(ETH)
    assert reader.streams.line(BTC) is None


async def test_a_reader_that_crashes(exchange: StreamExchange, start: Start) -> None:
    """An error of whoever is offered readings is logged and ends the line, not the stream."""
    offered: list[Topic] = []

    def offer(topic: Topic, _: Reading[Any]) -> None:
        offered.append(topic)
        if len(offered) == 1:
            raise ZeroDivisionError

    with capture_logs() as logs:
        reader = await start(BTC, offer=offer)
        await reader.synced(BTC)
    assert len(exchange.connections) == 2
    assert "stream_crashed" in [entry["event"] for entry in logs]


async def test_an_exchange_that_takes_no_requests(
    exchange: StreamExchange, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer to the key that never comes, or is something else, is a failure like any other."""
    monkeypatch.setattr("server.bybit.streams.LOGIN_S", 0.1)

    async def evasive(connection: Connection, request: dict[str, Any]) -> bool:
        if len(exchange.connections) == 2:
            await connection.say(op="pong")
        return request["op"] == "auth" and connection in exchange.connections[:2]

    exchange.habit = evasive
    with capture_logs() as logs:
        reader = await start(WALLET_TOPIC)
        await reader.synced(WALLET_TOPIC)
    assert next(entry["reason"] for entry in logs if entry["event"] == "stream_failed") == "timeout"
    assert len(exchange.connections) == 3


async def test_a_half_open_connection(exchange: StreamExchange, start: Start) -> None:
    """A line on which nothing comes any more, not even a pong, is given up, and its proof ends with it."""

    async def deaf(connection: Connection, _: dict[str, Any]) -> bool:
        return connection is exchange.connections[0] and bool(connection.subscribed)

    reader = await start(BTC, ping_s=0.05)
    exchange.habit = deaf
    await reader.synced(BTC)
    line = reader.streams.line(BTC)
    assert line is not None
    await until(lambda: line.is_over)
    assert reader.streams.line(BTC) is None
    assert reader.told[-1] == (frozenset({BTC}), None)
    await reader.synced(BTC)
    assert len(exchange.connections) == 2


async def test_a_refused_symbol(exchange: StreamExchange, start: Start) -> None:
    """A symbol that the exchange does not know costs only itself, and is told once."""
    bad = Topic(Kind.TICKER, "BADUSDT")
    exchange.bad = {"tickers.BADUSDT"}
    with capture_logs() as logs:
        reader = await start(bad, BTC, ETH)
        await reader.synced(BTC, ETH)
        await until(lambda: reader.streams.counts[PUBLIC].refused == 1)
    assert reader.streams.line(bad) is None
    assert [entry["args"] for entry in logs if entry["event"] == "subscription_refused"] == [["tickers.BADUSDT"]]


async def test_an_exchange_that_does_not_confirm(exchange: StreamExchange, start: Start) -> None:
    """Pushes alone do not put a topic in sync; a line on which no request is answered is given up."""

    async def unconfirmed(connection: Connection, request: dict[str, Any]) -> bool:
        if request["op"] == "subscribe" and connection is exchange.connections[0]:
            await connection.ticker("snapshot")
        return request["op"] != "ping" and connection is exchange.connections[0]

    exchange.habit = unconfirmed
    reader = await start(BTC, ack_s=0.1)
    await until(lambda: bool(reader.readings))
    assert reader.streams.line(BTC) is None
    await until(lambda: len(exchange.connections) == 2)
    await reader.synced(BTC)


async def test_a_refused_key(exchange: StreamExchange, start: Start) -> None:
    """A refused key silences the private line for its pause, is told once and not in words; the market goes on."""
    exchange.keys.clear()
    with capture_logs() as logs:
        reader = await start(BTC, WALLET_TOPIC, key_retry_s=3600.0)
        await reader.synced(BTC)
        await until(lambda: any(entry["event"] == "stream_failed" for entry in logs))
    assert [entry["reason"] for entry in logs if entry["event"] == "stream_failed"] == ["credentials_refused"]
    assert reader.streams.line(WALLET_TOPIC) is None
    assert KEY not in str(logs)
    assert SECRET not in str(logs) + repr(vars(reader.streams))
    for _ in range(3):  # each takes the pause after a failure that is none of the key's
        await next(
            connection for connection in reversed(exchange.connections) if "public" in connection.path
        ).ws.close()
        await reader.lost(BTC)
        await reader.synced(BTC)
    assert [connection.path for connection in exchange.connections].count("/v5/private") == 1
    exchange.keys[KEY] = SECRET
    reader.streams.rekey()
    await reader.synced(WALLET_TOPIC)


async def test_rekey(exchange: StreamExchange, start: Start) -> None:
    """Another key opens another private line; without a key there is none, and the public one stays as it is."""
    reader = await start(BTC, WALLET_TOPIC)
    await reader.synced(BTC, WALLET_TOPIC)
    public, private = reader.streams.line(BTC), reader.streams.line(WALLET_TOPIC)
    exchange.keys = {"other": "secret"}
    reader.keys = (Secret("other"), Secret("secret"))
    reader.streams.rekey()
    await until(lambda: reader.streams.line(WALLET_TOPIC) not in (private, None))
    auth = next(request for request in exchange.last.requests if request["op"] == "auth")
    assert auth["args"][0] == "other"
    reader.keys = None
    reader.streams.rekey()
    assert reader.streams.line(WALLET_TOPIC) is None
    assert reader.told[-1] == (frozenset({WALLET_TOPIC}), None)
    assert reader.streams.line(BTC) is public
    await until(lambda: exchange.last.ws.closed)


async def test_without_a_key(exchange: StreamExchange, start: Start) -> None:
    """Without a key no private line is opened."""
    reader = await start()
    reader.keys = None
    reader.streams.want({WALLET_TOPIC, BTC})
    await reader.synced(BTC)
    assert [connection.path for connection in exchange.connections] == ["/v5/public/linear"]


async def test_a_ban(exchange: StreamExchange, start: Start) -> None:
    """HTTP 403 silences every line for the ban, whatever else is wanted meanwhile."""
    exchange.refuse_status = 403
    reader = await start(BTC, ban_s=0.5)
    await until(lambda: exchange.attempts == 1)
    refused_at = time.monotonic()
    exchange.refuse_status = None
    reader.streams.want({BTC, WALLET_TOPIC})
    reader.streams.rekey()
    await reader.synced(BTC, WALLET_TOPIC)
    assert time.monotonic() - refused_at > 0.4
    assert exchange.attempts == 3


async def test_a_redirect(exchange: StreamExchange, start: Start) -> None:
    """A redirect is followed nowhere: it is a refusal like any other."""
    async with stream_exchange() as elsewhere:
        exchange.refuse_status = 302
        exchange.headers = {"Location": elsewhere.url.replace("ws", "http", 1) + "/v5/public/linear"}
        await start(BTC)
        await until(lambda: exchange.attempts == 2)
        assert elsewhere.attempts == 0


async def test_nothing_from_the_environment(
    exchange: StreamExchange, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that the environment names is not used."""
    for name in ("http_proxy", "https_proxy", "ws_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    reader = await start(BTC)
    await reader.synced(BTC)


async def test_tls_is_verified(start: Start) -> None:
    """An exchange whose certificate nobody vouches for gets no request."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(Path(__file__).with_name("loopback.pem"))
    async with stream_exchange(tls) as exchange:
        with capture_logs() as logs:
            reader = await start(BTC, WALLET_TOPIC, url=exchange.url)
            await until(lambda: sum(entry["event"] == "stream_failed" for entry in logs) >= 2)
        assert exchange.attempts == 0
        assert reader.streams.line(BTC) is None


async def test_a_handshake_that_never_ends(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts and says nothing is given up, and closing does not wait for it."""
    monkeypatch.setattr("server.bybit.line.HANDSHAKE_S", 0.1)
    accepted: list[asyncio.StreamWriter] = []

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with capture_logs() as logs:
            reader = await start(BTC, url=f"ws://127.0.0.1:{port}")
            await until(lambda: len(accepted) >= 2)
        await asyncio.wait_for(reader.streams.close(), WAIT_S)
        for writer in accepted:
            writer.transport.abort()
    assert [entry["reason"] for entry in logs if entry["event"] == "stream_failed"] == ["timeout"]


async def test_lines_exist_only_while_wanted(exchange: StreamExchange, start: Start) -> None:
    """Nothing wanted, no line; and what is wanted again within the linger never left."""
    reader = await start(linger_s=3600.0)
    assert exchange.attempts == 0
    reader.streams.want({BTC})
    await reader.synced(BTC)
    line = reader.streams.line(BTC)
    reader.streams.want(())
    reader.streams.want({BTC})
    assert reader.told[-1] == (frozenset({BTC}), line)
    assert len(exchange.last.requests) == 1
    brief = await start(BTC, linger_s=0.05)
    await brief.synced(BTC)
    connection = exchange.last
    brief.streams.want(())
    await until(lambda: connection.ws.closed)
    assert brief.streams.line(BTC) is None
    brief.streams.want({ETH})
    await brief.synced(ETH)


async def test_a_full_line(exchange: StreamExchange, start: Start) -> None:
    """What does not fit on one connection goes to another, each within the exchange's limit."""
    topics = {Topic(Kind.TICKER, f"S{number:03}USDT") for number in range(250)}
    reader = await start(*topics, line_characters=2400)
    await reader.synced(*topics)
    sizes = [len(json.dumps(sorted(connection.subscribed))) for connection in exchange.connections]
    assert len(sizes) > 1
    assert max(sizes) <= 2400 + 250
    lines = {reader.streams.line(topic) for topic in topics}
    assert len(lines) == len(sizes)


async def test_a_silent_ticker(exchange: StreamExchange, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ticker that has been silent for long on a line that lives is subscribed to anew."""
    monkeypatch.setattr("server.bybit.pushes.TickerChannel.patience_s", 0.2)
    reader = await start(BTC, ping_s=0.05)
    await reader.synced(BTC)
    await until(lambda: (frozenset({BTC}), None) in reader.told)
    await until(lambda: reader.prices() == ["66666.60"] * 2)
    assert len(exchange.connections) == 1
    assert reader.streams.counts[PUBLIC].silences == 1


async def test_the_end(exchange: StreamExchange, start: Start) -> None:
    """Closing ends every connection and task, and may come twice."""
    reader = await start(BTC, WALLET_TOPIC)
    await reader.synced(BTC, WALLET_TOPIC)
    await reader.streams.close()
    assert reader.streams.line(BTC) is None
    await until(lambda: all(connection.ws.closed for connection in exchange.connections))
    await reader.streams.close()
    assert not [task for task in asyncio.all_tasks() if "stream" in task.get_name()]


async def test_flapping_does_not_flood_the_log(exchange: StreamExchange, start: Start) -> None:
    """An exchange that ends each connection at once is told of once, and connections keep their pauses."""

    async def slam(connection: Connection, _: dict[str, Any]) -> bool:
        await connection.ws.close()
        return True

    exchange.habit = slam
    with capture_logs() as logs:
        await start(BTC)
        await until(lambda: exchange.attempts >= 4)
    assert sum(entry["event"] in ("stream_connected", "stream_lost") for entry in logs) <= 2
    assert not [entry for entry in logs if entry["event"] == "stream_failed"]
