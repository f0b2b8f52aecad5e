"""GET /openapi.json and /docs: the document by OpenAPI's own schema, the routes, and real answers by the document."""

import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from server.access.tokens import Scope, TokenEntry
from server.api.exposed import EXPOSED
from server.api.scopes import OPEN_PATHS, ROUTES, SOCKETS
from server.api.specimens import MOMENT_MS
from server.errors import OUTCOMES
from tests.api.test_asyncapi import _closed, refs
from tests.api.test_rest import ask, refused
from tests.conftest import Exchange, Gateway, StartGateway

SCHEMA = Path(__file__).with_name("openapi-3.1") / "schema.json.gz"
"""OpenAPI's own (Apache-2.0; see beside it)."""

TOKEN = "a-token-of-the-market-0123456789"
TOKENS = {
    "tokens": (
        TokenEntry(name="market", hash=hashlib.sha256(TOKEN.encode()).hexdigest(), scopes=(Scope.MARKET,)),
        TokenEntry(name="balance", hash=hashlib.sha256(b"other" * 8).hexdigest(), scopes=(Scope.BALANCE,)),
    ),
}
SOCKETS_ONLY = {"too_many_subscriptions", "too_many_connections", "message_flood", "too_slow"}
"""Codes of errors that only sockets meet, after their upgrade."""
NOT_OF_A_ROUTE = {"not_found", "method_not_allowed"}


class Guide:
    """The document as a strict reader takes it: what it does not name must not be there."""

    def __init__(self, document: Any) -> None:
        self.document = document
        self._schemas = {name: _closed(one) for name, one in document["components"]["schemas"].items()}

    def operation(self, method: str, path: str) -> Any:
        """What it says of a route."""
        return self.document["paths"][path][method.lower()]

    def response(self, method: str, path: str, status: int) -> Any:
        """What it says of an answer of that status."""
        return self.found(self.operation(method, path)["responses"][str(status)])

    def found(self, part: Any) -> Any:
        """`part`, or what it refers to."""
        for step in part.get("$ref", "").split("/")[1:]:
            part = self.document if step == "components" else part
            part = part[step]
        return part

    def parameters(self, method: str, path: str) -> list[Any]:
        """Those of the query."""
        every = [self.found(one) for one in self.operation(method, path)["parameters"]]
        return [one for one in every if one["in"] == "query"]

    def faults(self, schema: Any, body: Any) -> list[str]:
        """What is wrong with `body`."""
        validator = Draft202012Validator({**schema, "components": {"schemas": self._schemas}})
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(body)]

    async def fits(self, gateway: Gateway, method: str, url: str, path: str, status: int = 200, **asked: Any) -> Any:
        """The answer, which has status, type, headers and body as described; those of a problem, too."""
        async with gateway.request(method, url, **asked) as response:
            text = await response.read()
            assert response.status == status, text
            described = self.response(method, path, status)
            assert all(name in response.headers for name in described["headers"])
            if method == "HEAD":
                return None
            assert response.content_type in described["content"]
            body = json.loads(text)
            schema = described["content"][response.content_type]["schema"]
            if "allOf" in schema:
                assert self.faults({"$ref": "#/components/schemas/Problem"}, body) == []
            schema = {"allOf": [schema["allOf"][1]]} if "allOf" in schema else schema
            assert self.faults(schema, body) == []
            return body


async def guide_of(gateway: Gateway) -> Guide:
    return Guide(await ask(gateway, "/openapi.json"))


@pytest.fixture(name="validator", scope="module")
def of_openapi() -> Draft202012Validator:
    return Draft202012Validator(json.loads(gzip.decompress(SCHEMA.read_bytes())))


# The document


async def test_it_is_an_openapi_document(start_gateway: StartGateway, validator: Draft202012Validator) -> None:
    """It is valid by OpenAPI's own schema, which refuses one with a mistake; so is each schema by JSON Schema's."""
    guide = await guide_of(await start_gateway())
    assert [error.message for error in validator.iter_errors(guide.document)] == []
    assert not validator.is_valid(guide.document | {"paths": {"wrong": {}}})
    for schema in guide.document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


async def test_every_route_is_in_it(start_gateway: StartGateway) -> None:
    """Each method of each route of the router is described, and nothing else is."""
    gateway = await start_gateway()
    guide = await guide_of(gateway)
    every = {
        (route.method.lower(), route.resource.canonical)
        for route in gateway.app.router.routes()
        if route.resource is not None
    }
    told = {(method, path) for path, item in guide.document["paths"].items() for method in item}
    assert told == every
    assert {(method.upper(), path) for method, path in told if method != "head"} == set(EXPOSED)
    ids = [operation["operationId"] for item in guide.document["paths"].values() for operation in item.values()]
    assert len(set(ids)) == len(ids)


