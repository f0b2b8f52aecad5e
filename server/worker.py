"""One process of the gateway: listening sockets, the application on it, and an end that is bounded whatever hangs."""

import asyncio
import contextlib
import functools
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
from aiohttp import web

from . import __version__
from .api.keys import CLIENT, FEEDS, LOAD, NEIGHBOURS, SETTINGS
from .api.load import Load
from .api.reports import answer
from .api.revocation import apply
from .api.ws import drain, spread_s
from .app import create_app
from .configuration import ConfigurationError
from .errors import ExchangeError
from .memory import tidied
from .processes.doors import SETTLE_S, Doors
from .processes.listeners import address_of, tune
from .processes.post import Accept, Alive, Draining, Order, Post, Readmit, Rekey, Rekeyed, Release
from .settings import AuthSettings, Secret, Settings
from .telemetry import get_logger
from .tls import context_of

if sys.platform != "win32":
    import resource

log = get_logger(__name__)

REQUESTS_SHARE = 0.25
"""Of `server.shutdown_s`, for requests in progress to end."""
CANCEL_SHARE = 0.1
"""Of `server.shutdown_s`, for what is left to be cancelled; aiohttp applies it twice."""
ALIVE_SHARE = 0.2
"""Of `server.hang_s`, between two signs of life."""
HURRY_S = 3.0
"""The longest drain after SIGINT."""
IDLE_LOOK_S = 0.02
SUPERVISOR_GONE_S = 1.0
"""What a process gets beyond its drain to notice, by its loop, that nobody would end it any more."""

Stop = asyncio.Future[bool]
"""Done once the process shall end; its result: whether in a hurry."""


def raise_descriptor_limit() -> None:
    """Allow as many descriptors as the system lets us have; sockets are descriptors."""
    if sys.platform == "win32":
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def forbid_core_dumps() -> None:
    """Leave no image of the memory behind: it holds the key. One that hangs is aborted, and would leave one."""
    if sys.platform == "win32":
        return
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def descriptor_limit() -> int | None:
    """How many descriptors this process may have; None for any number."""
    if sys.platform == "win32":
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


