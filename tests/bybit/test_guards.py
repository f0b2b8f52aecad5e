"""Guards, through the client against the simulator: what one answer means for the calls after it."""

import asyncio
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.bybit.client import BybitClient
from server.bybit.transport import Deadline
from server.errors import AddressBanned, ClockSkew, CredentialsRefused, ExchangeTimeout, RateExceeded
from server.models import Kind, Topic
from server.settings import BybitSettings, Environment, Secret
from server.simulator.child import API_KEY, API_SECRET
from tests.conftest import Exchange

PRICE = Topic(Kind.TICKER, "BTCUSDT")
POSITION = Topic(Kind.POSITION, "BTCUSDT")
WALLET = Topic(Kind.WALLET)


def client_of(exchange: Exchange, *, share: float = 1.0, **keys: Any) -> BybitClient:
    """A client of the simulator; keyword arguments are settings."""
    given = {"api_key": Secret(API_KEY), "api_secret": Secret(API_SECRET), "call_timeout_s": 2.0, **keys}
    settings = BybitSettings(environment=Environment.SIMULATOR, **given)
    return BybitClient(settings, exchange.url, refuse_trading_keys=False, share=share)


async def read(client: BybitClient, topic: Topic) -> Any:
    """The value of one topic."""
    return (await client.fetch(frozenset((topic,))))[topic].value


async def made(exchange: Exchange) -> int:
    """How many calls have reached the exchange."""
    return sum((await exchange.calls()).values())


async def test_ban_silences_every_call(exchange: Exchange) -> None:
    """After a 403 nothing leaves until the ban is over, and everybody is told for how long."""
    client = client_of(exchange)
    await exchange.fault("tickers", status=403, times=1)
    with pytest.raises(AddressBanned):
        await read(client, PRICE)
    before = await made(exchange)
    for topic in (PRICE, POSITION, WALLET):
        with pytest.raises(AddressBanned) as caught:
            await read(client, topic)
        assert 590 < (caught.value.retry_after_s or 0) <= 600
    assert await made(exchange) == before
    assert client.guards.describe()["breakers"]["address"]["reason"] == "address_banned"
    await client.close()


async def test_one_probe_ends_a_ban(exchange: Exchange) -> None:
    """When the ban is over one call is made, and its answer lets the others through."""
    client = client_of(exchange, ban_s=0.05)
    await exchange.fault("tickers", status=403, times=1)
    with pytest.raises(AddressBanned):
        await read(client, PRICE)
    await asyncio.sleep(0.06)
    assert (await read(client, PRICE)).last_price
    assert await read(client, WALLET)
    assert client.guards.describe()["breakers"]["address"] == {"state": "closed"}
    await client.close()


async def test_refused_key_leaves_the_market_alone(exchange: Exchange) -> None:
    """One refusal silences the account, not the market."""
    client = client_of(exchange)
    await exchange.fault("wallet", ret_code=10003)
    with pytest.raises(CredentialsRefused):
        await read(client, WALLET)
    await exchange.heal()
    before = (await exchange.calls()).get("/v5/position/list", 0)
    with pytest.raises(CredentialsRefused) as caught:
        await read(client, POSITION)
    assert 55 < (caught.value.retry_after_s or 0) <= 60
    assert (await exchange.calls()).get("/v5/position/list", 0) == before
    assert (await read(client, PRICE)).last_price
    await client.close()


async def test_rate_limit_waits_for_its_reset(exchange: Exchange) -> None:
    """10006 silences its endpoint until the moment that the answer names."""
    client = client_of(exchange)
    reset_ms = str(round(time.time() * 1000) + 20_000)
    await exchange.fault("wallet", ret_code=10006, headers={"X-Bapi-Limit-Reset-Timestamp": reset_ms}, times=1)
    for _ in range(2):
        with pytest.raises(RateExceeded) as caught:
            await read(client, WALLET)
        assert 15 < (caught.value.retry_after_s or 0) <= 20
    assert await read(client, POSITION)
    assert (await exchange.calls())["/v5/account/wallet-balance"] == 1
    await client.close()


async def test_budget_is_kept(exchange: Exchange) -> None:
    """Calls over this process's share wait, or are refused where they would wait too long."""
    client = client_of(exchange, share=0.01, call_timeout_s=0.5)
    outcomes = await asyncio.gather(*(read(client, PRICE) for _ in range(10)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, RateExceeded)]
    assert (await exchange.calls())["/v5/market/tickers"] == 4
    assert len(refused) == 6
    assert all(0 < (error.retry_after_s or 0) <= 5 for error in refused)
    assert client.guards.describe()["budget_left"]["address"] == 0
    await client.close()


async def test_limits_are_learnt_from_answers(exchange: Exchange) -> None:
    """The account's own limit, as an answer names it, replaces the usual one."""
    client = client_of(exchange)
    await exchange.fault("wallet", headers={"X-Bapi-Limit": "10"}, times=1)
    await read(client, WALLET)
    assert client.guards.describe()["budget_left"]["wallet"] <= 8
    await client.close()


@pytest.mark.parametrize("offset_ms", [-60_000, 60_000])
async def test_wrong_clock_is_corrected(exchange: Exchange, offset_ms: int) -> None:
    """A clock that differs by a minute is measured after one refusal, told with its size, and signed with from then."""
    client = client_of(exchange)
    await exchange.shift(offset_ms)
    with pytest.raises(ClockSkew):
        await read(client, WALLET)
    with capture_logs() as logs:
        assert await read(client, WALLET)
        assert await read(client, POSITION)
    corrected = [line["offset_ms"] for line in logs if line["event"] == "clock_corrected"]
    assert corrected == [pytest.approx(offset_ms, abs=2000)]
    await client.close()


async def test_hung_calls_give_way(exchange: Exchange) -> None:
    """Where every thread hangs, the oldest call ends early for one that waits, which finds the exchange healed."""
    client = client_of(exchange, call_timeout_s=3.0)
    pool = client.guards.pools["tickers"]
    await exchange.fault("tickers", hang=True, times=pool.threads)
    hung = [asyncio.ensure_future(read(client, PRICE)) for _ in range(pool.threads)]
    async with asyncio.timeout(2):
        while pool.in_flight < pool.threads or sum((await exchange.calls()).values()) < pool.threads:
            await asyncio.sleep(0.01)
    started = time.monotonic()
    assert (await read(client, PRICE)).last_price
    assert time.monotonic() - started < 2.5
    outcomes = await asyncio.gather(*hung, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ExchangeTimeout}
    await client.close()


def test_deadlines_are_told_apart() -> None:
    """Two calls under way are two keys."""
    assert len({Deadline(), Deadline()}) == 2
