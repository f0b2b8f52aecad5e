"""The event loop: uvloop with aiofastnet's transports where both are installed, else the system's own."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Awaitable, Callable

Protocols = Callable[[], asyncio.BaseProtocol]


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop; None for asyncio's default, which is all there is on Windows."""
    if sys.platform != "win32":
        with contextlib.suppress(ImportError):
            import aiofastnet  # noqa: PLC0415  # neither is on every system
            import uvloop  # noqa: PLC0415

            return aiofastnet.loop_factory(uvloop.new_event_loop)
    return None


def connect_accepted(protocols: Protocols, connection: socket.socket) -> Awaitable[object]:
    """Put a transport of the running loop's best kind on an accepted connection, and one of `protocols` behind it.

    aiofastnet replaces a loop's methods, but not the one that this needs (1.2): the transport would be uvloop's.
    """
    loop = asyncio.get_running_loop()
    if sys.platform != "win32":
        with contextlib.suppress(ImportError):
            import aiofastnet  # noqa: PLC0415  # it is not on every system

            return aiofastnet.connect_accepted_socket(loop, protocols, connection)
    return loop.connect_accepted_socket(protocols, connection)
