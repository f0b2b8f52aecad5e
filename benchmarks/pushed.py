"""The gateway as `python run.py` starts it, with readings of one symbol pushed to it faster than it can deliver them.

What polling brings is bounded by Bybit's limits, some 32 changes a second: too few to see how fast the gateway
delivers. So here a task on its loop offers the symbol's feeds new readings all the time, and the hub looks for them
more often than its setting allows. All after the feeds is the gateway's own. With PUSHED_PER_S in the environment it
is that many changes a second instead, and with PUSHED_COINS the account has so many coins, which makes longer frames.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from aiohttp import web
from msgspec.structs import replace

from server import worker
from server.api import keys
from server.app import create_app
from server.cli import main
from server.market.feeds import Feeds
from server.models import Source, Ticker, Topic, Wallet
from server.settings import Settings

SYMBOL = "BTCUSDT"
PER_S = float(os.environ.get("PUSHED_PER_S", "300"))
LOOK_S = 1 / PER_S
PUSH_S = LOOK_S / 2
"""Twice for each look, so that each finds something new."""
COINS = int(os.environ.get("PUSHED_COINS", "0"))
AHEAD_S = 1.0
"""By which a reading claims to be younger than it is, so that nobody asks the exchange for one."""


def create_pushed_app(settings: Settings, **place: Any) -> web.Application:
    """The gateway's application, and the task that pushes."""
    faster = replace(settings, freshness=replace(settings.freshness, live_poll_s=LOOK_S))
    app = create_app(faster, **place)
    app.cleanup_ctx.append(_pusher)
    return app


async def _pusher(app: web.Application) -> AsyncIterator[None]:
    topics = app[keys.CHANNELS].positions(SYMBOL).topics
    pushing = asyncio.create_task(_push(app[keys.FEEDS], topics), name="pusher")
    yield
    pushing.cancel()
    await asyncio.wait({pushing})


async def _push(feeds: Feeds, topics: tuple[Topic, ...]) -> None:
    """From the first reading of each topic on, which the gateway asks the exchange for itself when a socket comes."""
    number = 0
    while True:
        number += 1
        for topic in topics:
            reading = feeds.feed(topic).reading
            if reading is None:
                continue
            value, at = reading.value, time.monotonic() + AHEAD_S
            if isinstance(value, Ticker):
                value = replace(value, mark_price=f"{50_000 + number % 40_000}.00")
            elif isinstance(value, Wallet) and COINS:
                value = replace(value, coins=tuple(replace(value.coins[0], coin=f"COIN{n}") for n in range(COINS)))
            feeds.feed(topic).offer(replace(reading, value=value, asked_at=at, arrived_at=at, source=Source.PUSH))
        await asyncio.sleep(PUSH_S)


if __name__ == "__main__":
    worker.create_app = create_pushed_app  # type: ignore[attr-defined]
    raise SystemExit(main())
