"""Prove that no bytes make the gateway crash or grow. See README.md; the last line says how many passed."""

from __future__ import annotations

import argparse
import itertools
import json
import random
import struct
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import Gateway, asked
from benchmarks.windows import count_up, resident_kb
from proofs.gauges import seconds_until
from proofs.line import UPGRADE, Line
from proofs.malformed import cases
from proofs.matrix import METHODS, TRICKS
from proofs.verdict import Verdict, proved
from server.simulator.child import SimulatorProcess

TOKEN = "a-token-of-the-fuzzer-0123456789"
WARM_UP = 2000
"""Requests before memory is looked at: what the first ones bring is there for good."""
ANSWER_S = 0.02
"""How long an answer is waited for: half a request has none."""
FRAMES = 8
"""How many are sent on one socket."""
PIECE, AT_ONCE = 500, 8
"""Requests or frames of one piece, which has dice of its own, and pieces at the same time."""
BACK_S = 20.0
KEPT_KB = 32 * 1024
MESSAGES = (
    '{"id":1,"op":"subscribe","channels":["positions:BTCUSDT","price:ETHUSDT","balance","kline:BTCUSDT:1"],"interval":0}',
    '{"id":"a","op":"subscribe","channels":["indicators:BTCUSDT:15:rsi:14,macd","positions:*"],"interval":0.5}',
    '{"id":2,"op":"unsubscribe","channels":["balance"]}',
    '{"op":"list"}',
    '{"op":"ping","id":null}',
    f'{{"op":"auth","token":"{TOKEN}"}}',
)
ODD = (b"\x00", b"\xff", b"\r\n", b"\n", b" ", b":", b"%00", b"%ff", b"-1", b"1e999", b'"', b"[" * 50, b"A" * 5000)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="fuzz.py", description="Mutated requests, handshakes and frames.")
    parser.add_argument("--requests", type=int, default=200_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--frames", type=int, default=1_000_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of all that is mutated (%(default)s)")
    parser.add_argument("--patience", type=float, default=1.0, metavar="N", help="times what is allowed (%(default)s)")
    return parser.parse_args(arguments)


def mutated(dice: random.Random, data: bytes) -> bytes:
    """`data` with one to four pieces changed, taken away, doubled or put in."""
    for _ in range(dice.randint(1, 4)):
        at, size = dice.randrange(len(data) + 1), dice.choice((1, 1, 2, 8, 40))
        piece = data[at : at + size]
        new = dice.choice((b"", piece * 2, dice.choice(ODD), bytes([dice.randrange(256)]), piece[::-1]))
        data = data[:at] + new + data[at + size :]
    return data


def requests() -> list[bytes]:
    """What is mutated: good requests, odd ones, handshakes, and what is no HTTP already."""
    head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
    question = json.dumps({"questions": [{"symbol": "BTCUSDT", "names": "rsi:14,macd", "interval": "15"}]})
    post = f"POST /indicators HTTP/1.1\r\n{head}Content-Length: {len(question)}\r\n\r\n{question}"
    every = [f"{method} {path} HTTP/1.1\r\n{head}\r\n" for path in TRICKS for method in METHODS[:3]]
    every += [f"GET {path} HTTP/1.1\r\n{head}{UPGRADE}\r\n" for path in ("/ws", "/ws/positions/BTCUSDT?interval=1")]
    every += [post] * 20
    return [one.encode("latin-1") for one in every] + [case.data for case in cases(TOKEN)]


def frame(dice: random.Random, message: bytes) -> bytes:
    """A masked frame; one in four has another head than it should."""
    mask, opcode = dice.randbytes(4), 1 if dice.random() < 0.75 else dice.randrange(16)
    first = (0x80 | opcode) if dice.random() < 0.75 else dice.randrange(256)
    size = len(message) if dice.random() < 0.9 else dice.randrange(1 << 16)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(message))
    return struct.pack("!BBH", first, 0x80 | 126, min(size, 0xFFFF)) + mask + masked


