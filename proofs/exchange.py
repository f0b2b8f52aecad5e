"""The simulator as a proof steers it, together with its twin: what is done to the one, the other knows of."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from typing import Any

from benchmarks.processes import Trouble, asked
from proofs.twin import Piece, Twin
from proofs.witnesses import price_said

SEED = 7
HELD, FLAT = "BTCUSDT", "LTCUSDT"
"""A symbol that the account trades all the time, and one that it never does."""
PATHS = {
    "/v5/market/tickers": "price",
    "/v5/market/kline": "kline",
    "/v5/position/list": "position",
    "/v5/account/wallet-balance": "wallet",
}

Fault = dict[str, object]
CUT: Fault = {"kind": "cut"}


class Exchange:
    """The simulator with the seed SEED and control routes, at `url`, and its twin."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.twin = Twin(SEED)
        self._has_lost = False

    async def _control(self, method: str, what: str, body: object = None) -> Any:
        return await asyncio.to_thread(asked, f"{self._url}/_control/{what}", method=method, body=body)

    async def check(self) -> None:
        """Raises Trouble where the twin has not what the exchange answers."""
        for symbol in (HELD, FLAT):
            url = f"{self._url}/v5/market/tickers?category=linear&symbol={symbol}"
            answer = await asyncio.to_thread(asked, url)
            if price_said(answer["result"]["list"][0]) != self.twin.at(Piece("price", symbol), answer["time"]):
                raise Trouble(f"the exchange's twin has another price of {symbol}")

    async def break_streams(self, *faults: Fault) -> None:
        for fault in faults:
            self._has_lost |= fault["kind"] == "swallow"
            await self._control("PUT", "stream", fault)

    async def break_calls(self, fault: Fault) -> None:
        await self._control("PUT", "fault", {"endpoint": "*", **fault})

    async def heal(self) -> None:
        """End every fault; where something was swallowed every line, too: TCP delivers nothing after what it lost."""
        if self._has_lost:
            await self.break_streams({"kind": "refuse"}, CUT)
            self._has_lost = False
        await self._control("DELETE", "stream")
        await self._control("DELETE", "fault")

    async def trade(self, side: str, size: str) -> None:
        """The account trades, and nobody looks meanwhile."""
        async with self.twin.steady:
            body = {"symbol": HELD, "side": side, "size": size}
            done = await self._control("PUT", "trade", body)
            self.twin.trade(HELD, side, size, done["time"])

    async def hold(self, seconds: float) -> None:
        """Return once HELD is open and stays so for that long: by itself the account closes it for minutes."""
        while True:
            now_ms = time.time_ns() // 1_000_000
            open_at = [self._is_open(now_ms + 1000 * second) for second in range(math.ceil(seconds) + 1)]
            if all(open_at):
                return
            if open_at[0]:
                await asyncio.sleep(1.0)  # it closes soon, and is opened anew afterwards
            else:
                await self.trade("Buy", "0.1")

    def _is_open(self, at_ms: int) -> bool:
        return self.twin.at(Piece("position", HELD), at_ms) != ()

    async def connections(self) -> int:
        """How many lines have been opened so far."""
        return int((await self._control("GET", "streams"))["made"])

    async def forget_calls(self) -> None:
        await self._control("DELETE", "calls")

    async def calls(self) -> Counter[str]:
        """Calls since then, by what they ask for; those for the flat symbol's position apart."""
        counts: Counter[str] = Counter()
        for call in (await self._control("GET", "calls"))["recent"]:
            kind = PATHS.get(call["path"], call["path"])
            counts[f"flat {kind}" if kind == "position" and FLAT in call["query"] else kind] += 1
        return counts
