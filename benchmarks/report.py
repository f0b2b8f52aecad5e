"""What a benchmark prints: a table of medians over the rounds, each with its range, and where the time goes."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .windows import Window

Value = Callable[[Window], float]

LABEL, COLUMN, RATIO = 42, 27, 10
TOO_SMALL = 1e-6
LARGE = 10
QUANTILES = ("p50", "p90", "p99", "max")


@dataclass
class Round:
    """One round: three windows, and what happened between them."""

    off: Window
    on: Window
    hanging: Window
    opening: dict[str, Any]
    stale_after_s: float | None
    recovered_after_s: float | None
    resident_kb: dict[str, int]

    @property
    def windows(self) -> tuple[Window, Window, Window]:
        """In the order of the columns."""
        return self.off, self.on, self.hanging


@dataclass(frozen=True)
class Row:
    """A line of the table: its label, what it shows of a window (None for nothing), and whether ratios say anything."""

    label: str
    value: Callable[[Window], float | None]
    digits: int = 2
    has_ratio: bool = False


@dataclass
class Report:
    """The rounds, and the lines made of them."""

    rounds: list[Round] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The whole report."""
        yield _line("", "0 sockets", "sockets", "on/off", "positions hang", "hang/off")
        for row in (*_latency_rows(self.rounds[0].off), *_request_rows()):
            yield self._row(row)
        yield ""
        yield from map(self._row, _snapshot_rows())
        yield ""
        yield from map(self._row, _call_rows(self.rounds))
        yield ""
        yield from map(self._row, _usage_rows())
        yield ""
        yield from self._between()
        yield from self._warnings()
        yield ""
        yield self._where_the_time_goes()

    def _columns(self) -> list[tuple[Window, ...]]:
        return list(zip(*(r.windows for r in self.rounds), strict=True))

    def _row(self, row: Row) -> str:
        columns = [[row.value(window) for window in column] for column in self._columns()]
        off, on, hanging = (spread([v for v in column if v is not None], row.digits) for column in columns)
        ratios = [_ratio(columns[0], column) if row.has_ratio else "" for column in columns[1:]]
        return _line(row.label, off, on, ratios[0], hanging, ratios[1])

    def _between(self) -> Iterator[str]:
        of = self.rounds
        count = of[0].opening["sockets"]
        first = {name: spread([r.opening["first_us"][name] / 1000 for r in of], 0) for name in QUANTILES}
        yield f"{'opening them all, s':<{LABEL}}{spread([r.opening['open_s'] for r in of], 2)}"
        yield f"{'connect to first snapshot, ms':<{LABEL}}p50 {first['p50']}  p99 {first['p99']}  max {first['max']}"
        yield f"{'named stale after a hang began, s':<{LABEL}}{_moments([r.stale_after_s for r in of])}"
        yield f"{'not named stale after it was healed, s':<{LABEL}}{_moments([r.recovered_after_s for r in of])}"
        per_socket = [(r.on.resident_kb - r.resident_kb["before"]) / count for r in of]
        yield f"{'RSS per socket, kB':<{LABEL}}{per_socket[0]:.1f} in round 1; all rounds {spread(per_socket, 1)}"
        for name in ("before", "after"):
            sizes = "  ".join(f"{r.resident_kb[name] / 1024:.1f}" for r in of)
            yield f"{f'RSS {name} the sockets, MB, by round':<{LABEL}}{sizes}"

    def _warnings(self) -> Iterator[str]:
        for name, column in zip(("0 sockets", "sockets", "positions hang"), self._columns(), strict=True):
            counts = sum((window.warnings for window in column), Counter[str]())
            said = ", ".join(f"{count} {event}" for event, count in counts.most_common(8))
            yield f"{f'warnings in the log, {name}':<{LABEL}}{said or 'none'}"

    def _where_the_time_goes(self) -> str:
        off, on = ([r.off for r in self.rounds], [r.on for r in self.rounds])
        idle = _median(off, _loop_share)
        busy = max(idle, _median(on, _loop_share))  # less can only be noise
        rate = _median(off, lambda w: w.requests["requests"] / w.seconds)
        snapshots, calls = _median(on, _snapshots_per_s), _median(on, lambda w: w.calls_per_s)
        threads = _median(on, lambda w: w.used.threads_s / w.seconds)
        return (
            f"Where the time goes, with the sockets: {busy + threads:.1%} of a core. The event loop has {idle:.1%} for "
            f"{rate:.0f} requests a second ({_each_us(idle, rate)} each) and {busy - idle:.1%} for {snapshots:.0f} "
            f"snapshots a second ({_each_us(busy - idle, snapshots)} each, its part in the calls to Bybit included). "
            f"The threads have {threads:.1%} for {calls:.1f} calls to Bybit a second ({_each_us(threads, calls)} each)."
        )


def spread(values: Sequence[float], digits: int) -> str:
    """The median, with the range behind it where there is one; a dash for nothing."""
    if not values:
        return "-"
    middle, least, most = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return middle if least == most else f"{middle} ({least} to {most})"


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The cells of `rows` in columns, each as wide as it has to be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def median_ratio(values: Sequence[float], others: Sequence[float]) -> float | None:
    """The median of the rounds' own ratios, so that what drifts between rounds does not count; None for none."""
    ratios = [a / b for a, b in zip(values, others, strict=False) if b > TOO_SMALL]
    return statistics.median(ratios) if ratios else None


