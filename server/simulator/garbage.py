"""What no client should have to read, and some day has to: messages that are not JSON, or not what they should be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from .streamfaults import Rubbish


def garbage(data: bytes, kind: Rubbish, size_bytes: int) -> bytes:
    """What becomes of a message; `size_bytes` is the length of huge ones."""
    if kind is Rubbish.NOT_JSON:
        return data[: len(data) // 2]
    if kind is Rubbish.NOT_UTF8:
        return data[:-1] + b'"\xff\xfe'
    document = msgspec.json.decode(data)
    if kind is Rubbish.SHAPE:
        document["data"] = [[document["data"]]]
    elif kind is Rubbish.TYPES:
        document = _mapped(document, lambda value: [value])
    elif kind is Rubbish.NAN:
        document["data"] = _mapped(document["data"], _not_a_number)
    else:
        document["padding"] = "x" * max(0, size_bytes - len(data) - 13)
    return msgspec.json.encode(document)


def _mapped(value: Any, change: Callable[[Any], object], name: str = "") -> Any:
    """The document with every leaf changed, but the names of topics and symbols."""
    if isinstance(value, dict):
        return {key: _mapped(one, change, key) for key, one in value.items()}
    if isinstance(value, list):
        return [_mapped(one, change, name) for one in value]
    return value if name in ("topic", "symbol") else change(value)


def _not_a_number(value: object) -> object:
    """NaN in place of a decimal string."""
    return "NaN" if isinstance(value, str) and value.replace(".", "", 1).lstrip("-").isdecimal() else value
