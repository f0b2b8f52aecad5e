"""Upload: the body of a request, awaited for a limited time, in which its request keeps nobody out."""

import asyncio

from aiohttp import web

from ..errors import InvalidRequest, TooLate
from .keys import LOAD, SETTINGS


async def uploaded(request: web.Request) -> bytes:
    """The whole body.

    Raises TooLate where it does not come in time, InvalidRequest where the client leaves within it or it is not what
    its headers say, and Overloaded where too many are on their way.
    """
    if request.content.is_eof():
        return await _read(request)
    timeout_s = request.app[SETTINGS].server.body_timeout_s
    try:
        with request.app[LOAD].awaiting():
            async with asyncio.timeout(timeout_s):
                return await _read(request)
    except TimeoutError:
        raise TooLate(f"the body was not whole within {timeout_s:g} s") from None


async def _read(request: web.Request) -> bytes:
    try:
        return await request.read()
    except ConnectionError as error:
        raise InvalidRequest("body", "the connection was lost within the body") from error
    except web.RequestPayloadError as error:
        raise InvalidRequest("body", "the body is not encoded as its headers say") from error
