"""Reference: the OpenAPI document as a page for people. Plain HTML: no script, and nothing to load."""

import json
import re
from collections.abc import Iterator
from html import escape
from typing import Any

Json = dict[str, Any]

HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
 :root {{ color-scheme: light dark; --line: #d5dde5; --soft: #eef2f5; --quiet: #5b6b7b; --link: #0b62a8 }}
 @media (prefers-color-scheme: dark) {{ :root {{ --line: #2c3a47; --soft: #1b2731; --quiet: #93a4b5; --link: #7cc0ff }}
  body {{ background: #11181f; color: #dbe4ec }} }}
 body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 58rem; margin: 2rem auto; padding: 0 1rem }}
 h1 {{ font-size: 1.5rem }} h2 {{ margin-top: 2.5rem; text-transform: capitalize }}
 a {{ color: var(--link) }} code, pre {{ font: .875em/1.5 ui-monospace, monospace }}
 pre {{ background: var(--soft); padding: .8rem; overflow: auto; max-height: 30rem; border-radius: .3rem }}
 section {{ border-top: 1px solid var(--line); padding: .6rem 0 }} h3 {{ font-size: 1rem; margin: .4rem 0 }}
 h3 b {{ display: inline-block; min-width: 3.2rem; color: var(--quiet) }}
 table {{ border-collapse: collapse; width: 100%; font-size: .9rem; margin: .6rem 0 }}
 td, th {{ text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0; border-top: 1px solid var(--line) }}
 .quiet, summary {{ color: var(--quiet) }} nav a {{ display: inline-block; margin-right: 1rem }}
</style>
<h1>{title} <span class="quiet">{version}</span></h1>
{about}
<p class="quiet">For machines: <a href="openapi.json">openapi.json</a>, <a href="asyncapi.json">asyncapi.json</a>.</p>
"""


def reference(document: Json) -> str:
    """The page."""
    info = document["info"]
    head = HEAD.format(title=escape(info["title"]), version=escape(info["version"]), about=_prose(info["description"]))
    return head + "".join([*_contents(document), *_groups(document), *_schemas(document), "</html>\n"])


def _prose(text: str) -> str:
    """Paragraphs, with what stands between backticks as code."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return "".join(f"<p>{paragraph}</p>" for paragraph in marked.split("\n\n"))


def _operations(document: Json, tag: str) -> Iterator[tuple[str, str, Json]]:
    """Those of a group; HEAD is GET without its body, and needs no words."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "head" and tag in operation["tags"]:
                yield method.upper(), path, operation


def _contents(document: Json) -> Iterator[str]:
    yield "<nav>"
    yield from (f'<a href="#{tag["name"]}">{tag["name"]}</a>' for tag in document["tags"])
    yield '<a href="#schemas">schemas</a></nav>\n'


def _groups(document: Json) -> Iterator[str]:
    for tag in document["tags"]:
        yield f'<h2 id="{tag["name"]}">{tag["name"]}</h2>\n'
        for method, path, operation in _operations(document, tag["name"]):
            yield from _operation(document, method, path, operation)


def _operation(document: Json, method: str, path: str, operation: Json) -> Iterator[str]:
    yield f'<section id="{operation["operationId"]}"><h3><b>{method}</b> <code>{escape(path)}</code></h3>\n'
    yield _prose("\n\n".join(operation[name] for name in ("summary", "description") if name in operation))
    yield f'<p class="quiet">{_need(operation["security"])}</p>'
    if asked := [found(document, each) for each in operation["parameters"]]:
        yield "<table><tr><th>parameter</th><th>in</th><th>allowed</th><th>default</th><th></th></tr>"
        yield from map(_parameter, asked)
        yield "</table>"
    if (body := operation.get("requestBody")) is not None:
        yield from _content("request", body)
    for status, response in operation["responses"].items():
        yield from _content(f"{status} {found(document, response)['description']}", found(document, response))
    yield "</section>\n"


def _need(security: list[Json]) -> str:
    if not security:
        return "Open to everybody."
    scopes = [scope for need in security for scope in need.get("bearer", ())]
    return f"Where tokens are set: one with the scope {', '.join(scopes)}." if scopes else "The token may come later."


def _parameter(parameter: Json) -> str:
    schema = parameter["schema"]
    cells = (parameter["in"], _allowed(schema), str(schema.get("default", "")), parameter["description"])
    row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f"<tr><td><code>{escape(parameter['name'])}</code></td>{row}</tr>"


def _allowed(schema: Json) -> str:
    if "enum" in schema:
        return ", ".join(schema["enum"])
    if "minimum" in schema:
        return f"{schema['minimum']} to {schema['maximum']}"
    return str(schema.get("pattern", ""))


def _content(title: str, part: Json) -> Iterator[str]:
    """A request or a response, with its schema's name and its examples folded in."""
    yield f"<details><summary>{escape(title)}</summary>"
    for media, content in part.get("content", {}).items():
        name = content["schema"].get("$ref", "").rpartition("/")[2]
        link = f' <a href="#schema-{name}">{name}</a>' if name else ""
        yield f"<p><code>{escape(media)}</code>{link}</p>"
        yield from (_shown(example["value"]) for example in content.get("examples", {}).values())
    yield "</details>\n"


def _schemas(document: Json) -> Iterator[str]:
    yield '<h2 id="schemas">schemas</h2>\n'
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield f'<section id="schema-{name}"><h3>{name}</h3><p>{escape(schema.get("description", ""))}</p>'
        yield f"<details><summary>JSON Schema</summary>{_shown(schema)}</details></section>\n"


def _shown(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=1, ensure_ascii=False))}</pre>"


def found(document: Json, part: Json) -> Json:
    """`part`, or the component that it refers to."""
    if (ref := part.get("$ref")) is None:
        return part
    _, _, section, name = ref.split("/")
    component: Json = document["components"][section][name]
    return component
