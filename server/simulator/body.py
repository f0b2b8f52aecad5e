"""Bodies of control calls: read into their types, and the answer that all is done."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from aiohttp import web

T = TypeVar("T")


async def read(request: web.Request, kind: type[T]) -> T:
    """The body as `kind`, an empty one as {}; raises HTTPBadRequest with a sentence that says what is wrong."""
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=kind)
    except msgspec.MsgspecError as error:
        raise web.HTTPBadRequest(text=str(error)) from error


def done() -> web.Response:
    return web.json_response({"ok": True})
