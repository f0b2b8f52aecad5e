"""Admission over real HTTP: tokens, Host and Origin."""

import contextlib
import hashlib
import hmac
from typing import Any

import pytest

from server.api.auth import Access
from server.errors import Unauthenticated
from server.settings import AuthSettings
from tests.conftest import StartGateway

TOKEN = "a-token-of-the-tests-0123456789"
AUTH: dict[str, Any] = {"tokens": (hashlib.sha256(b"other").hexdigest(), hashlib.sha256(TOKEN.encode()).hexdigest())}


@pytest.mark.parametrize("path", ["/price/BTCUSDT", "/balance", "/positions", "/health", "/symbols", "/nothing"])
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", f"Basic {TOKEN}", "Bearer wrong", f"Bearer {TOKEN}x"]
)
async def test_without_the_token_there_is_nothing(start_gateway: StartGateway, path: str, header: str | None) -> None:
    """Every guarded route is 401 without the right token, also one that does not exist."""
    gateway = await start_gateway(auth=AUTH)
    headers = {} if header is None else {"Authorization": header}
    async with gateway.get(path, headers=headers) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        text = await response.text()
        assert "wrong" not in text
        assert TOKEN not in text


async def test_right_token_is_admitted(start_gateway: StartGateway) -> None:
    """Each token of the list opens every route."""
    gateway = await start_gateway(auth=AUTH)
    for token in (TOKEN, "other"):
        for scheme in ("Bearer", "bearer"):
            async with gateway.get("/balance", headers={"Authorization": f"{scheme} {token}"}) as response:
                assert response.status == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/"])
async def test_open_routes_need_no_token(start_gateway: StartGateway, path: str) -> None:
    """Probes and the status page are open."""
    gateway = await start_gateway(auth=AUTH)
    assert (await gateway.get(path)).status == 200


async def test_bytes_that_are_no_text_are_refused(start_gateway: StartGateway) -> None:
    """A token of stray bytes is wrong, not a crash."""
    gateway = await start_gateway(auth=AUTH)
    async with gateway.get("/balance", headers={"Authorization": "Bearer \udcff\udcfe"}) as response:
        assert response.status == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:9999", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("192.168.1.5:8000", 200),
        ("gateway.example:8000", 200),
        ("GATEWAY.example", 200),
        ("gateway.example.evil.com", 421),
        ("evil.com", 421),
        ("localhost.evil.com", 421),
        ("localhost:evil", 421),
        ("localhost:80:80", 421),
        ("user@localhost", 421),
        ("", 421),
        ("local host", 421),
    ],
)
async def test_host_names_us(start_gateway: StartGateway, host: str, status: int) -> None:
    """Addresses, localhost and the listed names are ours; anything else is 421, on open routes too."""
    gateway = await start_gateway(auth={"hosts": ("gateway.example",)})
    for path in ("/livez", "/price/BTCUSDT", "/ws/positions/BTCUSDT"):
        async with gateway.get(path, headers={"Host": host}) as response:
            expected = 400 if status == 200 and path.startswith("/ws") else status
            assert response.status == expected, await response.text()


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("https://dash.example", 200),
        ("https://dash.example.evil.com", 403),
        ("http://dash.example", 403),
        ("https://evil.com", 403),
        ("null", 403),
        ("", 403),
    ],
)
async def test_origin_is_listed(start_gateway: StartGateway, origin: str | None, status: int) -> None:
    """A page of another origin gets nothing; listed ones are compared exactly."""
    gateway = await start_gateway(auth={"origins": ("https://dash.example",)})
    headers = {} if origin is None else {"Origin": origin}
    async with gateway.get("/price/BTCUSDT", headers=headers) as response:
        assert response.status == status
        assert "Access-Control-Allow-Origin" not in response.headers


async def test_own_pages_may_ask(start_gateway: StartGateway) -> None:
    """A page that the gateway itself served has its own origin."""
    gateway = await start_gateway()
    origin = f"http://{gateway.host}:{gateway.port}"
    assert (await gateway.get("/livez", headers={"Origin": origin})).status == 200


@pytest.mark.parametrize("token", ["other", TOKEN, "wrong", "\udcff"])
def test_every_hash_is_compared_as_bytes(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """Whichever token fits, or none: all are compared, in constant time, so that the time tells nothing."""
    compared: list[tuple[object, object]] = []
    compare = hmac.compare_digest

    def spy(one: bytes, other: bytes) -> bool:
        compared.append((type(one), type(other)))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    with contextlib.suppress(Unauthenticated):
        Access(AuthSettings(**AUTH), bound_host="127.0.0.1").admit(token)
    assert compared == [(bytes, bytes)] * 2
