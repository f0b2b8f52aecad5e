"""Rights: scopes and globs of symbols."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.access.rights import EVERYTHING, rights_of
from server.access.tokens import Scope, TokenEntry
from server.errors import Forbidden

HASH = "ab" * 32
symbol_text = st.text("ABC01-", min_size=1, max_size=8)
glob_text = st.text("ABC01-*?", min_size=1, max_size=8)


def matches(glob: str, symbol: str) -> bool:
    """What a glob means, said another way: character by character."""
    if not glob:
        return not symbol
    if glob[0] == "*":
        return matches(glob[1:], symbol) or (bool(symbol) and matches(glob, symbol[1:]))
    return bool(symbol) and glob[0] in ("?", symbol[0]) and matches(glob[1:], symbol[1:])


@given(st.lists(glob_text, min_size=1, max_size=4), symbol_text)
def test_a_symbol_is_seen_if_one_glob_fits_all_of_it(globs: list[str], symbol: str) -> None:
    """* is any characters, ? is one, all else is itself, from the first character to the last."""
    rights = rights_of(TokenEntry(name="a", hash=HASH, symbols=tuple(globs)))
    assert rights.sees(symbol) == any(matches(glob, symbol) for glob in globs)
    assert rights.sees_all == ("*" in globs)


@given(symbol_text)
def test_a_glob_does_not_see_beyond_a_line(symbol: str) -> None:
    """No trailing newline or other text slips through."""
    rights = rights_of(TokenEntry(name="a", hash=HASH, symbols=(symbol,)))
    assert rights.sees(symbol)
    assert not rights.sees(symbol + "\n")
    assert not rights.sees(symbol.lower() + "x")


@given(st.sets(st.sampled_from(Scope), min_size=1))
def test_a_scope_that_is_missing_is_named(granted: set[Scope]) -> None:
    """What was granted passes, and every other scope is refused by its name."""
    rights = rights_of(TokenEntry(name="a", hash=HASH, scopes=tuple(granted)))
    rights.require(*granted)
    for scope in set(Scope) - granted:
        with pytest.raises(Forbidden, match=re.escape(f"lacks the scope {scope.value}")):
            rights.require(*granted, scope)


def test_symbols_are_refused_by_name() -> None:
    """One that it does not see, and all of them where it sees some."""
    rights = rights_of(TokenEntry(name="a", hash=HASH, symbols=("BTC*",)))
    rights.require_symbol("BTCUSDT")
    with pytest.raises(Forbidden, match="ETHUSDT"):
        rights.require_symbol("ETHUSDT")
    with pytest.raises(Forbidden, match="by name"):
        rights.require_every_symbol()


def test_everybody_may_read_everything_where_no_token_is_needed() -> None:
    """The rights of an open gateway have no limit and no name."""
    EVERYTHING.require(*Scope)
    EVERYTHING.require_symbol("BTCUSDT")
    EVERYTHING.require_every_symbol()
    assert EVERYTHING.name == ""


def test_rights_do_not_show_the_hash() -> None:
    """A repr in a log has the name alone."""
    assert repr(rights_of(TokenEntry(name="dash", hash=HASH))) == "Rights(dash)"
