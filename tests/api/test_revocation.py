"""Revocation: other tokens for a gateway that runs, over real sockets."""

from typing import Any

from server.access.tokens import Scope
from server.api.revocation import apply
from server.settings import AuthSettings
from tests.api.test_scopes import PAGE, bearer, entry, subscribed, token_of
from tests.conftest import StartGateway, closing, receive
from tests.realtime.sockets import settled

SOCKET = "/ws/positions/BTCUSDT?interval=60"


def auth(*tokens: Any) -> AuthSettings:
    """Settings with these tokens."""
    return AuthSettings(tokens=tokens, origins=(PAGE["Origin"],))


def given(*tokens: Any) -> dict[str, Any]:
    """The same for the start of a gateway."""
    return {"tokens": tokens, "origins": (PAGE["Origin"],)}


async def test_only_sockets_of_revoked_tokens_end(start_gateway: StartGateway) -> None:
    """However they were admitted they get 4401; others go on, and the token opens nothing any more."""
    gateway = await start_gateway(auth=given(entry("one"), entry("two")))
    kept = await gateway.ws_connect(SOCKET, headers=bearer("one"))
    by_header = await gateway.ws_connect(SOCKET, headers=bearer("two"))
    by_message = await gateway.ws_connect("/ws", headers=PAGE)
    await by_message.send_json({"op": "auth", "token": token_of("two")})
    await receive(by_message, "ack")
    for ws in (kept, by_header):
        await receive(ws)
    await apply(gateway.app, auth(entry("one"), entry("three")))
    for ws in (by_header, by_message):
        assert await closing(ws) == (4401, "the token was revoked")
    await kept.send_json({"op": "ping"})
    await receive(kept, "pong")
    for name, status in (("one", 200), ("two", 401), ("three", 200)):
        async with gateway.get("/balance", headers=bearer(name)) as response:
            assert response.status == status
    async with gateway.ws_connect(SOCKET, headers=bearer("two")) as ws:
        assert (await closing(ws))[0] == 4401
    await kept.close()
    await settled(gateway)


async def test_the_token_shown_last_counts(start_gateway: StartGateway) -> None:
    """A socket that authenticated again belongs to its new token."""
    gateway = await start_gateway(auth=given(entry("one"), entry("two")))
    async with gateway.ws_connect("/ws", headers=bearer("one")) as ws:
        await ws.send_json({"op": "auth", "token": token_of("two")})
        await receive(ws, "ack")
        await apply(gateway.app, auth(entry("two")))
        await ws.send_json({"op": "ping"})
        await receive(ws, "pong")
        await apply(gateway.app, auth(entry("one")))
        assert await closing(ws) == (4401, "the token was revoked")
    await settled(gateway)


async def test_less_rights_end_what_they_do_not_cover(start_gateway: StartGateway) -> None:
    """A token that lost a scope keeps its socket, without the channels of that scope; one symbol's socket is 4403."""
    gateway = await start_gateway(auth=given(entry("one")))
    single = await gateway.ws_connect(SOCKET, headers=bearer("one"))
    await receive(single)
    async with gateway.ws_connect("/ws", headers=bearer("one")) as ws:
        await subscribed(ws, "balance", "price:BTCUSDT")
        await apply(gateway.app, auth(entry("one", scopes=(Scope.MARKET,))))
        error = await receive(ws, "error")
        assert (error["channel"], error["code"]) == ("balance", "forbidden")
        await ws.send_json({"op": "list"})
        assert [one["channel"] for one in (await receive(ws, "list"))["channels"]] == ["price:BTCUSDT"]
    assert (await closing(single))[0] == 4403
    await settled(gateway)


async def test_who_needed_no_token_needs_one_now(start_gateway: StartGateway) -> None:
    """Sockets of an open gateway end once there are tokens; without a change they do not."""
    gateway = await start_gateway()
    async with gateway.ws_connect(SOCKET) as ws:
        await receive(ws)
        await apply(gateway.app, AuthSettings())
        await ws.send_json({"op": "ping"})
        await receive(ws, "pong")
        await apply(gateway.app, auth(entry("one")))
        assert (await closing(ws))[0] == 4401
    await settled(gateway)
