"""Conversation: what is said on a link's lines: requests and answers, pushes and signs of life, and what is in sync."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct

from ..errors import BadAnswer
from ..models import Reading, Source, Topic
from ..telemetry import get_logger
from .line import Line
from .pushes import Channel, Disorder
from .subscriptions import ACK_S, Request, Subscriptions
from .wire import StreamMessage, decode

log = get_logger(__name__)

TICK_S = 0.25
"""How often a line is looked after; an answer is followed by the next request at once."""

Offer = Callable[[Topic, Reading[Any]], None]


class Counts(Struct):
    """What has happened on the lines of one kind since the start, for metrics."""

    connections: int = 0
    reconnects: int = 0
    messages: int = 0
    gaps: int = 0
    garbage: int = 0
    refused: int = 0
    silences: int = 0


class Conversation:
    """The channels wanted from one address, on one line after the other.

    A channel is in sync from the confirmation of its subscription, and its first push where it begins with one, until
    it is renewed or the line ends. `changed` is called with its name at either moment, and None for the line at its
    end. Readings are offered before their channel is said to be in sync.
    """

    def __init__(
        self,
        kind: str,
        *,
        batch: int,
        now_ms: Callable[[], float],
        offer: Offer,
        changed: Callable[[str, Line | None], None],
        counts: Counts,
        ack_s: float = ACK_S,
        clock: Callable[[], float],
    ) -> None:
        self.kind = kind
        self.counts = counts
        self._now_ms, self._clock = now_ms, clock
        self._offer, self._changed = offer, changed
        self._subscriptions = Subscriptions(batch=batch, ack_s=ack_s)
        self._channels: dict[str, Channel] = {}
        self._in_sync: set[str] = set()
        self._refused: set[str] = set()
        self._line: Line | None = None
        self._is_over = False
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """How many channels are wanted."""
        return len(self._channels)

    @property
    def is_up(self) -> bool:
        """Whether there is a line."""
        return self._line is not None

    @property
    def in_sync(self) -> int:
        """How many channels are in sync."""
        return len(self._in_sync)

    def line(self, arg: str) -> Line | None:
        """The line that keeps `arg` in sync now, or None."""
        return self._line if arg in self._in_sync else None

    def want(self, channels: Iterable[Channel]) -> None:
        """Talk about `channels` and no others; those that are wanted already go on as they are."""
        before = self._channels
        self._channels = {channel.arg: before.get(channel.arg, channel) for channel in channels}
        self._subscriptions.want(self._channels)
        for arg in self._subscriptions.subscribed & (self._channels.keys() - before.keys()):
            self._subscriptions.renew(arg, self._clock())  # about to be left: what it said before is forgotten
        self._wake.set()
        self._put_out_of_sync(self._in_sync - self._channels.keys())

    def hang_up(self) -> None:
        """Let the line go that is talked on now, if there is one."""
        self._is_over = True
        self._wake.set()

    async def hold(self, line: Line) -> None:
        """Talk on `line` until nothing is wanted any more, or `hang_up`; raises ExchangeError where it is lost."""
        self._line, self._is_over = line, False
        self._subscriptions.restart()
        for channel in self._channels.values():
            channel.restart()
        await self._serve(line)

    def _put_out_of_sync(self, args: Iterable[str]) -> None:
        lost = self._in_sync.intersection(args)
        self._in_sync -= lost
        for arg in lost:
            self._changed(arg, None)

    async def _serve(self, line: Line) -> None:
        """Read and look after `line` until one of the two ends."""
        tasks = {
            asyncio.create_task(self._read(line), name=f"{self.kind} stream, reading"),
            asyncio.create_task(self._look_after(line), name=f"{self.kind} stream, looking after"),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            try:
                self._end(line)
            finally:
                await asyncio.gather(*tasks, return_exceptions=True)
        try:
            for task in done:
                task.result()
        finally:
            del task, tasks, done  # or frame and error hold each other

    def _end(self, line: Line) -> None:
        """Nothing is in sync any more, from this moment on."""
        line.end()
        self._line = None
        self._put_out_of_sync(self._in_sync)

    async def _look_after(self, line: Line) -> None:
        """Send what is to be sent, and notice what does not come; ends when the line is to be given up."""
        while self._channels and not self._is_over:
            now = self._clock()
            self._look_for_silence(now)
            self._subscriptions.give_up(now)
            self._note_refusals()
            if self._subscriptions.is_deaf:
                raise BadAnswer("the exchange's stream answers no request")
            if (request := self._subscriptions.next_request(now)) is not None:
                await self._request(line, request)
            await line.mind()
            try:
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    def _look_for_silence(self, now: float) -> None:
        for channel in [channel for channel in self._channels.values() if channel.is_overdue(now)]:
            self.counts.silences += 1
            self._renew(channel, now)

    def _renew(self, channel: Channel, now: float) -> None:
        """Subscribe to `channel` anew: what is known of it cannot be believed any more."""
        channel.restart()
        self._subscriptions.renew(channel.arg, now)
        self._wake.set()
        self._put_out_of_sync((channel.arg,))

    async def _request(self, line: Line, request: Request) -> None:
        if request.op == "subscribe":
            for arg in request.args:
                self._channels[arg].restart()
        await line.send({"req_id": request.number, "op": request.op, "args": request.args})

    async def _read(self, line: Line) -> None:
        """Take every message, as long as they can be believed. Raises BadAnswer, or what the line raises."""
        counts = self.counts
        while True:
            data = await line.receive()
            counts.messages += 1
            message = decode(data, StreamMessage)
            if message.topic:
                self._push(line, message)
            elif message.op in ("ping", "pong"):
                line.ponged(message.req_id or "")
            elif message.op in ("subscribe", "unsubscribe") and message.success is not None:
                self._answer(line, message)
            else:
                raise BadAnswer("the exchange's stream said something that is neither a push nor an answer")

    def _push(self, line: Line, message: StreamMessage) -> None:
        time_ms = message.ts or message.creationTime
        if not time_ms:
            raise BadAnswer("the exchange's push names no time")
        now = line.heard_at
        said_at = now - max(0.0, (self._now_ms() - time_ms) / 1000)
        line.confirm(said_at)
        arg = message.topic
        channel = self._channels.get(arg)
        if channel is None or not self._subscriptions.expects(arg):
            return
        try:
            values = channel.take(message)
        except Disorder:
            self._disordered(channel, now)
            return
        channel.heard_at = now
        for topic, value in values:
            self._offer(topic, Reading(value, said_at, now, time_ms, Source.PUSH))
        if not channel.has_begun:
            channel.has_begun = True
            self._review(line, channel)

    def _disordered(self, channel: Channel, now: float) -> None:
        """Renew `channel`, but for pushes of an earlier subscription that come before the new one is confirmed."""
        if channel.arg in self._subscriptions.subscribed:
            self.counts.gaps += 1
            self._renew(channel, now)

    def _answer(self, line: Line, message: StreamMessage) -> None:
        joined = self._subscriptions.answered(
            message.op,
            message.req_id or "",
            accepted=message.success is True,
            why=message.ret_msg or "",
            now=line.heard_at,
        )
        for arg in joined:
            if (channel := self._channels.get(arg)) is not None:
                channel.confirmed(line.heard_at)
                self._review(line, channel)
        self._note_refusals()
        self._wake.set()

    def _note_refusals(self) -> None:
        """Count and log what has been refused since the last look; a retry that is refused again is not news."""
        refused: set[str] = self._subscriptions.refused
        if new := refused - self._refused:
            self.counts.refused += len(new)
            log.warning("subscription_refused", stream=self.kind, args=sorted(new)[:20])
        self._refused = refused.copy()

    def _review(self, line: Line, channel: Channel) -> None:
        """Say that `channel` is in sync once it is."""
        arg = channel.arg
        if arg in self._in_sync or arg not in self._subscriptions.subscribed:
            return
        if channel.has_begun or not channel.begins_with_push:
            self._in_sync.add(arg)
            self._changed(arg, line)
