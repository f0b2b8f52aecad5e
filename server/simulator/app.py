"""The exchange over HTTP: one way in for every endpoint, through counting, rate limits, signature and faults.

Beside it the streams, on the same port.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from . import private, public
from .account import Modes
from .clock import Clock
from .control import add_control
from .exchange import Exchange, Query, modes_of
from .faults import Active, Faults, before_answer, changed_body, changed_envelope, cut, dripping
from .limits import CONNECTS, Allowance, ConnectLimit, IpLimit, KeyLimit
from .rows import Row
from .signing import ApiKey, Refusal, authenticate
from .sockets import PATHS, Sockets
from .streamcontrol import add_stream_control
from .streams import Streams

RECENT_CALLS = 1_000
IP_BANNED = "<html><head><title>403 Forbidden</title></head><body><h1>403 Forbidden</h1></body></html>"
TOO_MANY = Refusal(10006, "Too many visits. Exceeded the API Rate Limit.")

PublicAnswer = Callable[[Exchange, Query, int], Row]
PrivateAnswer = Callable[[Exchange, Query, ApiKey, int], Row]


class Private(NamedTuple):
    """A signed endpoint and how many calls a key may make to it in a second."""

    answer: PrivateAnswer
    per_second: int


PUBLIC: Mapping[str, PublicAnswer] = {
    "/v5/market/time": public.server_time,
    "/v5/market/tickers": public.tickers,
    "/v5/market/kline": public.kline,
    "/v5/market/mark-price-kline": public.mark_price_kline,
    "/v5/market/index-price-kline": public.index_price_kline,
    "/v5/market/instruments-info": public.instruments_info,
}
PRIVATE: Mapping[str, Private] = {
    "/v5/position/list": Private(private.position_list, 50),
    "/v5/account/wallet-balance": Private(private.wallet_balance, 50),
    "/v5/account/info": Private(private.account_info, 50),
    "/v5/user/query-api": Private(private.query_api, 10),
    "/v5/asset/coin/query-info": Private(private.coin_info, 5),
}


class Calls:
    """What was asked: a count per path, and the last calls in full. Bounded."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.counts: Counter[str] = Counter()
        self.recent: deque[dict[str, object]] = deque(maxlen=RECENT_CALLS)

    def add(self, path: str, query: str, now_ms: int) -> None:
        if path in PUBLIC or path in PRIVATE:
            self.counts[path] += 1
        self.recent.append({"path": path, "query": query, "time": now_ms})


