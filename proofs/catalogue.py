"""Every fault of the proof by name: of the transport, of HTTP, of Bybit's envelope, and of the data in it."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from .proxy import Fault, Line

MEBIBYTE = 1 << 20
HOUR_MS = 3_600_000
NUMBER: dict[str, Any] = {"tickers": "lastPrice", "position": "size", "wallet": "totalEquity", "kline": 4}
"""The number of a row that each endpoint cannot do without."""

Answer = Callable[[Line], Awaitable[None]]
Row = Any


def saying(body: bytes | str, *headers: str, status: str = "200 OK", length: int | None = None) -> Answer:
    """Always the same answer."""
    data = body.encode() if isinstance(body, str) else body

    async def answer(line: Line) -> None:
        await line.send(data, *headers, status=status, length=length)

    return answer


def refusing(code: Any, message: str = "refused", *headers: str) -> Answer:
    """Bybit's envelope with a code of its own and no result."""

    async def answer(line: Line) -> None:
        document = {"retCode": code, "retMsg": message, "result": {}, "retExtInfo": {}, "time": now_ms()}
        await line.send(json.dumps(document).encode(), *headers)

    return answer


def changing(change: Callable[[dict[str, Any], str], Any]) -> Answer:
    """The honest envelope after `change`, which gets it with the endpoint's name, and gives it or another document."""

    async def answer(line: Line) -> None:
        document = change(await line.document(), line.endpoint)
        await line.send(document if isinstance(document, bytes) else json.dumps(document).encode())

    return answer


def numbers(value: Any) -> Answer:
    """The honest rows, with `value` where each has its number."""

    def change(document: dict[str, Any], endpoint: str) -> dict[str, Any]:
        for row in document["result"]["list"]:
            row[NUMBER[endpoint]] = value
        return document

    return changing(change)


def without(name: str) -> Answer:
    """The honest envelope without one of its fields."""
    return changing(lambda document, _: {key: value for key, value in document.items() if key != name})


def with_field(name: str, value: Any) -> Answer:
    """The honest envelope with another value in one of its fields."""
    return changing(lambda document, _: document | {name: value})


def with_list(change: Callable[[list[Row]], Any]) -> Answer:
    """The honest result with its list after `change`."""
    return changing(
        lambda document, _: document | {"result": document["result"] | {"list": change(document["result"]["list"])}}
    )


def later(seconds: float) -> Answer:
    """The honest envelope, its time moved."""
    return changing(lambda document, _: document | {"time": document["time"] + round(seconds * 1000)})


def limited(reset: str | None) -> Answer:
    """Too many visits, with the reset that `reset` names: a text, or seconds from now as +S or -S."""

    async def answer(line: Line) -> None:
        text = str(now_ms() + int(reset) * 1000) if reset is not None and reset[0] in "+-" else reset
        headers = ("X-Bapi-Limit: 50", "X-Bapi-Limit-Status: 0", f"X-Bapi-Limit-Reset-Timestamp: {text}")
        await refusing(10006, "Too many visits.", *(headers if text is not None else ()))(line)

    return answer


def now_ms() -> int:
    return round(time.time() * 1000)


async def never(line: Line) -> None:
    """No answer until the fault ends."""
    await line.released.wait()
    line.reset()


async def reset_before_headers(line: Line) -> None:
    line.reset()


async def closed_before_headers(line: Line) -> None:
    line.close()


async def reset_within_headers(line: Line) -> None:
    await line.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Le")
    line.reset()


async def reset_after_headers(line: Line) -> None:
    await line.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    line.reset()


