"""aiohttp, plain: one string for all sockets, `send_str` in a loop, which waits where a buffer is full."""

import asyncio

from aiohttp import web
from message import given_task

task = given_task()
sockets: set[web.WebSocketResponse] = set()
all_there = asyncio.Event()


async def handler(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(compress=False)
    await ws.prepare(request)
    sockets.add(ws)
    if len(sockets) == task.sockets:
        all_there.set()
    try:
        async for _ in ws:
            pass
    finally:
        sockets.discard(ws)
    return ws


async def main() -> None:
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", task.port).start()
    await all_there.wait()
    for message in task.messages():
        for ws in list(sockets):
            try:
                await ws.send_str(message)
            except ConnectionError:
                sockets.discard(ws)
        await asyncio.sleep(0)


asyncio.run(main())
