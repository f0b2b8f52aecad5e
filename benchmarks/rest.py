"""Measure the gateway's REST next to other servers, how fast it takes sockets, and their memory. See README.md.

It starts what it measures on free ports of 127.0.0.1, prints two tables and stops what it started. It judges nothing:
the exit code is 0 unless something did not work.
"""

from __future__ import annotations

import argparse
import itertools
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers import FOLDER, PYTHON, install
from benchmarks.processes import (
    Cores,
    Gateway,
    Readers,
    Server,
    Trouble,
    built,
    commanded,
    divided_cores,
    free_port,
    heading,
    running_on,
)
from benchmarks.report import aligned, median_ratio, spread
from benchmarks.windows import pass_time, resident_kb, usage_of
from server.simulator.child import SimulatorProcess

HERE = Path(__file__).resolve().parent
PATHS = ("/price/BTCUSDT", "/indicators/BTCUSDT")
IDLE_PATH = "/ws/positions/BTCUSDT?interval=60"
GATEWAY, BARE, FASTAPI = "gateway", "aiohttp, bare handler", "FastAPI on uvicorn"
CONNECTIONS = 64
WARM_UP_S = 1.0
SETTLING_S = 2.0
LATE_S = 30.0


class Sample(NamedTuple):
    """One window of requests to one path of one server."""

    per_s: float
    p99_ms: float
    us_per_request: float
    refused: int


class Crowd(NamedTuple):
    """Many idle sockets: how fast they came, and what each keeps in memory."""

    per_s: float
    p99_ms: float
    kb_per_socket: float


class Bench(NamedTuple):
    """What every window needs."""

    folder: Path
    exchange_url: str
    cores: Cores
    options: argparse.Namespace

    def gateway(self) -> Gateway:
        """Made, not started; it takes as many sockets as will come."""
        settings = {"GATEWAY__WEBSOCKET__MAX_CONNECTIONS": str(self.options.sockets)}
        return Gateway(self.exchange_url, self.folder / "gateway.log", settings=settings)


