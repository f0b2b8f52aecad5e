"""Measure the gateway's indicators next to pandas-ta-classic and the design that it replaces. See README.md.

It starts what it measures on free ports of 127.0.0.1, prints three tables and stops what it started. It judges nothing:
the exit code is 0 unless something did not work.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bulks import SYMBOLS, bulk_lines
from benchmarks.engines import computing_lines
from benchmarks.peers import FOLDER, PYTHON, install
from benchmarks.processes import (
    Gateway,
    Server,
    Trouble,
    asked,
    built,
    commanded,
    divided_cores,
    free_port,
    heading,
    running_on,
)
from benchmarks.report import aligned, median_ratio, spread, times
from benchmarks.rest import BARE, CONNECTIONS, Sample, requested
from server.simulator.child import SimulatorProcess

HERE = Path(__file__).resolve().parent
GATEWAY, OLD = "gateway", "the old design"
LIVEZ, CACHED = "/livez", "/indicators/BTCUSDT"
NAMED = f"{CACHED}?names=rsi:14,macd"
WARM_UP_S = 1.0
SIMULATOR = ("--no-limits", "--symbols", str(SYMBOLS))
CASE_SHARE = 0.2
"""Of a window, how long one case of computing takes."""


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="indicators.py", description="Indicators: computed, asked for, in bulk.")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="of one window (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of everything (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one round of 1 second")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds, options.rounds = 1.0, 1
    if not (options.rounds >= 1 and 1 <= options.seconds <= 600):
        parser.error("--rounds is at least 1, --seconds from 1 to 600")
    return options


def question_lines(servers: dict[str, Server], wrk: str, *, seconds: float, rounds: int) -> Iterator[str]:
    """Questions as fast as they are answered; every server once a round for each of its paths."""
    pairs = [(GATEWAY, LIVEZ), (GATEWAY, CACHED), (GATEWAY, NAMED), (BARE, CACHED), (OLD, LIVEZ), (OLD, CACHED)]
    pairs = [(name, path) for name, path in pairs if name in servers]
    samples: dict[tuple[str, str], list[Sample]] = {}
    for name, path in pairs:
        requested(wrk, servers[name], path, WARM_UP_S, f"{name} warming up")
    for number, (name, path) in itertools.product(range(1, rounds + 1), pairs):
        sample = requested(wrk, servers[name], path, seconds, f"{number}/{rounds} {name}")
        samples.setdefault((name, path), []).append(sample)
    yield from aligned([*_question_rows(samples)])
    refused = sum(sample.refused for of_one in samples.values() for sample in of_one)
    yield f"{CONNECTIONS} connections, each with its next question once it is answered; not answered 2xx: {refused}"


def _question_rows(samples: dict[tuple[str, str], list[Sample]]) -> Iterator[list[str]]:
    against = [(GATEWAY, LIVEZ), (BARE, CACHED), (OLD, CACHED)]
    titles = ["x its /livez", f"x {BARE}", f"x {OLD}"]
    yield ["warm candles", "", "requests/s", "p99, ms", "µs CPU each", *titles]
    for (name, path), of_one in samples.items():
        per_s = [sample.per_s for sample in of_one]
        others = [[other.per_s for other in samples.get(key, [])] for key in against]
        yield [
            path,
            name,
            spread(per_s, 0),
            spread([sample.p99_ms for sample in of_one], 1),
            spread([sample.us_per_request for sample in of_one], 0),
            *(times(median_ratio(per_s, other)) for other in others),
        ]


def _started(exchange_url: str, folder: Path, stack: ExitStack) -> dict[str, Server]:
    """The gateway, and of the peers those that start; `stack` stops them."""
    gateway = stack.enter_context(Gateway(exchange_url, folder / "gateway.log"))
    servers: dict[str, Server] = {GATEWAY: gateway}
    body = folder / "body.json"
    body.write_text(json.dumps(asked(f"{gateway.url}{CACHED}")))
    programs = {BARE: ("rest_aiohttp.py", CACHED, str(body)), OLD: ("rest_indicators.py", exchange_url)}
    for name, (file, *arguments) in programs.items():
        port = free_port()
        peer = Server(
            name, [str(PYTHON), str(FOLDER / file), str(port), *arguments], port=port, log=folder / f"{file}.log"
        )
        try:
            servers[name] = stack.enter_context(peer)
        except (Trouble, OSError) as error:
            print(f"without {name}: {str(error).strip().splitlines()[-1]}", flush=True)
    return servers


def run(options: argparse.Namespace, folder: Path) -> None:
    """Measure and print, with all that it needs started before and stopped after it. Raises Trouble."""
    cores, rounds = divided_cores(), options.rounds
    print(heading("Indicators", seconds=options.seconds, rounds=rounds, cores=cores), flush=True)
    program = built(HERE / "load.c", folder)
    for missing in install():
        print(missing, flush=True)
    with ExitStack() as stack, running_on(cores.others), SimulatorProcess(*SIMULATOR) as simulator:
        with running_on(cores.gateway):
            lines = computing_lines(simulator.url, folder, seconds=options.seconds * CASE_SHARE, rounds=rounds)
            print("\n" + "\n".join(lines), flush=True)
            servers = _started(simulator.url, folder, stack)
        if (wrk := shutil.which("wrk")) is None:
            print("questions are left out: there is no wrk; on Debian and Ubuntu: apt-get install wrk", flush=True)
        else:
            print("\n" + "\n".join(question_lines(servers, wrk, seconds=options.seconds, rounds=rounds)), flush=True)
        gateway, old = servers[GATEWAY], servers.get(OLD)
        lines = bulk_lines(gateway, old, program, seconds=options.seconds, rounds=rounds)
        print("\n" + "\n".join(lines), flush=True)


def main() -> int:
    """Run the command; gives the exit code."""
    options = parsed()
    return commanded("indicators.py", lambda folder: run(options, folder))


if __name__ == "__main__":
    raise SystemExit(main())
