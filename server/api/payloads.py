"""Payloads: the JSON Schemas of all messages, both ways, made from the types that encode and decode them."""

from collections.abc import Iterable
from typing import Any

import msgspec

from ..realtime.messages import Message
from ..realtime.operations import FIELDS, Operation

Schema = dict[str, Any]

PLACE = "#/components/schemas/{name}"


def sent_schemas(kinds: Iterable[type[Message]]) -> dict[str, Schema]:
    """The schemas of what sockets are sent, and of all that is within, by the names of their types.

    They are open: later versions may add fields, which clients ignore.
    """
    _, schemas = msgspec.json.schema_components(kinds, ref_template=PLACE)
    return {name: _draft_7(schema) for name, schema in schemas.items()}


def asked_schemas() -> dict[str, Schema]:
    """The schemas of what clients may send, by operation: the fields of Operation that each of them reads."""
    _, schemas = msgspec.json.schema_components((Operation,), ref_template=PLACE)
    properties = schemas[Operation.__name__]["properties"]
    return {name: _asked(name, properties) for name in FIELDS}


def _asked(name: str, properties: dict[str, Schema]) -> Schema:
    needed, optional = FIELDS[name]
    fields = {field: _without_null(properties[field]) for field in needed}
    fields |= {field: properties[field] for field in ("id", *optional)}
    return {"type": "object", "properties": {"op": {"const": name}, **fields}, "required": ["op", *needed]}


def _without_null(schema: Schema) -> Schema:
    """What is left where a field must be given: msgspec knows it as one of a type and null."""
    (kept,) = [option for option in schema["anyOf"] if option != {"type": "null"}]
    return {**kept, "minItems": 1} if kept.get("type") == "array" else dict(kept)


def _draft_7(schema: Any) -> Any:
    """`schema` in the dialect of AsyncAPI: there a tuple's items are a list, and the newer words mean nothing."""
    if isinstance(schema, list):
        return [_draft_7(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "prefixItems" in schema:
        places = {"items": schema["prefixItems"], "additionalItems": schema["items"]}
        schema = {name: value for name, value in schema.items() if name != "prefixItems"} | places
    return {name: _draft_7(value) for name, value in schema.items()}
