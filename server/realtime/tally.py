"""Tally: what sockets did that have gone, so that nothing which was counted is lost with them."""

from collections.abc import Iterable
from typing import Protocol

CLOSE_CODES = frozenset((1000, 1001, 1002, 1006, 1007, 1008, 1009, 1011, 4400, 4401, 4403, 4404, 4408, 4429))
"""Codes that are counted by themselves; clients may send any number, and each would be a series."""


class Counted(Protocol):
    """What is counted of a session, and of its outbox."""

    @property
    def frames_sent(self) -> int:
        """How many frames were written to it."""

    @property
    def frames_conflated(self) -> int:
        """How many were replaced by a newer one."""

    @property
    def buffered_bytes(self) -> int:
        """What waits in its transport."""


class Tally:
    """The running numbers of sockets: how many came, how they ended, what was sent to those that have gone."""

    def __init__(self) -> None:
        self.opened = 0
        self.frames_sent = self.frames_conflated = 0
        self.closed: dict[str, int] = {}

    def left(self, session: Counted) -> None:
        """Keep what was counted of `session`, which has gone."""
        self.frames_sent += session.frames_sent
        self.frames_conflated += session.frames_conflated

    def ended(self, code: int | None) -> None:
        """Count the end of a socket, by its close code."""
        name = str(code) if code in CLOSE_CODES else "other"
        self.closed[name] = self.closed.get(name, 0) + 1


class Census:
    """The same with those that are open: what has been sent so far, and what waits. Begun before anybody is asked.

    Sessions that leave while the others are asked keep their numbers, and those that come count the next time: so no
    census ever counts less than the one before.
    """

    def __init__(self, tally: Tally, sessions: int) -> None:
        self.sessions = sessions
        self.frames_sent, self.frames_conflated = tally.frames_sent, tally.frames_conflated
        self.buffered_bytes = 0

    def add(self, sessions: Iterable[Counted]) -> None:
        """Ask these."""
        for session in sessions:
            self.frames_sent += session.frames_sent
            self.frames_conflated += session.frames_conflated
            self.buffered_bytes += session.buffered_bytes
