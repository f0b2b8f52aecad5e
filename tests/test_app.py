"""The application's own jobs: a key that must not be used keeps it from starting, and one that changes is noticed."""

import asyncio
from typing import Any

import msgspec
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from server import app as module
from server.app import create_app
from server.bybit import credentials
from server.errors import TradingKeyRefused
from server.settings import Profile, Secret
from server.simulator.child import TRADING_KEY, TRADING_SECRET
from tests.conftest import Exchange, Gateway, StartGateway, receive, settings_for

TRADING = {"api_key": Secret(TRADING_KEY), "api_secret": Secret(TRADING_SECRET)}
WRITES = {"readOnly": 0, "permissions": {"ContractTrade": ["Order"], "Wallet": ["Withdraw"]}}
READS = {"readOnly": 1, "permissions": {"ContractTrade": ["Order"]}}
QUERY_API = "/v5/user/query-api"


async def started(exchange: Exchange, profile: Profile, **bybit: Any) -> None:
    """Start an application and end it. Raises what kept it from starting."""
    settings = msgspec.structs.replace(settings_for(exchange.url, bybit=bybit), profile=profile)
    runner = web.AppRunner(create_app(settings))
    try:
        await runner.setup()
    finally:
        await runner.cleanup()


async def ask(gateway: Gateway, path: str) -> Any:
    """The JSON of a GET, whatever its status."""
    async with gateway.get(path) as response:
        return await response.json(content_type=None)


async def test_production_does_not_start_with_a_trading_key(exchange: Exchange) -> None:
    """A key that can trade ends the start, after one call, and leaves no job behind."""
    before = asyncio.all_tasks()
    with pytest.raises(TradingKeyRefused, match=r"ContractTrade.*Wallet"):
        await started(exchange, Profile.PRODUCTION, **TRADING)
    assert {task.get_name() for task in asyncio.all_tasks() - before} == set()
    calls = await exchange.calls()
    assert calls[QUERY_API] == 1
    assert not {"/v5/position/list", "/v5/account/wallet-balance"} & set(calls)


@pytest.mark.parametrize(
    ("profile", "bybit"),
    [
        (Profile.PRODUCTION, {}),
        (Profile.PRODUCTION, {**TRADING, "allow_trading_keys": True}),
        (Profile.DEVELOPMENT, TRADING),
        (Profile.PRODUCTION, {"api_key": None, "api_secret": None}),
    ],
    ids=["read only", "allowed", "development", "no key"],
)
async def test_it_starts_with_every_other_key(exchange: Exchange, profile: Profile, bybit: dict[str, Any]) -> None:
    """A read-only key, one that is allowed to trade, any one in development, and none."""
    await started(exchange, profile, **bybit)


async def test_a_trading_key_is_used_where_it_is_allowed(start_gateway: StartGateway) -> None:
    """The account is served, and a warning says what the key can do."""
    for profile, allowed in ((Profile.DEVELOPMENT, False), (Profile.PRODUCTION, True)):
        with capture_logs() as logs:
            gateway = await start_gateway(profile, bybit={**TRADING, "allow_trading_keys": allowed})
            assert (await ask(gateway, "/balance"))["equity"]
            async with asyncio.timeout(5):
                while (health := await ask(gateway, "/health"))["key"] is None:
                    await asyncio.sleep(0.01)
        assert (health["key"]["read_only"], health["key"]["problem"], health["status"]) == (False, None, "ok")
        assert [line["log_level"] for line in logs if line["event"] == "key_can_trade"] == ["warning"]


async def test_without_keys_nothing_is_checked(start_gateway: StartGateway, exchange: Exchange) -> None:
    """No key, no question about one."""
    gateway = await start_gateway(Profile.PRODUCTION, bybit={"api_key": None, "api_secret": None})
    assert (await ask(gateway, "/health"))["key"] is None
    assert (await ask(gateway, "/price/BTCUSDT"))["last_price"]
    assert QUERY_API not in await exchange.calls()


