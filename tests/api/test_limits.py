"""Limits by address and by token over real connections: what passes at n-1 and n, and what n+1 is told."""

import asyncio
import contextlib
import re
import signal
import socket
import time
from typing import Any

import aiohttp
import pytest

from proofs.crew import connections
from server.processes.listeners import bind
from server.settings import Settings
from server.worker import serve
from tests.api.test_scopes import PAGE, bearer, entry, token_of
from tests.conftest import Exchange, Gateway, StartGateway, closing, receive, settings_for
from tests.processes import ROOT
from tests.realtime.sockets import settled

PROXIED: dict[str, Any] = {"proxies": ("127.0.0.1",)}
"""So that a header of these tests says who asks: this machine's own addresses never count."""
SOCKET = "/ws/positions/BTCUSDT?interval=60"


def away(address: str = "203.0.113.9", **headers: str) -> dict[str, str]:
    """The headers of a request from there."""
    return {"X-Forwarded-For": address, **headers}


async def status_of(gateway: Gateway, headers: dict[str, str], path: str = "/livez") -> int:
    """Of one request."""
    async with gateway.get(path, headers=headers) as response:
        return response.status


# Requests


async def test_requests_of_an_address(start_gateway: StartGateway) -> None:
    """The burst passes, one more is 429 with when to come back; upgrades count; other addresses go on."""
    gateway = await start_gateway(server={**PROXIED, "requests_per_s": 0.02, "requests_burst": 3})
    async with gateway.ws_connect(SOCKET, headers=away()) as ws:
        await receive(ws)
        assert [await status_of(gateway, away()) for _ in range(2)] == [200, 200]
        async with gateway.get("/livez", headers=away()) as response:
            problem = await response.json()
            assert (response.status, problem["code"]) == (429, "rate_limited")
            assert "server.requests_per_s" in problem["detail"]
            assert 40 <= int(response.headers["Retry-After"]) <= 50
            assert response.headers["RateLimit-Policy"] == '"requests";q=3;w=150'
            assert response.headers["RateLimit"] == f'"requests";r=0;t={response.headers["Retry-After"]}'
        with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
            await gateway.ws_connect(SOCKET, headers=away())
        assert raised.value.status == 429
        assert [await status_of(gateway, away("198.51.100.7")) for _ in range(3)] == [200] * 3
        assert [await status_of(gateway, {}) for _ in range(20)] == [200] * 20
    await settled(gateway)


async def test_an_invented_address_counts_for_nobody_else(start_gateway: StartGateway) -> None:
    """Without listed proxies the header means nothing: nobody is limited in another's name."""
    gateway = await start_gateway(server={"requests_per_s": 0.02, "requests_burst": 1})
    assert [await status_of(gateway, away()) for _ in range(5)] == [200] * 5


# Sockets


async def test_sockets_of_an_address(start_gateway: StartGateway) -> None:
    """One more than allowed is 4429 with when to come back; others may, and so may it when one has gone."""
    gateway = await start_gateway(server=PROXIED, websocket={"max_per_address": 2})
    sockets = [await gateway.ws_connect(SOCKET, headers=away()) for _ in range(2)]
    for ws in sockets:
        await receive(ws)
    async with gateway.ws_connect(SOCKET, headers=away()) as ws:
        code, reason = await closing(ws)
        assert (code, "websocket.max_per_address" in reason, "retry after" in reason) == (4429, True, True)
    for headers in (away("198.51.100.7"), {}):
        async with gateway.ws_connect(SOCKET, headers=headers) as ws:
            await receive(ws)
    await sockets.pop().close()
    await settled(gateway, but=1)
    async with gateway.ws_connect(SOCKET, headers=away()) as ws:
        await receive(ws)
    await sockets.pop().close()
    await settled(gateway)


