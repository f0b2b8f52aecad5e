"""Feeds against a model of the truth: calls and pushes in any order, lines that break, answers that come late."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from server.market.feed import Feed
from server.models import Kind, PositionRow, Reading, Source, Topic

from .test_following import Clock, Line, row, wallet

STEP_S = 0.125
NAMES = ("USDT", "USDC")

Versions = tuple[int, int]


async def never(_: frozenset[Topic]) -> dict[Topic, Reading[Any]]:
    """Calls are answered by the machine itself."""
    raise AssertionError


class World(RuleBasedStateMachine):
    """Two things that change, a feed that shows both, and what was true when; each step takes its time.

    A leg's sequence, or a coin's balance, is the number of its changes.
    """

    kind = Kind.POSITION

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.feed = Feed(Topic(self.kind), never, self.clock, lambda _: None)
        self.truth: list[tuple[float, Versions]] = [(0.0, (1, 1))]
        self.asked: list[float] = []
        self.served: list[Reading[Any]] = []
        self.line: Line | None = None
        self.unsaid: list[Reading[Any]] = []
        self.shown: Versions = (0, 0)

    def value(self, versions: Versions, which: tuple[int, ...] = (0, 1)) -> Any:
        """What the exchange says of these versions."""
        if self.kind is Kind.POSITION:
            return tuple(row(versions[one], idx=one + 1, size="0") for one in which)
        return wallet(**{NAMES[one]: str(versions[one]) for one in which})

    def versions(self, value: Any) -> Versions:
        """The versions in what is shown."""
        if isinstance(value, tuple):
            rows: tuple[PositionRow, ...] = value
            first, second = (one.sequence for one in rows)
        else:
            first, second = (int({coin.coin: coin.equity for coin in value.coins}[name]) for name in NAMES)
        return first, second

    def step(self) -> float:
        """Time goes by."""
        self.clock.now += STEP_S
        return self.clock.now

    @rule(which=st.sampled_from((0, 1)))
    def change(self, which: int) -> None:
        """Something changes; a stream will say so."""
        now = self.step()
        first, second = self.truth[-1][1]
        versions = (first + 1, second) if which == 0 else (first, second + 1)
        self.truth.append((now, versions))
        if self.line is not None:
            self.unsaid.append(Reading(self.value(versions, (which,)), now, now, round(now * 1000), Source.PUSH))

    @rule()
    def ask(self) -> None:
        """A call starts."""
        self.asked.append(self.step())

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def serve(self, data: st.DataObject) -> None:
        """The exchange reads what it will answer."""
        asked_at = self.asked.pop(data.draw(st.integers(0, len(self.asked) - 1)))
        now = self.step()
        self.served.append(Reading(self.value(self.truth[-1][1]), asked_at, now, round(now * 1000)))

    @precondition(lambda self: self.served)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """An answer arrives, perhaps after others that were asked for later."""
        reading = self.served.pop(data.draw(st.integers(0, len(self.served) - 1)))
        self.step()
        self.feed.offer(reading)

    @precondition(lambda self: self.line is None)
    @rule()
    def sync(self) -> None:
        """A line comes in sync."""
        self.line = Line(self.step())
        self.feed.follow(self.line)

    @precondition(lambda self: self.unsaid)
    @rule()
    def say(self) -> None:
        """The oldest push arrives; it proves what it says."""
        push, now = self.unsaid.pop(0), self.step()
        assert self.line is not None
        self.line.confirmed_at = max(self.line.confirmed_at, push.asked_at)
        self.feed.push(Reading(push.value, push.asked_at, now, push.exchange_time_ms, Source.PUSH))

    @precondition(lambda self: self.line is not None and not self.unsaid)
    @rule()
    def live(self) -> None:
        """A pong: all that there was to say is here."""
        assert self.line is not None
        self.line.confirmed_at = self.step()

    @precondition(lambda self: self.line is not None)
    @rule()
    def lose(self) -> None:
        """The line breaks, with what was under way on it."""
        self.step()
        self.line = None
        self.unsaid.clear()
        self.feed.unfollow()

    @invariant()
    def is_true(self) -> None:
        """What is shown is no older than it claims to be, is not of the future, and positions never go back."""
        if self.feed.reading is None:
            return
        shown = self.versions(self.feed.reading.value)
        known = max(versions for at, versions in self.truth if at <= self.feed.as_of)
        assert all(one >= claimed for one, claimed in zip(shown, known, strict=True)), (shown, known)
        if self.kind is Kind.POSITION:  # of two calls at once only a sequence tells which was answered first
            assert all(one >= before for one, before in zip(shown, self.shown, strict=True)), (shown, self.shown)
        assert all(one <= now for one, now in zip(shown, self.truth[-1][1], strict=True))
        self.shown = shown


class WalletWorld(World):
    """The same of a wallet, whose pushes have no sequence."""

    kind = Kind.WALLET


@pytest.mark.parametrize("world", [World, WalletWorld])
def test_what_is_shown_was_true(world: type[World]) -> None:
    """Whatever comes in whatever order, nothing is shown as younger than it is."""
    run_state_machine_as_test(world, settings=settings(max_examples=150, stateful_step_count=30, deadline=None))
