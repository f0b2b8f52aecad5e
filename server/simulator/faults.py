"""Misbehaviour on demand: what a test can make of each answer, from slow to cut off. Bodies are Bybit's or raw."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

# Names a test may use for an endpoint; any other endpoint goes by its path.
ENDPOINTS: Mapping[str, str] = {
    "time": "/v5/market/time",
    "tickers": "/v5/market/tickers",
    "kline": "/v5/market/kline",
    "instruments": "/v5/market/instruments-info",
    "position": "/v5/position/list",
    "wallet": "/v5/account/wallet-balance",
    "query-api": "/v5/user/query-api",
    "account": "/v5/account/info",
}
EVERY = "*"
DRIP_S = 1.0
ERROR_PAGE = "<html><body><h1>{status}</h1></body></html>"


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happens to the calls of one endpoint.

    latency_s: wait before anything else. hang: never answer, until removed. reset: close without an answer. drip: send
    the body one byte a second. status, body, body_bytes, headers: change the HTTP answer. ret_code, ret_msg, result:
    change the envelope; null leaves it. times: for so many calls (None: until removed). symbols: only calls
    for one of these.
    """

    endpoint: str = EVERY
    latency_s: float = 0.0
    hang: bool = False
    drip: bool = False
    reset: bool = False
    status: int | None = None
    body: str | None = None
    body_bytes: int | None = None
    headers: dict[str, str] = {}
    ret_code: int | None = None
    ret_msg: str = ""
    result: Any = None
    times: int | None = None
    symbols: list[str] | None = None


class Active:
    """A fault in force: how many calls it still takes, and the event of its removal."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.left = fault.times
        self.removed = asyncio.Event()

    def takes(self, symbol: str) -> bool:
        """Whether it applies to a call; counts it if so."""
        if self.fault.symbols is not None and symbol not in self.fault.symbols:
            return False
        if self.left is None:
            return True
        self.left -= 1
        return self.left >= 0


class Faults:
    """The faults in force, at most one per endpoint; one for an endpoint goes before the one for every endpoint."""

    def __init__(self) -> None:
        self._active: dict[str, Active] = {}

    def put(self, fault: Fault) -> None:
        """Puts a fault in force, in place of the endpoint's old one. Raises ValueError for an unknown endpoint."""
        path = _path(fault.endpoint)
        self.remove(fault.endpoint)
        self._active[path] = Active(fault)

    def remove(self, endpoint: str | None = None) -> None:
        """Removes one endpoint's fault, or all, and lets go the calls that hang on it."""
        paths = list(self._active) if endpoint is None else [_path(endpoint)]
        for path in paths:
            if (active := self._active.pop(path, None)) is not None:
                active.removed.set()

    def take(self, path: str, symbol: str) -> Active | None:
        """The fault that a call meets, counted."""
        for name in (path, EVERY):
            active = self._active.get(name)
            if active is not None and active.takes(symbol):
                return active
        return None


def _path(endpoint: str) -> str:
    if endpoint == EVERY or endpoint.startswith("/"):
        return endpoint
    if endpoint not in ENDPOINTS:
        raise ValueError(f"unknown endpoint {endpoint!r}: one of {', '.join((*ENDPOINTS, EVERY))}, or a path")
    return ENDPOINTS[endpoint]


def changed_envelope(fault: Fault, envelope: dict[str, object]) -> dict[str, object]:
    """Bybit's envelope with the fault's code, message and result; a code without a result has an empty one."""
    changed = dict(envelope)
    if fault.ret_code is not None:
        changed |= {"retCode": fault.ret_code, "retMsg": fault.ret_msg, "result": {}}
    if fault.result is not None:
        changed["result"] = fault.result
    return changed


def changed_body(fault: Fault, body: bytes) -> bytes:
    """The body after the fault: raw text, so many bytes, an error page for a status of its own, or as it was."""
    if fault.body is not None:
        body = fault.body.encode()
    elif fault.status is not None and fault.status >= 400 and fault.ret_code is None:
        body = ERROR_PAGE.format(status=fault.status).encode()
    if fault.body_bytes is not None:
        body = (body + b" " * fault.body_bytes)[: fault.body_bytes]
    return body


def cut(request: web.Request) -> web.Response:
    """Closes the connection at once; the response given back goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def before_answer(active: Active) -> bool:
    """Waits out latency and hanging; False when the connection is to be cut. Cancelling is safe."""
    fault = active.fault
    if fault.latency_s > 0:
        await asyncio.sleep(fault.latency_s)
    if fault.hang:
        await active.removed.wait()
    return not (fault.hang or fault.reset)


async def dripping(active: Active, request: web.Request, response: web.Response) -> web.StreamResponse:
    """Sends the response's body one byte a second, until it is through or the fault is removed. Cancelling is safe."""
    body = response.body if isinstance(response.body, bytes) else b""
    stream = web.StreamResponse(status=response.status, headers=response.headers)
    stream.content_length = len(body)
    await stream.prepare(request)
    for index in range(len(body)):
        await stream.write(body[index : index + 1])
        try:
            await asyncio.wait_for(active.removed.wait(), DRIP_S)
        except TimeoutError:
            continue
        return cut(request)
    return stream
