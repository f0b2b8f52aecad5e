"""Workers that ask each other: one page for all of them, whoever is asked, dies, hangs or is replaced."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from server.api.keys import LOAD, NEIGHBOURS
from server.api.reports import answer
from server.app import create_app
from server.processes.neighbours import Mailbox, Neighbours
from tests.conftest import Exchange, receive, settings_for
from tests.processes import keys
from tests.test_supervisor import crew, fresh

Numbers = dict[str, dict[str, float]]


@pytest.fixture(autouse=True)
def blockbuster() -> None:
    """The loop here only watches processes, and may read their files."""


@pytest.fixture
async def mailboxes() -> AsyncIterator[list[Mailbox]]:
    """Those of two places."""
    boxes = [Mailbox(), Mailbox()]
    yield boxes
    for box in boxes:
        box.close()


def neighbours(boxes: list[Mailbox], place: int) -> Neighbours:
    """What the worker in that place has."""
    return Neighbours([box.inlet for box in boxes], boxes[place].outlet)


async def echo(question: bytes) -> bytes:
    """Answers with more than a socket's buffer takes at once."""
    return question * 200_000


async def test_a_question_is_answered_whole(mailboxes: list[Mailbox]) -> None:
    """Also a long answer, also many at once; who does not listen gives none, and is not waited for long."""
    asking, asked = neighbours(mailboxes, 0), neighbours(mailboxes, 1)
    asked.listen(echo)
    answers = await asyncio.gather(*(asking.ask(1, str(number).encode()) for number in range(5)))
    assert answers == [str(number).encode() * 200_000 for number in range(5)]
    assert await asking.ask(0, b"?") is None
    asked.hush()
    assert await asking.ask(1, b"?") is None


async def test_whoever_listens_next_answers_on(mailboxes: list[Mailbox]) -> None:
    """What waits from the time when nobody listened, askers gone, does not stop the successor."""
    asking = neighbours(mailboxes, 0)
    assert await asyncio.gather(*(asking.ask(1, b"early") for _ in range(30))) == [None] * 30
    successor = neighbours(mailboxes, 1)
    successor.listen(echo)
    async with asyncio.timeout(10):
        while await asking.ask(1, b"?") is None:
            pass
    successor.hush()


async def test_an_answer_that_crashes_is_none(mailboxes: list[Mailbox]) -> None:
    """The asker is not kept waiting by a neighbour's bug, and the neighbour answers the next one."""

    async def crash(question: bytes) -> bytes:
        if question == b"crash":
            raise ValueError("a bug")
        return question

    asking, asked = neighbours(mailboxes, 0), neighbours(mailboxes, 1)
    asked.listen(crash)
    assert await asking.ask(1, b"crash") is None
    assert await asking.ask(1, b"good") == b"good"
    asked.hush()


async def scraped(url: str) -> Numbers:
    """The values of each metric without further labels, by worker."""
    async with aiohttp.ClientSession(url) as http, http.get("/metrics") as response:
        assert response.status == 200
        text = await response.text()
    numbers: Numbers = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.keys() == {"worker"}:
                numbers.setdefault(sample.name, {})[sample.labels["worker"]] = sample.value
    return numbers


async def up(url: str, *states: float, timeout_s: float = 20.0) -> Numbers:
    """A page that says of the workers in turn that they are up or not, as soon as there is one."""
    wanted = {str(number): state for number, state in enumerate(states)}
    async with asyncio.timeout(timeout_s):
        while (numbers := await scraped(url))["gateway_worker_up"] != wanted:
            pass
    return numbers


