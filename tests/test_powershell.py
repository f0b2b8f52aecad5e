"""run_optimized.ps1: that it parses, and has the parameters and the help that the README promises."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

SCRIPT = Path(__file__).resolve().parent.parent / "run_optimized.ps1"


def parsed(source: bytes) -> Node:
    """The syntax tree of a script."""
    return Parser(Language(tree_sitter_powershell.language())).parse(source).root_node


@pytest.fixture(scope="module")
def script() -> Node:
    """The syntax tree of our script."""
    return parsed(SCRIPT.read_bytes())


def nodes(root: Node, kind: str) -> Iterator[str]:
    """The text of every node of a kind, in order."""
    if root.type == kind and root.text is not None:
        yield root.text.decode()
    for child in root.children:
        yield from nodes(child, kind)


def test_script_parses_without_an_error(script: Node) -> None:
    """The grammar accepts the whole script."""
    assert not script.has_error
    assert not list(nodes(script, "ERROR"))


def test_parser_notices_a_broken_script() -> None:
    """The check above can fail: the script without its last bracket is an error."""
    source = SCRIPT.read_bytes()
    assert parsed(source[: source.rindex(b"}")]).has_error


def test_script_takes_environment_and_workers(script: Node) -> None:
    """Its own parameters are -Environment with the two profiles, and -Workers as a number."""
    parameters = [text for text in nodes(script, "script_parameter") if "$command" not in text.lower()]
    environment = next(text for text in parameters if text.endswith("$Environment = 'development'"))
    assert "[ValidateSet('development', 'production')]" in environment
    workers = next(text for text in parameters if text.endswith("$Workers"))
    assert "[int]" in workers


def test_script_has_help_for_each_parameter(script: Node) -> None:
    """Get-Help finds a synopsis, each parameter and examples."""
    (comment_help, *_) = nodes(script, "comment")
    for word in (".SYNOPSIS", ".DESCRIPTION", ".PARAMETER Environment", ".PARAMETER Workers", ".EXAMPLE"):
        assert word in comment_help


def test_script_runs_the_gateway_and_passes_its_exit_code(script: Node) -> None:
    """It ends with the exit code of run.py, given the profile and the workers."""
    commands = list(nodes(script, "flow_control_statement"))
    assert commands[-1] == "exit $LASTEXITCODE"
    text = SCRIPT.read_text("utf-8")
    assert "'run.py'), '--profile', $Environment" in text
    assert "@('--workers', $Workers)" in text


def test_script_is_plain_ascii() -> None:
    """Windows PowerShell 5 reads a script without a byte order mark in the local code page."""
    assert SCRIPT.read_bytes().isascii()
