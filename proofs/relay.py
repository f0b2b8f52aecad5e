"""A relay between the exchange's streams and the gateway, which writes into each ticker when it was sent on."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

FIELD = "bid1Size"
"""The field of a ticker that says when it was sent, in nanoseconds of the machine's monotonic clock: a decimal string
as any other, which the gateway passes on as it is."""


class Relay:
    """Serves every path of the streams at `url`, as long as an `async with` block, on `port` of 127.0.0.1."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.port = 0
        self.stamped = 0

    async def __aenter__(self) -> Relay:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._serve)
        self._http = aiohttp.ClientSession()
        self._runner = web.AppRunner(app, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        down = web.WebSocketResponse(compress=False)
        await down.prepare(request)
        async with self._http.ws_connect(f"{self._url}{request.path}", compress=0) as up:
            questions = asyncio.create_task(_passed_on(down, up))
            try:
                async for message in up:
                    await down.send_str(self._stamped(message.data))
            except ConnectionError:
                pass  # the gateway has gone
            finally:
                questions.cancel()
                await asyncio.gather(questions, return_exceptions=True)
        return down

    def _stamped(self, text: str) -> str:
        if '"topic":"tickers.' not in text:
            return text
        document = msgspec.json.decode(text)
        self.stamped += 1
        document["data"][FIELD] = str(time.monotonic_ns())
        return msgspec.json.encode(document).decode()


async def _passed_on(down: web.WebSocketResponse, up: aiohttp.ClientWebSocketResponse[Any]) -> None:
    async for message in down:
        await up.send_str(message.data)
    await up.close()
