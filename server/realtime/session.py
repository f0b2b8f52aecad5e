"""Session: one WebSocket client, from its first snapshot to its close code."""

import asyncio
import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from aiohttp import WSMessage, WSMsgType

from ..access.rights import EVERYTHING, Rights
from ..errors import GatewayError, InvalidRequest, MessageFlood, TooSlow, UnknownSymbol, outcome_of
from ..settings import WebSocketSettings
from .agenda import Agenda
from .alarms import Slot
from .channel import Channel
from .farewell import CLOSE_S, FAREWELL, Socket, farewell, let_go, reset
from .frames import PING_FRAME, Frame, message_frame, pong_frame
from .messages import ErrorMessage, HeartbeatMessage, Message
from .operations import Operation, id_of, parse_message
from .outbox import Outbox
from .subscription import Gathering, Subscription

FIRST_WAIT_S = 0.9
TICK_WAIT_S = 0.5
LOOK_S = 0.05
HEARTBEAT_S = 15.0
OVERDUE_S = 0.001
"""How long after the moment at which something becomes overdue it is looked at: then it is so for sure."""

PHASE = 0.1
"""How much of an interval a snapshot's phase may lie after the first one, so that a burst of connects spreads."""


class Operations(Protocol):
    """What answers the messages of a client."""

    async def answer(self, session: "Session", operation: Operation) -> None:
        """Do what the client asks for, and say so. Raises InvalidRequest."""


