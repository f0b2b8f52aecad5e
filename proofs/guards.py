"""Prove that each guard is held by a test: take it away, and the test turns red. See README.md.

The list is guards.toml. All of it happens in a copy of the project in a temporary folder.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import ROOT, Trouble
from benchmarks.windows import count_up
from proofs.verdict import Verdict, proved

LIST = Path(__file__).with_suffix(".toml")
COPIED = ("server", "tests", "examples", "deploy", "benchmarks", "proofs", "docs")
UNWANTED = shutil.ignore_patterns("__pycache__", "node_modules", ".venv*", ".hypothesis")
TESTED_S = 300.0
RED = 1
"""What pytest exits with where a test failed: every other code means that it could not even look."""


class Guard(NamedTuple):
    """`text`, which stands once in `file`, becomes `without`; some of `tests` must fail then."""

    title: str
    file: str
    text: str
    without: str
    tests: tuple[str, ...]

    def is_there(self, place: Path = ROOT) -> bool:
        """Whether the text stands exactly once where it is looked for."""
        return (place / self.file).read_text().count(self.text) == 1


def guards() -> list[Guard]:
    """The list, in its order."""
    return [Guard(**{**entry, "tests": tuple(entry["tests"])}) for entry in tomllib.loads(LIST.read_text())["guard"]]


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="guards.py", description="Whether a test turns red without each guard.")
    parser.add_argument("--only", default="", metavar="WORD", help="guards with this in their title or file")
    return parser.parse_args(arguments)


def copy_of_project(folder: Path) -> Path:
    """What the tests need of it."""
    place = folder / "project"
    place.mkdir()
    for name in COPIED:
        shutil.copytree(ROOT / name, place / name, ignore=UNWANTED)
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy2(file, place)
    return place


def code_of(place: Path, tests: tuple[str, ...]) -> int:
    """The exit code of the tests over there: 0 for green. Raises Trouble where they do not end."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        return subprocess.run(command, cwd=place, capture_output=True, check=False, timeout=TESTED_S).returncode
    except subprocess.TimeoutExpired:
        raise Trouble(f"{' '.join(tests)} did not end in {TESTED_S:g} s") from None


def judge(guard: Guard, place: Path, verdict: Verdict) -> None:
    """Take `guard` away, look at its tests, and put it back."""
    if not guard.is_there(place):
        verdict.add(guard.title, held=False, seen=f"its text does not stand exactly once in {guard.file}")
        return
    file = place / guard.file
    whole = file.read_text()
    try:
        file.write_text(whole.replace(guard.text, guard.without))
        code = code_of(place, guard.tests)
    finally:
        file.write_text(whole)
    seen = {0: "the tests stay green", RED: "red without it"}.get(code, f"the tests could not run: code {code}")
    verdict.add(guard.title, held=code == RED, seen=seen)


def run(options: argparse.Namespace, folder: Path, verdict: Verdict) -> None:
    """Green with all of them first, then one after the other away. Raises Trouble."""
    chosen = [guard for guard in guards() if options.only in guard.title or options.only in guard.file]
    place, began = copy_of_project(folder), time.monotonic()
    tests = tuple(dict.fromkeys(test for guard in chosen for test in guard.tests))
    verdict.add("with all guards", held=(code := code_of(place, tests)) == 0, seen=f"pytest's code is {code}")
    for guard in count_up("guards", chosen, len(chosen)):
        judge(guard, place, verdict)
    print(f"{len(chosen)} guards taken away, one at a time, in {time.monotonic() - began:.0f} s")


def main() -> int:
    """Run the command; gives the exit code."""
    options = parsed()
    return proved("guards.py", lambda folder, verdict: run(options, folder, verdict))


if __name__ == "__main__":
    raise SystemExit(main())