async def reset_within_body(line: Line) -> None:
    await line.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"retCode":0,"retMsg":"OK","result":{"list":[')
    line.reset()


async def hang_within_headers(line: Line) -> None:
    await line.raw(b"HTTP/1.1 200 OK\r\nContent-Type: appli")
    await never(line)


async def hang_after_headers(line: Line) -> None:
    await line.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    await never(line)


async def hang_within_body(line: Line) -> None:
    body = (await line.honest())[2]
    await line.raw(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
    await never(line)


async def dripping(line: Line) -> None:
    """The honest body, one byte a second."""
    body = (await line.honest())[2]
    await line.raw(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode())
    await dripped(line, body)


async def dripping_headers(line: Line) -> None:
    await dripped(line, b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1000)


async def dripped(line: Line, data: bytes) -> None:
    for index in range(len(data)):
        await line.raw(data[index : index + 1])
        try:
            await asyncio.wait_for(line.released.wait(), 1.0)
        except TimeoutError:
            continue
        break
    line.reset()


async def endless_headers(line: Line) -> None:
    await line.raw(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        await line.raw(f"X-Header-{number}: {'x' * 80}\r\n".encode())
    line.reset()


async def truncated_length(line: Line) -> None:
    body = (await line.honest())[2]
    await line.send(body, length=len(body) + 100)
    line.close()


async def truncated_chunk(line: Line) -> None:
    body = (await line.honest())[2]
    await line.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + f"{len(body) + 9:x}\r\n".encode() + body)
    line.close()


async def wrong_chunk(line: Line) -> None:
    body = (await line.honest())[2]
    await line.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + body + b"\r\n0\r\n\r\n")


async def half_gzip(line: Line) -> None:
    packed = gzip.compress((await line.honest())[2])
    await line.send(packed[: len(packed) // 2], "Content-Encoding: gzip")


async def large_body(line: Line) -> None:
    """The honest document after 50 MiB of blanks."""
    body = (await line.honest())[2]
    await line.raw(f"HTTP/1.1 200 OK\r\nContent-Length: {50 * MEBIBYTE + len(body)}\r\n\r\n".encode())
    for _ in range(50):
        await line.raw(b" " * MEBIBYTE)
    await line.raw(body)


async def redirect(line: Line) -> None:
    await line.send(b"", f"Location: {line.elsewhere}{line.target}", status="302 Found")


async def redirect_with_method(line: Line) -> None:
    await line.send(b"", f"Location: {line.elsewhere}{line.target}", status="307 Temporary Redirect")


class Replaying:
    """The first answer for each question, again and again, as a cache that stands still."""

    def __init__(self) -> None:
        self._known: dict[str, bytes] = {}

    async def __call__(self, line: Line) -> None:
        if line.target not in self._known:
            document = await line.document()
            document["time"] -= HOUR_MS // 60
            self._known[line.target] = json.dumps(document).encode()
        await line.send(self._known[line.target])


def other_symbol(rows: list[Row]) -> list[Row]:
    """Rows of something that nobody asked for; candles that step forward."""
    if rows and isinstance(rows[0], list):
        return rows[::-1]
    return [row | {"symbol": "XYZUSDT", "accountType": "CONTRACT", "coin": None} for row in rows]


def twice(rows: list[Row]) -> list[Row]:
    return [row for row in rows for _ in range(2)]


BOMB = gzip.compress(b" " * MEBIBYTE) * 400
PAGE = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center><hr>openresty</body></html>"


def page(status: str) -> Answer:
    """A web server's own page of an error."""
    return saying(PAGE.format(status), "Content-Type: text/html", status=status)


TRANSPORT = (
    Fault("refused", "transport", connection="refused"),
    Fault("slow connect (SYN dropped)", "transport", connection="blackhole"),
    Fault("name resolution fails", "transport", connection="no name"),
    Fault("reset at connect", "transport", connection="reset"),
    Fault("TLS: handshake never answered", "transport", connection="silent"),
    Fault("TLS: closed in handshake", "transport", connection="closed in tls"),
    Fault("TLS: plain HTTP", "transport", connection="no tls"),
    Fault("TLS: unknown certificate", "transport", connection="unknown certificate"),
    Fault("no answer", "transport", never),
    Fault("closed before headers", "transport", closed_before_headers),
    Fault("reset before headers", "transport", reset_before_headers),
    Fault("reset within headers", "transport", reset_within_headers),
    Fault("reset after headers", "transport", reset_after_headers),
    Fault("reset within body", "transport", reset_within_body),
    Fault("hang within headers", "transport", hang_within_headers),
    Fault("hang after headers", "transport", hang_after_headers),
    Fault("hang before the last byte", "transport", hang_within_body),
    Fault("body at 1 byte a second", "transport", dripping),
    Fault("headers at 1 byte a second", "transport", dripping_headers),
    Fault("endless headers", "transport", endless_headers),
    Fault("Content-Length too long", "transport", truncated_length),
    Fault("chunk cut short", "transport", truncated_chunk),
    Fault("chunk size is no number", "transport", wrong_chunk),
)

HTTP = (
    Fault("500", "http", page("500 Internal Server Error")),
    Fault("502 with HTML", "http", page("502 Bad Gateway")),
    Fault("503", "http", saying("", status="503 Service Unavailable")),
    Fault("504", "http", page("504 Gateway Time-out")),
    Fault("429", "http", saying('{"retCode":429}', status="429 Too Many Requests")),
    Fault("403", "http", page("403 Forbidden"), scope="address"),
    Fault("401", "http", saying("", status="401 Unauthorized"), scope="account"),
    Fault("404", "http", page("404 Not Found")),
    Fault("204", "http", saying("", status="204 No Content")),
    Fault("200 with HTML", "http", page("200 OK")),
    Fault("302 to another host", "http", redirect),
    Fault("307 to another host", "http", redirect_with_method),
    Fault("bad gzip", "http", saying("no gzip at all", "Content-Encoding: gzip")),
    Fault("half gzip", "http", half_gzip),
    Fault("gzip of 400 MiB", "http", saying(BOMB, "Content-Encoding: gzip")),
    Fault("body of 50 MiB", "http", large_body),
    Fault("empty body", "http", saying("")),
    Fault("no UTF-8", "http", saying(b'{"retCode":0,"retMsg":"\xff\xfe","result":{}}')),
)

API = (
    Fault("10000 timeout", "api", refusing(10000, "Server Timeout")),
    Fault("10002 clock", "api", refusing(10002, "invalid request, please check your server timestamp")),
    Fault("10003 key", "api", refusing(10003, "API key is invalid."), scope="account"),
    Fault("10004 signature", "api", refusing(10004, "error sign! origin_string[simulator-key]"), scope="account"),
    Fault("10005 permission", "api", refusing(10005, "Permission denied"), scope="account"),
    Fault("10006, reset in 3 s", "api", limited("+3")),
    Fault("10006, reset an hour ago", "api", limited("-3600")),
    Fault("10006, reset is garbage", "api", limited("soon")),
    Fault("10006, reset in the year 33658", "api", limited("999999999999999")),
    Fault("10006, no reset", "api", limited(None)),
    Fault("10010 address not bound", "api", refusing(10010, "Unmatched IP"), scope="account"),
    Fault("10016 server error", "api", refusing(10016, "Internal server error")),
    Fault("33004 key expired", "api", refusing(33004, "Your api key has expired."), scope="account"),
    Fault("unknown code", "api", refusing(987654, "what nobody has seen")),
    Fault("code as string", "api", with_field("retCode", "0")),
    Fault("refusal with code as string", "api", refusing("10016", "Internal server error")),
    Fault("no code", "api", without("retCode")),
    Fault("no message", "api", without("retMsg"), may_be_harmless=True),
    Fault("message is an object", "api", with_field("retMsg", {"a": 1}), may_be_harmless=True),
)

DATA = (
    Fault("body null", "data", saying("null")),
    Fault("body a list", "data", saying("[]")),
    Fault("body a number", "data", saying("1")),
    Fault("JSON cut short", "data", saying('{"retCode":0,"retMsg":"OK","result":{"list":[{"symbol":"BTCUSDT"')),
    Fault("JSON 100,000 deep", "data", saying('{"retCode":0,"retMsg":"OK","result":' + "[" * 100_000)),
    Fault("result null", "data", with_field("result", None)),
    Fault("result a list", "data", with_field("result", [])),
    Fault("result missing", "data", without("result")),
    Fault("list null", "data", with_list(lambda _: None)),
    Fault("list an object", "data", with_list(lambda _: {})),
    Fault("list empty", "data", with_list(lambda _: [])),
    Fault("rows null", "data", with_list(lambda rows: [None for _ in rows])),
    Fault("rows empty", "data", with_list(lambda rows: [{} for _ in rows])),
    Fault("rows twice", "data", with_list(twice)),
    Fault("rows of something else", "data", with_list(other_symbol)),
    Fault('number "NaN"', "data", numbers("NaN")),
    Fault("number NaN", "data", numbers(float("nan"))),
    Fault('number "Infinity"', "data", numbers("Infinity")),
    Fault('number "1E-8"', "data", numbers("1E-8")),
    Fault('number "1_000"', "data", numbers("1_000")),
    Fault("number empty", "data", numbers("")),
    Fault("number null", "data", numbers(None)),
    Fault("number as JSON number", "data", numbers(1.5)),
    Fault("number an object", "data", numbers({})),
    Fault("number of 1,000 digits", "data", numbers("9" * 1000)),
    Fault("time an hour ago", "data", later(-3600)),
    Fault("time in an hour", "data", later(3600)),
    Fault("time negative", "data", with_field("time", -1)),
    Fault("time as string", "data", with_field("time", "soon")),
    Fault("answers of a minute ago, again and again", "data", Replaying()),
)

FAULTS = TRANSPORT + HTTP + API + DATA
