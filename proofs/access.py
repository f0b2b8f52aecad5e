"""Prove that nobody reads what he may not, whatever he sends. See README.md; the last line says how many passed."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import Gateway, Trouble
from proofs.line import UPGRADE, Answer, Frame, Line
from proofs.malformed import Malformed, cases
from proofs.matrix import (
    CREDENTIALS,
    HOSTS,
    METHODS,
    ORIGINS,
    SYMBOL,
    TRICKS,
    UNKNOWN,
    Case,
    Tokens,
    expected,
    matrix,
    needed,
)
from proofs.verdict import Verdict, proved
from server.access.tokens import Scope
from server.api.scopes import CHANNELS, LISTING, SOCKETS
from server.realtime.channels import FORMS
from server.realtime.operations import NAMES
from server.simulator.child import SimulatorProcess

SNAPSHOT_S = 10.0
PROBLEM = {"type", "title", "status", "detail", "code", "request_id"}
QUESTIONS = json.dumps({"questions": [{"symbol": SYMBOL, "names": "rsi"}]})
FILLED = {"SYMBOL": SYMBOL, "INTERVAL": "1", "NAMES": "rsi"}
OPERATIONS: dict[str, dict[str, object]] = {
    "subscribe": {"channels": ["balance"]},
    "unsubscribe": {"channels": ["balance"]},
    "auth": {"token": "wrong-token-0123456789"},
}
"""What an operation says beside its name; others say nothing."""


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="access.py", description="Whoever may not read is shown nothing.")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth case of the matrix")
    parser.add_argument("--patience", type=float, default=1.0, metavar="N", help="times what is allowed (%(default)s)")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, folder: Path, verdict: Verdict) -> None:
    """Ask for everything as everybody, and send what is no HTTP."""
    tokens, config = Tokens(), folder / "config.toml"
    config.write_text(tokens.settings())
    with SimulatorProcess("--no-limits") as simulator:
        settings = {"LOG_LEVEL": "debug"}
        log = folder / "gateway.log"
        with Gateway(simulator.url, log, "run.py", "--config", str(config), settings=settings) as gateway:
            Prover(options, gateway, tokens, verdict).prove(config)


class Prover:
    """Asks a gateway, and judges what it answers."""

    def __init__(self, options: argparse.Namespace, gateway: Gateway, tokens: Tokens, verdict: Verdict) -> None:
        self._options, self._gateway, self._tokens, self._verdict = options, gateway, tokens, verdict
        self._hidden = tokens.hidden()

    def prove(self, config: Path) -> None:
        """All of it, after one token was taken back."""
        self._revoke(config)
        self._matrix()
        self._tricks()
        self._channels()
        self._operations()
        self._malformed()
        self._log()

    def _revoke(self, config: Path) -> None:
        """Take a token back while its socket is open. Raises Trouble where it never worked."""
        header = f"Bearer {self._tokens.revoked.text}"
        if self._asked(Case("GET", "/balance", "right", "good", "none"), header).status != 200:
            raise Trouble("the token that is to be revoked is not known")
        with self._line() as line:
            self._open(line, "/ws/positions/BTCUSDT?interval=1", header)
            config.write_text(self._tokens.settings(but=self._tokens.revoked))
            self._gateway.signal(signal.SIGHUP)
            code = closing(line)
        self._verdict.add("a revoked token's socket is closed", code == 4401, f"close code {code}")

    def _matrix(self) -> None:
        wrong, count = [], 0
        for case in [*matrix()][:: self._options.every]:
            fault = self._fault(case)
            count += 1
            self._verdict.count(held=fault is None)
            wrong += [] if fault is None else [f"{case}: {fault}"]
        report("every route, by everybody, from everywhere", count, wrong)

    def _fault(self, case: Case) -> str | None:
        """What is wrong with the answer to a case."""
        header, (status, code) = self._tokens.header(case.credential, needed(case.path)), expected(case)
        if case.path not in SOCKETS:
            answer = self._asked(case, header)
            return self._objection(answer, status, case)
        with self._line() as line:
            answer = self._asked(case, header, line)
            if (fault := self._objection(answer, status, case)) is not None or status != 101:
                return fault
            if header is None:
                line.say({"op": "subscribe", "channels": ["balance"]})
            if code:
                return None if (seen := closing(line, silent=True)) == code else f"closed with {seen}, not {code}"
            return None if case.path == "/ws" or snapshot(line) else "no snapshot"

    def _objection(self, answer: Answer, status: int, case: Case) -> str | None:
        if any(secret in answer.raw for secret in self._hidden):
            return "it shows a secret"
        if answer.status != status:
            return f"{answer.status}, not {status}"
        if "access-control-allow-origin" in answer.headers:
            return "a page of another origin may read it"
        if status >= 400 and case.method != "HEAD" and set(json.loads(answer.body)) != PROBLEM:
            return f"it says more than a problem does: {answer.body[:200]!r}"
        return None

    def _tricks(self) -> None:
        """Other spellings of paths, asked first by one who may read all: what is remembered of that helps no other."""
        wrong, count = [], 0
        headers = {name: self._tokens.header(name, ()) for name in (*UNKNOWN, "other symbols")}
        for target in TRICKS:
            self._raw("GET", target, self._tokens.header("right", ()))
            for method, (name, header) in product(METHODS, headers.items()):
                answer = self._raw(method, target, header)
                held = answer is None or self._is_harmless(answer)
                count += 1
                self._verdict.count(held=held)
                wrong += [] if held else [f"{method} {target!r}, token {name}: {answer}"]
        report("paths in other spellings", count, wrong)

    def _raw(self, method: str, target: str, header: str | None) -> Answer | None:
        shown = "" if header is None else f"Authorization: {header}\r\n"
        with self._line() as line:
            line.send(f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{shown}\r\n".encode("latin-1"))
            return line.answer(is_head=method == "HEAD")

    def _is_harmless(self, answer: Answer) -> bool:
        """Whether it is a refusal without a secret."""
        return not any(secret in answer.raw for secret in self._hidden) and (400 <= answer.status < 500)

    def _channels(self) -> None:
        """Each channel, by whoever shows a token by header or by message, and by one who had more before."""
        wrong, count = [], 0
        for form, credential, way in product(FORMS, CREDENTIALS, ("header", "message", "again")):
            name = ":".join(FILLED.get(word, word) for word in form.split(":"))
            fault = self._channel_fault(name, credential, way)
            count += 1
            self._verdict.count(held=fault is None)
            wrong += [] if fault is None else [f"{name}, token {credential}, shown by {way}: {fault}"]
        report("every channel, by everybody, in each way", count, wrong)

    def _channel_fault(self, name: str, credential: str, way: str) -> str | None:
        scopes = CHANNELS[name.partition(":")[0]] if name != LISTING else (Scope.POSITIONS,)
        header = self._tokens.header(credential, scopes)
        token = None if header is None else header.partition(" ")[2] if credential != "malformed" else ""
        first = {"header": header, "message": None, "again": f"Bearer {self._tokens.right.text}"}[way]
        with self._line() as line:
            self._open(line, "/ws", first)
            if way == "again":
                line.say({"op": "subscribe", "channels": [name], "interval": 0.1})
                if not snapshot(line):
                    return "the right token is shown no snapshot"
            if way != "header":
                line.say({"op": "auth", "token": token})
            line.say({"id": 1, "op": "subscribe", "channels": [name], "interval": 0.1})
            line.say({"id": 2, "op": "list"})
            if credential in UNKNOWN:
                return None if (code := closing(line, silent=way != "again")) == 4401 else f"closed with {code}"
            return self._heard(line, name, credential)

    def _heard(self, line: Line, name: str, credential: str) -> str | None:
        """What is wrong with what a socket hears after it has shown its token and asked for a channel and the list."""
        may = credential == "right" or (credential == "other symbols" and name == "balance")
        shown = 0
        is_admitted = False
        while (frame := line.frame()) is not None and frame.opcode == 1:
            if any(secret in frame.payload for secret in self._hidden):
                return "it shows a secret"
            document = frame.document()
            is_admitted |= document["type"] == "ack" and document.get("id") == 1
            shown += is_admitted and document["type"] == "snapshot"
            if document["type"] == "list":
                listed = bool(document["channels"])
                return None if listed == may and (may or not shown) else f"listed: {listed}, snapshots: {shown}"
        return "it was closed"

    def _operations(self) -> None:
        """Each operation, first on a socket that has not shown its token: none is heard."""
        wrong = []
        for name in (*NAMES, "trade", ""):
            with self._line() as line:
                self._open(line, "/ws", None)
                line.say({"op": name, **OPERATIONS.get(name, {})})
                code = closing(line, silent=True)
            self._verdict.count(held=code == 4401)
            wrong += [] if code == 4401 else [f"{name!r}: {code}"]
        report("every operation, before the token", len(NAMES) + 2, wrong)

    def _malformed(self) -> None:
        wrong, every = [], cases(self._tokens.right.text)
        for case in every:
            fault = self._malformed_fault(case)
            self._verdict.count(held=fault is None)
            wrong += [] if fault is None else [f"{case.name}: {fault}"]
        report("malformed and smuggled requests", len(every), wrong)

    def _malformed_fault(self, case: Malformed) -> str | None:
        """What is wrong with what comes back; a connection that stays open for longer than is kept is wrong too."""
        with self._line() as line:
            line.send(case.data)
            if case.allowed[0] == ():
                line.finish()
            try:
                answers = line.every_answer()
            except TimeoutError:
                return "the connection stays open"
        statuses = tuple(answer.status for answer in answers)
        return None if statuses in case.allowed else f"answered with {statuses or 'nothing'}"

    def _log(self) -> None:
        """What the log holds after all of this, at its most talkative."""
        log = self._gateway.log.read_bytes()
        shown = sum(secret in log for secret in self._hidden)
        self._verdict.add("no secret is in the log", not shown, f"{len(log)} bytes, {shown} secrets")
        crashes = log.count(b"Traceback") + log.count(b"_crashed")
        self._verdict.add("nothing has crashed", not crashes, f"{crashes} lines tell of it")
        answer = self._asked(Case("GET", "/livez", "none", "good", "none"), None)
        self._verdict.add("it answers", answer.status == 200, f"{answer.status}")

    def _line(self) -> Line:
        return Line(self._gateway.port, wait_s=10.0 * self._options.patience)

    def _asked(self, case: Case, header: str | None, line: Line | None = None) -> Answer:
        """The answer to a case; over a connection of its own, unless one is given. Raises Trouble without one."""
        if line is None:
            with self._line() as own:
                return self._asked(case, header, own)
        port, origin = self._gateway.port, ORIGINS[case.origin]
        body = QUESTIONS if case.method == "POST" else ""
        lines = [
            f"{case.method} {case.path.replace('{symbol}', SYMBOL)} HTTP/1.1",
            f"Host: {HOSTS[case.host].format(port=port)}",
            *([] if header is None else [f"Authorization: {header}"]),
            *([] if origin is None else [f"Origin: {origin.format(port=port)}"]),
            *([f"Content-Length: {len(body)}", "Content-Type: application/json"] if body else []),
        ]
        upgrade = UPGRADE if case.path in SOCKETS else ""
        line.send(("\r\n".join(lines) + "\r\n" + upgrade + "\r\n" + body).encode())
        answer = line.answer(is_head=case.method == "HEAD")
        if answer is None:
            raise Trouble(f"no answer to {case}")
        return answer

    def _open(self, line: Line, path: str, header: str | None) -> None:
        """Upgrade. Raises Trouble where that is refused."""
        port = self._gateway.port
        shown = f"Origin: http://127.0.0.1:{port}\r\n" if header is None else f"Authorization: {header}\r\n"
        line.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{shown}{UPGRADE}\r\n".encode())
        if (answer := line.answer()) is None or answer.status != 101:
            raise Trouble(f"{path} was not upgraded: {answer}")


def report(what: str, count: int, wrong: list[str]) -> None:
    """Say how many cases there were of a kind, and which of them were wrong."""
    print(f"{'FAILED' if wrong else 'ok    '}  {what}: {count} cases, {len(wrong)} wrong", flush=True)
    for one in wrong[:20]:
        print(f"        {one}")


def closing(line: Line, *, silent: bool = False) -> int:
    """The code that a socket is closed with, 0 without one. With `silent`, -1 where anything was said before."""
    while (frame := line.frame()) is not None:
        if frame.opcode == 8:
            return frame.close_code
        if silent and frame.opcode == 1 and is_data(frame):
            return -1
    return 0


def is_data(frame: Frame) -> bool:
    """Whether a frame shows anything but that a client was heard."""
    return frame.document()["type"] == "snapshot"


def snapshot(line: Line) -> bool:
    """Whether a snapshot comes before the socket ends."""
    until = time.monotonic() + SNAPSHOT_S
    while (frame := line.frame()) is not None and time.monotonic() < until:
        if frame.opcode == 1 and is_data(frame):
            return True
    return False


def main() -> int:
    options = parsed()
    return proved("access.py", lambda folder, verdict: run(options, folder, verdict))


if __name__ == "__main__":
    sys.exit(main())