async def test_sockets_of_a_token(start_gateway: StartGateway) -> None:
    """One more than allowed is 4429, however it shows the token; one that changed to another counts for that."""
    tokens = {"tokens": (entry("one"), entry("two")), "origins": (PAGE["Origin"],)}
    gateway = await start_gateway(auth=tokens, websocket={"max_per_token": 2})
    sockets = [await gateway.ws_connect("/ws", headers=bearer("one")) for _ in range(2)]
    for ws in sockets:
        await ws.send_json({"op": "ping"})
        await receive(ws, "pong")
    async with gateway.ws_connect("/ws", headers=bearer("one")) as ws:
        code, reason = await closing(ws)
        assert (code, "websocket.max_per_token" in reason, "retry after" in reason) == (4429, True, True)
    async with gateway.ws_connect("/ws", headers=PAGE) as ws:
        await ws.send_json({"op": "auth", "token": token_of("one")})
        await receive(ws, "ack")
        assert (await closing(ws))[0] == 4429
    async with gateway.ws_connect("/ws", headers=bearer("two")) as ws:
        await ws.send_json({"op": "auth", "token": token_of("one")})
        assert (await closing(ws))[0] == 4429
    await sockets[0].send_json({"op": "auth", "token": token_of("two")})
    await receive(sockets[0], "ack")
    async with gateway.ws_connect("/ws", headers=bearer("one")) as ws:
        await ws.send_json({"op": "ping"})
        await receive(ws, "pong")
    for ws in sockets:
        await ws.close()
    await settled(gateway)


async def test_sockets_that_have_shown_no_token(start_gateway: StartGateway) -> None:
    """One more than allowed is 4429; those with a token come in all the same, and who shows it makes room."""
    tokens = {"tokens": (entry("one"),), "origins": (PAGE["Origin"],)}
    gateway = await start_gateway(auth=tokens, websocket={"max_strangers": 2})
    strangers = [await gateway.ws_connect("/ws", headers=PAGE) for _ in range(2)]
    async with gateway.ws_connect("/ws", headers=PAGE) as ws:
        code, reason = await closing(ws)
        assert (code, "websocket.max_strangers" in reason, "retry after" in reason) == (4429, True, True)
    async with gateway.ws_connect("/ws", headers=bearer("one")) as ws:
        await ws.send_json({"op": "ping"})
        await receive(ws, "pong")
    await strangers[0].send_json({"op": "auth", "token": token_of("one")})
    await receive(strangers[0], "ack")
    async with gateway.ws_connect("/ws", headers=PAGE) as ws:
        await ws.send_json({"op": "auth", "token": token_of("one")})
        await receive(ws, "ack")
    for ws in strangers:
        await ws.close()
    await settled(gateway)


# Wrong tokens


async def test_wrong_tokens_of_an_address(start_gateway: StartGateway) -> None:
    """After three no token from there is looked at, by route or socket; a missing one is no guess; others go on."""
    auth = {"tokens": (entry("one"),), "origins": (PAGE["Origin"],), "max_failures": 3}
    gateway = await start_gateway(server=PROXIED, auth=auth)
    wrong = away(Authorization="Bearer not-a-token-of-this-gateway")
    right = away(**bearer("one"))
    assert [await status_of(gateway, away(), "/balance") for _ in range(5)] == [401] * 5
    assert [await status_of(gateway, wrong, "/balance") for _ in range(2)] == [401] * 2
    assert await status_of(gateway, right, "/balance") == 200
    async with gateway.ws_connect("/ws", headers=away(**PAGE)) as kept:
        await kept.send_json({"op": "auth", "token": token_of("one")})
        await receive(kept, "ack")
        async with gateway.ws_connect("/ws", headers=away(**PAGE)) as ws:
            await ws.send_json({"op": "auth", "token": "wrong"})
            assert (await closing(ws))[0] == 4401
        async with gateway.get("/balance", headers=right) as response:
            assert (response.status, (await response.json())["code"]) == (429, "rate_limited")
            assert 50 <= int(response.headers["Retry-After"]) <= 60
            assert response.headers["RateLimit-Policy"] == '"failures";q=3;w=60'
        async with gateway.ws_connect("/ws", headers=right) as ws:
            code, reason = await closing(ws)
            assert (code, "retry after" in reason) == (4429, True)
        await kept.send_json({"op": "ping"})
        await receive(kept, "pong")
    assert await status_of(gateway, away()) == 200
    assert await status_of(gateway, away("198.51.100.7", **bearer("one")), "/balance") == 200
    assert await status_of(gateway, bearer("one"), "/balance") == 200
    await settled(gateway)


# Time


