"""The supervisor, from outside: spreading, successors, reloads, ends; and its rules by themselves."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from server import __version__
from server.access.tokens import hash_of
from server.api.load import Load
from server.api.ws import spread_s
from server.processes.listeners import bind_each, close_each
from server.processes.post import (
    Assignment,
    Post,
    Rekey,
    Rekeyed,
    Release,
    decode_assignment,
    encode,
    encode_assignment,
)
from server.processes.restarts import MOST_STILLBORN, Backoff, Stillbirths
from server.processes.signals import Signals
from server.processes.slot import Slot
from server.processes.supervisor import ASLEEP_S, is_only_another_key, neighbour, with_fixed
from server.settings import AuthSettings, BybitSettings, Secret, ServerSettings, Settings
from server.simulator.child import API_KEY, API_SECRET, TRADING_KEY, TRADING_SECRET
from tests.conftest import Exchange, closing, receive
from tests.processes import ROOT, GatewayProcess, children_of, gone, keep, keys, launch, running, state_of

KEPT, REVOKED = "a-token-that-is-kept-0123", "a-token-that-is-revoked-0123"
SOCKET = "/ws/positions/BTCUSDT?interval=60"

Sabotage = Callable[[int | None], dict[str, str]]

ASK = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
ASK_ONCE = ASK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
SABOTAGE = """
import os, pathlib, sys
flag = pathlib.Path({flag!r})
if "--post" in sys.orig_argv and flag.exists():
    os._exit(int(flag.read_text()))
"""

SLOW = """
import os, pathlib, sys, time
flag = pathlib.Path({flag!r})
while "--post" in sys.orig_argv and flag.exists():
    time.sleep(0.05)
"""

HANGING = """
import signal, time
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(60))
"""


@pytest.fixture(autouse=True)
def blockbuster() -> None:
    """The loop here only watches processes, and may read their files."""


class Crew(GatewayProcess):
    """A gateway with workers: its log by event, and the workers that live."""

    async def event(self, name: str, times: int = 1, **data: Any) -> dict[str, Any]:
        """The line of that event and these data that comes `times` from now on."""
        for _ in range(times):
            while True:
                line = await self.line(name)
                if data.items() <= line.items():
                    break
        return line

    def pids(self) -> dict[int, int]:
        """The process of each worker that was last ready."""
        events = [json.loads(line) for line in self.lines]
        return {event["worker"]: event["pid"] for event in events if event["event"] == "worker_ready"}


@contextlib.asynccontextmanager
async def crew(workers: int, /, *arguments: str, **environment: str) -> AsyncIterator[Crew]:
    """A gateway of which all workers are ready; killed at the end if it still runs, and then none is left."""
    gateway = Crew(await launch(*arguments, "--workers", str(workers), **environment))
    try:
        gateway.url = (await gateway.event("supervising"))["address"]
        await gateway.event("worker_ready", times=workers)
        yield gateway
    finally:
        children = children_of(gateway.process.pid)
        with contextlib.suppress(ProcessLookupError):
            gateway.process.kill()
        await gone(children)
        async with asyncio.timeout(10):
            await gateway.process.communicate()  # to the end of the log, which workers hold open too


@pytest.fixture
def sabotage(tmp_path: Path) -> Sabotage:
    """Let workers that start from now on end at once with a code, or with None no more; gives the environment."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(SABOTAGE.format(flag=str(tmp_path / "flag")))

    def set_code(code: int | None) -> dict[str, str]:
        if code is None:
            (tmp_path / "flag").unlink(missing_ok=True)
        else:
            (tmp_path / "flag").write_text(str(code))
        return {"PYTHONPATH": str(tmp_path / "path")}

    return set_code


