"""Logging: the writer that may stall alone, redaction, lines that cannot be forged, and sampling."""

import io
import json
import logging
import os
import queue
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import structlog
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from server.redaction import Redactor
from server.settings import LogFormat, LogLevel, LogSettings, Secret
from server.telemetry import PIPE_BYTES, QUIET, REQUEST, LogWriter, Sampler, configure, get_logger, pieces

CANARY = 'canary/7f3a+91c0="é'
WAIT_S = 10.0


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Put the process's logging back as it was: configure takes all of it over."""
    root = logging.getLogger()
    handlers, level, captured = root.handlers[:], root.level, warnings.showwarning
    levels = {name: logging.getLogger(name).level for name in QUIET}
    yield
    logging.captureWarnings(False)
    warnings.showwarning = captured
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


@pytest.fixture
def answering() -> Iterator[None]:
    """A request is being answered, "r-1"."""
    token = REQUEST.set("r-1")
    yield
    REQUEST.reset(token)


Log = Callable[[], list[str]]
Configured = Callable[..., Log]


@pytest.fixture
def logged() -> Iterator[Configured]:
    """Configure logging into memory; what it gives, called, gives the lines so far."""
    writers: list[LogWriter] = []

    def start(form: LogFormat = LogFormat.JSON, *secrets: str, **options: Any) -> Log:
        stream = io.BytesIO()
        settings = LogSettings(format=form, level=options.pop("level", LogLevel.INFO))
        writer = configure(settings, stream, map(Secret, secrets), **options)
        writers.append(writer)

        def lines() -> list[str]:
            assert writer.flush(WAIT_S)
            return stream.getvalue().decode().split("\n")[:-1]

        return lines

    yield start
    for writer in writers:
        assert writer.close(WAIT_S)


def events(log: Log) -> list[dict[str, Any]]:
    """The JSON lines so far."""
    return [json.loads(line) for line in log()]


class Pipe:
    """A pipe that nobody reads until asked, as a stalled log collector."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()

    def drain(self) -> "queue.Queue[bytes]":
        """Read from now on, line by line, until the other side closes."""
        lines: queue.Queue[bytes] = queue.Queue()

        def read() -> None:
            with os.fdopen(self.read_fd, "rb") as stream:
                for line in stream:
                    lines.put(line)

        threading.Thread(target=read, daemon=True).start()
        return lines


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe whose writing end is closed at the end."""
    pipe = Pipe()
    yield pipe
    os.close(pipe.write_fd)


def started(stream: Any, **options: Any) -> LogWriter:
    """A running writer."""
    writer = LogWriter(stream, **options)
    writer.start()
    return writer


def dropped_in(line: bytes) -> int:
    """The number that the default notice tells, 0 for any other line."""
    return int(line.rpartition(b"=")[2]) if line.startswith(b"log_lines_dropped") else 0


def test_writer_keeps_order_and_everything() -> None:
    """Lines leave in the order of their submission, none missing."""
    stream = io.BytesIO()
    writer = started(stream)
    for number in range(5000):
        writer.submit(b"%d\n" % number)
    assert writer.close(WAIT_S)
    assert stream.getvalue().split() == [b"%d" % number for number in range(5000)]
    assert writer.dropped == 0


def test_stalled_pipe_drops_and_tells(pipe: Pipe) -> None:
    """Fifty thousand lines into a stalled pipe return at once; once it is read, every line is accounted for."""
    writer = started(pipe.write_fd)
    for number in range(50_000):
        writer.submit(b"%08d and some text that makes it a line\n" % number)
    assert writer.dropped >= 35_000
    assert not writer.flush(0)
    lines = pipe.drain()
    arrived = told = last = 0
    while arrived + told < 50_000:
        line = lines.get(timeout=WAIT_S)
        told += dropped_in(line)
        if not dropped_in(line):
            assert int(line[:8]) == last
            last += 1
            arrived += 1
    assert (arrived + told, told) == (50_000, writer.dropped)
    writer.submit(b"after\n")
    assert lines.get(timeout=WAIT_S) == b"after\n"
    assert writer.close(WAIT_S)


