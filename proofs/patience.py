"""Prove that clients who take their time, with heads, bodies and answers, take none of the others'. See README.md."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import (
    ROOT,
    Clients,
    Gateway,
    Requests,
    Sockets,
    Trouble,
    asked,
    built,
    divided_cores,
    running_on,
)
from benchmarks.windows import resident_kb
from proofs.gauges import Held, allow_descriptors, descriptors, held, seconds_until
from proofs.verdict import LOAD, Verdict, proved
from server.simulator.child import SimulatorProcess

LINGER = ROOT / "benchmarks" / "linger.c"
KINDS = {
    "head": "/price/BTCUSDT",
    "body": "/indicators",
    "answer": "/klines/BTCUSDT?interval=1&limit=1000",
}
"""What the slow ones are slow with, and what they ask for."""
PAUSE_MS = 1000
"""How long they wait before each byte."""
PATHS = ("/price/BTCUSDT", "/indicators/BTCUSDT", "/klines/ETHUSDT?interval=5&limit=5", "/balance?max_age_ms=5000")
NEW_PATH = "/price/ETHUSDT"
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
RATE = 200
NEW_PAUSE_S = 0.1
NEW_S = 2.0
"""How long a request over a new connection may take."""
WARM_UP_S = 2.0
IN_S = 5.0
SERVED = 0.999
IN = 0.95
"""Of those that come: who was sent away is not back yet."""
BACK_S = 45.0
"""Within which the descriptors of those that have gone have to be back."""
SPARE_DESCRIPTORS = 40
KEPT_KB = 4
"""Of a slow connection that was closed."""
SPARE_KB = 8192
CRASHES = ("crashed", "Traceback")


class Lingering(Clients):
    """Connections that are slow with one thing, by linger.c."""

    def __init__(self, program: Path, port: int, count: int, kind: str) -> None:
        super().__init__([str(program), str(port), str(count), kind, str(PAUSE_MS), KINDS[kind]])

    def count(self) -> dict[str, Any]:
        """How many are there, how many were sent away, and how long these had stayed."""
        self._say("count")
        return self._answer(10.0)


class New(NamedTuple):
    """Requests over connections of their own."""

    asked: int
    failed: int
    slowest_s: float


class Look(NamedTuple):
    """What the healthy clients had of one window."""

    requests: dict[str, Any]
    sockets: dict[str, Any]
    new: New

    @property
    def p99_ms(self) -> float:
        """Of the slowest of the paths."""
        return max(float(latency["p99"]) for latency in self.requests["latency_us"].values() if latency) / 1000


class Scene(NamedTuple):
    """What is looked at."""

    gateway: Gateway
    folder: Path
    options: argparse.Namespace

    def held(self) -> Held:
        return held(self.gateway.pid, self.gateway.url)

    def lingering(self, stack: ExitStack) -> dict[str, Lingering]:
        """As many of each kind as are asked for, all connected."""
        count, port = self.options.slow, self.gateway.port
        return {kind: stack.enter_context(Lingering(self.folder / "linger", port, count, kind)) for kind in KINDS}


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="patience.py", description="Many clients take their time.")
    parser.add_argument("--slow", type=int, default=2000, metavar="N", help="of each kind (%(default)s)")
    parser.add_argument("--sockets", type=int, default=200, metavar="N", help="that read (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, metavar="S", help="of each window (%(default)s)")
    parser.add_argument("--patience", type=float, default=1.0, metavar="N", help="times what is allowed (%(default)s)")
    options = parser.parse_args(arguments)
    if not 0 < options.slow <= 9000:
        parser.error("--slow is from 1 to 9000: one address has some 28,000 ports")
    return options


def run(options: argparse.Namespace, folder: Path, verdict: Verdict) -> None:
    """Have many clients take their time, and look at the others, and at what is left."""
    built(LOAD, folder)
    built(LINGER, folder)
    allow_descriptors(len(KINDS) * options.slow + options.sockets + 1000)
    cores = divided_cores()
    with SimulatorProcess("--no-limits") as simulator, ExitStack() as stack:
        gateway = Gateway(simulator.url, folder / "gateway.log")
        with running_on(cores.gateway):
            stack.enter_context(gateway)
        stack.enter_context(running_on(cores.others))
        _prove(Scene(gateway, folder, options), verdict)


def _prove(scene: Scene, verdict: Verdict) -> None:
    options = scene.options
    for path in (*PATHS, NEW_PATH, KINDS["answer"]):
        asked(scene.gateway.url + path)
    with Sockets(scene.folder / "load", scene.gateway.port, options.sockets, 1.0, SYMBOLS) as sockets:
        time.sleep(WARM_UP_S)
        empty, calm = scene.held(), _look(scene, sockets)
        # What only the first ones bring, a larger heap, is not held against those who come second.
        with ExitStack() as first:
            scene.lingering(first)
            time.sleep(options.seconds / 2)
        before = _settled(scene, empty)
        with ExitStack() as second:
            slow = scene.lingering(second)
            _came(verdict, scene, before)
            look = _look(scene, sockets)
            counts = {kind: clients.count() for kind, clients in slow.items()}
            most_kb = resident_kb(scene.gateway.pid)
        _served(verdict, calm, look)
        for kind, count in counts.items():
            _tell(kind, count)
        _back(verdict, scene, empty, before, most_kb)
    _said(verdict, scene.gateway)


def _look(scene: Scene, sockets: Sockets) -> Look:
    seconds, port = scene.options.seconds, scene.gateway.port
    with Requests(scene.folder / "load", port, RATE, seconds, PATHS) as requests:
        sockets.begin(seconds)
        new = _newcomers(scene.gateway.url + NEW_PATH, seconds)
        return Look(requests.result(seconds), sockets.counted(seconds), new)


def _newcomers(url: str, seconds: float) -> New:
    """Ask over one new connection after the other."""
    count, failed, slowest_s, until = 0, 0, 0.0, time.monotonic() + seconds
    while (began_at := time.monotonic()) < until:
        count += 1
        try:
            asked(url, timeout_s=NEW_S)
        except Trouble:
            failed += 1
        slowest_s = max(slowest_s, time.monotonic() - began_at)
        time.sleep(NEW_PAUSE_S)
    return New(count, failed, slowest_s)


def _settled(scene: Scene, empty: Held) -> Held:
    """What the gateway holds once the first ones have gone. Raises Trouble where they stay."""
    most = empty.descriptors + SPARE_DESCRIPTORS
    if seconds_until(lambda: descriptors(scene.gateway.pid) <= most, BACK_S * scene.options.patience) is None:
        raise Trouble(f"the first slow ones have gone, and the gateway still has {scene.held()}, before {empty}")
    return scene.held()


def _came(verdict: Verdict, scene: Scene, before: Held) -> None:
    """That they are all there: else nothing would be proved."""
    wanted = round(IN * len(KINDS) * scene.options.slow)
    most = 0

    def are_in() -> bool:
        nonlocal most
        most = max(most, descriptors(scene.gateway.pid) - before.descriptors)
        return most >= wanted

    is_in = seconds_until(are_in, IN_S) is not None
    verdict.add(f"{scene.options.slow} of each kind are in at the same time", is_in, f"{most} connections more")


def _served(verdict: Verdict, calm: Look, look: Look) -> None:
    requests, sockets, new = look.requests, look.sockets, look.new
    fine = requests["statuses"].get("200", 0) / requests["requests"]
    seen = f"{fine:.2%} of {requests['requests']}, {requests['statuses']}, {requests['failed']} failed; "
    seen += f"p99 {calm.p99_ms:.1f} ms without them, {look.p99_ms:.1f} ms with them"
    verdict.add(f"{SERVED:.1%} of the others' requests are answered", fine >= SERVED, seen)
    share = 1 - new.failed / new.asked
    seen = f"{share:.2%} of {new.asked}; the slowest {1000 * calm.new.slowest_s:.0f} ms without them, "
    seen += f"{1000 * new.slowest_s:.0f} ms with them"
    verdict.add("so are those over new connections", share >= SERVED, seen)
    on_time = sockets["on_time"] / sockets["due"]
    is_whole = sockets["open"] == sockets["sockets"] and not sockets["protocol_errors"]
    late = [f"{of.sockets['late_us']['p99'] / 1000:.1f}" for of in (calm, look)]
    seen = f"{on_time:.2%} of {sockets['due']}, {sockets['open']} of {sockets['sockets']} sockets open; "
    seen += f"p99 late by {late[0]} ms without them, {late[1]} ms with them"
    verdict.add("and as many of the snapshots come in time", is_whole and on_time >= SERVED, seen)


def _tell(kind: str, count: dict[str, Any]) -> None:
    """How the slow ones fared, which nothing is held against: a gateway in front may be as patient as it likes."""
    lasted, away = count["lasted_us"], count["ended"] + count["reset"]
    stayed = (
        "" if lasted is None else f" after {lasted['p50'] / 1e6:.1f} s (median), {lasted['max'] / 1e6:.1f} s (most)"
    )
    said = count["statuses"] or "no status"
    print(f"        slow {kind}: {count['open']} there, {away} times sent away{stayed}; {said}")


def _back(verdict: Verdict, scene: Scene, empty: Held, before: Held, most_kb: int) -> None:
    """What is left: of memory by those who came second, since the heap of the first ones may be kept for them."""
    pid, slow = scene.gateway.pid, len(KINDS) * scene.options.slow
    most = before.descriptors + SPARE_DESCRIPTORS
    back_s = seconds_until(lambda: descriptors(pid) <= most, BACK_S * scene.options.patience)
    after = scene.held()
    seen = f"{before.descriptors} → {after.descriptors}" + ("" if back_s is None else f", after {back_s:.1f} s")
    verdict.add("descriptors are back", back_s is not None, seen)
    allowed_kb = SPARE_KB + KEPT_KB * slow
    limit_kb = before.resident_kb + allowed_kb * scene.options.patience
    is_small = seconds_until(lambda: resident_kb(pid) <= limit_kb, BACK_S) is not None
    seen = f"{empty.resident_kb / 1000:.1f} → {before.resident_kb / 1000:.1f} MB by the first {slow}, "
    seen += f"→ {resident_kb(pid) / 1000:.1f} MB by the second; {most_kb / 1000:.1f} MB with them"
    verdict.add(f"memory is back but for {allowed_kb / 1000:.1f} MB", is_small, seen)


def _said(verdict: Verdict, gateway: Gateway) -> None:
    lines = [line for line in gateway.log.read_text().splitlines() if any(word in line for word in CRASHES)]
    verdict.add("nothing has crashed", not lines, f"{len(lines)} lines say so{''.join(lines[:1])[:300]}")


def main() -> int:
    options = parsed()
    return proved("patience.py", lambda folder, verdict: run(options, folder, verdict))


if __name__ == "__main__":
    sys.exit(main())