async def test_every_reference_leads_somewhere(start_gateway: StartGateway) -> None:
    """No reference without what it names, and nothing declared that no reference names."""
    guide = await guide_of(await start_gateway())
    found = set(refs(guide.document))
    for ref in found:
        assert guide.found({"$ref": ref})
    components = guide.document["components"]
    declared = {f"#/components/{section}/{name}" for section, parts in components.items() for name in parts}
    assert declared - {"#/components/securitySchemes/bearer"} == found


async def test_every_example_is_true(start_gateway: StartGateway) -> None:
    """Every answer in JSON has an example, and each example fits its schema strictly."""
    guide = await guide_of(await start_gateway())
    seen = 0
    for path, item in guide.document["paths"].items():
        for operation in item.values():
            parts = [*map(guide.found, operation["responses"].values()), operation.get("requestBody", {})]
            for content in (one for part in parts for one in part.get("content", {}).values()):
                examples = content.get("examples", {})
                assert examples or content["schema"].get("type") in {"string", "object"}, path
                for example in examples.values():
                    schema = content["schema"]
                    problem = {"$ref": "#/components/schemas/Problem"}
                    for each in (problem, {"allOf": schema["allOf"][1:]}) if "allOf" in schema else (schema,):
                        assert guide.faults(each, example["value"]) == []
                    seen += 1
    assert seen > 100


async def test_every_problem_is_in_it(start_gateway: StartGateway) -> None:
    """Each code of the table of errors is told, but for those that no route answers with."""
    guide = await guide_of(await start_gateway())
    told = {
        example["value"]["code"]
        for response in guide.document["components"]["responses"].values()
        for example in response["content"]["application/problem+json"]["examples"].values()
    }
    known = {outcome.code for outcome in OUTCOMES.values()} - SOCKETS_ONLY - NOT_OF_A_ROUTE
    assert {"invalid_" if code.startswith("invalid_") else code for code in told} == known


async def test_its_security_is_the_table_of_scopes(start_gateway: StartGateway) -> None:
    """Open paths need nothing, sockets no header; every other one needs a bearer token with the scopes of the route."""
    guide = await guide_of(await start_gateway())
    for path, item in guide.document["paths"].items():
        guarded = [{"bearer": [scope.value for scope in ROUTES.get(path, ())]}]
        expected = [] if path in OPEN_PATHS else [{}, {"bearer": []}] if path in SOCKETS else guarded
        assert [operation["security"] for operation in item.values()] == [expected] * len(item)


# The running gateway


def url_of(path: str, **query: Any) -> str:
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    return path.replace("{symbol}", "BTCUSDT") + (f"?{asked}" if asked else "")


async def test_the_parameters_are_the_parsers(start_gateway: StartGateway) -> None:
    """Names, choices and bounds are those that the gateway goes by: it is asked at each bound, and one beyond."""
    gateway = await start_gateway(indicators={"max_results": 70})
    guide = await guide_of(gateway)
    checked = 0
    for path in guide.document["paths"]:
        if "get" not in guide.document["paths"][path] or path in {"/", "/readyz", "/health"} or path.startswith("/ws"):
            continue
        parameters = guide.parameters("GET", path)
        unknown = await refused(gateway, url_of(path, zzz=1), 400, "invalid_parameter")
        names = unknown["detail"].partition("allowed: ")[2]
        assert sorted(names.split(", ")) == (sorted(one["name"] for one in parameters) or ["none"])
        for parameter in parameters:
            checked += await _is_the_parsers(gateway, path, parameter["name"], parameter["schema"])
    assert checked > 20


async def _is_the_parsers(gateway: Gateway, path: str, name: str, schema: Any) -> bool:
    """Whether it could be asked about: what has no bounds is not."""
    with_names = {"names": "rsi"} if name == "backtrack" else {}
    if "enum" in schema:
        wrong = await refused(gateway, url_of(path, **{name: "zzz"}), 400, f"invalid_{name}")
        assert wrong["detail"].partition("allowed: ")[2].split(", ") == schema["enum"]
        assert schema["default"] in schema["enum"]
        return True
    if "minimum" not in schema:
        return False
    for value in (schema["minimum"] - 1, schema["maximum"] + 1):
        wrong = await refused(gateway, url_of(path, **{name: value}, **with_names), 400, f"invalid_{name}")
        assert wrong["detail"].endswith(f"{schema['minimum']} to {schema['maximum']}")
    for value in (schema["minimum"], schema["maximum"], schema["default"]):
        async with gateway.get(url_of(path, **{name: value}, **with_names)) as response:
            assert response.status == 200 or (await response.json())["code"] != f"invalid_{name}"
    return True