def listening_on(port: int) -> int:
    """How many sockets of this machine listen on `port`."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(local.endswith(f":{port:04X}") and state == "0A" for _, local, _, state, *_ in lines)


async def fresh(url: str, path: str = "/health") -> Any:
    """The answer over a connection of its own."""
    async with aiohttp.ClientSession(url) as http, http.get(path) as response:
        assert response.status == 200
        return await response.json()


async def workers_seen(url: str) -> set[int]:
    """Which workers answer, over many connections."""
    answers = await asyncio.gather(*(fresh(url) for _ in range(24)))
    return {answer["worker"]["index"] for answer in answers}


async def test_two_workers_serve_and_end(exchange: Exchange) -> None:
    """Connections spread, each worker has its share, logs tell whose they are, and SIGTERM closes all with 1001."""
    async with crew(2, **keys(exchange)) as gateway, aiohttp.ClientSession(gateway.url) as http:
        assert await workers_seen(gateway.url) == {0, 1}
        health = await fresh(gateway.url)
        assert health["worker"]["of"] == 2
        assert health["budget_left"]["address"] <= 240
        sockets = [await http.ws_connect("/ws/positions/BTCUSDT?interval=1") for _ in range(12)]
        for ws in sockets:
            await receive(ws)
        ending = asyncio.create_task(gateway.end())
        assert [(await closing(ws))[0] for ws in sockets] == [1001] * 12
        assert await ending == 0
        ended = [json.loads(line) for line in gateway.lines if '"connection_ended"' in line]
        assert {line["worker"] for line in ended} == {0, 1}
        with pytest.raises(aiohttp.ClientConnectorError):
            await fresh(gateway.url)


async def test_a_dead_workers_queue_is_served(exchange: Exchange, sabotage: Sabotage) -> None:
    """Who waits for a worker that dies is answered by the neighbour while no successor comes, and then by that."""
    async with crew(2, **keys(exchange), **sabotage(None)) as gateway:
        victim = gateway.pids()[0]
        async with queued(gateway.url, victim) as answers:
            sabotage(7)
            os.kill(victim, signal.SIGKILL)
            assert all(b'"index":1' in answer for answer in await answers())
        assert await workers_seen(gateway.url) == {1}
        sabotage(None)
        assert (await gateway.event("worker_ready"))["worker"] == 0
        async with asyncio.timeout(5):
            while await workers_seen(gateway.url) != {0, 1}:
                pass
        assert await gateway.end() == 0


async def test_a_worker_that_leaves_resets_nobody(exchange: Exchange) -> None:
    """Who waits for a worker, or asks it, as it begins to drain is answered by it or by those after it."""
    async with crew(2, **keys(exchange)) as gateway:
        leaving = gateway.pids()[0]
        done, counts = asyncio.Event(), Counter[str]()
        load = [asyncio.create_task(asking(gateway.url, done, counts, kept=kept)) for kept in (True, False) * 4]
        async with queued(gateway.url, leaving) as answers:
            os.kill(leaving, signal.SIGTERM)
            os.kill(leaving, signal.SIGCONT)
            await answers()
        assert (await gateway.event("worker_ready"))["worker"] == 0
        done.set()
        await asyncio.gather(*load)
        assert counts["crossed"] <= 2
        assert counts["crossed"] <= 2
        assert await gateway.end() == 0


@contextlib.asynccontextmanager
async def queued(url: str, worker: int) -> AsyncIterator[Callable[[], Awaitable[list[bytes]]]]:
    """Connections that ask while a worker is stopped, so that some wait in its queue; gives their answers, all fine."""
    os.kill(worker, signal.SIGSTOP)
    async with asyncio.timeout(5):
        while state_of(worker) != "T":
            await asyncio.sleep(0.01)
    connections = [await asyncio.open_connection(*address(url)) for _ in range(24)]
    for _, writer in connections:
        writer.write(ASK_ONCE)

    async def answers() -> list[bytes]:
        async with asyncio.timeout(10):
            texts = [await reader.read() for reader, _ in connections]
        assert all(text.startswith(b"HTTP/1.1 200 ") for text in texts)
        return texts

    yield answers
    for _, writer in connections:
        writer.close()


async def test_a_reload_drops_nothing(exchange: Exchange, tmp_path: Path) -> None:
    """SIGHUP under load: bad settings change nothing; good ones come worker by worker, and no request fails."""
    config = tmp_path / "config.toml"
    config.write_text("[indicators]\nmax_results = 5\n")
    async with (
        crew(2, "--config", str(config), **keys(exchange)) as gateway,
        aiohttp.ClientSession(gateway.url) as http,
    ):
        first = gateway.pids()
        config.write_text("[indicators]\nmax_results = 0\n[log]\nlevel = 'loud'\n")
        gateway.process.send_signal(signal.SIGHUP)
        refused = [await gateway.event("reload_refused") for _ in range(2)]
        assert "max_results" in refused[0]["detail"]
        assert "level" in refused[1]["detail"]
        assert gateway.pids() == first

        assert await gateway_answers(gateway.url, results=6) == {400}
        config.write_text("[server]\nbacklog = 100\n[indicators]\nmax_results = 6\n")
        sockets = [await http.ws_connect("/ws/positions/BTCUSDT?interval=0.5") for _ in range(8)]
        ends = asyncio.gather(*(closing(ws, timeout_s=20) for ws in sockets))
        done, counts = asyncio.Event(), Counter[str]()
        load = [asyncio.create_task(asking(gateway.url, done, counts, kept=kept)) for kept in (True, False) * 8]
        gateway.process.send_signal(signal.SIGHUP)
        await gateway.event("reloaded")
        assert await gateway_answers(gateway.url, results=7) == {400}
        done.set()
        await asyncio.gather(*load)
        assert [code for code, _ in await ends] == [1001] * 8
        assert min(counts["kept"], counts["new"]) > 100
        assert counts["crossed"] <= 2
        assert set(gateway.pids().values()).isdisjoint(first.values())
        assert [json.loads(line)["event"] for line in gateway.lines].count("worker_ended") == 2
        await gone(list(first.values()))
        assert await gateway.end() == 0


async def gateway_answers(url: str, *, results: int) -> set[int]:
    """The statuses of a question for so many results, over many connections."""

    async def status() -> int:
        async with aiohttp.ClientSession(url) as http, http.get(f"/indicators/BTCUSDT?results={results}") as response:
            return response.status

    return set(await asyncio.gather(*(status() for _ in range(10))))


async def asking(url: str, done: asyncio.Event, counts: Counter[str], *, kept: bool) -> None:
    """Ask without a pause, over new connections or one that is kept while the gateway does; nothing is asked twice.

    What is counted as crossed is a request that met the end of an idle connection; any other failure is raised.
    """
    connection = None
    while not done.is_set():
        is_new = connection is None
        reader, writer = connection or await asyncio.open_connection(*address(url))
        writer.write(ASK if kept else ASK_ONCE)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            assert not is_new, "a new connection was dropped"
            counts["crossed"] += 1
            connection = None
            continue
        assert head.startswith(b"HTTP/1.1 200 ")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
        is_over = b"connection: close" in head.lower()
        counts["kept" if kept else "new"] += 1
        connection = None if is_over else (reader, writer)
        if is_over:
            writer.close()
    if connection is not None:
        connection[1].close()


def address(url: str) -> tuple[str, int]:
    """Host and port of a URL."""
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)


async def test_a_reload_opens_nothing(exchange: Exchange, tmp_path: Path) -> None:
    """Settings that are fine for another host only are refused where the host stays: the account would be open."""
    config = tmp_path / "config.toml"
    token = "0" * 64
    config.write_text(f"[server]\nhost = '0.0.0.0'\n[auth]\ntokens = ['{token}']\n")
    environment = keys(exchange) | {"BYBIT_ENVIRONMENT": "mainnet"}
    async with crew(2, "--config", str(config), **environment) as gateway:
        config.write_text("[server]\nhost = '127.0.0.1'\n")
        gateway.process.send_signal(signal.SIGHUP)
        assert (await gateway.event("reload_leaves_out"))["setting"] == "server.host"
        assert "without a token" in (await gateway.event("reload_refused"))["detail"]
        port = gateway.url.rpartition(":")[2]
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http, http.get("/balance") as response:
            assert response.status == 401
        assert await gateway.end() == 0


async def test_a_reload_that_fails_keeps_what_runs(exchange: Exchange, sabotage: Sabotage) -> None:
    """A successor that does not become ready ends the roll, and its predecessor goes on."""
    async with crew(2, **keys(exchange), **sabotage(None)) as gateway:
        first = gateway.pids()
        sabotage(2)
        gateway.process.send_signal(signal.SIGHUP)
        assert (await gateway.event("reload_stopped"))["worker"] == 0
        assert await workers_seen(gateway.url) == {0, 1}
        assert gateway.pids() == first
        sabotage(None)
        gateway.process.send_signal(signal.SIGHUP)
        await gateway.event("reloaded")
        assert set(gateway.pids().values()).isdisjoint(first.values())
        assert await gateway.end() == 0


async def test_another_key_closes_no_socket(exchange: Exchange, tmp_path: Path) -> None:
    """SIGHUP with nothing new but the key: workers take it and go on; one that Bybit does not know changes nothing."""
    key, secret = tmp_path / "key", tmp_path / "secret"
    files = {"BYBIT_API_KEY_FILE": str(key), "BYBIT_API_SECRET_FILE": str(secret)}
    environment = {"BYBIT_ENVIRONMENT": "simulator", "BYBIT_REST_URL": exchange.url, **files}

    async def rotate(new_key: str, new_secret: str, event: str) -> None:
        keep(key, new_key)
        keep(secret, new_secret)
        gateway.process.send_signal(signal.SIGHUP)
        assert {(await gateway.event(event))["worker"] for _ in range(2)} == {0, 1}

    keep(key, API_KEY)
    keep(secret, API_SECRET)
    async with crew(2, **environment) as gateway, aiohttp.ClientSession(gateway.url) as http:
        pids = gateway.pids()
        async with http.ws_connect("/ws/positions/BTCUSDT?interval=0.5") as ws:
            await receive(ws)
            await rotate("nobodys-key", "nobodys-secret", "key_not_changed")
            await rotate(TRADING_KEY, TRADING_SECRET, "key_changed")
            for _ in range(3):
                assert (await receive(ws))["stale"] == []
        assert (await fresh(gateway.url))["key"]["read_only"] is False
        assert gateway.pids() == pids
        assert await gateway.end() == 0
    for text in ("nobodys-", TRADING_KEY, TRADING_SECRET):
        assert not any(text in line for line in gateway.lines)


async def test_giving_up(exchange: Exchange, sabotage: Sabotage) -> None:
    """Workers that die before they are ready are given up after five; one that refuses its settings ends it with 2."""
    for code, expected, starts in ((7, 1, MOST_STILLBORN), (2, 2, 1)):
        gateway = Crew(await launch("--workers", "2", **keys(exchange), **sabotage(code)))
        async with asyncio.timeout(15):
            _, err = await gateway.process.communicate()
        events = [json.loads(line) for line in err.decode().splitlines()]
        assert gateway.process.returncode == expected
        assert [event["event"] for event in events].count("giving_up") == 1
        assert sum(event.get("code") == code for event in events) >= starts
        assert "Traceback" not in err.decode()


async def test_a_killed_supervisor_leaves_nobody() -> None:
    """Workers and simulator end by themselves when the supervisor is killed, and sockets are told."""
    async with crew(2) as gateway, aiohttp.ClientSession(gateway.url) as http:
        children = children_of(gateway.process.pid)
        assert len(children) == 3
        async with http.ws_connect("/ws/positions/BTCUSDT?interval=1") as ws:
            await receive(ws)
            gateway.process.kill()
            assert (await closing(ws))[0] == 1001
        await gone(children)


async def test_a_worker_that_hangs_does_not_outlive_it(exchange: Exchange, tmp_path: Path) -> None:
    """A worker whose loop hangs ends too when its supervisor is killed: a thread sees to it."""
    (tmp_path / "sitecustomize.py").write_text(HANGING)
    environment = keys(exchange) | {"PYTHONPATH": str(tmp_path), "GATEWAY__SERVER__SHUTDOWN_S": "0.5"}
    async with crew(1, "--reload", **environment) as gateway:
        worker = gateway.pids()[0]
        os.kill(worker, signal.SIGUSR1)
        gateway.process.kill()
        await gone([worker], timeout_s=5)


async def test_a_worker_that_hangs_is_replaced(exchange: Exchange, tmp_path: Path) -> None:
    """Of two workers, one hangs and one is stopped: both have successors soon, and the log shows where the one hung."""
    (tmp_path / "sitecustomize.py").write_text(HANGING)
    environment = keys(exchange) | {"PYTHONPATH": str(tmp_path), "GATEWAY__SERVER__HANG_S": "1"}
    async with crew(2, **environment) as gateway:
        former = gateway.pids()
        os.kill(former[0], signal.SIGUSR1)
        os.kill(former[1], signal.SIGSTOP)
        await gateway.event("worker_ready", times=2)
        assert {gateway.pids()[index] for index in (0, 1)}.isdisjoint(former.values())
        assert await workers_seen(gateway.url) == {0, 1}
        hung = [json.loads(line) for line in gateway.lines if '"worker_hung"' in line]
        assert {line["pid"] for line in hung} == set(former.values())
        ended = [json.loads(line) for line in gateway.lines if '"worker_ended"' in line]
        assert "sitecustomize.py" in next(line["stack"] for line in ended if line["pid"] == former[0])
        assert await gateway.end() == 0


async def test_a_worker_that_works_is_left_alone(exchange: Exchange) -> None:
    """Signs of life keep a worker, however short the time for them, and a pause of the supervisor harms none."""
    async with crew(2, **keys(exchange), GATEWAY__SERVER__HANG_S="1") as gateway:
        former = gateway.pids()
        for pid in (gateway.process.pid, *former.values()):
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(ASLEEP_S + 0.5)
        for pid in (gateway.process.pid, *former.values()):
            os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(2)
        assert await workers_seen(gateway.url) == {0, 1}
        assert not [line for line in gateway.lines if '"worker_hung"' in line]
        assert await gateway.end() == 0
        assert not [line for line in gateway.lines if '"worker_hung"' in line]


async def test_the_second_signal_is_the_last(exchange: Exchange) -> None:
    """A drain that takes its time is cut short by another SIGTERM, and nobody is left."""
    await exchange.fault("position", hang=True)
    environment = keys(exchange) | {"GATEWAY__SERVER__SHUTDOWN_S": "30"}
    async with crew(2, **environment) as gateway, aiohttp.ClientSession(gateway.url) as http:
        children = children_of(gateway.process.pid)
        asking = asyncio.create_task(http.get("/positions/BTCUSDT"))
        async with asyncio.timeout(5):
            while not (await exchange.calls()).get("/v5/position/list"):
                await asyncio.sleep(0.02)
        gateway.process.send_signal(signal.SIGTERM)
        await gateway.event("draining")
        started = time.monotonic()
        assert await gateway.end() == 1
        assert time.monotonic() - started < 3
        await gone(children)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_interrupt_is_short_and_clean(exchange: Exchange) -> None:
    """SIGINT closes sockets with 1001 and ends with 0 at once, whatever time a drain would have."""
    environment = keys(exchange) | {"GATEWAY__SERVER__SHUTDOWN_S": "60"}
    async with crew(2, **environment) as gateway, aiohttp.ClientSession(gateway.url) as http:
        async with http.ws_connect("/ws/positions/BTCUSDT?interval=1") as ws:
            await receive(ws)
            started = time.monotonic()
            ending = asyncio.create_task(gateway.end(signal.SIGINT))
            assert (await closing(ws))[0] == 1001
        assert await ending == 0
        assert time.monotonic() - started < 3


async def test_modules_that_change_reload(exchange: Exchange, tmp_path: Path) -> None:
    """With --reload a changed module starts the worker anew, which runs what it says now; other files do nothing."""
    shutil.copytree(ROOT / "server", tmp_path / "server", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("run.py", "config.toml"):
        shutil.copy(ROOT / name, tmp_path)
    version = tmp_path / "server" / "__init__.py"
    async with crew(1, "--reload", FOLDER=str(tmp_path), **keys(exchange)) as gateway:
        (tmp_path / "server" / "notes.txt").write_text("nothing to run")
        version.write_text(version.read_text().replace(__version__, "9.8.7"))
        assert (await gateway.event("files_changed"))["paths"] == [str(version)]
        await gateway.event("reloaded")
        assert (await fresh(gateway.url))["version"] == "9.8.7"
        assert await gateway.end() == 0


async def test_one_socket_for_all_where_none_can_be_shared(exchange: Exchange, tmp_path: Path) -> None:
    """Without SO_REUSEPORT all workers accept on one socket: both serve, one that dies is replaced, and all end."""
    (tmp_path / "sitecustomize.py").write_text("import socket\ndel socket.SO_REUSEPORT\n")
    async with crew(2, PYTHONPATH=str(tmp_path), **keys(exchange)) as gateway:
        assert listening_on(int(gateway.url.rpartition(":")[2])) == 1
        assert (await fresh(gateway.url))["worker"]["of"] == 2
        for _ in range(2):
            victim = (await fresh(gateway.url))["worker"]["index"]
            os.kill(gateway.pids()[victim], signal.SIGKILL)
            await gateway.event("worker_ready", worker=victim)
        assert (await fresh(gateway.url))["status"] == "ok"
        assert await gateway.end() == 0


async def test_files_that_change_reload(exchange: Exchange, tmp_path: Path) -> None:
    """With --reload a changed configuration starts the one worker anew, on the same socket."""
    config = tmp_path / "config.toml"
    config.write_text("")
    async with crew(1, "--reload", "--config", str(config), **keys(exchange)) as gateway:
        first = gateway.pids()
        config.write_text("[indicators]\nmax_results = 6\n")
        assert (await gateway.event("files_changed"))["paths"] == [str(config)]
        await gateway.event("reloaded")
        assert await gateway_answers(gateway.url, results=7) == {400}
        assert gateway.pids() != first
        assert await gateway.end() == 0


async def test_reload_is_for_development() -> None:
    """--reload in production is refused in a sentence."""
    process = await launch("--profile", "production", "--reload", GATEWAY_TOKENS="a-token-of-sixteen")
    async with asyncio.timeout(15):
        _, err = await process.communicate()
    assert process.returncode == 2
    assert err.startswith(b"--reload: ")


async def test_revoked_sockets_end_in_every_worker(exchange: Exchange, tmp_path: Path) -> None:
    """SIGHUP with nothing new but the tokens: whose is gone gets 4401, nobody else is closed, no worker is replaced."""
    config = tmp_path / "config.toml"
    hashes = [hash_of(token) for token in (KEPT, REVOKED)]
    config.write_text(f"[auth]\ntokens = {hashes}\n")
    others = [f'{{ name = "{number}", hash = "{hash_of(str(number))}" }}' for number in range(2000)]
    async with crew(2, "--config", str(config), **keys(exchange)) as gateway:
        async with aiohttp.ClientSession(gateway.url) as http:
            kept = [await http.ws_connect(SOCKET, headers=bearer(KEPT)) for _ in range(8)]
            revoked = [await http.ws_connect(SOCKET, headers=bearer(REVOKED)) for _ in range(8)]
            for ws in (*kept, *revoked):
                await receive(ws)
            pids = gateway.pids()
            # More than a socket's buffer holds at once.
            config.write_text(f"[auth]\ntokens = ['{hashes[0]}', {', '.join(others)}]\n")
            gateway.process.send_signal(signal.SIGHUP)
            assert [await closing(ws) for ws in revoked] == [(4401, "the token was revoked")] * 8
            await gateway.event("reloaded")
            for ws in kept:
                await ws.send_json({"op": "ping"})
                await receive(ws, "pong")
            assert gateway.pids() == pids
            os.kill(pids[0], signal.SIGKILL)
            await gateway.event("worker_ready", worker=0)
            for _ in range(12):
                async with aiohttp.ClientSession(gateway.url) as anew:
                    assert (await anew.get("/livez", headers=bearer(REVOKED))).status == 200
                    assert (await anew.get("/balance", headers=bearer(REVOKED))).status == 401
                    assert (await anew.get("/balance", headers=bearer(KEPT))).status == 200
        assert await gateway.end() == 0
        assert REVOKED not in "".join(gateway.lines)


async def test_revoked_sockets_do_not_wait_for_a_roll(exchange: Exchange, tmp_path: Path) -> None:
    """While a successor takes its time, tokens taken back are taken back at once, also by that successor."""
    (tmp_path / "sitecustomize.py").write_text(SLOW.format(flag=str(tmp_path / "slow")))
    tokens = tmp_path / "tokens"
    keep(tokens, f"{KEPT}\n{REVOKED}\n")
    config = tmp_path / "config.toml"
    config.write_text("")
    environment = keys(exchange) | {"GATEWAY_TOKENS_FILE": str(tokens), "PYTHONPATH": str(tmp_path)}
    async with crew(2, "--config", str(config), **environment) as gateway:
        async with aiohttp.ClientSession(gateway.url) as http:
            revoked = [await http.ws_connect(SOCKET, headers=bearer(REVOKED)) for _ in range(8)]
            for ws in revoked:
                await receive(ws)
            (tmp_path / "slow").touch()
            config.write_text("[websocket]\ninterval_s = 7.0\n")
            gateway.process.send_signal(signal.SIGHUP)
            await gateway.event("reloading")
            keep(tokens, KEPT)
            gateway.process.send_signal(signal.SIGHUP)
            assert [await closing(ws) for ws in revoked] == [(4401, "the token was revoked")] * 8
            (tmp_path / "slow").unlink()
            await gateway.event("reloaded")
            for _ in range(12):
                async with aiohttp.ClientSession(gateway.url) as anew:
                    assert (await anew.get("/balance", headers=bearer(REVOKED))).status == 401
        assert await gateway.end() == 0


async def test_one_process_takes_the_tokens_only(exchange: Exchange, tmp_path: Path) -> None:
    """SIGHUP without a supervisor: mistakes change nothing, revoked sockets get 4401, and what is left out is said."""
    config = tmp_path / "config.toml"
    dash = f'{{ name = "dash", hash = "sha256:{hash_of(KEPT)}" }}'

    def write(*tokens: str, more: str = "") -> None:
        config.write_text(f"[auth]\ntokens = [{', '.join(tokens)}]\n{more}")

    write(dash, f'"sha256:{hash_of(REVOKED)}"')
    async with running("--config", str(config), **keys(exchange)) as gateway:
        async with aiohttp.ClientSession(gateway.url) as http:
            kept, revoked = [await http.ws_connect(SOCKET, headers=bearer(token)) for token in (KEPT, REVOKED)]
            for ws in (kept, revoked):
                await receive(ws)
            write('{ name = "dash" }')
            gateway.process.send_signal(signal.SIGHUP)
            assert "hash is missing" in (await gateway.line("reload_refused"))["detail"]
            write(dash, more="[websocket]\ninterval_s = 7.0\n")
            gateway.process.send_signal(signal.SIGHUP)
            assert await closing(revoked) == (4401, "the token was revoked")
            line = await gateway.line("tokens_reloaded")
            assert (line["added"], line["revoked"], line["changed"]) == ([], [hash_of(REVOKED)[:8]], [])
            assert (await gateway.line("reload_leaves_out"))["level"] == "warning"
            await kept.send_json({"op": "ping"})
            await receive(kept, "pong")
            await kept.close()
            assert (await http.get("/balance", headers=bearer(KEPT))).status == 200
        assert await gateway.end() == 0
        assert [json.loads(line)["token"] for line in gateway.lines if '"/balance"' in line] == ["dash"]
        ended = [json.loads(line) for line in gateway.lines if '"connection_ended"' in line]
        assert {(line["token"], line["code"]) for line in ended} == {(hash_of(REVOKED)[:8], 4401), ("dash", 1000)}
        assert hash_of(KEPT) not in "".join(gateway.lines)


def bearer(token: str) -> dict[str, str]:
    """The header that shows a token."""
    return {"Authorization": f"Bearer {token}"}


def test_backoff_is_for_the_young() -> None:
    """Short lives double the wait up to a limit; a long one is followed at once, and forgives."""
    backoff = Backoff()
    assert [backoff.wait_s(1.0) for _ in range(6)] == [0.5, 1, 2, 4, 8, 8]
    assert [backoff.wait_s(lived_s) for lived_s in (5.0, 4.9)] == [0.0, 0.5]


def test_stillbirths_count_in_a_row() -> None:
    """One that becomes ready begins the count anew."""
    stillbirths = Stillbirths()
    for _ in range(MOST_STILLBORN - 1):
        stillbirths.died_early()
    stillbirths.ready()
    stillbirths.died_early()
    assert (stillbirths.in_a_row, stillbirths.has_any_been_ready, stillbirths.are_too_many) == (1, True, False)


def test_neighbour_is_the_next_around() -> None:
    """The one after it, past the last one too, or nobody."""
    assert neighbour(0, {1, 2}, 3) == 1
    assert neighbour(2, {0, 1}, 3) == 0
    assert neighbour(1, {0}, 3) == 0
    assert neighbour(1, (), 3) is None


def test_what_only_a_restart_changes() -> None:
    """Address and number of workers stay as they are, and are named."""
    running = Settings(server=ServerSettings(port=1, workers=2, backlog=10))
    loaded = Settings(server=ServerSettings(port=2, workers=2, backlog=20))
    assert with_fixed(loaded, running) == (Settings(server=ServerSettings(port=1, workers=2, backlog=20)), ["port"])


def test_a_drain_is_spread_within_its_time() -> None:
    """Few sockets are closed at once; many at 2,000 a second of all processes; at most over half of the time."""
    assert spread_s(0, 5.0, of=1) == 0
    assert spread_s(1000, 5.0, of=1) == 0.5
    assert spread_s(1000, 5.0, of=4) == 2.0
    assert spread_s(100_000, 5.0, of=1) == 2.5
    assert spread_s(100_000, 60.0, of=1) == 30.0
    assert spread_s(100_000, 1.0, of=1) == 0


def test_limits_are_shared_out() -> None:
    """Each worker has its part of both limits, rounded up."""
    load = Load(max_requests=100, max_sockets=10, worker=1, of=3)
    assert (load.max_requests, load.max_sockets) == (34, 4)


def test_sockets_leave_descriptors_for_the_rest() -> None:
    """Where the system allows few descriptors there are fewer sockets, and it is known; one at least."""

    def capped(descriptors: int | None) -> tuple[int, bool]:
        load = Load(max_requests=100, max_sockets=1000, descriptors=descriptors)
        return load.max_sockets, load.is_short_of_descriptors

    cases = {None: (1000, False), 20_000: (1000, False), 1024: (724, True), 100: (50, True), 1: (1, True)}
    assert {descriptors: capped(descriptors) for descriptors in cases} == cases


def test_what_is_only_another_key() -> None:
    """Only where every worker had a key, one will have, and nothing else is new."""

    def settings(key: str | None, **more: Any) -> Settings:
        pair: dict[str, Any] = {"api_key": Secret(key), "api_secret": Secret("s")} if key else {}
        return Settings(bybit=BybitSettings(**pair, **more))

    assert is_only_another_key([settings("a"), settings("a")], settings("b"))
    assert is_only_another_key([settings("a"), settings("b")], settings("b"))
    assert not is_only_another_key([settings("a")], settings("a"))
    assert not is_only_another_key([settings(None)], settings("b"))
    assert not is_only_another_key([settings("a")], settings(None))
    assert not is_only_another_key([settings("a")], settings("b", ban_s=1.0))


def test_a_report_of_a_former_key_is_past() -> None:
    """Where one order follows another, only what is said of the last one counts."""

    class Worker:
        key_report: Rekeyed | None = None

        def order(self, order: Rekey) -> None:
            orders.append(order)

    def settings(key: str) -> Settings:
        return Settings(bybit=BybitSettings(api_key=Secret(key), api_secret=Secret("s")))

    orders: list[Rekey] = []
    slot = Slot(0, settings("a"))
    slot.current = worker = Worker()  # type: ignore[assignment]
    for key in ("b", "c"):
        slot.rekey(settings(key))
    for order, is_taken in zip(orders, (True, False), strict=True):
        worker.key_report = Rekeyed(order.number, is_taken)
        slot.heed_key_report()
        assert slot.settings == settings("a")
    assert slot.rekeyed is None
    slot.rekey(settings("d"))
    worker.key_report = Rekeyed(orders[-1].number, True)
    slot.heed_key_report()
    assert slot.settings == settings("d")


def test_an_assignment_carries_secrets_and_nothing_else_does() -> None:
    """Settings arrive as they were over the channel; an encoder without that purpose refuses them."""
    secret = Secret("canary-secret")
    settings = Settings(
        bybit=BybitSettings(api_key=Secret("a-key"), api_secret=secret), auth=AuthSettings(token_secrets=(secret,))
    )
    assignment = Assignment(index=3, of=4, settings=settings, descriptors=(7, 8, 9, 10), last_words=11)
    line = encode_assignment(assignment)
    assert line.count(b"\n") == 1
    assert decode_assignment(line) == assignment
    assert assignment.own == 3
    assert "canary" not in repr(assignment)
    with pytest.raises(TypeError):
        msgspec.json.encode(assignment)


def test_a_post_tells_the_end_from_an_order() -> None:
    """Waiting for the end of the supervisor is over when its end of the channel closes, and not before."""
    theirs, ours = socket.socketpair()
    theirs.sendall(encode_assignment(Assignment(index=0, of=1, settings=Settings(), descriptors=(), last_words=0)))
    post = Post(ours)
    waiting = threading.Thread(target=post.wait_for_end, daemon=True)
    waiting.start()
    theirs.sendall(encode(Release(0)))
    waiting.join(0.1)
    assert waiting.is_alive()
    theirs.close()
    waiting.join(5)
    assert not waiting.is_alive()
    ours.close()


def test_listeners_share_an_address_with_nobody_else() -> None:
    """Each worker has a socket on one port; where somebody else listens, also sharing, there is none."""
    settings = Settings(server=ServerSettings(port=0, workers=3))
    listeners = bind_each(settings)
    try:
        (port,) = {listener.getsockname()[1] for listener in listeners}
        assert len(listeners) == 3
        with pytest.raises(OSError, match="in use"):
            bind_each(Settings(server=ServerSettings(port=port, workers=2)))
    finally:
        close_each(listeners)


def test_signals_are_taken_in_order() -> None:
    """What comes while entered is read, not acted upon; then it is as before."""
    before = signal.getsignal(signal.SIGHUP)
    with Signals() as signals:
        assert signals.take() == []
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.take() == [signal.SIGHUP, signal.SIGTERM]
    assert signal.getsignal(signal.SIGHUP) is before
