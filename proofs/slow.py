"""Prove that readers who stop reading are closed in time, and cost the others nothing. See README.md."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import LATE_S, ROOT, Clients, Gateway, Readers, Trouble, built, divided_cores, running_on
from benchmarks.windows import resident_kb
from proofs.gauges import Held, Orphans, allow_descriptors, held, orphans, seconds_until
from proofs.verdict import Verdict, proved
from server.realtime.farewell import CLOSE_S
from server.settings import WebSocketSettings
from server.simulator.child import SimulatorProcess

PATH = "/ws/positions/BTCUSDT?interval=0"
PUSHED = "benchmarks/pushed.py"
RECEIVE_BYTES = 4096
"""SO_RCVBUF of the stalled: what they do not read soon waits in the gateway."""
WARM_UP_S = 2.0
WINDOW_S = 1.0
AFTER_S = 2.0
"""How much longer than the stalled may take the others are looked at."""
LIMIT_S = WebSocketSettings().slow_limit_s
TOO_SLOW = 4408
SLOWER = 1.10
LATEST_MS = 1000
STATE_KB = 160
"""A socket's high water (64 kB), the frame that went over it, and the session."""
BACK_S = 20.0
SPARE_DESCRIPTORS = 5
KEPT_KB = 4
"""Of a socket that was closed."""
SPARE_KB = 2048


class Stalled(Clients):
    """Sockets that read their first message and then nothing more, by stall.c."""

    def __init__(self, program: Path, port: int, count: int) -> None:
        super().__init__([str(program), str(port), str(count), str(RECEIVE_BYTES), PATH])

    def found(self, within_s: float) -> dict[str, Any]:
        """Have them read again, up to each one's end, and say what they found there."""
        self._say(f"read {within_s:g}")
        return self._answer(within_s + LATE_S)


class Look(NamedTuple):
    """One window: times as in logs, latency of each delivery from the first socket that had the change, and memory."""

    began_at: float
    ended_at: float
    p50_ms: float
    p99_ms: float
    most_ms: float
    resident_kb: int
    counted: dict[str, Any]


class End(NamedTuple):
    """One socket's end, from the gateway's log."""

    at: float
    code: int
    duration_s: float


class Scene(NamedTuple):
    """What is looked at."""

    gateway: Gateway
    folder: Path
    options: argparse.Namespace

    @property
    def healthy(self) -> int:
        """How many readers read."""
        return int(self.options.sockets - self.options.stalled)

    def held(self) -> Held:
        return held(self.gateway.pid, self.gateway.url)

    def readers(self) -> Readers:
        return Readers(self.folder / "fanout", self.gateway.port, self.healthy, [PATH])

    def stalled(self) -> Stalled:
        return Stalled(self.folder / "stall", self.gateway.port, self.options.stalled)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="slow.py", description="Some readers stop reading.")
    parser.add_argument("--sockets", type=int, default=5000, metavar="N", help="all of them (%(default)s)")
    parser.add_argument("--stalled", type=int, default=1000, metavar="N", help="of these (%(default)s)")
    parser.add_argument("--per-second", type=float, default=10.0, metavar="N", help="frames (%(default)s)")
    parser.add_argument(
        "--coins", type=int, default=60, metavar="N", help="of the account: 150 bytes each (%(default)s)"
    )
    parser.add_argument("--seconds", type=int, default=10, metavar="S", help="of calm between (%(default)s)")
    parser.add_argument("--within", type=float, default=10.0, metavar="S", help="they have to be closed (%(default)s)")
    parser.add_argument("--patience", type=float, default=1.0, metavar="N", help="times what is allowed (%(default)s)")
    options = parser.parse_args(arguments)
    if not 0 < options.stalled < options.sockets <= 10_000:
        parser.error("--sockets is up to 10000, --stalled less")
    return options


