"""The command line, from outside: start, settings, signals, secrets, and an end that hangs on nothing."""

import asyncio
import hashlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from server import __version__
from server.simulator.child import API_KEY, API_SECRET, ROOT, TRADING_KEY, TRADING_SECRET
from tests.bybit.test_parsing import KEY, OF_THE_USER
from tests.conftest import Exchange, closing, receive
from tests.processes import GatewayProcess, keys, launch, running


async def output(*arguments: str, **environment: str) -> tuple[int | None, str, str]:
    """Exit code, stdout and stderr of a run that ends by itself."""
    process = await launch(*arguments, **environment)
    async with asyncio.timeout(20):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_two_commands_are_enough() -> None:
    """Without any setting it serves its own simulator: the first snapshot comes, and SIGTERM ends both with 0."""
    async with running() as gateway, aiohttp.ClientSession(gateway.url) as http:
        async with http.ws_connect("/ws/positions/BTCUSDT") as ws:
            snapshot = await receive(ws)
            assert (snapshot["exchange"], snapshot["stale"]) == ("simulator", [])
        assert await gateway.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_ends_in_time_with_sockets_open_and_calls_hanging(exchange: Exchange, number: signal.Signals) -> None:
    """With a call to the exchange hanging, every client sees 1001 and the process goes in time."""
    await exchange.fault("position", hang=True)
    async with running(**keys(exchange)) as gateway, aiohttp.ClientSession(gateway.url) as http:
        sockets = [await http.ws_connect("/ws/positions/BTCUSDT?interval=0.5") for _ in range(5)]
        asking = asyncio.create_task(http.get("/positions/BTCUSDT"))
        for ws in sockets:
            await receive(ws)
        started = time.monotonic()
        ending = asyncio.create_task(gateway.end(number))
        assert [(await closing(ws))[0] for ws in sockets] == [1001] * 5
        assert await ending == 0
        assert time.monotonic() - started < 5
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert any('"stopped"' in line for line in gateway.lines)


async def test_simulator_that_dies_comes_back() -> None:
    """The simulator beside the gateway is started again at its address, and prices flow again by themselves."""
    async with running() as gateway, aiohttp.ClientSession(gateway.url) as http:
        started = next(line for line in gateway.lines if "simulator_started" in line)
        assert "http://127.0.0.1:" in started
        async with http.get("/price/BTCUSDT") as response:
            assert response.status == 200
        await stop_children(gateway)
        assert (await gateway.line("simulator_ended"))["level"] == "warning"
        async with asyncio.timeout(15):
            while (await (await http.get("/price/BTCUSDT?max_age_ms=0")).json())["stale"]:
                await asyncio.sleep(0.05)


async def stop_children(gateway: GatewayProcess) -> None:
    """End the gateway's child processes, by their ids."""
    tasks = Path(f"/proc/{gateway.process.pid}/task")
    children = await asyncio.to_thread(lambda: [path.read_text() for path in tasks.glob("*/children")])
    pids = " ".join(children).split()
    assert pids
    for pid in pids:
        os.kill(int(pid), signal.SIGKILL)


async def test_version_and_check() -> None:
    """--version tells it; --check prints the settings with secrets masked, and exits 0."""
    assert await output("--version") == (0, f"{__version__}\n", "")
    code, out, err = await output("--check", BYBIT_API_KEY="canary-key-1", BYBIT_API_SECRET="canary-secret-1")
    assert (code, err) == (0, "")
    assert "mainnet" in out
    assert "canary" not in out


async def test_token_makes_one() -> None:
    """`token` prints a token and the line with its hash, each time another one, and reads no settings."""
    seen = set()
    for _ in range(2):
        code, out, err = await output("token", PORT="high")
        assert (code, err) == (0, "")
        first, second = out.splitlines()
        token = first.removeprefix("token: ")
        assert second == f'tokens = ["sha256:{hashlib.sha256(token.encode()).hexdigest()}"]'
        seen.add(token)
    assert len(seen) == 2


