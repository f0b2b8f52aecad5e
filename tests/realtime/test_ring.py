"""What a session does when its alarm rings, by a clock that the test moves: alone where it can, else by its job."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from server.models import Kind, Topic
from server.realtime.hub import Hub
from server.realtime.session import HEARTBEAT_S, OVERDUE_S, PHASE, Session
from server.settings import Settings
from tests.realtime.sockets import eventually
from tests.realtime.test_channels import Script, script

__all__ = ["script"]


class Scene:
    """A session on one channel, its job asleep after the first snapshot; what it wrote, and for how long it sleeps."""

    def __init__(self, script: Script, interval_s: float, max_age_s: float) -> None:
        self.script = script
        self.written: list[bytes] = []
        self.sleeps: list[float] = []
        self.told: list[tuple[str, ...]] = []
        self.alarms = self
        self.vouched: frozenset[Topic] = frozenset()
        self.channel = script.channels().positions("BTCUSDT")
        transport: Any = SimpleNamespace(
            write=self.written.append,
            get_write_buffer_size=lambda: 0,
            is_closing=lambda: False,
            abort=lambda: None,
            get_extra_info=lambda _: None,
        )
        ws: Any = SimpleNamespace()
        hub: Any = self
        self.session = Session(
            ws,
            transport,
            hub=hub,
            operations=ws,
            settings=Settings().websocket,
            known=lambda _: True,
            clock=script.clock,
        )
        self.subscription = self.session.subscribe(self.channel, interval_s=interval_s, max_age_s=max_age_s)

    def set(self, _: Session, seconds: float) -> dict[Any, None]:
        """In place of the hub's alarms."""
        self.sleeps.append(seconds)
        return {}

    def note_trouble(self, _: object, stale: tuple[str, ...]) -> None:
        """As the hub."""
        self.told.append(stale)

    async def pass_time(self, seconds: float) -> None:
        """Move the clock, and have everything read anew then."""
        self.script.now += seconds
        await self.script.read()
        self.channel.changed()


@contextlib.asynccontextmanager
async def asleep(script: Script, *, interval_s: float = 1.0, max_age_s: float = 0.5) -> AsyncIterator[Scene]:
    """The scene, as long as an `async with` block."""
    await script.read()
    scene = Scene(script, interval_s, max_age_s)
    job = asyncio.create_task(scene.session.run())
    await eventually(lambda: len(scene.sleeps) == 1)
    try:
        yield scene
    finally:
        job.cancel()
        await asyncio.wait({job})


async def test_what_is_young_is_shown_at_once(script: Script) -> None:
    """It is written before the call returns, and the job sleeps on until the next one is due."""
    async with asleep(script) as scene:
        for number in range(3):
            await scene.pass_time(1.0 + PHASE if number == 0 else 1.0)
            count, due = len(scene.written), scene.subscription.due
            scene.session.ring()
            assert len(scene.written) == count + 1
            assert scene.subscription.due == pytest.approx(due + 1.0)
            assert scene.sleeps[-1] == pytest.approx(scene.subscription.due - script.now)
            assert len(scene.sleeps) == 2 + number
        scene.session.ring()
        assert len(scene.written) == 4, "nothing is due"


async def test_what_is_too_old_is_for_the_job(script: Script) -> None:
    """It asks for what is missing, and shows it when it is there."""
    async with asleep(script) as scene:
        script.now += 1.0 + PHASE
        scene.session.ring()
        assert len(scene.written) == 1
        await eventually(lambda: len(scene.written) == 2)
        assert scene.channel.look(0.5) is not None


async def test_who_was_told_of_trouble_is_told_of_its_end(script: Script) -> None:
    """The word that nothing is stale any more is the job's, too."""
    async with asleep(script) as scene:
        scene.subscription.told = ("price",)
        await scene.pass_time(1.0 + PHASE)
        scene.session.ring()
        assert len(scene.written) == 1
        await eventually(lambda: len(scene.written) == 3)
        assert b'"stale":[]' in scene.written[-2] + scene.written[-1]
        assert not scene.subscription.told


async def test_a_socket_that_was_shut_is_for_the_job(script: Script) -> None:
    """Nothing is written after a close frame, and the job sees to the end."""
    async with asleep(script) as scene:
        await scene.pass_time(1.0 + PHASE)
        scene.session.outbox.shut()
        scene.session.ring()
        await asyncio.sleep(0.01)
        assert (len(scene.written), len(scene.sleeps)) == (1, 1)


async def test_it_wakes_when_something_becomes_overdue(script: Script) -> None:
    """A part that a line keeps, for which nobody vouches yet, is told of when it is too old, and not only when due."""
    line = SimpleNamespace(confirmed_at=0.0)
    async with asleep(script, interval_s=10.0) as scene:
        ticker = Topic(Kind.TICKER, "BTCUSDT")
        script.feeds.follow(ticker, line)
        await scene.pass_time(10.0 + 10 * PHASE)
        line.confirmed_at = script.now
        await scene.pass_time(0.0)
        script.now += 1.0
        await script.read(Kind.POSITION, Kind.WALLET)
        line.confirmed_at = script.now - 0.7
        scene.channel.changed()
        scene.session.ring()
        assert len(scene.written) == 2
        assert scene.sleeps[-1] == pytest.approx(3.0 - 0.7 + OVERDUE_S)
        script.feeds.unfollow(ticker)
        script.now += scene.sleeps[-1]
        scene.session.ring()
        await eventually(lambda: scene.told)
        assert ("price" in scene.told[0], b'"status"' in scene.written[-1]) == (True, True)


async def test_it_wakes_for_a_heartbeat(script: Script) -> None:
    """A socket with a snapshot a minute has a sign of life between."""
    async with asleep(script, interval_s=60.0) as scene:
        await scene.pass_time(60.0 + 60 * PHASE)
        scene.session.ring()
        assert scene.sleeps[-1] == pytest.approx(HEARTBEAT_S)


async def test_a_change_ends_the_sharing_of_a_look(script: Script) -> None:
    """Whoever is due after it sees it, also within the 50 ms that nothing else would tell."""
    await script.read()
    channels = script.channels()
    hub, channel = Hub(channels, live_poll_s=1.0, clock=script.clock), channels.positions("BTCUSDT")
    look = channel.look(1.0)
    assert channel.look(1.0) is look
    hub.renewed(channel)
    assert channel.look(1.0) is not look