def test_drops_are_told_by_a_log_line(pipe: Pipe) -> None:
    """In the process's log the number of lost lines is an event like any other."""
    writer = configure(LogSettings(format=LogFormat.JSON), pipe.write_fd)
    log = get_logger("server.test")
    while writer.dropped < 10:
        log.info("something_happened", text="x" * 1000)
    assert not writer.flush(0)
    lines = pipe.drain()
    event: dict[str, Any] = {"event": ""}
    while event["event"] != "log_lines_dropped":
        event = json.loads(lines.get(timeout=WAIT_S))
    assert (event["level"], event["dropped"], event["logger"]) == ("warning", 10, "server.telemetry")
    assert event["timestamp"].endswith("Z")
    assert writer.close(WAIT_S)


def test_queue_is_bounded_in_bytes(pipe: Pipe) -> None:
    """Few long lines fill the queue as well as many short ones."""
    writer = started(pipe.write_fd, max_bytes=1_000_000)
    for _ in range(30):
        writer.submit(b"x" * 99_999 + b"\n")
    assert writer.dropped == 20
    lines = pipe.drain()
    assert writer.close(WAIT_S)
    assert sum(dropped_in(lines.get(timeout=WAIT_S)) for _ in range(11)) == 20


def test_broken_pipe_counts_and_never_raises(pipe: Pipe) -> None:
    """When the reader is gone, lines are lost and counted, and the writer lives on."""
    os.close(pipe.read_fd)
    writer = started(pipe.write_fd)
    for _ in range(100):
        writer.submit(b"lost\n")
        assert writer.flush(WAIT_S)
    assert writer.dropped == 100
    assert writer.close(WAIT_S)


def test_closed_stream_counts_and_never_raises() -> None:
    """A stream that was closed is no different from a broken one."""
    stream = io.BytesIO()
    writer = started(stream)
    stream.close()
    writer.submit(b"lost\n")
    assert writer.close(WAIT_S)
    assert writer.dropped == 1


def test_a_pipe_that_became_non_blocking(pipe: Pipe) -> None:
    """A descriptor that another process made non-blocking loses nothing."""
    os.set_blocking(pipe.write_fd, False)
    writer = started(pipe.write_fd)
    for number in range(5000):
        writer.submit(b"%060d\n" % number)
    lines = pipe.drain()
    assert [int(lines.get(timeout=WAIT_S)) for _ in range(5000)] == list(range(5000))
    assert writer.close(WAIT_S)


def test_after_close_lines_count_as_dropped() -> None:
    """A closed writer takes nothing more, and may be closed again."""
    stream = io.BytesIO()
    writer = started(stream)
    assert writer.close(WAIT_S)
    writer.submit(b"late\n")
    assert (writer.dropped, stream.getvalue()) == (1, b"")
    assert writer.close(WAIT_S)
    assert writer.flush(WAIT_S)


def test_close_gives_up_on_a_stalled_pipe(pipe: Pipe) -> None:
    """A close that cannot write in time says so and returns."""
    writer = started(pipe.write_fd)
    writer.submit(b"x" * 200_000)
    assert not writer.close(0.01)
    pipe.drain()
    assert writer.close(WAIT_S)


