"""The wallet's rows: what each coin holds, and the account's totals in USD, as wallet-balance gives them.

Amounts are integers of 1e-8; the totals are the sums of the coins' rounded values, so that they agree exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from msgspec import Struct

from .positions import ONE, rounded
from .rows import Row, money, short

START8: Mapping[str, int] = {"USDT": 50_000 * ONE, "USDC": 5_000 * ONE, "BTC": 25_000_000}
UNKNOWN_IN_ISOLATED = (
    "accountIMRate",
    "accountIMRateByMp",
    "totalMarginBalance",
    "totalInitialMargin",
    "totalInitialMarginByMp",
    "totalAvailableBalance",
    "accountMMRate",
    "accountMMRateByMp",
    "accountLTV",
    "totalMaintenanceMargin",
    "totalMaintenanceMarginByMp",
)


class Coin(Struct, frozen=True):
    """One coin of the wallet: what it had at midnight, what was realised since, its open positions, its USD price."""

    name: str
    start: int
    realised: int
    unrealised: int
    initial_margin: int
    maintenance_margin: int
    price: Decimal

    @property
    def balance(self) -> int:
        return self.start + self.realised

    def usd(self, amount: int) -> int:
        """An amount of this coin in USD."""
        return round(amount * self.price)

    @property
    def worth(self) -> int:
        """Its equity in USD, as the sum of balance and unrealised PnL in USD."""
        return self.usd(self.balance) + self.usd(self.unrealised)


def wallet_row(coins: Sequence[Coin], asked: Iterable[str], *, isolated: bool) -> Row:
    """The row of the unified account; `asked` limits the coins listed (none: all), never the totals.

    In isolated margin Bybit leaves the account's margins empty.
    """
    names = frozenset(asked)
    row = _totals(coins) | {"coin": [_coin_row(coin) for coin in coins if not names or coin.name in names]}
    return row | dict.fromkeys(UNKNOWN_IN_ISOLATED, "") if isolated else row


def _coin_row(coin: Coin) -> Row:
    return {
        "availableToBorrow": "",
        "bonus": "0",
        "accruedInterest": "0",
        "availableToWithdraw": "",
        "totalOrderIM": "0",
        "equity": money(coin.balance + coin.unrealised),
        "totalPositionMM": money(coin.maintenance_margin),
        "usdValue": money(coin.worth),
        "unrealisedPnl": money(coin.unrealised),
        "collateralSwitch": True,
        "spotHedgingQty": "0",
        "borrowAmount": "0.000000000000000000",
        "totalPositionIM": money(coin.initial_margin),
        "walletBalance": money(coin.balance),
        "cumRealisedPnl": money(coin.realised),
        "locked": "0",
        "marginCollateral": True,
        "coin": coin.name,
        "spotBorrow": "0",
    }


def _totals(coins: Sequence[Coin]) -> Row:
    balance = sum(coin.usd(coin.balance) for coin in coins)
    unrealised = sum(coin.usd(coin.unrealised) for coin in coins)
    initial = sum(coin.usd(coin.initial_margin) for coin in coins)
    maintenance = sum(coin.usd(coin.maintenance_margin) for coin in coins)
    equity = balance + unrealised
    initial_rate, maintenance_rate = (short(rounded(part * 10**4, equity), 4) for part in (initial, maintenance))
    return {
        "totalEquity": money(equity),
        "accountIMRate": initial_rate,
        "accountIMRateByMp": initial_rate,
        "totalMarginBalance": money(equity),
        "totalInitialMargin": money(initial),
        "totalInitialMarginByMp": money(initial),
        "accountType": "UNIFIED",
        "totalAvailableBalance": money(equity - initial),
        "accountMMRate": maintenance_rate,
        "accountMMRateByMp": maintenance_rate,
        "totalPerpUPL": money(unrealised),
        "totalWalletBalance": money(balance),
        "accountLTV": "0",
        "totalMaintenanceMargin": money(maintenance),
        "totalMaintenanceMarginByMp": money(maintenance),
    }
