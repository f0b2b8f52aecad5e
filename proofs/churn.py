"""Prove that clients who come and go leave nothing behind. See README.md; the last line says how many passed."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import ROOT, Gateway, Trouble, asked, built, divided_cores, running_on
from benchmarks.windows import resident_kb, usage_of, warnings_in
from proofs.gauges import Held, held, seconds_until
from proofs.verdict import Verdict, proved
from server.simulator.child import SimulatorProcess

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
PATHS = tuple(f"/ws/positions/{symbol}?interval={interval}" for symbol in SYMBOLS for interval in (5, 0))
AT_ONCE = 256
WARM_UP = 2000
"""Connections before the first look: what the first ones bring is there for good."""
SLOWEST_PER_S = 100
"""At fewer connections a second the clients are given up."""
BACK_S = 20.0
SPARE_DESCRIPTORS = 5
SPARE_THREADS = 4
KEPT_KB = 32 * 1024
CRASHES = ("job_crashed", "session_crashed", "connection_crashed", "asker_crashed", "farewell_failed")


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="churn.py", description="Clients come and go, half of them by reset.")
    parser.add_argument("--connections", type=int, default=100_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--patience", type=float, default=1.0, metavar="N", help="times what is allowed (%(default)s)")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, folder: Path, verdict: Verdict) -> None:
    """Have clients come and go, and look at what is left of them."""
    program, cores = built(ROOT / "benchmarks" / "churn.c", folder), divided_cores()
    with SimulatorProcess("--no-limits") as simulator, ExitStack() as stack:
        gateway = Gateway(simulator.url, folder / "gateway.log")
        with running_on(cores.gateway):
            stack.enter_context(gateway)
        stack.enter_context(running_on(cores.others))
        churned(program, gateway, WARM_UP)
        before = _at_rest(gateway)
        used = usage_of(gateway.pid)
        counted = churned(program, gateway, options.connections)
        used = usage_of(gateway.pid).since(used)
        _came(verdict, options, counted, used.loop_s + used.threads_s)
        _left(verdict, options, gateway, before)
        _said(verdict, gateway)


def churned(program: Path, gateway: Gateway, count: int) -> dict[str, Any]:
    """What came of so many connections. Raises Trouble where they take far too long."""
    command = [str(program), str(gateway.port), str(count), str(AT_ONCE), *PATHS]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60 + count / SLOWEST_PER_S)
    except subprocess.SubprocessError as error:
        raise Trouble(f"the clients failed: {error}") from error
    counted: dict[str, Any] = json.loads(done.stdout)
    return counted


def _held(gateway: Gateway) -> Held:
    return held(gateway.pid, gateway.url)


def _at_rest(gateway: Gateway) -> Held:
    """What the gateway holds once the first clients have gone. Raises Trouble where they stay."""
    if seconds_until(lambda: _held(gateway).sockets == 0, BACK_S) is None:
        raise Trouble(f"the first clients have gone, and the gateway still has {_held(gateway)}")
    time.sleep(1.0)
    return _held(gateway)


def _came(verdict: Verdict, options: argparse.Namespace, counted: dict[str, Any], cpu_s: float) -> None:
    count, per_s = counted["connections"], counted["connections"] / counted["seconds"]
    failed = {name: counted[name] for name in ("refused", "lost", "overdue")}
    seen = (
        f"{count} in {counted['seconds']:.1f} s, {per_s:.0f} a second, {1e6 * cpu_s / count:.0f} µs CPU each; "
        f"{counted['resets']} by reset; left when {counted['left']}; {failed}; "
        f"first snapshot after {counted['first_us']['p50'] / 1000:.0f} ms (p50)"
    )
    is_whole = count == options.connections and sum(counted["left"].values()) == count
    verdict.add("everybody gets as far as he wants to", is_whole and not any(failed.values()), seen)


def _left(verdict: Verdict, options: argparse.Namespace, gateway: Gateway, before: Held) -> None:
    """What is left once the last client has gone; memory too has that long to come back."""

    def is_back() -> bool:
        now = _held(gateway)
        return (now.sockets, now.sessions) == (0, 0) and now.descriptors <= before.descriptors + SPARE_DESCRIPTORS

    began_at = time.monotonic()
    back_s = seconds_until(is_back, BACK_S)
    after = _held(gateway)
    seen = f"{after.sockets}, {after.sessions} and {before.descriptors} → {after.descriptors}"
    seen += "" if back_s is None else f", after {back_s:.1f} s"
    verdict.add(f"sockets, sessions and descriptors are back within {BACK_S:g} s", back_s is not None, seen)
    are_few = after.threads <= before.threads + SPARE_THREADS
    verdict.add("threads are as many as before", are_few, f"{before.threads} → {after.threads}")
    most_kb = before.resident_kb + KEPT_KB * options.patience
    left_s = max(0.0, began_at + BACK_S - time.monotonic())
    is_small = seconds_until(lambda: resident_kb(gateway.pid) <= most_kb, left_s) is not None
    now_kb = resident_kb(gateway.pid)
    seen = f"{before.resident_kb / 1000:.1f} → {now_kb / 1000:.1f} MB"
    seen += f", {1000 * (now_kb - before.resident_kb) / options.connections:.0f} bytes a connection"
    verdict.add(f"memory is back but for {KEPT_KB // 1024} MiB", is_small, seen)


def _said(verdict: Verdict, gateway: Gateway) -> None:
    answer = asked(f"{gateway.url}/price/BTCUSDT?require_fresh=1")
    verdict.add("it answers", answer["stale"] is False, f"{answer['age_ms']} ms old")
    said = warnings_in(gateway.log, 0)
    crashes = Counter({event: count for event, count in said.items() if event.split()[0] in CRASHES})
    lines = ", ".join(f"{count} {event}" for event, count in said.most_common(5)) or "nothing"
    verdict.add(
        "nothing has crashed", not crashes and "Traceback" not in gateway.log.read_text(), f"its log says {lines}"
    )


def main() -> int:
    options = parsed()
    return proved("churn.py", lambda folder, verdict: run(options, folder, verdict))


if __name__ == "__main__":
    sys.exit(main())
