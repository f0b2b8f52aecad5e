"""One process of the gateway: a bound socket, the application on it, and an end that is bounded whatever hangs."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

from aiohttp import web

from . import __version__
from .api.keys import LOAD
from .app import create_app
from .settings import Settings
from .telemetry import get_logger

if sys.platform != "win32":
    import resource

log = get_logger(__name__)

HANDLERS_SHARE = 0.25
"""Of `server.shutdown_s`, for requests in progress to end; aiohttp applies it twice."""


def bind(settings: Settings) -> socket.socket:
    """The listening socket, bound. Small send buffers, inherited by each connection, make a slow reader show early.

    Raises OSError where the address cannot be had.
    """
    host = settings.server.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # there it would let another process take the same port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.websocket.send_buffer_bytes)
        listener.bind((host, settings.server.port))
    except BaseException:
        listener.close()
        raise
    return listener


def raise_descriptor_limit() -> None:
    """Allow as many descriptors as the system lets us have; sockets are descriptors."""
    if sys.platform == "win32":
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def calm_garbage_collector() -> None:
    """Leave what is there for good out of collections, and make full ones rare.

    With 1,000 sockets each of those held the loop for a tenth of a second. Reference counts free nearly everything
    here; what is in cycles waits a little longer.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


async def serve(settings: Settings, listener: socket.socket, *, last_words: Callable[[], object]) -> None:
    """Serve on `listener` until SIGTERM or SIGINT, then drain and return.

    A drain that takes longer than `server.shutdown_s` ends the process after `last_words`. Raises TradingKeyRefused
    where the key must not be used.
    """
    stop = asyncio.Event()
    runner = web.AppRunner(
        create_app(settings),
        access_log=None,
        keepalive_timeout=settings.server.keepalive_s,
        lingering_time=settings.server.body_timeout_s,
        shutdown_timeout=settings.server.shutdown_s * HANDLERS_SHARE,
    )
    with _stopped_by_signals(stop):
        await _set_up(runner)
        try:
            await web.SockSite(runner, listener, backlog=settings.server.backlog).start()
            _log_start(settings, address_of(listener))
            await stop.wait()
        finally:
            load = runner.app[LOAD]
            load.is_draining = True
            log.info("draining", sockets=len(load.sockets), requests=load.requests)
            with HardDeadline(settings.server.shutdown_s, last_words):
                await runner.cleanup()
            log.info("stopped")


async def _set_up(runner: web.AppRunner) -> None:
    """Start the application, or end what had begun of it."""
    try:
        await runner.setup()
    except BaseException:
        await runner.cleanup()
        raise


def _log_start(settings: Settings, address: str) -> None:
    log.info(
        "serving",
        address=address,
        version=__version__,
        profile=settings.profile.value,
        exchange=settings.exchange,
        tokens=len(settings.auth.tokens),
    )
    if not settings.has_keys:
        log.warning("market_data_only", detail="no API key is set: positions and balance are not available")


@contextlib.contextmanager
def _stopped_by_signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    if sys.platform == "win32":
        for number in signals:
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
        yield
        return
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    yield
    for number in signals:
        loop.remove_signal_handler(number)


def address_of(listener: socket.socket) -> str:
    """Where to reach `listener`, as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class HardDeadline:
    """Ends the process when draining takes too long: a thread of its own, for the loop itself may be what hangs."""

    def __init__(self, seconds: float, last_words: Callable[[], object]) -> None:
        self._timer = threading.Timer(seconds, self._leave)
        self._timer.daemon = True
        self._last_words = last_words

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _leave(self) -> None:
        log.error("drain_overdue", detail="the drain took longer than server.shutdown_s; leaving without it")
        self._last_words()
        os._exit(1)
