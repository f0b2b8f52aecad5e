"""Measure how fast the gateway delivers changes to many sockets, next to other servers. See README.md.

It starts one server after the other on one core, reads from all its sockets on another, prints a table and stops what
it started. It judges nothing: the exit code is 0 unless something did not work.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import aiohttp

from benchmarks.peers import Peer, install, peers
from benchmarks.peers.message import FIRST_SEQUENCE
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
from benchmarks.windows import busy_s, pass_time, usage_of
from server.simulator.child import SimulatorProcess

HERE = Path(__file__).resolve().parent
PATH = "/ws/positions/BTCUSDT?interval=0"
FAST = {"GATEWAY__FRESHNESS__LIVE_POLL_S": "0.01"}
TEN_A_SECOND = {"GATEWAY__FRESHNESS__LIVE_POLL_S": "0.1"}
PUSHED, POLLING = "gateway, readings pushed", "gateway, polling"
FLOOR, SOCKETIFY = "C, one write a socket", "uWebSockets (socketify)"
AIMS = ((FLOOR, 0.75), (SOCKETIFY, 0.85), ("websockets broadcast", 1.6), ("the old design", 70.0))
WARM_UP_S = 1.0


class Sample(NamedTuple):
    """One window of one server; `core` is its share of its core, `strangers` that of others, `client` the readers'."""

    frames_per_s: float
    us_per_frame: float
    core: float
    strangers: float
    client: float
    counted: dict[str, Any]


Samples = dict[str, list[Sample]]
Start = Callable[[int], Server]
"""Makes the server, not started yet, for so many sockets."""


class Bench(NamedTuple):
    """What every window needs."""

    folder: Path
    exchange_url: str
    readers: Path
    cores: Cores
    seconds: float

    def gateway(self, settings: Mapping[str, str], program: str = "run.py") -> Gateway:
        """Made, not started."""
        return Gateway(self.exchange_url, self.folder / "gateway.log", program, settings=settings)

    def measured(self, server: Server, sockets: int, title: str, what: str = "measure") -> Sample:
        """Start `server`, open the sockets, count for a window, and stop all of it."""
        with ExitStack() as stack:
            with running_on(self.cores.gateway):
                stack.enter_context(server)
            readers = stack.enter_context(Readers(self.readers, server.port, sockets, [PATH]))
            pass_time(f"{title} warming up", WARM_UP_S)
            before, busy = usage_of(server.pid), busy_s(self.cores.gateway)
            readers.begin(self.seconds, what)
            pass_time(title, self.seconds)
            counted = readers.counted(self.seconds)
            used, busy = usage_of(server.pid).since(before), busy_s(self.cores.gateway) - busy
            server.check_alive()
        if counted["open"] < sockets:
            raise Trouble(f"{server.name} closed {sockets - counted['open']} of {sockets} sockets")
        return _sample(counted, used.loop_s + used.threads_s, used.at, busy)


def _sample(counted: dict[str, Any], cpu_s: float, seconds: float, busy: float) -> Sample:
    frames = counted["snapshots"]
    return Sample(
        frames_per_s=frames / counted["seconds"],
        us_per_frame=1e6 * cpu_s / max(1, frames),
        core=cpu_s / seconds,
        strangers=max(0.0, busy - cpu_s) / seconds,
        client=counted["cpu_s"] / counted["seconds"],
        counted=counted,
    )


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="fanout.py", description="Live delivery, next to other servers.")
    parser.add_argument("--sockets", type=int, nargs="+", default=[1000, 5000], metavar="N", help="default: 1000 5000")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="of one window (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of all servers (%(default)s)")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="servers whose names have one of these")
    parser.add_argument("--latency", action="store_true", help="the spread of ten changes a second over 1,000 sockets")
    parser.add_argument("--quick", action="store_true", help="200 sockets, one round of 2 seconds")
    options = parser.parse_args(arguments)
    if options.quick:
        options.sockets, options.seconds, options.rounds = [200], 2.0, 1
    elif options.latency:
        options.sockets = options.sockets[:1]
    if not all(1 <= count <= 10_000 for count in options.sockets) or options.rounds < 1:
        parser.error("--sockets is from 1 to 10000, --rounds at least 1")
    if not 0.5 <= options.seconds <= 600:
        parser.error("--seconds is from 0.5 to 600")
    return options


