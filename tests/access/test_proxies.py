"""Proxies: who the client is, whatever a header says."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.access.proxies import MOST_HOPS, Proxies, address_of, networks_of

PROXIES = Proxies(["10.0.0.0/8", "192.0.2.7", "2001:db8:1::/48"])
PROXY = "10.0.0.1"


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.5", [], "203.0.113.5"),
        ("203.0.113.5", ["198.51.100.1"], "203.0.113.5"),
        ("", ["198.51.100.1"], ""),
        (PROXY, [], PROXY),
        (PROXY, [""], PROXY),
        (PROXY, ["203.0.113.5"], "203.0.113.5"),
        (PROXY, ["198.51.100.1, 203.0.113.5"], "203.0.113.5"),
        (PROXY, ["10.9.9.9, 203.0.113.5"], "203.0.113.5"),
        (PROXY, ["203.0.113.5, 10.9.9.9, 192.0.2.7"], "203.0.113.5"),
        (PROXY, ["198.51.100.1", "203.0.113.5", "10.0.0.2"], "203.0.113.5"),
        (PROXY, ["10.0.0.3,10.0.0.2"], "10.0.0.3"),
        (PROXY, ["203.0.113.5, , "], "203.0.113.5"),
        (PROXY, ["203.0.113.5:4711"], "203.0.113.5"),
        (PROXY, ["[2001:db8::5]:4711"], "2001:db8::5"),
        (PROXY, ["[2001:db8::5]"], "2001:db8::5"),
        (PROXY, ["2001:DB8::0:5"], "2001:db8::5"),
        (PROXY, ["::ffff:203.0.113.5"], "203.0.113.5"),
        (PROXY, ["203.0.113.5, unknown"], PROXY),
        (PROXY, ["203.0.113.5, unknown, 10.0.0.2"], "10.0.0.2"),
        (PROXY, ["fe80::1%eth0"], PROXY),
        (PROXY, ["203.0.113.5%<script>"], PROXY),
        (PROXY, ["203.0.113.256"], PROXY),
        (PROXY, ["0xcb007105"], PROXY),
        ("192.0.2.7", ["203.0.113.5"], "203.0.113.5"),
        ("192.0.2.8", ["203.0.113.5"], "192.0.2.8"),
        ("::ffff:10.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("2001:db8:1::9", ["203.0.113.5"], "203.0.113.5"),
        ("2001:db8:2::9", ["203.0.113.5"], "2001:db8:2::9"),
    ],
)
def test_who_the_client_is(peer: str, forwarded: list[str], client: str) -> None:
    """The right-most address that is no proxy, where the peer is one; else the peer, whatever the header says."""
    assert PROXIES.client(peer, forwarded) == client


ADDRESSES = st.ip_addresses().map(str)
INSIDE = st.ip_addresses(network="10.0.0.0/8").map(str) | st.ip_addresses(network="2001:db8:1::/48").map(str)
OUTSIDE = ADDRESSES.filter(lambda text: not PROXIES.trusts(text) and str(address_of(text)) == text)
ANYTHING = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=60)


@given(peer=OUTSIDE, forwarded=st.lists(ANYTHING | ADDRESSES, max_size=5))
def test_nobody_else_is_believed(peer: str, forwarded: list[str]) -> None:
    """Whoever is no proxy is itself, whatever it sends."""
    assert PROXIES.client(peer, forwarded) == peer


@given(
    invented=st.lists(ANYTHING | ADDRESSES, max_size=5),
    client=OUTSIDE,
    way=st.lists(INSIDE, max_size=MOST_HOPS - 1),
    peer=INSIDE,
    is_one_line=st.booleans(),
)
def test_what_a_client_writes_changes_nothing(
    invented: list[str], client: str, way: list[str], peer: str, is_one_line: bool
) -> None:
    """Through proxies that each add whom they had before them, the client is found, whatever it had begun with."""
    items = [*invented, client, *way]
    assert PROXIES.client(peer, [", ".join(items)] if is_one_line else items) == client


@given(peer=INSIDE, forwarded=st.lists(ANYTHING, max_size=5))
def test_the_answer_is_always_an_address(peer: str, forwarded: list[str]) -> None:
    """Whatever a header holds, what goes into the log and into limits is an address."""
    ipaddress.ip_address(PROXIES.client(peer, forwarded))


@given(address=st.ip_addresses(), port=st.integers(0, 65535) | st.none())
def test_addresses_with_ports(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int | None) -> None:
    """An address is itself, alone or with a port behind it; IPv4 in IPv6 is IPv4."""
    plain = getattr(address, "ipv4_mapped", None) or address
    bracketed = f"[{address}]" if address.version == 6 else str(address)
    assert address_of(str(address)) == plain
    assert address_of(bracketed if port is None else f"{bracketed}:{port}") == plain


@pytest.mark.parametrize("text", ["10.0.0.1/8", "0.0.0.0/0", "::/0", "300.1.1.1", "10.0.0.0/33", "a.b", ""])
def test_what_is_no_network(text: str) -> None:
    """Nonsense is refused, and so are networks that everybody is in."""
    with pytest.raises(ValueError, match=r".+"):
        networks_of([text])


def test_none_are_trusted_unless_named() -> None:
    """Without a list there is no proxy."""
    assert not Proxies([])
    assert Proxies([]).client("127.0.0.1", ["203.0.113.5"]) == "127.0.0.1"
