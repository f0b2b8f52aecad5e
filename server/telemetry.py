"""Logging: every line, ours or a library's, rendered once, redacted, and written by a thread that may stall alone.

Lines are rendered on the calling thread and only written by the writer thread. Rendering there instead would save the
loop nothing: it needs the GIL all the same, and a thread that computes can hold it for a whole switch interval
(5 ms), which is what a loop of sockets cannot afford; one line costs it about 10 µs. The writer thread only waits in
system calls, with the GIL released. A rendered line also has a size, so that the queue can be bounded in bytes, and
shows values as they were.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, BinaryIO, cast

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from .redaction import Redactor
from .settings import LogFormat, LogSettings, Secret

MAX_LINES = 10_000
MAX_BYTES = 8 * 1024 * 1024
BATCH_BYTES = 64 * 1024
PIPE_BYTES = 4096
RETRY_S = 0.02

QUIET = {
    "aiohttp.access": logging.WARNING,  # requests are logged by our own middleware, without query strings
    "aiohttp.server": logging.CRITICAL,  # malformed requests, at any rate, with their headers; ours are caught before
    "aiofastnet": logging.WARNING,  # it tells of each connection at debug
    "asyncio": logging.WARNING,
    "pybit": logging.CRITICAL,  # its errors carry URLs, and all of them reach us as exceptions too
    "urllib3": logging.WARNING,
}
FIRST_KEYS = ("timestamp", "level", "event", "logger")
COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
PLAIN_VALUE = re.compile(r"[\w./:@+,*-]+\Z", re.ASCII)
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class LogWriter:
    """A bounded queue of lines and the one thread that writes them.

    Lines leave in the order of `submit`. While the stream stalls or is broken, what does not fit is dropped and
    counted; once writing works again, one line tells how many are missing. Nothing here ever raises to a caller.
    """

    def __init__(
        self,
        stream: int | BinaryIO,
        *,
        notice: Callable[[int], bytes] = lambda dropped: b"log_lines_dropped dropped=%d\n" % dropped,
        max_lines: int = MAX_LINES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Write to a descriptor or a stream, past its buffer if it has one; `notice` renders the line about drops."""
        self._stream = stream  # kept, for a descriptor is closed with the last reference to its stream
        self._write_some = _unbuffered(stream)
        self._notice = notice
        self.protect: Callable[[Iterable[Secret]], None] = lambda _: None
        """Keeps further secrets out of the lines; set by `configure`."""
        self._max_lines, self._max_bytes = max_lines, max_bytes
        # SimpleQueue and RLock because a destructor may log in the middle of a submit on the same thread.
        self._queue: queue.SimpleQueue[bytes | threading.Event | None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._lines = self._bytes = self._told = self._dropped = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)

    @property
    def dropped(self) -> int:
        """How many lines were lost since the start, told or not."""
        return self._dropped

    def start(self) -> None:
        """Start the thread; lines submitted before wait for it."""
        self._thread.start()

    def submit(self, line: bytes) -> None:
        """Queue one line, its newline included, or count it as dropped. Never blocks; safe from any thread."""
        size = len(line)
        with self._lock:
            if self._closed or self._lines >= self._max_lines or self._bytes + size > self._max_bytes:
                self._dropped += 1
                return
            self._lines += 1
            self._bytes += size
            self._queue.put(line)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was submitted before is written or lost; False if that took too long. Blocks."""
        if self._closed:
            return self.close(timeout_s)
        if not self._thread.is_alive():
            return self._lines == 0
        done = threading.Event()
        self._queue.put(done)
        return done.wait(timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Take no more lines and wait for the rest; False if it could not be written in time. Blocks."""
        with self._lock:
            first, self._closed = not self._closed, True
        if first:
            self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        items: list[bytes | threading.Event | None] = []
        while None not in items:
            items = self._collect()
            self._deliver([item for item in items if isinstance(item, bytes)])
            for item in items:
                if isinstance(item, threading.Event):
                    item.set()

    def _collect(self) -> list[bytes | threading.Event | None]:
        items = [self._queue.get()]
        size = 0
        while items[-1] is not None and size < BATCH_BYTES:
            try:
                items.append(self._queue.get_nowait())
            except queue.Empty:
                break
            size += len(items[-1]) if isinstance(items[-1], bytes) else 0
        return items

    def _deliver(self, lines: list[bytes]) -> None:
        written = all(self._write(piece) for piece in pieces(lines))
        with self._lock:
            self._lines -= len(lines)
            self._bytes -= sum(map(len, lines))
            self._dropped += 0 if written else len(lines)
            missing = self._dropped - self._told
        if missing and written and self._write(self._notice(missing)):
            self._told += missing

    def _write(self, data: bytes) -> bool:
        view = memoryview(data)
        while view:
            try:
                view = view[self._write_some(view) :]
            except BlockingIOError:
                time.sleep(RETRY_S)  # somebody made the terminal or pipe non-blocking: it is shared
            except (OSError, ValueError):
                return False
        return True


def pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines joined up to what a pipe takes as a whole, so that processes that share one do not mix theirs."""
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) > PIPE_BYTES:
            yield piece
            piece = b""
        piece += line
    yield piece


REQUEST: ContextVar[str] = ContextVar("request")
"""The id of the request that is being answered, for every line that is logged meanwhile."""


def _with_request(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if (request_id := REQUEST.get(None)) is not None:
        event["request_id"] = request_id
    return event


class Sampler:
    """Admits at most `per_second` events a second, after a burst of as many, and counts what it suppressed."""

    def __init__(self, per_second: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._burst = max(1.0, per_second)
        self._credit = self._burst
        self._at = clock()
        self._suppressed = 0

    def admit(self) -> int | None:
        """None: drop this one. Otherwise keep it, and how many were suppressed since the last one kept."""
        now = self._clock()
        self._credit = min(self._burst, self._credit + (now - self._at) * self._per_second)
        self._at = now
        if self._credit < 1:
            self._suppressed += 1
            return None
        self._credit -= 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed


def get_logger(name: str) -> FilteringBoundLogger:
    """Give a logger whose lines carry `logger=name`; it may be made before `configure` and follows it."""
    return cast(FilteringBoundLogger, structlog.get_logger(name))


def configure(
    settings: LogSettings,
    stream: int | BinaryIO,
    secrets: Iterable[Secret] = (),
    *,
    colours: bool | None = None,
    worker: int | None = None,
) -> LogWriter:
    """Send every log line of the process to `stream` and give the started writer, which the caller closes.

    A later call replaces an earlier one. `colours` None means: in the console format on a terminal. With a number of
    a `worker` every line carries it.
    """
    if colours is None:
        colours = os.isatty(stream) if isinstance(stream, int) else stream.isatty()
    redact = Redactor(secrets)
    finish = _finisher(settings.format, redact, colours=colours, worker=worker)
    writer = LogWriter(stream, notice=lambda dropped: finish(_drop_notice(dropped)))
    writer.protect = redact.add
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[Processor] = [
        _with_request,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, lambda _logger, _method, event: finish(event)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda name="": _Submitter(name, writer),
        cache_logger_on_first_use=False,  # costs 0.2 µs a line, and a later configure reaches every logger
    )
    _take_over_logging(_ForeignHandler(writer, shared, finish), level)
    writer.start()
    return writer


def log_crashes() -> None:
    """Have what nobody catches, in threads and in destructors, become lines of the log, redacted like all others."""
    threading.excepthook = _thread_crashed
    sys.unraisablehook = _destructor_crashed


def _thread_crashed(crash: threading.ExceptHookArgs) -> None:
    if crash.exc_type is SystemExit or crash.exc_value is None:
        return
    name = None if crash.thread is None else crash.thread.name
    get_logger(__name__).critical("thread_crashed", thread=name, exc_info=crash.exc_value)


def _destructor_crashed(crash: sys.UnraisableHookArgs) -> None:
    log = get_logger(__name__)
    log.error("destructor_crashed", of=type(crash.object).__name__, exc_info=crash.exc_value)


def _unbuffered(stream: int | BinaryIO) -> Callable[[memoryview], int]:
    if isinstance(stream, int):
        return functools.partial(os.write, stream)
    try:
        return functools.partial(os.write, stream.fileno())
    except (OSError, ValueError):  # a stream in memory
        return stream.write


class _Submitter:
    """What structlog calls with a finished line, whatever its level."""

    def __init__(self, name: str, writer: LogWriter) -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = writer.submit


class _ForeignHandler(logging.Handler):
    """Takes the records of libraries through the same processors to the same writer."""

    def __init__(self, writer: LogWriter, shared: list[Processor], finish: Callable[[EventDict], bytes]) -> None:
        super().__init__()
        self._writer = writer
        self._finish = finish
        self.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=shared,
                processors=[
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    lambda _logger, _method, event: finish(event).decode(),
                ],
            )
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's line, or the fact that it has none: the usual handler would print its arguments."""
        try:
            line = self.format(record).encode()
        except Exception as error:  # noqa: BLE001  # any library may log anything, and logging must not raise
            line = self._finish(_unrenderable(record.name, error))
        self._writer.submit(line)


