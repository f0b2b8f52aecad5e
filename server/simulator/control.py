"""Steering for tests, under /_control: faults, the clock, the account's modes, and what was called.

Bad bodies are answered 400 with a sentence that says what is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from aiohttp import web

from .body import done, read
from .faults import Fault

if TYPE_CHECKING:
    from .app import Simulator

LATEST_MS = 4_000_000_000_000  # in the year 2096
YEAR_MS = 366 * 86_400_000


class ClockSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Replaces the clock's whole setting; an empty one sets it right again."""

    freeze_ms: Annotated[int, msgspec.Meta(ge=0, le=LATEST_MS)] | None = None
    offset_ms: Annotated[int, msgspec.Meta(ge=-YEAR_MS, le=YEAR_MS)] = 0


class AccountSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is missing stays as it is."""

    margin: str | None = None
    hedge: list[str] | None = None


class Control:
    """The handlers of /_control for one simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator

    async def put_fault(self, request: web.Request) -> web.Response:
        try:
            self.simulator.faults.put(await read(request, Fault))
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        return done()

    async def delete_fault(self, request: web.Request) -> web.Response:
        try:
            self.simulator.faults.remove(request.query.get("endpoint"))
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        return done()

    async def get_calls(self, _: web.Request) -> web.Response:
        calls = self.simulator.calls
        return web.json_response({**calls.counts, "counts": calls.counts, "recent": list(calls.recent)})

    async def delete_calls(self, _: web.Request) -> web.Response:
        self.simulator.calls.clear()
        return done()

    async def put_clock(self, request: web.Request) -> web.Response:
        setting = await read(request, ClockSetting)
        self.simulator.exchange.clock.set(freeze_ms=setting.freeze_ms, offset_ms=setting.offset_ms)
        return done()

    async def put_account(self, request: web.Request) -> web.Response:
        setting = await read(request, AccountSetting)
        try:
            self.simulator.exchange.set_modes(setting.margin, setting.hedge)
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        self.simulator.streams.push_account()
        return done()


def add_control(app: web.Application, simulator: Simulator) -> None:
    """Adds the routes; calls to them are neither counted nor limited."""
    control = Control(simulator)
    app.add_routes(
        [
            web.put("/_control/fault", control.put_fault),
            web.delete("/_control/fault", control.delete_fault),
            web.get("/_control/calls", control.get_calls),
            web.delete("/_control/calls", control.delete_calls),
            web.put("/_control/clock", control.put_clock),
            web.put("/_control/account", control.put_account),
        ]
    )
