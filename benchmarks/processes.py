"""The processes of a benchmark: the gateway as a user starts it, its clients and its peers, and the core of each."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from server.simulator.child import API_KEY, API_SECRET

ROOT = Path(__file__).resolve().parents[1]

START_S = 30.0
STOP_S = 10.0
ANSWER_S = 10.0
OPENING_S = 130.0
LATE_S = 40.0
"""How much longer than asked for a client may take before it counts as hanging."""


class Trouble(Exception):
    """Something did not work, so that there is nothing to report; the message is for the person at the terminal."""


class Cores(NamedTuple):
    """Where the gateway runs, and where everything else does; the same where there is one core only."""

    gateway: frozenset[int]
    others: frozenset[int]

    @property
    def are_apart(self) -> bool:
        """Whether the gateway has a core that nothing else of the benchmark runs on."""
        return not self.gateway & self.others


def divided_cores() -> Cores:
    """One core for the gateway, the others for the clients and the simulator."""
    cores = sorted(os.sched_getaffinity(0))
    return Cores(frozenset(cores[:1]), frozenset(cores[1:] or cores))


@contextlib.contextmanager
def running_on(cores: frozenset[int]) -> Iterator[None]:
    """What is started inside stays on `cores`; this process itself comes back from there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def built(source: Path, folder: Path) -> Path:
    """The program compiled from the C file `source` into `folder`. Raises Trouble where that cannot be done."""
    compiler, program = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang"), folder / source.stem
    if compiler is None:
        raise Trouble("a C compiler is needed for the clients; on Debian and Ubuntu: apt-get install gcc libc6-dev")
    built = subprocess.run([compiler, "-O2", "-o", program, source], capture_output=True, text=True, check=False)
    if built.returncode:
        raise Trouble(f"{source.name} did not compile:\n{built.stderr}")
    return program


def free_port() -> int:
    """A port of 127.0.0.1 that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def asked(url: str, *, method: str = "GET", body: object = None, timeout_s: float = ANSWER_S) -> Any:
    """The JSON that `url` answers, for steering; what is measured goes through load.c. Raises Trouble."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            return json.load(response)
    except (OSError, ValueError) as error:
        said = error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else ""
        raise Trouble(f"{method} {url}: {error} {said}".strip()) from error


class Server:
    """`command` in a process of its own, which serves on `port` of 127.0.0.1, with its log in a file.

    Invariant: after the `with` block no process is left.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, port: int, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self._command = command
        self._environment = environment

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while not self._is_ready():
            self.check_alive()
            if time.monotonic() > deadline:
                raise Trouble(f"{self.name} was not ready after {START_S:g} s; its log:\n{self.end_of_log()}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
            return True
        return False

    def check_alive(self) -> None:
        """Raises Trouble with the end of its log if it has ended."""
        if (code := self._process.poll()) is not None:
            raise Trouble(f"{self.name} ended with code {code}; its log:\n{self.end_of_log()}")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code, None if it has not ended in time."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def end_of_log(self) -> str:
        """What it said last."""
        return self.log.read_text(errors="replace")[-4000:]

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Gateway(Server):
    """`python run.py` against the exchange at `rest_url`, or `program` with its arguments in its place.

    Settings in GATEWAY__SECTION__KEY of the environment reach it, so that others can be measured than the defaults;
    those in `settings` come before them.
    """

    def __init__(self, rest_url: str, log: Path, *program: str, settings: Mapping[str, str] | None = None) -> None:
        port = free_port()
        environment = {
            **_clean_environment(),
            "BYBIT_ENVIRONMENT": "simulator",
            "BYBIT_REST_URL": rest_url,
            "BYBIT_API_KEY": API_KEY,
            "BYBIT_API_SECRET": API_SECRET,
            "PORT": str(port),
            "LOG_LEVEL": "warning",
            "LOG_FORMAT": "json",
            **(settings or {}),
        }
        super().__init__(
            "the gateway", [sys.executable, *(program or ("run.py",))], port=port, log=log, environment=environment
        )

    def _is_ready(self) -> bool:
        with contextlib.suppress(Trouble):
            asked(f"{self.url}/readyz", timeout_s=1.0)
            return True
        return False


def _clean_environment() -> dict[str, str]:
    names = ("APP_ENV", "HOST", "PORT", "WORKERS", "UVICORN_WORKERS", "LOG_", "BYBIT_", "REDIS_", "GATEWAY_TOKENS")
    return {name: value for name, value in os.environ.items() if not name.startswith(names)}


def given_settings(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The settings of the gateway that this environment changes, as NAME=value."""
    return sorted(f"{name}={value}" for name, value in environment.items() if name.startswith("GATEWAY__"))


