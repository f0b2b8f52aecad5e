"""`python run.py`: arguments to settings, settings to a running gateway, and how it all ends."""

import argparse
import asyncio
import contextlib
import faulthandler
import functools
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from . import __version__, telemetry
from .access.tokens import make_token
from .configuration import DEFAULT_CONFIG, SECRET_VARIABLES, ConfigurationError, describe, load
from .environment import wipe
from .errors import TradingKeyRefused
from .loops import loop_factory
from .processes.companion import Companion
from .processes.listeners import address_of, bind, bind_each
from .processes.post import Post
from .processes.supervisor import Supervisor
from .settings import Profile, Settings

log = telemetry.get_logger(__name__)

FLUSH_S = 0.5
JOIN_S = 0.02


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code: 0, 1 if it could not run, 2 for bad settings or a refused key."""
    arguments = _parser().parse_args(argv)
    if arguments.post is not None:
        return work(arguments.post)
    if arguments.command == "token":
        return show_token()
    given = {name: getattr(arguments, name) for name in ("profile", "host", "port", "workers")}
    present = {name: value for name, value in given.items() if value is not None}
    read = functools.partial(load, present, os.environ, arguments.config)
    try:
        settings = read()
    except ConfigurationError as error:
        print("\n".join(error.errors), file=sys.stderr)
        return 2
    if arguments.reload and settings.profile is Profile.PRODUCTION:
        print("--reload: it is for development only; allowed in production: SIGHUP", file=sys.stderr)
        return 2
    if arguments.check:
        print(describe(settings))
        return 0
    wipe(SECRET_VARIABLES)
    return run(settings, read, watched=(arguments.config or DEFAULT_CONFIG) if arguments.reload else None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py", description="The gateway between a Bybit account and its readers.")
    parser.add_argument("command", nargs="?", choices=("token",), help="make a token, show it with its hash, and exit")
    parser.add_argument("--profile", metavar="P", help="development or production (APP_ENV)")
    parser.add_argument("--config", metavar="F", type=Path, help="the settings file (config.toml beside run.py)")
    parser.add_argument("--host", metavar="H", help="the address to listen on (HOST)")
    parser.add_argument("--port", metavar="N", help="the port, 0 for any free one (PORT)")
    parser.add_argument("--workers", metavar="N", help="processes (WORKERS)")
    parser.add_argument("--reload", action="store_true", help="start anew whenever a file changes; development only")
    parser.add_argument("--check", action="store_true", help="print the effective settings, secrets masked, and exit")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--post", type=int, help=argparse.SUPPRESS)  # what a supervisor starts its workers with
    return parser


def run(settings: Settings, read: Callable[[], Settings], *, watched: Path | None = None) -> int:
    """Serve until told to stop, alone or with workers; `read` gives the settings anew, for a reload.

    With a configuration file to be `watched`, changes of it and of the code are reloads too.
    """
    if not _needs_supervisor(settings, watched):
        return _logged(settings, lambda logs: _alone(settings, read, logs))
    return _logged(settings, lambda logs: _supervised(settings, read, watched, logs))


def show_token() -> int:
    """Make a token and print it, once, with the line for config.toml; gives the exit code."""
    made = make_token()
    print(f"token: {made.token}")
    print(f'tokens = ["sha256:{made.hash}"]')
    return 0


def work(descriptor: int) -> int:
    """Be a worker of the supervisor at the other end of that descriptor; gives the exit code."""
    try:
        post = Post(socket.socket(fileno=descriptor))
    except (OSError, msgspec.DecodeError):
        print("--post: no supervisor is there", file=sys.stderr)
        return 1
    faulthandler.enable(post.assignment.last_words)
    settings = post.assignment.settings
    return _logged(
        settings,
        lambda logs: _serve(settings, post.listeners, logs, post),
        worker=post.assignment.index,
    )


def _needs_supervisor(settings: Settings, watched: Path | None) -> bool:
    """In development one process is all there is, for debuggers; production reloads, also with one worker."""
    return settings.server.workers > 1 or settings.profile is Profile.PRODUCTION or watched is not None


def _logged(settings: Settings, action: Callable[[telemetry.LogWriter], int], *, worker: int | None = None) -> int:
    """Do it with the logs on, also for its crash. Threads that still hang in a call afterwards are not waited for."""
    writer = telemetry.configure(settings.log, sys.stderr.buffer, settings.secrets, worker=worker)
    telemetry.log_crashes()
    try:
        code = action(writer)
    except Exception:
        log.exception("crashed")
        code = 1
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


def _alone(settings: Settings, read: Callable[[], Settings], logs: telemetry.LogWriter) -> int:
    try:
        listener = bind(settings)
    except OSError as error:
        return _cannot_listen(settings, error)
    with contextlib.closing(listener), Companion() as companion:
        return _serve(companion.pointed(settings), [listener], logs, read=read)


def _supervised(
    settings: Settings, read: Callable[[], Settings], watched: Path | None, logs: telemetry.LogWriter
) -> int:
    if sys.platform == "win32":
        log.warning("no_supervisor", detail="sockets cannot be passed to workers here: one process serves, unreloaded")
        return _alone(settings, read, logs)
    try:
        listeners = bind_each(settings)
    except OSError as error:
        return _cannot_listen(settings, error)
    if len(listeners) < settings.server.workers:
        log.warning("socket_shared", detail="the system does not spread connections: the workers share one socket")
    with Companion() as companion, _watcher(watched):
        log.info("supervising", address=address_of(listeners[0], settings), workers=settings.server.workers)
        return Supervisor(companion.pointed(settings), listeners, lambda: companion.pointed(read())).run()


def _watcher(watched: Path | None) -> contextlib.AbstractContextManager[object]:
    if watched is None:
        return contextlib.nullcontext()
    from .processes.watcher import Watcher  # noqa: PLC0415  # what is for development only is loaded there only

    return Watcher(watched)


def _cannot_listen(settings: Settings, error: OSError) -> int:
    where = f"{settings.server.host}:{settings.server.port}"
    log.error("cannot_listen", address=where, detail=error.strerror or str(error))
    return 1


def _serve(
    settings: Settings,
    listeners: Sequence[socket.socket],
    logs: telemetry.LogWriter,
    post: Post | None = None,
    *,
    read: Callable[[], Settings] | None = None,
) -> int:
    from . import engine, memory, worker  # noqa: PLC0415  # a supervisor needs none of it, and stays small

    try:
        slow = engine.check_engine()
    except engine.UnfitEngine as error:
        log.error("engine_unfit", detail=str(error))
        return 2
    if slow:
        log.warning("engine_slow", detail="this interpreter has no C parts of aiohttp", parts=slow)

    def last_words() -> None:
        logs.close(FLUSH_S)

    worker.raise_descriptor_limit()
    worker.forbid_core_dumps()
    memory.calm_garbage_collector()
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(
                worker.serve(settings, listeners, last_words=last_words, protect=logs.protect, post=post, read=read)
            )
    except KeyboardInterrupt:
        pass
    except TradingKeyRefused:
        return 2  # the check has logged it
    return 0
