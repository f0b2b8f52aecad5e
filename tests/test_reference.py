"""The page of every setting."""

import sys
from subprocess import run

from server.configuration import KEYS
from server.reference import page, passages
from tests.processes import ROOT


def test_page_is_current() -> None:
    """docs/configuration.md is what the command writes today."""
    assert page() == (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_command_writes_the_page() -> None:
    """The command that the page names writes it, from the directory of the project."""
    command = [sys.executable, "-X", "utf8", "-m", "server.reference"]
    assert run(command, cwd=ROOT, capture_output=True, check=True, timeout=50).stdout.decode() == page()


def test_page_has_every_setting_once() -> None:
    """Each key has one row, in the order of the sections."""
    rows = [line.split("`")[1] for line in page().splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(key for keys in KEYS.values() for key in keys)


def test_what_is_said_of_keys() -> None:
    """Words belong to the keys below them, up to the next line without one; others belong to nothing."""
    text = "# Of nothing.\n\n[server]\n# Of two,\n# and more.\nport = 1\n# workers = 2\n# Of one.\nbacklog = 3\n\n"
    found = [(one.section, one.text, one.keys) for one in passages(text)]
    assert found == [("server", "Of two, and more.", ("port", "workers")), ("server", "Of one.", ("backlog",))]
