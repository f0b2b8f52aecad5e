"""The hub: which sessions watch which symbol, live delivery to them, and waking them when something breaks or heals."""

import asyncio
import time
from collections.abc import Callable, Iterable
from operator import methodcaller
from typing import TypeVar

from aiojobs import Scheduler

from ..errors import GatewayError, InternalError
from ..models import Kind, Topic
from ..telemetry import get_logger
from .frames import Frame
from .outbox import Outbox
from .pulse import Pulse
from .session import Session
from .snapshots import PARTS, Snapshots

log = get_logger(__name__)

T = TypeVar("T")

SLICE = 50
"""Sockets served before the loop has its turn: what keeps REST fast while thousands are written to."""

ASK_WAIT_S = 0.5
LIVE_SNAPSHOT_S = 5.0

WATCHED = frozenset((Kind.POSITION, Kind.WALLET, Kind.TICKER))


class Hub:
    """Every open session by symbol, and for each symbol with live sessions the one asker that serves them all.

    An asker asks the symbol's feeds every `live_poll_s` for as long as a live session is there, shows each change once
    to all of them, and a snapshot at least every five seconds.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        *,
        live_poll_s: float,
        heartbeat_s: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pulse = Pulse(heartbeat_s, clock=clock)
        self._snapshots = snapshots
        self._live_poll_s = live_poll_s
        self._ask_wait_s = min(live_poll_s, ASK_WAIT_S)
        self._clock = clock
        # Dictionaries keep the order of arrival, which is that of memory, more or less: sets would scatter.
        self._sessions: dict[str, dict[Session, Outbox]] = {}
        self._live: dict[str, dict[Session, Outbox]] = {}
        self._told: set[str] = set()
        self._asked: set[str] = set()
        self._troubled: set[Topic] = set()
        self._news: dict[Topic, None] = {}
        self._has_news = asyncio.Event()
        self._scheduler: Scheduler | None = None

    def __len__(self) -> int:
        return sum(len(sessions) for sessions in self._sessions.values())

    @property
    def sessions(self) -> list[Session]:
        """All of them."""
        return [session for sessions in self._sessions.values() for session in sessions]

    async def start(self, scheduler: Scheduler) -> None:
        """Run the hub's jobs on `scheduler`, whose owner closes them."""
        self._scheduler = scheduler
        await scheduler.spawn(self._herald(), name="herald")
        await scheduler.spawn(self._pulse.run(), name="pulse")

    def join(self, session: Session) -> None:
        """Count `session` among those that watch its symbol."""
        self._sessions.setdefault(session.symbol, {})[session] = session.outbox
        self._pulse.join(session)

    def leave(self, session: Session) -> None:
        """Forget `session`; the last one of a symbol takes the symbol with it."""
        self._pulse.leave(session)
        for registry in (self._sessions, self._live):
            if (sessions := registry.get(session.symbol)) is not None:
                sessions.pop(session, None)
                if not sessions:
                    del registry[session.symbol]
        if session.symbol not in self._sessions:
            self._told.discard(session.symbol)
            self._snapshots.forget(session.symbol)
            topics = self._snapshots.topics(session.symbol)
            self._troubled.difference_update(topic for topic in topics if not self._is_watched(topic))

    async def go_live(self, session: Session) -> None:
        """Show each new frame of the session's symbol to it from now on."""
        assert self._scheduler is not None, "the hub is started before any session"
        self._live.setdefault(session.symbol, {})[session] = session.outbox
        if session.symbol not in self._asked:
            self._asked.add(session.symbol)
            await self._scheduler.spawn(self._ask(session.symbol), name=f"asker {session.symbol}")

    async def _ask(self, symbol: str) -> None:
        """One symbol's asker, until its last live session has gone; what goes wrong here ends all of them."""
        try:
            await self._ask_on(symbol)
        except GatewayError as error:
            self._end_live(symbol, error)
        except Exception:
            log.exception("asker_crashed", symbol=symbol)
            self._end_live(symbol, InternalError("a bug of the gateway"))
        finally:
            self._asked.discard(symbol)

    def _end_live(self, symbol: str, error: GatewayError) -> None:
        for session in self._live.get(symbol, ()):
            session.end(error)

    async def _ask_on(self, symbol: str) -> None:
        # What its first session has just been shown, most likely: then this shows nobody anything.
        shown = await self._show(symbol, None)
        while symbol in self._live:
            due = self._clock() + self._live_poll_s
            next(iter(self._live[symbol])).check()  # one for all
            await self._refresh(symbol)
            shown = await self._show(symbol, shown)
            await asyncio.sleep(max(0.0, due - self._clock()))

    async def _refresh(self, symbol: str) -> None:
        if missing := self._snapshots.too_old(symbol, self._live_poll_s / 2):
            if flights := self._snapshots.readings.refresh(missing):
                await asyncio.wait(flights, timeout=self._ask_wait_s)

    async def _show(self, symbol: str, shown: Frame | None) -> Frame:
        """Show the symbol's state to its live sessions if it is news, or if the last was long ago."""
        frame = self._snapshots.frame(symbol, self._live_poll_s / 2)
        # The next look may be a poll and a wait away: then it would be too late.
        latest_s = LIVE_SNAPSHOT_S - self._live_poll_s - self._ask_wait_s
        if shown is not None and not is_news(shown, frame) and frame.encoded_at - shown.encoded_at < latest_s:
            return shown
        live = self._live.get(symbol, {})
        if frame.stale or symbol in self._told:
            self._told.discard(symbol)  # whoever is told now that something is stale puts it back
            await in_slices(live, methodcaller("show", frame))
        else:
            await deliver(frame, live.values())
        return frame

    def note_trouble(self, symbol: str, stale: tuple[str, ...]) -> None:
        """A session was told that these parts are stale: it is woken when a good reading of one arrives."""
        self._told.add(symbol)
        named = zip(PARTS, self._snapshots.topics(symbol), strict=True)
        self._troubled.update(topic for name, topic in named if name in stale and self._is_watched(topic))

    def _is_watched(self, topic: Topic) -> bool:
        return topic.symbol in self._sessions if topic.symbol else bool(self._sessions)

    def changed(self, topic: Topic) -> None:
        """A feed has a new reading or a new failure: wake its sessions if it broke, or healed, with that."""
        if topic.kind not in WATCHED or not self._is_watched(topic):
            return
        has_failed = self._snapshots.readings.part(topic).has_failed
        if has_failed != (topic in self._troubled):
            (self._troubled.add if has_failed else self._troubled.discard)(topic)
            self._news[topic] = None
            self._has_news.set()

    async def _herald(self) -> None:
        """Wake the sessions that a change concerns, in slices: a broken wallet concerns every one of them."""
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            topics, self._news = self._news, {}
            for topic in topics:
                concerned = self._sessions.get(topic.symbol, ()) if topic.symbol else self.sessions
                await in_slices(concerned, Session.wake)


def is_news(shown: Frame, frame: Frame) -> bool:
    """Whether `frame` says anything that `shown` did not, ages aside."""
    if shown.stale != frame.stale:
        return True
    pairs = zip(shown.readings, frame.readings, strict=True)
    return any(a is not b and (a is None or b is None or a.value != b.value) for a, b in pairs)


async def deliver(frame: Frame, outboxes: Iterable[Outbox]) -> None:
    """Offer `frame` to each of `outboxes` as they are now, in slices: a loop of its own, for this is the hot path."""
    every = list(outboxes)
    for start in range(0, len(every), SLICE):
        if start:
            await asyncio.sleep(0)
        for outbox in every[start : start + SLICE]:
            outbox.offer(frame)


async def in_slices(every: Iterable[T], act: Callable[[T], None]) -> None:
    """`act` on each of them as they are now, giving the loop its turn between slices."""
    for number, one in enumerate(list(every), 1):
        act(one)
        if number % SLICE == 0:
            await asyncio.sleep(0)
