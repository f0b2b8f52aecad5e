"""The transport: every exchange ends in time and size, reads only, and goes nowhere else."""

import asyncio
import gzip
import itertools
import socket
import ssl
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3

from server.bybit import transport
from server.bybit.transport import READABLE_PATHS, BoundedSession, Deadline, _watch, bounded
from server.errors import BadAnswer

from .conftest import WAIT_S, until
from .servers import Answer, Request, Serve, Server, Write, answer_of, dripping, envelope, silent

PATH = "/v5/market/time"
GOOD = envelope({"timeSecond": "1"})
CERTIFICATE = Path(__file__).with_name("loopback.pem")
LONG_S = 30.0  # the timeout of a read, far beyond any test: only the deadline can end a call in time


@pytest.fixture
def session() -> Iterator[BoundedSession]:
    """A session of four connections."""
    with BoundedSession(connections=4) as session:
        yield session


@pytest.fixture
def tls() -> ssl.SSLContext:
    """What a server on 127.0.0.1 needs to speak TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


class Call(threading.Thread):
    """A call in a thread of its own, under a Deadline of its own."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.deadline = Deadline()
        self.result: Any = None
        self.error: BaseException | None = None
        self._work = work
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.start()

    def run(self) -> None:
        try:
            self.result = bounded(self.deadline, self._work)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the test looks at it
            self.error = error
        with suppress(RuntimeError):  # a test that failed has left, and its loop too
            self._loop.call_soon_threadsafe(self._ended.set)

    async def end(self) -> Any:
        """What came of it; fails where the thread does not end."""
        await asyncio.wait_for(self._ended.wait(), WAIT_S)
        if self.error is not None:
            raise self.error
        return self.result

    async def is_cut(self) -> None:
        """Cut it, and see its thread end without a whole answer: where HTTP says no length, what breaks off is one."""
        self.deadline.cut()
        with suppress(requests.RequestException, urllib3.exceptions.HTTPError):
            assert len((await self.end()).content) < 10

    async def is_in(self, function: str) -> None:
        """Wait until the thread is inside of `function`."""
        async with asyncio.timeout(WAIT_S):
            while function not in self._functions():
                await asyncio.sleep(0.001)

    def _functions(self) -> Iterator[str]:
        frame = sys._current_frames().get(self.ident or 0)
        while frame is not None:
            yield frame.f_code.co_name
            frame = frame.f_back


def get(session: BoundedSession, server: Server, path: str = PATH, **options: Any) -> Callable[[], requests.Response]:
    """A call to be made in a thread."""
    return lambda: session.get(server.url + path, **{"timeout": LONG_S, **options})


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BODY = b"{" * 1000

