"""Channel: one thing that sockets can be pushed, from the readings behind it to the frame that everybody shares."""

import time
from collections.abc import Callable, Container, Iterable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import ExchangeTimeout
from ..models import Part, Reading, Topic
from .frames import Frame, fault_of, message_frame
from .messages import Message, StatusMessage

if TYPE_CHECKING:
    from asyncio import Task

SHARED_S = 0.05
"""How long a frame may be shared: a later one is encoded anew, with its own ages and the next seq."""


class Readings(Protocol):
    """What channels need of the feeds."""

    def peek(self, topic: Topic, max_age_s: float) -> Reading[Any] | None:
        """The reading in hand if it is young enough and its last refresh did not fail."""

    def part(self, topic: Topic) -> Part:
        """What is known, whatever its age. Raises Overloaded where there is no place for another topic."""

    def refresh(self, topics: Iterable[Topic]) -> "set[Task[None]]":
        """The flights that make `topics` younger."""


class Origin(NamedTuple):
    """What every message of this process says of where it comes from."""

    exchange: str
    epoch: str


class Moment(NamedTuple):
    """What a message is made of. `ages_ms` are those of the parts at `timestamp_ms`, None where there is no reading."""

    channel: str
    origin: Origin
    sequence: int
    timestamp_ms: int
    values: tuple[Any, ...]
    ages_ms: tuple[int | None, ...]
    stale: tuple[str, ...]


class State(NamedTuple):
    """What is known of a channel now: its readings, and which of its parts are stale."""

    parts: tuple[Part, ...]
    readings: tuple[Reading[Any] | None, ...]
    stale: tuple[str, ...]


class Look(NamedTuple):
    """What was found at `asked_at` by one who asked for `max_age_s`: a frame in which everything is young enough.

    `overdue_at`: when the first part that did not answer that question becomes stale by age.
    """

    frame: Frame
    max_age_s: float
    asked_at: float
    overdue_at: float


Compose = Callable[[Moment], Message]
"""The message of what is known at a moment."""


class Numbers:
    """The seq of one name, of all channels that clients know by it."""

    __slots__ = ("last",)

    def __init__(self, last: int = 0) -> None:
        self.last = last