async def test_the_defaults_are_the_parsers(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Left out and given as the document says, each parameter has the same answer."""
    await exchange.freeze(MOMENT_MS)
    gateway = await start_gateway()
    guide = await guide_of(gateway)
    usual = {one["name"]: one["schema"].get("default") for one in guide.parameters("GET", "/klines/{symbol}")}
    plain = await ask(gateway, "/klines/BTCUSDT")
    given = await ask(gateway, url_of("/klines/BTCUSDT", **usual))
    assert (len(plain["candles"]), plain["interval"], plain["category"]) == tuple(
        usual[name] for name in ("limit", "interval", "category")
    )
    assert given["candles"] == plain["candles"]
    wanted = {one["name"]: one["schema"].get("default") for one in guide.parameters("GET", "/indicators/{symbol}")}
    del wanted["names"]
    given, plain = (
        await ask(gateway, url_of("/indicators/BTCUSDT", **wanted)),
        await ask(gateway, "/indicators/BTCUSDT"),
    )
    assert (given["data"], given.keys()) == (plain["data"], plain.keys())


async def test_real_answers_fit(start_gateway: StartGateway) -> None:
    """Every route's answer is what the document says of it, with nothing more; so is HEAD's head."""
    gateway = await start_gateway()
    guide = await guide_of(gateway)
    async with gateway.ws_connect("/ws/positions/BTCUSDT?interval=0") as ws:
        await ws.receive(timeout=10)
        for (method, path), exposed in EXPOSED.items():
            if exposed.body is None or method != "GET":
                continue
            await guide.fits(gateway, "GET", url_of(path), path)
            await guide.fits(gateway, "HEAD", url_of(path), path)
        health = await guide.fits(gateway, "GET", "/health", "/health")
        connections = await guide.fits(gateway, "GET", "/connections", "/connections")
    assert health["key"] is not None
    assert connections["connections"]
    query = "?names=rsi:14,macd,sma:500&results=3&chart=heikinashi"
    answer = await guide.fits(gateway, "GET", f"/indicators/BTCUSDT{query}", "/indicators/{symbol}")
    assert answer["series"]["macd"].keys() == {"macd", "signal", "histogram"}
    for category in ("inverse", "spot"):
        await guide.fits(gateway, "GET", f"/symbols?category={category}", "/symbols")
    for path in (path for (_, path), exposed in EXPOSED.items() if exposed.body is None and not exposed.is_socket):
        async with gateway.get(path) as response:
            assert response.content_type in guide.response("GET", path, 200)["content"], path


async def test_many_questions_fit(start_gateway: StartGateway) -> None:
    """The example of POST /indicators is answered as described: one answer, one failure."""
    gateway = await start_gateway()
    guide = await guide_of(gateway)
    body = guide.operation("POST", "/indicators")["requestBody"]["content"]["application/json"]
    asked = body["examples"]["two"]["value"]
    answer = await guide.fits(gateway, "POST", "/indicators", "/indicators", json=asked)
    assert ["error" in one for one in answer["answers"]] == [False, True]
    most = guide.document["components"]["schemas"]["Bulk"]["properties"]["questions"]["maxItems"]
    for count, status in ((most, 200), (most + 1, 400), (0, 400)):
        questions = {"questions": [{"symbol": "btc"}] * count}
        assert bool(guide.faults(body["schema"], questions)) == (status == 400)
        await guide.fits(gateway, "POST", "/indicators", "/indicators", status, json=questions)


async def test_real_problems_fit(start_gateway: StartGateway, exchange: Exchange) -> None:
    """Refusals of each kind have a status, headers and a code that the document has for the route."""
    gateway = await start_gateway()
    guide = await guide_of(gateway)
    for path in ("/price/{symbol}", "/klines/{symbol}", "/indicators/{symbol}", "/positions/{symbol}"):
        await guide.fits(gateway, "GET", path.replace("{symbol}", "NOUSDT"), path, 404)
        await guide.fits(gateway, "GET", path.replace("{symbol}", "btc"), path, 400)
        await guide.fits(gateway, "GET", url_of(path, zzz=1), path, 400)
        await guide.fits(gateway, "GET", url_of(path), path, 421, headers={"Host": "evil.example"})
        await guide.fits(gateway, "GET", url_of(path), path, 403, headers={"Origin": "https://evil.example"})
    await guide.fits(gateway, "POST", "/indicators", "/indicators", 413, data=b"[" * 70_000)
    for path in ("/ws", "/ws/positions/{symbol}"):
        await guide.fits(gateway, "GET", url_of(path), path, 400)
    await exchange.fault("wallet", status=500)
    problem = await guide.fits(gateway, "GET", "/balance", "/balance", 503)
    assert problem["reason"] == "busy"


async def test_refusals_of_tokens_fit(start_gateway: StartGateway) -> None:
    """Without a token, and with one of another scope, each guarded route refuses as described; open ones answer."""
    gateway = await start_gateway(auth=TOKENS)
    async with gateway.get("/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
        guide = Guide(await response.json())
    for path, item in guide.document["paths"].items():
        method = "GET" if "get" in item else "POST"
        if path.startswith("/ws"):
            continue
        if not guide.operation(method, path)["security"]:
            assert 401 not in guide.operation(method, path)["responses"]
            async with gateway.get(path) as response:
                assert response.status == 200
            continue
        await guide.fits(gateway, method, url_of(path), path, 401)
        if Scope.MARKET not in ROUTES[path]:
            await guide.fits(gateway, method, url_of(path), path, 403, headers={"Authorization": f"Bearer {TOKEN}"})


async def test_what_is_told_apart_by_a_tag(start_gateway: StartGateway, exchange: Exchange) -> None:
    """304 is described where an answer has an ETag, and is what comes to one who has it."""
    await exchange.freeze(MOMENT_MS)
    gateway = await start_gateway()
    guide = await guide_of(gateway)
    for (method, path), exposed in EXPOSED.items():
        if exposed.is_socket or method != "GET":
            continue
        url = url_of(path, **({"max_age_ms": 3_600_000} if "max_age_ms" in exposed.query else {}))
        async with gateway.get(url) as response:
            assert ("ETag" in response.headers) == ("304" in guide.operation("GET", path)["responses"]), path
            tag = response.headers.get("ETag")
        assert (tag is not None) == exposed.is_tagged


async def test_the_document_is_told_apart_by_its_tag(start_gateway: StartGateway) -> None:
    """Who has the document gets 304."""
    gateway = await start_gateway()
    async with gateway.get("/openapi.json") as response:
        tag = response.headers["ETag"]
    async with gateway.get("/openapi.json", headers={"If-None-Match": tag}) as response:
        assert (response.status, await response.read()) == (304, b"")


# The page


class Elements(HTMLParser):
    """What is in a page: its elements' names and attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


async def test_the_page_has_all_of_it(start_gateway: StartGateway) -> None:
    """Every route, parameter, status and schema is on the page, and every link within it leads somewhere."""
    gateway = await start_gateway()
    guide = await guide_of(gateway)
    async with gateway.get("/docs") as response:
        assert (response.status, response.content_type) == (200, "text/html")
        page = Elements(await response.text())
    ids = {value for name, value in page.attributes if name == "id"}
    operations = [one for item in guide.document["paths"].values() for name, one in item.items() if name != "head"]
    assert {one["operationId"] for one in operations} <= ids
    assert {f"schema-{name}" for name in guide.document["components"]["schemas"]} <= ids
    for parameter in guide.document["components"]["parameters"].values():
        assert parameter["description"] in page.text
    links = [value or "" for name, value in page.attributes if name == "href"]
    assert {link.removeprefix("#") for link in links if link.startswith("#")} <= ids
    assert {link for link in links if not link.startswith("#")} == {"openapi.json", "asyncapi.json"}


async def test_the_page_loads_nothing(start_gateway: StartGateway) -> None:
    """No script, image or style from anywhere: neither in the page, nor by what its header allows."""
    gateway = await start_gateway()
    async with gateway.get("/docs") as response:
        text, headers = await response.text(), response.headers
    page = Elements(text)
    assert not page.names & {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in {"src", "style", "srcset"}]
    assert not re.search(r"url\(|@import", text)
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'unsafe-inline';")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
async def test_they_need_a_token(start_gateway: StartGateway, path: str) -> None:
    """Where tokens are set, they are no open routes; nor do they take parameters."""
    gateway = await start_gateway(auth=TOKENS)
    await refused(gateway, path, 401, "unauthenticated")
    async with gateway.get(path, headers={"Authorization": f"Bearer {TOKEN}"}) as response:
        assert response.status == 200
    async with gateway.get(f"{path}?a=1", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
        assert response.status == 400
