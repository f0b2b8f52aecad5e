"""Log events: docs/operations.md tells of each that the code can log, and of its fields, and of no other."""

import ast
import re
from collections.abc import Iterator

import pytest

from server.metrics.catalogue import METRICS
from tests.processes import ROOT

LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
UNSAID = {"exc_info", "lines_missed", "unlogged"}
"""What is told once for all lines, or with brackets."""
TEXT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| [a-z, ]+ \| (.*?) \|", re.MULTILINE)


def logged() -> Iterator[tuple[str, frozenset[str]]]:
    """Each event of the source with the fields of one line."""
    for path in (ROOT / "server").rglob("*.py"):
        if "simulator" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and (event := _event_of(node)) is not None:
                    yield event, frozenset(keyword.arg for keyword in node.keywords if keyword.arg) - UNSAID


def _event_of(call: ast.Call) -> str | None:
    """The event where `call` logs one: by a level's method, by `log` with a level, or by one chosen before."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    place = 1 if name in ("log", "_event") else 0
    if name not in LEVELS | {"log", "write", "_event"} or len(call.args) <= place:
        return None
    argument = call.args[place]
    is_event = isinstance(argument, ast.Constant) and re.fullmatch(r"[a-z_]+", str(argument.value))
    return str(argument.value) if is_event and isinstance(argument, ast.Constant) else None


def documented() -> dict[str, str]:
    """The fields of each event, as its row has them."""
    return dict(ROW.findall(TEXT[TEXT.index("## Log events") :]))


def test_each_event_has_its_row() -> None:
    """And each row its event."""
    assert {event for event, _ in logged()} == documented().keys()


def test_each_field_is_named() -> None:
    """Whatever a line of an event may hold."""
    rows = documented()
    missing = {(event, field) for event, fields in logged() for field in fields if f"`{field}`" not in rows[event]}
    missing -= {(event, field) for event, field in missing if f"[{field}]" in rows[event]}
    assert missing == set()


def test_each_metric_that_is_named_is_there() -> None:
    """Also in the troubleshooting."""
    named = set(re.findall(r"`(gateway_[a-z_]+)`", TEXT))
    known = METRICS.keys()
    assert named - known == set()


@pytest.mark.parametrize("name", ["operations", "access", "protocol", "deployment", "design"])
def test_links_lead_somewhere(name: str) -> None:
    """Each link within the project names a file that there is, and a heading in it."""
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = ROOT / "docs" / (file or f"{name}.md")
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), target


def anchors(text: str) -> set[str]:
    """What headings are linked by."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