def write_message(bench: Bench) -> Path:
    """A snapshot of the gateway's with a seq of the peers', in a file: what all of them broadcast."""
    with running_on(bench.cores.gateway), bench.gateway({}) as gateway:
        text = asyncio.run(_first_message(f"{gateway.url}{PATH}"))
    file = bench.folder / "message.json"
    file.write_text(re.sub(r'"seq":\d+', f'"seq":{FIRST_SEQUENCE}', text))
    return file


async def _first_message(url: str) -> str:
    async with aiohttp.ClientSession() as http, http.ws_connect(url) as ws:
        return str(await ws.receive_str(timeout=10))


def contestants(bench: Bench, message: Path, only: Sequence[str]) -> dict[str, Start]:
    """Every server by name, in the order of a round."""
    found: dict[str, Start] = {
        PUSHED: lambda _: bench.gateway({}, "benchmarks/pushed.py"),
        POLLING: lambda _: bench.gateway(FAST),
    }
    for peer in peers(built(HERE / "peers" / "floor.c", bench.folder)):
        found[peer.name] = _starting(bench, peer, message)
    return {name: start for name, start in found.items() if not only or any(word in name for word in only)}


def _starting(bench: Bench, peer: Peer, message: Path) -> Start:
    def start(sockets: int) -> Server:
        port = free_port()
        command = [*peer.command, str(port), str(sockets), str(message), bench.exchange_url]
        return Server(peer.name, command, port=port, log=bench.folder / "peer.log")

    return start


def rounds(bench: Bench, servers: dict[str, Start], sockets: int, count: int) -> Samples:
    """Each server once a round. A peer that does not work is left out from then on; the gateway has to."""
    samples: Samples = {name: [] for name in servers}
    for number in range(1, count + 1):
        for name in [*servers]:
            try:
                sample = bench.measured(servers[name](sockets), sockets, f"{number}/{count} {name}")
            except (Trouble, OSError) as error:
                if name in (PUSHED, POLLING):
                    raise
                print(f"without {name} from here on: {str(error).strip().splitlines()[-1]}", flush=True)
                del servers[name]
            else:
                samples[name].append(sample)
    return samples


def lines(samples: Samples, sockets: int) -> Iterator[str]:
    """The table of one number of sockets, and what has to be known to believe it."""
    head = [f"{sockets} sockets", "frames/s", "µs CPU a frame", "% of its core", "x C floor", "x socketify"]
    yield from aligned([head, *(_row(name, samples) for name in samples)])
    yield ""
    measured = [sample for of_one in samples.values() for sample in of_one]
    for name in (PUSHED, POLLING):
        if of_one := samples.get(name):
            yield f"{name}: {_changes(of_one, sockets)}"
    if measured:
        repeated = sum(sample.counted["out_of_order"] for sample in measured)
        yield (
            f"seq repeated or going back: {repeated}; readers at most {max(s.client for s in measured):.0%} of a core; "
            f"others on the servers' core at most {max(s.strangers for s in measured):.0%} of it"
        )
    yield ""
    yield from _aims(samples)


def _row(name: str, samples: Samples) -> list[str]:
    of_one = samples[name]
    ratios = [_shown(ratio(samples, name, other)) for other in (FLOOR, SOCKETIFY)]
    return [
        name,
        spread([sample.frames_per_s for sample in of_one], 0),
        spread([sample.us_per_frame for sample in of_one], 1),
        spread([100 * sample.core for sample in of_one], 0),
        *ratios,
    ]


