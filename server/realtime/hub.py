"""The hub: who is subscribed to what, live delivery of each change, and waking those whom a failure concerns."""

import asyncio
import time
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, TypeVar

from aiojobs import Scheduler

from ..errors import GatewayError, InternalError, UnknownSymbol
from ..models import Candles, Topic
from ..telemetry import get_logger
from .alarms import Alarms
from .channel import Channel, State
from .channels import Channels
from .frames import Frame
from .lookout import Lookout
from .outbox import Outbox
from .pulse import Pulse
from .session import Session
from .subscription import Subscription
from .tally import Census, Tally

log = get_logger(__name__)

T = TypeVar("T")

SLICE = 50
"""Sockets served before the loop has its turn: what keeps REST fast while thousands are written to."""
COUNTED = 250
"""Sockets asked for what they were sent before the loop has its turn."""
ENCODED = 20
"""Channels whose news are encoded before the loop has its turn."""

ASK_WAIT_S = 0.5
LIVE_SNAPSHOT_S = 5.0

# Dictionaries keep the order of arrival, which is that of memory, more or less: sets would scatter.
Members = dict[Subscription, None]


class Hub:
    """Every open session, its subscriptions by channel, and for each channel with live ones the asker that serves them.

    What changes is shown to the live subscriptions at the end of the loop's turn, once. An asker asks the channel's
    feeds every `live_poll_s` for as long as one is there, so that what no stream keeps is young too, and sees to a
    snapshot at least every five seconds.
    """

    def __init__(
        self,
        channels: Channels,
        *,
        live_poll_s: float,
        stale_after_s: float = 3.0,
        heartbeat_s: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pulse = Pulse(heartbeat_s, clock=clock)
        self.alarms = Alarms(clock=clock)
        self._channels = channels
        self._live_poll_s = live_poll_s
        self._max_age_s = live_poll_s / 2
        self._ask_wait_s = min(live_poll_s, ASK_WAIT_S)
        self._clock = clock
        self.tally = Tally()
        self._sessions: dict[Session, None] = {}
        self._members: dict[Channel, Members] = {}
        self._live: dict[Channel, Members] = {}
        self._watching: dict[Topic, dict[Channel, None]] = {}
        self._asked: set[Channel] = set()
        self._doubted: dict[Channel, Members] = {}
        self._shown: dict[Channel, Frame] = {}
        self._told: set[Channel] = set()
        self._changed: dict[Channel, None] = {}
        self._has_changed = asyncio.Event()
        self._troubled: set[Topic] = set()
        self._news: dict[Topic, None] = {}
        self._has_news = asyncio.Event()
        self._lookout = Lookout(
            lambda: self._watching, channels.readings.part, self._spread, stale_after_s=stale_after_s, clock=clock
        )
        self._scheduler: Scheduler | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def sessions(self) -> list[Session]:
        """All of them."""
        return [*self._sessions]

    async def census(self) -> Census:
        """What all sockets were sent so far, those included that have gone; asked for in slices."""
        every = self.sessions
        census = Census(self.tally, len(every))
        for start in range(0, len(every), COUNTED):
            census.add(every[start : start + COUNTED])
            await asyncio.sleep(0)
        return census

    def subscriptions(self) -> dict[tuple[str, bool], int]:
        """How many there are of each kind of channel, and whether live."""
        counts: dict[tuple[str, bool], int] = {}
        for channel, members in self._members.items():
            kind, live = channel.name.partition(":")[0], len(self._live.get(channel, ()))
            counts[kind, True] = counts.get((kind, True), 0) + live
            counts[kind, False] = counts.get((kind, False), 0) + len(members) - live
        return counts

    async def start(self, scheduler: Scheduler) -> None:
        """Run the hub's jobs on `scheduler`, whose owner closes them."""
        self._scheduler = scheduler
        await scheduler.spawn(self._deliver(), name="deliverer")
        await scheduler.spawn(self._herald(), name="herald")
        await scheduler.spawn(self._pulse.run(), name="pulse")
        await scheduler.spawn(self._lookout.run(), name="lookout")

    def join(self, session: Session) -> None:
        """Count `session` among those that are open, with what it is subscribed to."""
        self._sessions[session] = None
        self._pulse.join(session)
        for subscription in session.subscriptions.values():
            self.subscribe(subscription)

    def leave(self, session: Session) -> None:
        """Forget `session` and all that it is subscribed to; what has not begun by now never will."""
        if session in self._sessions:
            del self._sessions[session]
            self.tally.left(session)
        self._pulse.leave(session)
        for subscription in session.subscriptions.values():
            subscription.close()
            self.unsubscribe(subscription)

    def subscribe(self, subscription: Subscription) -> None:
        """Count `subscription` among those of its channel."""
        channel = subscription.channel
        self._members.setdefault(channel, {})[subscription] = None
        for topic in channel.topics:
            self._watching.setdefault(topic, {})[channel] = None

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget `subscription`; the last one of a channel takes the channel with it."""
        channel = subscription.channel
        if (doubted := self._doubted.get(channel)) is not None:
            doubted.pop(subscription, None)
            if not doubted:
                del self._doubted[channel]
        if (live := self._live.get(channel)) is not None:
            live.pop(subscription, None)
            if not live:
                del self._live[channel]
                self._shown.pop(channel, None)
        if (members := self._members.get(channel)) is not None:
            members.pop(subscription, None)
            if not members:
                del self._members[channel]
                self._abandon(channel)

    def tidy(self, channel: Channel) -> None:
        """Forget `channel` if nobody has it."""
        if channel not in self._members:
            self._channels.forget(channel)

    def _abandon(self, channel: Channel) -> None:
        self._told.discard(channel)
        self._changed.pop(channel, None)
        self._channels.forget(channel)
        for topic in channel.topics:
            if (watching := self._watching.get(topic)) is not None:
                watching.pop(channel, None)
                if not watching:
                    del self._watching[topic]
                    self._troubled.discard(topic)

    async def begin(self, session: Session, subscriptions: list[Subscription]) -> None:
        """Have `session` show the first snapshots of these, beside whatever else it does."""
        assert self._scheduler is not None, "the hub is started before any session"
        for subscription in subscriptions:
            self.subscribe(subscription)
        await self._scheduler.spawn(_begin(session, subscriptions), name="first snapshots")

    async def go_live(self, subscription: Subscription, frame: Frame) -> None:
        """Show each change of its channel to `subscription` from now on; `frame` is what it was shown so far."""
        assert self._scheduler is not None, "the hub is started before any session"
        channel = subscription.channel
        self._live.setdefault(channel, {})[subscription] = None
        self._shown.setdefault(channel, frame)
        if channel.symbol and not subscription.is_known:
            self._doubted.setdefault(channel, {})[subscription] = None
        if channel not in self._asked:
            self._asked.add(channel)
            await self._scheduler.spawn(self._ask(channel), name=f"asker {channel.name}")

    async def _ask(self, channel: Channel) -> None:
        """One channel's asker, until its last live subscription has gone; what goes wrong here ends all of them."""
        try:
            await self._ask_on(channel)
        except GatewayError as error:
            self._end_live(channel, error)
        except Exception:
            log.exception("asker_crashed", channel=channel.name)
            self._end_live(channel, InternalError("a bug of the gateway"))
        finally:
            self._asked.discard(channel)

    def _end_live(self, channel: Channel, error: GatewayError) -> None:
        for session, _ in self._live_sessions(channel):
            session.end(error)

    def _live_sessions(self, channel: Channel) -> list[tuple[Session, Subscription]]:
        live = self._live.get(channel, ())
        return [(one.owner, one) for one in live if isinstance(one.owner, Session)]

    async def _ask_on(self, channel: Channel) -> None:
        while channel in self._live:
            due = self._clock() + self._live_poll_s
            self._check(channel)
            if missing := channel.too_old(self._max_age_s):
                if flights := channel.readings.refresh(missing):
                    await asyncio.wait(flights, timeout=self._ask_wait_s)
            if (frame := self._frame_due(channel)) is not None:
                await self._show(channel, frame)
            elif not channel.repeats:
                await self._tell(channel)
            await asyncio.sleep(max(0.0, due - self._clock()))

    def _check(self, channel: Channel) -> None:
        """End the subscriptions whose symbol turns out not to exist; those that have seen it listed go on."""
        if not (doubted := self._doubted.get(channel)):
            return
        first = next(iter(doubted))
        try:
            if isinstance(first.owner, Session):
                first.owner.check(first)  # one for all
        except UnknownSymbol as error:
            for subscription in [*doubted]:
                if isinstance(subscription.owner, Session):
                    subscription.owner.drop(subscription, error)
        if first.is_known:
            self._doubted.pop(channel, None)

    def _frame_due(self, channel: Channel) -> Frame | None:
        """The channel's frame if it is news, or if the last one was long ago."""
        state, shown = channel.state(self._max_age_s), self._shown.get(channel)
        # The next look may be a poll and a wait away: then it would be too late.
        latest_s = LIVE_SNAPSHOT_S - self._live_poll_s - self._ask_wait_s if channel.repeats else inf
        if shown is not None and not is_news(channel, shown, state) and self._clock() - shown.encoded_at < latest_s:
            return None
        return channel.frame_of(state)

    async def _tell(self, channel: Channel) -> None:
        """Say what is stale of `channel` to those who have not heard it, without a frame."""
        stale = channel.stale(self._max_age_s)
        if stale or channel in self._told:
            self._told.discard(channel)
            await in_slices(self._live.get(channel, ()), lambda subscription: subscription.announce(stale, self))

    async def _show(self, channel: Channel, frame: Frame) -> None:
        """Show `frame` to the live subscriptions of `channel`."""
        live = self._note_shown(channel, frame)
        if self._is_plain(channel, frame):
            await deliver(frame, live)
        else:
            await in_slices(live, lambda subscription: subscription.show(frame, self))

    def _note_shown(self, channel: Channel, frame: Frame) -> Members:
        live = self._live.get(channel, {})
        if live:
            self._shown[channel] = frame
        return live

    def _is_plain(self, channel: Channel, frame: Frame) -> bool:
        """Whether nobody has to be told anything beside the frame: then thousands are not even looked at."""
        if frame.stale or channel in self._told:
            self._told.discard(channel)  # whoever is told now that something is stale puts it back
            return False
        return True

    async def _deliver(self) -> None:
        """Show what has changed, at the end of each turn of the loop in which something has."""
        while True:
            await self._has_changed.wait()
            self._has_changed.clear()
            changed, self._changed = self._changed, {}
            try:
                await self._show_changes([channel for channel in changed if channel in self._live])
            except Exception:
                log.exception("deliverer_crashed")
                for channel in changed:
                    self._end_live(channel, InternalError("a bug of the gateway"))

    async def _show_changes(self, channels: list[Channel]) -> None:
        """One channel's change goes straight to its sockets; of several, each socket gets all frames in one write."""
        if len(channels) == 1:
            if (frame := self._changed_frame(channels[0])) is not None:
                await self._show(channels[0], frame)
            return
        waiting: dict[Outbox, None] = {}
        for number, channel in enumerate(channels, 1):
            if (frame := self._changed_frame(channel)) is not None:
                if self._is_plain(channel, frame):
                    await add(frame, self._note_shown(channel, frame), waiting)
                else:
                    await self._show(channel, frame)
            if number % ENCODED == 0:
                await asyncio.sleep(0)
        await in_slices(waiting, Outbox.flush)

    def _changed_frame(self, channel: Channel) -> Frame | None:
        state, shown = channel.state(self._max_age_s), self._shown.get(channel)
        return None if shown is not None and not is_news(channel, shown, state) else channel.frame_of(state)

    def note_trouble(self, subscription: Subscription, stale: tuple[str, ...]) -> None:
        """It was told that these parts are stale: it is woken when a good reading of one arrives."""
        channel = subscription.channel
        if channel not in self._members:
            return  # a last frame, shown while it leaves
        self._told.add(channel)
        named = zip(channel.part_names, channel.topics, strict=True)
        self._troubled.update(topic for name, topic in named if name in stale)

    def changed(self, topic: Topic) -> None:
        """A feed has a new reading or a new failure: show it, and wake whom it concerns that it broke, or healed."""
        if (watching := self._watching.get(topic)) is None:
            return
        for channel in watching:
            self.renewed(channel)
        has_failed = self._channels.readings.part(topic).has_failed
        if has_failed != (topic in self._troubled):
            (self._troubled.add if has_failed else self._troubled.discard)(topic)
            self._spread(topic)

    def shows(self, topic: Topic) -> bool:
        """Whether a socket shows something of `topic`."""
        return topic in self._watching

    def renewed(self, channel: Channel) -> None:
        """There may be something new to see of `channel`: show it to those who are shown each change."""
        channel.changed()
        if channel in self._live:
            self._changed[channel] = None
            self._has_changed.set()

    @property
    def vouched(self) -> frozenset[Topic]:
        """The topics that streams vouch for: sockets need not look for the age of those, for they are woken."""
        return self._lookout.vouched

    def _spread(self, topic: Topic) -> None:
        """Wake whom `topic` concerns."""
        self._news[topic] = None
        self._has_news.set()

    async def _herald(self) -> None:
        """Wake the subscriptions that a change concerns, in slices: a broken wallet concerns every one of them."""
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            topics, self._news = self._news, {}
            for topic in topics:
                for channel in [*self._watching.get(topic, ())]:
                    await in_slices(self._members.get(channel, ()), Subscription.wake)


async def _begin(session: Session, subscriptions: list[Subscription]) -> None:
    try:
        await session.begin(subscriptions)
    except GatewayError as error:
        session.end(error)
    except Exception:
        log.exception("session_crashed", channels=[subscription.channel.name for subscription in subscriptions])
        session.end(InternalError("a bug of the gateway"))


def is_news(channel: Channel, shown: Frame, state: State) -> bool:
    """Whether `state` holds anything that `shown` did not say, ages aside."""
    if shown.stale != state.stale and channel.repeats:
        return True
    pairs = zip(shown.readings, state.readings, strict=True)
    return any(a is not b and (a is None or b is None or _said(a.value) != _said(b.value)) for a, b in pairs)


def _said(value: Any) -> Any:
    """What of a reading's value is shown: of candles the last one, however many are held before it."""
    return value.newest if isinstance(value, Candles) else value


async def deliver(frame: Frame, subscriptions: Iterable[Subscription]) -> None:
    """Offer `frame` to each of them as they are now, in slices: a loop of its own, for this is the hot path."""
    every = list(subscriptions)
    for start in range(0, len(every), SLICE):
        if start:
            await asyncio.sleep(0)
        for subscription in every[start : start + SLICE]:
            subscription.offer(frame)


async def add(frame: Frame, subscriptions: Iterable[Subscription], waiting: dict[Outbox, None]) -> None:
    """Add `frame` to what each of them is sent at the end of this turn, and note whose outboxes wait for that."""
    every = list(subscriptions)
    for start in range(0, len(every), SLICE):
        if start:
            await asyncio.sleep(0)
        for subscription in every[start : start + SLICE]:
            if subscription.add(frame):
                waiting[subscription.outbox] = None


async def in_slices(every: Iterable[T], act: Callable[[T], object]) -> None:
    """`act` on each of them as they are now, giving the loop its turn between slices."""
    for number, one in enumerate(list(every), 1):
        act(one)
        if number % SLICE == 0:
            await asyncio.sleep(0)
