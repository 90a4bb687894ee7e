"""Who the client is, asked as values."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from llamarunner.server.forwarded import Origins, budget_of, is_loopback, plain_address

PROXY = "10.0.0.1"
BEHIND = Origins(("10.0.0.0/8", "2001:db8:ffff::/48", "127.0.0.1"))
CLIENT = "203.0.113.9"


def client(*headers: tuple[str, str], peer: str = PROXY, origins: Origins = BEHIND) -> str:
    return origins.client(peer, CIMultiDict(headers))


def xff(*lines: str, peer: str = PROXY) -> str:
    return client(*(("X-Forwarded-For", line) for line in lines), peer=peer)


def forwarded(*lines: str) -> str:
    return client(*(("Forwarded", line) for line in lines))


@pytest.mark.parametrize("peer", ["192.0.2.1", "127.0.0.1", "::1", "2001:db8::1"])
def test_nobody_is_believed_unless_the_door_trusts_it(peer: str) -> None:
    lies = (("X-Forwarded-For", CLIENT), ("Forwarded", f"for={CLIENT}"), ("X-Real-IP", CLIENT))
    assert client(*lies, peer=peer, origins=Origins(())) == peer
    assert client(*lies, peer="198.51.100.1") == "198.51.100.1"


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], PROXY),
        ([CLIENT], CLIENT),
        (["6.6.6.6, 203.0.113.9"], CLIENT),  # what a client says of itself stands on the left
        (["6.6.6.6", "203.0.113.9"], CLIENT),
        (["203.0.113.9", "10.1.2.3,10.9.9.9"], CLIENT),  # through three proxies
        (["6.6.6.6, 203.0.113.9, 10.1.2.3", "2001:db8:ffff::5"], CLIENT),
        (["10.5.5.5, 10.1.2.3"], "10.5.5.5"),  # a client that is a trusted host itself
        (["unknown"], PROXY),
        (["203.0.113.9, unknown"], PROXY),
        (["not an address, 203.0.113.9"], CLIENT),
        (["203.0.113.9,"], PROXY),
        ([""], PROXY),
        ([","], PROXY),
        (["203.0.113.9:5555"], CLIENT),
        (["[2001:db8:1::5]:5555"], "2001:db8:1::5"),
        (["[2001:db8:1::5]"], "2001:db8:1::5"),
        (["2001:DB8:1:0::5"], "2001:db8:1::5"),
        (["fe80::1%eth0"], "fe80::1"),
        (["::ffff:203.0.113.9"], CLIENT),
        (["[::ffff:203.0.113.9]:1"], CLIENT),
        (["::ffff:10.1.2.3"], "10.1.2.3"),
        (["203.0.113.09"], PROXY),
        (["0x7f.1"], PROXY),
        (["3405803785"], PROXY),
        (["203.0.113.9 6.6.6.6"], PROXY),
        (["9" * 5000], PROXY),
    ],
)
def test_x_forwarded_for_is_read_from_the_right(lines: list[str], found: str) -> None:
    assert xff(*lines) == found


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([f"for={CLIENT}"], CLIENT),
        ([f'For="{CLIENT}:1234";proto=https;by=10.0.0.1'], CLIENT),
        (['proto=http; for="[2001:db8:1::5]:4711"'], "2001:db8:1::5"),
        ([f"for=6.6.6.6, for={CLIENT}", "for=10.1.2.3"], CLIENT),
        ([f'for="6.6.6.6, for={CLIENT}'], CLIENT),  # a quote that a client left open
        (["for=unknown"], PROXY),
        (["for=_hidden"], PROXY),
        (["proto=https"], PROXY),
        ([f"notfor={CLIENT}"], PROXY),
        ([f"for={CLIENT}, by=10.0.0.1"], PROXY),
    ],
)
def test_forwarded_is_read_in_the_same_way(lines: list[str], found: str) -> None:
    assert forwarded(*lines) == found


def test_both_headers_must_agree() -> None:
    """A proxy that writes one of them lets through what its client wrote into the other."""
    assert client(("X-Forwarded-For", CLIENT), ("Forwarded", f"for={CLIENT};proto=https")) == CLIENT
    assert client(("X-Forwarded-For", CLIENT), ("Forwarded", "for=6.6.6.6")) == PROXY
    assert client(("X-Forwarded-For", "6.6.6.6"), ("Forwarded", f"for={CLIENT}")) == PROXY
    assert client(("X-Forwarded-For", CLIENT), ("Forwarded", "for=unknown")) == PROXY


@pytest.mark.parametrize(
    ("peer", "found"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        (None, "unknown"),
        ("", "unknown"),
        ("/run/socket:1", "unknown"),
    ],
)
def test_peers(peer: str | None, found: str) -> None:
    assert BEHIND.client(peer, CIMultiDict()) == found


@pytest.mark.parametrize(
    ("address", "budget"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("::1", "::1"),
        ("unknown", "unknown"),
    ],
)
def test_budgets(address: str, budget: str) -> None:
    assert budget_of(address) == budget


@pytest.mark.parametrize(("address", "own"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::2", False)])
def test_loopback(address: str, own: bool) -> None:
    assert is_loopback(address) is own
    assert ip_address(address).is_loopback is own


ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda a: not a.ipv4_mapped))


@given(st.lists(st.text(max_size=60)), ADDRESSES)
def test_a_client_cannot_choose_who_it_is(said: list[str], real: IPv4Address | IPv6Address) -> None:
    """Whatever it sends in front: the proxy appends its address, on the same line or on one of its own."""
    if not any(real in ip_network(network) for network in ("10.0.0.0/8", "2001:db8:ffff::/48", "127.0.0.1")):
        assert xff(*said, str(real)) == str(real)
        assert xff(", ".join([*said, str(real)])) == str(real)


@given(st.lists(st.text(max_size=60)), st.lists(st.text(max_size=60)))
def test_any_header_leads_to_some_address(said: list[str], more: list[str]) -> None:
    lines = [("X-Forwarded-For", line) for line in said] + [("Forwarded", line) for line in more]
    ip_address(client(*lines))


@given(st.ip_addresses(v=6), st.ip_addresses(v=6))
def test_a_budget_is_shared_within_64_bits_and_not_beyond(one: IPv6Address, other: IPv6Address) -> None:
    neighbour = IPv6Address(int(one) >> 64 << 64 | int(other) & (2**64 - 1))
    if IPv6Address("::1") not in (one, other, neighbour):
        assert budget_of(str(one)) == budget_of(str(neighbour))
        assert (budget_of(str(one)) == budget_of(str(other))) == (int(one) >> 64 == int(other) >> 64)


@given(ADDRESSES)
def test_all_spellings_of_an_address_are_one(address: IPv4Address | IPv6Address) -> None:
    spellings = [str(address), f" {address}\t", address.exploded, str(address).upper()]
    if isinstance(address, IPv4Address):
        spellings += [f"{address}:80", f"::ffff:{address}", f"[::ffff:{address}]:80"]
    else:
        spellings += [f"[{address}]", f"[{address}]:80", f"{address}%1"]
    assert {plain_address(spelling) for spelling in spellings} == {str(address)}


@pytest.mark.parametrize("part", ["for=", ";", " ", "for= ", 'for="', ",", "[", "1.", ":", "; for", "for=1.2.3.4 "])
@pytest.mark.timeout(5)
def test_headers_as_long_as_they_may_be_are_read_quickly(part: str) -> None:
    """Eight headers of 8 kB; none may be read in quadratic time."""
    line = (part * 8000)[:8000]
    for value in (line, f"for={line}x", f"{line}, for=x", f'for={line}"x'):
        assert client(*[(name, value) for name in ("X-Forwarded-For", "Forwarded") for _ in range(8)])
