"""Operations: what a client may ask of its socket, and how it is answered."""

import re
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from ..errors import InvalidRequest


class Operation(Struct, frozen=True):
    """A client's message; unknown fields are ignored."""

    op: str
    id: int | str | None = None
    token: str | None = None
    channels: list[str] | None = None
    interval: float | None = None
    on: Literal["tick", "close"] | None = None


class Fields(NamedTuple):
    """What an operation reads of its message beside `op` and `id`."""

    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


FIELDS = {
    "subscribe": Fields(needed=("channels",), optional=("interval", "on")),
    "unsubscribe": Fields(needed=("channels",)),
    "list": Fields(),
    "ping": Fields(),
    "auth": Fields(needed=("token",)),
}
NAMES = tuple(FIELDS)
OBJECT = f'{{"op": one of {", ".join(NAMES)}}}'
EXPECTED = {
    "id": "a whole number, a text or null",
    "token": "a text",
    "channels": "a list of names",
    "interval": "a number of seconds",
    "on": "tick or close",
}
"""What a field may be, in words."""
field_of = re.compile(r"at `\$\.(\w+)").search


class Numbered(Struct, frozen=True):
    """All of a message that says which one it is."""

    id: int | str | None = None


def parse_message(text: str) -> Operation:
    """A client's message. Raises InvalidRequest where it is no JSON object with an `op`, naming what is wrong."""
    try:
        return msgspec.json.decode(text, type=Operation)
    except msgspec.ValidationError as error:
        field = field_of(str(error))
        expected = EXPECTED.get(field[1]) if field else None
        raise InvalidRequest("message", f"{error}; expected {expected or OBJECT}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest("message", "the message is no JSON text") from error


def id_of(text: str) -> int | str | None:
    """The `id` of a message that is refused for something else, if it has one."""
    try:
        return msgspec.json.decode(text, type=Numbered).id
    except (msgspec.DecodeError, RecursionError):
        return None
