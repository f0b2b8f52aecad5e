"""Many symbols over real HTTP: one listing at the exchange, and the same digits as by single calls."""

import asyncio
from typing import Any

from tests.conftest import Exchange, Gateway, StartGateway, receive

MOMENT_MS = 1_795_000_123_456
COUNT = 12


async def ask(gateway: Gateway, path: str) -> Any:
    """The JSON of a GET."""
    async with gateway.get(path) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def symbols_of(gateway: Gateway) -> list[str]:
    """Symbols to ask for, those with open positions among them."""
    held = [row["symbol"] for row in (await ask(gateway, "/positions"))["positions"]]
    listed = [row["symbol"] for row in (await ask(gateway, "/symbols"))["symbols"]]
    return list(dict.fromkeys([*held, *listed]))[:COUNT]


async def test_prices_from_a_listing_are_the_exchanges(start_gateway: StartGateway, exchange: Exchange) -> None:
    """A dozen prices at once are one call, and each is what its own call says."""
    await exchange.freeze(MOMENT_MS)
    gateway = await start_gateway()
    symbols = await symbols_of(gateway)
    before = (await exchange.calls()).get("/v5/market/tickers", 0)
    answers = await asyncio.gather(*(ask(gateway, f"/price/{symbol}") for symbol in symbols))
    assert (await exchange.calls())["/v5/market/tickers"] - before < COUNT
    rows = (await exchange.ask("/v5/market/tickers", category="linear"))["list"]
    sent = {row["symbol"]: (row["lastPrice"], row["markPrice"], row["volume24h"]) for row in rows}
    shown = {a["symbol"]: (a["last_price"], a["mark_price"], a["volume_24h"]) for a in answers}
    assert shown == {symbol: sent[symbol] for symbol in symbols}
    again = await asyncio.gather(*(ask(gateway, f"/price/{symbol}?max_age_ms=0") for symbol in symbols))
    assert not any(answer["stale"] for answer in again)


async def test_sockets_on_many_symbols_share_listings(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Sockets on a dozen symbols see the positions that single calls give, for a few calls a round."""
    await exchange.freeze(MOMENT_MS)
    gateway = await start_gateway()
    symbols = await symbols_of(gateway)
    single = {symbol: (await ask(gateway, f"/positions/{symbol}?max_age_ms=60000"))["positions"] for symbol in symbols}
    sockets = [await gateway.ws_connect(f"/ws/positions/{symbol}?interval=0.4") for symbol in symbols]
    for ws in sockets:
        await receive(ws)
    before = sum((await exchange.calls()).values())
    rounds = 5
    for _ in range(rounds):
        for symbol, ws in zip(symbols, sockets, strict=True):
            snapshot = await receive(ws)
            assert snapshot["stale"] == []
            assert snapshot["positions"] == single[symbol]
    assert sum((await exchange.calls()).values()) - before < rounds * COUNT
    for ws in sockets:
        await ws.close()


async def test_one_bad_row_of_a_listing_harms_itself_only(start_gateway: StartGateway, exchange: Exchange) -> None:
    """A listing whose row for one symbol cannot be believed still serves the others."""
    await exchange.freeze(MOMENT_MS)
    gateway = await start_gateway()
    symbols = await symbols_of(gateway)
    await asyncio.gather(*(ask(gateway, f"/price/{symbol}") for symbol in symbols))
    rows = (await exchange.ask("/v5/market/tickers", category="linear"))["list"]
    broken = [{**row, "lastPrice": "1E-8"} if row["symbol"] == symbols[0] else row for row in rows]
    await exchange.fault("tickers", result={"category": "linear", "list": broken})
    answers = await asyncio.gather(*(ask(gateway, f"/price/{symbol}?max_age_ms=0") for symbol in symbols))
    assert not any(answer["stale"] for answer in answers[1:])
    assert answers[0]["last_price"] != "1E-8"