class Simulator:
    """The handler of every call, and what it keeps between calls."""

    def __init__(self, exchange: Exchange, streams: Streams, *, limits: bool, ban_s: float) -> None:
        self.exchange, self.streams, self.faults, self.calls = exchange, streams, Faults(), Calls()
        self.ip_limit = IpLimit(ban_s) if limits else None
        self.key_limit = KeyLimit() if limits else None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers one call to a known path."""
        raw_query, clock = request.raw_path.partition("?")[2], self.exchange.clock
        self.calls.add(request.path, raw_query, clock.wall_ms())
        if self.ip_limit is not None and not self.ip_limit.admits(request.remote or "", time.monotonic()):
            return web.Response(status=403, text=IP_BANNED, content_type="text/html")
        active = self.faults.take(request.path, request.query.get("symbol", ""))
        if active is not None and not await before_answer(active):
            return cut(request)
        response = self._response(request, raw_query, active)
        if active is not None and active.fault.drip:
            return await dripping(active, request, response)
        return response

    def _response(self, request: web.Request, raw_query: str, active: Active | None) -> web.Response:
        now_ms = self.exchange.clock.now_ms()
        envelope: dict[str, object] = {"retCode": 0, "retMsg": "OK", "result": {}, "retExtInfo": {}, "time": now_ms}
        headers: CIMultiDict[str] = CIMultiDict()
        try:
            envelope["result"] = self._result(request, raw_query, headers, now_ms)
        except Refusal as refusal:
            envelope |= {"retCode": refusal.ret_code, "retMsg": refusal.ret_msg}
        headers["Server"] = "Openresty"
        headers["Timenow"] = str(now_ms)
        headers["Traceid"] = blake2b(f"{now_ms}{request.raw_path}".encode(), digest_size=16).hexdigest()
        if active is None:
            return _json(200, msgspec.json.encode(envelope), headers)
        fault = active.fault
        body = changed_body(fault, msgspec.json.encode(changed_envelope(fault, envelope)))
        headers.update(fault.headers)
        return _json(fault.status or 200, body, headers)

    def _result(self, request: web.Request, raw_query: str, headers: CIMultiDict[str], now_ms: int) -> Row:
        """The `result` of one call; raises Refusal. Adds the rate limit's headers to those of private answers."""
        if (answer := PUBLIC.get(request.path)) is not None:
            return answer(self.exchange, request.query, now_ms)
        endpoint, clock = PRIVATE[request.path], self.exchange.clock
        times_ms = (now_ms,) if clock.freeze_ms is None else (now_ms, clock.wall_ms())
        key = authenticate(request.headers, raw_query, times_ms)
        if self.key_limit is not None:
            allowance = self.key_limit.take(key.key, request.path, endpoint.per_second, clock.wall_ms())
            headers.update(_limit_headers(allowance))
            if allowance.remaining < 0:
                raise TOO_MANY
        return endpoint.answer(self.exchange, request.query, key, now_ms)


SIMULATOR = web.AppKey("simulator", Simulator)


def _limit_headers(allowance: Allowance) -> Mapping[str, str]:
    return {
        "X-Bapi-Limit": str(allowance.limit),
        "X-Bapi-Limit-Status": str(max(0, allowance.remaining)),
        "X-Bapi-Limit-Reset-Timestamp": str(allowance.reset_ms),
    }


def _json(status: int, body: bytes, headers: CIMultiDict[str]) -> web.Response:
    headers.setdefault("Content-Type", "application/json; charset=utf-8")
    return web.Response(status=status, body=body, headers=headers)


def create_simulator(
    *,
    seed: int = 1,
    margin: str = "cross",
    hedged: Iterable[str] = Modes().hedged,
    limits: bool = True,
    ban_s: float = 600.0,
    symbols: int = 0,
    control: bool = False,
    clock: Clock | None = None,
    ticks_per_s: float = 10.0,
    connects: int = CONNECTS,
    idle_s: float = 600.0,
) -> web.Application:
    """The exchange as an application; no I/O. Its Simulator stands under SIMULATOR.

    margin: "cross" or "isolated". hedged: symbols in hedge mode. limits: whether rate limits hold, with bans of `ban_s`
    seconds. symbols: how many linear ones there are at least. control: whether tests may steer it under /_control.
    ticks_per_s: how often a ticker changes on the streams. connects: how many stream connections an address may open in
    five minutes, if limits hold. idle_s: after how long without a word they are closed.
    Raises ValueError for unknown modes, too many symbols or ticks.
    """
    exchange = Exchange(seed, clock or Clock(), modes_of(margin, hedged), symbols)
    streams = Streams(exchange, ticks_per_s=ticks_per_s, idle_s=idle_s)
    simulator = Simulator(exchange, streams, limits=limits, ban_s=ban_s)
    sockets = Sockets(streams, ConnectLimit(connects) if limits else None)
    app = web.Application()
    app[SIMULATOR] = simulator
    app.add_routes([web.get(path, simulator.handle) for path in (*PUBLIC, *PRIVATE)])
    app.add_routes([web.get(path, sockets.handle) for path in PATHS])
    if control:
        add_control(app, simulator)
        add_stream_control(app, simulator)
    app.on_shutdown.extend((_let_go, sockets.end))
    app.cleanup_ctx.append(streams.running)
    return app


async def _let_go(app: web.Application) -> None:
    app[SIMULATOR].faults.remove()
