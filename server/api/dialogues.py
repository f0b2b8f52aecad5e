"""Dialogues: what goes over each of the two sockets, either way, in the words of AsyncAPI."""

from typing import Any, NamedTuple

from ..realtime.channels import FORMS, SNAPSHOTS
from ..realtime.messages import (
    AuthMessage,
    ErrorMessage,
    HeartbeatMessage,
    ListMessage,
    Message,
    PongMessage,
    SnapshotMessage,
    StatusMessage,
    SubscribedMessage,
    UnsubscribedMessage,
)
from ..settings import WebSocketSettings
from .operations import MULTIPLE, SINGLE

Json = dict[str, Any]
Kinds = tuple[type[Message], ...]

ANSWERS: dict[str, type[Message]] = {
    "subscribe": SubscribedMessage,
    "unsubscribe": UnsubscribedMessage,
    "list": ListMessage,
    "ping": PongMessage,
    "auth": AuthMessage,
}


class Dialogue(NamedTuple):
    """One socket: the snapshots that it shows, and the operations that its client may ask for."""

    snapshots: Kinds
    asked: tuple[str, ...]

    @property
    def pushed(self) -> Kinds:
        """What comes without having been asked for by a message."""
        return *self.snapshots, StatusMessage, HeartbeatMessage, ErrorMessage


DIALOGUES = {
    "positions": Dialogue((SnapshotMessage,), SINGLE),
    "multiple": Dialogue(tuple(SNAPSHOTS.values()), MULTIPLE),
}


def channels(websocket: WebSocketSettings) -> Json:
    """Both sockets, each a channel of the document with everything that goes over it."""
    about = {"positions": _positions(websocket), "multiple": _multiple(websocket)}
    return {name: {**about[name], "messages": _messages(dialogue)} for name, dialogue in DIALOGUES.items()}


def _positions(websocket: WebSocketSettings) -> Json:
    interval = {
        "type": "number",
        "default": websocket.interval_s,
        "anyOf": [{"const": 0}, {"minimum": websocket.min_interval_s, "maximum": websocket.max_interval_s}],
        "description": _pace(websocket),
    }
    query = {"type": "object", "properties": {"interval": interval}, "additionalProperties": False}
    return {
        "address": "/ws/positions/{symbol}",
        "description": "Position, balance and price of one symbol; the first message is a snapshot.",
        "parameters": {"symbol": {"description": "A symbol that Bybit lists.", "examples": ["BTCUSDT"]}},
        "bindings": {"ws": {"method": "GET", "query": query, "bindingVersion": "0.1.0"}},
    }


def _multiple(websocket: WebSocketSettings) -> Json:
    pace = f"`interval` holds for its subscription: {_pace(websocket)}; {websocket.interval_s:g} without one."
    return {
        "address": "/ws",
        "description": f"Many channels on one socket, none at first: {', '.join(FORMS)}. {pace}",
        "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
    }


def _pace(websocket: WebSocketSettings) -> str:
    return f"0 for each change as it happens, or {websocket.min_interval_s:g} to {websocket.max_interval_s:g} seconds"


def _messages(dialogue: Dialogue) -> Json:
    sent = [kind.__name__ for kind in (*dialogue.pushed, *(ANSWERS[name] for name in dialogue.asked))]
    return {name: ref("messages", name) for name in (*sent, *map(asked_name, dialogue.asked))}


def operations() -> Json:
    """What the gateway does on them: it sends by itself, and it receives and replies."""
    every: Json = {}
    for channel, dialogue in DIALOGUES.items():
        every[f"{channel}.push"] = _push(channel, dialogue.pushed)
        every |= {f"{channel}.{name}": _ask(channel, name) for name in dialogue.asked}
    return every


def _push(channel: str, kinds: Kinds) -> Json:
    return {
        "action": "send",
        "summary": "Snapshots, and what is to be known between them.",
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [_message_of(channel, kind.__name__) for kind in kinds],
    }


def _ask(channel: str, name: str) -> Json:
    """An operation that clients may ask for; an error answers what cannot be obeyed."""
    place = {"$ref": f"#/channels/{channel}"}
    replies = [_message_of(channel, kind.__name__) for kind in (ANSWERS[name], ErrorMessage)]
    return {
        "action": "receive",
        "channel": place,
        "messages": [_message_of(channel, asked_name(name))],
        "reply": {"channel": place, "messages": replies},
    }


def asked_name(name: str) -> str:
    """What the document calls the message of an operation."""
    return f"{name.capitalize()}Operation"


def ref(section: str, name: str) -> Json:
    """A reference to a component."""
    return {"$ref": f"#/components/{section}/{name}"}


def _message_of(channel: str, name: str) -> Json:
    return {"$ref": f"#/channels/{channel}/messages/{name}"}
