"""Prove that the gateway answers as its OpenAPI document says, whatever it is asked. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import urllib.request
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import Gateway, Trouble
from proofs.verdict import Verdict, proved
from server.simulator.child import SimulatorProcess

FOLDER = Path(__file__).with_name("schemathesis")
VENV = FOLDER / ".venv-schemathesis"
PYTHON = VENV / "bin" / "python"
REQUIREMENTS = FOLDER / "requirements.txt"
INSTALL_S = 600.0
GRACE_S = 60.0
"""How much longer than its own bound schemathesis may take."""
SHOWN = 1500
TOKEN = "a-token-for-the-proof-0123456789"
LEFT_OUT = "positive_data_acceptance"
"""What fits the schema may be refused: names of indicators and symbols that do not exist, or more than there is."""


def install() -> None:
    """Have schemathesis beside this file, as pinned, unless it is there. Raises Trouble."""
    wanted, stamp = REQUIREMENTS.read_text(), VENV / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("installing schemathesis into", VENV, flush=True)
    pip = (str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "-r", str(REQUIREMENTS))
    for command in ((sys.executable, "-m", "venv", str(VENV)), pip):
        try:
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=INSTALL_S)
        except subprocess.CalledProcessError as error:
            raise Trouble(f"schemathesis cannot be installed: {error.stderr.strip()[-300:]}") from error
        except subprocess.TimeoutExpired as error:
            raise Trouble(f"schemathesis cannot be installed in {INSTALL_S:g} s") from error
    stamp.write_text(wanted)


def run(options: argparse.Namespace, folder: Path, verdict: Verdict) -> None:
    """Ask a gateway of its own everything that its document allows, and much that it does not."""
    install()
    report, settings = folder / "report.xml", {"GATEWAY_TOKENS": TOKEN}
    with (
        SimulatorProcess("--no-limits") as simulator,
        Gateway(simulator.url, folder / "gateway.log", settings=settings) as gateway,
    ):
        operations = _fetch(gateway, folder / "openapi.json")
        said = _ask(gateway, report, options, folder)
        if not report.exists():
            raise Trouble(f"schemathesis gave no report: {said[-SHOWN:]}")
        asked = _judge(report, verdict)
        verdict.add("every operation is asked", asked == operations, f"{len(asked)} of {len(operations)}")
        crashed = [line for line in gateway.log.read_text().splitlines() if "crashed" in line]
        verdict.add("no bug of the gateway's", not crashed, crashed[0][:SHOWN] if crashed else "none in its log")


def _fetch(gateway: Gateway, file: Path) -> set[str]:
    """Write the gateway's document into `file`, with looser tuples; gives the names of its operations.

    Schemathesis 4.32 rewrites prefixItems in the words of draft 7 while it invents requests, and then refuses its own
    rewriting as no schema of OpenAPI 3.1. The tests hold real candles to the document as it is.
    """
    request = urllib.request.Request(f"{gateway.url}/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        document = json.load(response)
    loosened = _without_tuples(document)
    file.write_text(json.dumps(loosened))
    if loosened != document:
        print("note    for schemathesis, tuples (candles) are arrays of any of their types; tests hold them strictly")
    return {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}


def _without_tuples(part: Any) -> Any:
    if isinstance(part, list):
        return [_without_tuples(each) for each in part]
    if not isinstance(part, dict):
        return part
    if (places := part.get("prefixItems")) is None:
        return {name: _without_tuples(value) for name, value in part.items()}
    return {**{name: value for name, value in part.items() if name != "prefixItems"}, "items": {"anyOf": places}}


def _ask(gateway: Gateway, report: Path, options: argparse.Namespace, folder: Path) -> str:
    """What schemathesis says of the gateway; whatever it writes is in `folder`."""
    command = (
        *(str(VENV / "bin" / "schemathesis"), "run", str(folder / "openapi.json"), "--url", gateway.url),
        *("--header", f"Authorization: Bearer {TOKEN}", "--exclude-checks", LEFT_OUT),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", str(options.examples)),
        *("--seed", str(options.seed), "--max-time", str(options.seconds), "--continue-on-failure", "--no-color"),
        *("--generation-database", "none", "--report-junit-path", str(report)),
    )
    try:
        ended = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=options.seconds + GRACE_S,
        )
    except subprocess.TimeoutExpired as error:
        raise Trouble(f"schemathesis took over {options.seconds + GRACE_S:g} s") from error
    print(*ended.stdout.splitlines()[-12:], sep="\n", flush=True)
    return ended.stdout + ended.stderr


def _judge(report: Path, verdict: Verdict) -> set[str]:
    """One statement for each operation that was asked; gives their names."""
    asked: set[str] = set()
    for case in ET.parse(report).getroot().iter("testcase"):
        wrong = [*case.iter("failure"), *case.iter("error")]
        seen = "as it says" if not wrong else f"{wrong[0].get('message')} {wrong[0].text or ''}".strip()[:SHOWN]
        name = case.get("name", "?")
        verdict.add(name, not wrong, seen)
        if case.find("skipped") is None:
            asked.add(name)
    return asked


def parsed() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100, help="requests invented for each operation (100)")
    parser.add_argument("--seconds", type=int, default=240, help="the longest that all of it takes (240)")
    parser.add_argument("--seed", type=int, default=1, help="what is invented depends on this (1)")
    return parser.parse_args()


def main() -> int:
    options = parsed()
    return proved("openapi.py", lambda folder, verdict: run(options, folder, verdict))


if __name__ == "__main__":
    sys.exit(main())