async def serve(
    settings: Settings,
    listeners: Sequence[socket.socket],
    *,
    last_words: Callable[[], object],
    protect: Callable[[Iterable[Secret]], None] = lambda _: None,
    post: Post | None = None,
    read: Callable[[], Settings] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, or until the supervisor of `post` is gone, then drain and return.

    Without a `post` this process is the whole gateway, on the first listener; SIGHUP then has it `read` the settings
    anew, and go by those of who may ask, and by no others. A drain that takes longer than
    `server.shutdown_s` ends the process after `last_words`; after SIGINT it is a short one. `protect` is told of
    secrets that come later. Raises TradingKeyRefused where the key must not be used.
    """
    stop: Stop = asyncio.get_running_loop().create_future()
    index, of = (post.assignment.index, post.assignment.of) if post else (0, 1)
    neighbours = post.neighbours if post else None
    limit = descriptor_limit()
    runner = web.AppRunner(
        create_app(settings, worker=index, of=of, descriptors=limit, neighbours=neighbours),
        access_log=None,
        keepalive_timeout=settings.server.keepalive_s,
        lingering_time=settings.server.body_timeout_s,
        shutdown_timeout=settings.server.shutdown_s * CANCEL_SHARE,
    )
    pair = settings.server.key_pair
    tls = None if pair is None else context_of(pair)
    doors = Doors(runner, listeners, backlog=settings.server.backlog, descriptors=limit, tls=tls)
    own = post.assignment.own if post else 0
    if post is not None:
        args = post, settings.server.shutdown_s, last_words
        threading.Thread(target=_outlive_supervisor, args=args, name="supervisor-watch", daemon=True).start()
    hung_up = asyncio.Event()
    async with tidied():
        with _stopped_by_signals(stop, hung_up, is_supervised=post is not None):
            await _set_up(runner)
            try:
                tune(listeners[own], settings)
                doors.open(own)
                if neighbours is not None:
                    neighbours.listen(functools.partial(answer, runner.app))
                _log_start(settings, address_of(listeners[own], settings), runner.app[LOAD])
                obedience = Obedience(runner, doors, protect)
                if post is None:
                    await _until_alone(stop, hung_up, obedience, read)
                else:
                    await _until(stop, post, obedience)
            finally:
                is_hurried = not stop.done() or stop.result()
                await _leave(runner, doors, settings.server.shutdown_s, last_words, post, is_hurried=is_hurried)


class Obedience(NamedTuple):
    """What the supervisor's orders are about."""

    runner: web.AppRunner
    doors: Doors
    protect: Callable[[Iterable[Secret]], None]

    async def obey(self, order: Order) -> Rekeyed | None:
        """Do what the order says; gives what is to be reported."""
        match order:
            case Accept(listener):
                self.doors.open(listener)
            case Release(listener):
                self.doors.leave(listener)
            case Rekey(number, api_key, api_secret):
                return Rekeyed(number, await self._rekey(api_key, api_secret))
            case Readmit(auth):
                await self.readmit(auth)
        return None

    async def readmit(self, auth: AuthSettings) -> None:
        """Admit by `auth` from now on."""
        self.protect(auth.token_secrets)
        await apply(self.runner.app, auth)

    async def _rekey(self, api_key: Secret, api_secret: Secret) -> bool:
        self.protect((api_key, api_secret))
        try:
            await self.runner.app[CLIENT].rekey(api_key, api_secret)
            self.runner.app[FEEDS].retry()
        except ExchangeError as error:
            log.error("key_not_changed", detail=error.detail)
            return False
        log.info("key_changed")
        return True


async def _until_alone(
    stop: Stop, hung_up: asyncio.Event, obedience: Obedience, read: Callable[[], Settings] | None
) -> None:
    """Wait for the end, meanwhile going by other tokens whenever somebody hangs up."""
    task = asyncio.create_task(_reread(hung_up, obedience, read), name="tokens")
    await asyncio.shield(stop)
    task.cancel()
    await asyncio.wait({task})


async def _reread(hung_up: asyncio.Event, obedience: Obedience, read: Callable[[], Settings] | None) -> None:
    while read is not None:
        await hung_up.wait()
        hung_up.clear()
        try:
            await _readmit(obedience, await asyncio.to_thread(read))
        except ConfigurationError as error:
            for text in error.errors:
                log.error("reload_refused", detail=text)
        except Exception:
            log.exception("reload_crashed")


async def _readmit(obedience: Obedience, loaded: Settings) -> None:
    """Go by the loaded settings of who may ask; the rest waits for a restart."""
    running = obedience.runner.app[SETTINGS]
    if msgspec.structs.replace(running, auth=loaded.auth).exposes_account:
        log.error("reload_refused", detail="others could read a real account without a token at the host that stays")
        return
    await obedience.readmit(loaded.auth)
    if msgspec.structs.replace(loaded, auth=running.auth, bybit=running.bybit) != running:
        log.warning("reload_leaves_out", detail="one process without a supervisor takes only [auth] anew: restart it")


async def _until(stop: Stop, post: Post, obedience: Obedience) -> None:
    """Wait for the end, meanwhile doing what the supervisor says."""
    hang_s = obedience.runner.app[SETTINGS].server.hang_s
    tasks = {
        asyncio.create_task(_obey(post, obedience, stop), name="orders"),
        asyncio.create_task(_live(post, hang_s * ALIVE_SHARE), name="signs of life"),
    }
    await asyncio.shield(stop)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _live(post: Post, every_s: float) -> None:
    """Say from time to time that the loop turns."""
    while True:
        await asyncio.sleep(every_s)
        post.say(Alive())


async def _obey(post: Post, obedience: Obedience, stop: Stop) -> None:
    try:
        async for order in post.orders():
            if (report := await obedience.obey(order)) is not None:
                post.say(report)
        log.warning("supervisor_gone")
    except Exception:
        log.exception("orders_crashed")
    finally:
        _wish(stop, is_hurried=False)


def _outlive_supervisor(post: Post, shutdown_s: float, last_words: Callable[[], object]) -> None:
    """Drain as long as is allowed once the supervisor is gone, and no longer, also where the loop hangs."""
    post.wait_for_end()
    HardDeadline(shutdown_s + SUPERVISOR_GONE_S, last_words).start()


async def _leave(
    runner: web.AppRunner,
    doors: Doors,
    shutdown_s: float,
    last_words: Callable[[], object],
    post: Post | None,
    *,
    is_hurried: bool,
) -> None:
    load = runner.app[LOAD]
    load.is_draining = True
    log.info("draining", sockets=len(load.sockets), requests=load.requests)
    if (neighbours := runner.app[NEIGHBOURS]) is not None:
        neighbours.hush()
    with HardDeadline(min(shutdown_s, HURRY_S) if is_hurried else shutdown_s, last_words):
        doors.stop_accepting()
        if post is not None:
            post.say(Draining())
        if not is_hurried:
            await asyncio.gather(
                drain(runner.app, over_s=spread_s(len(load.sockets), shutdown_s, of=load.of)),
                _until_idle(load, shutdown_s),
            )
        await runner.cleanup()
        if post is not None:
            post.close()
    log.info("stopped")


async def _until_idle(load: Load, shutdown_s: float) -> None:
    """Wait for new connections to ask, and for requests in progress to end, for a share of the drain."""
    await asyncio.sleep(min(SETTLE_S, shutdown_s * CANCEL_SHARE))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(shutdown_s * REQUESTS_SHARE):
            while load.requests:  # noqa: ASYNC110  requests are counted, and tell nobody of their end
                await asyncio.sleep(IDLE_LOOK_S)


async def _set_up(runner: web.AppRunner) -> None:
    """Start the application, or end what had begun of it."""
    try:
        await runner.setup()
    except BaseException:
        await runner.cleanup()
        raise


def _log_start(settings: Settings, address: str, load: Load) -> None:
    log.info(
        "serving",
        address=address,
        version=__version__,
        profile=settings.profile.value,
        exchange=settings.exchange,
        tokens=len(settings.auth.tokens),
    )
    if load.is_short_of_descriptors:
        detail = f"the system's limit of descriptors leaves room for {load.max_sockets} sockets"
        log.warning("sockets_capped", detail=detail)
    if settings.speaks_in_clear:
        detail = "tokens cross the network in clear: set server.tls_certificate, or list the proxy in server.proxies"
        log.warning("plain_http", detail=detail)
    if not settings.has_keys:
        log.warning("market_data_only", detail="no API key is set: positions and balance are not available")


def _wish(stop: Stop, *, is_hurried: bool) -> None:
    """Wish for the end; the first wish counts."""
    if not stop.done():
        stop.set_result(is_hurried)


@contextlib.contextmanager
def _stopped_by_signals(stop: Stop, hung_up: asyncio.Event, *, is_supervised: bool) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    wishes = {
        signal.SIGTERM: functools.partial(_wish, stop, is_hurried=False),
        signal.SIGINT: functools.partial(_wish, stop, is_hurried=True),
    }
    if sys.platform == "win32":
        for number, wish in wishes.items():
            signal.signal(number, lambda *_, wish=wish: loop.call_soon_threadsafe(wish))
        yield
        return
    wishes[signal.SIGHUP] = functools.partial(_hang_up, stop, hung_up, is_supervised=is_supervised)
    for number, wish in wishes.items():
        loop.add_signal_handler(number, wish)
    yield
    for number in wishes:
        loop.remove_signal_handler(number)


def _hang_up(stop: Stop, hung_up: asyncio.Event, *, is_supervised: bool) -> None:
    """SIGHUP: a worker leaves it to its supervisor; a gateway of one process ends with its terminal, if it has one.

    Without one it reads anew who may ask.
    """
    if is_supervised:
        return
    if os.isatty(0):
        _wish(stop, is_hurried=False)
    else:
        hung_up.set()


class HardDeadline:
    """Ends the process when draining takes too long: a thread of its own, for the loop itself may be what hangs."""

    def __init__(self, seconds: float, last_words: Callable[[], object]) -> None:
        self._timer = threading.Timer(seconds, self._leave)
        self._timer.daemon = True
        self._last_words = last_words

    def start(self) -> None:
        self._timer.start()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _leave(self) -> None:
        log.error("drain_overdue", detail="the drain took too long; leaving without it")
        self._last_words()
        os._exit(1)
