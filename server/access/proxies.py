"""Proxies: whose word about the client is taken, and who the client is by it."""

import functools
import ipaddress
import re
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST_HOPS = 16
"""Addresses of one header that are looked at: nobody has as many proxies in a row."""
KNOWN_ADDRESSES = 1024

without_port = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}").fullmatch


class Proxies:
    """The proxies that are trusted. What a header says of the client counts where one of them has sent it."""

    def __init__(self, networks: Iterable[str]) -> None:
        """`networks` are addresses or networks. Raises ValueError as `networks_of` does."""
        self._networks = networks_of(networks)
        self.trusts = functools.lru_cache(KNOWN_ADDRESSES)(self._trusts)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def _trusts(self, peer: str) -> bool:
        """Whether `peer`, the address at the other end of a connection, is one of them."""
        return (address := address_of(peer.partition("%")[0])) is not None and self._has(address)

    def _has(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def client(self, peer: str, forwarded: Iterable[str]) -> str:
        """The client's address: `peer`, or, where that is a proxy, whom it names.

        `forwarded` are the lines of X-Forwarded-For. Each proxy puts whom it had before it at the end, so they are read
        from there: the first that is no proxy is the client, whatever stands before it, for that the client may have
        written itself. What is no address ends the reading: then it is the proxy that was named last.
        """
        if not self.trusts(peer):
            return peer
        client = peer
        for text in reversed([item for item in ",".join(forwarded).split(",") if item.strip()][-MOST_HOPS:]):
            if (address := address_of(text.strip())) is None:
                break
            client = str(address)
            if not self._has(address):
                break
        return client


def networks_of(texts: Iterable[str]) -> tuple[Network, ...]:
    """The networks of these addresses or networks. Raises ValueError for what is none, or would be everybody."""
    networks = tuple(map(ipaddress.ip_network, texts))
    if any(network.prefixlen == 0 for network in networks):
        raise ValueError("every address would be a proxy")
    return networks


def address_of(text: str) -> Address | None:
    """The address in a header, which may have a port behind it; None for what is none. IPv4 in IPv6 is IPv4."""
    if (match := without_port(text)) is not None:
        text = match[1] or match[2]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    return None if address.scope_id else address.ipv4_mapped or address
