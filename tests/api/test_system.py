"""What health says of the key: what it may do, until when, what is wrong with it, and never whose it is."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.settings import Profile
from tests.bybit.test_parsing import EXPIRES_MS, KEY, OF_THE_USER
from tests.conftest import Exchange, Gateway, StartGateway


async def health_of(gateway: Gateway) -> dict[str, Any]:
    """Health, once the key is known."""
    async with asyncio.timeout(5):
        while True:
            async with gateway.get("/health") as response:
                health: dict[str, Any] = await response.json()
            if health["key"] is not None:
                return health
            await asyncio.sleep(0.01)


async def test_a_good_key(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Its permissions, its days by the exchange's clock, and how long ago that was asked."""
    await exchange.freeze(EXPIRES_MS - 20 * 86_400_000 - 3_600_000)
    await exchange.fault("query-api", result=KEY)
    health = await health_of(await start_gateway(Profile.PRODUCTION))
    assert 0 <= health["key"].pop("checked_s") < 10
    assert health["key"] == {
        "read_only": True,
        "permissions": [
            "ContractTrade:Order",
            "ContractTrade:Position",
            "Derivatives:DerivativesTrade",
            "Exchange:ExchangeHistory",
            "Options:OptionsTrade",
            "Spot:SpotTrade",
        ],
        "address_bound": True,
        "expires_at_ms": EXPIRES_MS,
        "days_left": 20,
        "problem": None,
    }
    assert health["status"] == "ok"


@pytest.mark.parametrize(
    ("days", "problem"), [(13.5, "the key expires soon, days left: 13"), (-2.5, "the key has expired")]
)
async def test_a_key_that_expires(start_gateway: StartGateway, exchange: Exchange, days: float, problem: str) -> None:
    """What is near is a problem, though nothing is degraded by it yet."""
    moment = datetime.now(UTC) + timedelta(days=days)
    await exchange.fault("query-api", result={**KEY, "expiredAt": f"{moment:%Y-%m-%dT%H:%M:%SZ}"})
    health = await health_of(await start_gateway())
    assert (health["key"]["problem"], health["status"]) == (problem, "ok")


async def test_a_key_that_never_expires(start_gateway: StartGateway, exchange: Exchange) -> None:
    """It has no days to count."""
    await exchange.fault("query-api", result={**KEY, "expiredAt": "1970-01-01T00:00:00Z"})
    key = (await health_of(await start_gateway()))["key"]
    assert (key["expires_at_ms"], key["days_left"], key["problem"]) == (None, None, None)


async def test_a_refused_key(start_gateway: StartGateway, exchange: Exchange) -> None:
    """It degrades the gateway, also where nobody has asked for the account, and the page says so too."""
    await exchange.fault("query-api", status=503, times=1)
    gateway = await start_gateway(Profile.PRODUCTION)
    await exchange.fault("query-api", result={**KEY, "readOnly": 0})
    health = await health_of(gateway)
    assert health["status"] == "degraded"
    assert health["key"]["problem"].startswith("this key can trade or withdraw (ContractTrade, Derivatives, ")
    async with gateway.get("/") as response:
        assert "degraded" in await response.text()
    async with gateway.get("/balance") as response:
        shown = f"{health} {await response.text()}"
    assert not any(text in shown for text in OF_THE_USER)


async def test_candles_are_counted(start_gateway: StartGateway) -> None:
    """How much is held of candles, and how often each kind of call was made for them."""
    gateway = await start_gateway()
    for path in ("/klines/BTCUSDT", "/klines/ETHUSDT", "/indicators/BTCUSDT?names=ema:100"):
        async with gateway.get(path, params={"max_age_ms": "60000"}) as response:
            assert response.status == 200
    async with gateway.get("/health") as response:
        candles = (await response.json())["candles"]
    assert 90 * 3000 < candles.pop("bytes") < 150 * 3000
    assert candles == {
        "topics": 2,
        "candles": 3000,
        "fetches": {"whole": 2, "gap": 0, "deepen": 2, "check": 0},
        "contradictions": 0,
    }