Samples = dict[tuple[str, str], list[Sample]]


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="rest.py", description="REST throughput, connect rate and memory.")
    parser.add_argument("--sockets", type=int, default=10_000, metavar="N", help="idle ones (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="of one window (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of all servers (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="500 sockets, one round of 1 second")
    options = parser.parse_args(arguments)
    if options.quick:
        options.sockets, options.seconds, options.rounds = 500, 1.0, 1
    if not (1 <= options.sockets <= 28_000 and options.rounds >= 1 and 1 <= options.seconds <= 600):
        parser.error("--sockets is from 1 to 28000, --rounds at least 1, --seconds from 1 to 600")
    return options


def requested(wrk: str, server: Server, path: str, seconds: float, title: str) -> Sample:
    """As many requests as one core of `wrk` gets answered."""
    whole_s = max(1, round(seconds))  # wrk knows no fractions
    command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{whole_s}s", "--latency", f"{server.url}{path}"]
    before = usage_of(server.pid)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            pass_time(title, whole_s)
            output, _ = process.communicate(timeout=LATE_S)
        except BaseException:
            process.kill()
            raise
    used = usage_of(server.pid).since(before)
    server.check_alive()
    requests = _number(r"(\d+) requests in", output)
    return Sample(
        per_s=_number(r"Requests/sec:\s+([\d.]+)", output),
        p99_ms=_milliseconds(output),
        us_per_request=1e6 * (used.loop_s + used.threads_s) / max(1.0, requests),
        refused=int(_number(r"Non-2xx or 3xx responses: (\d+)", output, otherwise="0")),
    )


def _number(pattern: str, output: str, otherwise: str | None = None) -> float:
    found = re.search(pattern, output)
    if found is None and otherwise is None:
        raise Trouble(f"wrk said something else than expected:\n{output}")
    return float(found[1] if found is not None else otherwise or "nan")


def _milliseconds(output: str) -> float:
    found = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", output)
    if found is None:
        raise Trouble(f"wrk said something else than expected:\n{output}")
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]


def _saved(gateway: Gateway, folder: Path) -> list[str]:
    """The gateway's own answers in files, as the peers want them: path, file, path, file."""
    pairs = []
    for number, path in enumerate(PATHS):
        with urllib.request.urlopen(f"{gateway.url}{path}", timeout=LATE_S) as answer:
            file = folder / f"body-{number}.json"
            file.write_bytes(answer.read())
        pairs += [path, str(file)]
    return pairs


def rest_rounds(bench: Bench, wrk: str) -> Samples:
    """Each server and path once a round; all servers stay up, since one that is not asked costs nothing."""
    samples, count = Samples(), bench.options.rounds
    for missing in install():
        print(missing, flush=True)
    with ExitStack() as stack:
        servers = _started(bench, stack)
        for server in servers.values():
            for path in PATHS:
                requested(wrk, server, path, WARM_UP_S, f"{server.name} warming up")
        for number in range(1, count + 1):
            for path, (name, server) in itertools.product(PATHS, servers.items()):
                sample = requested(wrk, server, path, bench.options.seconds, f"{number}/{count} {name}")
                samples.setdefault((path, name), []).append(sample)
    return samples


def _started(bench: Bench, stack: ExitStack) -> dict[str, Server]:
    """The gateway, and of the peers those that start; `stack` stops them."""
    with running_on(bench.cores.gateway):
        gateway = stack.enter_context(bench.gateway())
        servers: dict[str, Server] = {GATEWAY: gateway}
        pairs = _saved(gateway, bench.folder)
        for name, file in ((BARE, "rest_aiohttp.py"), (FASTAPI, "rest_fastapi.py")):
            port = free_port()
            command = [str(PYTHON), str(FOLDER / file), str(port), *pairs]
            peer = Server(name, command, port=port, log=bench.folder / f"{file}.log")
            try:
                servers[name] = stack.enter_context(peer)
            except (Trouble, OSError) as error:
                print(f"without {name}: {str(error).strip().splitlines()[-1]}", flush=True)
    return servers


def rest_lines(samples: Samples) -> Iterator[str]:
    """The table of requests."""
    rows = [["0 sockets", "", "requests/s", "p99, ms", "µs CPU each", f"x {BARE}", f"x {FASTAPI}"]]
    for (path, name), of_one in samples.items():
        per_s = [sample.per_s for sample in of_one]
        others = [[other.per_s for other in samples.get((path, peer), [])] for peer in (BARE, FASTAPI)]
        ratios = [median_ratio(per_s, other) for other in others]
        rows.append(
            [
                path,
                name,
                spread(per_s, 0),
                spread([sample.p99_ms for sample in of_one], 1),
                spread([sample.us_per_request for sample in of_one], 0),
                *("-" if value is None else f"{value:.2f}" for value in ratios),
            ]
        )
    yield from aligned(rows)
    refused = sum(sample.refused for of_one in samples.values() for sample in of_one)
    yield f"{CONNECTIONS} connections, each with its next request once it is answered; not answered 2xx: {refused}"


def crowded(bench: Bench, program: Path, title: str) -> Crowd:
    """Open all the sockets on a new gateway and let them idle, each with a snapshot a minute."""
    sockets = bench.options.sockets
    with ExitStack() as stack:
        with running_on(bench.cores.gateway):
            gateway = stack.enter_context(bench.gateway())
        before = resident_kb(gateway.pid)
        opening = stack.enter_context(Readers(program, gateway.port, sockets, [IDLE_PATH])).opening
        pass_time(title, SETTLING_S)
        grown_kb = resident_kb(gateway.pid) - before
        gateway.check_alive()
    return Crowd(sockets / opening["open_s"], opening["first_us"]["p99"] / 1000, grown_kb / sockets)


def crowd_lines(crowds: Sequence[Crowd], sockets: int) -> Iterator[str]:
    """The table of idle sockets."""
    yield from aligned(
        [
            [f"{sockets} sockets, idle", "connects/s", "to the first snapshot p99, ms", "RSS per socket, kB"],
            [
                GATEWAY,
                spread([crowd.per_s for crowd in crowds], 0),
                spread([crowd.p99_ms for crowd in crowds], 0),
                spread([crowd.kb_per_socket for crowd in crowds], 1),
            ],
        ]
    )


def run(options: argparse.Namespace, folder: Path) -> None:
    """Measure and print, with all that it needs started before and stopped after it. Raises Trouble."""
    cores = divided_cores()
    print(heading("REST and idle sockets", seconds=options.seconds, rounds=options.rounds, cores=cores), flush=True)
    program = built(HERE / "fanout.c", folder)
    with running_on(cores.others), SimulatorProcess("--no-limits") as simulator:
        bench = Bench(folder, simulator.url, cores, options)
        if (wrk := shutil.which("wrk")) is None:
            print("requests are left out: there is no wrk; on Debian and Ubuntu: apt-get install wrk", flush=True)
        else:
            samples = rest_rounds(bench, wrk)
            print("\n" + "\n".join(rest_lines(samples)), flush=True)
        numbers = range(1, options.rounds + 1)
        crowds = [crowded(bench, program, f"{number}/{options.rounds} idle sockets") for number in numbers]
    print("\n" + "\n".join(crowd_lines(crowds, options.sockets)))


def main() -> int:
    """Run the command; gives the exit code."""
    options = parsed()
    return commanded("rest.py", lambda folder: run(options, folder))


if __name__ == "__main__":
    raise SystemExit(main())
