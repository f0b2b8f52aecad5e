"""Operations: what a client may ask of its socket, and how it is answered."""

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


def parse_message(text: str) -> Operation:
    """A client's message. Raises InvalidRequest where it is no JSON object with an `op`, naming what is wrong."""
    try:
        return msgspec.json.decode(text, type=Operation)
    except msgspec.ValidationError as error:
        raise InvalidRequest("message", f'{error}; expected {{"op": one of {", ".join(NAMES)}}}') from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest("message", "the message is no JSON text") from error
