"""What the egress rules of a container come to: plain matches that a firewall can hold. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal

from attrs import frozen

from cells.garden.spec import EgressProtocol, EgressRule
from diego_py.errors import InvalidSpec

Range = tuple[int, int]
"""First and last, both included."""
Family = Literal[4, 6]
Network = IPv4Network | IPv6Network

PARTS_MAX = 4096
"""Matches, and ranges of addresses and ports in them, of one container: what the kernel shall hold for it at most."""

ADDRESS_BITS: dict[Family, int] = {4: 32, 6: 128}
PROTOCOLS: dict[EgressProtocol, int | None] = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "all": None}
"""The numbers of the protocols in an IP packet; None is any of them."""
ONLY: dict[EgressProtocol, Family] = {"icmp": 4, "icmpv6": 6}


@frozen
class Match:
    """Packets of one family; empty or None means any. Destinations are those the container asked for."""

    family: Family
    addresses: tuple[Range, ...] = ()
    protocol: int | None = None
    ports: tuple[Range, ...] = ()
    icmp_type: int | None = None
    icmp_code: int | None = None
    log: bool = False


@frozen
class Openings:
    """What is let through, the first match first."""

    outside: tuple[Match, ...] = ()
    """To anywhere but the own addresses of the cell's containers."""
    among: tuple[Match, ...] = ()
    """To those: only by a destination that lies within their network, so that nobody opens it with 0.0.0.0/0."""

    @property
    def logs(self) -> bool:
        """Whether any of it is told of."""
        return any(match.log for match in (*self.outside, *self.among))


def check(rules: Sequence[EgressRule]) -> None:
    """Whether the rules can be held. Raises InvalidSpec."""
    parts = 0
    for number, rule in enumerate(rules):
        try:
            parts += sum(1 + len(match.addresses) + len(match.ports) for match in _matches(rule, ()))
        except ValueError as unreadable:
            told = "a destination is no IP address, CIDR or range first-last"
            raise InvalidSpec(
                f"egress rule {number}", errors=[{"pointer": f"/egress_rules/{number}/destinations", "detail": told}]
            ) from unreadable
    if parts > PARTS_MAX:
        told = f"they come to {parts} ranges of addresses and ports, and a container may have {PARTS_MAX}"
        raise InvalidSpec("too many egress rules", errors=[{"pointer": "/egress_rules", "detail": told}])


def openings(rules: Sequence[EgressRule], containers: Sequence[Network]) -> Openings:
    """Later rules win over earlier ones. They all allow, so that decides only which of them tells of a packet.

    `containers` are the networks of the cell's containers, one of each family that it has.
    """
    spans = tuple(_span(network) for network in containers)
    outside: list[Match] = []
    among: list[Match] = []
    for rule in reversed(rules):
        outside += _matches(rule, spans, within=False)
        among += _matches(rule, spans, within=True)
    return Openings(tuple(outside), tuple(among))


Span = tuple[int, int, int]
"""Family, first and last address."""


def _matches(rule: EgressRule, containers: Sequence[Span], within: bool = False) -> Iterator[Match]:
    """One match for each family that the rule's destinations are of."""
    spans = [span(text) for text in rule.destinations]
    chosen = [each for each in spans if any(_lies_in(each, network) for network in containers) == within]
    families: tuple[Family, ...] = (4, 6)
    for family in families:
        ranges = merged((first, last) for kind, first, last in chosen if kind == family)
        if ranges and ONLY.get(rule.protocol, family) == family:
            everything = ranges == ((0, 2 ** ADDRESS_BITS[family] - 1),)
            yield Match(
                family=family,
                addresses=() if everything else ranges,
                protocol=PROTOCOLS[rule.protocol],
                ports=merged(rule.ports),
                icmp_type=rule.icmp_type,
                icmp_code=rule.icmp_code,
                log=rule.log,
            )


def span(destination: str) -> Span:
    """An address, a CIDR or a range as numbers. Raises ValueError."""
    if "-" not in destination:
        return _span(ip_network(destination, strict=False))
    first, last = (ip_address(part.strip()) for part in destination.split("-"))
    if first.version != last.version or int(first) > int(last):
        raise ValueError("a range that mixes families or runs backwards")
    return first.version, int(first), int(last)


def _span(network: Network) -> Span:
    return network.version, int(network.network_address), int(network.broadcast_address)


def _lies_in(inner: Span, outer: Span) -> bool:
    return inner[0] == outer[0] and outer[1] <= inner[1] and inner[2] <= outer[2]


def merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The same numbers in as few ranges as can be: sorted, none touching the next."""
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)
