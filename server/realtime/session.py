"""Session: one WebSocket client on one symbol, from its first snapshot to its close code."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from aiohttp import WSMessage, WSMsgType

from ..errors import GatewayError, InvalidRequest, MessageFlood, TooSlow, UnknownSymbol, outcome_of
from ..settings import WebSocketSettings
from .farewell import CLOSE_S, FAREWELL, Socket, farewell, let_go, reset
from .frames import PING_FRAME, ErrorMessage, Frame, HeartbeatMessage, message_frame, pong_frame
from .outbox import Outbox
from .snapshots import Snapshots

FIRST_WAIT_S = 0.9
TICK_WAIT_S = 0.5
HEARTBEAT_S = 15.0
PHASE = 0.1
"""How much of an interval a session's phase may lie after its first snapshot, so that a burst of connects spreads."""


OPERATIONS = ("ping", "auth")


class ClientMessage(msgspec.Struct, frozen=True):
    """What a client may send; unknown fields are ignored."""

    op: str
    id: int | str | None = None
    token: str | None = None


class Gathering(Protocol):
    """What a session needs of the hub."""

    async def go_live(self, session: "Session") -> None:
        """Show each new frame of the session's symbol to it from now on."""

    def note_trouble(self, symbol: str, stale: tuple[str, ...]) -> None:
        """A session was told that these parts are stale: wake it when that may have changed."""


