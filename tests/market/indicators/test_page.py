"""The page of all indicators."""

import sys
from pathlib import Path
from subprocess import run

from server.market.indicators import CATALOGUE
from server.market.indicators.page import page

ROOT = Path(__file__).parents[3]


def test_page_is_current() -> None:
    """docs/indicators.md is what the command writes today."""
    assert page() == (ROOT / "docs" / "indicators.md").read_text(encoding="utf-8")


def test_command_writes_the_page() -> None:
    """The command that the page names writes it, from the directory of the project."""
    command = [sys.executable, "-X", "utf8", "-m", "server.market.indicators"]
    assert run(command, cwd=ROOT, capture_output=True, check=True, timeout=50).stdout.decode() == page()


def test_page_has_every_indicator_once() -> None:
    """Each name has one row."""
    assert sorted(line.split("`")[1] for line in page().splitlines() if line.startswith("| `")) == list(CATALOGUE)