def times(ratio: float | None) -> str:
    """A ratio for a table; a dash for none."""
    if ratio is None:
        return "-"
    return f"{ratio:,.0f}" if ratio >= LARGE else f"{ratio:.2f}"


def _moments(after_s: Sequence[float | None]) -> str:
    reached = [seconds for seconds in after_s if seconds is not None]
    missed = len(after_s) - len(reached)
    return spread(reached, 2) + (f"; not within the time allowed in {missed} of {len(after_s)}" if missed else "")


def _ratio(off: Sequence[float | None], on: Sequence[float | None]) -> str:
    """The median of the rounds' own ratios, so that what drifts between rounds does not count."""
    ratios = [b / a for a, b in zip(off, on, strict=True) if a and b is not None and a > TOO_SMALL]
    return f"x {statistics.median(ratios):.2f}" if ratios else ""


def _line(label: str, off: str, on: str, ratio: str, hanging: str, hanging_ratio: str) -> str:
    cells = f"{label:<{LABEL}}{off:<{COLUMN}}{on:<{COLUMN}}{ratio:<{RATIO}}{hanging:<{COLUMN}}{hanging_ratio:<{RATIO}}"
    return cells.rstrip()


def _median(windows: Sequence[Window], value: Value) -> float:
    return statistics.median(map(value, windows))


def _each_us(share: float, per_s: float) -> str:
    return f"{share / per_s * 1e6:.0f} µs" if per_s else "nothing"


def _loop_share(window: Window) -> float:
    return window.used.loop_s / window.seconds


def _snapshots_per_s(window: Window) -> float:
    return float(window.sockets["delivered"]) / window.seconds if window.sockets else 0.0


def _latency_rows(window: Window) -> Iterator[Row]:
    for path in window.requests["latency_us"]:
        for name in QUANTILES:
            yield Row(f"GET {path} {name}, ms", _latency(path, name), has_ratio=True)


def _latency(path: str, name: str) -> Callable[[Window], float | None]:
    def value(window: Window) -> float | None:
        quantiles = window.requests["latency_us"][path]
        return None if quantiles is None else float(quantiles[name]) / 1000

    return value


def _request_rows() -> Iterator[Row]:
    yield Row("requests", lambda w: w.requests["requests"], 0)
    yield Row("  not answered 200", lambda w: w.requests["requests"] - w.requests["statuses"].get("200", 0), 0)
    yield Row("  answered with a stale reading", lambda w: w.requests["stale"], 0)
    yield Row("  sent late by the client p99, ms", lambda w: w.requests["sent_late_us"]["p99"] / 1000)
    yield Row("  sent late by the client max, ms", lambda w: w.requests["sent_late_us"]["max"] / 1000)


def _of_sockets(value: Callable[[dict[str, Any]], float]) -> Callable[[Window], float | None]:
    return lambda window: None if window.sockets is None else value(window.sockets)


def _late_ms(name: str, sockets: dict[str, Any]) -> float:
    return float(sockets["late_us"][name]) / 1000 if sockets["late_us"] else 0.0


def _named_stale(part: str, sockets: dict[str, Any]) -> int:
    return int(sockets["stale"][part])


def _snapshot_rows() -> Iterator[Row]:
    yield Row("snapshots due", _of_sockets(lambda s: s["due"]), 0)
    yield Row("  delivered before the next was due", _of_sockets(lambda s: s["on_time"]), 0)
    yield Row("  not delivered", _of_sockets(lambda s: s["due"] - s["on_time"]), 0)
    for name in QUANTILES:
        yield Row(f"  late {name}, ms", _of_sockets(partial(_late_ms, name)))
    yield Row("longest gap on a socket, ms", _of_sockets(lambda s: s["longest_gap_ms"]), 0)
    yield Row("seq repeated or going back", _of_sockets(lambda s: s["out_of_order"]), 0)
    yield Row("sockets closed", _of_sockets(lambda s: s["sockets"] - s["open"]), 0)
    yield Row("frames that make no sense", _of_sockets(lambda s: s["protocol_errors"]), 0)
    for part in ("position", "balance", "price"):
        yield Row(f"snapshots that name {part} stale", _of_sockets(partial(_named_stale, part)), 0)
    yield Row("status messages", _of_sockets(lambda s: s["statuses"]), 0)
    yield Row("bytes a message", _of_sockets(lambda s: s["bytes"] / max(1, s["delivered"] + s["statuses"])), 0)


def _calls_per_s(name: str, window: Window) -> float:
    return window.calls[name] / window.seconds


def _call_rows(rounds: Sequence[Round]) -> Iterator[Row]:
    names = sorted({name for r in rounds for window in r.windows for name in window.calls})
    for name in names:
        yield Row(f"calls to Bybit/s: {name}", partial(_calls_per_s, name), 1)
    yield Row("  all of them", lambda w: w.calls_per_s, 1)


def _usage_rows() -> Iterator[Row]:
    yield Row("gateway, % of a core", lambda w: 100 * (w.used.loop_s + w.used.threads_s) / w.seconds, 1, has_ratio=True)
    yield Row("  its event loop", lambda w: 100 * _loop_share(w), 1, has_ratio=True)
    yield Row("  its threads", lambda w: 100 * w.used.threads_s / w.seconds, 1)
    yield Row("clients and simulator, % of a core", lambda w: 100 * w.load_s / w.seconds, 1)
    yield Row("others on the gateway's core, % of it", lambda w: 100 * w.strangers_s / w.seconds, 1)
    yield Row("gateway's RSS, MB", lambda w: w.resident_kb / 1024, 1)
