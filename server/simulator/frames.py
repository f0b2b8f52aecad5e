"""What goes over a socket: complete, unmasked RFC 6455 frames, made once for everybody who gets them."""

from __future__ import annotations


def text_frame(payload: bytes) -> bytes:
    """`payload` (UTF-8, or what a fault makes of it) as one final text frame (RFC 6455, section 5.2)."""
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    if length < 65_536:
        return b"\x81\x7e" + length.to_bytes(2, "big") + payload
    return b"\x81\x7f" + length.to_bytes(8, "big") + payload


def pong_frame(data: bytes) -> bytes:
    """The answer to a ping with these up to 125 bytes."""
    return bytes((0x8A, len(data))) + data


def close_frame(code: int) -> bytes:
    """The end of a connection, without a reason in words."""
    return b"\x88\x02" + code.to_bytes(2, "big")
