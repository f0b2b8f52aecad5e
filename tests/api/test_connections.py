"""/connections: who is connected, what each has and was sent, and nothing of its token but the name."""

from functools import partial
from typing import Any

import msgspec
import pytest

from server.access.tokens import Scope
from server.api.keys import HUB
from server.api.metrics import _shared
from tests.api.test_scopes import bearer, entry, token_of
from tests.conftest import Gateway, StartGateway, receive
from tests.realtime.sockets import eventually


async def listing(gateway: Gateway, query: str = "", **headers: str) -> Any:
    """The whole answer."""
    response = await gateway.get(f"/connections{query}", headers=headers)
    assert response.status == 200, await response.text()
    assert response.headers["Cache-Control"] == "no-store"
    return await response.json()


def is_of(gateway: Gateway, sessions: int) -> bool:
    """Whether it has that many."""
    return len(gateway.app[HUB]) == sessions


async def test_nobody_is_connected(start_gateway: StartGateway) -> None:
    """An empty list is a list."""
    document = await listing(await start_gateway())
    assert (document["sockets"], document["sessions"], document["connections"]) == (0, 0, [])
    assert document["silent_workers"] == []


async def test_each_socket_is_told_of(start_gateway: StartGateway) -> None:
    """Address, token's name, channels with their pace, frames, bytes that wait, age and last pong."""
    tokens = (entry("bot"), entry("grafana", scopes=(Scope.CONNECTIONS,)))
    gateway = await start_gateway(auth={"tokens": tokens}, websocket={"heartbeat_s": 0.4})
    async with gateway.ws_connect("/ws", headers=bearer("bot")) as ws:
        await ws.send_json({"op": "subscribe", "channels": ["price:BTCUSDT", "balance"], "interval": 0.5})
        for _ in range(2):
            await receive(ws)
        session = gateway.app[HUB].sessions[0]
        reading = ws.receive()  # aiohttp's client answers pings while it reads
        assert (await reading).data
        while session.pong_at is None:
            await receive(ws)
        document = await listing(gateway, **bearer("grafana"))
    (row,) = document["connections"]
    assert (row["address"], row["token"], row["route"], row["worker"]) == ("127.0.0.1", "bot", "/ws", 0)
    assert row["subscriptions"] == 2
    assert {one["channel"]: one["interval"] for one in row["channels"]} == {"price:BTCUSDT": 0.5, "balance": 0.5}
    assert row["frames"] >= 3
    assert row["conflated"] == row["buffered_bytes"] == 0
    assert 0 <= row["last_pong_s"] <= row["age_s"] + 0.1
    assert token_of("bot") not in str(document)
    assert tokens[0].hash not in str(document)


async def test_the_oldest_come_first_up_to_the_limit(start_gateway: StartGateway) -> None:
    """A limit cuts the list, not the counts; the bounds of the limit are said."""
    gateway = await start_gateway()
    paths = [f"/ws/positions/{symbol}" for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT")]
    sockets = []
    for number, path in enumerate(paths, 1):
        sockets.append(await gateway.ws_connect(path))
        await eventually(partial(is_of, gateway, number))
    for limit, shown in ((1, 1), (2, 2), (3, 3), (4, 3)):
        document = await listing(gateway, f"?limit={limit}")
        channels = [row["channels"][0]["channel"] for row in document["connections"]]
        assert channels == ["positions:BTCUSDT", "positions:ETHUSDT", "positions:SOLUSDT"][:shown]
        assert document["sessions"] == 3
    for wrong in ("0", "10001", "-1", "many"):
        assert (await gateway.get(f"/connections?limit={wrong}")).status == 400
    for ws in sockets:
        await ws.close()


@pytest.mark.parametrize("path", ["/metrics", "/connections"])
async def test_a_token_is_needed(start_gateway: StartGateway, path: str) -> None:
    """Where there are tokens, neither page is for everybody."""
    gateway = await start_gateway(auth={"tokens": (entry("bot", scopes=(Scope.MARKET,)),)})
    assert (await gateway.get(path)).status == 401
    assert (await gateway.get(path, headers=bearer("bot"))).status == 403


@pytest.mark.parametrize(
    ("lengths", "limit", "shown"),
    [((3, 3), 5, (2, 3)), ((1, 5), 5, (1, 4)), ((5, 1), 4, (3, 1)), ((0, 2), 9, (0, 2)), ((9, 9, 9), 2, (0, 1, 1))],
)
def test_a_limit_is_shared_by_the_workers(lengths: tuple[int, ...], limit: int, shown: tuple[int, ...]) -> None:
    """None is left out for another's sake while it has fewer; all together are at most as many as asked for."""
    every = [[msgspec.Raw(str(place).encode())] * length for place, length in enumerate(lengths)]
    rows = [bytes(row) for row in _shared(every, limit)]
    assert len(rows) == min(limit, sum(lengths))
    assert sorted(rows.count(str(place).encode()) for place in range(len(lengths))) == sorted(shown)
