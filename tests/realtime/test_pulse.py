"""The pulse: every session at its own moments, none held once it has left."""

import asyncio
import contextlib
import gc
import weakref

import pytest

from server.realtime.pulse import Pulse
from tests.realtime.sockets import eventually


class Session:
    """Counts its beats."""

    def __init__(self) -> None:
        self.beats: list[float] = []

    def beat(self) -> None:
        self.beats.append(asyncio.get_running_loop().time())


@pytest.fixture
async def pulse() -> "contextlib.AbstractAsyncContextManager[Pulse]":
    """A pulse of half a tenth of a second, to be run."""

    @contextlib.asynccontextmanager
    async def running():  # type: ignore[no-untyped-def]
        pulse = Pulse(0.1)
        task = asyncio.create_task(pulse.run())
        yield pulse
        task.cancel()
        await asyncio.wait({task})

    return running()


async def test_each_at_its_own_moments(pulse: "contextlib.AbstractAsyncContextManager[Pulse]") -> None:
    """Sessions that join together are asked at moments that are spread, each again and again."""
    async with pulse as beats:
        sessions = [Session() for _ in range(50)]
        for session in sessions:
            beats.join(session)
        await eventually(lambda: all(len(session.beats) >= 3 for session in sessions))
    assert len({session.beats[0] for session in sessions}) >= 3
    assert all(
        later - earlier > 0.02 for one in sessions for earlier, later in zip(one.beats, one.beats[1:], strict=False)
    )


async def test_who_has_left_is_forgotten(pulse: "contextlib.AbstractAsyncContextManager[Pulse]") -> None:
    """A session that leaves is asked no more, and nothing holds it; leaving twice is once."""
    async with pulse as beats:
        session, other = Session(), Session()
        beats.join(session)
        beats.join(other)
        beats.leave(session)
        beats.leave(session)
        assert len(beats) == 1
        gone = weakref.ref(session)
        await eventually(lambda: len(other.beats) >= 3)
        assert session.beats == []
        del session
        gc.collect()
        assert gone() is None
