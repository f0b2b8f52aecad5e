"""Line: one WebSocket connection to the exchange, from its handshake to its end, and the signs of life on it."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from math import inf
from typing import Any

import aiohttp
import msgspec

from ..errors import AddressBanned, BadAnswer, ExchangeTimeout, ExchangeUnreachable
from .failures import empty

HANDSHAKE_S = 5.0
SEND_S = 2.0
PING_S = 1.0
"""How long a line may be silent before it is asked for a sign of life.

Readings in hand are as young as what the line confirms, and a client may ask for one of the last second.
"""
PONG_S = 2.0
"""How long that sign may take: with PING_S, a half-open connection is noticed within about three seconds."""
CUSTOM_S = 20.0
"""A ping is due this often even on a busy line: so the exchange asks for it."""
MAX_MESSAGE_BYTES = 1024 * 1024


class Line:
    """One connection, as seen by those who hold readings from it; it never comes back, another one follows it.

    Everything that the exchange had to say until `confirmed_at`, in seconds of the monotonic clock, is here: messages
    come in order, so each one proves that those before it have come. -inf before the first; it stays as it is once the
    line `is_over`.
    """

    def __init__(
        self,
        ws: "aiohttp.ClientWebSocketResponse[Any]",
        transport: asyncio.Transport,
        *,
        ping_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._ws = ws
        self._transport = transport
        self._ping_s = ping_s
        self._clock = clock
        self._numbers = itertools.count(1)
        self._ping: tuple[str, float] | None = None
        self._pinged_at = self.opened_at = self.heard_at = self._minded_at = clock()
        self._watched_from = -inf
        self.is_over = False
        self.confirmed_at = -inf

    def __repr__(self) -> str:
        return f"<Line confirmed_at={self.confirmed_at:.3f}>"

    async def receive(self) -> bytes:
        """The next message. Raises ExchangeUnreachable at the connection's end, BadAnswer for what is no text."""
        message = await self._ws.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise self._ended(message)
        self.heard_at = self._clock()
        data: bytes = message.data
        return data

    def _ended(self, message: Any) -> Exception:
        if message.type is aiohttp.WSMsgType.BINARY:
            return BadAnswer("the exchange's stream sent what is no text")
        if message.type is aiohttp.WSMsgType.ERROR:
            return BadAnswer("the exchange's stream broke the protocol, or sent a message that is too large")
        return ExchangeUnreachable(f"the exchange's stream ended with code {self._ws.close_code}")

    async def send(self, document: dict[str, Any]) -> None:
        """Send `document` as JSON. Raises ExchangeUnreachable, or ExchangeTimeout where the way out is blocked."""
        try:
            async with asyncio.timeout(SEND_S):
                await self._ws.send_frame(msgspec.json.encode(document), aiohttp.WSMsgType.TEXT)
        except TimeoutError:
            raise ExchangeTimeout("the exchange's stream takes no messages") from None
        except (OSError, aiohttp.ClientError):
            raise ExchangeUnreachable("the exchange's stream ended while it was sent something") from None

    def confirm(self, at: float) -> None:
        """Everything that the exchange had to say until `at` is here."""
        if at > self.confirmed_at and not self.is_over:
            self.confirmed_at = at

    async def mind(self) -> None:
        """Ask for a sign of life where one is due; to be called several times a second. Raises as `send` does.

        Raises ExchangeTimeout where the last question had no answer and nothing else came since.
        """
        now = self._clock()
        if now - self._minded_at > PONG_S / 2:
            self._watched_from = now  # we were late ourselves: what came meanwhile may be unread
        self._minded_at = now
        is_waiting = self._ping is not None and self.heard_at < self._ping[1]
        if is_waiting and now - max(self._pinged_at, self._watched_from) > PONG_S:
            raise ExchangeTimeout("the exchange's stream gave no sign of life")
        if not is_waiting and (now - self.heard_at >= self._ping_s or now - self._pinged_at >= CUSTOM_S):
            self._ping, self._pinged_at = (f"ping{next(self._numbers)}", now), now
            await self.send({"req_id": self._ping[0], "op": "ping"})

    def ponged(self, number: str) -> None:
        """Take an answer to a ping, which public streams give as a ping and private ones as a pong."""
        if self._ping is not None and number in ("", self._ping[0]):
            self.confirm(self._ping[1])
            self._ping = None

    def end(self) -> None:
        """Prove nothing any more, and cut the connection."""
        self.is_over = True
        if (error := self._ws.exception()) is not None:
            empty(error)
        self._transport.abort()


@contextlib.asynccontextmanager
async def connected(url: str, *, ping_s: float, clock: Callable[[], float]) -> AsyncIterator[Line]:
    """A line to `url`, for as long as the context lasts.

    Raises AddressBanned, ExchangeUnreachable, ExchangeTimeout. Follows no redirect, takes nothing from the environment,
    and TLS is verified. Its end waits for nobody: the connection is cut.
    """
    answers: list[aiohttp.ClientResponse] = []

    async def upgraded_only(request: aiohttp.ClientRequest, send: Any) -> aiohttp.ClientResponse:
        answer: aiohttp.ClientResponse = await send(request)
        if answer.status != 101:
            answer.close()
            raise _refusal(answer.status)
        answers.append(answer)
        return answer

    async with aiohttp.ClientSession(
        trust_env=False, cookie_jar=aiohttp.DummyCookieJar(), middlewares=(upgraded_only,)
    ) as http:
        try:
            ws = await _upgrade(http, url)
            connection = answers[-1].connection
            if connection is None or connection.transport is None:
                raise ExchangeUnreachable("the exchange's stream ended at once")
            line = Line(ws, connection.transport, ping_s=ping_s, clock=clock)
            try:
                yield line
            finally:
                line.end()
        finally:
            for answer in answers:
                answer.close()


async def _upgrade(http: aiohttp.ClientSession, url: str) -> "aiohttp.ClientWebSocketResponse[Any]":
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            return await http.ws_connect(
                url,
                max_msg_size=MAX_MESSAGE_BYTES,
                decode_text=False,
                autoclose=False,
                timeout=aiohttp.ClientWSTimeout(ws_close=0.1),
            )
    except TimeoutError:
        raise ExchangeTimeout("the exchange's stream did not open in time") from None
    except (OSError, aiohttp.ClientError) as error:
        raise ExchangeUnreachable(f"the exchange's stream could not be reached: {type(error).__name__}") from None


def _refusal(status: int) -> Exception:
    if status == 403:
        return AddressBanned("the exchange refuses streams to this address (HTTP 403): too many, or its region")
    return ExchangeUnreachable(f"the exchange's stream answered HTTP {status}")