HANGS: dict[str, tuple[Answer, str]] = {
    "silence": (silent, "_read_status"),
    "dripping status": (dripping(b"", HEAD, 1.0), "_read_status"),
    "dripping headers": (dripping(HEAD, b"X-Slow: " + BODY, 1.0), "parse_headers"),
    "endless continue": (dripping(b"HTTP/1.1 100 Continue\r\n\r\n" * 9, BODY, 1.0), "_read_status"),
    "dripping body": (dripping(HEAD + b"Content-Length: 1000\r\n\r\n", BODY, 1.0), "_raw_read"),
    "dripping chunks": (dripping(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n" * 99, 1.0), "_raw_read"),
    "dripping last body": (
        dripping(HEAD + b"Connection: close\r\nContent-Length: 1000\r\n\r\n", BODY, 1.0),
        "_raw_read",
    ),
    "dripping body of no length": (dripping(b"HTTP/1.0 200 OK\r\n\r\n", BODY, 1.0), "_raw_read"),
    "dripping refusal": (
        dripping(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 1000\r\n\r\n", BODY, 1.0),
        "_raw_read",
    ),
    "dripping gzip": (
        dripping(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 900\r\n\r\n", gzip.compress(BODY), 1.0),
        "_raw_read",
    ),
}
each_hang = pytest.mark.parametrize(("answer", "where"), HANGS.values(), ids=HANGS)


@each_hang
async def test_cut_ends_the_thread(serve: Serve, session: BoundedSession, answer: Answer, where: str) -> None:
    """Wherever an answer hangs, cutting ends the call's thread at once, and the session stays good."""
    server = await serve(answer)
    call = Call(get(session, server))
    await call.is_in(where)
    await call.is_cut()
    server.answer = GOOD
    assert (await Call(get(session, server)).end()).json()["retCode"] == 0


@each_hang
async def test_cut_ends_the_thread_over_tls(
    serve: Serve, session: BoundedSession, tls: ssl.SSLContext, answer: Answer, where: str
) -> None:
    """The same behind TLS, on a connection that was used before."""
    server = await serve(GOOD, tls)
    assert (await Call(get(session, server, verify=CERTIFICATE)).end()).json()["retCode"] == 0
    server.answer = answer
    call = Call(get(session, server, verify=CERTIFICATE))
    await call.is_in(where)
    await call.is_cut()
    assert server.connections == 1


async def test_cut_ends_a_handshake(session: BoundedSession) -> None:
    """A server that accepts and never begins TLS is cut."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        call = Call(lambda: session.get(f"https://127.0.0.1:{listener.getsockname()[1]}{PATH}", timeout=LONG_S))
        await call.is_in("do_handshake")
        await call.is_cut()


async def test_a_handshake_takes_only_so_long(session: BoundedSession) -> None:
    """To begin TLS takes no longer than to connect may."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}{PATH}"
        with pytest.raises(requests.Timeout):
            await Call(lambda: session.get(url, timeout=(0.05, LONG_S))).end()


@pytest.fixture
def full() -> Iterator[str]:
    """The address of a server that accepts no connection."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # the queue takes one, the rest of them wait as the call will
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


full_queues_drop = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue may refuse")


@full_queues_drop
@pytest.mark.parametrize("where", ["_new_conn", "wait_for_write"])
async def test_cut_ends_a_connect(session: BoundedSession, full: str, where: str) -> None:
    """A server that accepts no connection is cut, early or late."""
    call = Call(lambda: session.get(full + PATH, timeout=LONG_S))
    await call.is_in(where)
    await call.is_cut()


@full_queues_drop
async def test_connecting_takes_only_so_long(session: BoundedSession, full: str) -> None:
    """Connecting has a time of its own."""
    start = time.monotonic()
    with pytest.raises(requests.exceptions.ConnectTimeout):
        await Call(lambda: session.get(full + PATH, timeout=(0.05, LONG_S))).end()
    assert time.monotonic() - start < 1.0


async def test_every_address_of_a_name_is_tried(serve: Serve, session: BoundedSession) -> None:
    """A name finds its server, whichever of its addresses that has, and nobody where nobody listens."""
    server = await serve(GOOD)
    url = f"http://localhost:{server.port}{PATH}"
    assert (await Call(lambda: session.get(url, timeout=LONG_S)).end()).status_code == 200
    assert server.requests[0].headers["host"] == f"localhost:{server.port}"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://localhost:{listener.getsockname()[1]}{PATH}"
    with pytest.raises(requests.ConnectionError, match="no connection"):
        await Call(lambda: session.get(url, timeout=LONG_S)).end()


async def test_a_call_cut_before_it_begins(serve: Serve, session: BoundedSession) -> None:
    """A deadline that has passed lets no request leave, neither on a new connection nor on a kept one."""
    server = await serve(GOOD)
    for connections in (0, 1):
        deadline = Deadline()
        deadline.cut()
        deadline.cut()
        with pytest.raises(requests.RequestException):
            await asyncio.to_thread(bounded, deadline, get(session, server))
        assert len(server.requests) == connections
        assert (await Call(get(session, server)).end()).status_code == 200


async def test_a_late_cut_harms_no_other_call(serve: Serve, session: BoundedSession) -> None:
    """A call that has its answer holds its connection no more: another call's on it survives the cut."""
    gate, second = threading.Event(), asyncio.Event()

    async def answer(_: Request, __: Write) -> bytes:
        if len(server.requests) > 1:
            await second.wait()
        return GOOD

    server = await serve(answer)
    slow = Call(lambda: (get(session, server)(), gate.wait(WAIT_S)))
    await slow.is_in("wait")
    other = Call(get(session, server))
    await until(lambda: len(server.requests) == 2)
    assert server.connections == 1
    slow.deadline.cut()
    second.set()
    assert (await other.end()).status_code == 200
    gate.set()
    await slow.end()


async def test_cutting_what_is_not_connected() -> None:
    """Cutting never raises, whatever has become of the connection."""
    deadline = Deadline()
    with socket.socket() as sock:
        deadline.watch(sock)
        deadline.cut()
    deadline.release()
    assert deadline.passed


async def test_the_end_of_a_call_lets_go() -> None:
    """A call that is over holds no connection open, however it ended."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        deadline = Deadline()
        bounded(deadline, lambda: _watch(ours))
        ours.close()
        theirs.setblocking(False)
        assert theirs.recv(1) == b""


async def test_cut_after_the_end(serve: Serve, session: BoundedSession) -> None:
    """A call that is over is not cut: its connection is used again."""
    server = await serve(GOOD)
    for _ in range(3):
        call = Call(get(session, server))
        await call.end()
        call.deadline.cut()
    assert server.connections == 1


async def test_without_a_deadline(serve: Serve, session: BoundedSession) -> None:
    """Outside of a bounded call, requests go as requests do."""
    server = await serve(GOOD)
    assert (await asyncio.to_thread(get(session, server))).status_code == 200


async def test_connections_are_kept(serve: Serve, session: BoundedSession) -> None:
    """Twenty calls one after another take one connection; twenty at once no more than there are calls."""
    server = await serve(GOOD)
    for _ in range(20):
        await Call(get(session, server)).end()
    assert (len(server.requests), server.connections) == (20, 1)
    for call in [Call(get(session, server)) for _ in range(4)]:
        await call.end()
    assert server.connections <= 4


async def test_a_connection_closed_at_rest_is_replaced(serve: Serve, session: BoundedSession) -> None:
    """An exchange that closes kept connections is connected to anew."""

    async def answer(_: Request, write: Write) -> None:
        await write(GOOD)

    server = await serve(answer)
    for number in range(1, 4):
        assert (await Call(get(session, server)).end()).status_code == 200
        await until(lambda: not server.open)
        assert server.connections == number


BOMB = gzip.compress(b"0" * 64 * 2**20)


@pytest.mark.parametrize(
    "answer",
    [
        answer_of(b"0" * 2000),
        answer_of(b"0" * 1001),
        HEAD + b"\r\n" + b"0" * 2000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"200\r\n" + (b"0" * 512 + b"\r\n200\r\n") * 9,
        answer_of(gzip.compress(b"0" * 2000), "Content-Encoding: gzip"),
        answer_of(zlib.compress(b"0" * 2000), "Content-Encoding: deflate"),
        answer_of(b"", length=10**18) + b"0" * 2000,
    ],
    ids=["long", "a byte over", "no length", "chunks", "gzip", "deflate", "boast"],
)
async def test_too_large(serve: Serve, session: BoundedSession, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    """An answer over the cap is refused, however it comes, and no connection stays behind half read."""
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 1000)
    server = await serve(answer)
    for _ in range(3):
        with pytest.raises(BadAnswer, match="over 1000 bytes"):
            await Call(get(session, server)).end()
    await until(lambda: server.open <= 1)
    server.answer = GOOD
    assert (await Call(get(session, server)).end()).status_code == 200


async def test_as_large_as_may_be(serve: Serve, session: BoundedSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of exactly the cap is whole, and its connection is kept."""
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 1000)
    server = await serve(answer_of(b"0" * 1000))
    for _ in range(2):
        assert (await Call(get(session, server)).end()).content == b"0" * 1000
    assert server.connections == 1


@pytest.mark.parametrize("times", [1, 2])
async def test_bombs_do_not_go_off(
    serve: Serve, session: BoundedSession, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """What would unpack to 64 MB is given up at the cap, packed once or twice, in little memory."""
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 2**20)
    bomb = BOMB if times == 1 else gzip.compress(BOMB)
    server = await serve(answer_of(bomb, "Content-Encoding: " + ", ".join(["gzip"] * times)))
    tracemalloc.start()
    try:
        with pytest.raises(BadAnswer, match="over"):
            await Call(get(session, server)).end()
        assert tracemalloc.get_traced_memory()[1] < 12 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("status", ["403 Forbidden", "500 Internal Server Error", "302 Found"])
async def test_a_refusal_is_not_read_to_its_end(serve: Serve, session: BoundedSession, status: str) -> None:
    """Of a refusal only its beginning is read, and reading it as text is quick, whatever its bytes are."""

    async def endless(_: Request, write: Write) -> None:
        await write(f"HTTP/1.1 {status}\r\n\r\n".encode())
        for number in itertools.count():
            await write(bytes(range(256)) * 64)
            assert number < 10_000, "it is read on and on"

    server = await serve(endless)
    response = await Call(get(session, server)).end()
    assert len(response.content) <= transport.MAX_REFUSAL_BYTES + 1
    assert response.text.startswith("\x00\x01\x02")
    assert response.encoding == "utf-8", "not one that is guessed"
    await until(lambda: not server.open)


async def test_a_refusal_is_not_unpacked(serve: Serve, session: BoundedSession) -> None:
    """A refusal counts by its status, even where its body cannot be unpacked."""
    server = await serve(answer_of(b"not gzip" * 20_000, "Content-Encoding: gzip", status="502 Bad Gateway"))
    for _ in range(3):
        assert (await Call(get(session, server)).end()).status_code == 502
    await until(lambda: server.open <= 1)


async def test_a_small_refusal_keeps_its_connection(serve: Serve, session: BoundedSession) -> None:
    """Refusals of usual size cost no connection."""
    server = await serve(answer_of(b"<html>", status="502 Bad Gateway"))
    for _ in range(3):
        await Call(get(session, server)).end()
    assert server.connections == 1


async def test_what_cannot_be_unpacked_is_closed(serve: Serve, session: BoundedSession) -> None:
    """An answer that breaks while more of it is on the wire leaves no connection behind."""
    server = await serve(answer_of(b"not gzip" * 200_000, "Content-Encoding: gzip"))
    for _ in range(3):
        with pytest.raises(urllib3.exceptions.DecodeError):
            await Call(get(session, server)).end()
    await until(lambda: not server.open)


async def test_what_says_to_be_too_large_is_not_read(serve: Serve, session: BoundedSession) -> None:
    """Of an answer whose length is over the limit, no byte is waited for."""
    server = await serve(answer_of(b"", length=transport.MAX_ANSWER_BYTES + 1))
    with pytest.raises(BadAnswer, match="over"):
        await Call(get(session, server)).end()
    await until(lambda: not server.open)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answer_of(b"not gzip", "Content-Encoding: gzip"), urllib3.exceptions.DecodeError),
        (answer_of(gzip.compress(b"0")[:-9] + b"\xff" * 9, "Content-Encoding: gzip"), urllib3.exceptions.DecodeError),
        (answer_of(b"{", length=99), urllib3.exceptions.ProtocolError),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n99\r\n{", urllib3.exceptions.ProtocolError),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{", urllib3.exceptions.ProtocolError),
        (b"", requests.ConnectionError),
        (b"not HTTP\r\n\r\n", requests.ConnectionError),
        (HEAD + b"X-Long: " + b"x" * 70_000 + b"\r\n\r\n", requests.ConnectionError),
        (HEAD + b"X-Many: x\r\n" * 200 + b"\r\n", requests.ConnectionError),
    ],
    ids=["no gzip", "bad gzip", "short", "short chunk", "bad chunk", "empty", "no HTTP", "long header", "many headers"],
)
async def test_broken_answers(serve: Serve, session: BoundedSession, answer: bytes, error: type[Exception]) -> None:
    """An answer that breaks off or cannot be unpacked is an error, and no connection stays behind half read."""

    async def broken(_: Request, write: Write) -> bytes | None:
        await write(answer)
        return b"" if b"gzip" in answer else None

    server = await serve(broken)
    for _ in range(3):
        with pytest.raises(error):
            await Call(get(session, server)).end()
    await until(lambda: server.open <= 1)
    server.answer = GOOD
    assert (await Call(get(session, server)).end()).status_code == 200