def _take_over_logging(handler: logging.Handler, level: int) -> None:
    handler.setLevel(level)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, quiet_level in QUIET.items():
        logging.getLogger(name).setLevel(quiet_level)
    logging.captureWarnings(True)


def _finisher(
    form: LogFormat, redact: Redactor, *, colours: bool, worker: int | None = None
) -> Callable[[EventDict], bytes]:
    """Give the last step: an event becomes one finished line, redacted, and never an exception."""
    written = _render_json if form is LogFormat.JSON else functools.partial(_render_console, colours=colours)

    def render(event: EventDict) -> bytes:
        if worker is not None:
            event["worker"] = worker
        return written(event)

    def finish(event: EventDict) -> bytes:
        logger = str(event.get("logger", ""))
        try:
            line = render(event)
        except Exception as error:  # noqa: BLE001  # a value's repr may do anything, and logging must not raise
            line = render(_unrenderable(logger, error))
        masked = redact(line)
        if masked is not line and form is LogFormat.JSON:
            masked = _still_json(masked)
        return masked + b"\n"

    return finish


def _render_json(event: EventDict) -> bytes:
    ordered = {key: event.pop(key) for key in FIRST_KEYS if key in event}
    ordered.update(event)
    try:
        line = ENCODER.encode(ordered)
    except UnicodeEncodeError:  # a lone surrogate, which aiohttp makes of bytes that are not UTF-8
        line = json.dumps(ordered, default=repr, separators=(",", ":")).encode()
    if line.isascii() and b"\x7f" not in line:
        return line
    return _escape(line.decode()).encode()


def _render_console(event: EventDict, *, colours: bool) -> bytes:
    timestamp, level, name = str(event.pop("timestamp", "")), str(event.pop("level", "")), str(event.pop("event", ""))
    blocks = [str(event.pop(key)) for key in ("stack", "exception") if key in event]
    words = [timestamp[11:23], f"{level:8}", _escape(name)]
    if colours:
        words[1] = f"\x1b[{COLOURS.get(level, '0')}m{words[1]}\x1b[0m"
        words[2] = f"\x1b[1m{words[2]}\x1b[0m"
    words += (f"{_escape(key)}={_console_value(value)}" for key, value in event.items())
    lines = [" ".join(words)]
    lines += ("    " + _escape(line) for block in blocks for line in block.split("\n"))
    return "\n".join(lines).encode()


def _console_value(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if PLAIN_VALUE.match(text) else _escape(repr(value))


def _still_json(line: bytes) -> bytes:
    """Masking a secret that is a number or punctuation can break the line: then wrap what is left of it."""
    try:
        msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return _render_json({"event": "log_line_masked", "line": line.decode(errors="replace")})
    return line


def _escape(text: str) -> str:
    """Show control characters, line separators and direction marks by number, so that no value forges a line."""
    return UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def _drop_notice(dropped: int) -> EventDict:
    return _event("warning", "log_lines_dropped", __name__, {"dropped": dropped})


def _unrenderable(logger: str, error: Exception) -> EventDict:
    return _event("error", "log_line_unrenderable", logger, {"error": type(error).__name__})


def _event(level: str, name: str, logger: str, keys: Mapping[str, object]) -> EventDict:
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    return stamp(cast(WrappedLogger, None), level, {"level": level, "event": name, "logger": logger, **keys})


ENCODER = msgspec.json.Encoder(enc_hook=repr)