def test_a_stalled_log_does_not_keep_the_process() -> None:
    """The process leaves although its log cannot be written."""
    code = """
import os
from server.telemetry import LogWriter
writer = LogWriter(os.pipe()[1])
writer.start()
writer.submit(b"x" * 200_000)
print(writer.close(0.01))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=WAIT_S, check=True)
    assert done.stdout.strip() == b"False"


def test_writer_goes_past_the_buffer_of_a_stream(pipe: Pipe) -> None:
    """A buffered stream like sys.stderr.buffer is written to without delay."""
    with os.fdopen(os.dup(pipe.write_fd), "wb") as stream:
        writer = started(stream)
        writer.submit(b"now\n")
        assert pipe.drain().get(timeout=WAIT_S) == b"now\n"
        assert writer.close(WAIT_S)


@examples(deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=50))
def test_writer_loses_no_byte(chunks: list[bytes]) -> None:
    """What comes out is what went in."""
    stream = io.BytesIO()
    writer = started(stream)
    for chunk in chunks:
        writer.submit(chunk)
    assert writer.close(WAIT_S)
    assert stream.getvalue() == b"".join(chunks)


@pytest.mark.usefixtures("answering")
def test_json_line(logged: Configured) -> None:
    """A JSON line has timestamp, level, event and logger first, then the keys, and the bound context."""
    log = logged()
    get_logger("server.test").info("request_finished", status=200, path="/price")
    (line,) = log()
    event = json.loads(line)
    assert list(event)[:4] == ["timestamp", "level", "event", "logger"]
    stamp = event.pop("timestamp")
    assert stamp.endswith("Z")
    assert event == {
        "level": "info",
        "event": "request_finished",
        "logger": "server.test",
        "status": 200,
        "path": "/price",
        "request_id": "r-1",
    }


def test_console_line(logged: Configured) -> None:
    """A console line has time, level, event and keys, without colours where there is no terminal."""
    log = logged(LogFormat.CONSOLE)
    get_logger("server.test").warning("refresh_failed", topic="ticker BTCUSDT", tries=3)
    (line,) = log()
    time, rest = line.split(" ", 1)
    assert len(time) == len("12:34:56.789")
    assert rest == "warning  refresh_failed topic='ticker BTCUSDT' tries=3 logger=server.test"


@pytest.mark.parametrize("form", LogFormat)
def test_a_worker_signs_every_line(logged: Configured, form: LogFormat) -> None:
    """Lines of a worker say whose they are, those of libraries too; without a number there is none."""
    log = logged(form, worker=3)
    get_logger("x").info("told", number=1)
    logging.getLogger("library").warning("told")
    assert [bool(re.search(r"worker\W{1,2}3\b", line)) for line in log()] == [True, True]
    log = logged(form)
    get_logger("x").info("told")
    assert "worker" not in "".join(log())


@examples(deadline=None)
@given(st.lists(st.integers(1, 6000), max_size=30))
def test_pieces_are_what_a_pipe_takes_whole(sizes: list[int]) -> None:
    """No line is cut or lost, and no piece is longer than a pipe takes at once unless a line is."""
    lines = [b"x" * (size - 1) + b"\n" for size in sizes]
    made = list(pieces(lines))
    assert b"".join(made) == b"".join(lines)
    assert all(len(piece) <= PIPE_BYTES or piece in lines for piece in made)
    assert all(piece.endswith(b"\n") for piece in made if piece)


def test_colours_on_request(logged: Configured) -> None:
    """With colours the level is coloured, and the text is the same."""
    log = logged(LogFormat.CONSOLE, colours=True)
    get_logger("server.test").error("oops")
    (line,) = log()
    assert "\x1b[31merror   \x1b[0m \x1b[1moops\x1b[0m" in line


def test_level(logged: Configured) -> None:
    """Below the level nothing is logged, by our loggers and by others."""
    log = logged(level=LogLevel.WARNING)
    get_logger("a").info("no")
    get_logger("a").warning("yes")
    logging.getLogger("b").info("no")
    logging.getLogger("b").warning("yes")
    logging.getLogger("asyncio").info("no")
    assert [event["logger"] for event in events(log)] == ["a", "b"]


def test_quiet_loggers_keep_to_the_level(logged: Configured) -> None:
    """A library that is held at warning does not warn where only errors are wanted."""
    log = logged(level=LogLevel.ERROR)
    logging.getLogger("urllib3").warning("no")
    assert log() == []


def test_logger_made_before_configure_follows_it(logged: Configured) -> None:
    """Loggers of modules exist before the settings do, and follow each configure."""
    logger = get_logger("early")
    first = logged()
    logger.info("one")
    assert [event["event"] for event in events(first)] == ["one"]
    second = logged()
    logger.info("two")
    assert [event["event"] for event in events(second)] == ["two"]
    assert len(first()) == 1


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize("name", ["asyncio", "aiohttp.web", "urllib3.connectionpool", "some.library"])
def test_foreign_loggers_take_the_same_way(logged: Configured, name: str) -> None:
    """Records of libraries become lines of ours, with their logger's name and the context."""
    log = logged()
    logging.getLogger(name).warning("it is %s", "late")
    (event,) = events(log)
    assert (event["level"], event["event"], event["logger"]) == ("warning", "it is late", name)
    assert event["request_id"] == "r-1"


def test_warnings_are_logged(logged: Configured) -> None:
    """Python's warnings come as lines of py.warnings."""
    log = logged()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old way", stacklevel=1)
    (event,) = events(log)
    assert event["logger"] == "py.warnings"
    assert "old way" in event["event"]


