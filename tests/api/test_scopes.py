"""Scopes and symbols over real connections: what each token may read, and what it is told of the rest."""

import hashlib
from typing import Any

import pytest

from server.access.tokens import Scope, TokenEntry
from server.api.scopes import CHANNELS, OPEN_PATHS, ROUTES, SOCKETS
from server.realtime.channels import FORMS
from tests.conftest import Exchange, Gateway, StartGateway, closing, receive
from tests.realtime.sockets import settled

PAGE = {"Origin": "https://dash.example"}
PATHS = {
    "/price/BTCUSDT": Scope.MARKET,
    "/klines/BTCUSDT": Scope.MARKET,
    "/symbols": Scope.MARKET,
    "/indicators/BTCUSDT": Scope.INDICATORS,
    "/positions": Scope.POSITIONS,
    "/positions/BTCUSDT": Scope.POSITIONS,
    "/balance": Scope.BALANCE,
    "/health": Scope.METRICS,
    "/metrics": Scope.METRICS,
    "/connections": Scope.CONNECTIONS,
    "/asyncapi.json": Scope.MARKET,
    "/openapi.json": Scope.MARKET,
    "/docs": Scope.MARKET,
}
NEEDED = {
    "positions:BTCUSDT": {Scope.POSITIONS, Scope.BALANCE, Scope.MARKET},
    "positions:*": {Scope.POSITIONS},
    "price:BTCUSDT": {Scope.MARKET},
    "kline:BTCUSDT:1": {Scope.MARKET},
    "balance": {Scope.BALANCE},
}
HELD = "BTC*"


def token_of(name: str) -> str:
    """The token of that name in these tests."""
    return f"the-token-of-{name}-0123456789"


def entry(name: str, **rights: Any) -> TokenEntry:
    """The settings' side of it."""
    return TokenEntry(name=name, hash=hashlib.sha256(token_of(name).encode()).hexdigest(), **rights)


def bearer(name: str) -> dict[str, str]:
    """The header that shows it."""
    return {"Authorization": f"Bearer {token_of(name)}"}


def of_scopes() -> dict[str, Any]:
    """A token for each scope, and one that lacks it, all named after it."""
    every = [entry(scope, scopes=(scope,)) for scope in Scope]
    every += [entry(f"not-{scope}", scopes=tuple(set(Scope) - {scope})) for scope in Scope]
    return {"tokens": (*every, entry("all"), entry("btc", symbols=(HELD,))), "origins": (PAGE["Origin"],)}


async def test_every_route_has_its_scopes(start_gateway: StartGateway) -> None:
    """No route without a row in the table but the open ones and sockets, and no row without a route."""
    gateway = await start_gateway()
    routes = {route.resource.canonical for route in gateway.app.router.routes() if route.resource is not None}
    assert routes == OPEN_PATHS | ROUTES.keys() | SOCKETS
    assert not OPEN_PATHS & ROUTES.keys()
    assert all(ROUTES.values())
    assert {form.partition(":")[0] for form in FORMS} == CHANNELS.keys()


