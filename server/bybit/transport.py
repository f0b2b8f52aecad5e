"""HTTP for pybit with an end: every exchange is bounded in time and size, reads only, and goes nowhere else.

requests bounds each read, not the whole answer: a body that drips holds its thread for as long as it drips. So each
call carries a Deadline, and whoever stops waiting cuts the call's connection; the thread then ends at once, in
whatever phase it hangs. Only name resolution cannot be cut: it is bounded by the resolver's own timeouts.
"""

import socket
import threading
from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Never

import msgspec
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util import wait_for_write

from ..errors import BadAnswer
from .wire import Envelope, decode

MAX_ANSWER_BYTES = 16 * 1024 * 1024
MAX_REFUSAL_BYTES = 64 * 1024
PIECE_BYTES = 256 * 1024
CONNECT_TIMEOUT_S = 5.0

READABLE_PATHS = frozenset(
    {
        "/v5/market/time",
        "/v5/market/tickers",
        "/v5/market/kline",
        "/v5/market/instruments-info",
        "/v5/position/list",
        "/v5/account/wallet-balance",
        "/v5/account/info",
        "/v5/user/query-api",
    }
)
"""The only paths that can leave this process, and only by GET: the gateway can read and cannot trade."""


class Deadline:
    """The end of one call: `cut` breaks the connection that the call is using, from any thread, at any moment.

    It holds a duplicate of the connection's descriptor: TLS takes the socket away from its first object before the
    handshake, and http.client closes it before it reads a body that ends with the connection.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: socket.socket | None = None
        self.passed = False

    def watch(self, sock: socket.socket) -> None:
        """Take `sock` as the call's connection, in place of the one before. Raises TimeoutError if it is too late."""
        with self._lock:
            if self.passed:
                raise TimeoutError("the call's time is over")
            self._let_go()
            self._line = socket.fromfd(sock.fileno(), sock.family, sock.type)

    def release(self) -> None:
        """Watch no connection any more: the call is over, or its connection is free for another one."""
        with self._lock:
            self._let_go()

    def cut(self) -> None:
        """End the call now. Never blocks and never raises; cutting twice, or a call that is over, does nothing."""
        with self._lock:
            self.passed = True
            if self._line is not None:
                try:
                    self._line.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the other side was faster

    def _let_go(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


class _Current(threading.local):
    deadline: Deadline | None = None


_current = _Current()


def bounded(deadline: Deadline, work: Callable[[], Any]) -> Any:
    """What `work` returns, its connections watched by `deadline`; to be run in the thread that does the call."""
    _current.deadline = deadline
    try:
        return work()
    finally:
        _current.deadline = None
        deadline.release()


def _watch(sock: socket.socket) -> None:
    if _current.deadline is not None:
        _current.deadline.watch(sock)


class _Watched(HTTPConnection):
    """A connection whose socket the current call's Deadline can cut."""

    def _new_conn(self) -> socket.socket:
        """As in urllib3, with each attempt watched: to connect can hang as well as an answer can."""
        try:
            return self._connected()
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "no connection in time") from error
        except (OSError, UnicodeError) as error:
            raise NewConnectionError(self, "no connection") from error

    def _connected(self) -> socket.socket:
        failure = OSError("the name has no address")
        found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in found:
            try:
                return self._connected_to(address, family, kind, protocol)
            except OSError as error:
                failure = error
        raise failure

    def _connected_to(self, address: Any, *kind: int) -> socket.socket:
        sock = socket.socket(*kind)
        try:
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            sock.setblocking(False)
            sock.connect_ex(address)
            _watch(sock)  # only now: to cut what has not begun to connect does nothing
            if not wait_for_write(sock, self.timeout):
                raise TimeoutError("no connection in time")
            sock.getpeername()  # raises OSError where there is no connection
            sock.settimeout(self.timeout)
            return sock
        except OSError:
            sock.close()
            raise

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            _watch(self.sock)
        super().request(*args, **kwargs)


class _WatchedTLS(_Watched, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    """Connections at rest, which no call's Deadline may cut."""

    ConnectionCls = _Watched

    def _put_conn(self, conn: Any) -> None:
        if _current.deadline is not None:
            _current.deadline.release()
        super()._put_conn(conn)


class _TLSPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _WatchedTLS


class Answer(requests.Response):
    """A response whose JSON is read once, typed, its `result` left raw for the parser that knows its shape."""

    def json(self, **_: Any) -> dict[str, Any]:
        """The V5 envelope as the mapping that pybit expects; raises BadAnswer where it is none."""
        return msgspec.structs.asdict(decode(self.content, Envelope))


class BoundedAdapter(HTTPAdapter):
    """Reads answers up to a size, on watched connections, and sends nothing but GET on the paths the gateway reads."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As in requests, with connections that can be cut."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """The whole answer. Raises PermissionError for what must not leave, BadAnswer for one that is too large."""
        path = request.path_url.partition("?")[0]
        if request.method != "GET" or path not in READABLE_PATHS:
            raise PermissionError(f"the gateway only reads: {request.method} {path} is not among what it may ask")
        response = super().send(request, *args, **kwargs)
        try:
            body = self._whole(response) if response.status_code == 200 else response.raw.read(MAX_REFUSAL_BYTES)
        finally:
            response.close()  # of an answer read to its end, the connection is back in the pool already
        return self._answer(response, body)

    @staticmethod
    def _whole(response: requests.Response) -> bytes:
        """The unpacked body, read in pieces: what turns out to be too large is let go at once, and never copied."""
        pieces: list[bytes] = []
        left = MAX_ANSWER_BYTES
        declared = response.headers.get("Content-Length", "")
        too_large = declared.isdecimal() and len(declared) < 20 and int(declared) > left
        while not too_large and (piece := response.raw.read(min(PIECE_BYTES, left + 1), decode_content=True)):
            pieces.append(piece)
            left -= len(piece)
            too_large = left < 0
        if too_large:
            pieces.clear()
            raise BadAnswer(f"the exchange's answer is over {MAX_ANSWER_BYTES} bytes")
        return b"".join(pieces)

    @staticmethod
    def _answer(response: requests.Response, body: bytes) -> Answer:
        answer = Answer()
        answer.__dict__.update(response.__dict__, _content=body, _content_consumed=True)
        # pybit reads a refusal's text: without an encoding, requests would guess one, for seconds.
        answer.encoding = "utf-8"
        return answer


class BoundedSession(requests.Session):
    """A session that keeps no cookies, takes nothing from the environment, and follows no redirect with the key."""

    def __init__(self, *, connections: int) -> None:
        super().__init__()
        self.trust_env = False
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        adapter = BoundedAdapter(pool_maxsize=connections)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def get_redirect_target(self, _: requests.Response) -> None:
        """Never a target."""
        return

    def rebuild_auth(self, *_: Any) -> Never:
        """Nothing is ever sent again elsewhere."""
        raise PermissionError("the gateway follows no redirect")