@pytest.mark.parametrize("length", [8189, 8190, 8191])
@pytest.mark.parametrize("place", ["line", "field"])
async def test_long_heads_are_refused(start_gateway: StartGateway, place: str, length: int) -> None:
    """A path with its query, or a field, of over 8,190 bytes is refused in plain text; else a route is found."""
    gateway = await start_gateway()
    reader, writer = await raw(gateway)
    path, field = ("/livez?".ljust(length, "x"), "") if place == "line" else ("/livez", "x" * length)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX: {field}\r\n\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.close()
    assert (b"text/plain" in head) == (length > 8190)


async def raw(gateway: Gateway) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection of bytes."""
    return await asyncio.open_connection("127.0.0.1", gateway.port)


@pytest.mark.parametrize("head", [b"", b"GET /livez HTTP/1.1\r\n", b"GET /livez HTTP/1.1\r\nHost: localhost\r\nA: "])
async def test_a_head_that_does_not_end(start_gateway: StartGateway, head: bytes) -> None:
    """A connection whose first head is not whole in time is closed, however steadily more of it comes."""
    gateway = await start_gateway()
    runner = gateway.server.runner
    assert runner is not None
    assert runner.server is not None
    runner.server._kwargs["keepalive_timeout"] = 0.5
    reader, writer = await raw(gateway)
    writer.write(head)
    started = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while not reader.at_eof() and time.monotonic() < started + 10:
            if head:
                writer.write(b"a")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(100), 0.05)
    assert 0.3 < time.monotonic() - started < 8
    writer.close()


async def test_a_body_that_does_not_end(start_gateway: StartGateway) -> None:
    """A body that is not whole in time is 408, and its connection is of no more use."""
    gateway = await start_gateway(server={"body_timeout_s": 0.3})
    reader, writer = await raw(gateway)
    writer.write(b"POST /indicators HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in head
    assert b'"code":"too_late"' in await asyncio.wait_for(reader.readuntil(b"}"), 10)
    writer.close()


async def test_answers_that_nobody_reads(exchange: Exchange) -> None:
    """Who asks for much and reads nothing for too long has lost the connection; others are answered meanwhile."""
    settings = settings_for(exchange.url, server={"port": 0, "send_timeout_s": 1.0})
    with contextlib.closing(bind(settings)) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        serving = asyncio.create_task(serve(settings, [listener], last_words=lambda: None))
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
        request = b"GET /klines/BTCUSDT?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(client, request * 20)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            own, until = client.getsockname()[1], time.monotonic() + 20
            while any((one.local, one.remote) == (port, own) for one in await asyncio.to_thread(connections)):
                async with http.get("/livez") as response:
                    assert response.status == 200
                assert time.monotonic() < until
                await asyncio.sleep(0.1)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 65536), 10):
                received += data
        assert 1 <= received.count(b"HTTP/1.1 200 ") < 20
        client.close()
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(serving, 20)


# Questions


@pytest.mark.parametrize(("names", "results", "code"), [(2, 4, None), (3, 5, None), (4, 5, "names"), (3, 6, "results")])
async def test_what_one_question_may_ask(
    start_gateway: StartGateway, names: int, results: int, code: str | None
) -> None:
    """As many names and results as the settings say; one more is 400 by its name."""
    gateway = await start_gateway(indicators={"max_names": 3, "max_results": 5})
    asked = ",".join(f"rsi:{length}" for length in range(10, 10 + names))
    async with gateway.get(f"/indicators/BTCUSDT?names={asked}&results={results}") as response:
        problem = await response.json()
    assert (response.status, problem.get("code")) == ((400, f"invalid_{code}") if code else (200, None))


def test_every_limit_has_its_test() -> None:
    """Each row of the table in docs/access.md names keys that there are, and a test that there is."""
    text = (ROOT / "docs" / "access.md").read_text()
    rows = re.findall(r"^\|.*\| `(test_\w+)` \|$", text, re.MULTILINE)
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(rows) >= 18
    assert [name for name in rows if f"def {name}(" not in tests] == []
    keys = re.findall(r"`(server|websocket|auth|freshness|indicators)\.(\w+)`", text[text.index("## Limits") :])
    assert [key for key in keys if not hasattr(getattr(Settings(), key[0]), key[1])] == []
