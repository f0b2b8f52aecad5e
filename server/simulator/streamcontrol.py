"""Steering the streams for tests, under /_control: their faults, what was connected and sent, and trades made now."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

import msgspec
from aiohttp import web

from .body import done, read
from .streamfaults import Kind, StreamFault

if TYPE_CHECKING:
    from .app import Simulator


class TradeSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A trade of the account at the last price: `size` is a decimal string in the base coin."""

    symbol: str
    side: Literal["Buy", "Sell"]
    size: str
    position_idx: int = 0


class StreamControl:
    """The handlers for one simulator's streams."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator, self.streams = simulator, simulator.streams

    async def put_fault(self, request: web.Request) -> web.Response:
        try:
            self.streams.put_fault(await read(request, StreamFault))
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        return done()

    async def delete_fault(self, request: web.Request) -> web.Response:
        kind = request.query.get("kind")
        try:
            self.streams.heal(None if kind is None else Kind(kind))
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        return done()

    async def get_streams(self, _: web.Request) -> web.Response:
        streams = self.streams
        return web.json_response(
            {
                "made": streams.made,
                "refused": streams.refused,
                "open": Counter(one.path for one in streams.connections),
                "subscriptions": {f"{path}/{name}": len(some) for (path, name), some in streams.followers.items()},
                "answers": streams.answers,
                "sent": streams.sent,
                "calls": self.simulator.calls.counts,
            }
        )

    async def delete_streams(self, _: web.Request) -> web.Response:
        self.streams.forget()
        return done()

    async def put_trade(self, request: web.Request) -> web.Response:
        """Trades, pushes, and answers with the leg's row as position/list has it from now on."""
        asked, exchange = await read(request, TradeSetting), self.streams.exchange
        now_ms, account = exchange.clock.now_ms(), exchange.account
        try:
            buys = asked.side == "Buy"
            leg = account.trade(asked.symbol, asked.position_idx, buys, asked.size, exchange.modes, now_ms)
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        self.streams.push_account()
        held = account.positions.holding(leg, now_ms)
        return web.json_response({"time": now_ms, "row": account.leg_row(leg, held, exchange.modes, now_ms)})

    async def delete_trades(self, _: web.Request) -> web.Response:
        self.streams.exchange.account.positions.trades.clear()
        return done()


def add_stream_control(app: web.Application, simulator: Simulator) -> None:
    """Adds the routes; calls to them are neither counted nor limited."""
    control = StreamControl(simulator)
    app.add_routes(
        [
            web.put("/_control/stream", control.put_fault),
            web.delete("/_control/stream", control.delete_fault),
            web.get("/_control/streams", control.get_streams),
            web.delete("/_control/streams", control.delete_streams),
            web.put("/_control/trade", control.put_trade),
            web.delete("/_control/trade", control.delete_trades),
        ]
    )
