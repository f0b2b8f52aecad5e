"""The event loop: uvloop with aiofastnet's transports where both are installed, else the system's own."""

import asyncio
import contextlib
import sys
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop; None for asyncio's default, which is all there is on Windows."""
    if sys.platform != "win32":
        with contextlib.suppress(ImportError):
            import aiofastnet  # noqa: PLC0415  # neither is on every system
            import uvloop  # noqa: PLC0415

            return aiofastnet.loop_factory(uvloop.new_event_loop)
    return None