async def test_what_is_not_installed_is_said_plainly() -> None:
    """A Python without the libraries is told where they are, without a traceback."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-S", "run.py", "--version", stderr=asyncio.subprocess.PIPE, cwd=ROOT
    )
    _, said = await process.communicate()
    assert process.returncode == 1
    assert b"No module named" in said
    assert b"make run" in said
    assert said.count(b"\n") == 1


async def test_every_error_at_once() -> None:
    """Bad settings are all named, with what is allowed, and exit with 2 and no traceback."""
    code, out, err = await output("--workers", "0", PORT="high", GATEWAY__SERVER__PROT="1", REDIS_URL="redis://x")
    assert (code, out) == (2, "")
    for name in ("--workers", "PORT", "GATEWAY__SERVER__PROT", "REDIS_URL"):
        assert name in err
    assert "Traceback" not in err


async def test_port_in_use_is_said_plainly() -> None:
    """An address that cannot be had is one clear line and exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = await output("--port", str(taken.getsockname()[1]))
    assert code == 1
    assert "cannot_listen" in err
    assert "Traceback" not in err


async def test_production_refuses_to_start_open() -> None:
    """Production without tokens does not start."""
    code, _, err = await output("--profile", "production")
    assert code == 2
    assert "GATEWAY_TOKENS" in err


async def test_production_runs_with_tokens(exchange: Exchange) -> None:
    """Production with a token serves it, logs JSON, and lets nobody else in."""
    environment = keys(exchange) | {
        "APP_ENV": "production",
        "GATEWAY_TOKENS": "canary-token-1-of-ours",
        "HOST": "127.0.0.1",
    }
    del environment["BYBIT_API_KEY"], environment["BYBIT_API_SECRET"]
    async with running(**environment) as gateway, aiohttp.ClientSession(gateway.url) as http:
        async with http.get("/price/BTCUSDT") as response:
            assert response.status == 401
        async with http.get("/price/BTCUSDT", headers={"Authorization": "Bearer canary-token-1-of-ours"}) as response:
            assert response.status == 200
        assert await gateway.end() == 0
        assert any("market_data_only" in line for line in gateway.lines)


def production(exchange: Exchange, **environment: str) -> dict[str, str]:
    """The environment of a gateway in production on the test's exchange."""
    return keys(exchange) | {"GATEWAY_TOKENS": "canary-token-3-of-ours", "HOST": "127.0.0.1"} | environment


TRADING = {"BYBIT_API_KEY": TRADING_KEY, "BYBIT_API_SECRET": TRADING_SECRET}
HEADERS = {"Authorization": "Bearer canary-token-3-of-ours"}


async def test_production_refuses_a_trading_key(exchange: Exchange) -> None:
    """A key that can trade ends the start with 2 and an error that says why, and is asked nothing else."""
    code, out, err = await output("--profile", "production", **production(exchange, **TRADING))
    lines = [json.loads(line) for line in err.splitlines()]
    assert (code, out) == (2, "")
    assert {line["event"] for line in lines if line["level"] == "error"} == {"key_refused", "giving_up"}
    (refusal,) = {line["detail"] for line in lines if line["event"] == "key_refused"}
    assert "ContractTrade" in refusal
    assert "bybit.allow_trading_keys" in refusal
    assert not {"serving", "stopped"} & {line["event"] for line in lines}
    assert not any(text in err for text in (TRADING_KEY, TRADING_SECRET, *OF_THE_USER))
    assert "/v5/position/list" not in await exchange.calls()


@pytest.mark.parametrize(
    ("environment", "is_read_only"),
    [({}, True), ({**TRADING, "GATEWAY__BYBIT__ALLOW_TRADING_KEYS": "true"}, False)],
    ids=["read only", "allowed"],
)
async def test_production_serves_with_a_key_it_may_use(
    exchange: Exchange, environment: dict[str, str], is_read_only: bool
) -> None:
    """A read-only key, or one that can trade where that is allowed: the account is served, and health names it."""
    async with (
        running("--profile", "production", **production(exchange, **environment)) as gateway,
        aiohttp.ClientSession(gateway.url, headers=HEADERS) as http,
    ):
        async with http.get("/balance") as response:
            assert (response.status, (await response.json())["stale"]) == (200, False)
        async with asyncio.timeout(5):
            while (key := (await (await http.get("/health")).json())["key"]) is None:
                await asyncio.sleep(0.02)
        assert (key["read_only"], key["problem"]) == (is_read_only, None)
        assert await gateway.end() == 0
        assert any("key_can_trade" in line for line in gateway.lines) is not is_read_only


