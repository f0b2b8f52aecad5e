"""Requests that are no HTTP, or that two servers could read in two ways: what each is, and what has to come of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

SMUGGLED = "GET /balance HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n"
"""What is hidden in another's body: with a token, so that whoever answers it shows the account."""


class Malformed(NamedTuple):
    """`data` to send, and the statuses of all that may come back before the connection is closed.

    Empty is silence: the connection is closed without a word.
    """

    name: str
    data: bytes
    allowed: tuple[tuple[int, ...], ...]


REFUSED = ((400,), ())
LENIENT = ((400,), (200,), (421,))
"""Of what aiohttp's parser reads as a request all the same, in the only way that there is."""
UNREAD = ((), (400,), (408,))
"""Of what never is whole: the end of the sender is the end of the request."""


def cases(token: str) -> list[Malformed]:
    """All of them. `token` may read everything, so that nothing is refused for the lack of one."""
    smuggled = SMUGGLED.format(token=token)
    every = (_ambiguous_bodies(token, smuggled), _bad_lines(token), _bad_heads(token), _bad_fields(token))
    return [case for group in every for case in group]


def _post(token: str, *fields: str, body: str = "") -> bytes:
    head = (
        "POST /indicators HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
    )
    return ("\r\n".join([*head, *fields]) + "\r\n\r\n" + body).encode("latin-1")


def _get(token: str, *fields: str, target: str = "/livez", line: str | None = None) -> bytes:
    head = (line or f"GET {target} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {token}")
    return ("\r\n".join([*head, *fields]) + "\r\n\r\n").encode("latin-1")


def _ambiguous_bodies(token: str, smuggled: str) -> Iterator[Malformed]:
    """Where the body ends by one reading, and the next request begins, it does not by another."""
    chunked, length = "Transfer-Encoding: chunked", len(smuggled)
    for name, fields, body in (
        ("CL and TE", (f"Content-Length: {length + 5}", chunked), "0\r\n\r\n" + smuggled),
        ("TE and CL", (chunked, f"Content-Length: {length + 5}"), "0\r\n\r\n" + smuggled),
        ("CL 0 and TE", ("Content-Length: 0", chunked), "0\r\n\r\n" + smuggled),
        ("two different CL", ("Content-Length: 0", f"Content-Length: {length}"), smuggled),
        ("two equal CL", ("Content-Length: 4", "Content-Length: 4"), "null" + smuggled),
        ("a list of CL", ("Content-Length: 4, 4",), "null" + smuggled),
        ("CL +4", ("Content-Length: +4",), "null" + smuggled),
        ("CL -1", ("Content-Length: -1",), smuggled),
        ("CL 0x4", ("Content-Length: 0x4",), "null" + smuggled),
        ("CL 4 4", ("Content-Length: 4 4",), "null" + smuggled),
        ("CL 4_0", ("Content-Length: 4_0",), "null" + smuggled),
        ("CL empty", ("Content-Length:",), smuggled),
        ("CL of a superscript", ("Content-Length: \xb2",), smuggled),
        ("CL over 64 bits", ("Content-Length: 18446744073709551620",), "null" + smuggled),
        ("CL after a space", ("Content-Length : 4",), "null" + smuggled),
        ("TE after a space", ("Transfer-Encoding : chunked",), "0\r\n\r\n" + smuggled),
        ("TE twice", (chunked, chunked), "0\r\n\r\n" + smuggled),
        ("TE chunked, chunked", ("Transfer-Encoding: chunked, chunked",), "0\r\n\r\n" + smuggled),
        ("TE xchunked", ("Transfer-Encoding: xchunked",), "0\r\n\r\n" + smuggled),
        ("TE identity", ("Transfer-Encoding: identity",), "0\r\n\r\n" + smuggled),
        ("TE chunked, identity", ("Transfer-Encoding: chunked, identity",), "0\r\n\r\n" + smuggled),
        ("TE with vertical tab", ("Transfer-Encoding: \x0bchunked",), "0\r\n\r\n" + smuggled),
        ("TE folded", ("Transfer-Encoding:\r\n chunked",), "0\r\n\r\n" + smuggled),
        ("chunk size signed", (chunked,), "+4\r\nnull\r\n0\r\n\r\n" + smuggled),
        ("chunk size of 0x", (chunked,), "0x4\r\nnull\r\n0\r\n\r\n" + smuggled),
        ("chunk size with underscore", (chunked,), "0_4\r\nnull\r\n0\r\n\r\n" + smuggled),
        ("chunk size over 64 bits", (chunked,), "10000000000000004\r\nnull\r\n0\r\n\r\n" + smuggled),
        ("chunk size missing", (chunked,), "\r\nnull\r\n0\r\n\r\n" + smuggled),
        ("chunk longer than said", (chunked,), "2\r\nnull\r\n0\r\n\r\n" + smuggled),
        ("chunk ended by bare LF", (chunked,), "4\nnull\n0\n\n" + smuggled),
        ("chunk extension with bare LF", (chunked,), "4;a\nnull\r\n0\r\n\r\n" + smuggled),
    ):
        yield Malformed(name, _post(token, *fields, body=body), REFUSED)


