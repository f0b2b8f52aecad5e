"""Indicators computed by the gateway's own code, without a server; `indicators.py` starts it and tells it what to do.

`computing.py FILE` reads klines as the exchange sent them from FILE, obeys lines `CASE SECONDS` and answers each with a
line of JSON: how many runs that were, and the CPU they took. `peers/peer_pandas_ta.py` obeys the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec

from benchmarks.peers.rounds import obey
from server.api.answers import encoder
from server.market.candles import assembled
from server.market.growth import grown
from server.market.indicators import Asked, Query
from server.market.indicators.catalogue import CATALOGUE
from server.market.indicators.questions import question
from server.models import CandlePush, CandleRow, Candles, Kind, Topic

INTERVAL = "60"
TOPIC = Topic(Kind.KLINE, "BTCUSDT", INTERVAL)
CLASSIC = Query(Asked(None), results=1, backtrack=0)
SOME = Query(Asked((question("rsi:12"), question("macd:12:26:9"))), results=1, backtrack=0)
ALL = Query(Asked(tuple(map(question, CATALOGUE))), results=1, backtrack=0)


def main() -> None:
    """Obey until stdin ends."""
    rows = [CandleRow(row) for row in msgspec.json.decode(Path(sys.argv[1]).read_bytes())]
    *earlier, newest = rows
    held = msgspec.structs.replace(assembled(earlier, INTERVAL, 0), last_closed=True)
    push = CandlePush(newest, is_closed=False)
    candles = grown(held, push, INTERVAL)

    def answered(query: Query) -> Callable[[], bytes]:
        return lambda: _bytes(query, candles)

    cases = {
        "classic": answered(CLASSIC),
        "some": answered(SOME),
        "all": answered(ALL),
        "new": lambda: _bytes(CLASSIC, grown(held, push, INTERVAL)),
        "rows": lambda: _bytes(CLASSIC, assembled(rows, INTERVAL, 0)),
    }
    obey(cases, {"all": len(CATALOGUE)})


def _bytes(query: Query, candles: Candles) -> bytes:
    candles.computed.clear()
    return encoder.encode(query.body(TOPIC, candles))


if __name__ == "__main__":
    main()
