"""Farewell: how a socket is closed, whoever closes it first, without ever waiting for a reader that has stopped."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

from aiohttp import WSCloseCode, web

from ..errors import GatewayError, outcome_of
from ..telemetry import get_logger

log = get_logger(__name__)

CLOSE_S = 1.0
FLUSH_LOOK_S = 0.02
FIRST_UNDEFINED_CODE = 5000

FAREWELL = web.ResponseKey("FAREWELL", asyncio.Task[None])
CLOSE_CODE = web.ResponseKey("CLOSE_CODE", int)
"""What a socket was closed with by us; absent where the client went first."""


def _nothing() -> None:
    """Nobody has to know."""


def may_be_sent(code: int) -> bool:
    """Whether a close frame may carry `code`, as far as aiohttp's reader does not look (RFC 6455, section 7.4)."""
    return code != WSCloseCode.ABNORMAL_CLOSURE and code < FIRST_UNDEFINED_CODE


class Socket(web.WebSocketResponse):
    """aiohttp's WebSocket, which calls `before_close` before its close frame goes out, whoever wants that: we or it.

    A client's close with a code that it may not send is answered by 1002, which aiohttp does for most of these only.
    """

    before_close: Callable[[], None] = staticmethod(_nothing)

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        """As in aiohttp, but for codes that the client may not have sent; what is refused keeps its code."""
        self.before_close()
        if self.close_code is not None and not may_be_sent(self.close_code):
            code = WSCloseCode.PROTOCOL_ERROR
        if code != WSCloseCode.OK and not self.closed:
            self.setdefault(CLOSE_CODE, int(code))  # else aiohttp's own refusals would count as lost connections
        return await super().close(code=code, message=message, drain=drain)


def farewell(ws: web.WebSocketResponse, transport: asyncio.Transport, error: GatewayError) -> "asyncio.Task[None]":
    """Close with `error`'s code and reason, unless a farewell is under way: the first one counts, and is given back.

    It is polite for at most CLOSE_S, then does without asking; it never raises. To be waited for, not cancelled.
    """
    if (closing := ws.get(FAREWELL)) is None:
        code = outcome_of(error).close_code or WSCloseCode.INTERNAL_ERROR
        if not ws.closed:
            ws[CLOSE_CODE] = int(code)
        closing = ws[FAREWELL] = asyncio.create_task(_farewell(ws, transport, code, close_reason(error)))
    return closing


async def _farewell(ws: web.WebSocketResponse, transport: asyncio.Transport, code: int, reason: bytes) -> None:
    try:
        async with asyncio.timeout(CLOSE_S):
            # Draining here would wait for ever for a reader that has stopped.
            await ws.close(code=code, message=reason, drain=False)
            await _flushed(transport)
    except TimeoutError:
        pass
    except Exception:
        log.exception("farewell_failed")
    if transport.get_write_buffer_size() or not transport.is_closing():
        reset(transport)


def reset(transport: asyncio.Transport) -> None:
    """End a connection whose reader has stopped, now; else the kernel tries for minutes and keeps what it was given."""
    if (sock := transport.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError):  # the other side was faster
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def let_go(ws: web.WebSocketResponse, transport: asyncio.Transport) -> None:
    """After a socket has ended: wait for its farewell, or else leave what is still to be written up to CLOSE_S."""
    if (closing := ws.get(FAREWELL)) is not None:
        await asyncio.wait({closing})
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await _flushed(transport)
    if transport.get_write_buffer_size():
        reset(transport)


def disentangle(ws: web.WebSocketResponse) -> None:
    """Let go of what led to the end of a lost connection: its tracebacks hold frames, and those the socket itself.

    Sockets live long: what is left in cycles would wait for a full garbage collection, and those are rare.
    """
    error = ws.exception()
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


async def _flushed(transport: asyncio.Transport) -> None:
    """Return once nothing waits to be written; asyncio tells nobody of it, so look now and then."""
    while transport.get_write_buffer_size():  # noqa: ASYNC110  there is no event to wait for
        await asyncio.sleep(FLUSH_LOOK_S)


def close_reason(error: GatewayError) -> bytes:
    """The reason of a close frame: the detail and when to come back, at most 123 bytes of whole characters."""
    retry = "" if error.retry_after_s is None else f"; retry after {error.retry_after_s:g} s"
    room = 123 - len(retry.encode())
    return error.detail.encode()[:room].decode(errors="ignore").encode() + retry.encode()
