"""Which address a request comes from: the peer's, or what proxies that the door trusts say of it.

Anybody can send X-Forwarded-For. Only what a trusted proxy has appended counts, so the list is read from its right end
and the first address there that is no trusted proxy is the client. Forwarded (RFC 7239) is read in the same way. A
proxy passes on the one of the two that it does not know, so where both are there they must agree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from multidict import MultiMapping

UNKNOWN = "unknown"
LONGEST = 100  # characters of an address with all that may stand around it
HOST_BITS = 64  # of an IPv6 address, which are the owner's to choose
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*"?([^";]*)', re.IGNORECASE)  # in linear time, whatever clients write
_BRACKETED = re.compile(r"\[([^\]]*)\](?::\d+)?")
_V4_WITH_PORT = re.compile(r"([0-9.]+):\d+")


class Origins:
    """Finds the clients behind the proxies that a door trusts, given as networks."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted = tuple(ip_network(network) for network in trusted)
        self.trusts = lru_cache(maxsize=1024)(self._is_trusted)

    def client(self, peer: str | None, headers: MultiMapping[str]) -> str:
        """Tell the client's address, or the peer's where the proxies say nothing that can be relied on.

        A peer without an IP address is UNKNOWN.
        """
        direct = plain_address(peer or "")
        if direct is None:
            return UNKNOWN
        if not (self._trusted and self.trusts(direct)):
            return direct
        told = {self._first_stranger(hops) for hops in (_x_forwarded_for(headers), _forwarded(headers)) if hops}
        found = told.pop() if len(told) == 1 else None
        return found or direct

    def _first_stranger(self, hops: list[str]) -> str | None:
        """The first address from the right that is no proxy of ours, or the last if all are; None if unreadable."""
        address = None
        for hop in reversed(hops):
            address = plain_address(hop)
            if address is None or not self.trusts(address):
                break
        return address

    def _is_trusted(self, address: str) -> bool:
        parsed = ip_address(address)
        return any(parsed in network for network in self._trusted)


def plain_address(text: str) -> str | None:
    """Write an address in one way: no port, no brackets, no zone, IPv4 as such; None if it is no address."""
    return _plain_address(text) if len(text) <= LONGEST else None


@lru_cache(maxsize=4096)
def budget_of(address: str) -> str:
    """Under which name an address has its budget: IPv4 its own, IPv6 that of its /64, which one host can use up."""
    if ":" not in address or is_loopback(address):
        return address
    return str(ip_network((address, HOST_BITS), strict=False))


def is_loopback(address: str) -> bool:
    """Tell whether a plain address is this machine's own."""
    return address.startswith("127.") or address == "::1"


@lru_cache(maxsize=4096)
def _plain_address(text: str) -> str | None:
    text = text.strip()
    if match := _BRACKETED.fullmatch(text) or _V4_WITH_PORT.fullmatch(text):
        text = match[1]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)


def _x_forwarded_for(headers: MultiMapping[str]) -> list[str]:
    lines = headers.getall("X-Forwarded-For", [])
    return ",".join(lines).split(",") if lines else []


def _forwarded(headers: MultiMapping[str]) -> list[str]:
    lines = headers.getall("Forwarded", [])
    elements = ",".join(lines).split(",") if lines else []
    return [match[1] if (match := _FOR.search(element.strip())) else "" for element in elements]