KEY = {"X-BAPI-API-KEY": "canary", "Authorization": "canary", "Cookie": "canary"}


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_redirects_are_not_followed(serve: Serve, session: BoundedSession, status: str) -> None:
    """A redirect is an answer like others: nobody else is asked, and no key travels."""
    other = await serve(GOOD)
    server = await serve(answer_of(b"", f"Location: {other.url}{PATH}", status=status))
    response = await Call(get(session, server, headers=KEY)).end()
    assert response.status_code == int(status[:3])
    assert (other.connections, len(server.requests)) == (0, 1)
    with pytest.raises(PermissionError):
        session.rebuild_auth(response.request, response)


@pytest.fixture
def netrc(tmp_path: Path) -> Path:
    """A file with a password for this machine."""
    path = tmp_path / "netrc"
    path.write_text("machine 127.0.0.1 login user password canary\n")
    path.chmod(0o600)
    return path


async def test_the_environment_is_ignored(
    serve: Serve, session: BoundedSession, monkeypatch: pytest.MonkeyPatch, netrc: Path
) -> None:
    """No proxy, certificate bundle or .netrc of the environment has a part in a call."""
    proxy, server = await serve(GOOD), await serve(GOOD)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    monkeypatch.setenv("NETRC", str(netrc))
    await Call(get(session, server)).end()
    assert (proxy.connections, server.connections) == (0, 1)
    assert "authorization" not in server.requests[0].headers


