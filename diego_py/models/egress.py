"""What a container may reach. Later rules win over earlier ones. Diego: models/security_group.go."""

import ipaddress
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final

import attrs

from diego_py.models.fields import (
    EXACTLY_ONE,
    INVALID,
    REQUIRED,
    FieldError,
    Limits,
    NetworkPort,
    RequiredText,
    Text,
)

DESTINATIONS_MAX: Final = 1000
"""Entries of one rule."""
EGRESS_RULES_MAX: Final = 1000
"""Rules of one container."""


class EgressProtocol(StrEnum):
    """What a rule is about."""

    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"
    ICMPV6 = "icmpv6"
    ALL = "all"


_WITH_PORTS: Final = frozenset({EgressProtocol.TCP, EgressProtocol.UDP})
_WITH_ICMP: Final = frozenset({EgressProtocol.ICMP, EgressProtocol.ICMPV6})


@attrs.frozen(kw_only=True)
class PortRange:
    """Ports from start to end, both included."""

    start: NetworkPort
    end: NetworkPort

    def rules(self) -> Iterator[FieldError]:
        """A range does not run backwards."""
        if self.start > self.end:
            yield FieldError("/end", INVALID, "must not be below start")


@attrs.frozen(kw_only=True)
class ICMPInfo:
    """Type and code of ICMP messages; -1 is any."""

    type: Annotated[int, Limits(minimum=-1, maximum=255)]
    code: Annotated[int, Limits(minimum=-1, maximum=255)]


@attrs.frozen(kw_only=True)
class SecurityGroupRule:
    """Allow traffic of one protocol to some destinations."""

    protocol: EgressProtocol
    destinations: Annotated[tuple[RequiredText, ...], Limits(items_max=DESTINATIONS_MAX)]
    """Each an IP address, a CIDR or a range `a-b`; one entry may be a list with commas."""
    ports: tuple[NetworkPort, ...] = ()
    port_range: PortRange | None = None
    icmp_info: ICMPInfo | None = None
    log: bool = False
    annotations: tuple[Text, ...] = ()

    def rules(self) -> Iterator[FieldError]:
        """Ports for tcp and udp, icmp_info for icmp and icmpv6, neither for all; every destination parses."""
        yield from self._port_rules()
        if self.protocol in _WITH_ICMP and self.icmp_info is None:
            yield FieldError("/icmp_info", REQUIRED, "icmp and icmpv6 need it")
        if self.protocol not in _WITH_ICMP and self.icmp_info is not None:
            yield FieldError("/icmp_info", INVALID, "only for icmp and icmpv6")
        if not self.destinations:
            yield FieldError("/destinations", REQUIRED, "must have at least one destination")
        for position, entry in enumerate(self.destinations):
            if not all(is_destination(part.strip()) for part in entry.split(",")):
                yield FieldError(f"/destinations/{position}", INVALID, "must be an IP address, a CIDR or a range a-b")

    def _port_rules(self) -> Iterator[FieldError]:
        if self.protocol in _WITH_PORTS:
            if bool(self.ports) == (self.port_range is not None):
                yield FieldError("", EXACTLY_ONE, "tcp and udp need exactly one of ports and port_range")
            return
        if self.ports:
            yield FieldError("/ports", INVALID, "only for tcp and udp")
        if self.port_range is not None:
            yield FieldError("/port_range", INVALID, "only for tcp and udp")


def is_destination(text: str) -> bool:
    """Whether `text` is an IP address, a CIDR, or a range `a-b` that does not run backwards or mix IPv4 and IPv6."""
    try:
        if "-" not in text:
            ipaddress.ip_network(text, strict=False)
            return True
        first, last = (ipaddress.ip_address(part.strip()) for part in text.split("-"))
        return first.version == last.version and int(first) <= int(last)
    except ValueError:
        return False
