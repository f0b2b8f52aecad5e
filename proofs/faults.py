"""Prove what the gateway does in every fault of the exchange. See README.md; the last line says how many passed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ssl
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import Gateway, Requests, Trouble, asked, built
from benchmarks.windows import resident_kb
from proofs.catalogue import FAULTS
from proofs.proxy import ENDPOINTS, Fault, Proxy
from proofs.verdict import LOAD, Verdict, proved
from proofs.witnesses import PART_OF, PARTS, Truth, Witness, Witnesses, until
from server.bybit.client import THREADS as POOLS
from server.simulator.child import API_KEY, API_SECRET, SimulatorProcess

HERE = Path(__file__).parent
NAME = "localhost"
SYMBOLS = ("BTCUSDT", "ETHUSDT")

CALL_TIMEOUT_S = 2.0
BAN_S = 6.0
KEY_RETRY_S = 4.0
SETTINGS = {
    "LOG_LEVEL": "debug",
    "GATEWAY__BYBIT__CALL_TIMEOUT_S": f"{CALL_TIMEOUT_S:g}",
    "GATEWAY__BYBIT__BAN_S": f"{BAN_S:g}",
    "GATEWAY__BYBIT__KEY_RETRY_S": f"{KEY_RETRY_S:g}",
}
NAMED_S = CALL_TIMEOUT_S + 2.0
RECOVERED_S = 5.0
CALM_S = 30.0
THREADS = sum(POOLS.values()) + 6
"""What the pools may hold, the loop, the logs, and what the process starts for itself."""
GROWTH_KB = 96 * 1024
"""How much memory may be kept over what the first faults left: the largest answer that is read, a few times."""
CACHED = ("/price/BTCUSDT?max_age_ms=600000", "/balance?max_age_ms=600000")
RATE = 150


class Case(NamedTuple):
    """One fault on one endpoint; on every connection where the endpoint is empty."""

    fault: Fault
    endpoint: str

    @property
    def parts(self) -> set[str]:
        """What has to be named as stale."""
        return {PART_OF[self.endpoint]} if self.endpoint else set(PARTS)

    @property
    def silenced(self) -> set[str]:
        """What may be: the fault silences more than its endpoint where it is the account's or the address's."""
        if self.fault.scope == "address":
            return set(PARTS)
        is_account = self.fault.scope == "account" and self.endpoint in ("position", "wallet")
        return {"position", "balance"} if is_account else self.parts

    @property
    def recovered_s(self) -> float:
        """Within what time everything has to be fresh again."""
        pause_s = {"address": BAN_S, "account": KEY_RETRY_S}.get(self.fault.scope, 0.0)
        return RECOVERED_S + pause_s

    def __str__(self) -> str:
        return f"{self.fault.name} on {self.endpoint or 'every connection'}"


class Outcome(NamedTuple):
    """What became of a case; times in seconds, None where it did not happen."""

    case: Case
    stale_after_s: float | None
    recovered_after_s: float | None
    p99_ms: float
    calls: int
    threads: int
    failures: list[str]


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="faults.py", description="Every fault of the exchange, one after the other.")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="faults whose name or group holds one of these, with commas"
    )
    parser.add_argument("--endpoint", choices=sorted(ENDPOINTS.values()), help="faults of this endpoint only")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each Nth case, each fault once at most")
    parser.add_argument("--hold", type=float, default=4.0, metavar="S", help="how long a fault lasts (%(default)s)")
    parser.add_argument("--patience", type=float, default=1.0, metavar="N", help="times what is allowed (%(default)s)")
    parser.add_argument("--unloaded", action="store_true", help="without REST beside it, and without a C compiler")
    return parser.parse_args(arguments)


def chosen(options: argparse.Namespace) -> list[Case]:
    """The cases asked for, each fault on every endpoint in turn."""
    texts = options.only.split(",")
    faults = [one for one in FAULTS if any(text in ("", one.group) or text in one.name for text in texts)]
    endpoints = [options.endpoint] if options.endpoint else sorted(ENDPOINTS.values())
    if options.every > 1:  # each endpoint in turn
        picked = faults[:: options.every]
        pairs = [(fault, endpoints[index % len(endpoints)]) for index, fault in enumerate(picked)]
    else:
        pairs = [(fault, endpoint) for fault in faults for endpoint in endpoints]
    cases = [Case(fault, "" if fault.connection else endpoint) for fault, endpoint in pairs]
    return list(dict.fromkeys(cases))


class Proof:
    """One gateway with its witnesses, and the proxy between it and the simulator."""

    def __init__(self, gateway: Gateway, proxy: Proxy, witnesses: Witnesses, program: Path | None, names: Path) -> None:
        self.gateway, self.proxy, self.witnesses = gateway, proxy, witnesses
        self._program, self._names = program, names
        self.calm_ms: list[float] = []
        self.first_kb = 0

    async def calm(self, seconds: float) -> None:
        """Wait until everything is fresh, and measure REST then."""
        if not await until(lambda: not any(one.is_stale for one in self.witnesses.all), CALM_S):
            stale = {f"{one.part} of {one.where}" for one in self.witnesses.all if one.is_stale}
            raise Trouble(f"without any fault {', '.join(sorted(stale))} stayed stale for {CALM_S:g} s")
        self.calm_ms.append(await self._p99_ms(seconds))

    async def _p99_ms(self, seconds: float) -> float:
        if self._program is None:
            await asyncio.sleep(seconds)
            return 0.0
        with Requests(self._program, self.gateway.port, RATE, seconds, CACHED) as requests:
            result = await asyncio.to_thread(requests.result, seconds)
        if result["failed"] or set(result["statuses"]) != {"200"}:
            self.witnesses.objections.append(f"REST of cached data: {result['failed']} failed, {result['statuses']}")
        return float(max(latency["p99"] for latency in result["latency_us"].values())) / 1000

    async def run(self, case: Case, hold_s: float, patience: float) -> Outcome:
        """Begin the fault, wait until it is named, end it, wait until all is fresh again."""
        self.witnesses.check()
        concerned, others = self._divided(case)
        strayed = self.proxy.strayed
        for witness in self.witnesses.all:
            witness.begin()
        began_at = time.monotonic()
        self._begin(case)
        latency = asyncio.create_task(self._p99_ms(hold_s))
        await until(lambda: all(one.named_at for one in concerned), (NAMED_S + 2.0) * patience)
        p99_ms = await latency
        calls = self.proxy.faulted
        disturbed = sorted({f"{one.part} of {one.where}" for one in others if one.named_at})
        stale_after_s = _last(one.named_at for one in concerned)
        self._end(case)
        healed_at = time.monotonic()
        for witness in self.witnesses.all:
            witness.heal()
            if not witness.is_stale:
                witness.see(is_stale=False)
        affected = self.witnesses.of(case.silenced)
        await until(lambda: all(one.fresh_at for one in affected), (case.recovered_s + 5.0) * patience)
        recovered_after_s = _last(one.fresh_at for one in affected)
        failures = [f"also stale: {', '.join(disturbed)}"] if disturbed else []
        failures += self.witnesses.take_objections()[:3]
        failures += await self._left_behind()
        if self.proxy.strayed != strayed:
            failures.append("a redirect was followed")
        return Outcome(
            case,
            None if stale_after_s is None else stale_after_s - began_at,
            None if recovered_after_s is None else max(0.0, recovered_after_s - healed_at),
            p99_ms,
            calls,
            self._threads(),
            failures,
        )

    def _divided(self, case: Case) -> tuple[list[Witness], list[Witness]]:
        concerned = self.witnesses.of(case.parts)
        return concerned, [one for one in self.witnesses.all if one.part not in case.silenced]

    def _begin(self, case: Case) -> None:
        if case.fault.connection == "no name":
            self._names.write_text("")
        self.proxy.begin(case.fault, case.endpoint)

    def _end(self, case: Case) -> None:
        if case.fault.connection == "no name":
            self._names.write_text(f"{NAME} 127.0.0.1\n")
        self.proxy.end()

    async def _left_behind(self) -> list[str]:
        """What a fault left: threads in calls, or more memory than it may."""
        flying: dict[str, int] = {}
        for _ in range(20):
            health = await asyncio.to_thread(asked, f"{self.gateway.url}/health")
            flying = {name: count for name, count in health["calls_in_flight"].items() if count > 1}
            if not flying:
                break
            await asyncio.sleep(0.25)
        failures = [f"threads hang: {flying}"] if flying else []
        if self._threads() > THREADS:
            failures.append(f"{self._threads()} threads")
        resident = resident_kb(self.gateway.pid)
        self.first_kb = self.first_kb or resident
        if resident > self.first_kb + GROWTH_KB:
            failures.append(f"memory grew by {(resident - self.first_kb) // 1024} MiB")
        return failures

    def _threads(self) -> int:
        status = Path(f"/proc/{self.gateway.pid}/status").read_text()
        return int(status.partition("Threads:")[2].split()[0])


def _last(moments: Iterable[float | None]) -> float | None:
    known = list(moments)
    return None if None in known else max((moment for moment in known if moment is not None), default=None)


def judged(outcome: Outcome, calm_ms: float, patience: float) -> list[str]:
    """Everything that is wrong with an outcome."""
    case, failures = outcome.case, [*outcome.failures]
    if not case.fault.may_be_harmless and (outcome.stale_after_s is None or outcome.stale_after_s > NAMED_S * patience):
        failures.append(f"not named as stale within {NAMED_S:g} s")
    if outcome.recovered_after_s is None or outcome.recovered_after_s > case.recovered_s * patience:
        failures.append(f"not fresh again within {case.recovered_s:g} s")
    if outcome.p99_ms > max(3 * calm_ms, calm_ms + 5) * patience:
        failures.append(f"REST p99 {outcome.p99_ms:.1f} ms, {calm_ms:.1f} ms when calm")
    if not outcome.calls and case.endpoint:
        failures.append("no call met the fault")
    return failures


@contextlib.asynccontextmanager
async def prepared(folder: Path, program: Path | None) -> AsyncIterator[Proof]:
    """Simulator, proxy, gateway and witnesses, for as long as an `async with` block."""
    names, log, truth = folder / "names", folder / "gateway.log", Truth(SYMBOLS)
    names.write_text(f"{NAME} 127.0.0.1\n")
    with SimulatorProcess("--no-limits") as simulator:
        async with Proxy(simulator.url, _tls("known.pem"), _tls("unknown.pem"), truth.remember) as proxy:
            gateway = Gateway(
                f"https://{NAME}:{proxy.port}",
                log,
                "proofs/launcher.py",
                str(HERE / "known.pem"),
                str(names),
                settings=SETTINGS,
            )
            await asyncio.to_thread(gateway.__enter__)
            try:
                secrets = lambda: (API_KEY, API_SECRET, *proxy.signatures)  # noqa: E731
                async with Witnesses(gateway.url, truth, SYMBOLS, secrets) as witnesses:
                    yield Proof(gateway, proxy, witnesses, program, names)
            finally:
                await asyncio.to_thread(gateway.__exit__)


def _tls(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(HERE / certificate)
    return context


def leaked(log: Path, secrets: Iterable[str]) -> list[str]:
    """Which secrets the log holds."""
    text = log.read_text(errors="replace")
    return [f"the log holds {secret[:6]}..." for secret in secrets if secret in text]


async def run(options: argparse.Namespace, folder: Path, verdict: Verdict) -> None:
    """Run the cases and print them as they come."""
    outcomes = []
    program = None if options.unloaded else built(LOAD, folder)
    print(f"{'fault':<40} {'on':<17} {'stale':>7} {'fresh':>7} {'calls':>6} {'p99 ms':>7}")
    async with prepared(folder, program) as proof:
        await proof.calm(options.hold)
        for number, case in enumerate(chosen(options)):
            if number % 8 == 7:
                await proof.calm(options.hold)
            outcome = await proof.run(case, options.hold, options.patience)
            outcomes.append(outcome)
            failures = judged(outcome, statistics.median(proof.calm_ms), options.patience)
            verdict.count(held=not failures)
            print(_row(outcome, failures), flush=True)
        secrets = {API_KEY, API_SECRET, *proof.proxy.signatures}
        calm_ms, grown_kb = statistics.median(proof.calm_ms), resident_kb(proof.gateway.pid) - proof.first_kb
    found = leaked(folder / "gateway.log", secrets)
    verdict.add("no secret is in the log", not found, "; ".join(found) or f"none of {len(secrets)}")
    print(_summary(outcomes, calm_ms, grown_kb))


def _row(outcome: Outcome, failures: list[str]) -> str:
    where = outcome.case.endpoint or "every connection"
    stale, fresh = (_seconds(value) for value in (outcome.stale_after_s, outcome.recovered_after_s))
    row = f"{outcome.case.fault.name:<40} {where:<17} {stale:>7} {fresh:>7} {outcome.calls:>6} {outcome.p99_ms:>7.1f}"
    return "\n".join([row, *(f"    FAILED: {failure}" for failure in failures)])


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _summary(outcomes: list[Outcome], calm_ms: float, grown_kb: int) -> str:
    stale = [one.stale_after_s for one in outcomes if one.stale_after_s is not None]
    fresh = [one.recovered_after_s for one in outcomes if one.recovered_after_s is not None]
    return (
        f"stale after {statistics.median(stale):.2f} s (median), {max(stale):.2f} s (most); "
        f"fresh after {statistics.median(fresh):.2f} s, {max(fresh):.2f} s; "
        f"REST p99 {statistics.median(one.p99_ms for one in outcomes):.1f} ms in faults, {calm_ms:.1f} ms when calm; "
        f"at most {max(one.threads for one in outcomes)} threads; memory {grown_kb / 1024:+.0f} MiB since the first"
    )


def main() -> int:
    options = parsed()
    return proved("faults.py", lambda folder, verdict: asyncio.run(run(options, folder, verdict)))


if __name__ == "__main__":
    sys.exit(main())
