"""The private endpoints: positions, wallet, and what the key and the account are (Bybit V5, "Position", "Account")."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

from .exchange import PARAMETER_ERROR, Exchange, Query, after_cursor, category_of, integer_of
from .instruments import DAY_MS, Category
from .rows import Row
from .signing import ApiKey, Refusal
from .wallet import START8

CURSOR = ("symbol", "positionIdx")
HOLDABLE = (Category.LINEAR, Category.INVERSE, Category.OPTION)
CREATED_MS = 1_577_836_800_000  # 2020-01-01
# A read-only key lists what it may look at under the same names; `readOnly` is what tells the two apart.
PERMISSIONS = {
    "ContractTrade": ["Order", "Position"],
    "Spot": ["SpotTrade"],
    "Options": ["OptionsTrade"],
    "Derivatives": ["DerivativesTrade"],
    "Exchange": ["ExchangeHistory"],
    "CopyTrading": [],
    "BlockTrade": [],
    "NFT": [],
    "Affiliate": [],
}
TRADING_WALLET = ["AccountTransfer", "SubMemberTransfer", "Withdraw"]


def _positions(exchange: Exchange, category: Category, query: Query, now_ms: int) -> list[Row]:
    symbol, settle, base = (query.get(name, "") for name in ("symbol", "settleCoin", "baseCoin"))
    account, modes = exchange.account, exchange.modes
    if symbol and category is not Category.OPTION:
        return account.symbol_rows(exchange.instrument(category, symbol), modes, now_ms)
    if category is not Category.LINEAR:
        return []  # nothing but linear contracts is ever held
    if not settle and not base:
        raise Refusal(PARAMETER_ERROR, "Missing some parameters that must be filled in, symbol or settleCoin")
    rows = account.open_rows(modes, now_ms)
    return [row for row in rows if _matches(exchange, str(row["symbol"]), settle, base)]


def _matches(exchange: Exchange, symbol: str, settle: str, base: str) -> bool:
    instrument = exchange.instrument(Category.LINEAR, symbol)
    return settle in ("", instrument.settle) and base in ("", instrument.base)


def position_list(exchange: Exchange, query: Query, _: ApiKey, now_ms: int) -> Row:
    """/v5/position/list: by symbol also flat rows, else open positions only.

    As on Bybit, only an empty page has no cursor: the last one that has rows still names one.
    """
    category = category_of(query, HOLDABLE)
    limit = integer_of(query, "limit", 20, 1, 200)
    rows = _positions(exchange, category, query, now_ms)
    page = after_cursor(rows, query.get("cursor", ""), CURSOR)[:limit]
    cursor = quote(",".join(str(page[-1][name]) for name in CURSOR), safe="") if page else ""
    return {"nextPageCursor": cursor, "category": category, "list": page}


def wallet_balance(exchange: Exchange, query: Query, _: ApiKey, now_ms: int) -> Row:
    """/v5/account/wallet-balance"""
    if query.get("accountType", "") != "UNIFIED":
        raise Refusal(PARAMETER_ERROR, "accountType only support UNIFIED.")
    coins = [coin for coin in query.get("coin", "").split(",") if coin]
    return {"list": [exchange.account.wallet(exchange.modes, now_ms, coins)]}


def _expires(now_ms: int) -> datetime:
    """The first day of the third month from now: a key that is always due in two to three months."""
    today = datetime.fromtimestamp(now_ms // 1_000, UTC)
    months = today.year * 12 + today.month - 1 + 3
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)


def query_api(_: Exchange, __: Query, key: ApiKey, now_ms: int) -> Row:
    """/v5/user/query-api: the key's permissions and expiry."""
    expires = _expires(now_ms)
    trading = not key.read_only
    return {
        "id": str(13_770_661 + trading),
        "note": "simulator",
        "apiKey": key.key,
        "readOnly": int(key.read_only),
        "secret": "",
        "permissions": PERMISSIONS | {"Wallet": TRADING_WALLET if trading else []},
        "ips": ["*"],
        "type": 1,
        "deadlineDay": (int(expires.timestamp()) * 1_000 - now_ms) // DAY_MS,
        "expiredAt": f"{expires:%Y-%m-%dT%H:%M:%SZ}",
        "createdAt": f"{datetime.fromtimestamp(CREATED_MS // 1_000, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "unified": 0,
        "uta": 1,
        "userID": 24_617_703,
        "inviterID": 0,
        "vipLevel": "No VIP",
        "mktMakerLevel": "0",
        "affiliateID": 0,
        "rsaPublicKey": "",
        "isMaster": True,
        "parentUid": "0",
        "kycLevel": "LEVEL_DEFAULT",
        "kycRegion": "",
    }


def account_info(exchange: Exchange, _: Query, __: ApiKey, ___: int) -> Row:
    """/v5/account/info"""
    isolated = exchange.modes.margin == "isolated"
    return {
        "marginMode": "ISOLATED_MARGIN" if isolated else "REGULAR_MARGIN",
        "updatedTime": str(CREATED_MS),
        "unifiedMarginStatus": 5,
        "dcpStatus": "OFF",
        "timeWindow": 10,
        "smpGroup": 0,
        "isMasterTrader": False,
        "spotHedgingStatus": "OFF",
    }


def coin_info(_: Exchange, query: Query, __: ApiKey, ___: int) -> Row:
    """/v5/asset/coin/query-info: the wallet's coins, each on one chain."""
    asked = query.get("coin", "")
    return {"rows": [_coin(coin) for coin in START8 if asked in ("", coin)]}


def _coin(coin: str) -> Row:
    chain = "BTC" if coin == "BTC" else "ETH"
    return {
        "name": coin,
        "coin": coin,
        "remainAmount": "150",
        "chains": [
            {
                "chainType": "BTC" if chain == "BTC" else "ERC20",
                "confirmation": "2",
                "withdrawFee": "0.0005",
                "depositMin": "0.0005",
                "withdrawMin": "0.001",
                "chain": chain,
                "chainDeposit": "1",
                "chainWithdraw": "1",
                "minAccuracy": "8",
                "withdrawPercentageFee": "0",
                "contractAddress": "",
            }
        ],
    }