async def test_requests_would_heed_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch, netrc: Path) -> None:
    """The environment of the test before is one that matters: a plain session follows it."""
    proxy, server = await serve(GOOD), await serve(GOOD)
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NETRC", str(netrc))
    with requests.Session() as plain:
        await asyncio.to_thread(plain.get, server.url + PATH)
    assert (proxy.connections, server.connections) == (1, 0)
    assert "authorization" in proxy.requests[0].headers


async def test_a_certificate_that_nobody_knows(serve: Serve, session: BoundedSession, tls: ssl.SSLContext) -> None:
    """Certificates are verified."""
    server = await serve(GOOD, tls)
    with pytest.raises(requests.exceptions.SSLError):
        await Call(get(session, server)).end()
    assert server.requests == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "get\x00"])
async def test_only_reading_leaves(serve: Serve, session: BoundedSession, method: str) -> None:
    """Another method than GET is refused before a socket is opened."""
    server = await serve(GOOD)
    with pytest.raises(PermissionError, match="only reads"):
        session.request(method, server.url + PATH)
    assert server.connections == 0


@pytest.mark.parametrize(
    "path",
    [
        "/", "/v5/order/create", "/v5/position/set-leverage", "/v5/account/wallet-balance/", "//v5/market/time",
        "/v5/market/../order/create", "/v5/market/time/../../order/create", "/v5/market/%74ime/", "/v5/Market/Time",
        "/v5/market/time;x", "/v5/market/time%3F", "/v5/asset/withdraw/create?x=/v5/market/time",
    ],
)  # fmt: skip
async def test_only_known_paths_leave(serve: Serve, session: BoundedSession, path: str) -> None:
    """A path that is not among those the gateway reads is refused before a socket is opened."""
    server = await serve(GOOD)
    with pytest.raises(PermissionError, match="only reads"):
        session.get(server.url + path)
    assert server.connections == 0


