"""Answers: one question about candles, computed once for all who follow it, and read by channels as feeds are."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import numpy as np
from msgspec.structs import replace

from ..errors import InsufficientCandles
from ..models import Candles, Part, Reading, Topic
from ..telemetry import get_logger
from .candles import COLUMNS
from .feeds import Feeds
from .history import History
from .indicators import Query, newest, parse_names

log = get_logger(__name__)

Body = dict[str, Any]
Aside = Callable[[Callable[[], Body]], Awaitable[Body]]

OLDER_WAIT_S = 0.9
"""How long older candles may be under way before those in hand have to do: a first snapshot is due in a second."""


class Answering:
    """Makes answers, and sees that computing them never takes the loop's turn from anybody for long.

    What is short is computed one after the other, others having their turn between; what is long, in a thread.
    """

    def __init__(
        self,
        feeds: Feeds,
        history: History,
        aside: Aside,
        *,
        max_names: int,
        max_candles: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`aside` computes in a thread."""
        self.feeds = feeds
        self.history = history
        self.clock = clock
        self._aside = aside
        self._max_names = max_names
        self._max_candles = max_candles
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watchers: list[Callable[[Topic], None]] = []

    def watch(self, changed: Callable[[Topic], None]) -> None:
        """Have `changed` called with the topic of each answer that is there anew."""
        self._watchers.append(changed)

    def follow(self, topic: Topic, names: str | None, *, on_close: bool) -> "Answers":
        """The answers to `names`, or to the classic set, of the candles of `topic`. Raises InvalidRequest."""
        questions = None if names is None else parse_names(names, max_names=self._max_names)
        query = newest(questions, topic.interval, max_candles=self._max_candles, is_closed=on_close)
        return Answers(self, topic, query)

    async def compute(self, query: Query, topic: Topic, candles: Candles) -> Body:
        """The body over `candles`; with nulls where they are too few."""
        if query.is_long:
            return await self._aside(lambda: _body(query, topic, candles))
        async with self._turn:
            body = _body(query, topic, candles)
            await asyncio.sleep(0)
            return body

    def start(self, work: Awaitable[None], topic: Topic) -> "asyncio.Task[None]":
        """Run `work` and tell who watches once it is done; whatever goes wrong in it is logged."""
        task = asyncio.create_task(self._run(work, topic), name=f"answers {topic}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, work: Awaitable[None], topic: Topic) -> None:
        try:
            await work
        except Exception:
            log.exception("indicators_crashed", topic=str(topic))
            return
        for changed in self._watchers:
            changed(topic)

    async def close(self) -> None:
        """Cancel what is under way and wait for its end."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Answers:
    """The newest answer to one query: a reading as old as the candles that it was computed of.

    Invariant: what is shown was computed of candles that were held; newer ones replace it once theirs is computed.
    """

    def __init__(self, answering: Answering, topic: Topic, query: Query) -> None:
        self._answering = answering
        self._feeds = answering.feeds
        self._topic = topic
        self._query = query
        self._candles: Candles | None = None
        self._body: Body = {}
        self._reading: Reading[Body] | None = None
        self._of: Reading[Candles] | None = None
        self._as_of = float("-inf")
        self._max_age_s = float("inf")
        self._flight: asyncio.Task[None] | None = None

    def peek(self, topic: Topic, max_age_s: float) -> Reading[Body] | None:
        """The answer over candles that are young enough, None if they are not, or not computed of yet."""
        self._max_age_s = max_age_s
        reading = self._feeds.peek(topic, max_age_s)
        return None if reading is None else self._computed(reading)

    def part(self, topic: Topic) -> Part:
        """What is known; over candles that have just come, what was known before, and the computing is under way."""
        part = self._feeds.part(topic)
        if part.reading is None:
            return part
        self._answering.history.want(topic, self._query.asked.depth)
        if (reading := self._computed(part.reading)) is not None:
            self._as_of = part.as_of
            return replace(part, reading=reading)
        self._fly(float("inf"))
        return replace(part, reading=self._reading, as_of=self._as_of, is_waiting=True)

    def refresh(self, _: Iterable[Topic]) -> "set[asyncio.Task[None]]":
        """The flight, made or joined, that brings candles as young as was asked for last, and their answer."""
        return {self._fly(self._max_age_s)}

    def _fly(self, max_age_s: float) -> "asyncio.Task[None]":
        if self._flight is None or self._flight.done():
            self._flight = self._answering.start(self._renew(max_age_s), self._topic)
        return self._flight

    async def _renew(self, max_age_s: float) -> None:
        topic, depth = self._topic, self._query.asked.depth
        if self._feeds.peek(topic, max_age_s) is None and (flights := self._feeds.refresh((topic,))):
            await asyncio.wait(flights)
        await self._answering.history.reach(topic, depth, patience_s=OLDER_WAIT_S)
        if (reading := self._feeds.in_hand(topic)) is not None and self._computed(reading) is None:
            candles = reading.value
            self._body = await self._answering.compute(self._query, topic, candles)
            self._candles, self._of = candles, None

    def _computed(self, reading: Reading[Candles]) -> Reading[Body] | None:
        """The answer with the age of `reading`, if it is one over just those candles."""
        if reading is not self._of:
            if self._candles is None or not self._is_same(self._candles, reading.value):
                return None
            self._candles, self._of = reading.value, reading
            self._reading = Reading(
                self._body, reading.asked_at, reading.arrived_at, reading.exchange_time_ms, reading.source
            )
        return self._reading

    def _is_same(self, former: Candles, candles: Candles) -> bool:
        """Whether the answer over these is that over the former: of closed candles, as long as none closed."""
        if candles is former or not self._query.asked.is_closed:
            return candles is former
        pair = self._query.asked.looked_at(former), self._query.asked.looked_at(candles)
        columns = ([getattr(each, name) for each in pair] for name in COLUMNS)
        return all(np.array_equal(*column) for column in columns)


def _body(query: Query, topic: Topic, candles: Candles) -> Body:
    try:
        return query.body(topic, candles)
    except InsufficientCandles:
        unknown = {"candle_count": len(candles), "candle_closed": None, "data": None}
        return {"symbol": topic.symbol, "category": topic.category, "interval": topic.interval, **unknown}
