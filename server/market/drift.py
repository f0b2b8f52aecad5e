"""Drift: what a call finds that the stream should have said, and never did."""

from collections.abc import Iterator
from typing import Any

from ..models import PositionRow, Reading, Wallet

GRACE_S = 1.0
"""How long a push may come after the call that knew already."""

SOLID = ("side", "size", "entry_price", "leverage", "take_profit", "stop_loss")
"""Fields of a position that change only with a new sequence, which is pushed."""

Facts = dict[object, object]


def facts(value: object) -> Facts:
    """What of a value changes only together with a push: each position's sequence, each coin's balance."""
    return dict(_facts(value))


def _facts(value: object) -> Iterator[tuple[object, object]]:
    if isinstance(value, Wallet):
        yield from ((coin.coin, coin.wallet_balance) for coin in value.coins)
    elif isinstance(value, tuple):
        for row in value:
            if isinstance(row, PositionRow):
                solid = tuple(getattr(row.position, name) for name in SOLID) if row.is_open else ()
                yield (row.position.symbol, row.position.position_idx), (row.sequence, solid)


class Drift:
    """Compares what calls find with what was in hand while a stream kept it.

    A call may be faster than the push of the same change: what it found is held against the stream only if nothing was
    pushed in the grace that follows.
    """

    def __init__(self) -> None:
        self.count = 0
        self._unsaid: dict[object, float] = {}

    @property
    def is_open(self) -> bool:
        """Whether something that a call found has not been pushed yet."""
        return bool(self._unsaid)

    def called(self, held: Reading[Any], found: Reading[Any], now: float) -> list[str]:
        """Take note of a call's answer; gives what the stream has failed to say of those before."""
        late = [key for key, since in self._unsaid.items() if now - since > GRACE_S]
        for key in late:
            del self._unsaid[key]
        self.count += len(late)
        before = facts(held.value)
        for key, fact in facts(found.value).items():
            if key in before and before[key] != fact:
                self._unsaid.setdefault(key, now)
        return [str(key) for key in late]

    def pushed(self, reading: Reading[Any]) -> None:
        """The stream has said this: late, perhaps, but it has."""
        if self._unsaid:
            for key in facts(reading.value):
                self._unsaid.pop(key, None)