async def test_what_has_no_row_answers_nobody(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A route or channel that somebody forgot in the table is refused to every token, and where none is needed."""
    guarded, unguarded = await start_gateway(auth=of_scopes()), await start_gateway()
    monkeypatch.delitem(ROUTES, "/balance")
    monkeypatch.delitem(CHANNELS, "balance")
    for gateway, headers in ((guarded, bearer("all")), (unguarded, {})):
        async with gateway.get("/balance", headers=headers) as response:
            assert (response.status, (await response.json())["detail"]) == (403, "no scope opens this route")
        async with gateway.ws_connect("/ws", headers=headers) as ws:
            await ws.send_json({"op": "subscribe", "channels": ["balance"]})
            (refusal,) = (await receive(ws, "ack"))["errors"]
            assert refusal["detail"] == "no scope opens this channel"


async def test_each_route_asks_for_its_scope(start_gateway: StartGateway) -> None:
    """With that scope alone a route answers; with all others but that one it is 403, by name, and needs no exchange."""
    gateway = await start_gateway(auth=of_scopes())
    for path, scope in PATHS.items():
        async with gateway.get(path, headers=bearer(scope)) as response:
            assert response.status == 200, path
        async with gateway.get(path, headers=bearer(f"not-{scope}")) as response:
            problem = await response.json()
            assert (response.status, problem["code"]) == (403, "forbidden"), path
            assert problem["detail"] == f"the token lacks the scope {scope}"
            assert response.content_type == "application/problem+json"


async def test_what_is_not_there_needs_no_scope(start_gateway: StartGateway) -> None:
    """Any token hears 404 and 405; open paths need none."""
    gateway = await start_gateway(auth=of_scopes())
    async with gateway.get("/nothing", headers=bearer("metrics")) as response:
        assert response.status == 404
    async with gateway.post("/balance", headers=bearer("metrics")) as response:
        assert response.status == 405
    for path in OPEN_PATHS:
        async with gateway.get(path) as response:
            assert response.status == 200


@pytest.mark.parametrize("path", ["/price", "/klines", "/indicators", "/positions"])
async def test_symbols_by_path(start_gateway: StartGateway, path: str) -> None:
    """A token of some symbols reads those, and is told which one it may not, also where that does not exist."""
    gateway = await start_gateway(auth=of_scopes())
    async with gateway.get(f"{path}/BTCUSDT", headers=bearer("btc")) as response:
        assert response.status == 200
    for symbol in ("ETHUSDT", "NOSUCHUSDT", "XBTCUSDT", "%42%54C%0A", "btcusdt"):
        async with gateway.get(f"{path}/{symbol}", headers=bearer("btc")) as response:
            assert response.status in ((403,) if not symbol.startswith("%") else (400, 403)), symbol


async def test_listings_show_what_the_token_sees(start_gateway: StartGateway, exchange: Exchange) -> None:
    """/positions and /symbols leave the others out, and the balance, which is of no symbol, is there."""
    await exchange.trade("ETHUSDT", "Buy", "1")
    await exchange.trade("BTCUSDT", "Buy", "0.5")
    gateway = await start_gateway(auth=of_scopes())
    for path, key in (("/positions", "positions"), ("/symbols", "symbols")):
        some, every = [await listed(gateway, path, key, name) for name in ("btc", "all")]
        assert some
        assert some == {symbol for symbol in every if symbol.startswith("BTC")} < every
    async with gateway.get("/balance", headers=bearer("btc")) as response:
        assert response.status == 200


async def listed(gateway: Gateway, path: str, key: str, name: str) -> set[str]:
    """The symbols that a listing shows to the token of that name."""
    async with gateway.get(path, headers=bearer(name)) as response:
        assert response.status == 200
        return {row["symbol"] for row in (await response.json())[key]}


async def test_two_tokens_share_no_etag(start_gateway: StartGateway) -> None:
    """What one token was shown of a listing is not confirmed to another that sees less."""
    gateway = await start_gateway(auth=of_scopes())
    async with gateway.get("/symbols", headers=bearer("all")) as response:
        etag = {"If-None-Match": response.headers["ETag"]}
    async with gateway.get("/symbols", headers=bearer("all") | etag) as response:
        assert response.status == 304
    async with gateway.get("/symbols", headers=bearer("btc") | etag) as response:
        assert response.status == 200


@pytest.mark.parametrize("missing", [Scope.POSITIONS, Scope.BALANCE, Scope.MARKET])
async def test_the_socket_of_one_symbol_needs_three_scopes(start_gateway: StartGateway, missing: Scope) -> None:
    """Without one of them it is 4403 with that one's name, by header and by first message, and no data before."""
    gateway = await start_gateway(auth=of_scopes())
    path, name = "/ws/positions/BTCUSDT", f"not-{missing}"
    async with gateway.ws_connect(path, headers=bearer(name)) as ws:
        message = await ws.receive()
        assert (message.data, message.extra) == (4403, f"the token lacks the scope {missing}")
    async with gateway.ws_connect(path, headers=PAGE) as ws:
        await ws.send_json({"op": "auth", "token": token_of(name)})
        await receive(ws, "ack", timeout_s=5)
        assert (await ws.receive()).data == 4403
    await settled(gateway)


async def test_the_socket_of_one_symbol_needs_its_symbol(start_gateway: StartGateway) -> None:
    """Another symbol than the token's is 4403, its own is served."""
    gateway = await start_gateway(auth=of_scopes())
    async with gateway.ws_connect("/ws/positions/BTCUSDT", headers=bearer("btc")) as ws:
        assert (await receive(ws))["symbol"] == "BTCUSDT"
    async with gateway.ws_connect("/ws/positions/ETHUSDT", headers=bearer("btc")) as ws:
        assert await closing(ws) == (4403, "the token may not read the symbol ETHUSDT")
    await settled(gateway)


async def test_each_channel_asks_for_its_scopes(start_gateway: StartGateway) -> None:
    """A subscription without a scope is an error of the ack, by name, beside those that begin; the socket lives on."""
    gateway = await start_gateway(auth=of_scopes())
    for scope in Scope:
        async with gateway.ws_connect("/ws", headers=bearer(f"not-{scope}")) as ws:
            ack = await subscribed(ws, *NEEDED)
            refused = {fault["channel"]: fault for fault in ack["errors"]}
            assert refused.keys() == {name for name, scopes in NEEDED.items() if scope in scopes}
            assert {fault["code"] for fault in refused.values()} <= {"forbidden"}
            assert {fault["detail"] for fault in refused.values()} <= {f"the token lacks the scope {scope}"}
            assert set(ack["subscribed"]) == NEEDED.keys() - refused.keys()
    await settled(gateway)


async def test_channels_ask_for_their_symbol(start_gateway: StartGateway) -> None:
    """A token of some symbols has their channels and the balance, not others, and not the listing of all."""
    gateway = await start_gateway(auth=of_scopes())
    async with gateway.ws_connect("/ws", headers=bearer("btc")) as ws:
        mine = ["positions:BTCUSDT", "price:BTCUSDT", "kline:BTCUSDT:1", "balance"]
        others = ["positions:ETHUSDT", "price:ETHUSDT", "kline:ETHUSDT:1", "positions:*", "price:NOSUCHUSDT"]
        ack = await subscribed(ws, *mine, *others)
        assert ack["subscribed"] == mine
        assert [(fault["channel"], fault["code"]) for fault in ack["errors"]] == [(one, "forbidden") for one in others]
        assert "ask for each of them by name" in ack["errors"][3]["detail"]
    await settled(gateway)


async def subscribed(ws: Any, *names: str) -> Any:
    """The answer to a subscription."""
    await ws.send_json({"op": "subscribe", "channels": names, "interval": 60})
    return await receive(ws, "ack")


async def test_another_token_changes_the_rights(start_gateway: StartGateway) -> None:
    """What the new token may not have ends with an error, the rest goes on, and later subscriptions go by it."""
    gateway = await start_gateway(auth=of_scopes())
    async with gateway.ws_connect("/ws", headers=bearer("all")) as ws:
        await subscribed(ws, "balance", "price:BTCUSDT", "price:ETHUSDT")
        await ws.send_json({"op": "auth", "id": 7, "token": token_of("btc")})
        error = await receive(ws, "error")
        assert (error["code"], error["channel"]) == ("forbidden", "price:ETHUSDT")
        await ws.send_json({"op": "list"})
        assert [one["channel"] for one in (await receive(ws, "list"))["channels"]] == ["balance", "price:BTCUSDT"]
        assert (await subscribed(ws, "price:ETHUSDT"))["subscribed"] == []
        await ws.send_json({"op": "auth", "token": token_of("all")})
        await receive(ws, "ack")
        assert (await subscribed(ws, "price:ETHUSDT"))["subscribed"] == ["price:ETHUSDT"]
    await settled(gateway)


async def test_another_token_ends_the_socket_of_one_symbol(start_gateway: StartGateway) -> None:
    """Where nothing else is on the socket, the socket ends with 4403."""
    gateway = await start_gateway(auth=of_scopes())
    async with gateway.ws_connect("/ws/positions/ETHUSDT?interval=60", headers=bearer("all")) as ws:
        await receive(ws)
        await ws.send_json({"op": "auth", "token": token_of("btc")})
        assert await closing(ws) == (4403, "the token may not read the symbol ETHUSDT")
    await settled(gateway)