@pytest.mark.parametrize("read_only", [0, 1])
async def test_nothing_tells_whose_key_it_is(exchange: Exchange, read_only: int) -> None:
    """Whatever the exchange says of the key's user is in no line at any level, and in no answer."""
    await exchange.fault("query-api", result={**KEY, "readOnly": read_only})
    environment = production(exchange, LOG_LEVEL="debug", APP_ENV="development")
    async with running(**environment) as gateway, aiohttp.ClientSession(gateway.url, headers=HEADERS) as http:
        async with asyncio.timeout(5):
            while (await (await http.get("/health")).json())["key"] is None:
                await asyncio.sleep(0.02)
        answers = [await (await http.get(path)).text() for path in ("/health", "/", "/balance", "/positions")]
        assert await gateway.end() == 0
    shown = "".join(gateway.lines) + "".join(answers)
    assert "ContractTrade" in shown
    for text in (*OF_THE_USER, API_KEY, API_SECRET):
        assert text not in shown


async def test_no_secret_reaches_the_log(exchange: Exchange) -> None:
    """Keys and tokens appear in no line at any level, whatever fails, and in no answer."""
    names = ("BYBIT_API_KEY", "BYBIT_API_SECRET", "GATEWAY_TOKENS")
    canaries = dict(zip(names, ("canary-key-2", "canary-secret-2", "canary-token-2-of-ours"), strict=True))
    environment = keys(exchange) | canaries | {"LOG_LEVEL": "debug", "GATEWAY__BYBIT__CALL_TIMEOUT_S": "0.3"}
    headers = {"Authorization": "Bearer canary-token-2-of-ours"}
    async with running(**environment) as gateway, aiohttp.ClientSession(gateway.url, headers=headers) as http:
        answers = [await (await http.get(path)).text() for path in ("/balance", "/positions", "/health", "/nothing")]
        refusal = {"ret_code": 1, "ret_msg": "canary-secret-2"}
        for fault in ({"reset": True}, {"status": 403}, {"body": "canary-key-2"}, refusal):
            await exchange.fault("*", **fault)
            answers += [await (await http.get(path)).text() for path in ("/balance", "/price/BTCUSDT?max_age_ms=0")]
            await exchange.heal()
        async with http.ws_connect("/ws/positions/BTCUSDT?token=canary-token-2-of-ours") as ws:
            assert (await closing(ws))[0] == 4400
        async with http.ws_connect("/ws/positions/BTCUSDT") as ws:
            answers.append(str(await receive(ws, "status")))
        assert await gateway.end() == 0
        assert len(gateway.lines) > 10
    assert "credentials_refused" in "".join(answers)
    assert "canary" not in "".join(gateway.lines) + "".join(answers)


async def test_log_that_nobody_reads_stalls_nothing(exchange: Exchange) -> None:
    """With the log's pipe full, requests and sockets go on."""
    process = await launch(**keys(exchange), LOG_LEVEL="debug", PORT=str(port := free_port()))
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            await until_alive(http)
            for _ in range(1500):
                async with http.get("/nothing") as response:
                    assert response.status == 404
            async with http.ws_connect("/ws/positions/BTCUSDT") as ws:
                assert (await receive(ws))["stale"] == []
        process.terminate()
        async with asyncio.timeout(8):
            _, err = await process.communicate()
        assert process.returncode == 0
        assert err
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number: int = probe.getsockname()[1]
        return number


async def until_alive(http: aiohttp.ClientSession) -> None:
    """Wait until the gateway answers."""
    async with asyncio.timeout(20):
        while True:
            try:
                async with http.get("/livez"):
                    return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)


async def test_descriptors_run_out(exchange: Exchange) -> None:
    """It costs new connections only: sockets go on, calls are made, and once others have gone there is room again."""
    limits = {"GATEWAY__SERVER__KEEPALIVE_S": "60", "DESCRIPTORS": "90"}
    async with running(**keys(exchange), **limits) as gateway, aiohttp.ClientSession(gateway.url) as http:
        ws = await http.ws_connect("/ws/positions/BTCUSDT?interval=0.2")
        first = (await receive(ws))["seq"]
        host, port = gateway.url.removeprefix("http://").split(":")
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(150)]
        await gateway.line("descriptors_short")
        for _ in range(10):
            snapshot = await receive(ws)
        assert snapshot["seq"] >= first + 10
        assert snapshot["stale"] == []
        for _, writer in idle:
            writer.close()
        async with asyncio.timeout(10), aiohttp.ClientSession(gateway.url) as other, other.get("/livez") as response:
            assert response.status == 200
        await asyncio.gather(*(writer.wait_closed() for _, writer in idle), return_exceptions=True)
        await ws.close()
        assert await gateway.end() == 0
        assert not any("Traceback" in line for line in gateway.lines)
