"""Exchanges that speak Bybit's streams over real WebSockets on a free port, and misbehave as a test says."""

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import WSMsgType, web

TICKER = {
    "symbol": "BTCUSDT", "tickDirection": "MinusTick", "price24hPcnt": "-0.158315", "lastPrice": "66666.60",
    "prevPrice24h": "79206.20", "highPrice24h": "79266.30", "lowPrice24h": "65076.90", "prevPrice1h": "66666.60",
    "markPrice": "66666.60", "indexPrice": "115418.19", "openInterest": "492373.72",
    "openInterestValue": "32824881841.75", "turnover24h": "4936790807.6521", "volume24h": "73191.3870",
    "fundingIntervalHour": "8", "fundingCap": "0.005", "nextFundingTime": "1760342400000", "fundingRate": "-0.005",
    "bid1Price": "66666.60", "bid1Size": "23789.165", "ask1Price": "66666.70", "ask1Size": "23775.469",
    "preOpenPrice": "", "preQty": "", "curPreListingPhase": "",
}  # fmt: skip
POSITION = {
    "positionIdx": 2, "tradeMode": 0, "riskId": 1, "riskLimitValue": "2000000", "symbol": "BTCUSDT", "side": "",
    "size": "0", "entryPrice": "0", "leverage": "10", "breakEvenPrice": "93556.73034991", "positionValue": "0",
    "positionBalance": "0", "markPrice": "28184.5", "positionIM": "0", "positionMM": "0", "takeProfit": "0",
    "stopLoss": "0", "trailingStop": "0", "unrealisedPnl": "0", "curRealisedPnl": "1.26",
    "cumRealisedPnl": "-25.06579337", "sessionAvgPrice": "0", "createdTime": "1694402496913",
    "updatedTime": "1697682317038", "tpslMode": "Full", "liqPrice": "0", "bustPrice": "", "category": "linear",
    "positionStatus": "Normal", "adlRankIndicator": 0, "autoAddMargin": 0, "leverageSysUpdatedTime": "",
    "mmrSysUpdatedTime": "", "seq": 8327597863, "isReduceOnly": False,
}  # fmt: skip
WALLET = {
    "accountIMRate": "0", "accountMMRate": "0", "totalEquity": "10262.91335023",
    "totalWalletBalance": "9684.46297164", "totalMarginBalance": "9684.46297164",
    "totalAvailableBalance": "9556.6056555", "totalPerpUPL": "0", "totalInitialMargin": "0",
    "coin": [
        {"coin": "BTC", "equity": "0.00102964", "usdValue": "36.70759517", "walletBalance": "0.00102964",
         "availableToWithdraw": "0.00102964", "availableToBorrow": "", "borrowAmount": "0", "totalOrderIM": "",
         "totalPositionIM": "", "totalPositionMM": "", "unrealisedPnl": "0", "bonus": "0", "collateralSwitch": True,
         "locked": "0"}
    ],
    "accountLTV": "0", "accountType": "UNIFIED",
}  # fmt: skip
CANDLE = {
    "start": 1672324800000, "end": 1672325099999, "interval": "5", "open": "16649.5", "close": "16677",
    "high": "16677", "low": "16608", "volume": "2.081", "turnover": "34666.4005", "confirm": False,
    "timestamp": 1672324988882,
}  # fmt: skip


def now_ms() -> int:
    """The exchange's clock, which is ours here."""
    return round(time.time() * 1000)


