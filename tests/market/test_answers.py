"""Answers: one computing at a time, whatever comes meanwhile; what was computed is shown, what crashes left alone."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from server.market.answers import Answering, Answers, Body
from server.market.candles import assembled
from server.market.feeds import Feeds
from server.market.growth import grown
from server.models import CandlePush, Candles, Kind, Reading, Topic
from tests.realtime.sockets import eventually

TOPIC = Topic(Kind.KLINE, "BTCUSDT", "1")
MINUTE = 60_000
THREADS = 2


class Query:
    """A question whose computing takes as long as the test lets it."""

    def __init__(self, *, is_long: bool = True) -> None:
        self.is_long = is_long
        self.asked = SimpleNamespace(depth=1000, is_closed=False)
        self.computed: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def body(self, _: Topic, candles: Candles) -> Body:
        """The last close."""
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.gate.wait(10)
        self.at_once -= 1
        self.computed.append(candles.rows[-1][4])
        if self.error is not None:
            raise self.error
        return {"close": self.computed[-1]}


class World:
    """Candles that are called for and pushed, and answers over them."""

    def __init__(self) -> None:
        rows = [(str(MINUTE * number), *"111111") for number in range(1000)]
        self.candles = assembled(rows, "1", 0)
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.renewals = 0
        self.executor = ThreadPoolExecutor(THREADS)
        self.feeds = Feeds(self.fetch, max_symbols=9, late_s=0.05)
        history: Any = SimpleNamespace(want=lambda *_: None, reach=self._reach)
        self.answering = Answering(self.feeds, history, self._aside, threads=THREADS, max_names=5, max_candles=1000)

    async def _reach(self, *_: Any, **__: Any) -> None:
        """There is nothing older."""

    async def _aside(self, compute: Callable[[], Body]) -> Body:
        return await asyncio.get_running_loop().run_in_executor(self.executor, compute)

    async def fetch(self, topics: frozenset[Topic]) -> dict[Topic, Reading[Any]]:
        """The candles in hand, once the gate is open."""
        self.asked += 1
        asked_at = time.monotonic()
        await self.gate.wait()
        return {topic: Reading(self.candles, asked_at, time.monotonic(), 0) for topic in topics}

    def answers(self, query: Query) -> Answers:
        """The answers to `query`."""
        return Answers(self.answering, TOPIC, query, self._renewed)  # type: ignore[arg-type]

    def _renewed(self) -> None:
        self.renewals += 1

    async def called(self) -> None:
        """Call for the candles."""
        await asyncio.wait(self.feeds.refresh([TOPIC]))

    def push(self, close: str) -> None:
        """The last candle moves."""
        row = (str(MINUTE * 999), "1", "1", "1", close, "1", "1")
        self.candles = grown(self.candles, CandlePush(row, is_closed=False), "1")
        self.feeds.feed(TOPIC).offer(Reading(self.candles, time.monotonic(), time.monotonic(), 0))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A world with candles in hand."""
    world = World()
    await world.called()
    yield world
    await world.answering.close()
    await world.feeds.close()
    world.executor.shutdown(wait=False)


def shown(answers: Answers) -> str | None:
    """What there is to be seen."""
    reading = answers.part(TOPIC).reading
    return None if reading is None else reading.value["close"]


async def test_looking_again_and_again_computes_once(world: World) -> None:
    """While the candles stay, and while it is being computed, however often somebody looks."""
    query = Query()
    answers = world.answers(query)
    query.gate.clear()
    assert shown(answers) is None
    await eventually(lambda: query.at_once == 1)
    for _ in range(100):
        assert answers.part(TOPIC).is_waiting
        await asyncio.sleep(0)
    query.gate.set()
    await eventually(lambda: shown(answers) == "1")
    await asyncio.sleep(0.05)
    assert query.computed == ["1"] * len(query.computed)
    assert len(query.computed) <= 2  # those who looked while it was computed may have it looked at once more


async def test_what_takes_longer_than_the_next_push_is_shown_all_the_same(world: World) -> None:
    """Answers over candles that were replaced meanwhile are shown, each in its order, and the newest in the end."""
    query, seen = Query(), list[str]()
    answers = world.answers(query)
    for number in range(2, 12):
        query.gate.clear()
        world.push(str(number))
        shown(answers)
        await eventually(lambda: query.at_once == 1)
        world.push(f"{number}.5")
        shown(answers)
        renewals = world.renewals
        query.gate.set()
        await eventually(lambda before=renewals: world.renewals > before)  # type: ignore[misc]
        seen.append(shown(answers) or "")
    assert all(float(close) >= number for number, close in enumerate(seen, 2))
    await eventually(lambda: shown(answers) == "11.5")
    assert query.most_at_once == 1
    assert query.computed == sorted(query.computed, key=float)


async def test_no_more_are_computed_at_once_than_there_are_threads(world: World) -> None:
    """The others wait for their turn with nothing in hand, and take the newest candles when it comes."""
    queries = [Query() for _ in range(3 * THREADS)]
    every = [world.answers(query) for query in queries]
    for query in queries:
        query.gate.clear()
    for answers in every:
        shown(answers)
    await eventually(lambda: sum(query.at_once for query in queries) == THREADS)
    assert world.executor._work_queue.qsize() == 0
    world.push("7")
    for query in queries:
        query.gate.set()
    await eventually(lambda: [shown(answers) for answers in every] == ["7"] * len(every))
    assert sum(query.computed == ["7"] for query in queries) == len(queries) - THREADS


@pytest.mark.parametrize("is_long", [False, True])
async def test_what_crashes_is_tried_again_only_when_somebody_looks(world: World, *, is_long: bool) -> None:
    """A crash is no news: it does not have everybody look, and so crash again."""
    query = Query(is_long=is_long)
    query.error = ValueError("a bug")
    answers = world.answers(query)
    for times in (1, 2):
        assert shown(answers) is None
        await eventually(lambda times=times: len(query.computed) == times)  # type: ignore[misc]
        await asyncio.sleep(0.02)
        assert (len(query.computed), world.renewals) == (times, 0)
    query.error = None
    shown(answers)
    await eventually(lambda: shown(answers) == "1")
    assert world.renewals == 1


async def test_a_late_call_for_candles_is_joined_by_another() -> None:
    """Whoever asks again for an answer that waits for a call that is late has another one made."""
    world = World()
    world.gate.clear()
    answers = world.answers(Query())
    answers.peek(TOPIC, 1.0)
    for _ in range(3):
        answers.refresh((TOPIC,))
        await asyncio.sleep(0.1)
    assert world.asked == 3
    await world.answering.close()
    await world.feeds.close()
    world.executor.shutdown(wait=False)