def run(options: argparse.Namespace, folder: Path, verdict: Verdict) -> None:
    """Have some readers stop, and look at them, at the others, and at the gateway."""
    for name in ("fanout", "stall"):
        built(ROOT / "benchmarks" / f"{name}.c", folder)
    allow_descriptors(options.sockets + 1000)
    cores = divided_cores()
    settings = {
        "PUSHED_PER_S": f"{options.per_second:g}",
        "PUSHED_COINS": str(options.coins),
        "LOG_LEVEL": "info",
    }
    with SimulatorProcess("--no-limits") as simulator, ExitStack() as stack:
        gateway = Gateway(simulator.url, folder / "gateway.log", PUSHED, settings=settings)
        with running_on(cores.gateway):
            stack.enter_context(gateway)
        stack.enter_context(running_on(cores.others))
        _prove(Scene(gateway, folder, options), verdict)


def _prove(scene: Scene, verdict: Verdict) -> None:
    options = scene.options
    with scene.readers() as healthy:
        time.sleep(WARM_UP_S)
        empty = scene.held()
        with scene.stalled():
            first = _looks_until_gone(scene, healthy)
        before, log_bytes = _settled(scene), scene.gateway.log.stat().st_size
        alone = [_look(scene, healthy) for _ in range(options.seconds)]
        with scene.stalled() as stopped:
            looks = _looks_until_gone(scene, healthy)
            ends, kept = ends_in(scene.gateway.log.read_bytes()[log_bytes:]), orphans(scene.gateway.port)
            found = stopped.found(5.0)
        _closed(verdict, options, ends, found, looks)
        _others(verdict, scene, ends, alone, looks)
        _state(verdict, scene, (max(look.resident_kb for look in first) - empty.resident_kb) / options.stalled)
        _back(verdict, scene, empty, before)
        _kernel(verdict, kept)


def _settled(scene: Scene) -> Held:
    """What the gateway holds once the stalled have gone. Raises Trouble where they stay."""
    if seconds_until(lambda: scene.held().sockets == scene.healthy, BACK_S) is None:
        raise Trouble(f"those who stalled have gone, and the gateway still has {scene.held()}")
    return scene.held()


def _looks_until_gone(scene: Scene, healthy: Readers) -> list[Look]:
    """Windows until the gateway has closed the stalled, and a few more; not much longer than it may take."""
    looks: list[Look] = []
    most = round(scene.options.within * scene.options.patience + AFTER_S)
    while len(looks) < most and scene.held().sockets > scene.healthy:
        looks.append(_look(scene, healthy))
    return looks + [_look(scene, healthy) for _ in range(round(AFTER_S / WINDOW_S))]


def _look(scene: Scene, healthy: Readers) -> Look:
    began_at = time.time()
    healthy.begin(WINDOW_S, "spread")
    counted = healthy.counted(WINDOW_S)
    if (delivery := counted["delivery_us"]) is None:
        raise Trouble(f"the healthy readers had nothing in {WINDOW_S:g} s: {counted}")
    p50, p99, most = (delivery[name] / 1000 for name in ("p50", "p99", "max"))
    return Look(began_at, time.time(), p50, p99, most, resident_kb(scene.gateway.pid), counted)


def ends_in(log: bytes) -> list[End]:
    """Each socket's end that `log` tells of, in its order."""
    lines = [json.loads(line) for line in log.splitlines()]
    return [
        End(datetime.fromisoformat(line["timestamp"]).timestamp(), line["code"], line["duration_s"])
        for line in lines
        if line["event"] == "connection_ended"
    ]


def _closed(
    verdict: Verdict, options: argparse.Namespace, ends: list[End], found: dict[str, Any], looks: list[Look]
) -> None:
    codes = Counter(end.code for end in ends)
    durations = sorted(end.duration_s for end in ends) or [0.0]
    frame_kb = looks[0].counted["bytes"] / max(1, looks[0].counted["snapshots"]) / 1000
    verdict.add(
        f"all {options.stalled} that stop reading are closed with {TOO_SLOW} within {options.within:g} s",
        codes == {TOO_SLOW: options.stalled} and durations[-1] <= options.within * options.patience,
        f"{dict(codes)}, {durations[0]:.1f} to {durations[-1]:.1f} s after they came, "
        f"at {options.per_second:g} frames of {frame_kb:.1f} kB a second",
    )
    seen = f"{found['ended']} ended, {found['reset']} reset, {found['open']} open, {found['bytes'] // 1000} kB to read"
    verdict.add("each finds its end when it reads again", found["open"] == 0, seen)


