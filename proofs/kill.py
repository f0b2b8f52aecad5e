"""Prove that a worker may die at any instant and nobody but its own clients sees it. See README.md."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import Trouble
from proofs.crew import Crew, Held, held, stopped
from proofs.crowd import LOST, Connection, Crowd, End, Failure, Reader, figures, steady
from proofs.verdict import Verdict, proved
from proofs.witnesses import until
from server.processes.restarts import LONGEST_WAIT_S, YOUNG_S
from server.simulator.child import SimulatorProcess

WORKERS = 2
ASKERS = 8
PAUSE_S = 0.08
PROBES = 16
"""Connections that are opened while the victim is stopped: about half of them end up in its queue."""
SERVED_S = 2.0
SNAPSHOT_S = 3.0
FOLLOWED_S = LONGEST_WAIT_S + 5.0
LEAVE_S = 10.0
OPEN_S = 30.0


class Grave(NamedTuple):
    """One death: which connections the dead worker had accepted, and when who was served again; None: not in time.

    `served_s` counts from the death to the last answer for those that connected while the worker was stopped.
    """

    stopped_at: float
    held: Held
    sockets: int
    lived_s: float
    served_s: float | None
    snapshot_s: float | None
    followed_s: float | None
    failures: list[str]


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="kill.py", description="Workers are killed, one after the other, under load.")
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="default: %(default)s")
    parser.add_argument("--sockets", type=int, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument("--patience", type=float, default=1.0, metavar="N", help="times what is allowed (%(default)s)")
    return parser.parse_args(arguments)


class Undertaker:
    """Kills workers of a crew under the load of a crowd, and writes down what came of it."""

    def __init__(self, crew: Crew, crowd: Crowd, patience: float) -> None:
        self._crew, self._crowd, self._patience = crew, crowd, patience

    async def kill(self) -> Grave:
        """Kill a worker at random, and wait until all is as before.

        It is stopped first, at whatever instant, so that the kernel's word on what it has accepted is still true when
        it is killed a moment later: it does nothing between.
        """
        pid = random.choice(self._crew.ready())
        await stopped(pid, signal.SIGSTOP)
        stopped_at = time.monotonic()
        probes = await asyncio.gather(*(Connection.to(self._crew.port) for _ in range(PROBES)))
        for probe in probes:
            probe.say("/livez", is_kept=False)
        had = held(pid, self._crew.port)
        lost = [reader for reader in self._crowd.readers if reader.port in had.accepted]
        os.kill(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        followed = asyncio.create_task(self._followed(killed_at))
        heard = await asyncio.gather(*(_heard(probe) for probe in probes))
        served_s = time.monotonic() - killed_at
        snapshot_s = await self._snapshots(lost, stopped_at, killed_at)
        followed_s = await followed
        (end,) = self._crew.journal.of("worker_ended", pid=pid)
        failures = [text for text in heard if text]
        is_served = not failures and served_s <= SERVED_S * self._patience
        return Grave(
            stopped_at,
            had,
            len(lost),
            end["lived_s"],
            served_s if is_served else None,
            snapshot_s,
            followed_s,
            failures,
        )

    async def _snapshots(self, lost: Sequence[Reader], stopped_at: float, killed_at: float) -> float | None:
        """How long until the last of those who lost their socket had a snapshot over another, None if not in time."""
        within_s = SNAPSHOT_S * self._patience
        back = lambda: (  # noqa: E731
            all(reader.opened_at > stopped_at and reader.first_at for reader in lost)
            and all(reader.snapshot_at > killed_at for reader in self._crowd.readers)
        )
        if not await until(back, killed_at + within_s - time.monotonic()):
            return None
        return max((reader.first_at - killed_at for reader in lost), default=0.0)

    async def _followed(self, killed_at: float) -> float | None:
        """How long until all workers were ready again."""
        crew = self._crew
        ready = len(crew.journal.of("worker_ready"))
        within_s = FOLLOWED_S * self._patience
        came = await crew.journal.until(lambda: len(crew.journal.of("worker_ready")) > ready, within_s)
        return time.monotonic() - killed_at if came else None


async def _heard(probe: Connection) -> str | None:
    """What went wrong with a probe, None if nothing."""
    try:
        async with asyncio.timeout(SERVED_S + 5):
            status, _ = await probe.hear()
    except (OSError, EOFError, TimeoutError, ValueError) as error:
        return f"{type(error).__name__} on a connection that waited"
    finally:
        probe.close()
    return None if status == 200 else f"{status} on a connection that waited"


def was_accepted(one: Failure | End, graves: Iterable[Grave]) -> bool:
    """Whether a dead worker had accepted this connection, so that nobody could have saved it."""
    return any(one.opened_at <= grave.stopped_at <= one.at and one.port in grave.held.accepted for grave in graves)


async def run(options: argparse.Namespace, folder: Path, verdict: Verdict) -> None:
    """Kill, and then end what is left."""
    with SimulatorProcess("--no-limits") as simulator:
        crew = Crew(simulator.url, folder / "gateway.log", WORKERS)
        await asyncio.to_thread(crew.__enter__)
        try:
            await crew.until_complete()
            crowd = steady(crew.port, options.sockets, ASKERS, PAUSE_S)
            async with crowd.working():
                graves = await _graves(options, crew, crowd)
                _judge(options.patience, verdict, crowd, graves)
                await _left(options.patience, verdict, crew)
        finally:
            await asyncio.to_thread(crew.__exit__)
    left, workers = crew.left(), len(crew.journal.of("worker_started"))
    verdict.add("no process is left", not left, str(left) if left else f"of a supervisor and {workers} workers")
    crashes = crew.journal.crashes()
    verdict.add("nothing crashed", not crashes, "; ".join(crashes[:3]) or "no such line in the log")


async def _graves(options: argparse.Namespace, crew: Crew, crowd: Crowd) -> list[Grave]:
    """One kill after the other, each a second or so after all was as before: about half meet a young worker."""
    if not await until(crowd.all_have_snapshots, OPEN_S):
        raise Trouble(f"the sockets were not open after {OPEN_S:g} s")
    undertaker, graves = Undertaker(crew, crowd, options.patience), []
    for _ in range(options.kills):
        await crew.until_complete()
        await asyncio.sleep(random.uniform(0.1, 1.5))
        graves.append(await undertaker.kill())
    return graves


def _judge(patience: float, verdict: Verdict, crowd: Crowd, graves: Sequence[Grave]) -> None:
    failures = [*crowd.failures, *crowd.crossed]
    others = [one for one in failures if not was_accepted(one, graves)]
    cut = [end for end in crowd.ends if not was_accepted(end, graves) or end.code != LOST]
    wrong = [text for grave in graves for text in grave.failures]
    wrong += [one.what for one in others] + [f"a socket of a worker that lived ended with {end.code}" for end in cut]
    queued, sockets = sum(len(grave.held.queued) for grave in graves), sum(grave.sockets for grave in graves)
    verdict.add(
        "no new connection is refused, and none that waits is reset",
        not wrong and queued > 0,
        f"{len(wrong)} of {crowd.opened + PROBES * len(graves)}, {queued} of which waited for a worker that died; "
        f"{len(failures) - len(others)} requests and {sockets} sockets ended with a worker that had "
        f"accepted them{''.join(f'; {text}' for text in wrong[:3])}",
    )
    slowest_s = max((asker.slowest_s for asker in crowd.askers), default=0.0)
    verdict.add(
        f"those who waited are served within {SERVED_S:g} s",
        all(grave.served_s is not None for grave in graves) and slowest_s <= SERVED_S * patience,
        f"{_times([grave.served_s for grave in graves])}; the slowest of {crowd.answered} requests {slowest_s:.2f} s",
    )
    verdict.add(
        f"every socket has a snapshot again within {SNAPSHOT_S:g} s",
        all(grave.snapshot_s is not None for grave in graves),
        _times([grave.snapshot_s for grave in graves]),
    )
    young = [grave for grave in graves if grave.lived_s < YOUNG_S]
    old = [grave for grave in graves if grave.lived_s >= YOUNG_S]
    verdict.add(
        "each dead worker is followed by another",
        all(grave.followed_s is not None for grave in graves),
        f"{len(old)} at once: {_times([grave.followed_s for grave in old])}; {len(young)} that lived under {YOUNG_S:g} "
        f"s, after a wait: {_times([grave.followed_s for grave in young])}",
    )


def _times(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    late = len(values) - len(known)
    return figures(known) + (f", {late} not in time" if late else "")


async def _left(patience: float, verdict: Verdict, crew: Crew) -> None:
    began_at = time.monotonic()
    crew.signal(signal.SIGTERM)
    code = await asyncio.to_thread(crew.wait, LEAVE_S * patience)
    took = f"code {code} after {time.monotonic() - began_at:.2f} s"
    verdict.add(f"SIGTERM ends it with 0 within {LEAVE_S:g} s", code == 0, took)


def main() -> int:
    options = parsed()
    return proved("kill.py", lambda folder, verdict: asyncio.run(run(options, folder, verdict)))


if __name__ == "__main__":
    sys.exit(main())
