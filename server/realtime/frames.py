"""Messages as they go over a socket: encoded once as a complete, unmasked RFC 6455 text frame."""

from typing import Any

import msgspec
from msgspec import Struct

from ..errors import GatewayError, outcome_of
from .messages import Fault, Message

encoder = msgspec.json.Encoder()


def text_frame(payload: bytes) -> bytes:
    """`payload` (UTF-8) as one final, unmasked, uncompressed text frame (RFC 6455, section 5.2)."""
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    if length < 65536:
        return b"\x81\x7e" + length.to_bytes(2) + payload
    return b"\x81\x7f" + length.to_bytes(8) + payload


PING_FRAME = b"\x89\x00"


def pong_frame(data: bytes) -> bytes:
    """The answer to a ping with these up to 125 bytes (RFC 6455, section 5.5.3)."""
    return bytes((0x8A, len(data))) + data


def message_frame(message: Message) -> bytes:
    """`message` as JSON in a text frame."""
    return text_frame(encoder.encode(message))


class Frame(Struct, frozen=True, eq=False):
    """One snapshot of one symbol, ready to be written to any number of sockets."""

    data: bytes
    sequence: int
    stale: tuple[str, ...]
    encoded_at: float
    readings: tuple[Any, ...]


def fault_of(error: Exception | None) -> Fault | None:
    """`error` in the words of status frames; None for none."""
    if not isinstance(error, GatewayError):
        return None
    retry_after_ms = None if error.retry_after_s is None else round(error.retry_after_s * 1000)
    return Fault(
        code=outcome_of(error).code,
        detail=error.detail,
        temporary=error.temporary,
        retry_after_ms=retry_after_ms,
        reason=getattr(error, "reason", None),
    )
