"""Closes: what each close code of a socket means, and when its client should come back."""

import enum
from typing import NamedTuple

from ..errors import OUTCOMES


class Return(enum.StrEnum):
    """When a client should connect again."""

    AT_ONCE = "at once, with jitter"
    AFTER_A_PAUSE = "after a pause"
    WHEN_TOLD = "after the time in the reason, or a pause where it names none"
    NEVER = "no"


class Close(NamedTuple):
    """One close code in words."""

    meaning: str
    reconnect: Return


CLOSES = {
    1001: Close("going away: restart or drain", Return.AT_ONCE),
    1008: Close("the client sent more messages a second than it may", Return.NEVER),
    1009: Close("a message of the client was too large", Return.NEVER),
    1011: Close("a bug of the gateway", Return.AFTER_A_PAUSE),
    4400: Close("bad parameter; the reason says which", Return.NEVER),
    4401: Close("token missing, wrong or revoked", Return.NEVER),
    4403: Close("a scope or symbol that the token lacks, named in the reason", Return.NEVER),
    4404: Close("unknown symbol", Return.NEVER),
    4408: Close("too slow a reader; often seen as 1006, for a full pipe cannot carry the close", Return.AFTER_A_PAUSE),
    4429: Close("too many connections, symbols in use, or wrong tokens; the reason says which", Return.WHEN_TOLD),
}


def codes_of(close_code: int) -> tuple[str, ...]:
    """The codes of the errors that close a socket with `close_code`; one that ends in "_" is completed by a name."""
    return tuple(dict.fromkeys(one.code for one in OUTCOMES.values() if one.close_code == close_code))
