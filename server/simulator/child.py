"""Starting the simulator as a child process. Imports the standard library only, so that anything may import it."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

API_KEY = "simulator-key"
API_SECRET = "simulator-secret"
TRADING_KEY = "simulator-trading-key"
TRADING_SECRET = "simulator-trading-secret"

ROOT = Path(__file__).resolve().parents[2]


class SimulatorProcess:
    """A simulator in a process of its own, which ends when its stdin does, so also when this process dies.

    Invariant: after `stop`, or a `start` that failed, no child is left. Blocking: from asyncio, use asyncio.to_thread.
    """

    def __init__(self, *options: str, port: int = 0, environment: Mapping[str, str] | None = None) -> None:
        """`options` are further arguments of `python -m server.simulator`; port 0 picks a free one.

        Its `environment` is this process's, unless another one is given.
        """
        self.options, self.port, self._environment = options, port, environment
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def _command(self) -> Iterable[str]:
        yield from (sys.executable, "-m", "server.simulator", "--port", str(self.port), "--exit-with-parent")
        yield from self.options

    def start(self, timeout_s: float = 20.0) -> str:
        """Starts it and gives its URL once it serves. Raises RuntimeError if it ends or stays silent instead."""
        if self.poll() is None and self._process is not None:
            return self.url
        self._process = subprocess.Popen(
            list(self._command()),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
        )
        try:
            self.url = _ready_url(self._process, timeout_s)
        except BaseException:
            self.stop(timeout_s=0.0)
            raise
        return self.url

    def poll(self) -> int | None:
        """Its exit code, None while it runs or was never started."""
        return None if self._process is None else self._process.poll()

    def stop(self, timeout_s: float = 5.0) -> int | None:
        """Ends it, at the latest after `timeout_s` by force, and gives its exit code. Idempotent."""
        process = self._process
        if process is None:
            return None
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        return process.returncode

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _ready_url(process: subprocess.Popen[bytes], timeout_s: float) -> str:
    """The URL in the one line that a simulator prints. A thread reads it: pipes have no timeout on every platform."""
    stdout = process.stdout
    assert stdout is not None
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
    try:
        line = lines.get(timeout=timeout_s)
    except queue.Empty:
        raise RuntimeError(f"the simulator was not ready after {timeout_s} s") from None
    if not line:
        raise RuntimeError(f"the simulator ended with code {process.wait()} before it was ready")
    return str(json.loads(line)["url"])
