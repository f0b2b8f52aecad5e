"""Frames: what goes over the wire is what RFC 6455 says, and errors in the words of status frames."""

import json
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from server.errors import (
    OUTCOMES,
    CredentialsMissing,
    ExchangeTimeout,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    TooManyConnections,
)
from server.realtime.frames import encoder, fault_of, text_frame
from server.realtime.messages import Fault

from .sockets import TEXT, parse_frame

BORDERS = [0, 1, 124, 125, 126, 127, 65534, 65535, 65536, 65537, 70_000]


@given(payload=st.binary(max_size=400), rest=st.binary(max_size=20))
def test_short_frames_round_trip(payload: bytes, rest: bytes) -> None:
    """A frame parses to its payload, and leaves whatever follows it."""
    assert parse_frame(text_frame(payload) + rest) == (TEXT, payload, rest)


@given(length=st.sampled_from(BORDERS) | st.integers(65_000, 66_000), byte=st.integers(0, 255))
def test_lengths_round_trip(length: int, byte: int) -> None:
    """Each form of length is used where RFC 6455 says, whatever the payload."""
    payload = bytes([byte]) * length
    frame = text_frame(payload)
    assert parse_frame(frame) == (TEXT, payload, b"")
    assert parse_frame(frame[:-1] if length else frame[:1]) is None
    assert len(frame) - length == (2 if length < 126 else 4 if length < 65536 else 10)


async def test_aiohttp_reads_what_was_written_raw(aiohttp_client: Any) -> None:
    """A real client reads frames of every length, one after the other and between aiohttp's own."""
    texts = ["é" * (length // 2) + "x" * (length % 2) for length in BORDERS]

    async def handler(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        assert request.transport is not None
        for text in texts:
            request.transport.write(text_frame(text.encode()))
            await ws.ping()
            await ws.send_str("between")
        await ws.close()
        return ws

    app = web.Application()
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    async with client.ws_connect("/", compress=15) as ws:
        received = [message.data async for message in ws]
    assert received == [part for text in texts for part in (text, "between")]


@given(
    message=st.recursive(st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(), st.lists, max_leaves=9)
)
def test_messages_are_json(message: object) -> None:
    """A message's frame holds its JSON."""
    parsed = parse_frame(text_frame(encoder.encode(message)))
    assert parsed is not None
    assert (parsed[0], parsed[2]) == (TEXT, b"")
    assert json.loads(parsed[1]) == message


def example(kind: type[GatewayError], **options: Any) -> GatewayError:
    """An error of that kind."""
    if kind is InvalidRequest:
        return InvalidRequest("interval", "a detail")
    if kind is MethodNotAllowed:
        return MethodNotAllowed("a detail", allowed="GET")
    return kind("a detail", **options)


@pytest.mark.parametrize("kind", OUTCOMES)
def test_every_error_has_its_words(kind: type[GatewayError]) -> None:
    """A fault has the table's code, the error's own detail, and whether it will pass."""
    fault = fault_of(example(kind))
    code = "invalid_interval" if kind is InvalidRequest else OUTCOMES[kind].code
    assert fault == Fault(code, "a detail", kind.temporary, None, getattr(kind, "reason", None))


@given(seconds=st.floats(0, 1e6))
def test_retry_is_told_in_milliseconds(seconds: float) -> None:
    """When to come back is rounded to whole milliseconds."""
    fault = fault_of(ExchangeTimeout("late", retry_after_s=seconds))
    assert fault is not None
    assert fault.code == "upstream_timeout"
    assert fault.retry_after_ms == round(seconds * 1000)


def test_kinds_of_the_same_code_are_told_apart() -> None:
    """The reason tells what the code does not; what is no exchange error has none."""
    missing, full = fault_of(CredentialsMissing("no key")), fault_of(TooManyConnections("full"))
    assert missing is not None
    assert full is not None
    assert (missing.code, missing.reason, missing.temporary) == ("upstream_unavailable", "credentials_missing", False)
    assert (full.reason, full.temporary) == (None, True)


@pytest.mark.parametrize("error", [None, ValueError("a secret"), Exception()])
def test_what_is_no_error_of_ours_is_not_told(error: Exception | None) -> None:
    """Nothing of a foreign exception reaches a client."""
    assert fault_of(error) is None
