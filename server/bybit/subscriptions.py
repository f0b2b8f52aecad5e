"""Subscriptions: what one connection is to be subscribed to, and what the exchange has said of it; without any I/O."""

import itertools
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

ACK_S = 5.0
"""How long an answer to a request may take."""
RETRY_S = 60.0
"""When a refused argument is tried again: a symbol may come to be listed."""
RENEW_S = 1.0
"""The least time between two subscriptions of the same argument, so that trouble costs little."""
FORGIVEN = 2
"""How often an argument that got no answer, on a connection that gives others, is tried again at once."""
DEAF = 3
"""Requests without an answer, one after the other, after which a connection is believed to hear nothing.

An argument over which the exchange falls silent costs no more than two: before it is tried again it is left.
"""


class Request(NamedTuple):
    """A request to be sent: subscribe or unsubscribe `args`."""

    number: str
    op: str
    args: tuple[str, ...]


class Subscriptions:
    """One connection's arguments: wanted, asked for, confirmed, refused.

    One request is under way at a time, so that an answer without a number still has only one meaning, and leaving and
    joining never overtake each other. The exchange refuses a whole batch for one argument that it does not know, or
    that is subscribed already: a refused batch is asked for in halves, so that a bad argument costs only itself.

    Invariant: `subscribed` holds only what the exchange has confirmed on this connection and was not told to leave.
    """

    def __init__(self, *, batch: int, ack_s: float = ACK_S, retry_s: float = RETRY_S, renew_s: float = RENEW_S) -> None:
        self._batch, self._ack_s, self._retry_s, self._renew_s = batch, ack_s, retry_s, renew_s
        self._numbers = itertools.count(1)
        self.wanted: dict[str, None] = {}
        self.refused: set[str] = set()
        self._not_before: dict[str, float] = {}
        self.restart()

    def restart(self) -> None:
        """A new connection: nothing is subscribed; only what was refused in words keeps its pause."""
        self._not_before = {arg: at for arg, at in self._not_before.items() if arg in self.refused}
        self.subscribed: set[str] = set()
        self._to_leave: dict[str, None] = {}
        self._silences: dict[str, int] = {}
        self._halves: deque[tuple[str, ...]] = deque()
        self._pending: Request | None = None
        self._deadline = 0.0
        self._unanswered = 0

    def want(self, args: Iterable[str]) -> None:
        """Be subscribed to `args` and to nothing else."""
        self.wanted = dict.fromkeys(args)
        self.refused &= self.wanted.keys()
        self._silences = {arg: count for arg, count in self._silences.items() if arg in self.wanted}
        self._not_before = {arg: at for arg, at in self._not_before.items() if arg in self.wanted}

    def renew(self, arg: str, now: float) -> None:
        """Leave `arg` and join it anew."""
        self.subscribed.discard(arg)
        self._to_leave[arg] = None
        self._not_before[arg] = now + self._renew_s

    @property
    def is_deaf(self) -> bool:
        """Whether the connection gives no answers any more, whatever it is asked."""
        return self._unanswered >= DEAF

    def expects(self, arg: str) -> bool:
        """Whether a push of `arg` can be of a subscription that holds or is being made: others are leftovers."""
        pending = self._pending
        if arg in self.subscribed:
            return True
        return pending is not None and pending.op == "subscribe" and arg in pending.args and arg not in self._to_leave

    def next_request(self, now: float) -> Request | None:
        """The request to be sent now, counted as sent; None while one is under way or nothing is to be done."""
        if self._pending is not None:
            return None
        if leaving := self._leaving():
            return self._asked("unsubscribe", leaving, now)
        if joining := self._joining(now):
            return self._asked("subscribe", joining, now)
        return None

    def _asked(self, op: str, args: tuple[str, ...], now: float) -> Request:
        self._deadline = now + self._ack_s
        self._pending = Request(str(next(self._numbers)), op, args)
        return self._pending

    def _leaving(self) -> tuple[str, ...]:
        unwanted = (arg for arg in self.subscribed if arg not in self.wanted)
        args = tuple(itertools.islice(dict.fromkeys((*self._to_leave, *unwanted)), self._batch))
        self.subscribed.difference_update(args)
        for arg in args:
            self._to_leave.pop(arg, None)
        return args

    def _joining(self, now: float) -> tuple[str, ...]:
        while self._halves:
            if half := tuple(arg for arg in self._halves.popleft() if self._may_join(arg, now)):
                return half
        return tuple(itertools.islice((arg for arg in self.wanted if self._may_join(arg, now)), self._batch))

    def _may_join(self, arg: str, now: float) -> bool:
        return arg in self.wanted and arg not in self.subscribed and self._not_before.get(arg, now) <= now

    def answered(self, op: str, number: str, *, accepted: bool, why: str, now: float) -> tuple[str, ...]:
        """Take an answer of the exchange; gives the arguments that are subscribed now because of it."""
        request = self._pending
        if request is None or request.op != op or number not in ("", request.number):
            return ()  # of a request that was given up
        self._pending, self._unanswered = None, 0
        if op == "unsubscribe":  # refused, it was not subscribed: what is wanted is so either way
            self._forgive(request.args, now)
            return ()
        if not accepted:
            self._failed(request.args, now, why)
            return ()
        joined = tuple(arg for arg in request.args if arg not in self._to_leave)
        self.subscribed.update(joined)
        self.refused.difference_update(joined)
        for arg in joined:
            self._silences.pop(arg, None)
        return joined

    def _forgive(self, args: tuple[str, ...], now: float) -> None:
        """Try again soon what was left without a word, where the connection still answers: an answer was lost."""
        for arg in args:
            if 0 < self._silences.get(arg, 0) <= FORGIVEN:
                self._not_before[arg] = now + self._renew_s

    def give_up(self, now: float) -> None:
        """Wait no longer for an answer that is late: what it was about may be subscribed or not."""
        if self._pending is None or now < self._deadline:
            return
        request, self._pending = self._pending, None
        self._unanswered += 1
        self._to_leave.update(dict.fromkeys(request.args))
        if request.op == "subscribe":
            self._failed(request.args, now, why=None)

    def _failed(self, args: tuple[str, ...], now: float, why: str | None) -> None:
        """Ask for a batch in halves, and for a single argument later; without `why`, nothing was said of it."""
        if len(args) > 1:
            middle = len(args) // 2
            self._halves.extend((args[:middle], args[middle:]))
        elif why is not None and "already" in why:
            self.renew(args[0], now)
        elif args[0] in self.wanted:
            self._not_before[args[0]] = now + self._retry_s
            if why is not None:
                self.refused.add(args[0])
            else:
                self._silences[args[0]] = self._silences.get(args[0], 0) + 1
