"""`python run.py`: arguments to settings, settings to a running gateway, and how it all ends."""

import argparse
import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from . import __version__, telemetry
from .configuration import ConfigurationError, describe, load
from .errors import TradingKeyRefused
from .settings import BybitSettings, Secret, Settings
from .simulator.child import API_KEY, API_SECRET, SimulatorProcess
from .worker import bind, calm_garbage_collector, raise_descriptor_limit, serve

log = telemetry.get_logger(__name__)

FLUSH_S = 0.5
JOIN_S = 0.02
SIMULATOR_LOOK_S = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code: 0, 1 if it could not run, 2 for bad settings or a refused key."""
    arguments = _parser().parse_args(argv)
    given = {name: getattr(arguments, name) for name in ("profile", "host", "port", "workers")}
    try:
        present = {name: value for name, value in given.items() if value is not None}
        settings = load(present, os.environ, arguments.config)
    except ConfigurationError as error:
        print("\n".join(error.errors), file=sys.stderr)
        return 2
    if arguments.check:
        print(describe(settings))
        return 0
    return run(settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py", description="The gateway between a Bybit account and its readers.")
    parser.add_argument("--profile", metavar="P", help="development or production (APP_ENV)")
    parser.add_argument("--config", metavar="F", type=Path, help="the settings file (config.toml beside run.py)")
    parser.add_argument("--host", metavar="H", help="the address to listen on (HOST)")
    parser.add_argument("--port", metavar="N", help="the port, 0 for any free one (PORT)")
    parser.add_argument("--workers", metavar="N", help="processes (WORKERS)")
    parser.add_argument("--check", action="store_true", help="print the effective settings, secrets masked, and exit")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def run(settings: Settings) -> int:
    """Serve until told to stop. Threads that still hang in a call are not waited for."""
    writer = telemetry.configure(settings.log, sys.stderr.buffer, settings.secrets)
    try:
        raise_descriptor_limit()
        calm_garbage_collector()
        code = _served(settings, lambda: writer.close(FLUSH_S))
    finally:
        writer.close(FLUSH_S)
    if _is_any_call_hanging():
        sys.stdout.flush()
        os._exit(code)  # the interpreter would join them, for as long as they hang
    return code


def _is_any_call_hanging() -> bool:
    calls = [thread for thread in threading.enumerate() if thread.name.startswith("bybit-")]
    for thread in calls:
        thread.join(JOIN_S)
    return any(thread.is_alive() for thread in calls)


def _served(settings: Settings, last_words: Callable[[], object]) -> int:
    try:
        listener = bind(settings)
    except OSError as error:
        where = f"{settings.server.host}:{settings.server.port}"
        log.error("cannot_listen", address=where, detail=error.strerror or str(error))
        return 1
    with contextlib.closing(listener):
        try:
            asyncio.run(_serve(settings, listener, last_words))
        except KeyboardInterrupt:
            pass
        except TradingKeyRefused:
            return 2  # the check has logged it
    return 0


async def _serve(settings: Settings, listener: socket.socket, last_words: Callable[[], object]) -> None:
    if not settings.starts_simulator:
        await serve(settings, listener, last_words=last_words)
        return
    async with _simulator(settings) as simulated:
        await serve(simulated, listener, last_words=last_words)


@contextlib.asynccontextmanager
async def _simulator(settings: Settings) -> AsyncIterator[Settings]:
    """The settings with the address and key of a simulator that runs beside us, and is started again if it ends."""
    process = SimulatorProcess()
    url = await asyncio.to_thread(process.start)
    log.info("simulator_started", url=url)
    process.port = int(url.rpartition(":")[2])
    keeper = asyncio.create_task(_keep(process), name="simulator keeper")
    try:
        yield msgspec.structs.replace(settings, bybit=_pointed(settings.bybit, url))
    finally:
        keeper.cancel()
        await asyncio.wait({keeper})
        await asyncio.to_thread(process.stop, 1.0)


def _pointed(bybit: BybitSettings, url: str) -> BybitSettings:
    if bybit.api_key is not None:
        return msgspec.structs.replace(bybit, rest_url=url)
    return msgspec.structs.replace(bybit, rest_url=url, api_key=Secret(API_KEY), api_secret=Secret(API_SECRET))


async def _keep(process: SimulatorProcess) -> None:
    while True:
        await asyncio.sleep(SIMULATOR_LOOK_S)
        if (code := process.poll()) is not None:
            log.warning("simulator_ended", code=code)
            try:
                await asyncio.to_thread(process.start)
            except (RuntimeError, OSError) as error:
                log.error("simulator_start_failed", detail=str(error))
