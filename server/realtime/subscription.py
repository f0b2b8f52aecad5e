"""Subscription: one channel of one socket: its pace, what it was shown last, and what it was told of staleness."""

import math
import sys
from collections.abc import Container
from typing import Protocol

from ..models import Topic
from .alarms import Alarms
from .channel import Channel
from .frames import Frame
from .outbox import Outbox


class Owner(Protocol):
    """The session that a subscription belongs to."""

    def woken(self, subscription: "Subscription") -> None:
        """What is stale of this one may have changed."""


class Gathering(Protocol):
    """What sessions need of the hub."""

    @property
    def alarms(self) -> Alarms:
        """What wakes them at their moments."""

    @property
    def vouched(self) -> Container[Topic]:
        """The topics of which it wakes whom it concerns once their readings get old."""

    async def go_live(self, subscription: "Subscription", frame: Frame) -> None:
        """Show each change of the channel from now on; `frame` is what was shown so far."""

    def unsubscribe(self, subscription: "Subscription") -> None:
        """Forget it."""

    def note_trouble(self, subscription: "Subscription", stale: tuple[str, ...]) -> None:
        """It was told that these parts are stale: wake it when that may have changed."""


class Nobody:
    """Whom a subscription belongs to that has ended: two that hold each other would wait for the garbage collector."""

    def woken(self, subscription: "Subscription") -> None:
        """Nobody looks."""


NOBODY = Nobody()


class Subscription:
    """Shows one channel's frames to one socket, never twice and never backwards.

    `due` is when the next one is to be shown, on the session's clock; live ones, of interval 0, have none. While its
    question waits for answers, `patient_until` says how long it may; else it is 0.
    """

    # Slots: while thousands are written to, what is spread in memory is fetched anew each time.
    __slots__ = (
        "asked_at",
        "channel",
        "due",
        "frames_sent",
        "interval_s",
        "is_known",
        "is_open",
        "last_sequence",
        "max_age_s",
        "outbox",
        "owner",
        "patient_until",
        "sent_at",
        "told",
    )

    def __init__(
        self, channel: Channel, *, interval_s: float, max_age_s: float, owner: Owner, outbox: Outbox, now: float
    ) -> None:
        self.channel = channel
        self.interval_s = interval_s
        self.max_age_s = max_age_s
        self.owner = owner
        self.outbox = outbox
        self.asked_at = self.sent_at = now
        self.due = math.inf
        self.patient_until = 0.0
        self.told: tuple[str, ...] = ()
        self.is_known = False
        self.is_open = True
        self.last_sequence = 0
        self.frames_sent = 0

    @property
    def is_live(self) -> bool:
        """Whether each change is sent as it happens."""
        return self.interval_s == 0

    def stale(self) -> tuple[str, ...]:
        """Which parts are stale now, between two snapshots."""
        if self.is_live:
            return self.channel.stale(self.max_age_s)
        return self.channel.stale_meanwhile(self.max_age_s, self.asked_at)

    def overdue_at(self, vouched: Container[Topic]) -> float:
        """When to look by itself for what has become stale; of what is live, its asker looks for that."""
        return math.inf if self.is_live else self.channel.overdue_at(self.max_age_s, self.asked_at, vouched)

    def schedule(self, now: float) -> None:
        """Set when the next snapshot is due: whole intervals after the last one was, so that the phase is kept."""
        self.due += self.interval_s * max(1.0, -((self.due - now) // self.interval_s))

    def close(self) -> None:
        """Show nothing any more, for no frame is newer than the last one; and let go of the session."""
        self.is_open, self.last_sequence = False, sys.maxsize
        self.owner = NOBODY

    def offer(self, frame: Frame) -> None:
        """Write a snapshot at once, or leave it with the outbox where the reader is slow. This is the hot path."""
        if frame.sequence <= self.last_sequence:
            return
        outbox = self.outbox
        if outbox.is_clear and outbox.transport.get_write_buffer_size() <= outbox.high_water_bytes:
            if not outbox.transport.is_closing():
                self.last_sequence = frame.sequence
                outbox.transport.write(frame.data)
                self.sent_at = frame.encoded_at
                self.frames_sent += 1
        elif self.is_open:
            outbox.keep(self, frame)

    def add(self, frame: Frame) -> bool:
        """The same, written only with what else the outbox is given in this turn; says whether it has to be flushed."""
        if frame.sequence <= self.last_sequence or not self.is_open:
            return False
        outbox = self.outbox
        is_first = outbox.is_clear and outbox.transport.get_write_buffer_size() <= outbox.high_water_bytes
        if outbox.is_full or not (is_first or outbox.turn):
            outbox.keep(self, frame)
            return False
        outbox.add(frame.data)
        self.wrote(frame)
        return is_first

    def wrote(self, frame: Frame) -> None:
        """It is on its way."""
        self.last_sequence, self.sent_at = frame.sequence, frame.encoded_at
        self.frames_sent += 1

    def show(self, frame: Frame, hub: Gathering) -> None:
        """Offer a snapshot; where its stale parts are not those told last, say so in a status too."""
        self.offer(frame)
        self.tell(frame, hub)

    def tell(self, frame: Frame, hub: Gathering) -> None:
        """Say in a status what is stale in `frame`, where that is not what was told last."""
        if frame.stale or self.told:
            self.announce(frame.stale, hub)

    def announce(self, stale: tuple[str, ...], hub: Gathering) -> None:
        """Send a status if `stale` is not what was told last."""
        if not self.is_open:
            return  # it ended while a frame went round in slices
        # A reader that is too slow for it now is told with the next snapshot that it gets.
        if stale != self.told and self.outbox.send(self.channel.status(stale)):
            self.told = stale
        if stale or self.told:
            # Each time: the reading that was to end the trouble may have been too old itself. And while it has not
            # been told that it is over, it is to be looked at again.
            hub.note_trouble(self, stale)

    def wake(self) -> None:
        """Have the session look whether what is stale has changed."""
        self.owner.woken(self)
