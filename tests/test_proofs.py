"""The proofs run, in short, and would fail where they should."""

import asyncio
import shutil
import sys
from typing import Any

import pytest

from proofs.catalogue import FAULTS
from proofs.faults import Case, Outcome, chosen, judged, parsed
from proofs.proxy import ENDPOINTS
from proofs.witnesses import Truth

from .processes import ROOT, clean_environment

TICKER = {
    "symbol": "BTCUSDT",
    "lastPrice": "5",
    "markPrice": "5",
    "indexPrice": "5",
    "bid1Price": "4",
    "ask1Price": "6",
}
SAID = {"list": [{**TICKER, "fundingRate": "0"}]}
SHOWN = ("5", "5", "5", "4", "6", "0")


KEPT_BY_KERNEL = "nor does the kernel keep anything of them"
"""Not so yet: what is aborted is closed without a reset, and waits for its reader."""

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="the clients need a C compiler")


async def prove(*command: str, but_for: str | None = None) -> str:
    """What a proof prints; fails where it does, but for one statement, or does not end in time."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        cwd=ROOT,
        env=clean_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(150):
            output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    failed = [line for line in output.splitlines() if line.lstrip().startswith("FAILED")]
    assert all(but_for is not None and but_for in line for line in failed), output
    assert process.returncode == int(bool(failed)), output
    return output


@pytest.mark.timeout(180)
async def test_some_faults() -> None:
    """A fault of each group is named, disturbs nobody else, and is over when it ends; no secret is in the log."""
    names = "SYN dropped,hang within headers,302,10006,answers of a minute"
    short = ("--every", "2", "--hold", "0.5", "--unloaded", "--patience", "4")
    output = await prove("proofs/faults.py", "--only", names, *short)
    assert output.splitlines()[-1] == "6 passed, 0 failed", output


@pytest.mark.timeout(180)
@needs_compiler
async def test_hung_pools() -> None:
    """All calls hang: nobody else waits, and the process still leaves."""
    output = await prove("proofs/pool.py", "--sockets", "40", "--seconds", "6", "--patience", "6")
    assert output.splitlines()[-1] == "8 passed, 0 failed"


@pytest.mark.timeout(180)
@needs_compiler
async def test_sockets_on_workers() -> None:
    """Each socket is served by its worker for as long as it is there, and more are spread over all of them."""
    short = ("--sockets", "200", "--fresh", "200", "--interval", "1", "--seconds", "3", "--patience", "6")
    output = await prove("proofs/sockets.py", *short)
    assert output.splitlines()[-1] == "7 passed, 0 failed", output


@pytest.mark.timeout(180)
@needs_compiler
async def test_readers_that_stop() -> None:
    """They are closed in time, and the others get their frames as before."""
    short = ("--sockets", "60", "--stalled", "20", "--per-second", "50", "--seconds", "2", "--patience", "6")
    output = await prove("proofs/slow.py", *short, but_for=KEPT_BY_KERNEL)
    assert len(output.splitlines()) == 11, output


@pytest.mark.timeout(180)
@needs_compiler
async def test_clients_that_come_and_go() -> None:
    """Whenever and however they leave, nothing of them stays."""
    output = await prove("proofs/churn.py", "--connections", "1500", "--patience", "6")
    assert output.splitlines()[-1] == "6 passed, 0 failed", output


def test_every_fault_on_every_endpoint() -> None:
    """The proof has at least 36 faults, each on every endpoint, or once where it concerns every connection."""
    cases = chosen(parsed([]))
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 36
    for fault in FAULTS:
        where = {case.endpoint for case in cases if case.fault is fault}
        assert where == ({""} if fault.connection else set(ENDPOINTS.values()))


def outcome(**changes: Any) -> Outcome:
    """A good one, but for some of it."""
    good = Outcome(Case(FAULTS[-1], "tickers"), 1.0, 1.0, 2.0, 3, 20, [])
    return good._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stale_after_s": None}, "not named"),
        ({"stale_after_s": 9.0}, "not named"),
        ({"recovered_after_s": None}, "not fresh"),
        ({"recovered_after_s": 9.0}, "not fresh"),
        ({"p99_ms": 9.0}, "REST p99"),
        ({"calls": 0}, "no call"),
        ({"failures": ["price went back"]}, "went back"),
    ],
)
def test_what_fails(changes: dict[str, Any], says: str) -> None:
    """Each thing that a fault may not do fails it."""
    assert judged(outcome(), 2.0, 1.0) == []
    (failure,) = judged(outcome(**changes), 2.0, 1.0)
    assert says in failure


def test_the_truth() -> None:
    """Only what was said may be shown, and only as young as it is."""
    truth = Truth()
    truth.remember("tickers", {}, 100.0, SAID)
    assert truth.objection("price", "BTCUSDT", SHOWN, 100.0) is None
    assert "never said" in str(truth.objection("price", "ETHUSDT", SHOWN, 100.0))
    assert "never said" in str(truth.objection("price", "BTCUSDT", ("6", *SHOWN[1:]), 100.0))
    assert "older than claimed" in str(truth.objection("price", "BTCUSDT", SHOWN, 101.0))
