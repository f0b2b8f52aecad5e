"""SECURITY.md names the tests that hold its claims: they exist, and each claim has one."""

import ast
import re
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parent.parent
TEXT = (HOME / "SECURITY.md").read_text("utf-8")
NAMED = re.compile(r"`(tests/[a-z_/]+\.py)::(test_[a-z0-9_]+)`")


def claims() -> list[str]:
    """The rows of the table of promises."""
    table = TEXT.split("## What it promises")[1].split("\n## ")[0]
    return [line for line in table.splitlines() if line.startswith("| ")][1:]


def functions_of(path: Path) -> set[str]:
    """The names of the functions that a module has."""
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_each_claim_names_a_test() -> None:
    """No promise stands there without something that would turn red."""
    assert len(claims()) >= 20
    assert [claim for claim in claims() if not NAMED.search(claim)] == []


@pytest.mark.parametrize("named", sorted(set(NAMED.findall(TEXT))), ids="::".join)
def test_the_named_test_exists(named: tuple[str, str]) -> None:
    """A test that was renamed or taken away is missed here."""
    path, name = named
    assert name in functions_of(HOME / path)
