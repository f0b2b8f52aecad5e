"""`python -m server.simulator`: serves the exchange until it is told to end, or its parent is gone."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from aiohttp import web

from .app import create_simulator

SHUTDOWN_S = 1.0


def _port(text: str) -> int:
    """A port, or 0 for a free one. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; allowed: 0 to 65535")
    return int(text)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m server.simulator", description="A simulated Bybit V5 exchange.")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=0, help="port to serve on; 0 picks a free one (default)")
    parser.add_argument("--seed", type=int, default=1, help="which world to simulate (default: %(default)s)")
    parser.add_argument("--hedge", default="XRPUSDT", metavar="SYMBOL,...", help="symbols in hedge mode")
    parser.add_argument("--margin", choices=("cross", "isolated"), default="cross", help="margin mode of the account")
    parser.add_argument("--symbols", type=int, default=0, metavar="N", help="linear symbols, at least; 2000 at most")
    parser.add_argument("--no-limits", action="store_true", help="answer without rate limits")
    parser.add_argument("--ban-seconds", type=float, default=600.0, help="length of an IP ban (default: %(default)s)")
    parser.add_argument("--ticks-per-s", type=float, default=10.0, help="changes of a ticker (default: %(default)s)")
    parser.add_argument("--connects", type=int, default=500, help="stream connections in 5 min (default: %(default)s)")
    parser.add_argument("--idle-seconds", type=float, default=600.0, help="silence of a stream (default: %(default)s)")
    parser.add_argument("--control", action="store_true", help="let tests steer it under /_control")
    parser.add_argument("--exit-with-parent", action="store_true", help="end when stdin reaches its end")
    return parser.parse_args(arguments)


def _watch_parent(ended: Callable[[], None]) -> None:
    """Calls `ended` once stdin reaches its end. A thread, because not every stdin can be watched by an event loop."""
    with contextlib.suppress(OSError):
        while os.read(sys.stdin.fileno(), 4_096):
            pass
    with contextlib.suppress(RuntimeError):  # the loop has already ended by itself
        ended()


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))


async def serve(options: argparse.Namespace) -> None:
    """Serves until a signal or the parent's end. Prints one JSON line when it is ready."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    _on_signals(stopped.set)
    app = create_simulator(
        seed=options.seed,
        margin=options.margin,
        hedged=options.hedge.split(","),
        limits=not options.no_limits,
        ban_s=options.ban_seconds,
        symbols=options.symbols,
        control=options.control,
        ticks_per_s=options.ticks_per_s,
        connects=options.connects,
        idle_s=options.idle_seconds,
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, options.host, options.port).start()
        host, port = runner.addresses[0][:2]
        shown = f"[{host}]" if ":" in host else host
        print(json.dumps({"event": "simulator_ready", "url": f"http://{shown}:{port}"}), flush=True)
        if options.exit_with_parent:
            ended = lambda: loop.call_soon_threadsafe(stopped.set)  # noqa: E731
            threading.Thread(target=_watch_parent, args=(ended,), daemon=True).start()
        await stopped.wait()
    finally:
        await runner.cleanup()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the simulator; 0 when it was told to end, 2 when it could not start."""
    options = parse(arguments)
    try:
        asyncio.run(serve(options))
    except KeyboardInterrupt:
        return 0
    except (OSError, ValueError) as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