def ratio(samples: Samples, name: str, other: str) -> float | None:
    """How many times the frames of `other` `name` delivers; None where one of them is missing."""
    pair = ([sample.frames_per_s for sample in samples.get(key, [])] for key in (name, other))
    return median_ratio(*pair)


def cpu_ratio(samples: Samples, name: str, other: str) -> float | None:
    """The same for each second of CPU: what it were if each server had had its core for itself and all of it to do."""
    pair = ([sample.us_per_frame for sample in samples.get(key, [])] for key in (other, name))
    return median_ratio(*pair)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _changes(of_one: list[Sample], sockets: int) -> str:
    seconds = [sample.counted["seconds"] for sample in of_one]
    changes = spread([sample.frames_per_s / sockets for sample in of_one], 1)
    size = statistics.median(sample.counted["bytes"] / max(1, sample.counted["snapshots"]) for sample in of_one)
    others = sum(sample.counted["others"] for sample in of_one)
    return f"{changes} changes a second, {size:.0f} bytes each; {others} other messages in {sum(seconds):.0f} s"


def _aims(samples: Samples) -> Iterator[str]:
    """What the project aims at, and what was reached."""
    rows = [["", "aim", "pushed", "polling", "pushed, by CPU", "polling, by CPU"]]
    for other, aim in AIMS:
        reached = (how(samples, name, other) for how in (ratio, cpu_ratio) for name in (PUSHED, POLLING))
        rows.append([f"gateway / {other}", f"{aim:g}", *map(_shown, reached)])
    yield from aligned(rows)


def latency_lines(samples: list[Sample], sockets: int) -> Iterator[str]:
    """From the first socket that had a change to the last one."""
    counted = [sample.counted for sample in samples]
    head = [f"{sockets} sockets", "p50", "p90", "p99", "max"]
    have = [one["spread_us"] for one in counted if one["spread_us"]]
    cells = [spread([one[name] / 1000 for one in have], 1) for name in head[1:]]
    yield from aligned([head, ["first to last socket of a change, ms", *cells]])
    changes = spread([one["changes"] / one["seconds"] for one in counted], 1)
    used = spread([100 * sample.core for sample in samples], 0)
    yield f"{changes} changes a second on all sockets; the gateway used {used}% of its core"
    yield f"changes not on all of them: {sum(one['incomplete'] for one in counted)}; each window's ends cut two"


def run(options: argparse.Namespace, folder: Path) -> None:
    """Measure and print, with all that it needs started before and stopped after it. Raises Trouble."""
    cores, began = divided_cores(), time.monotonic()
    print(heading("live delivery", seconds=options.seconds, rounds=options.rounds, cores=cores), flush=True)
    program = built(HERE / "fanout.c", folder)
    with running_on(cores.others), SimulatorProcess("--no-limits") as simulator:
        bench = Bench(folder, simulator.url, program, cores, options.seconds)
        if options.latency:
            _run_latency(bench, options)
        else:
            _run_fanout(bench, options)
    print(f"took {time.monotonic() - began:.0f} s")


def _run_latency(bench: Bench, options: argparse.Namespace) -> None:
    sockets, title = options.sockets[0], "ten changes a second"
    samples = [
        bench.measured(bench.gateway(TEN_A_SECOND), sockets, f"{number}/{options.rounds} {title}", "spread")
        for number in range(1, options.rounds + 1)
    ]
    print("\n" + "\n".join(latency_lines(samples, sockets)))


def _run_fanout(bench: Bench, options: argparse.Namespace) -> None:
    for missing in install():
        print(missing, flush=True)
    servers = contestants(bench, write_message(bench), options.only)
    for sockets in options.sockets:
        samples = rounds(bench, servers, sockets, options.rounds)
        print("\n" + "\n".join(lines(samples, sockets)), flush=True)


def main() -> int:
    """Run the command; gives the exit code."""
    options = parsed()
    return commanded("fanout.py", lambda folder: run(options, folder))


if __name__ == "__main__":
    raise SystemExit(main())