def test_pybit_and_access_lines_are_not_logged(logged: Configured) -> None:
    """pybit's errors carry URLs and come as exceptions anyway; access lines carry query strings."""
    log = logged(level=LogLevel.DEBUG)
    logging.getLogger("pybit._http_manager").error("GET https://host/v5?api_key=x")
    logging.getLogger("aiohttp.access").info("GET /?token=x")
    logging.getLogger("urllib3.connectionpool").debug("https://host:443 GET /v5?x")
    assert log() == []


def test_records_that_cannot_be_rendered(logged: Configured) -> None:
    """Wrong arguments or a raising repr give a line without the arguments, and never an exception."""

    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError(CANARY)

    log = logged()
    logging.getLogger("lib").error("%d", CANARY)
    get_logger("ours").info("bad_value", value=Bad())
    get_logger("ours").info("bad_key", value={Bad(): 1})
    assert [(event["event"], event["logger"], event["error"]) for event in events(log)] == [
        ("log_line_unrenderable", "lib", "TypeError"),
        ("log_line_unrenderable", "ours", "RuntimeError"),
        ("log_line_unrenderable", "ours", "RuntimeError"),
    ]
    assert CANARY not in "".join(log())


def test_odd_values_are_logged(logged: Configured) -> None:
    """Surrogates, secrets, exceptions and objects have a form in JSON."""
    log = logged()
    get_logger("x").info("odd", header="caf\udce9", secret=Secret(CANARY), error=ValueError("v"), kind=LogLevel.INFO)
    (event,) = events(log)
    assert (event["header"], event["secret"], event["error"], event["kind"]) == (
        "caf\udce9",
        "Secret(***)",
        "ValueError('v')",
        "info",
    )


def spoken(secret: str) -> list[str]:
    """The ways in which a secret may stand in a log line."""
    encoded = [quote(secret), quote(secret, safe=""), quote_plus(secret), quote(quote(secret))]
    encoded.append(re.sub("%..", lambda match: match.group().lower(), quote(secret)))
    return [
        secret,
        *encoded,
        json.dumps(secret),
        json.dumps(json.dumps(secret)),
        repr(secret),
        repr(json.dumps(secret)),
    ]


@pytest.mark.parametrize("form", LogFormat)
def test_no_secret_in_any_line(logged: Configured, form: LogFormat) -> None:
    """Values, keys of dictionaries, events, tracebacks, stacks, warnings and records of libraries are all redacted."""
    log = logged(form, CANARY)
    logger = get_logger("server.test")
    for text in spoken(CANARY):
        logger.info("spoken", text=text, inside=f"before{text}after", nested={text: [text]}, error=ValueError(text))
        logging.getLogger("lib").warning("record %s", text)
        logging.getLogger("lib").warning({"dict": text})
        try:
            raise ValueError(text) from RuntimeError(f"cause {text}")
        except ValueError:
            logger.exception("raised", stack_info=True)
            logging.getLogger("lib").exception("record")
    logger.info(CANARY)
    lines = log()
    assert len(lines) >= 5 * len(spoken(CANARY))
    everything = "\n".join(lines)
    assert "***" in everything
    for part in (CANARY, "7f3a", "91c0"):
        assert part not in everything
    if form is LogFormat.JSON:
        assert all(isinstance(json.loads(line), dict) for line in lines)


VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="*"), min_size=6, max_size=40)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="*"), min_size=6, max_size=40)


@examples(deadline=None)
@given(VISIBLE | ANY_TEXT)
@example("\\u0041\\n\"'")
@example("tab\tand\nnewline\U0001f600")
def test_redactor_finds_each_form(secret: str) -> None:
    """A secret is found whole as it is, in URLs, in reprs, in JSON, and in each of those inside JSON."""
    redact = Redactor([Secret(secret)])
    for text in spoken(secret):
        for encoded in (text, repr(text), json.dumps(text), json.dumps(text, ensure_ascii=False)):
            assert set(redact(encoded.encode())) <= set(b"***\\\"'"), encoded


@examples(deadline=None)
@given(st.binary(max_size=200))
def test_redactor_leaves_other_lines_alone(line: bytes) -> None:
    """A line without a secret is given back as the same object."""
    line = line.replace(b"canary", b"")
    if b"canary" not in line:
        assert Redactor([Secret("canary-secret")])(line) is line