async def test_the_start_does_not_wait_for_an_exchange_that_hangs(
    start_gateway: StartGateway, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time it serves the market; the account comes when the key could be checked, by itself."""
    monkeypatch.setattr(module, "FIRST_CHECK_S", 0.1)
    await exchange.fault("query-api", hang=True)
    gateway = await start_gateway(Profile.PRODUCTION, bybit={"call_timeout_s": 0.5})
    assert (await ask(gateway, "/price/BTCUSDT"))["last_price"]
    assert (await ask(gateway, "/balance"))["reason"] == "timeout"
    assert "/v5/account/wallet-balance" not in await exchange.calls()
    await exchange.heal()
    await until_served(gateway)


async def test_an_exchange_that_is_away_at_the_start(start_gateway: StartGateway, exchange: Exchange) -> None:
    """It serves, and heals within seconds once the exchange is back."""
    await exchange.fault("*", status=503)
    gateway = await start_gateway(Profile.PRODUCTION)
    assert (await ask(gateway, "/balance"))["reason"] == "busy"
    assert (await ask(gateway, "/health"))["key"] is None
    await exchange.heal()
    await until_served(gateway)


async def until_served(gateway: Gateway) -> None:
    """Wait until the account is served and the key is known."""
    async with asyncio.timeout(8):
        while "equity" not in await ask(gateway, "/balance"):
            await asyncio.sleep(0.02)
    assert (await ask(gateway, "/health"))["key"]["read_only"] is True


async def test_a_trading_key_found_late_is_refused_while_it_serves(
    start_gateway: StartGateway, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Bybit was away at the start, the gateway stays up without the account."""
    await exchange.fault("query-api", status=503)
    monkeypatch.setattr(credentials, "FIRST_PAUSE_S", 0.02)
    gateway = await start_gateway(Profile.PRODUCTION, bybit=TRADING)
    await exchange.heal()
    await until_status(gateway, "degraded")
    problem = await ask(gateway, "/positions")
    assert (problem["reason"], problem["status"]) == ("credentials_refused", 503)
    assert (await ask(gateway, "/price/BTCUSDT"))["last_price"]
    assert "/v5/position/list" not in await exchange.calls()


async def until_status(gateway: Gateway, status: str) -> None:
    """Wait until the key is known and the gateway calls itself that."""
    async with asyncio.timeout(8):
        while (health := await ask(gateway, "/health"))["status"] != status or health["key"] is None:
            await asyncio.sleep(0.02)


async def test_a_key_that_changes_is_noticed(
    start_gateway: StartGateway, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that becomes able to trade makes the account stale with that reason, until it can only read again."""
    monkeypatch.setattr(credentials, "RECHECK_S", 0.05)
    monkeypatch.setattr(credentials, "FIRST_PAUSE_S", 0.05)
    with capture_logs() as logs:
        gateway = await start_gateway(Profile.PRODUCTION)
        async with gateway.ws_connect("/ws/positions/BTCUSDT?interval=0.2") as ws:
            assert (await receive(ws))["stale"] == []
            await exchange.fault("query-api", result=WRITES)
            status = await receive(ws, "status")
            assert status["error"]["reason"] == "credentials_refused"
            assert "can trade or withdraw (ContractTrade, Wallet)" in status["error"]["detail"]
            await until_status(gateway, "degraded")
            calls = (await exchange.calls())["/v5/position/list"]
            while (snapshot := await receive(ws))["stale"] != ["position", "balance"]:
                pass
            assert snapshot["positions"] is not None
            assert (await ask(gateway, "/price/BTCUSDT?max_age_ms=0"))["stale"] is False
            assert (await exchange.calls())["/v5/position/list"] == calls
            await exchange.fault("query-api", result=READS)
            async with asyncio.timeout(10):
                while (await receive(ws))["stale"]:
                    pass
        await until_status(gateway, "ok")
    told = [(line["event"], line["log_level"]) for line in logs if line["event"].startswith("key_")]
    assert told == [("key_refused", "error"), ("key_can_only_read", "info")]
