"""Rules and the matches they come to let through the same packets, whatever the rules are."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import pairwise
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from cells.garden.network.egress import PARTS_MAX, PROTOCOLS, Match, check, merged, openings, span
from cells.garden.spec import EgressRule
from diego_py.errors import InvalidSpec

CONTAINERS = (IPv4Network("10.0.0.0/28"), IPv6Network("fd00::/124"))

# Few numbers, so that rules and packets meet.
_fours = st.integers(0, 40).map(lambda number: str(ip_address("10.0.0.0") + number))
_sixes = st.integers(0, 40).map(lambda number: str(ip_address("fd00::") + number))
_addresses = _fours | _sixes


def _between(pair: tuple[str, str]) -> str:
    first, last = sorted(pair, key=lambda text: int(ip_address(text)))
    return f"{first}-{last}"


_ranges = st.tuples(_fours, _fours).map(_between) | st.tuples(_sixes, _sixes).map(_between)
_cidrs = st.tuples(_fours, st.sampled_from([24, 28, 30])) | st.tuples(_sixes, st.sampled_from([64, 124, 126]))
_cidr_texts = _cidrs.map(lambda pair: str(ip_network(f"{pair[0]}/{pair[1]}", strict=False)))
_wide = st.sampled_from(["0.0.0.0/0", "::/0"])
_destinations = st.lists(_addresses | _ranges | _cidr_texts | _wide, min_size=1, max_size=4).map(tuple)
_ports = st.integers(1, 12)
_port_ranges = st.lists(st.tuples(_ports, _ports).map(lambda pair: (min(pair), max(pair))), max_size=3).map(tuple)
_icmp = st.none() | st.integers(0, 2)
rules = st.lists(
    st.builds(EgressRule, st.sampled_from(["tcp", "udp"]), _destinations, _port_ranges, log=st.booleans())
    | st.builds(EgressRule, st.sampled_from(["icmp", "icmpv6"]), _destinations, icmp_type=_icmp, icmp_code=_icmp)
    | st.builds(EgressRule, st.just("all"), _destinations),
    max_size=5,
).map(tuple)


@frozen
class Packet:
    """The first one of a flow."""

    protocol: int
    to: str
    port: int
    icmp: tuple[int, int]


packets = st.builds(
    Packet, st.sampled_from([1, 6, 17, 58, 132]), _addresses, _ports, st.tuples(st.integers(0, 2), st.integers(0, 2))
)


def names(rule: EgressRule, packet: Packet) -> bool:
    """What a reader of the rule expects."""
    if rule.protocol != "all":
        kind = {"icmp": 4, "icmpv6": 6}.get(rule.protocol, ip_address(packet.to).version)
        if PROTOCOLS[rule.protocol] != packet.protocol or ip_address(packet.to).version != kind:
            return False
    if rule.ports and not any(first <= packet.port <= last for first, last in rule.ports):
        return False
    asked = zip((rule.icmp_type, rule.icmp_code), packet.icmp, strict=True)
    if any(wanted is not None and wanted != found for wanted, found in asked):
        return False
    inside = any(ip_address(packet.to) in network for network in CONTAINERS)
    return any(_holds(each, packet.to, inside) for each in rule.destinations)


def _holds(destination: str, address: str, inside: bool) -> bool:
    """An address of a container is named only by a destination that lies in the containers' network."""
    kind, first, last = span(destination)
    zero = ip_address("0.0.0.0" if kind == 4 else "::")
    ends = [zero + first, zero + last]
    narrow = any(ends[0] in network and ends[1] in network for network in CONTAINERS)
    found = ip_address(address)
    return found.version == kind and first <= int(found) <= last and inside == narrow


def admits(match: Match, packet: Packet) -> bool:
    """What the kernel does with it."""

    def one_of(number: int, ranges: tuple[tuple[int, int], ...]) -> bool:
        return not ranges or any(first <= number <= last for first, last in ranges)

    address = ip_address(packet.to)
    return (
        match.family == address.version
        and one_of(int(address), match.addresses)
        and match.protocol in (None, packet.protocol)
        and one_of(packet.port, match.ports)
        and match.icmp_type in (None, packet.icmp[0])
        and match.icmp_code in (None, packet.icmp[1])
    )


@given(rules, packets)
def test_exactly_what_is_named_is_let_through(given_rules: tuple[EgressRule, ...], packet: Packet) -> None:
    found = openings(given_rules, CONTAINERS)
    inside = any(ip_address(packet.to) in network for network in CONTAINERS)
    chain = found.among if inside else found.outside
    naming = [rule for rule in given_rules if names(rule, packet)]
    admitting = [match for match in chain if admits(match, packet)]
    assert bool(naming) == bool(admitting)
    if naming:
        # Later rules win over earlier ones.
        assert naming[-1].log == admitting[0].log


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda pair: (pair[0], pair[0] + pair[1]))))
def test_merged_ranges_hold_the_same_numbers(ranges: list[tuple[int, int]]) -> None:
    found = merged(ranges)
    numbers = {number for first, last in ranges for number in range(first, last + 1)}
    assert {number for first, last in found for number in range(first, last + 1)} == numbers
    assert all(before[1] + 1 < after[0] for before, after in pairwise(found))


@pytest.mark.parametrize("bad", ["", "x", "10.0.0.1/33", "10.0.0.2-10.0.0.1", "10.0.0.1-fd00::1", "a-b-c"])
def test_what_is_no_destination_is_refused_by_position(bad: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        check([EgressRule("all", ("10.0.0.1",)), EgressRule("all", ("10.0.0.1", bad))])
    told: Any = refused.value.errors
    assert told[0]["pointer"] == "/egress_rules/1/destinations"


def test_the_number_of_ranges_is_limited() -> None:
    apart = [f"1.{number // 100}.{number % 100}.1" for number in range(PARTS_MAX)]
    check([EgressRule("all", tuple(apart[: PARTS_MAX - 1]))])
    with pytest.raises(InvalidSpec, match="too many egress rules"):
        check([EgressRule("all", tuple(apart))])
    # What lies side by side is one range.
    check([EgressRule("all", tuple(f"10.0.{number // 200}.{number % 200}" for number in range(2000)))])
