"""The simulator as a child process: it starts, says where, agrees with its like, and always ends."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from urllib.request import Request, urlopen

import pytest

from server.simulator.child import ROOT, SimulatorProcess

from .conftest import NOW_MS


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[SimulatorProcess, SimulatorProcess]]:
    """Two processes of the same seed, frozen at the same instant."""
    with SimulatorProcess("--control", "--seed", "5") as one, SimulatorProcess("--control", "--seed", "5") as other:
        for process in (one, other):
            body = json.dumps({"freeze_ms": NOW_MS}).encode()
            with urlopen(Request(process.url + "/_control/clock", body, method="PUT"), timeout=10) as answer:
                assert answer.status == 200
        yield one, other


def read(url: str) -> bytes:
    with urlopen(url, timeout=10) as answer:
        return bytes(answer.read())


def test_two_processes_agree(pair: tuple[SimulatorProcess, SimulatorProcess]) -> None:
    """Two fresh processes give byte-identical answers for the same frozen instant, asked in another order."""
    paths = [
        f"/v5/market/kline?category=linear&symbol={symbol}&interval={interval}&limit=1000"
        for symbol in ("BTCUSDT", "XRPUSDT")
        for interval in ("1", "240", "D", "W", "M")
    ]
    paths += ["/v5/market/tickers?category=linear", "/v5/market/tickers?category=option&baseCoin=ETH"]
    first = {path: read(pair[0].url + path) for path in paths}
    second = {path: read(pair[1].url + path) for path in reversed(paths)}
    assert first == second
    assert all(b'"retCode":0' in body for body in first.values())


def test_ready_line_and_signals() -> None:
    """It prints one JSON line and nothing else, and ends quietly with code 0 on SIGTERM and SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        command = [sys.executable, "-m", "server.simulator", "--port", "0"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            line = json.loads(process.stdout.readline())
            assert line["event"] == "simulator_ready"
            assert json.loads(read(line["url"] + "/v5/market/time"))["retCode"] == 0
            process.send_signal(number)
            rest, errors = process.communicate(timeout=10)
            assert (process.returncode, rest, errors) == (0, b"", b"")


def test_ends_with_its_parent() -> None:
    """When the pipe to its stdin closes, it ends with code 0."""
    process = SimulatorProcess()
    process.start()
    assert process.poll() is None
    assert process.stop() == 0
    assert process.poll() == 0
    assert process.stop() == 0


def test_a_start_that_fails_says_so() -> None:
    """A process that cannot start is a RuntimeError with its exit code, and leaves nothing behind."""
    process = SimulatorProcess("--hedge", "NOPEUSDT")
    with pytest.raises(RuntimeError, match="code 2"):
        process.start()
    assert process.poll() == 2


async def test_start_from_asyncio() -> None:
    """Started in a thread it leaves the event loop free."""
    process = SimulatorProcess()
    starting = asyncio.create_task(asyncio.to_thread(process.start))
    turns = 0
    while not starting.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert (await starting).startswith("http://127.0.0.1:")
    assert turns > 5
    assert await asyncio.to_thread(process.stop) == 0


def test_the_package_and_child_are_light() -> None:
    """Importing the package and its child module brings in neither numpy nor aiohttp."""
    code = "import sys, server.simulator.child; print(sorted({'numpy', 'aiohttp', 'msgspec'} & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, timeout=20)
    assert output.stdout.strip() == b"[]"


@pytest.mark.parametrize("port", ["-1", "65536", "web"])
def test_a_port_that_is_none(port: str) -> None:
    """What is no port is refused with what is allowed."""
    run = subprocess.run(
        [sys.executable, "-m", "server.simulator", f"--port={port}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "allowed: 0 to 65535" in run.stderr
    assert "Traceback" not in run.stderr
