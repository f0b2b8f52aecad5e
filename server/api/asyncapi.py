"""The route of the sockets' description: an AsyncAPI 3.0 document, made at the start from what the code encodes."""

from typing import Any

from aiohttp import web

from .. import __version__
from ..realtime.channels import SNAPSHOTS
from ..realtime.closes import CLOSES, codes_of
from ..settings import Settings, WebSocketSettings
from .dialogues import asked_name, channels, operations, ref
from .parameters import Parameters
from .payloads import asked_schemas, sent_schemas
from .specimens import QUESTIONS, specimens
from .unchanging import Unchanging, unchanging

routes = web.RouteTableDef()

DOCUMENT = web.AppKey("DOCUMENT", Unchanging)

Json = dict[str, Any]

ABOUT = """Position, balance, prices and candles of a Bybit account and market, pushed as they change or at an interval.

Decimal strings are Bybit's own digits; null means that there is no value, never zero. Times in `_ms` are Unix
milliseconds, ages in `_ms` count from the moment a call to Bybit was sent. Within an `epoch`, one process's life, the
`seq` of a channel grows, with gaps but without repeats. Ignore fields and types that you do not know."""


@routes.get("/asyncapi.json")
async def asyncapi(request: web.Request) -> web.Response:
    """Both sockets: how to be admitted, what may be sent and what comes, and what each close code means."""
    Parameters(request.query, ())
    return request.app[DOCUMENT].answer(request)


def document(settings: Settings) -> Unchanging:
    """The document of a gateway with these settings; the same bytes in each of its processes."""
    return unchanging(
        {
            "asyncapi": "3.0.0",
            "info": {
                "title": f"Gateway to Bybit ({settings.exchange})",
                "version": __version__,
                "description": ABOUT,
                "license": {"name": "MIT"},
            },
            "defaultContentType": "application/json",
            "servers": _servers(settings),
            "channels": channels(settings.websocket),
            "operations": operations(),
            "components": _components(settings),
            "x-close-codes": {str(code): _close(code) for code in CLOSES},
        }
    )


def _close(code: int) -> Json:
    return {**CLOSES[code]._asdict(), "codes": codes_of(code)}


def _servers(settings: Settings) -> Json:
    """Where it answers is for its surroundings to know: the host is a variable, filled with the best guess."""
    host = next(iter(settings.auth.hosts), f"localhost:{settings.server.port}")
    variable = {"default": host, "description": "Host and port as the client reaches them."}
    common = {
        "host": "{host}",
        "variables": {"host": variable},
        "security": [ref("securitySchemes", "bearer"), ref("securitySchemes", "firstMessage")],
    }
    own = "ws" if settings.server.key_pair is None else "wss"
    return {
        "direct": {**common, "protocol": own, "description": "The gateway itself."},
        "proxied": {**common, "protocol": "wss", "description": "Behind a proxy that ends TLS."},
    }


def _components(settings: Settings) -> Json:
    shown = specimens(settings.exchange)
    asked = {asked_name(name): schema for name, schema in asked_schemas().items()}
    examples: Json = {type(message).__name__: message for message in shown}
    examples |= {asked_name(name): question for name, question in QUESTIONS.items()}
    schemas = sent_schemas([type(message) for message in shown]) | asked
    return {
        "securitySchemes": _security(settings.websocket),
        "messages": {name: _message(name, schemas[name], example) for name, example in examples.items()},
        "schemas": schemas,
    }


def _message(name: str, schema: Json, example: Any) -> Json:
    """A message; a snapshot's names the form of its channel."""
    forms = {kind.__name__: {"x-channel": form} for form, kind in SNAPSHOTS.items()}
    summary = {"summary": schema["description"]} if "description" in schema else {}
    payload = {"payload": ref("schemas", name), "examples": [{"payload": example}]}
    return {"name": name, **summary, **payload, **forms.get(name, {})}


def _security(websocket: WebSocketSettings) -> Json:
    first = (
        'Of pages, whose browsers send an Origin but no header: `{"op":"auth","token":"TOKEN"}` as the first message, '
        f"within {websocket.auth_timeout_s:g} s of the upgrade. Later on it changes what the socket may read."
    )
    return {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "`Authorization: Bearer TOKEN` with the upgrade, where tokens are set; never in the URL.",
        },
        "firstMessage": {"type": "apiKey", "in": "password", "description": first},
    }
