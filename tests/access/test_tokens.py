"""Tokens as they are made and configured."""

import hashlib
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.access.tokens import Scope, TokenEntry, clashes_of, entry_of, faults_of, hash_of, make_token

HASH = "ab" * 32
OTHER = "cd" * 32

names = st.text("abz019._-", min_size=1, max_size=40)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
scopes = st.lists(st.sampled_from([scope.value for scope in Scope]), min_size=1)
globs = st.lists(st.text("ABUSDT09-*?", min_size=1, max_size=40), min_size=1, max_size=5)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | scopes | globs | hashes,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
tables = st.fixed_dictionaries({"name": names, "hash": hashes}, optional={"scopes": scopes, "symbols": globs})
oddities = st.dictionaries(st.sampled_from(["name", "hash", "scopes", "symbols", "scope"]), anything)


def test_a_made_token_is_256_random_bits() -> None:
    """Two tokens differ, each holds 32 bytes and fits a header, and its hash is the SHA-256 of its bytes."""
    one, other = make_token(), make_token()
    assert one.token != other.token
    assert len(one.token) * math.log2(64) >= 256
    assert one.token.isascii()
    assert " " not in one.token
    assert one.hash == hashlib.sha256(one.token.encode()).hexdigest() == hash_of(one.token)


@given(tables)
def test_a_good_table_has_no_faults(table: dict[str, Any]) -> None:
    """What can be an entry is one, as it stands."""
    assert faults_of(table) == []
    entry = msgspec.convert(table, TokenEntry)
    assert (entry.name, entry.hash) == (table["name"], table["hash"])
    assert [*entry.scopes] == table.get("scopes", [*Scope])
    assert [*entry.symbols] == table.get("symbols", ["*"])


@given(tables, oddities)
def test_faults_are_those_of_the_type(table: dict[str, Any], oddity: dict[str, Any]) -> None:
    """A table has faults if, and only if, it cannot be an entry."""
    table = table | oddity
    try:
        msgspec.convert(table, TokenEntry)
    except msgspec.ValidationError:
        assert faults_of(table)
    else:
        assert faults_of(table) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scopes": ["position"]}, "scopes is not allowed as it stands; allowed: a list of at least one of positions,"),
        ({"scopes": []}, "scopes"),
        ({"scopes": "market"}, "scopes"),
        ({"symbols": ["btcusdt"]}, "symbols is not allowed as it stands; allowed: a list of at least one symbol like"),
        ({"symbols": ["BTC[AB]"]}, "with * for any characters and ? for one"),
        ({"symbols": [""]}, "symbols"),
        ({"symbols": ["A\n"]}, "symbols"),
        ({"name": "a b"}, "name is not allowed as it stands; allowed: 1 to 40 letters"),
        ({"hash": "a-plain-token"}, "hash is not allowed as it stands; allowed: sha256: and 64 hexadecimal digits"),
        ({"scope": ["market"]}, "'scope' is unknown; allowed: name, hash, scopes, symbols"),
    ],
)
def test_each_fault_says_what_is_allowed(change: dict[str, object], says: str) -> None:
    """The sentence names the field and what it may be, and never shows what stands there."""
    (fault,) = faults_of({"name": "dash", "hash": HASH, **change})
    assert says in fault
    assert "a-plain-token" not in fault


def test_a_table_needs_name_and_hash() -> None:
    """Both are named where they are missing."""
    assert [fault.split(";")[0] for fault in faults_of({})] == ["name is missing", "hash is missing"]


def test_a_hash_alone_may_read_everything() -> None:
    """It is named by its first eight digits; a table is what it says."""
    assert entry_of(HASH) == TokenEntry(name="abababab", hash=HASH, scopes=tuple(Scope), symbols=("*",))
    entry = TokenEntry(name="dash", hash=HASH, scopes=(Scope.MARKET,))
    assert entry_of(entry) is entry


def test_clashes_are_named() -> None:
    """One name for two tokens, and two names or rights for one token; the same entry twice is no clash."""
    one = TokenEntry(name="one", hash=HASH)
    assert clashes_of((one, one, TokenEntry(name="two", hash=OTHER))) == []
    assert clashes_of((one, TokenEntry(name="one", hash=OTHER))) == ["one"]
    assert clashes_of((one, TokenEntry(name="two", hash=HASH))) == ["one", "two"]
    assert clashes_of((one, TokenEntry(name="one", hash=HASH, scopes=(Scope.MARKET,)))) == ["one"]