class Session:
    """Pushes the channels that one socket is subscribed to: each at its own steady interval, or live.

    `run` is its aiojobs job, `listen` runs in the request's handler; both end when the socket does. Whatever of ours
    ends it passes through `end`, and the first reason counts. With `is_single`, on a route of one channel, an unknown
    symbol ends the socket; else it only ends the subscription.
    """

    # Thousands of them are idle most of the time.
    __slots__ = (
        "__weakref__",
        "_agenda",
        "_clock",
        "_has_answered",
        "_hub",
        "_is_asked",
        "_is_woken",
        "_known",
        "_operations",
        "_overdue_at",
        "_settings",
        "_slot",
        "_transport",
        "_waker",
        "_woken",
        "address",
        "is_single",
        "opened_at",
        "outbox",
        "pong_at",
        "rights",
        "subscriptions",
        "ws",
    )

    def __init__(
        self,
        ws: Socket,
        transport: asyncio.Transport,
        *,
        hub: Gathering,
        operations: Operations,
        settings: WebSocketSettings,
        known: Callable[[str], bool | None],
        is_single: bool = False,
        rights: Rights = EVERYTHING,
        address: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ws = ws
        self.subscriptions: dict[str, Subscription] = {}
        self.is_single = is_single
        self.rights = rights
        self.address = address
        self.opened_at = clock()
        self.pong_at: float | None = None
        self._transport = transport
        self._hub = hub
        self._operations = operations
        self._settings = settings
        self._known = known
        self._clock = clock
        self._waker: asyncio.Future[None] | None = None
        self._slot: Slot | None = None
        self._overdue_at = math.inf
        self._is_woken = False
        self._woken: dict[Subscription, None] = {}
        self._agenda = Agenda()
        self._is_asked = False
        self._has_answered = True
        self.outbox = Outbox(ws, transport, settings=settings, too_slow=self._give_up, clock=clock)

    @property
    def frames_sent(self) -> int:
        """How many frames of ours were written to it, pings and the like apart."""
        counts = (subscription.frames_sent for subscription in self.subscriptions.values())
        return self.outbox.frames_sent + sum(counts)

    @property
    def frames_conflated(self) -> int:
        """How many frames were replaced by a newer one of their channel, for it was slow."""
        return self.outbox.frames_conflated

    @property
    def buffered_bytes(self) -> int:
        """What was written to it and has not left this process yet."""
        return self._transport.get_write_buffer_size()

    def subscribe(self, channel: Channel, *, interval_s: float, max_age_s: float) -> Subscription:
        """Have `channel` from now on; nothing is shown before `begin`. In place of what it had of it."""
        self.unsubscribe(channel.name)
        subscription = self.subscriptions[channel.name] = Subscription(
            channel, interval_s=interval_s, max_age_s=max_age_s, owner=self, outbox=self.outbox, now=self._clock()
        )
        return subscription

    def unsubscribe(self, name: str) -> Subscription | None:
        """Give up the channel of that name; gives what it had of it."""
        subscription = self.subscriptions.pop(name, None)
        if subscription is not None:
            subscription.close()
            subscription.channel.unshare()
            self.outbox.frames_sent += subscription.frames_sent
            self.outbox.forget(subscription)
        return subscription

    async def run(self) -> None:
        """The job: what is due, statuses and heartbeats between, for as long as the socket is open.

        Raises UnknownSymbol, on a route of one channel, once the list of symbols is there without the session's.
        """
        if self.subscriptions:
            await self.begin([*self.subscriptions.values()])
        while self.outbox.is_open:
            if due := self._agenda.take(self._clock()):
                await self._tick(due)
            else:
                await self._rest()
        # Closed, and the handler still in there: aiohttp's own close waits for ever for a reader that has stopped.
        await asyncio.sleep(2 * CLOSE_S)
        reset(self._transport)

    async def begin(self, subscriptions: Sequence[Subscription]) -> None:
        """Show the first snapshot of each within a second, all in one write, and go on at their pace."""
        started, phase = self._clock(), random.uniform(0, PHASE)
        if flights := self._asked(subscriptions):
            await asyncio.wait(flights, timeout=FIRST_WAIT_S)
        for subscription in subscriptions:
            if subscription.is_open and self._is_known(subscription):
                frame = self._show(subscription)
                if subscription.is_live:
                    await self._hub.go_live(subscription, frame)
                else:
                    # Where the first answers took long, the second snapshot still keeps half an interval's distance.
                    interval_s = subscription.interval_s
                    self._schedule(subscription, phase * interval_s + max(started, self._clock() - interval_s / 2))
        self.outbox.flush()
        self._wake()

    def _schedule(self, subscription: Subscription, last_due: float) -> None:
        """Its next snapshot, an interval after the last one was due."""
        subscription.due, subscription.patient_until = last_due, 0.0
        subscription.schedule(self._clock())
        self._agenda.put(subscription, subscription.due)

    async def _tick(self, due: Sequence[Subscription]) -> None:
        """Show each of them what there is, once what is too old was asked for; in one write.

        What waits for its answers longer than the others can is set aside, and looked at again and again.
        """
        if flights := self._asked([subscription for subscription in due if not subscription.patient_until]):
            until = min(self._agenda.next_at, *[subscription.patient_until for subscription in due])
            await asyncio.wait(flights, timeout=max(0.0, until - self._clock()))
        now = self._clock()
        for subscription in due:
            if subscription.is_open and self._is_known(subscription):
                if now < subscription.patient_until and subscription.channel.is_awaited(subscription.max_age_s):
                    self._agenda.put(subscription, min(now + LOOK_S, subscription.patient_until))
                else:
                    self._show(subscription)
                    self._schedule(subscription, subscription.due)
        self.outbox.flush()

    def _asked(self, subscriptions: Sequence[Subscription]) -> "set[asyncio.Task[None]]":
        """The flights of all that is too old for one of them; each is to be shown within half its interval."""
        flights: set[asyncio.Task[None]] = set()
        now = self._clock()
        for subscription in subscriptions:
            subscription.asked_at = now
            subscription.patient_until = now + min(TICK_WAIT_S, subscription.interval_s / 2)
            if missing := subscription.channel.too_old(subscription.max_age_s):
                flights |= subscription.channel.readings.refresh(missing)
        return flights

    def _show(self, subscription: Subscription) -> Frame:
        """What there is, with the next flush."""
        frame = subscription.channel.frame(subscription.max_age_s)
        subscription.add(frame)
        subscription.tell(frame, self._hub)
        return frame

    def _is_known(self, subscription: Subscription) -> bool:
        """Whether its symbol may exist. Raises UnknownSymbol on a route of one channel, else it ends the subscription.

        Once it was there it is not doubted any more: a list that lacks something must not end what works.
        """
        try:
            self.check(subscription)
        except UnknownSymbol as error:
            if self.is_single:
                raise
            self.drop(subscription, error)
            return False
        return True

    def check(self, subscription: Subscription) -> None:
        """Return while the symbol of `subscription` may exist. Raises UnknownSymbol."""
        if not subscription.is_known:
            symbol = subscription.channel.symbol
            if symbol and (known := self._known(symbol)) is not True:
                if known is False:
                    raise UnknownSymbol(f"the exchange has no symbol {symbol}")
                return
            subscription.is_known = True

    def drop(self, subscription: Subscription, error: GatewayError) -> None:
        """End `subscription` for `error`'s reason, and say so; the socket lives on."""
        if self.is_single:
            self.end(error)
        elif self.unsubscribe(subscription.channel.name) is not None:
            self._hub.unsubscribe(subscription)
            self.say(
                ErrorMessage("error", None, outcome_of(error).code, error.detail, channel=subscription.channel.name)
            )

    async def _rest(self) -> None:
        """Sleep until something is due, telling at once what becomes stale or recovers, and that the line is alive.

        An asyncio.Event and a coroutine to sleep in would do, and cost each idle socket a kilobyte.
        """
        seconds = self._next_at() - self._clock()
        if not self._is_woken:
            self._waker = asyncio.get_running_loop().create_future()
            self._slot = self._hub.alarms.set(self, seconds)
            try:
                await self._waker
            finally:
                self._slot.pop(self, None)
                self._waker = None
        self._is_woken = False
        self._tell_news()

    def _next_at(self) -> float:
        """When it has to be awake again, a heartbeat that is due now being sent."""
        now, every = self._clock(), self.subscriptions.values()
        sent_at = max([subscription.sent_at for subscription in every], default=0.0)
        beat_at = max(sent_at, self.outbox.sent_at) + HEARTBEAT_S
        if now >= beat_at:
            self._beat()
            beat_at = now + HEARTBEAT_S
        vouched = self._hub.vouched
        self._overdue_at = min([one.overdue_at(vouched) for one in every], default=math.inf) + OVERDUE_S
        return min(self._agenda.next_at, beat_at, self._overdue_at)

    def _tell_news(self) -> None:
        """Say of those that were woken whether what is stale has changed; of all where one has become overdue."""
        woken, self._woken = self._woken, {}
        concerned = [*self.subscriptions.values()] if self._clock() >= self._overdue_at else woken
        for subscription in concerned:
            # Nothing of a channel goes before its first snapshot, which says what is stale by itself.
            if subscription.is_open and subscription.last_sequence and subscription.due > self._clock():
                subscription.announce(subscription.stale(), self._hub)

    def ring(self) -> None:
        """What it slept for has come: it sleeps on where a snapshot was all there was to do."""
        try:
            seconds = self._shown()
        except Exception as error:  # noqa: BLE001  # it is the job's, which sleeps, and raises it as its own
            if self._waker is not None and not self._waker.done():
                self._waker.set_exception(error)  # as if it had happened in the job
            return
        if seconds is None:
            self._wake()
        else:
            self._slot = self._hub.alarms.set(self, seconds)

    def _shown(self) -> float | None:
        """Show what is due of a socket's one channel, and give for how long it may sleep; None: not without the job.

        That is most of what thousands of sockets do, and waking a task for each of them would cost half as much again.
        """
        if len(self.subscriptions) != 1 or not self.outbox.is_open:
            return None
        (subscription,) = self.subscriptions.values()
        now = self._clock()
        if subscription.due > now or subscription.patient_until or subscription.told:
            return None
        look = subscription.channel.look(subscription.max_age_s, self._hub.vouched)
        if look is None or not subscription.is_known:
            return None
        self._agenda.take(now)
        subscription.asked_at = look.asked_at
        subscription.offer(look.frame)
        self._schedule(subscription, subscription.due)
        self._overdue_at = look.overdue_at + OVERDUE_S
        beat_at = max(subscription.sent_at, self.outbox.sent_at) + HEARTBEAT_S
        return min(subscription.due, beat_at, self._overdue_at) - now

    def _wake(self) -> None:
        self._is_woken = True
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)

    def woken(self, subscription: Subscription) -> None:
        """Look now whether what is stale of `subscription` has changed."""
        self._woken[subscription] = None
        self._wake()

    def _beat(self) -> None:
        stale = {name: subscription.told for name, subscription in self.subscriptions.items() if subscription.told}
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
                await self._heed(message)
            if FAREWELL in self.ws:
                return

    async def _heed(self, message: WSMessage) -> None:
        if message.type is WSMsgType.PING:
            self.outbox.control(pong_frame(message.data))
        elif message.type is WSMsgType.PONG:
            self.pong_at = self._clock()
        elif message.type is WSMsgType.TEXT:
            await self._answer(message.data)
        else:
            self._refuse(None, InvalidRequest("message", "a binary message is not taken; expected JSON as text"))

    async def _answer(self, text: str) -> None:
        try:
            operation = parse_message(text)
        except InvalidRequest as error:
            self._refuse(id_of(text), error)
            return
        try:
            await self._operations.answer(self, operation)
        except InvalidRequest as error:
            self._refuse(operation.id, error)

    def _refuse(self, number: int | str | None, error: InvalidRequest) -> None:
        """Answer what was wrong with the request of that `id`."""
        self.say(ErrorMessage("error", number, outcome_of(error).code, error.detail))

    def say(self, message: Message) -> None:
        """Send an answer, or what else a client has to know."""
        self.outbox.reply(message_frame(message))

    def _give_up(self) -> None:
        self.end(TooSlow("the socket is not read as fast as it is written to"))

    def end(self, error: GatewayError) -> "asyncio.Task[None]":
        """Close for `error`'s reason; the first one counts. Gives the farewell that is under way."""
        return farewell(self.ws, self._transport, error)

    async def finish(self) -> None:
        """After the socket has ended: wait for the farewell if there is one, and let go of the transport."""
        for subscription in self.subscriptions.values():
            subscription.close()
        self.outbox.close()
        await let_go(self.ws, self._transport)