async def test_one_page_tells_of_all_workers(exchange: Exchange) -> None:
    """Whichever worker is asked, the page has every worker's numbers; the sockets of all are in one list."""
    async with crew(2, **keys(exchange)) as gateway, contextlib.AsyncExitStack() as stack:
        await up(gateway.url, 1, 1)
        for _ in range(6):
            http = await stack.enter_async_context(aiohttp.ClientSession(gateway.url))
            ws = await stack.enter_async_context(http.ws_connect("/ws/positions/BTCUSDT?interval=0.2"))
            await receive(ws)
        for _ in range(4):
            numbers = await scraped(gateway.url)
            assert sum(numbers["gateway_sessions"].values()) == 6
            assert set(numbers["gateway_frames_sent_total"]) == {"0", "1"}
            assert sum(numbers["gateway_frames_sent_total"].values()) >= 6
            assert len(set(numbers["process_start_time_seconds"].values()) | {0.0}) >= 2
        document = await fresh(gateway.url, "/connections?limit=5")
        assert (document["sessions"], len(document["connections"]), document["silent_workers"]) == (6, 5, [])
        everybody = (await fresh(gateway.url, "/connections"))["connections"]
        by_worker = [sum(row["worker"] == place for row in everybody) for place in (0, 1)]
        assert by_worker == [numbers["gateway_sessions"][str(place)] for place in (0, 1)]


async def test_a_worker_that_stands_still_is_told_of(exchange: Exchange) -> None:
    """One that does not answer is down on the page, whose other half is as always; then it is up again."""
    async with crew(2, **keys(exchange)) as gateway:
        stopped = gateway.pids()[1]
        await up(gateway.url, 1, 1)
        os.kill(stopped, signal.SIGSTOP)
        try:
            numbers: Any = None
            async with asyncio.timeout(20):
                while numbers is None:
                    # Half of the connections come to the one that stands still.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(2):
                            numbers = await scraped(gateway.url)
            assert numbers["gateway_worker_up"] == {"0": 1.0, "1": 0.0}
            assert set(numbers["gateway_sockets"]) == {"0"}
        finally:
            os.kill(stopped, signal.SIGCONT)
        await up(gateway.url, 1, 1)


async def test_restarts_leave_nothing(exchange: Exchange, tmp_path: Path) -> None:
    """However often workers die or are replaced, the page has one set of series for each place, and no file is left."""
    environment = keys(exchange) | {"TMPDIR": str(tmp_path)}
    async with crew(2, **environment) as gateway:
        before = await up(gateway.url, 1, 1)
        for _ in range(3):
            os.kill(gateway.pids()[0], signal.SIGKILL)
            await gateway.event("worker_ready", worker=0)
            after = await up(gateway.url, 1, 1)
            assert {place for values in after.values() for place in values} == {"0", "1"}
        started = "process_start_time_seconds"
        assert after[started]["0"] > before[started]["0"]
        assert after[started]["1"] == before[started]["1"]
        gateway.process.send_signal(signal.SIGHUP)
        await gateway.event("worker_ended", times=2)
        rolled = await up(gateway.url, 1, 1)
        assert all(rolled[started][place] > before[started][place] for place in ("0", "1"))
        assert await gateway.end() == 0
    assert [path.name for path in tmp_path.iterdir()] == []


async def test_a_successor_speaks_for_its_place(
    exchange: Exchange, aiohttp_client: Any, mailboxes: list[Mailbox]
) -> None:
    """A worker that leaves shows its successor's numbers, not its own, unless there is none."""

    def app() -> web.Application:
        return create_app(settings_for(exchange.url), worker=0, of=2, neighbours=neighbours(mailboxes, 0))

    former, successor = await aiohttp_client(app()), await aiohttp_client(app())
    epochs = [gateway.app[LOAD].epoch for gateway in (former, successor)]

    async def shown() -> tuple[set[str], dict[str, float]]:
        text = await (await former.get("/metrics")).text()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        ups = {s.labels["worker"]: s.value for s in samples if s.name == "gateway_worker_up"}
        return {s.labels["epoch"] for s in samples if s.name == "gateway_info"}, ups

    one_of_two = {"0": 1.0, "1": 0.0}
    assert await shown() == ({epochs[0]}, one_of_two)
    successor.app[NEIGHBOURS].listen(partial(answer, successor.app))
    former.app[LOAD].is_draining = True
    assert await shown() == ({epochs[1]}, one_of_two)
    successor.app[NEIGHBOURS].hush()
    assert await shown() == ({epochs[0]}, one_of_two)
