"""The operations of the socket of many channels against a model: any sequence of them, one by one or at once."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp.test_utils import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from server.app import create_app
from server.simulator.child import SimulatorProcess
from tests.conftest import Gateway, settings_for

from .sockets import WorkerServer, settled

MOST = 4
"""How many subscriptions a socket may have here."""
GOOD = ("price:BTCUSDT", "price:ETHUSDT", "balance", "kline:BTCUSDT:1", "positions:*", "positions:BTCUSDT")
BAD = {
    "price:NOSUCHUSDT": "unknown_symbol",
    "positions:NOSUCHUSDT": "unknown_symbol",
    "kline:NOSUCHUSDT:1": "unknown_symbol",
    "price:btcusdt": "invalid_symbol",
    "positions:": "invalid_symbol",
    "price:*": "invalid_symbol",
    "kline:BTCUSDT:2": "invalid_channel",
    "kline:BTCUSDT": "invalid_channel",
    "balance:": "invalid_channel",
    "Balance": "invalid_channel",
    "": "invalid_channel",
    "x" * 300: "invalid_channel",
}
FIELDS = {"type", "channel", "exchange", "epoch", "seq", "timestamp_ms", "age_ms", "stale"}
BODY = {
    "price": {"symbol", "category", "last_price", "mark_price", "funding_rate"},
    "balance": {"balance"},
    "kline": {"symbol", "category", "interval", "candle", "closed"},
    "positions": {"positions", "has_position"},
}

WAIT = "wait"
"""No operation: what was asked before is answered and has begun before the next one."""

Operation = dict[str, Any]

names = st.lists(st.sampled_from((*GOOD, *GOOD, *BAD)), max_size=6)
intervals = st.sampled_from((0, 0, 0.1, 0.1, 5, 60, 0.05, -1, 60.5))
operations = st.one_of(
    st.fixed_dictionaries({"op": st.just("subscribe"), "channels": names}, optional={"interval": intervals}),
    st.fixed_dictionaries({"op": st.just("unsubscribe"), "channels": names}),
    st.fixed_dictionaries({"op": st.sampled_from(("list", "ping", "auth", "dance"))}),
    st.just({"op": WAIT}),
)


class Model:
    """What a socket has, and so what each operation is answered; and what may be pushed to it."""

    def __init__(self) -> None:
        self.intervals: dict[str, float] = {}
        self.begun: set[str] = set()
        self.sequences: dict[str, int] = {}
        self.asked: deque[Operation] = deque()

    def heed(self, message: dict[str, Any]) -> None:
        """A message of the socket: the answer to what was asked first, or a push."""
        if "id" in message:
            self._answered(self.asked.popleft(), message)
        else:
            self._pushed(message)

    @property
    def is_idle(self) -> bool:
        """Whether everything is answered, and each subscription has begun."""
        return not self.asked and self.begun == set(self.intervals)

    def _answered(self, asked: Operation, answer: dict[str, Any]) -> None:
        assert answer.pop("id") == asked["id"]
        answer.pop("timestamp_ms", None)
        details = [answer, *answer.get("errors", ())]
        assert all(one.pop("detail") for one in details if "code" in one)
        assert answer == getattr(self, "_" + asked["op"])(asked)

    def _ping(self, _: Operation) -> dict[str, Any]:
        return {"type": "pong"}

    def _auth(self, _: Operation) -> dict[str, Any]:
        return {"type": "ack", "op": "auth"}

    def _dance(self, _: Operation) -> dict[str, Any]:
        return {"type": "error", "code": "invalid_op"}

    def _list(self, _: Operation) -> dict[str, Any]:
        channels = [{"channel": name, "interval": interval} for name, interval in self.intervals.items()]
        return {"type": "list", "channels": channels}

    def _subscribe(self, asked: Operation) -> dict[str, Any]:
        interval = asked.get("interval", 5.0)
        if not asked["channels"]:
            return {"type": "error", "code": "invalid_channels"}
        if interval != 0 and not 0.1 <= interval <= 60:
            return {"type": "error", "code": "invalid_interval"}
        had: list[str] = []
        errors: list[dict[str, str]] = []
        for name in dict.fromkeys(asked["channels"]):
            if (code := self._refusal(name)) is not None:
                errors.append({"channel": name[:100], "code": code})
                continue
            had.append(name)
            self._end(name)
            self.intervals[name] = interval
        return {"type": "ack", "op": "subscribe", "subscribed": had, "errors": errors}

    def _refusal(self, name: str) -> str | None:
        code = BAD.get(name)
        if code != "unknown_symbol" and code is not None:
            return code
        if name not in self.intervals and len(self.intervals) >= MOST:
            return "too_many_subscriptions"
        return code

    def _unsubscribe(self, asked: Operation) -> dict[str, Any]:
        if not asked["channels"]:
            return {"type": "error", "code": "invalid_channels"}
        every = [*dict.fromkeys(asked["channels"])]
        had = [name for name in every if name in self.intervals]
        errors = [{"channel": name[:100], "code": "not_subscribed"} for name in every if name not in had]
        for name in had:
            self._end(name)
        return {"type": "ack", "op": "unsubscribe", "unsubscribed": had, "errors": errors}

    def _end(self, name: str) -> None:
        self.intervals.pop(name, None)
        self.begun.discard(name)

    def _pushed(self, push: dict[str, Any]) -> None:
        name = push["channel"]
        assert name in self.intervals, "nothing follows the ack that ended it"
        assert push["type"] == "snapshot", "nothing is stale here"
        assert set(push) >= FIELDS | BODY[name.partition(":")[0]], "each snapshot is whole"
        assert push["seq"] > self.sequences.get(name, 0)
        self.sequences[name] = push["seq"]
        self.begun.add(name)


async def started(url: str) -> Gateway:
    """A gateway that knows which symbols there are."""
    websocket = {"max_subscriptions": MOST, "messages_per_s": 10_000}
    app = create_app(settings_for(url, websocket=websocket, freshness={"live_poll_s": 0.05, "stale_after_s": 60.0}))
    gateway: Gateway = TestClient(WorkerServer(app))
    await gateway.start_server()
    async with gateway.get("/symbols") as response:
        assert response.status == 200
    return gateway


@contextlib.asynccontextmanager
async def neighbours(gateway: Gateway) -> AsyncIterator[None]:
    """Two sockets that hardly want anything, but keep every channel in being."""
    async with gateway.ws_connect("/ws") as one, gateway.ws_connect("/ws") as other:
        for ws, channels in ((one, GOOD[:MOST]), (other, GOOD[MOST:])):
            await ws.send_json({"op": "subscribe", "channels": channels, "interval": 60})
            assert (await heard(ws))["subscribed"] == [*channels]
        yield


async def story(gateway: Gateway, asked: list[Operation], *, at_once: bool) -> None:
    """Ask for all that on a new socket, and hold what comes against the model."""
    model = Model()
    async with gateway.ws_connect("/ws") as ws, asyncio.timeout(20):
        for number, operation in enumerate(asked):
            while operation["op"] == WAIT and not model.is_idle:
                model.heed(await heard(ws))
            if operation["op"] == WAIT:
                continue
            model.asked.append({**operation, "id": number})
            await ws.send_json(model.asked[-1])
            while model.asked and not at_once:
                model.heed(await heard(ws))
        while not model.is_idle:
            model.heed(await heard(ws))
    assert ws.close_code == aiohttp.WSCloseCode.OK
    await settled(gateway, but=2)


async def heard(ws: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    """The next message."""
    message: dict[str, Any] = json.loads(await ws.receive_str())
    return message


def test_any_sequence_of_operations(simulator: SimulatorProcess) -> None:
    """Answers, lists and pushes are what the model says, in whatever order it is asked; nothing is left behind."""
    with asyncio.Runner() as runner:
        gateway = runner.run(started(simulator.url))
        others = neighbours(gateway)
        runner.run(others.__aenter__())

        @settings(max_examples=150, deadline=None)
        @given(st.lists(operations, max_size=12), st.booleans())
        def obeys(asked: list[Operation], at_once: bool) -> None:
            runner.run(story(gateway, asked, at_once=at_once))

        try:
            obeys()
        finally:
            runner.run(others.__aexit__(None, None, None))
            runner.run(gateway.close())
