"""TLS, for real: HTTPS and WSS over a certificate of the test, what is refused, and a pair that is renewed."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from server.processes.listeners import bind
from server.tls import UnfitPair, context_of, read_pair
from server.worker import serve
from tests.certificates import Files, make_files
from tests.conftest import Exchange, closing, receive, settings_for
from tests.processes import keys, running
from tests.test_supervisor import crew


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A pair in files of its own."""
    return make_files(tmp_path)


@pytest.fixture(autouse=True)
def blockbuster() -> None:
    """The loop here watches processes, and may read files."""


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a gateway's URL."""
    scheme, host, port = url.rsplit(":", 2)
    assert scheme == "https"
    return host.removeprefix("//"), int(port)


async def handshake(url: str, tls: ssl.SSLContext) -> ssl.SSLObject:
    """What a handshake with the gateway agreed on. Raises ssl.SSLError or ConnectionError where it fails."""
    host, port = address_of(url)
    async with asyncio.timeout(10):
        _, writer = await asyncio.open_connection(host, port, ssl=tls)
    made: ssl.SSLObject = writer.get_extra_info("ssl_object")
    writer.close()
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        await writer.wait_closed()
    return made


async def test_https_and_wss(exchange: Exchange, files: Files) -> None:
    """REST and both sockets work over TLS, the own page's origin is the https one, and it ends with 1001 and 0."""
    async with running(**keys(exchange), **files.environment) as gateway:
        connector = aiohttp.TCPConnector(ssl=files.trusting())
        async with aiohttp.ClientSession(gateway.url, connector=connector) as http:
            async with http.get("/price/BTCUSDT") as response:
                assert (response.status, response.url.scheme) == (200, "https")
                assert "Strict-Transport-Security" not in response.headers
            async with http.get("/livez", headers={"Origin": gateway.url.replace("https", "http")}) as response:
                assert response.status == 403
            single = await http.ws_connect(
                f"{gateway.url.replace('http', 'ws')}/ws/positions/BTCUSDT?interval=0", origin=gateway.url
            )
            assert (await receive(single))["stale"] == []
            many = await http.ws_connect("/ws")
            await many.send_json({"op": "subscribe", "channels": ["price:ETHUSDT", "balance"], "interval": 0.1})
            for _ in range(8):
                assert (await receive(many))["channel"] in ("price:ETHUSDT", "balance")
            ends = asyncio.gather(closing(single), closing(many))
            assert await gateway.end() == 0
            assert [code for code, _ in await ends] == [1001, 1001]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_versions_that_are_spoken(exchange: Exchange, files: Files, version: ssl.TLSVersion) -> None:
    """TLS 1.2 and 1.3 are agreed on, with HTTP/1.1 and forward secrecy."""
    tls = files.trusting()
    tls.minimum_version = tls.maximum_version = version
    tls.set_alpn_protocols(["h2", "http/1.1"])
    async with running(**keys(exchange), **files.environment) as gateway:
        made = await handshake(gateway.url, tls)
        assert made.version() == version.name.replace("_", ".")
        assert made.selected_alpn_protocol() == "http/1.1"
        cipher = made.cipher()
        assert cipher is not None
        assert cipher[0].startswith(("TLS_", "ECDHE-"))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_what_is_refused(exchange: Exchange, files: Files) -> None:
    """TLS 1.1, and HTTP in clear, get no answer, at most a line a second; whoever speaks TLS is served meanwhile."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    async with running(**keys(exchange), **files.environment) as gateway:
        for _ in range(20):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await handshake(gateway.url, old)
            reader, writer = await asyncio.open_connection(*address_of(gateway.url))
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                assert b"HTTP" not in await asyncio.wait_for(reader.read(), 10)
            writer.close()
        await handshake(gateway.url, files.trusting())
        assert await gateway.end() == 0
    lines = [line for line in gateway.lines if "connection_not_set_up" in line]
    assert 1 <= len(lines) < 20
    assert not any("Traceback" in line for line in gateway.lines)


async def test_who_never_shakes_hands_keeps_nobody(exchange: Exchange, files: Files) -> None:
    """Connections that say nothing hold up neither the others nor the end."""
    async with running(**keys(exchange), **files.environment) as gateway:
        silent = [await asyncio.open_connection(*address_of(gateway.url)) for _ in range(20)]
        await handshake(gateway.url, files.trusting())
        assert await gateway.end() == 0
        for _, writer in silent:
            writer.close()


def narrow_socket(address: Any) -> socket.socket:
    """A client's socket that takes little unread."""
    family, kind, number, *_ = address
    made = socket.socket(family, kind, number)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.setblocking(False)
    return made


async def test_a_reader_that_stops_is_let_go(exchange: Exchange, files: Files) -> None:
    """What is queued for a socket is seen through TLS too: it ends with 4408, and its neighbour goes on."""
    limits = {
        "GATEWAY__WEBSOCKET__HIGH_WATER_BYTES": "4096",
        "GATEWAY__WEBSOCKET__SLOW_LIMIT_BYTES": "65536",
        "GATEWAY__WEBSOCKET__SEND_BUFFER_BYTES": "4096",
        "GATEWAY__WEBSOCKET__MESSAGES_PER_S": "10000",
    }
    async with running(**keys(exchange), **files.environment, **limits) as gateway:
        narrow = aiohttp.TCPConnector(ssl=files.trusting(), socket_factory=narrow_socket)
        async with (
            aiohttp.ClientSession(gateway.url, connector=narrow) as stalled,
            aiohttp.ClientSession(gateway.url, connector=aiohttp.TCPConnector(ssl=files.trusting())) as http,
        ):
            beside = await http.ws_connect("/ws/positions/BTCUSDT?interval=0.1")
            ws = await stalled.ws_connect("/ws")
            ended = asyncio.create_task(gateway.line("connection_ended", timeout_s=30))
            for number in range(20_000):
                if ended.done():
                    break
                with contextlib.suppress(ConnectionError):
                    await ws.send_json({"op": "ping", "id": f"{number:0200}"})
            assert (await ended)["code"] == 4408
            assert (await receive(beside))["stale"] == []