def _bad_lines(token: str) -> Iterator[Malformed]:
    for name, line in (
        ("no version", "GET /balance"),
        ("HTTP/1.2x", "GET /balance HTTP/1.2x"),
        ("HTTP/3.0", "GET /balance HTTP/3.0"),
        ("http/1.1", "GET /balance http/1.1"),
        ("two spaces", "GET  /balance  HTTP/1.1"),
        ("tab", "GET\t/balance\tHTTP/1.1"),
        ("a space in the target", "GET /bal ance HTTP/1.1"),
        ("NUL in the target", "GET /balance\x00 HTTP/1.1"),
        ("NUL in the method", "G\x00T /balance HTTP/1.1"),
        ("a method of brackets", "G(T /balance HTTP/1.1"),
        ("no target", "GET HTTP/1.1"),
        ("a target without slash", "GET balance HTTP/1.1"),
        ("bytes over 127 in the target", "GET /bal\xff\xfe HTTP/1.1"),
    ):
        yield Malformed(name, _get(token, line=line), _read_as(name))
    yield Malformed("not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", REFUSED)
    yield Malformed("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", REFUSED)
    yield Malformed("HTTP/0.9", b"GET /balance\r\n\r\n", LENIENT)


def _read_as(name: str) -> tuple[tuple[int, ...], ...]:
    if name in ("no version", "two spaces"):
        return LENIENT
    return ((400,), (), (404,)) if "127" in name else REFUSED


def _bad_heads(token: str) -> Iterator[Malformed]:
    bare = _get(token, target="/balance").replace(b"\r\n", b"\n")
    yield Malformed("bare LF", bare, REFUSED)
    yield Malformed("bare CR", _get(token, target="/balance").replace(b"\r\n", b"\r"), UNREAD)
    yield Malformed("a target of 20 kB", _get(token, target="/" + "a" * 20_000), ((400,), (414,)))
    yield Malformed("a field of 20 kB", _get(token, "X-Long: " + "a" * 20_000), ((400,), (431,)))
    yield Malformed("5,000 fields", _get(token, *(f"X-{n}: 1" for n in range(5000))), ((400,), (431,)))
    yield Malformed("half a head", _get(token, target="/balance")[:-2], UNREAD)
    yield Malformed("half a body", _post(token, "Content-Length: 40", body="null"), UNREAD)
    yield Malformed("half a chunk", _post(token, "Transfer-Encoding: chunked", body="28\r\nnull"), UNREAD)
    yield Malformed("nothing", b"\r\n", UNREAD)


def _bad_fields(token: str) -> Iterator[Malformed]:
    for name, field in (
        ("a folded field", "X-A: 1\r\n 2"),
        ("a field without colon", "X-A"),
        ("a field without name", ": 1"),
        ("a space in a name", "X A: 1"),
        ("NUL in a value", "X-A: 1\x002"),
        ("CR in a value", "X-A: 1\r2"),
        ("NUL in a name", "X\x00A: 1"),
        ("brackets in a name", "X(A): 1"),
        ("a byte over 127 in a name", "X\xe9A: 1"),
        ("two Hosts", "Host: evil.example"),
    ):
        yield Malformed(name, _get(token, field, target="/balance"), REFUSED)
    first = f"GET /balance HTTP/1.1\r\n Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n"
    yield Malformed("a folded first field", first.encode(), REFUSED)
    yield Malformed(
        "no Host", f"GET /balance HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode(), ((421,), (400,))
    )
