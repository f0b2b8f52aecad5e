"""aiohttp with nothing but handlers that answer bytes: PORT, and for each answer its PATH and the FILE of its body."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

port, *pairs = sys.argv[1:]
app = web.Application()


def answering(body: bytes) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return handler


for path, file in zip(pairs[::2], pairs[1::2], strict=True):
    app.router.add_get(path, answering(Path(file).read_bytes()))
web.run_app(app, host="127.0.0.1", port=int(port), access_log=None, print=None)