def test_longer_secret_goes_first() -> None:
    """Of two secrets of which one begins the other, nothing is left over."""
    assert Redactor([Secret("secret"), Secret("secret-and-more")])(b"<secret-and-more>") == b"<***>"


def test_short_secret_is_masked_as_a_word_only() -> None:
    """A secret of a few characters is masked where it stands alone, and spoils no other word."""
    redact = Redactor([Secret("abc")])
    assert redact(b'{"token":"abc","path":"/abc?t=abc","word":"abcd xabc"}') == (
        b'{"token":"***","path":"/***?t=***","word":"abcd xabc"}'
    )


@pytest.mark.parametrize(
    "secret", ["1234567", "12", ":", '","', "event", "timestamp", '"event":"', "true", "{", "info"]
)
def test_redaction_keeps_json(logged: Configured, secret: str) -> None:
    """Whatever the secret is, also a number or punctuation, each line stays one JSON object."""
    log = logged(LogFormat.JSON, secret)
    get_logger("x").info("counted", number=1234567, few=12, flag=True, text=secret, inside={"deep": [secret]})
    (line,) = log()
    assert isinstance(json.loads(line), dict)


@pytest.mark.parametrize("form", LogFormat)
@examples(deadline=None)
@given(text=st.text(st.characters(), max_size=30))
@example(text="\n2026-01-01T00:00:00Z forged\r\n")
@example(text='"}\n{"event":"forged"}')
@example(text="\x1b[2J\x9b31m\x7f\u2028\u2029\u202e\u0085")
def test_no_value_forges_a_line(form: LogFormat, text: str) -> None:
    """Whatever stands in a value, a key or an event, the line stays one line without control characters."""
    stream = io.BytesIO()
    writer = configure(LogSettings(format=form), stream)
    get_logger("x").info(text, value=text, nested={text: [text]}, **{f"key {text}": 1})
    logging.getLogger("lib").warning("%s", text)
    assert writer.close(WAIT_S)
    shown = stream.getvalue().decode()
    assert shown.count("\n") == 2
    assert shown.splitlines() == shown.split("\n")[:-1]
    assert not [char for char in shown if char != "\n" and (ord(char) < 32 or 127 <= ord(char) < 160)]


def test_traceback_cannot_forge_a_console_line(logged: Configured) -> None:
    """Lines of a traceback are indented, the message's own lines too."""
    log = logged(LogFormat.CONSOLE)
    try:
        raise ValueError("first\n12:00:00.000 info     forged\x1b[2J")
    except ValueError:
        get_logger("x").exception("raised")
    first, *rest = log()
    assert "raised" in first
    assert len(rest) > 3
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in "".join(rest)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_sampler_counts_what_it_suppresses() -> None:
    """After the burst one is admitted for each interval that passes, and told how many were not."""
    clock = Clock()
    sampler = Sampler(2, clock=clock)
    assert [sampler.admit() for _ in range(5)] == [0, 0, None, None, None]
    clock.now += 0.5
    assert [sampler.admit() for _ in range(2)] == [3, None]
    clock.now += 60
    assert [sampler.admit() for _ in range(3)] == [1, 0, None]


def test_sampler_slower_than_one_a_second() -> None:
    """A rate below one still admits the first, and then one in its interval."""
    clock = Clock()
    sampler = Sampler(0.1, clock=clock)
    assert [sampler.admit(), sampler.admit()] == [0, None]
    clock.now += 9
    assert sampler.admit() is None
    clock.now += 1.001
    assert sampler.admit() == 2


@examples(deadline=None)
@given(rate=st.floats(0.5, 100), steps=st.lists(st.floats(0, 2), max_size=100))
def test_sampler_keeps_its_rate_and_accounts_for_all(rate: float, steps: list[float]) -> None:
    """Over any time no more than burst and rate allow are admitted, and each suppressed one is told or pending."""
    clock = Clock()
    sampler = Sampler(rate, clock=clock)
    answers = []
    for step in steps:
        clock.now += step
        answers.append(sampler.admit())
    admitted = [answer for answer in answers if answer is not None]
    assert len(admitted) <= max(1.0, rate) + rate * sum(steps) + 1e-6
    assert sum(admitted) <= answers.count(None)
