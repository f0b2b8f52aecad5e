"""The verdict of a proof: what passed and what failed, and the command's exit code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.processes import ROOT, commanded

LOAD = ROOT / "benchmarks" / "load.c"


class Verdict:
    """Counts what was looked at; one line for each that is worth a line."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def count(self, *, held: bool) -> None:
        """Count one."""
        self.passed, self.failed = self.passed + held, self.failed + (not held)

    def add(self, statement: str, held: bool, seen: str) -> None:
        """Print and count one statement, with what was seen."""
        self.count(held=held)
        print(f"{'ok    ' if held else 'FAILED'}  {statement}: {seen}", flush=True)


def proved(name: str, work: Callable[[Path, Verdict], None]) -> int:
    """The exit code of a proof's command: 0 only where all held. Its last line says how many did."""
    verdict = Verdict()
    code = commanded(name, lambda folder: work(folder, verdict))
    print(f"{verdict.passed} passed, {verdict.failed} failed")
    return code or int(verdict.failed > 0 or not verdict.passed)
