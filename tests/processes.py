"""The gateway as a process of its own, started as a user starts it."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from server.simulator.child import API_KEY, API_SECRET
from tests.conftest import Exchange

ROOT = Path(__file__).parents[1]


def keys(exchange: Exchange) -> dict[str, str]:
    """The environment of a gateway on the test's exchange."""
    return {
        "BYBIT_ENVIRONMENT": "simulator",
        "BYBIT_REST_URL": exchange.url,
        "BYBIT_API_KEY": API_KEY,
        "BYBIT_API_SECRET": API_SECRET,
    }


def keep(path: Path, secret: str) -> None:
    """Write a secret into a file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_text(secret)


class GatewayProcess:
    """`python run.py` with its log lines, read as they come."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = ""

    async def line(self, event: str, *, timeout_s: float = 20.0) -> dict[str, Any]:
        """The next log line of that event; lines before it are kept too. Fails where the process ends first."""
        assert self.process.stderr is not None
        async with asyncio.timeout(timeout_s):
            while line := await self.process.stderr.readline():
                self.lines.append(line.decode())
                found: dict[str, Any] = json.loads(line)
                if found["event"] == event:
                    return found
        raise AssertionError(f"the gateway ended before {event}: {self.lines}")

    async def end(self, number: signal.Signals = signal.SIGTERM, *, timeout_s: float = 10.0) -> int:
        """Send the signal and give the exit code; the rest of the log is read."""
        assert self.process.stderr is not None
        self.process.send_signal(number)
        async with asyncio.timeout(timeout_s):
            self.lines.extend((await self.process.stderr.read()).decode().splitlines())
            return await self.process.wait()


async def gone(pids: list[int], *, timeout_s: float = 10.0) -> None:
    """Wait until none of these processes runs, whoever has to bury them."""
    async with asyncio.timeout(timeout_s):
        while any(state_of(pid) not in "XZ" for pid in pids):
            await asyncio.sleep(0.02)


def state_of(pid: int) -> str:
    """The letter of a process's state; X for one that is not there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def children_of(pid: int) -> list[int]:
    """The processes that this one has started."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for child in " ".join(texts).split()]


def clean_environment(**environment: str) -> dict[str, str]:
    """This process's environment without what would configure a gateway, and with what shall."""
    names = ("APP_ENV", "HOST", "PORT", "WORKERS", "UVICORN_WORKERS", "LOG_", "BYBIT_", "GATEWAY_", "REDIS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    return kept | {"PORT": "0", "LOG_FORMAT": "json"} | environment


async def launch(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    """Start `python run.py`; with at most as many descriptors as DESCRIPTORS says, if that is among the variables.

    FOLDER is where the gateway's files are, if not here.
    """
    folder = environment.pop("FOLDER", str(ROOT))
    limit = environment.pop("DESCRIPTORS", "")
    limited = () if not limit else ("sh", "-c", f'ulimit -n {limit} && exec "$0" "$@"')
    return await asyncio.create_subprocess_exec(
        *limited,
        sys.executable,
        "run.py",
        *arguments,
        cwd=folder,
        env=clean_environment(**environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@contextlib.asynccontextmanager
async def running(*arguments: str, **environment: str) -> AsyncIterator[GatewayProcess]:
    """A gateway that serves; killed at the end if it still runs."""
    gateway = GatewayProcess(await launch(*arguments, **environment))
    try:
        gateway.url = (await gateway.line("serving"))["address"]
        yield gateway
    finally:
        with contextlib.suppress(ProcessLookupError):
            gateway.process.kill()
        await gateway.process.wait()