class Channel:
    """Composes and encodes the messages of one name, from one topic or several; its seq only grows."""

    def __init__(
        self,
        name: str,
        topics: Mapping[str, Topic],
        compose: Compose,
        readings: Readings,
        origin: Origin,
        *,
        stale_after_s: float,
        numbers: "Numbers | None" = None,
        repeats: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`topics` by the names that clients know its parts by; `numbers` go on from what is taken of its name.

        One that `repeats` shows live what it showed before, after a while, or where something of it is stale; one that
        does not says that by a status only.
        """
        self.name = name
        self.topics = tuple(topics.values())
        self.part_names = tuple(topics)
        self.numbers = numbers or Numbers()
        self.repeats = repeats
        self.readings = readings
        self._compose = compose
        self._origin = origin
        self._stale_after_s = stale_after_s
        self._clock = clock
        self._last: Frame | None = None
        self._look: Look | None = None
        self._status: tuple[tuple[str, ...], float, bytes] | None = None

    def __repr__(self) -> str:
        return f"<Channel {self.name}>"

    @property
    def sequence(self) -> int:
        """The seq that its name has come to."""
        return self.numbers.last

    @property
    def symbol(self) -> str:
        """The symbol that it is about; "" for all of them, or none."""
        return next((topic.symbol for topic in self.topics if topic.symbol), "")

    def claim(self) -> None:
        """Have the readings know that its topics are wanted. Raises Overloaded where that is one too many."""
        for topic in self.topics:
            self.readings.part(topic)

    def too_old(self, max_age_s: float) -> list[Topic]:
        """Those of its topics of which there is no good reading younger than `max_age_s`."""
        peek = self.readings.peek
        return [topic for topic in self.topics if peek(topic, max_age_s) is None]

    def is_awaited(self, max_age_s: float) -> bool:
        """Whether a call is under way for what is too old; after a failure none is for a while."""
        part = self.readings.part
        return any(part(topic).is_waiting for topic in self.too_old(max_age_s))

    def threshold_s(self, max_age_s: float) -> float:
        """The age over which a part is stale for one who asks for `max_age_s`."""
        return max(self._stale_after_s, 2 * max_age_s)

    def stale(self, max_age_s: float) -> tuple[str, ...]:
        """The names of its parts that are stale now, for one who has just asked for them."""
        return self._stale(self._parts(), self.threshold_s(max_age_s))

    def stale_meanwhile(self, max_age_s: float, asked_at: float) -> tuple[str, ...]:
        """The same between two questions, for one who asked last at `asked_at`.

        A reading that answered that question may grow as old as it will until the next: age counts where none has
        come. What has failed is stale at once.
        """
        answered_s = self._clock() - asked_at + max_age_s
        return self._stale(self._parts(), max(self.threshold_s(max_age_s), answered_s))

    def overdue_at(self, max_age_s: float, asked_at: float, vouched: Container[Topic] = ()) -> float:
        """When the first part that has not answered the question of `asked_at` becomes stale by age; inf for none.

        Topics that are `vouched` for are left out: it is told elsewhere when that is over.
        """
        now, oldest, threshold_s = self._clock(), asked_at - max_age_s, self.threshold_s(max_age_s)
        soonest = inf
        for topic, part in zip(self.topics, self._parts(), strict=True):
            if part.as_of < oldest and part.reading is not None and topic not in vouched:
                moment = part.as_of + threshold_s
                if now <= moment < soonest:
                    soonest = moment
        return soonest

    def _parts(self) -> tuple[Part, ...]:
        part = self.readings.part
        return tuple([part(topic) for topic in self.topics])

    def _stale(self, parts: tuple[Part, ...], threshold_s: float) -> tuple[str, ...]:
        now = self._clock()
        named = zip(self.part_names, parts, strict=True)
        return tuple([name for name, part in named if part.is_stale(now, threshold_s)])

    def state(self, max_age_s: float) -> State:
        """What is known now, for one who asks for `max_age_s`."""
        parts = self._parts()
        stale = self._stale(parts, self.threshold_s(max_age_s))
        return State(parts, tuple([part.reading for part in parts]), stale)

    def frame(self, max_age_s: float) -> Frame:
        """Its snapshot as of now, from what is known; shared while it is young and nothing has changed."""
        return self.frame_of(self.state(max_age_s))

    def look(self, max_age_s: float, vouched: Container[Topic] = ()) -> Look | None:
        """What there is to show to one who asks now; None where he has to wait for something, or to be told of it.

        Shared like a frame: thousands that ask within a moment cost one look.
        """
        now, look = self._clock(), self._look
        if look is not None and look.max_age_s == max_age_s and now - look.frame.encoded_at < SHARED_S:
            return look
        self._look = None
        if not self.too_old(max_age_s) and not (frame := self.frame(max_age_s)).stale:
            self._look = Look(frame, max_age_s, now, self.overdue_at(max_age_s, now, vouched))
        return self._look

    def changed(self) -> None:
        """There may be something new to see: whoever asks next looks himself."""
        self._look = None

    def frame_of(self, state: State) -> Frame:
        """The same, of a state of this moment."""
        now, last = self._clock(), self._last
        if (
            last is not None
            and now - last.encoded_at < SHARED_S
            and last.stale == state.stale
            and all(a is b for a, b in zip(last.readings, state.readings, strict=True))
        ):
            return last
        self.numbers.last += 1
        data = message_frame(self._compose(self._moment(state, now)))
        self._last = Frame(
            data=data, sequence=self.sequence, stale=state.stale, encoded_at=now, readings=state.readings
        )
        return self._last

    def unshare(self) -> None:
        """Share the last frame no more: who was shown it and has left may come back, and its seq must not repeat."""
        self._last = self._look = None

    def _moment(self, state: State, now: float) -> Moment:
        ages = [None if part.reading is None else round(part.age_s(now) * 1000) for part in state.parts]
        return Moment(
            channel=self.name,
            origin=self._origin,
            sequence=self.sequence,
            timestamp_ms=time.time_ns() // 1_000_000,
            values=tuple([None if reading is None else reading.value for reading in state.readings]),
            ages_ms=tuple(ages),
            stale=state.stale,
        )

    def status(self, stale: tuple[str, ...]) -> bytes:
        """A status frame: which of its parts are stale, and the first reason for it that is known."""
        now, last = self._clock(), self._status
        if last is not None and last[0] == stale and now - last[1] < SHARED_S:
            return last[2]
        parts = dict(zip(self.part_names, self._parts(), strict=True))
        errors = (_reason(parts[name]) for name in stale)
        message = StatusMessage(
            type="status",
            channel=self.name,
            symbol=self.symbol,
            stale=stale,
            error=fault_of(next((error for error in errors if error is not None), None)),
            timestamp_ms=time.time_ns() // 1_000_000,
        )
        data = message_frame(message)
        self._status = (stale, now, data)
        return data


def _reason(part: Part) -> Exception | None:
    """Why a part is stale: its failure, or that the answer is overdue; None where it is only old."""
    if part.error is None and part.is_waiting:
        return ExchangeTimeout("the exchange has not answered yet")
    return part.error
