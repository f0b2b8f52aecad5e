"""Where requests come from, with proxies for real: who is believed, and what a page's own origin is."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from tests.certificates import Files, make_files
from tests.conftest import Gateway, StartGateway, receive
from tests.proxies import NGINX, TlsProxy, nginx
from tests.test_cli import free_port

LISTED: dict[str, Any] = {"proxies": ("127.0.0.1", "10.0.0.0/8")}
SPOOFED = {"X-Forwarded-For": "203.0.113.9, 10.0.0.7", "X-Forwarded-Proto": "https"}
CLIENT, STRANGER = "127.0.0.2", "127.0.0.3"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """The pair of the proxy."""
    return make_files(tmp_path)


@pytest.fixture(autouse=True)
def blockbuster() -> None:
    """The loop here starts proxies, and may write their files."""


def from_address(address: str, files: Files | None = None) -> aiohttp.ClientSession:
    """A client at another of this machine's addresses, which keeps no connection."""
    tls = True if files is None else files.trusting()
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(address, 0), force_close=True, ssl=tls))


async def addresses(gateway: Gateway) -> list[str]:
    """Who is connected, as `/connections` has it."""
    async with gateway.get("/connections") as response:
        return [one["address"] for one in (await response.json())["connections"]]


async def told(gateway: Gateway, **headers: str) -> str:
    """The address that the log has for a request with these headers."""
    with capture_logs() as logs:
        await gateway.get("/livez", headers=headers)
    (line,) = (line for line in logs if line["event"] == "request_ended")
    return str(line["remote"])


async def test_a_listed_proxy_names_the_client(start_gateway: StartGateway) -> None:
    """The log and `/connections` have the client's address, not the proxy's, and nothing that the client invented."""
    gateway = await start_gateway(server=LISTED)
    assert await told(gateway) == "127.0.0.1"
    assert await told(gateway, **{"X-Forwarded-For": "198.51.100.1, 203.0.113.9, 10.0.0.7"}) == "203.0.113.9"
    assert await told(gateway, **{"X-Forwarded-For": "nobody"}) == "127.0.0.1"
    with capture_logs() as logs:
        ws = await gateway.ws_connect("/ws/positions/BTCUSDT?interval=60", headers=SPOOFED)
        await receive(ws)
        assert await addresses(gateway) == ["203.0.113.9"]
        await ws.close()
        await gateway.get("/livez")
    ended = [line["remote"] for line in logs if line["event"] == "connection_ended"]
    assert ended == ["203.0.113.9"]


@pytest.mark.parametrize("proxies", [(), ("127.0.0.1",)])
async def test_nobody_else_is_believed(start_gateway: StartGateway, proxies: tuple[str, ...]) -> None:
    """Whoever is not listed is where it is, and speaks what it speaks, whatever it claims."""
    gateway = await start_gateway(server={"proxies": proxies})
    url = f"http://{gateway.host}:{gateway.port}"
    async with from_address(STRANGER) as http:
        with capture_logs() as logs:
            for scheme, status in (("http", 200), ("https", 403)):
                origin = {"Origin": url.replace("http", scheme)}
                async with http.get(f"{url}/livez", headers={**SPOOFED, **origin}) as response:
                    assert response.status == status
        assert {line["remote"] for line in logs if line["event"] == "request_ended"} == {STRANGER}


@pytest.mark.parametrize(
    ("said", "scheme"),
    [
        (["https"], "https"),
        (["HTTPS"], "https"),
        (["wss"], "https"),
        (["http, https"], "https"),
        (["http", "https"], "https"),
        (["https, http"], "http"),
        (["ws"], "http"),
        (["gopher"], "http"),
        ([""], "http"),
        ([], "http"),
    ],
)
async def test_the_own_origin_has_the_scheme_that_was_asked_by(
    start_gateway: StartGateway, said: list[str], scheme: str
) -> None:
    """A listed proxy says which scheme the page has; a page of the other one may not ask, nor open sockets."""
    gateway = await start_gateway(server=LISTED, auth={"hosts": ("gateway.example",)})
    for origin in ("http", "https"):
        headers = [("Host", "gateway.example"), ("Origin", f"{origin}://gateway.example")]
        headers += [("X-Forwarded-Proto", one) for one in said]
        for path, fine in (("/livez", 200), ("/ws", 400)):
            async with gateway.get(path, headers=headers) as response:
                assert response.status == (fine if origin == scheme else 403)


async def tried(gateway: Gateway, port: int, files: Files) -> None:
    """REST and a socket through the proxy at `port`, by a page of its own, from another address than the proxy's."""
    url = f"https://localhost:{port}"
    headers = {"Origin": url, "X-Forwarded-For": "203.0.113.66"}
    async with from_address(CLIENT, files) as http:
        for _ in range(3):
            with capture_logs() as logs:
                async with http.get(f"{url}/price/BTCUSDT", headers=headers) as response:
                    assert response.status == 200
            assert {line["remote"] for line in logs if line["event"] == "request_ended"} == {CLIENT}
        ws = await http.ws_connect(f"{url}/ws", headers=headers)
        await ws.send_json({"op": "subscribe", "channels": ["positions:BTCUSDT"], "interval": 0.1})
        for _ in range(5):
            assert (await receive(ws))["channel"] == "positions:BTCUSDT"
        assert await addresses(gateway) == [CLIENT]
        await ws.close()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await http.ws_connect(f"{url}/ws", headers={"Origin": url.replace("https", "http")})
        assert refusal.value.status == 403


async def test_behind_a_proxy_that_ends_tls(start_gateway: StartGateway, files: Files) -> None:
    """HTTPS and WSS through a proxy: the client is who the proxy had before it, and its page's origin is https."""
    gateway = await start_gateway(server=LISTED)
    assert gateway.port is not None
    async with TlsProxy(gateway.port, files).running() as port:
        await tried(gateway, port, files)


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
async def test_behind_nginx(start_gateway: StartGateway, files: Files, tmp_path: Path) -> None:
    """The same with the lines of docs/access.md."""
    gateway = await start_gateway(server=LISTED)
    assert gateway.port is not None
    async with nginx(free_port(), gateway.port, files, tmp_path) as port:
        await tried(gateway, port, files)
