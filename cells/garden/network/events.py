"""What becomes known of a cell's network while it is used, for whoever wants to write it down."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen


@frozen
class EgressLogged:
    """A packet, the first of its flow, that an egress rule with `log` let through; at most some a second of each
    container."""

    handle: str
    protocol: str
    """tcp, udp, icmp, icmpv6, or a number."""
    source: str
    destination: str
    source_port: int | None
    destination_port: int | None
    icmp_type: int | None
    icmp_code: int | None


@frozen
class FirewallRestored:
    """Somebody changed or removed the cell's firewall table, and it is as it was."""

    reason: str


@frozen
class FirewallNotRestored:
    """It could not be put back: containers may be open, or cut off. It is tried again."""

    reason: str
    evidence: Mapping[str, object]


NetworkEvent = EgressLogged | FirewallRestored | FirewallNotRestored
Tell = Callable[[NetworkEvent], None]
"""Must not block."""


def unheard(event: NetworkEvent) -> None:
    """For whoever does not care."""