class Fuzzer:
    """Sends mutated bytes to a gateway, always the same for a seed: in pieces, several at the same time."""

    def __init__(self, port: int, seed: int) -> None:
        self._port, self._seed, self._requests = port, seed, requests()
        self._pieces = itertools.count()

    def ask(self, count: int) -> None:
        """That many mutated requests, each over a connection of its own."""
        self._all("requests", self._ask, count)

    def speak(self, count: int) -> None:
        """That many mutated messages and frames, some over each socket."""
        self._all("frames", self._speak, count)

    def _all(self, what: str, work: Callable[[random.Random, int], None], count: int) -> None:
        dice = [random.Random(f"{self._seed} {next(self._pieces)}") for _ in range(-(-count // PIECE))]
        with ThreadPoolExecutor(AT_ONCE) as lanes:
            done = lanes.map(lambda each: work(each, min(PIECE, count)), dice)
            for _ in count_up(what, done, len(dice)):
                pass

    def _ask(self, dice: random.Random, count: int) -> None:
        for _ in range(count):
            with Line(self._port, wait_s=ANSWER_S) as line:
                line.send(mutated(dice, dice.choice(self._requests)))
                _listen(line)

    def _speak(self, dice: random.Random, count: int) -> None:
        upgrade = f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n{UPGRADE}\r\n".encode()
        for _ in range(0, count, FRAMES):
            with Line(self._port, wait_s=ANSWER_S) as line:
                line.send(upgrade)
                _listen(line)
                for _ in range(FRAMES):
                    line.send(frame(dice, mutated(dice, dice.choice(MESSAGES).encode())))
                _listen(line)


def _listen(line: Line) -> None:
    """Wait a moment for an answer, whatever it is."""
    try:
        line.answer()
    except (TimeoutError, ValueError, IndexError):
        pass  # half a request, or frames


def run(options: argparse.Namespace, folder: Path, verdict: Verdict) -> None:
    """Send it all, and look at what the gateway says and keeps."""
    settings = {"GATEWAY_TOKENS": TOKEN, "LOG_LEVEL": "info"}
    with SimulatorProcess("--no-limits") as simulator, Gateway(simulator.url, folder / "log", settings=settings) as it:
        fuzzer = Fuzzer(it.port, options.seed)
        fuzzer.ask(min(WARM_UP, options.requests))
        fuzzer.speak(min(WARM_UP, options.frames))
        before_kb, began_at = resident_kb(it.pid), time.monotonic()
        fuzzer.ask(options.requests)
        fuzzer.speak(options.frames)
        counts = f"{options.requests} requests, {options.frames} messages and frames"
        seen = f"{counts} with seed {options.seed}, in {time.monotonic() - began_at:.0f} s"
        alive = asked(f"{it.url}/livez") == {"status": "alive"}
        verdict.add("it answers after requests and frames", alive, seen)
        _left(verdict, it, before_kb + KEPT_KB * options.patience, before_kb)
        _said(verdict, it)


def _left(verdict: Verdict, gateway: Gateway, most_kb: float, before_kb: int) -> None:
    is_small = seconds_until(lambda: resident_kb(gateway.pid) <= most_kb, BACK_S) is not None
    seen = f"{before_kb / 1000:.1f} → {resident_kb(gateway.pid) / 1000:.1f} MB"
    verdict.add(f"memory is back but for {KEPT_KB // 1024} MiB", is_small, seen)


def _said(verdict: Verdict, gateway: Gateway) -> None:
    """Crashes, and answers of 500, each of which has a line."""
    lines = gateway.log.read_text(errors="replace").splitlines()
    wrong = [line for line in lines if "Traceback" in line or "_crashed" in line or '"status":500' in line]
    verdict.add("nothing has crashed", not wrong, f"{len(lines)} lines, {len(wrong)} of a crash")
    for line in wrong[:5]:
        print(f"        {line[:2000]}")
    verdict.add("its log has no token", TOKEN not in "".join(lines), f"{len(lines)} lines")


def main() -> int:
    options = parsed()
    return proved("fuzz.py", lambda folder, verdict: run(options, folder, verdict))


if __name__ == "__main__":
    sys.exit(main())
