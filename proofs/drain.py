"""Prove that a reload under load loses nothing: no request, no socket without a word, no setting. See README.md."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import Trouble
from proofs.crew import Crew
from proofs.crowd import Connection, Crowd, End, figures, steady
from proofs.verdict import Verdict, proved
from proofs.witnesses import until
from server.api.ws import CLOSES_PER_S
from server.simulator.child import SimulatorProcess

WORKERS = 2
ASKERS = 8
PAUSE_S = 0.08
RELOAD_S = 60.0
REFUSED_S = 10.0
WITHOUT_S = 3.0
"""How long a client may be without a snapshot."""
OPEN_S = 30.0
LEAVE_S = 10.0
QUESTIONS = 12
FIRST_RESULTS = 5
GOING_AWAY = 1001
FEW = 20
"""Sockets of one worker, below which nothing is said of how their ends are spread."""
BAD = "[indicators]\nmax_results = 0\n[log]\nlevel = 'loud'\n"


class Reload(NamedTuple):
    """One reload: what was wrong, how long it took, and by the process that closed them, the ends of sockets in it."""

    took_s: float | None
    failures: list[str]
    ends: Mapping[str | None, list[End]]

    @property
    def spreads_s(self) -> list[tuple[float, float]]:
        """For each worker with more than a few sockets: from its first to its last close, and what is due."""
        times = [sorted(end.at for end in ends) for ends in self.ends.values() if len(ends) >= FEW]
        return [(one[-1] - one[0], len(one) * WORKERS / CLOSES_PER_S) for one in times]


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="drain.py", description="Settings are reloaded again and again, under load.")
    parser.add_argument("--reloads", type=int, default=20, metavar="N", help="default: %(default)s")
    parser.add_argument("--sockets", type=int, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument("--patience", type=float, default=1.0, metavar="N", help="times what is allowed (%(default)s)")
    return parser.parse_args(arguments)


class Roller:
    """Reloads a crew under the load of a crowd, and writes down what came of it."""

    def __init__(self, crew: Crew, crowd: Crowd, config: Path, patience: float) -> None:
        self._crew, self._crowd, self._config, self._patience = crew, crowd, config, patience
        self._results = FIRST_RESULTS

    async def refuse(self) -> list[str]:
        """Reload with settings that are wrong; gives what changed all the same."""
        journal, before = self._crew.journal, self._crew.ready()
        refused = len(journal.of("reload_refused"))
        self._config.write_text(BAD)
        self._crew.signal(signal.SIGHUP)
        came = await journal.until(lambda: len(journal.of("reload_refused")) >= refused + 2, REFUSED_S * self._patience)
        failures = [] if came else ["wrong settings were not refused"]
        if self._crew.ready() != before:
            failures.append("wrong settings changed the workers")
        return failures + await self._in_force()

    async def reload(self) -> Reload:
        """Reload with settings that are new; returns once all clients have snapshots of the new workers."""
        former, pids = {reader.epoch for reader in self._crowd.readers}, set(self._crew.ready())
        self._results += 1
        written(self._config, self._results)
        began_at = time.monotonic()
        self._crew.signal(signal.SIGHUP)
        if not await self._is_over():
            return Reload(None, ["it did not end in time"], {})
        took_s = time.monotonic() - began_at
        failures = await self._in_force()
        if pids & set(self._crew.ready()):
            failures.append("a worker of before still serves")
        if not await until(self._crowd.all_have_snapshots, OPEN_S):
            failures.append(f"not all sockets are open {OPEN_S:g} s later")
        stayed = sum(reader.epoch in former for reader in self._crowd.readers)
        if stayed:
            failures.append(f"{stayed} sockets stayed with a worker of before")
        by_client = [[end for end in reader.ends if end.at >= began_at] for reader in self._crowd.readers]
        failures += wrong_ends(by_client, former)
        ends = defaultdict(list)
        for end in itertools.chain.from_iterable(by_client):
            ends[end.epoch].append(end)
        return Reload(took_s, failures, ends)

    async def _is_over(self) -> bool:
        journal, before = self._crew.journal, len(self._crew.journal.of("reloaded"))
        return await journal.until(lambda: len(journal.of("reloaded")) > before, RELOAD_S * self._patience)

    async def _in_force(self) -> list[str]:
        """What shows that other settings are in force than those written last that were right."""
        path = "/indicators/BTCUSDT?results="
        most, more = await asyncio.gather(
            self._statuses(f"{path}{self._results}"), self._statuses(f"{path}{self._results + 1}")
        )
        if (set(most), set(more)) != ({200}, {400}):
            return [f"max_results = {self._results} is not in force: {dict(most)}, and for one more {dict(more)}"]
        return []

    async def _statuses(self, path: str) -> Counter[int]:
        """How new connections are answered, so many that each worker is asked."""
        statuses: Counter[int] = Counter()
        for _ in range(QUESTIONS):
            connection = await Connection.to(self._crew.port)
            statuses[(await connection.ask(path, is_kept=False))[0]] += 1
            connection.close()
        return statuses


def wrong_ends(by_client: Sequence[Sequence[End]], former: Collection[str | None]) -> list[str]:
    """What is wrong with how the sockets of each client ended in a reload: with 1001 only, by `former` processes only.

    Once for each client; once more for one that came back to a worker whose turn was still to come.
    """
    failures = [f"a client's sockets ended {len(ends)} times" for ends in by_client if not 1 <= len(ends) <= WORKERS]
    for end in itertools.chain.from_iterable(by_client):
        if end.code != GOING_AWAY:
            failures.append(f"a socket ended with {end.code}")
        if end.epoch not in former:
            failures.append("a socket ended that the reload did not concern")
    return failures


def written(config: Path, results: int) -> None:
    """Write settings that are right."""
    config.write_text(f"[indicators]\nmax_results = {results}\n")


async def run(options: argparse.Namespace, folder: Path, verdict: Verdict) -> None:
    """Reload again and again, each time after settings that are refused."""
    config = folder / "config.toml"
    written(config, FIRST_RESULTS)
    with SimulatorProcess("--no-limits") as simulator:
        crew = Crew(simulator.url, folder / "gateway.log", WORKERS, "run.py", "--config", str(config))
        await asyncio.to_thread(crew.__enter__)
        try:
            await crew.until_complete()
            crowd = steady(crew.port, options.sockets, ASKERS, PAUSE_S)
            async with crowd.working():
                if not await until(crowd.all_have_snapshots, OPEN_S):
                    raise Trouble(f"the sockets were not open after {OPEN_S:g} s")
                roller = Roller(crew, crowd, config, options.patience)
                refusals, reloads = [], []
                for _ in range(options.reloads):
                    refusals.append(await roller.refuse())
                    reloads.append(await roller.reload())
                    await asyncio.sleep(1.0)
                _judge(options.patience, verdict, crowd, reloads)
                _judge_log(verdict, crew, refusals, len(reloads))
                await _left(options.patience, verdict, crew)
        finally:
            await asyncio.to_thread(crew.__exit__)


def _judge(patience: float, verdict: Verdict, crowd: Crowd, reloads: Sequence[Reload]) -> None:
    failures = [one.what for one in crowd.failures]
    verdict.add(
        "no request fails, and no handshake",
        not failures,
        f"{len(failures)} of {crowd.answered} requests and {crowd.opened} connections; {len(crowd.crossed)} were asked "
        f"once more, because a kept connection had ended{''.join(f'; {text}' for text in failures[:3])}",
    )
    wrong = [text for reload in reloads for text in reload.failures]
    took = [reload.took_s for reload in reloads if reload.took_s is not None]
    clients = len(crowd.readers) * len(reloads)
    closes = sum(len(group) for reload in reloads for group in reload.ends.values())
    verdict.add(
        "each reload closes each socket of before once, with 1001, and its settings are in force",
        not wrong,
        f"{len(reloads)} reloads in {figures(took)}; {closes} closes of {clients} clients, {closes - clients} of which "
        f"had come back to the worker that was next{''.join(f'; {text}' for text in wrong[:3])}",
    )
    spreads = [spread for reload in reloads for spread in reload.spreads_s]
    if spreads:
        share = statistics.median(took_s / due_s for took_s, due_s in spreads)
        verdict.add(
            f"closes are spread, {CLOSES_PER_S} a second",
            share >= 0.5 / patience,
            f"those of a worker over {figures([1000 * one for one, _ in spreads], 'ms', 0)}, due: "
            f"{figures([1000 * due_s for _, due_s in spreads], 'ms', 0)}",
        )
    longest, missed = [reader.longest_gap_s for reader in crowd.readers], sum(one.missed for one in crowd.readers)
    verdict.add(
        f"no client is without a snapshot for {WITHOUT_S:g} s",
        max(longest) <= WITHOUT_S * patience and not crowd.wrong,
        f"each one's longest time without: {figures(longest)}; {missed} missed of "
        f"{sum(reader.snapshots for reader in crowd.readers)}{''.join(f'; {text}' for text in crowd.wrong[:3])}",
    )


def _judge_log(verdict: Verdict, crew: Crew, refusals: Sequence[list[str]], reloads: int) -> None:
    changed = [text for refusal in refusals for text in refusal]
    verdict.add(
        "settings with errors change nothing", not changed, "; ".join(changed[:3]) or f"refused {len(refusals)} times"
    )
    journal = crew.journal
    overdue = [str(line) for event in ("worker_overdue", "drain_overdue") for line in journal.of(event)]
    ended = journal.of("worker_ended")
    bad = [str(line) for line in ended if line.get("code") != 0] + overdue + journal.crashes()
    verdict.add(
        "no worker is overdue, and each ends with 0",
        not bad and len(ended) == WORKERS * reloads,
        "; ".join(bad[:3]) or f"{len(ended)} ended",
    )


async def _left(patience: float, verdict: Verdict, crew: Crew) -> None:
    began_at = time.monotonic()
    crew.signal(signal.SIGTERM)
    code = await asyncio.to_thread(crew.wait, LEAVE_S * patience)
    left = crew.left()
    verdict.add(
        "SIGTERM ends it with 0, and no process is left",
        code == 0 and not left,
        f"code {code} after {time.monotonic() - began_at:.2f} s{f', {left} left' if left else ''}",
    )


def main() -> int:
    options = parsed()
    return proved("drain.py", lambda folder, verdict: asyncio.run(run(options, folder, verdict)))


if __name__ == "__main__":
    sys.exit(main())
