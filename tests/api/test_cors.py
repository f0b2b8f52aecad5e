"""Pages of other origins: what CORS lets them read, and what sockets ask of an Origin."""

import hashlib
from typing import Any

import aiohttp
import pytest

from tests.conftest import StartGateway, closing, receive

TOKEN = "a-token-of-the-pages-0123456789"
PAGE, READER, EVIL = "https://dash.example", "https://reader.example", "https://evil.example"
HASHES = (hashlib.sha256(TOKEN.encode()).hexdigest(),)
AUTH: dict[str, Any] = {"tokens": HASHES, "origins": (PAGE,), "cors_origins": (READER,)}
RIGHT = {"Authorization": f"Bearer {TOKEN}"}
ASK = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}


async def test_a_preflight_of_a_listed_page_is_answered(start_gateway: StartGateway) -> None:
    """Without a token, with what is allowed, and never with credentials or a star."""
    gateway = await start_gateway(auth=AUTH)
    async with gateway.options("/balance", headers=ASK | {"Origin": READER}) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == READER
        assert response.headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST"
        assert {"Authorization", "Content-Type"} <= set(response.headers["Access-Control-Allow-Headers"].split(", "))
        assert response.headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Credentials" not in response.headers
        assert "*" not in str(response.headers)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (EVIL, 403),
        (f"{READER}.evil.example", 403),
        (READER.replace("https", "http"), 403),
        (f"{READER}:8443", 403),
        ("null", 403),
        (PAGE, 401),
        (None, 401),
    ],
)
async def test_other_preflights_get_nothing(start_gateway: StartGateway, origin: str | None, status: int) -> None:
    """An origin that is not listed, exactly, is allowed nothing; nor is one that may only open sockets."""
    gateway = await start_gateway(auth=AUTH)
    headers = ASK | ({} if origin is None else {"Origin": origin})
    async with gateway.options("/balance", headers=headers) as response:
        assert response.status == status
        assert "Access-Control-Allow-Origin" not in response.headers
        assert response.headers["Vary"] == "Origin"


@pytest.mark.parametrize(("path", "status"), [("/balance", 200), ("/nothing", 404), ("/price/x", 400), ("/livez", 200)])
async def test_a_listed_page_reads_every_answer(start_gateway: StartGateway, path: str, status: int) -> None:
    """Answers and problems carry its origin; a page without the token reads that it needs one."""
    gateway = await start_gateway(auth=AUTH)
    async with gateway.get(path, headers=RIGHT | {"Origin": READER}) as response:
        assert response.status == status
        assert response.headers["Access-Control-Allow-Origin"] == READER
        assert "X-Request-ID" in response.headers["Access-Control-Expose-Headers"]
        assert "Set-Cookie" not in response.headers
    async with gateway.get("/balance", headers={"Origin": READER}) as response:
        assert response.status == 401
        assert response.headers["Access-Control-Allow-Origin"] == READER


async def test_a_listed_page_asks_many_questions(start_gateway: StartGateway) -> None:
    """POST /indicators is answered to it too, and it may read what its rate is."""
    gateway = await start_gateway(auth=AUTH)
    questions = {"questions": [{"symbol": "BTCUSDT", "interval": "1", "names": "rsi:14"}]}
    async with gateway.post("/indicators", json=questions, headers=RIGHT | {"Origin": READER}) as response:
        assert response.status == 200
        assert response.headers["Access-Control-Allow-Origin"] == READER
        shown = set(response.headers["Access-Control-Expose-Headers"].split(", "))
        assert {"RateLimit", "RateLimit-Policy"} <= shown
    async with gateway.post("/indicators", json=questions, headers={"Origin": READER}) as response:
        assert response.status == 401


async def test_without_the_setting_there_is_no_cors(start_gateway: StartGateway) -> None:
    """No header of it anywhere, and a preflight is refused like any other method."""
    gateway = await start_gateway(auth=AUTH | {"cors_origins": ()})
    async with gateway.get("/balance", headers=RIGHT | {"Origin": PAGE}) as response:
        assert response.status == 200
        assert not [name for name in response.headers if name.startswith("Access-Control") or name == "Vary"]
    async with gateway.options("/balance", headers=RIGHT | ASK | {"Origin": PAGE}) as response:
        assert response.status == 405


@pytest.mark.parametrize("path", ["/ws", "/ws/positions/BTCUSDT"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": EVIL},
        {"Origin": READER},
        {"Origin": "null"},
        RIGHT | {"Origin": EVIL},
        RIGHT | {"Origin": READER},
    ],
)
async def test_sockets_of_others_are_refused_in_http(
    start_gateway: StartGateway, path: str, headers: dict[str, str]
) -> None:
    """An Origin that is not listed for sockets, or none without a token in the header, is 403 before the upgrade."""
    gateway = await start_gateway(auth=AUTH)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await gateway.ws_connect(path, headers=headers)
    assert refusal.value.status == 403


async def test_sockets_of_ours_are_upgraded(start_gateway: StartGateway) -> None:
    """A listed page, our own page, and whoever has a token in the header; a wrong one there is 4401."""
    gateway = await start_gateway(auth=AUTH)
    own = f"http://{gateway.host}:{gateway.port}"
    for origin in (PAGE, own):
        async with gateway.ws_connect("/ws", headers={"Origin": origin}) as ws:
            await ws.send_json({"op": "auth", "token": TOKEN})
            await receive(ws, "ack")
    async with gateway.ws_connect("/ws", headers=RIGHT) as ws:
        await ws.send_json({"op": "ping"})
        await receive(ws, "pong")
    async with gateway.ws_connect("/ws", headers={"Authorization": "Bearer wrong"}) as ws:
        assert (await closing(ws))[0] == 4401


async def test_an_open_gateway_asks_no_script_for_an_origin(start_gateway: StartGateway) -> None:
    """Where no token is needed a socket without an Origin is served, and a foreign page still is not."""
    gateway = await start_gateway(auth={"cors_origins": (READER,)})
    async with gateway.ws_connect("/ws/positions/BTCUSDT") as ws:
        await receive(ws)
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await gateway.ws_connect("/ws", headers={"Origin": EVIL})


async def test_the_page_is_guarded(start_gateway: StartGateway) -> None:
    """The status page cannot be framed, sniffed or scripted, and sets no cookie."""
    gateway = await start_gateway(auth=AUTH)
    async with gateway.get("/") as response:
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["X-Frame-Options"] == "DENY"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert "Set-Cookie" not in response.headers
