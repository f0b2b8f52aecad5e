"""Answers: one question about candles, computed once for all who follow it, and read by channels as feeds are."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
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
        threads: int,
        max_names: int,
        max_candles: int,
    ) -> None:
        """`aside` computes in one of so many threads."""
        self.feeds = feeds
        self.history = history
        self._tasks: set[asyncio.Task[None]] = set()
        self._aside = aside
        self._threads = asyncio.Semaphore(threads)
        self._max_names = max_names
        self._max_candles = max_candles
        self._waiting: dict[Answers, None] = {}
        self._worker: asyncio.Task[None] | None = None

    def follow(self, topic: Topic, names: str | None, renewed: Callable[[], None], *, on_close: bool) -> "Answers":
        """The answers to `names`, or to the classic set, of the candles of `topic`; `renewed` is called for each.

        Raises InvalidRequest.
        """
        questions = None if names is None else parse_names(names, max_names=self._max_names)
        query = newest(questions, topic.interval, max_candles=self._max_candles, is_closed=on_close)
        return Answers(self, topic, query, renewed)

    def start(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Run `work`, until `close` at the latest."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def enqueue(self, answers: "Answers") -> None:
        """Have `answers` computed when it is its turn."""
        self._waiting[answers] = None
        if self._worker is None or self._worker.done():
            self._worker = self.start(self._work(), "indicators")

    async def _work(self) -> None:
        while self._waiting:
            answers = next(iter(self._waiting))
            del self._waiting[answers]
            if answers.query.is_long:
                self.start(self._compute_aside(answers), "long indicators")
            else:
                await answers.compute(_here)
            await asyncio.sleep(0)

    async def _compute_aside(self, answers: "Answers") -> None:
        """When a thread is free, and not before: only then is it known which candles are the newest."""
        async with self._threads:
            await answers.compute(self._aside)

    async def close(self) -> None:
        """Cancel what is under way and wait for its end."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _here(compute: Callable[[], Body]) -> Body:
    return compute()


class Answers:
    """The newest answer to one query: a reading as old as the candles that it was computed of.

    Invariant: what is shown was computed of candles that were held; newer ones replace it once theirs is computed.
    """

    def __init__(self, answering: Answering, topic: Topic, query: Query, renewed: Callable[[], None]) -> None:
        self.query = query
        self._answering = answering
        self._feeds = answering.feeds
        self._topic = topic
        self._renewed = renewed
        self._candles: Candles | None = None
        self._body: Body = {}
        self._reading: Reading[Body] | None = None
        self._of: Reading[Candles] | None = None
        self._as_of = float("-inf")
        self._max_age_s = float("inf")
        self._flight: asyncio.Task[None] | None = None
        self._turn: asyncio.Future[None] | None = None
        self._is_computing = False

    def peek(self, topic: Topic, max_age_s: float) -> Reading[Body] | None:
        """The answer over candles that are young enough, None if they are not, or not computed of yet."""
        self._max_age_s = max_age_s
        reading = self._feeds.peek(topic, max_age_s)
        return None if reading is None else self._computed(reading)

    def part(self, topic: Topic) -> Part:
        """What is known; over candles that have just come, what was known before, and computing is under way."""
        part = self._feeds.part(topic)
        if part.reading is None:
            return part
        self._answering.history.want(topic, self.query.asked.depth)
        if (reading := self._computed(part.reading)) is not None:
            self._as_of = part.as_of
            return replace(part, reading=reading)
        self._await_turn()
        return replace(part, reading=self._reading, as_of=self._as_of, is_waiting=True)

    def refresh(self, _: Iterable[Topic]) -> "set[asyncio.Task[None]]":
        """The flight, made or joined, that brings candles as young as was asked for last, and their answer."""
        if self._flight is None or self._flight.done():
            self._flight = self._answering.start(self._fly(self._max_age_s), f"answers {self._topic}")
        elif self._feeds.peek(self._topic, self._max_age_s) is None:
            self._feeds.refresh((self._topic,))  # it may wait for a call that is late, and is to be joined by another
        return {self._flight}

    async def _fly(self, max_age_s: float) -> None:
        topic, depth = self._topic, self.query.asked.depth
        if self._feeds.peek(topic, max_age_s) is None and (flights := self._feeds.refresh((topic,))):
            await asyncio.wait(flights)
        await self._answering.history.reach(topic, depth, patience_s=OLDER_WAIT_S)
        if (reading := self._feeds.in_hand(topic)) is not None and self._computed(reading) is None:
            await asyncio.wait({self._await_turn()})

    def _await_turn(self) -> "asyncio.Future[None]":
        """When it will have been computed anew."""
        if self._turn is None:
            self._turn = asyncio.get_running_loop().create_future()
            if not self._is_computing:
                self._answering.enqueue(self)
        return self._turn

    async def compute(self, run: Aside) -> None:
        """Compute of what is in hand, by way of `run`; never raises, and whatever goes wrong is logged."""
        turn, self._turn = self._turn, None
        self._is_computing = True
        try:
            part = self._feeds.known(self._topic)
            if part is not None and part.reading is not None and self._computed(part.reading) is None:
                candles: Candles = part.reading.value
                self._hold(part, await run(lambda: _body(self.query, self._topic, candles)))
        except Exception:
            log.exception("indicators_crashed", topic=str(self._topic))
        else:
            self._renewed()
        finally:
            self._is_computing = False
            if turn is not None and not turn.done():
                turn.set_result(None)
        self._go_on()

    def _go_on(self) -> None:
        """Compute again if newer candles came meanwhile, and somebody has asked for theirs."""
        if self._turn is not None:
            self._answering.enqueue(self)

    def _hold(self, part: Part, body: Body) -> None:
        """Show what was computed of that part's candles, though newer ones may have come meanwhile."""
        assert part.reading is not None
        self._candles, self._body, self._as_of = part.reading.value, body, part.as_of
        self._take(part.reading)

    def _take(self, of: Reading[Candles]) -> None:
        """The answer is one of that reading."""
        self._of = of
        self._reading = Reading(self._body, of.asked_at, of.arrived_at, of.exchange_time_ms, of.source)

    def _computed(self, reading: Reading[Candles]) -> Reading[Body] | None:
        """The answer with the age of `reading`, if it is one over just those candles."""
        if reading is not self._of:
            if self._candles is None or not self._is_same(self._candles, reading.value):
                return None
            self._candles = reading.value
            self._take(reading)
        return self._reading

    def _is_same(self, former: Candles, candles: Candles) -> bool:
        """Whether the answer over these is that over the former: of closed candles, as long as none closed."""
        if candles is former or not self.query.asked.is_closed:
            return candles is former
        pair = self.query.asked.looked_at(former), self.query.asked.looked_at(candles)
        columns = ([getattr(each, name) for each in pair] for name in COLUMNS)
        return all(np.array_equal(*column) for column in columns)


def _body(query: Query, topic: Topic, candles: Candles) -> Body:
    try:
        return query.body(topic, candles)
    except InsufficientCandles:
        unknown = {"candle_count": len(candles), "candle_closed": None, "data": None}
        return {"symbol": topic.symbol, "category": topic.category, "interval": topic.interval, **unknown}
