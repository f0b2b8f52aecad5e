"""Prove by the Autobahn test suite's own cases that sockets and frames are as RFC 6455 has them. See README.md."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from aiohttp import WSMsgType, web

from benchmarks.processes import Trouble
from proofs.verdict import Verdict, proved
from server.loops import loop_factory
from server.realtime.farewell import CLOSE_S, Socket
from server.realtime.frames import pong_frame, text_frame

RUNNER = "kosoku==0.1.0"
"""Runs the suite's cases without Python 2."""
GROUPS = {
    1: "framing",
    2: "pings and pongs",
    3: "reserved bits",
    4: "opcodes",
    5: "fragments",
    6: "UTF-8",
    7: "closes",
    9: "limits",
    10: "fragments of 1,300 bytes",
    12: "compression, which is not agreed to",
    13: "compression with parameters, the same",
}
MESSAGE_BYTES = 16 << 20
"""The suite's longest message."""
WITHIN_S = 300.0
LATE = "6.4."
"""Text that is no UTF-8 is refused at its message's end: "NON-STRICT", and said so in docs/protocol.md."""
UNCOMPRESSED = (12, 13)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="autobahn.py", description="The cases of the Autobahn test suite.")
    parser.add_argument("--only", metavar="CASES", default="*", help="those that this matches, as 5.* (%(default)s)")
    return parser.parse_args(arguments)


async def echo(request: web.Request) -> web.StreamResponse:
    """Say everything back over the gateway's socket, in the gateway's frames where it has some."""
    ws = Socket(timeout=CLOSE_S, autoping=False, max_msg_size=MESSAGE_BYTES + 1, compress=False)
    await ws.prepare(request)
    transport = request.transport
    async for message in ws:
        if transport is None or ws.closed:
            break
        if message.type is WSMsgType.TEXT:
            transport.write(text_frame(message.data.encode()))
        elif message.type is WSMsgType.BINARY:
            await ws.send_bytes(message.data)  # the gateway sends none
        elif message.type is WSMsgType.PING:
            transport.write(pong_frame(message.data))
    return ws


@asynccontextmanager
async def serving() -> AsyncIterator[str]:
    """An echo as long as the block; gives its address."""
    app = web.Application()
    app.router.add_get("/", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"{host}:{port}"
    finally:
        await runner.cleanup()


async def results(only: str) -> Sequence[Any]:
    """What came of each case. Raises Trouble where they cannot be run."""
    try:
        import kosoku  # noqa: PLC0415  # nothing else needs it
    except ImportError as error:
        raise Trouble(f"the cases are run by another project: pip install {RUNNER}") from error
    async with asyncio.timeout(WITHIN_S), serving() as address:
        try:
            return await kosoku.run_fuzzingclient(address, [only], concurrency=4)
        except kosoku.FailureError as failure:
            return failure.results


def is_fine(case: Any) -> bool:
    """Whether it came out as it should: all but compression is there, and strict but for what is documented."""
    behavior, number = case.behavior.value, group_of(case)
    if number in UNCOMPRESSED:
        return bool(behavior == "UNIMPLEMENTED")
    if case.case_id.startswith(LATE):
        return behavior in ("OK", "NON-STRICT")
    return behavior in ("OK", "INFORMATIONAL") and case.behavior_close.value in ("OK", "INFORMATIONAL")


def group_of(case: Any) -> int:
    """The first number of its own."""
    return int(case.case_id.partition(".")[0])


def judged(cases: Iterable[Any], verdict: Verdict) -> None:
    """One statement for each group of cases."""
    for number, group in itertools.groupby(sorted(cases, key=group_of), group_of):
        every = [*group]
        wrong = [f"{case.case_id} {case.behavior.value}" for case in every if not is_fine(case)]
        counts = ", ".join(f"{count} {name}" for name, count in Counter(case.behavior.value for case in every).items())
        verdict.add(f"{number} {GROUPS[number]}", not wrong, "; ".join([counts, *wrong[:8]]))


def run(options: argparse.Namespace, _: Path, verdict: Verdict) -> None:
    """Have them run on the loop that the gateway runs on."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        judged(runner.run(results(options.only)), verdict)


def main() -> int:
    options = parsed()
    return proved("autobahn.py", lambda folder, verdict: run(options, folder, verdict))


if __name__ == "__main__":
    sys.exit(main())
