"""The listening sockets: one, or one per process on the same address, among which the kernel spreads connections."""

import contextlib
import socket
import sys
from collections.abc import Sequence

from ..settings import Settings

SPREADS = hasattr(socket, "SO_REUSEPORT") and sys.platform == "linux"
"""Whether the kernel spreads connections among sockets of one address; elsewhere one may get them all."""


def bind(settings: Settings) -> socket.socket:
    """The listening socket, bound. Raises OSError where the address cannot be had."""
    return _bound(settings, settings.server.port, is_shared=False)


def bind_each(settings: Settings) -> list[socket.socket]:
    """A socket for each worker, in its order, listening already; one for all of them where the kernel spreads nothing.

    Raises OSError where the address cannot be had: also where another gateway has it, which would else share it.
    """
    workers = settings.server.workers
    if workers == 1 or not SPREADS:
        listeners = [bind(settings)]
    else:
        bind(settings).close()  # a socket that shares nothing: fails where anybody else listens
        listeners = _group(settings, workers)
    for listener in listeners:
        listener.listen(settings.server.backlog)
    return listeners


def _group(settings: Settings, count: int) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    port = settings.server.port
    try:
        for _ in range(count):
            listeners.append(_bound(settings, port, is_shared=True))
            port = listeners[0].getsockname()[1]
    except BaseException:
        close_each(listeners)
        raise
    return listeners


def _bound(settings: Settings, port: int, *, is_shared: bool) -> socket.socket:
    host = settings.server.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # there it would let another process take the same port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        tune(listener, settings)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener


def tune(listener: socket.socket, settings: Settings) -> None:
    """Set the size of send buffers, and how long what is in them may stay unread; each connection inherits both.

    A small buffer makes a slow reader show early. One that reads nothing at all is cut off by the kernel, where it can
    do that (Linux): else who asks for much and never reads would keep it in memory for as long as he likes.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.websocket.send_buffer_bytes)
    if sys.platform == "linux":
        timeout_ms = max(1, round(settings.server.send_timeout_s * 1000))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)


def end_each(listeners: Sequence[socket.socket]) -> None:
    """Refuse connections from now on, whoever else holds these sockets; what still waits to be accepted is reset."""
    for listener in listeners:
        with contextlib.suppress(OSError):  # some systems refuse that for a listening socket
            listener.shutdown(socket.SHUT_RDWR)
    close_each(listeners)


def close_each(listeners: Sequence[socket.socket]) -> None:
    """Let go of these sockets; other processes that hold them keep them."""
    for listener in listeners:
        listener.close()


def address_of(listener: socket.socket, settings: Settings) -> str:
    """Where to reach `listener`, as a URL."""
    host, port = listener.getsockname()[:2]
    scheme = "http" if settings.server.key_pair is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
