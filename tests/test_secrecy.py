"""Secrets from outside: what the system, the answers and the log show of a gateway that has some."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from server.environment import without
from server.simulator.child import API_KEY, API_SECRET
from tests.certificates import make_files
from tests.conftest import Exchange
from tests.processes import ROOT, children_of, clean_environment, keep, keys
from tests.test_cli import output
from tests.test_supervisor import crew

TOKEN = "canary-token-4-of-ours"
PATHS = {
    **dict.fromkeys(("/metrics", "/connections", "/health", "/balance", "/asyncapi.json"), (200, 401)),
    "/": (200, 200),
    f"/{TOKEN}": (404, 401),
    f"/price/BTCUSDT?token={TOKEN}": (400, 401),
}
"""What is asked, and the answers with the token and with a wrong one."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")


@pytest.fixture(autouse=True)
def blockbuster() -> None:
    """The loop here only watches processes, and may read their files."""


def family(pid: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield pid
    for child in children_of(pid):
        yield from family(child)


def shown_by_the_system(pid: int) -> str:
    """The command lines and environments of a process and of all that it has started."""
    files = [Path(f"/proc/{one}/{name}") for one in family(pid) for name in ("cmdline", "environ")]
    return "\n".join(path.read_bytes().decode(errors="replace") for path in files)


@pytest.mark.parametrize("is_in_files", [False, True], ids=["variables", "files"])
async def test_secrets_are_shown_nowhere(exchange: Exchange, tmp_path: Path, is_in_files: bool) -> None:
    """No command line, no environment, no answer and no line has one, also after a reload, which still finds them."""
    secrets = {"BYBIT_API_KEY": API_KEY, "BYBIT_API_SECRET": API_SECRET, "GATEWAY_TOKENS": TOKEN}
    files = make_files(tmp_path)
    environment = {**keys(exchange), **secrets, **files.environment, "LOG_LEVEL": "debug"}
    if is_in_files:
        for name, secret in secrets.items():
            keep(tmp_path / name, secret)
            environment[f"{name}_FILE"] = str(tmp_path / name)
            del environment[name]
    hidden = [*secrets.values(), *files.key.read_text().splitlines()[1:3]]
    connector = aiohttp.TCPConnector(ssl=files.trusting())
    async with (
        crew(2, **environment) as gateway,
        aiohttp.ClientSession(gateway.url, connector=connector) as http,
    ):
        shown = shown_by_the_system(gateway.process.pid)
        assert shown.count("--post") == 2
        assert ("BYBIT_API_KEY_FILE" if is_in_files else "BYBIT_API_KEY=") in shown
        gateway.process.send_signal(signal.SIGHUP)
        await gateway.event("reloading")
        await gateway.event("reloaded")
        shown += shown_by_the_system(gateway.process.pid)
        for path, statuses in PATHS.items():
            for token, status in zip((TOKEN, TOKEN[:-1]), statuses, strict=True):
                async with http.get(path, headers={"Authorization": f"Bearer {token}"}) as response:
                    assert response.status == status
                    shown += await response.text() + str(response.headers)
        assert await gateway.end() == 0
    shown += "".join(gateway.lines)
    shown += "".join(map(str, await output("--check", **environment)))
    assert [secret for secret in hidden if secret in shown] == []


async def test_no_image_of_the_memory_is_left(exchange: Exchange) -> None:
    """Workers make no core dumps: what hangs is aborted, and would leave one with the key in it."""
    async with crew(1, "--profile", "production", **keys(exchange), GATEWAY_TOKENS=TOKEN, HOST="127.0.0.1") as gateway:
        limits = Path(f"/proc/{gateway.pids()[0]}/limits").read_text()
        (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
        assert line.split()[4] == "0"


CRASH = """
import gc, sys, threading
from server import cli

class Dies:
    def __del__(self):
        raise ValueError("a destructor said canary-secret-5")

def crash(*_, **__):
    def fail():
        raise LookupError("a thread said canary-secret-5")
    thread = threading.Thread(target=fail, name="one")
    thread.start()
    thread.join()
    Dies()
    gc.collect()
    raise RuntimeError("somebody said canary-secret-5") from OSError("because of canary-secret-5")

cli._serve = crash
sys.exit(cli.main([]))
"""


async def test_crashes_are_lines_of_the_log(exchange: Exchange) -> None:
    """What nobody catches, in the main thread, another one or a destructor, is logged, its traceback redacted."""
    environment = {**keys(exchange), "BYBIT_API_SECRET": "canary-secret-5"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CRASH,
        cwd=ROOT,
        env=clean_environment(**environment),
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        _, err = await process.communicate()
    lines = [json.loads(line) for line in err.splitlines()]
    assert process.returncode == 1
    assert [line["event"] for line in lines] == ["thread_crashed", "destructor_crashed", "crashed"]
    assert "a thread said ***" in lines[0]["exception"]
    assert "a destructor said ***" in lines[1]["exception"]
    assert "because of ***" in lines[2]["exception"]
    assert "somebody said ***" in lines[2]["exception"]
    assert b"canary" not in err


def test_children_do_not_inherit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is named is left out, everything else stays."""
    monkeypatch.setenv("BYBIT_API_SECRET", "secret")
    inherited = without({"BYBIT_API_SECRET"})
    assert "BYBIT_API_SECRET" not in inherited
    assert inherited == {name: value for name, value in os.environ.items() if name != "BYBIT_API_SECRET"}