async def test_readable_paths_leave(serve: Serve, session: BoundedSession) -> None:
    """Each path that the gateway reads can be asked, with a query that says anything."""
    server = await serve(GOOD)
    for path in READABLE_PATHS:
        await Call(get(session, server, path + "?symbol=/v5/order/create")).end()
    assert {request.path for request in server.requests} == READABLE_PATHS


def test_every_readable_path_reads() -> None:
    """No path that places, changes, cancels or moves anything is among the readable ones."""
    known = {
        "/v5/market/time",
        "/v5/market/tickers",
        "/v5/market/kline",
        "/v5/market/instruments-info",
        "/v5/position/list",
        "/v5/account/wallet-balance",
        "/v5/account/info",
        "/v5/user/query-api",
    }
    assert known == READABLE_PATHS


async def test_gzip_is_read(serve: Serve, session: BoundedSession) -> None:
    """A packed answer comes out unpacked."""
    server = await serve(answer_of(gzip.compress(GOOD.partition(b"\r\n\r\n")[2]), "Content-Encoding: gzip"))
    assert (await Call(get(session, server)).end()).json()["retMsg"] == "OK"
    assert "gzip" in server.requests[0].headers["accept-encoding"]


@pytest.mark.parametrize("body", ["", "null", "[]", "1", "{", '{"retCode":"0","retMsg":"OK","result":{}}', "<html>"])
async def test_an_envelope_that_is_none(serve: Serve, session: BoundedSession, body: str) -> None:
    """An answer that is not Bybit's envelope cannot be believed."""
    server = await serve(answer_of(body))
    response = await Call(get(session, server)).end()
    with pytest.raises(BadAnswer, match="documented shape"):
        response.json()