class Clients:
    """Clients in a process of their own, which obeys lines and answers each with one; open as long as a `with` block.

    `opening` is its first answer, given once each of its sockets has had a first message.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._rest = b""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=self._environment()
        )
        try:
            self.opening = self._answer(OPENING_S)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _environment(self) -> Mapping[str, str] | None:
        """What it is told beside its command; None for this process's own."""
        return None

    def begin(self, seconds: float, what: str = "measure") -> None:
        """Have them count for so long; `counted` gives the result."""
        self._say(f"{what} {seconds:g}")

    def counted(self, within_s: float) -> dict[str, Any]:
        """What was counted since `begin`, for which up to `within_s` may have to be waited."""
        return self._answer(within_s + LATE_S)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            raise Trouble("the clients' process ended") from None

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        deadline, stdout = time.monotonic() + timeout_s, self._process.stdout.fileno()
        while b"\n" not in self._rest:
            if not select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise Trouble(f"the clients gave no answer in {timeout_s:g} s")
            data = os.read(stdout, 65536)
            if not data:
                raise Trouble("the clients' process ended; what it said stands above")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _stop(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        _ended(self._process)


class Sockets(Clients):
    """Sockets on the gateway with an interval, by load.c."""

    def __init__(self, program: Path, port: int, count: int, interval_s: float, symbols: Sequence[str]) -> None:
        super().__init__([str(program), "sockets", str(port), str(count), f"{interval_s:g}", *symbols])

    def wait(self, part: str, *, stale: bool, within_s: float) -> float | None:
        """Seconds until the newest snapshot of every socket names `part` as stale, or no more; None if too long."""
        self._say(f"wait {part} {stale:d} {within_s:g}")
        answer = self._answer(within_s + LATE_S)
        return float(answer["after_s"]) if answer["agreed"] else None


class Readers(Clients):
    """Sockets that read what any server broadcasts, by fanout.c."""

    def __init__(self, program: Path, port: int, count: int, paths: Sequence[str]) -> None:
        super().__init__([str(program), str(port), str(count), *paths])


class Requests:
    """HTTP requests in an open loop, in a process of their own, from its start on."""

    def __init__(self, program: Path, port: int, rate: int, seconds: float, paths: Sequence[str]) -> None:
        command = [str(program), "requests", str(port), str(rate), f"{seconds:g}", *paths]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdout is not None:
            self._process.stdout.close()
        _ended(self._process, wait_s=0.0)

    def result(self, within_s: float) -> dict[str, Any]:
        """Their latencies and statuses, for which up to `within_s` may have to be waited. Raises Trouble."""
        try:
            output, _ = self._process.communicate(timeout=within_s + LATE_S)
        except subprocess.TimeoutExpired:
            raise Trouble("the requests did not end") from None
        if self._process.returncode:
            raise Trouble("the requests failed; what their process said stands above")
        result: dict[str, Any] = json.loads(output)
        return result


def _ended(process: subprocess.Popen[bytes], wait_s: float = 5.0) -> None:
    try:
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def commanded(name: str, work: Callable[[Path], None]) -> int:
    """The exit code of a command after `work` with a folder that lasts as long. SIGTERM leaves it as Ctrl-C does."""
    if not sys.platform.startswith("linux"):
        print(f"{name}: it needs Linux (epoll, /proc)", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            work(Path(folder))
    except (Trouble, RuntimeError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def heading(first: str, *, seconds: float, rounds: int, cores: Cores) -> str:
    """What every command says before it begins: what it measures, how often, where and with which settings."""
    place = "the server alone on one core" if cores.are_apart else "everything on one core: times are too long"
    kept = f"{rounds} rounds: medians (lowest to highest)" if rounds > 1 else "one round"
    lines = (
        f"{first}; windows of {seconds:g} s; {kept}",
        f"Python {platform.python_version()}, {platform.system()} {platform.release()}; {place}",
        *(f"with {setting}" for setting in given_settings()),
    )
    return "\n".join(lines)
