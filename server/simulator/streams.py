"""All stream connections: who follows what, and the one task that keeps everybody's messages coming.

Only what somebody follows is worked out, once for all who follow it. Faults come between a message and its followers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

from aiohttp import web

from .connection import Connection
from .disturbance import disturbed
from .exchange import Exchange
from .frames import text_frame
from .instruments import Category
from .noise import key_of, word
from .pushes import TOPICS, Pushes
from .streamfaults import EVERY, Kind, StreamFault, StreamFaults
from .topics import Topic, encode, topic_of

STEP_S = 0.02
FASTEST_TICKS_PER_S = 50.0
PRIVATE = "private"
GOING_AWAY, NORMAL = 1001, 1000
Key = tuple[str, str]  # path and topic


class Streams:
    """The streams of one exchange. Invariant: `topics` are those public ones, and only those, that somebody follows."""

    def __init__(self, exchange: Exchange, *, ticks_per_s: float, idle_s: float) -> None:
        """Tickers change `ticks_per_s` times a second, 50 at most; who says nothing for `idle_s` is closed."""
        if not 0 < ticks_per_s <= FASTEST_TICKS_PER_S:
            raise ValueError(f"ticks per second must be over 0 and at most {FASTEST_TICKS_PER_S:g}")
        self.exchange, self.faults = exchange, StreamFaults()
        self.connections: set[Connection] = set()
        self.followers: dict[Key, set[Connection]] = {}
        self.topics: dict[Key, Topic] = {}
        self.made, self.refused, self.answers = 0, 0, 0
        self.sent: Counter[str] = Counter()
        self._period_ms, self._idle_s = round(1_000 / ticks_per_s), idle_s
        self._pushes = Pushes(exchange)
        self._now_ms, self._number = 0, 0
        self._wanted = asyncio.Event()

    def forget(self) -> None:
        """Sets the counts to zero."""
        self.made = self.refused = self.answers = 0
        self.sent.clear()

    def open(self, path: str, transport: asyncio.Transport) -> Connection:
        self.made += 1
        self._number += 1
        identity = f"{word(key_of(self.exchange.seed, 'connection'), self._number):016x}-{self._number:x}"
        connection = Connection(identity, path, transport)
        self.connections.add(connection)
        self._wanted.set()
        return connection

    def close(self, connection: Connection) -> None:
        """Forgets a connection that has ended."""
        for name in tuple(connection.topics):
            self.unfollow(connection, name)
        self.connections.discard(connection)
        if not self.connections:
            self._wanted.clear()

    def end_all(self, path: str = EVERY, code: int | None = None) -> None:
        """Ends all connections of a path: closes them with a code, or aborts them."""
        for connection in tuple(self.connections):
            if path in (EVERY, connection.path):
                connection.end(code)

    def topic(self, path: str, name: str) -> Topic | None:
        """The public topic of that name; None where there is none."""
        known = self.topics.get((path, name))
        return known or topic_of(self.exchange, Category(path), name, self._period_ms)

    def knows(self, path: str, name: str) -> bool:
        return name in TOPICS if path == PRIVATE else self.topic(path, name) is not None

    def follow(self, connection: Connection, name: str) -> bytes | None:
        """Lets a connection follow a topic that is known, and gives its first message, if there is one."""
        now_ms, key = self.exchange.clock.now_ms(), (connection.path, name)
        first = None
        if connection.path != PRIVATE:
            first = self._first(key, now_ms)
        elif not self._has_private:
            self._pushes.look(now_ms)
        self.followers.setdefault(key, set()).add(connection)
        connection.topics.add(name)
        return first

    def _first(self, key: Key, now_ms: int) -> bytes | None:
        topic = self.topic(*key)
        assert topic is not None, key
        if key in self.topics:  # all the others get what this one finds in its snapshot
            self._publish_all(key, topic.news(now_ms))
        self.topics[key] = topic
        return topic.first(now_ms)

    def unfollow(self, connection: Connection, name: str) -> None:
        key = (connection.path, name)
        connection.topics.discard(name)
        if (followers := self.followers.get(key)) is None:
            return
        followers.discard(connection)
        if not followers:
            del self.followers[key]
            self.topics.pop(key, None)

    @property
    def _has_private(self) -> bool:
        return any((PRIVATE, name) in self.followers for name in TOPICS)

    def send(self, connection: Connection, frame: bytes, topic: str = EVERY) -> None:
        """Sends a frame of a topic, or an answer, unless a fault swallows or delays it."""
        if self.faults:
            if self.faults.find(Kind.SWALLOW, connection.path, topic) is not None:
                return
            late = self.faults.find(Kind.DELAY, connection.path, topic)
            if late is not None and late.fault.delay_ms:
                connection.write_later(frame, late.fault.delay_ms / 1_000)
                return
        connection.write(frame)

    def answer(self, connection: Connection, document: object) -> None:
        """Sends the answer to an operation."""
        self.answers += 1
        self.send(connection, text_frame(encode(document)))

    def publish(self, key: Key, data: bytes) -> None:
        """Sends one message to all who follow its topic."""
        followers = self.followers.get(key, ())
        for payload in disturbed(self.faults, *key, data) if self.faults else (data,):
            frame = text_frame(payload)
            self.sent[key[1]] += len(followers)
            for connection in followers:
                self.send(connection, frame, key[1])

    def _publish_all(self, key: Key, messages: list[bytes]) -> None:
        for data in messages:
            self.publish(key, data)

    def put_fault(self, fault: StreamFault) -> None:
        """Puts a fault in force; one that cuts once does so now. Raises ValueError for an unknown path."""
        active = self.faults.put(fault)
        if fault.kind is Kind.CUT:
            active.next_cut_s = asyncio.get_running_loop().time() + (fault.every_s or 0)
            if fault.every_s is None:
                self.faults.discard(fault)
                self.end_all(fault.path, fault.code)

    def heal(self, kind: Kind | None = None) -> None:
        """Ends the faults of a kind, or all; what they held back is sent."""
        for active in self.faults.remove(kind):
            for (path, name), followers in self.followers.items():
                if name in active.held and active.fits(path, name):
                    for connection in followers:
                        connection.write(text_frame(active.held[name]))
        if kind in (None, Kind.DELAY):
            for connection in self.connections:
                connection.flush()

    def push_account(self) -> None:
        """Pushes what changed in the account."""
        if not self._has_private:
            return
        now_ms = self.exchange.clock.now_ms()
        for push in self._pushes.due(now_ms):
            for name in push.topics:
                key = (PRIVATE, name)
                if key not in self.followers:
                    continue
                self.publish(key, encode(self._pushes.document(name, push.rows, now_ms)))
                if push.late and self.faults.hit(Kind.OLD, *key) is not None:
                    self.publish(key, encode(self._pushes.document(name, push.late, now_ms)))

    def step(self, now_s: float) -> None:
        """Sends what is due at `now_s` of the loop's clock, and ends whom time or a fault ends."""
        now_ms = self.exchange.clock.now_ms()
        back, self._now_ms = now_ms < self._now_ms, now_ms
        for key, topic in self.topics.items():
            if now_ms >= topic.due_ms or back:
                self._publish_all(key, topic.news(now_ms))
        self.push_account()
        for active in self.faults.of(Kind.CUT):
            if now_s >= active.next_cut_s and active.fault.every_s is not None:
                active.next_cut_s = now_s + active.fault.every_s
                self.end_all(active.fault.path, active.fault.code)
        for connection in tuple(self.connections):
            if now_s - connection.heard_s > self._idle_s:
                connection.end(NORMAL)

    async def run(self) -> None:
        """Steps for as long as there is anybody. Cancelling is safe."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            self.step(loop.time())
            await asyncio.sleep(STEP_S)

    async def running(self, _: web.Application) -> AsyncIterator[None]:
        """Runs beside the application."""
        task = asyncio.create_task(self.run(), name="streams")
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
