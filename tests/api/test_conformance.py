"""Both sockets against the cases of the Autobahn test suite, frame by frame: see conversations.py."""

import asyncio
import contextlib
import json
import zlib
from typing import Any, NamedTuple

import pytest
from structlog.testing import capture_logs
from yarl import URL

from server.app import create_app
from tests.conftest import Exchange, Gateway, settings_for
from tests.processes import keys, running
from tests.realtime.sockets import Listening, RawSocket, WorkerServer, raw, settled

from .conversations import (
    CATEGORIES,
    CLOSE,
    LIMIT_BYTES,
    PING,
    PONG,
    TEXT,
    Case,
    asking,
    frame,
    named,
)

ROUTES = ("/ws", "/ws/positions/BTCUSDT?interval=60")
WITHIN_S = 10.0
AT_ONCE = 8
OFFERS = (
    "permessage-deflate; client_no_context_takeover; client_max_window_bits",
    "permessage-deflate; server_no_context_takeover; server_max_window_bits=9",
    "permessage-deflate; client_max_window_bits=15, permessage-deflate; client_max_window_bits=8, permessage-deflate",
    "permessage-deflate; server_max_window_bits=7",
    "permessage-deflate; unheard_of=1",
    "x-webkit-deflate-frame",
    "a-name-of-no-extension; with=parameters",
)


class Address(NamedTuple):
    """Where a process listens."""

    host: str
    port: int


class Outcome(NamedTuple):
    """What came of a case. `close` is None where the connection went on."""

    pongs: tuple[bytes, ...]
    echoes: tuple[str, ...]
    errors: int
    close: int | None


def due(case: Case) -> Outcome:
    """What has to come of it."""
    return Outcome(case.pongs, case.echoes, case.errors, case.close)


@pytest.fixture
async def gateway(exchange: Exchange, aiohttp_client: Any) -> Gateway:
    """A gateway as the worker runs it, that takes many messages, and long ones."""
    websocket = {"message_bytes": LIMIT_BYTES, "messages_per_s": 10_000}
    client: Gateway = await aiohttp_client(WorkerServer(create_app(settings_for(exchange.url, websocket=websocket))))
    return client


async def played(gateway: Listening, route: str, case: Case) -> Outcome:
    """What comes of the case, up to the connection's end. Raises TimeoutError where there is none."""
    async with asyncio.timeout(WITHIN_S), raw(gateway, route) as client:
        # What is refused may be reset while more is sent; the close that came before it can still be read.
        with contextlib.suppress(ConnectionError):
            for piece in case.pieces:
                await client.write(piece)
            if case.close is None:
                await client.write(frame(TEXT, asking("alive")))
        outcome = await heard(client)
        with contextlib.suppress(ConnectionError):
            await client.send(CLOSE, b"\x03\xe8")
        last = (await client.rest())[-1:]
        assert last == ([] if outcome.close is not None else [(CLOSE, b"\x03\xe8")]), case.name
        return outcome


async def heard(client: RawSocket) -> Outcome:
    """What is said until the close, or the sign that the connection goes on."""
    pongs: list[bytes] = []
    echoes: list[str] = []
    errors = 0
    while True:
        opcode, payload = await client.frame()
        if opcode == CLOSE:
            return Outcome((*pongs,), (*echoes,), errors, int.from_bytes(payload[:2], "big"))
        if opcode == PONG:
            pongs.append(payload)
        elif opcode == TEXT:
            document = json.loads(payload)
            if document["type"] == "pong" and document["id"] == "alive":
                return Outcome((*pongs,), (*echoes,), errors, None)
            if document["type"] == "pong":
                echoes.append(document["id"])
            errors += document["type"] == "error"


async def wrong_in(gateway: Listening, category: str, route: str) -> list[str]:
    """The cases of the category that come to something else than is due, in words."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def judged(case: Case) -> str | None:
        async with turns:
            try:
                outcome = await played(gateway, route, case)
            except (TimeoutError, EOFError, ConnectionError) as error:
                return f"{case.name}: {error!r}"
        return None if outcome == due(case) else f"{case.name}: {outcome} instead of {due(case)}"[:400]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(judged(case)) for case in named(CATEGORIES[category]())]
    return [text for task in tasks if (text := task.result())]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("category", CATEGORIES)
async def test_what_comes_of_frames(gateway: Gateway, category: str, route: str) -> None:
    """Each conversation of the category has its answers in order, its close code, and leaves nothing behind."""
    wrong = await wrong_in(gateway, category, route)
    assert not wrong, "\n".join(wrong)
    await settled(gateway)


async def test_what_comes_of_frames_in_a_process_of_its_own(exchange: Exchange) -> None:
    """The same over the transports of a gateway as it is run, which ends well after all of it."""
    limits = {"GATEWAY__WEBSOCKET__MESSAGE_BYTES": str(LIMIT_BYTES), "GATEWAY__WEBSOCKET__MESSAGES_PER_S": "10000"}
    async with running(**keys(exchange), **limits) as process:
        url = URL(process.url)
        address = Address(str(url.host), int(url.port or 0))
        for category in CATEGORIES:
            wrong = await wrong_in(address, category, ROUTES[0])
            assert not wrong, "\n".join(wrong)
        assert await process.end() == 0
    assert not [line for line in process.lines if "crashed" in line or "Traceback" in line]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("offer", OFFERS)
async def test_no_extension_is_taken(gateway: Gateway, offer: str, route: str) -> None:
    """Whatever compression a client offers (12, 13), the answer names none, what is said is plain, and RSV1 is 1002."""
    async with raw(gateway, route, headers={"Sec-WebSocket-Extensions": offer}) as client:
        assert client.response.startswith("HTTP/1.1 101 ")
        assert "sec-websocket-extensions" not in client.response.lower()
        await client.send(TEXT, asking("plain"))
        assert (await client.message("pong"))["id"] == "plain"
        deflated = zlib.compressobj(wbits=-15)
        text = deflated.compress(asking("deflated")) + deflated.flush(zlib.Z_SYNC_FLUSH)
        await client.write(frame(TEXT, text.removesuffix(b"\0\0\xff\xff"), reserved=0b100))
        assert await client.close_code() == 1002


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(PING, reserved=1), 1002),
        (frame(CLOSE, b"\x03\xee"), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"*" * (LIMIT_BYTES + 1)), 1009),
        (frame(CLOSE, b"\x03\xe8"), 1000),
        (frame(CLOSE, b"\x0f\xa0"), 4000),
    ],
    ids=["reserved", "close of 1006", "no UTF-8", "too long", "close of 1000", "close of 4000"],
)
async def test_the_log_has_the_code(gateway: Gateway, sent: bytes, code: int, route: str) -> None:
    """What ended a socket is in the log: our code where we refused it, else the client's."""
    with capture_logs() as logs:
        async with raw(gateway, route) as client:
            with contextlib.suppress(ConnectionError):
                await client.write(sent)
            await client.rest()
        await settled(gateway)
    assert [line["code"] for line in logs if line["event"] == "connection_ended"] == [code]