class Session:
    """Pushes one symbol's snapshots to one socket: at its own steady interval, or live for interval 0.

    `run` is its aiojobs job, `listen` runs in the request's handler; both end when the socket does. Whatever of ours
    ends it passes through `end`, and the first reason counts.
    """

    def __init__(
        self,
        ws: Socket,
        transport: asyncio.Transport,
        *,
        symbol: str,
        interval_s: float,
        snapshots: Snapshots,
        hub: Gathering,
        max_age_s: float,
        settings: WebSocketSettings,
        known: Callable[[str], bool | None],
        admit: Callable[[str | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.symbol = symbol
        self.interval_s = interval_s
        self.told: tuple[str, ...] = ()
        self.max_age_s = max_age_s
        self.ws = ws
        self._transport = transport
        self._snapshots = snapshots
        self._hub = hub
        self._settings = settings
        self._known = known
        self._is_known = False
        self._admit = admit
        self._clock = clock
        self._wake = asyncio.Event()
        self._asked_at = clock()
        self._is_asked = False
        self._has_answered = True
        self.outbox = Outbox(
            ws,
            transport,
            settings=settings,
            too_slow=self._give_up,
            clock=clock,
        )

    @property
    def is_live(self) -> bool:
        """Whether each change is sent as it happens."""
        return self.interval_s == 0

    async def run(self) -> None:
        """The job: the first snapshot within a second, then one each interval, statuses and heartbeats between.

        Raises UnknownSymbol once the list of symbols is there without the session's.
        """
        started, phase_s = self._clock(), random.uniform(0, PHASE) * self.interval_s
        await self._tick(FIRST_WAIT_S)
        if self.is_live:
            await self._hub.go_live(self)
            await self._rest(float("inf"))
        else:
            # Where the first answers took long, the second snapshot still keeps half an interval's distance.
            await self._push(phase_s + max(started, self._clock() - self.interval_s / 2))
        # Closed, and the handler still in there: aiohttp's own close waits for ever for a reader that has stopped.
        await asyncio.sleep(2 * CLOSE_S)
        reset(self._transport)

    async def _push(self, due: float) -> None:
        """A snapshot each interval after `due`, whose phase is kept, for as long as the socket is open."""
        while self.outbox.is_open:
            due += self.interval_s * max(1.0, -((due - self._clock()) // self.interval_s))
            await self._rest(due)
            await self._tick(min(self.interval_s / 2, TICK_WAIT_S))

    async def _tick(self, wait_s: float) -> None:
        """Ask for what is too old, in parallel, wait for it at most `wait_s`, and send what there is."""
        self._asked_at = self._clock()
        if missing := self._snapshots.too_old(self.symbol, self.max_age_s):
            if flights := self._snapshots.readings.refresh(missing):
                await asyncio.wait(flights, timeout=wait_s)
        self.check()
        self.show(self._snapshots.frame(self.symbol, self.max_age_s))

    async def _rest(self, until: float) -> None:
        """Sleep until `until`, telling at once what becomes stale or recovers, and that the line is alive."""
        while self.outbox.is_open and (now := self._clock()) < until:
            beat_at = self.outbox.sent_at + HEARTBEAT_S
            if now >= beat_at:
                self._beat()
                beat_at = now + HEARTBEAT_S
            # A millisecond later, so that what is overdue then is so for sure.
            if await self._sleep(min(until, beat_at, self._overdue_at() + 0.001) - now) < until:
                self.announce(self._stale())

    def _overdue_at(self) -> float:
        """When to look by itself for what has become stale; a live session's asker looks for it."""
        if self.is_live:
            return float("inf")
        return self._snapshots.overdue_at(self.symbol, self.max_age_s, self._asked_at)

    def _stale(self) -> tuple[str, ...]:
        if self.is_live:
            return self._snapshots.stale(self.symbol, self.max_age_s)
        return self._snapshots.stale_meanwhile(self.symbol, self.max_age_s, self._asked_at)

    async def _sleep(self, seconds: float) -> float:
        """Sleep that long, or until woken; gives the time then."""
        timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
            self._wake.clear()
        return self._clock()

    def check(self) -> None:
        """Return while the symbol may exist. Raises UnknownSymbol where the list, which may come late, has it not.

        Once it was there it is not doubted any more: a list that lacks something must not end what works.
        """
        if not self._is_known:
            if (known := self._known(self.symbol)) is False:
                raise UnknownSymbol(f"the exchange has no symbol {self.symbol}")
            self._is_known = known is True

    def wake(self) -> None:
        """Look now whether what is stale has changed."""
        self._wake.set()

    def show(self, frame: Frame) -> None:
        """Offer a snapshot; where its stale parts are not those told last, say so in a status too."""
        self.outbox.offer(frame)
        if frame.stale or self.told:
            self.announce(frame.stale)

    def announce(self, stale: tuple[str, ...]) -> None:
        """Send a status if `stale` is not what was told last."""
        if stale:
            # Each time: the reading that was to end the trouble may have been too old itself.
            self._hub.note_trouble(self.symbol, stale)
        if stale != self.told:
            self.told = stale
            self.outbox.send(self._snapshots.status(self.symbol, stale))

    def _beat(self) -> None:
        stale = {f"positions:{self.symbol}": self.told} if self.told else {}
        self.outbox.send(message_frame(HeartbeatMessage("heartbeat", time.time_ns() // 1_000_000, stale)))

    def beat(self) -> None:
        """Half a heartbeat has passed: ping the client, or end the session where it gave no sign since the last one."""
        if self._is_asked and not self._has_answered:
            self.end(TooSlow("the socket gave no sign of life since the last ping"))
        elif self._is_asked:
            self._is_asked = False
        elif self.outbox.control(PING_FRAME):
            self._is_asked, self._has_answered = True, False

    async def listen(self) -> None:
        """Answer the client's messages until the socket ends, whichever way."""
        per_s = self._settings.messages_per_s
        allowance, looked_at = float(per_s), self._clock()
        async for message in self.ws:
            now, self._has_answered = self._clock(), True
            allowance, looked_at = min(per_s, allowance + (now - looked_at) * per_s), now
            if allowance < 1:
                self.end(MessageFlood(f"at most {per_s} messages a second are allowed"))
            else:
                allowance -= 1
                self._heed(message)
            if FAREWELL in self.ws:
                return

    def _heed(self, message: WSMessage) -> None:
        if message.type is WSMsgType.PING:
            self.outbox.control(pong_frame(message.data))
        elif message.type is not WSMsgType.PONG:
            self._answer(message.data if message.type is WSMsgType.TEXT else "")

    def _answer(self, text: str) -> None:
        try:
            request = parse_message(text)
        except InvalidRequest as error:
            self._say(ErrorMessage("error", None, outcome_of(error).code, error.detail))
            return
        if request.op == "ping":
            self._say({"type": "pong", "id": request.id, "timestamp_ms": time.time_ns() // 1_000_000})
        elif request.op == "auth":
            self._authenticate(request)
        else:
            detail = f"unknown operation {request.op[:40]!r}; allowed: {', '.join(OPERATIONS)}"
            self._say(ErrorMessage("error", request.id, "invalid_op", detail))

    def _authenticate(self, request: ClientMessage) -> None:
        try:
            self._admit(request.token)
        except GatewayError as error:
            self.end(error)
        else:
            self._say({"type": "ack", "id": request.id, "op": "auth"})

    def _say(self, message: Any) -> None:
        self.outbox.send(message_frame(message))

    def _give_up(self) -> None:
        self.end(TooSlow("the socket is not read as fast as it is written to"))

    def end(self, error: GatewayError) -> "asyncio.Task[None]":
        """Close for `error`'s reason; the first one counts. Gives the farewell that is under way."""
        return farewell(self.ws, self._transport, error)

    async def finish(self) -> None:
        """After the socket has ended: wait for the farewell if there is one, and let go of the transport."""
        self.outbox.close()
        await let_go(self.ws, self._transport)


def parse_message(text: str) -> ClientMessage:
    """A client's message. Raises InvalidRequest where it is no JSON object with an `op`, naming what is wrong."""
    try:
        return msgspec.json.decode(text, type=ClientMessage)
    except msgspec.ValidationError as error:
        raise InvalidRequest("message", f'{error}; expected {{"op": one of {", ".join(OPERATIONS)}}}') from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest("message", "the message is no JSON text") from error