async def test_a_renewed_pair_is_served_after_sighup(exchange: Exchange, files: Files, tmp_path: Path) -> None:
    """New files are served by new workers; files that do not fit are refused, and a worker that dies needs none."""
    first = files.trusting()
    async with crew(2, **keys(exchange), **files.environment) as gateway:
        await handshake(gateway.url, first)
        certificate = files.certificate.read_text()
        make_files(tmp_path)
        second = files.trusting()
        renewed = files.certificate.read_text()
        files.certificate.write_text(certificate)
        gateway.process.send_signal(signal.SIGHUP)
        refusal = await gateway.event("reload_refused")
        assert "the key is not the certificate's" in refusal["detail"]
        await handshake(gateway.url, first)

        files.certificate.write_text(renewed)
        gateway.process.send_signal(signal.SIGHUP)
        await gateway.event("reloaded")
        for _ in range(10):
            await handshake(gateway.url, second)
        with pytest.raises(ssl.SSLError):
            await handshake(gateway.url, first)

        files.key.unlink()
        os.kill(gateway.pids()[1], signal.SIGKILL)
        await gateway.event("worker_ready", worker=1)
        for _ in range(10):
            await handshake(gateway.url, second)
        assert await gateway.end() == 0


async def test_without_aiofastnet(exchange: Exchange, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own transports speak TLS as well."""
    monkeypatch.setitem(sys.modules, "aiofastnet", None)
    pair = read_pair(str(files.certificate), str(files.key))
    settings = settings_for(exchange.url, server={"port": 0, "key_pair": pair})
    with contextlib.closing(bind(settings)) as listener:
        listener.listen()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        serving = asyncio.create_task(serve(settings, [listener], last_words=lambda: None))
        connector = aiohttp.TCPConnector(ssl=files.trusting())
        async with aiohttp.ClientSession(url, connector=connector) as http:
            ws = await http.ws_connect("/ws/positions/BTCUSDT?interval=0.1")
            assert (await receive(ws))["stale"] == []
            await ws.close()
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(serving, 20)


def test_a_pair_is_read_as_a_whole(tmp_path: Path, files: Files) -> None:
    """Both may stand in one file; the certificates never hold the key, and no repr shows it."""
    both = tmp_path / "both.pem"
    both.write_text(files.key.read_text() + "a comment\n" + files.certificate.read_text() * 2)
    both.chmod(0o400)
    pair = read_pair(str(both), str(both))
    assert "PRIVATE" not in pair.chain
    assert pair.chain.count("BEGIN CERTIFICATE") == 2
    assert "PRIVATE" not in repr(pair)
    assert context_of(pair).minimum_version is ssl.TLSVersion.TLSv1_2


def test_it_needs_no_memory_file(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no files in memory, the pair lies in a private folder for as long as it is read."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(files.key.parent))
    before = set(files.key.parent.iterdir())
    pair = read_pair(str(files.certificate), str(files.key))
    assert "BEGIN CERTIFICATE" in pair.chain
    assert set(files.key.parent.iterdir()) == before


def broken(tmp_path: Path, how: str) -> Files:
    """A pair that cannot be served."""
    files = make_files(
        tmp_path, passphrase="secret" if how == "encrypted" else "", mode=0o644 if how == "open" else 0o600
    )
    if how == "another":
        certificate = files.certificate.read_text()
        make_files(tmp_path)
        files.certificate.write_text(certificate)
    elif how == "swapped":
        return Files(files.key, files.certificate)
    elif how == "no key":
        files.key.write_text("-----BEGIN CERTIFICATE-----")
    elif how == "cut":
        files.certificate.write_text(files.certificate.read_text().replace("M", "", 3))
    elif how == "missing":
        files.certificate.unlink()
    elif how == "binary":
        files.key.write_bytes(b"\xff\xfe\x00")
    return files


@pytest.mark.parametrize(
    ("how", "setting", "says"),
    [
        ("another", "tls_key", "the key is not the certificate's"),
        ("swapped", "tls_certificate", "holds no certificate"),
        ("no key", "tls_key", "holds no private key"),
        ("encrypted", "tls_key", "is encrypted"),
        ("cut", "tls_key", "cannot be served"),
        ("open", "tls_key", "mode is 0644; allowed: mode 0400 or 0600"),
        ("missing", "tls_certificate", "cannot be read: No such file"),
        ("binary", "tls_key", "it is not text"),
    ],
)
def test_pairs_that_cannot_be_served(tmp_path: Path, how: str, setting: str, says: str) -> None:
    """Each is refused with what is allowed, without a path or anything of the content."""
    files = broken(tmp_path, how)
    with pytest.raises(UnfitPair, match=says) as refusal:
        read_pair(str(files.certificate), str(files.key))
    assert refusal.value.setting == setting
    assert "allowed" in str(refusal.value)
    assert str(tmp_path) not in str(refusal.value)