class Connection:
    """One stream as the exchange sees it."""

    def __init__(self, path: str, ws: web.WebSocketResponse) -> None:
        self.path = path
        self.ws = ws
        self.subscribed: set[str] = set()
        self.requests: list[dict[str, Any]] = []
        self.sequence = itertools.count(1000, 7)

    async def say(self, **message: Any) -> None:
        """Send a message."""
        with contextlib.suppress(ConnectionError):
            await self.ws.send_str(json.dumps(message))

    async def ticker(self, kind: str, symbol: str = "BTCUSDT", **fields: Any) -> None:
        """A ticker push of `kind`; `cs` and `ts` are made unless given."""
        outer = {"cs": fields.pop("cs", None) or next(self.sequence), "ts": fields.pop("ts", None) or now_ms()}
        data = {**(TICKER if kind == "snapshot" else {}), "symbol": symbol, **fields}
        await self.say(topic=f"tickers.{symbol}", type=kind, data=data, **outer)

    async def push(self, topic: str, *rows: dict[str, Any]) -> None:
        """A private push."""
        await self.say(id="1", topic=topic, creationTime=now_ms(), data=list(rows))


Habit = Callable[[Connection, dict[str, Any]], Awaitable[bool]]
"""Sees a request before the exchange answers it; True keeps it from answering."""


class StreamExchange:
    """Answers as documented: refuses a whole batch for one bad or doubled argument, and sends tickers on joining."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.attempts = 0
        self.bad: set[str] = set()
        self.habit: Habit | None = None
        self.refuse_status: int | None = None
        self.headers: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self.numbers_acks = True
        self.url = ""

    @property
    def last(self) -> Connection:
        """The newest connection."""
        return self.connections[-1]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One connection, to its end."""
        self.attempts += 1
        if self.refuse_status is not None:
            return web.Response(status=self.refuse_status, headers=self.headers)
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        connection = Connection(request.path, ws)
        self.connections.append(connection)
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                document = json.loads(message.data)
                connection.requests.append(document)
                if self.habit is None or not await self.habit(connection, document):
                    await self.answer(connection, document)
        return ws

    async def answer(self, connection: Connection, request: dict[str, Any]) -> None:
        """The documented answer to `request`."""
        op = request["op"]
        number = {"req_id": request["req_id"] if self.numbers_acks else None}
        if op == "ping" and connection.path.endswith("private"):
            return await connection.say(op="pong", args=[str(now_ms())], conn_id="c", **number)
        if op == "ping":
            return await connection.say(success=True, ret_msg="pong", op="ping", conn_id="c", **number)
        if op == "auth":
            return await connection.say(success=self._knows(request["args"]), ret_msg="", op="auth", conn_id="c")
        why = self._refusal(connection, request)
        await connection.say(success=not why, ret_msg=why, op=op, conn_id="c", **number)
        if why:
            return None
        if op == "unsubscribe":
            return connection.subscribed.difference_update(request["args"])
        connection.subscribed.update(request["args"])
        for arg in request["args"]:
            if arg.startswith("tickers."):
                await connection.ticker("snapshot", arg.partition(".")[2])
        return None

    def _knows(self, args: list[Any]) -> bool:
        key, expires_ms, signature = args
        secret = self.keys.get(key)
        if secret is None or not now_ms() < expires_ms <= now_ms() + 60_000:
            return False
        right = hmac.new(secret.encode(), b"GET/realtime%d" % expires_ms, hashlib.sha256).hexdigest()
        return bool(right == signature)

    def _refusal(self, connection: Connection, request: dict[str, Any]) -> str:
        args = request["args"]
        if request["op"] == "unsubscribe":
            return ""
        if doubled := connection.subscribed.intersection(args):
            return f"error:already subscribed,topic:{min(doubled)}"
        if bad := self.bad.intersection(args):
            return f"error:handler not found,topic:{min(bad)}"
        return ""


@contextlib.asynccontextmanager
async def stream_exchange(tls: ssl.SSLContext | None = None) -> AsyncIterator[StreamExchange]:
    """An exchange that ends with the context."""
    exchange = StreamExchange()
    app = web.Application()
    app.router.add_get("/{path:.*}", exchange.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    host, port = runner.addresses[0][:2]
    exchange.url = f"{'wss' if tls else 'ws'}://{host}:{port}"
    yield exchange
    for connection in exchange.connections:
        transport = connection.ws._req.transport if connection.ws._req is not None else None
        if transport is not None:
            transport.abort()
    await asyncio.wait_for(runner.cleanup(), 5)
