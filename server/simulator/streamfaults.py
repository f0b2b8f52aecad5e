"""Misbehaviour of the streams on demand: which faults are in force, and which messages each of them hits."""

from __future__ import annotations

import asyncio
from collections import Counter
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated

import msgspec

from .noise import key_of, unit

EVERY = "*"
KEY = key_of(0, "stream faults")
Count = Annotated[int, msgspec.Meta(ge=1)]


class Kind(StrEnum):
    """What goes wrong: with connecting, with operations, with messages."""

    REFUSE = "refuse"
    CUT = "cut"
    AUTH = "auth"
    ACK = "ack"
    SUBSCRIBE = "subscribe"
    SWALLOW = "swallow"
    DELAY = "delay"
    DROP = "drop"
    REPEAT = "repeat"
    REORDER = "reorder"
    GARBAGE = "garbage"
    OLD = "old"


class Rubbish(StrEnum):
    """What a message becomes."""

    NOT_JSON = "not_json"
    NOT_UTF8 = "not_utf8"
    SHAPE = "shape"
    TYPES = "types"
    NAN = "nan"
    HUGE = "huge"


class StreamFault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happens on the streams of `path` (linear, inverse, spot, private, *) to topics that fit `topic` (a pattern).

    refuse: new connections get `status`, a reset where that is null, with `hang` no answer at all. cut: connections are
    aborted, with `code` closed; now, or with `every_s` again and again. auth: refused with `ret_msg`. ack: subscribes
    hold, and are not answered; with `delay_ms` late. subscribe: those of such a topic fail with `ret_msg`. swallow:
    nothing is sent any more, not even pongs; with a `topic` only that stays out. delay: what is sent comes `delay_ms`
    late. drop, repeat, reorder (after the next one), garbage (`rubbish`; huge ones of `size_bytes`): hit messages, but
    never the first snapshot of a ticker. old: after a push of positions comes one with the rows before it and their
    lower seq.

    Of what it meets on one topic it hits each `every`-th, or the `fraction` given, `times` at most.
    """

    kind: Kind
    path: str = EVERY
    topic: str = EVERY
    every: Count = 1
    fraction: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    times: Count | None = None
    delay_ms: Annotated[int, msgspec.Meta(ge=0)] | None = None
    every_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    status: Annotated[int, msgspec.Meta(ge=300, le=599)] | None = None
    hang: bool = False
    code: Annotated[int, msgspec.Meta(ge=1000, le=4999)] | None = None
    ret_msg: str = ""
    rubbish: Rubbish = Rubbish.NOT_JSON
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=1 << 26)] = 1 << 23


class ActiveStream:
    """A fault in force: what it has hit, what it holds back by topic, and the event of its removal."""

    def __init__(self, fault: StreamFault) -> None:
        self.fault, self.left = fault, fault.times
        self.held: dict[str, bytes] = {}
        self.removed = asyncio.Event()
        self.next_cut_s = 0.0
        self._seen: Counter[str] = Counter()

    def fits(self, path: str, topic: str = EVERY) -> bool:
        fault = self.fault
        return fault.path in (EVERY, path) and (fault.topic == EVERY or fnmatchcase(topic, fault.topic))

    def meets(self, topic: str) -> int:
        """Counts a message of the topic."""
        self._seen[topic] += 1
        return self._seen[topic]

    def hits(self, topic: str) -> bool:
        """Whether it hits this message of the topic; counts it."""
        number, fraction = self.meets(topic), self.fault.fraction
        if self.left == 0 or (unit(KEY, number) >= fraction if fraction is not None else number % self.fault.every):
            return False
        if self.left is not None:
            self.left -= 1
        return True


class StreamFaults:
    """The faults in force, at most one per kind, path and topic; the one put first goes before others of its kind."""

    def __init__(self) -> None:
        self._active: dict[tuple[Kind, str, str], ActiveStream] = {}

    def __bool__(self) -> bool:
        return bool(self._active)

    def put(self, fault: StreamFault) -> ActiveStream:
        """Puts it in force, in place of the same one. Raises ValueError for an unknown path."""
        if fault.path not in (EVERY, "linear", "inverse", "spot", "private"):
            raise ValueError(f"unknown path {fault.path!r}: one of linear, inverse, spot, private, {EVERY}")
        self.discard(fault)
        active = self._active[fault.kind, fault.path, fault.topic] = ActiveStream(fault)
        return active

    def discard(self, fault: StreamFault) -> None:
        """Removes the one of the same kind, path and topic."""
        if (old := self._active.pop((fault.kind, fault.path, fault.topic), None)) is not None:
            old.removed.set()

    def remove(self, kind: Kind | None = None) -> list[ActiveStream]:
        """Removes those of a kind, or all, and gives them."""
        gone = {key: active for key, active in self._active.items() if kind in (None, key[0])}
        for key, active in gone.items():
            del self._active[key]
            active.removed.set()
        return list(gone.values())

    def of(self, kind: Kind) -> list[ActiveStream]:
        return [active for key, active in self._active.items() if key[0] is kind]

    def find(self, kind: Kind, path: str, topic: str = EVERY) -> ActiveStream | None:
        """The fault of a kind that meets this topic (or connection), None if none does."""
        for active in self._active.values():
            if active.fault.kind is kind and active.left != 0 and active.fits(path, topic):
                return active
        return None

    def hit(self, kind: Kind, path: str, topic: str) -> ActiveStream | None:
        """The fault of a kind that hits this message, counted."""
        active = self.find(kind, path, topic)
        return active if active is not None and active.hits(topic) else None
