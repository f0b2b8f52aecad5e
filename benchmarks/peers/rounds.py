"""What computes on command: for each line `CASE SECONDS` on stdin a line of JSON on stdout. Standard library only."""

import json
import sys
import time
from collections.abc import Callable, Mapping

Case = Callable[[], object]


def obey(cases: Mapping[str, Case], functions: Mapping[str, int]) -> None:
    """Say first how many `functions` the cases of that name compute; then run what is asked for, until stdin ends."""
    for case in cases.values():
        case()
    print(json.dumps({"functions": functions}), flush=True)
    for line in sys.stdin:
        name, seconds = line.split()
        print(json.dumps(_run(cases[name], float(seconds))), flush=True)


def _run(case: Case, seconds: float) -> dict[str, float]:
    """Run it for so long, at least once."""
    until, before, runs = time.monotonic() + seconds, time.process_time(), 0
    while not runs or time.monotonic() < until:
        case()
        runs += 1
    return {"runs": runs, "cpu_s": time.process_time() - before}
