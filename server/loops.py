"""The event loop: uvloop with aiofastnet's transports where both are installed, else the system's own."""

import asyncio
import contextlib
import functools
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable

Protocols = Callable[[], asyncio.BaseProtocol]
Connect = Callable[..., Awaitable[object]]

HANDSHAKE_S = 10.0
"""The longest TLS handshake."""
GOODBYE_S = 1.0
"""How long a TLS connection that is closed waits for the other side's goodbye."""


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop; None for asyncio's default, which is all there is on Windows."""
    if sys.platform != "win32":
        with contextlib.suppress(ImportError):
            import aiofastnet  # noqa: PLC0415  # neither is on every system
            import uvloop  # noqa: PLC0415

            return aiofastnet.loop_factory(uvloop.new_event_loop)
    return None


def connect_accepted(
    protocols: Protocols, connection: socket.socket, tls: ssl.SSLContext | None = None
) -> Awaitable[object]:
    """Put a transport of the running loop's best kind on an accepted connection, and one of `protocols` behind it.

    With `tls` that is the context of the handshake; where it fails, ssl.SSLError or OSError is raised.
    aiofastnet replaces a loop's methods, but not the one that this needs (1.2): the transport would be uvloop's.
    """
    loop = asyncio.get_running_loop()
    if sys.platform != "win32":
        with contextlib.suppress(ImportError):
            import aiofastnet  # noqa: PLC0415  # it is not on every system

            return _connected(functools.partial(aiofastnet.connect_accepted_socket, loop), protocols, connection, tls)
    return _connected(loop.connect_accepted_socket, protocols, connection, tls)


def _connected(
    connect: Callable[..., Awaitable[object]],
    protocols: Protocols,
    connection: socket.socket,
    tls: ssl.SSLContext | None,
) -> Awaitable[object]:
    if tls is None:
        return connect(protocols, connection)
    return connect(protocols, connection, ssl=tls, ssl_handshake_timeout=HANDSHAKE_S, ssl_shutdown_timeout=GOODBYE_S)
