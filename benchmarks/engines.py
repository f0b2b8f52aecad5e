"""Computing, engine by engine: the CPU from numbers in memory to the bytes of an answer."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from .peers import FOLDER, PYTHON
from .processes import Clients, Trouble, asked
from .report import aligned, median_ratio, spread, times
from .windows import pass_time

HERE = Path(__file__).resolve().parent
CANDLES, INTERVAL = 1000, "60"
GATEWAY = "gateway"
ENGINES = (GATEWAY, "pandas-ta-classic", "the same on TA-Lib")
CASES = {
    "classic": "the classic set, from arrays to JSON",
    "new": "the same right after a new candle",
    "rows": "the same from the exchange's rows on",
    "some": "RSI and MACD, from arrays to JSON",
    "all": "everything there is",
}


def computing_lines(exchange_url: str, folder: Path, *, seconds: float, rounds: int) -> Iterator[str]:
    """Each case by each engine, for `seconds` in each of the rounds."""
    url = f"{exchange_url}/v5/market/kline?category=linear&symbol=BTCUSDT&interval={INTERVAL}&limit={CANDLES}"
    file = folder / "klines.json"
    file.write_text(json.dumps(asked(url)["result"]["list"][::-1]))
    took: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        engines = _engines(file, stack)
        functions = {name: engine.opening["functions"] for name, engine in engines.items()}
        for number, (case, title), name in itertools.product(range(1, rounds + 1), CASES.items(), engines):
            engines[name].begin(seconds, case)
            pass_time(f"{number}/{rounds} {title}", seconds)
            ran = engines[name].counted(seconds)
            share = functions[name].get(case, 1)
            took.setdefault((case, name), []).append(1000 * ran["cpu_s"] / ran["runs"] / share)
    yield from aligned([*_computing_rows(took, list(engines))])
    counts = ", ".join(f"{name} {counted['all']}" for name, counted in functions.items())
    yield f"Milliseconds of CPU at {CANDLES:,} candles; of everything there is, for one on average ({counts})."


def _engines(file: Path, stack: ExitStack) -> dict[str, Clients]:
    """The gateway's code, and what can be had beside it."""
    peer = (str(PYTHON), str(FOLDER / "peer_pandas_ta.py"), str(file))
    commands = [(sys.executable, str(HERE / "computing.py"), str(file)), peer, (*peer, "talib")]
    engines = {}
    for name, command in zip(ENGINES, commands, strict=True):
        try:
            engines[name] = stack.enter_context(Clients(command))
        except (Trouble, OSError) as error:
            if name == GATEWAY:
                raise
            print(f"without {name}: {error}", flush=True)
    return engines


def _computing_rows(took: dict[tuple[str, str], list[float]], engines: Sequence[str]) -> Iterator[list[str]]:
    yield ["computed", *engines, *(f"x {name}" for name in engines[1:])]
    for case, title in CASES.items():
        of_case = [took[case, name] for name in engines]
        ratios = [median_ratio(others, of_case[0]) for others in of_case[1:]]
        yield [title, *(spread(values, 3) for values in of_case), *(times(ratio) for ratio in ratios)]