def _others(verdict: Verdict, scene: Scene, ends: list[End], alone: list[Look], looks: list[Look]) -> None:
    allowed, every = SLOWER * scene.options.patience, [*alone, *looks]
    lost = scene.healthy - every[-1].counted["open"]
    wrong = sum(look.counted["out_of_order"] + look.counted["errors"] for look in every)
    verdict.add("none of the others is lost", lost == 0 and wrong == 0, f"{lost} lost, {wrong} times a wrong seq")
    while_stalled = stalled_in(looks, ends)
    for name in ("p50_ms", "p99_ms"):
        calm, stalled = (median_of(of, name) for of in (alone, while_stalled))
        held = bool(while_stalled) and stalled <= calm * allowed
        seen = f"{calm:.1f} → {stalled:.1f} ms, medians of {len(alone)} and {len(while_stalled)} windows of a second"
        verdict.add(f"while they stall the others' {name[:3]} is within {SLOWER - 1:.0%}", held, seen)
    most = max(look.most_ms for look in looks)
    seen = f"{most:.0f} ms at most, worst p50 and p99 of a second {worst(looks)}; before {worst(alone)}"
    verdict.add(
        "nor do they wait long while buffers fill and sockets close", most <= LATEST_MS * scene.options.patience, seen
    )


def stalled_in(looks: list[Look], ends: list[End]) -> list[Look]:
    """The windows in which all the stalled had full buffers, and none was being closed."""
    if not ends:
        return []
    full_at = max(end.at for end in ends) - CLOSE_S - LIMIT_S
    until = min(end.at for end in ends) - CLOSE_S
    return [look for look in looks if look.began_at >= full_at and look.ended_at <= until]


def median_of(looks: list[Look], name: str) -> float:
    return statistics.median(getattr(look, name) for look in looks) if looks else float("nan")


def worst(looks: list[Look]) -> str:
    return f"{max(look.p50_ms for look in looks):.0f} and {max(look.p99_ms for look in looks):.0f} ms"


def _state(verdict: Verdict, scene: Scene, state_kb: float) -> None:
    held = state_kb <= STATE_KB * scene.options.patience
    verdict.add(f"their state is at most {STATE_KB} kB each", held, f"{state_kb:.0f} kB resident each while they stall")


def _back(verdict: Verdict, scene: Scene, empty: Held, before: Held) -> None:
    """What is left: of memory by those who stalled second, since the heap of the first ones may be kept for them."""

    def is_back() -> bool:
        now = scene.held()
        return now.sockets == scene.healthy and now.descriptors <= before.descriptors + SPARE_DESCRIPTORS

    back_s, stalled = seconds_until(is_back, BACK_S), scene.options.stalled
    after = scene.held()
    seen = f"{before.sockets} → {after.sockets} and {before.descriptors} → {after.descriptors}"
    verdict.add("sockets and descriptors are back", back_s is not None, seen)
    allowed_kb = SPARE_KB + KEPT_KB * stalled
    most_kb = before.resident_kb + allowed_kb * scene.options.patience
    is_small = seconds_until(lambda: resident_kb(scene.gateway.pid) <= most_kb, BACK_S) is not None
    now_kb = resident_kb(scene.gateway.pid)
    verdict.add(
        f"memory is back but for {allowed_kb / 1000:.1f} MB",
        is_small,
        f"{empty.resident_kb / 1000:.1f} → {before.resident_kb / 1000:.1f} MB by the first {stalled}, "
        f"→ {now_kb / 1000:.1f} MB by the second, {(now_kb - before.resident_kb) / stalled:.1f} kB of each",
    )


def _kernel(verdict: Verdict, kept: Orphans) -> None:
    seen = f"{kept.connections} connections with {kept.unsent_kb / 1000:.1f} MB that nobody reads"
    verdict.add("nor does the kernel keep anything of them", kept.connections == 0, seen)


def main() -> int:
    options = parsed()
    return proved("slow.py", lambda folder, verdict: run(options, folder, verdict))


if __name__ == "__main__":
    sys.exit(main())
