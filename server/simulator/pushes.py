"""What the private topics push: the legs that an order, a fill or a setting changed, and the wallet after fills.

Nothing is pushed at first, and nothing when only prices move, as on Bybit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .exchange import Exchange
from .instruments import DAY_MS, Category
from .noise import key_of, word
from .positions import Holding, Leg
from .rows import Row

POSITION, WALLET = "position", "wallet"
TOPICS = (POSITION, *(f"{POSITION}.{one}" for one in ("linear", "inverse", "option")), WALLET)
# What is empty in an answer of position/list is zero in a push.
ZERO_FOR_EMPTY = ("positionValue", "takeProfit", "stopLoss", "unrealisedPnl", "liqPrice", "sessionAvgPrice")


class Push(NamedTuple):
    """What goes to the followers of the topics named; `late`: a row of before the change, for a fault to send."""

    topics: tuple[str, ...]
    rows: list[Row]
    late: list[Row]


class Seen(NamedTuple):
    """The account as followers know it."""

    at_ms: int
    margin: str
    holdings: Mapping[Leg, Holding]


def pushed_row(row: Row) -> Row:
    """A row of position/list as the stream writes it."""
    changed = {name: row[name] or "0" for name in ZERO_FOR_EMPTY}
    pushed: Row = {name: value for name, value in row.items() if name != "avgPrice"}
    return pushed | changed | {"entryPrice": row["avgPrice"], "category": Category.LINEAR}


class Pushes:
    """Compares the account with how it was when it was last looked at."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._key, self._count = key_of(exchange.seed, "push"), 0
        self._seen = Seen(0, "", {})

    def look(self, now_ms: int) -> None:
        """Takes the account as it is now for known."""
        modes = self._exchange.modes
        self._seen = Seen(now_ms, modes.margin, self._exchange.account.holdings(modes, now_ms))

    def due(self, now_ms: int) -> list[Push]:
        """What changed since the last look, which this is. A clock that was set back changes nothing."""
        before = self._seen
        self.look(now_ms)
        if now_ms < before.at_ms:
            return []
        margin = self._seen.margin != before.margin
        changed = [
            leg
            for leg, held in self._seen.holdings.items()
            if before.holdings.get(leg) != held or (margin and held.size)
        ]
        pushes = [self._positions(legs, before, now_ms) for legs in _by_symbol(changed)]
        coins = {leg.instrument.settle for leg in changed if self._filled(leg, before)}
        midnight = now_ms // DAY_MS != before.at_ms // DAY_MS
        if coins or margin or midnight:  # at midnight the balances start again
            every = () if margin or midnight else coins
            pushes.append(Push((WALLET,), [self._exchange.account.wallet(self._exchange.modes, now_ms, every)], []))
        return pushes

    def _filled(self, leg: Leg, before: Seen) -> bool:
        """Whether more than the stops changed."""
        past, now = before.holdings.get(leg), self._seen.holdings[leg]
        return past is None or past._replace(changed_ms=0, take_profit=None, stop_loss=None) != now._replace(
            changed_ms=0, take_profit=None, stop_loss=None
        )

    def _positions(self, legs: list[Leg], before: Seen, now_ms: int) -> Push:
        account, modes = self._exchange.account, self._exchange.modes
        rows = [account.leg_row(leg, self._seen.holdings[leg], modes, now_ms) for leg in legs]
        late = [account.leg_row(leg, before.holdings[leg], modes, now_ms) for leg in legs if leg in before.holdings]
        topics = (POSITION, f"{POSITION}.{Category.LINEAR}")
        return Push(topics, [pushed_row(row) for row in rows], [pushed_row(row) for row in late])

    def document(self, topic: str, rows: list[Row], now_ms: int) -> Row:
        """A message with rows; each has an id of its own."""
        self._count += 1
        identity = f"24617703{word(self._key, self._count):016x}"
        return {"id": identity, "topic": topic, "creationTime": now_ms, "data": rows}


def _by_symbol(legs: Iterable[Leg]) -> list[list[Leg]]:
    groups: dict[str, list[Leg]] = {}
    for leg in legs:
        groups.setdefault(leg.instrument.symbol, []).append(leg)
    return list(groups.values())
