"""Both READMEs say the same: sections, code, tables, links; and every link leads somewhere."""

import re

import pytest

from tests.processes import ROOT

NAMES = ("README.md", "README.es.md")


def text_of(name: str) -> str:
    """One of them."""
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_same_code() -> None:
    """Every block of code is in both, in the same order, to the letter."""
    english, spanish = (re.findall(r"^```.*?^```$", text_of(name), re.MULTILINE | re.DOTALL) for name in NAMES)
    assert english == spanish
    assert len(english) >= 6


def test_the_same_sections_and_rows() -> None:
    """As many headings and rows of tables, these with the same first cells but where they are words."""
    counts = [(text_of(name).count("\n## "), text_of(name).count("\n| ")) for name in NAMES]
    assert counts[0] == counts[1]
    first = [re.findall(r"^\| (`[^|]*) \|", text_of(name), re.MULTILINE) for name in NAMES]
    assert first[0] == first[1]


def test_the_same_links() -> None:
    """What the one refers to, the other does too, but for each other."""
    links = [set(re.findall(r"\]\(([^)\s]+)\)", text_of(name))) - set(NAMES) for name in NAMES]
    assert links[0] == links[1]


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    """Each file that is linked is there."""
    targets = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text_of(name)) if "://" not in link]
    assert [target for target in targets if not (ROOT / target).exists()] == []
