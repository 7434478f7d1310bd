"""The cell's nft table as text, with all its containers: what is loaded at start, and put back when somebody took it.

Closed by default: a container reaches no address of the host, no other container of any cell, and none of the denied
networks; it is reached only through published ports. What its own rules open stands in a chain of its own, found by its
interface in a map: a packet's way is a lookup, however many containers there are. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_address, ip_network

from attrs import frozen

from cells.garden.network.egress import Family, Match, Network, Range, openings
from cells.garden.network.nft_elements import AMONG, LOG, OUT, Elements, Table
from cells.garden.network.nft_rules import LOG_BURST, LOG_BYTES, LOG_PER_SECOND
from cells.garden.network.pair import LINK_GROUP

UNIQUE_LOCAL = IPv6Network("fc00::/7")
NAT64, SIX_TO_FOUR = IPv6Network("64:ff9b::/96"), IPv6Network("2002::/16")
"""Somebody on the way may turn addresses of these into the IPv4 ones that are in them."""
ADDRESS_KEY: dict[Family, str] = {4: "ip", 6: "ip6"}
FAMILY_NAME: dict[Family, str] = {4: "ipv4", 6: "ipv6"}
PROTOCOL_NAME = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}


@frozen
class Policy:
    """What holds for all containers of a cell."""

    table: str
    prefix: str
    """Beginning of the name of each container's interface."""
    networks: tuple[Network, ...]
    """The containers' own addresses: an IPv4 network, and perhaps an IPv6 one."""
    host_address: str
    """Where published ports are."""
    deny_networks: tuple[str, ...] = ()
    closed: bool = False
    """Nothing is open but to resolvers and by rules."""
    resolvers: tuple[str, ...] = ()
    """Name servers of the containers: open to all of them."""
    log_group: int = 0

    @property
    def where(self) -> Table:
        return Table(self.table, self.log_group)


def script(policy: Policy, containers: Iterable[Elements]) -> str:
    """One transaction that puts this table in the place of whatever has its name. Hooks never miss a packet: the
    kernel has the new ones in place before it takes the old ones away.
    """
    table, ours = policy.table, f'iifname "{policy.prefix}*"'
    inside = "".join(_container(policy, each) for each in containers)
    return f"""\
add table inet {table}
delete table inet {table}
table inet {table} {{
  set sources {{ type ifname . ipv4_addr; }}
  set sources6 {{ type ifname . ipv6_addr; }}
  map published {{ type inet_service : ipv4_addr . inet_service; }}
  map egress {{ type ifname : verdict; }}
  map among {{ type ifname : verdict; }}
  chain spoofing {{
    type filter hook prerouting priority -300; policy accept;
    {ours} ip daddr 127.0.0.0/8 drop
    {ours} meta nfproto ipv4 iifname . ip saddr != @sources drop
    {ours} meta nfproto ipv6 iifname . ip6 saddr != @sources6 drop
  }}
  chain to_published {{
    type nat hook prerouting priority -100; policy accept;
    iifgroup {LINK_GROUP} ip daddr != {policy.host_address} accept
    fib daddr type local dnat ip to tcp dport map @published
  }}
  chain host_to_published {{
    type nat hook output priority -100; policy accept;
    fib daddr type local dnat ip to tcp dport map @published
  }}
  chain between {{
    iifname vmap @among
{_refuse("")}  }}
  chain to_host {{
    type filter hook input priority 0; policy accept;
    {ours} ct state established,related accept
{_neighbours(policy, ours)}{_names(policy, ours)}{_refuse(ours)}  }}
  chain through {{
    type filter hook forward priority 0; policy accept;
{_through(policy, ours)}  }}
  chain from_behind {{
    type nat hook postrouting priority 100; policy accept;
{_from_behind(policy)}  }}
}}
{inside}"""


def _through(policy: Policy, ours: str) -> str:
    """Established connections come first; what is left is the first packet of a flow."""
    out = ours.replace("iifname", "oifname")
    direct = "".join(
        f"    {ours} ct original {ADDRESS_KEY[_family(network)]} daddr {network} goto between\n"
        for network in policy.networks
    )
    return (
        f"    {ours} ct state established,related accept\n"
        f"    {out} ct state established,related accept\n"
        f"    {ours} ct state invalid drop\n"
        f"{direct}"
        f"    {ours} iifname vmap @egress\n"
        # Of a container of another cell of this host its own cell has said already whether it may.
        f'    {out} iifname != "{policy.prefix}*" ct status dnat accept\n'
        f"{_refuse(f'{ours} oifgroup {LINK_GROUP}')}"
        f"{_names(policy, ours)}"
        f"{_denied(policy, ours)}"
        f"{_refuse(ours) if policy.closed else ''}"
        # Of another cell's container; whoever is no container of this host learns nothing.
        f"{_refuse(f'{out} iifgroup {LINK_GROUP}')}"
        f"    {out} drop\n"
    )


def _from_behind(policy: Policy) -> str:
    out = f'oifname "{policy.prefix}*"'
    lines = [f"    {out} ip saddr 127.0.0.0/8 masquerade\n"]
    for network in policy.networks:
        key = ADDRESS_KEY[_family(network)]
        if network.version == 4 or network.subnet_of(UNIQUE_LOCAL):
            lines.append(f"    {key} saddr {network} {out.replace('oifname', 'oifname !=')} masquerade\n")
        # A container that asks for its own published port must not see its own address come in from outside.
        lines.append(f"    {key} saddr {network} {out} ct status dnat masquerade\n")
    return "".join(lines)


def _neighbours(policy: Policy, ours: str) -> str:
    """Without them nobody finds anybody on an IPv6 link."""
    has_6 = any(network.version == 6 for network in policy.networks)
    return f"    {ours} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept\n" if has_6 else ""


def _names(policy: Policy, ours: str) -> str:
    """Name servers are open wherever they are, on the host too."""
    lines = ""
    for family, key in ADDRESS_KEY.items():
        servers = sorted({each for each in policy.resolvers if ip_address(each).version == family})
        if servers:
            to_them = f"{ours} {key} daddr {{ {', '.join(servers)} }}"
            lines += f"    {to_them} meta l4proto {{ tcp, udp }} th dport 53 accept\n"
    return lines


def _denied(policy: Policy, ours: str) -> str:
    """Overlapping networks are no error to us, but they are to nft. IPv4 ones are denied as part of IPv6 ones too."""
    networks = [ip_network(each) for each in policy.deny_networks]
    four = [each for each in networks if isinstance(each, IPv4Network)]
    six = [each for each in networks if isinstance(each, IPv6Network)]
    six += [_within(outer, each) for outer in (NAT64, SIX_TO_FOUR) for each in four]
    told = {4: collapse_addresses(four), 6: collapse_addresses(six)}
    lists = {family: ", ".join(map(str, found)) for family, found in told.items()}
    return "".join(
        _refuse(f"{ours} {ADDRESS_KEY[family]} daddr {{ {lists[family]} }}") for family in ADDRESS_KEY if lists[family]
    )


def _within(outer: IPv6Network, inner: IPv4Network) -> IPv6Network:
    """The addresses of `outer` that have those of `inner` in them, right behind its prefix."""
    first = int(outer.network_address) | int(inner.network_address) << (96 - outer.prefixlen)
    return IPv6Network((first, outer.prefixlen + inner.prefixlen))


def _family(network: Network) -> Family:
    return 4 if network.version == 4 else 6


def _container(policy: Policy, elements: Elements) -> str:
    table, network, name = policy.table, elements.network, elements.interface
    lines = [f'add element inet {table} sources {{ "{name}" . {network.address} }}\n']
    if network.address6 is not None:
        lines.append(f'add element inet {table} sources6 {{ "{name}" . {network.address6} }}\n')
    if network.ports:
        pairs = ", ".join(f"{port.host_port} : {network.address} . {port.container_port}" for port in network.ports)
        lines.append(f"add element inet {table} published {{ {pairs} }}\n")
    return "".join([*lines, *_opened(policy, elements)])


def _opened(policy: Policy, elements: Elements) -> Iterator[str]:
    table, name = policy.table, elements.interface
    found = openings(elements.egress, policy.networks)
    if found.logs:
        yield f"add chain inet {table} {LOG}{name}\n"
        yield (
            f"add rule inet {table} {LOG}{name} limit rate {LOG_PER_SECOND}/second burst {LOG_BURST} packets"
            f' log prefix "{elements.handle}" group {policy.log_group} snaplen {LOG_BYTES}\n'
        )
        yield f"add rule inet {table} {LOG}{name} accept\n"
    for prefix, chain_map, matches in ((OUT, "egress", found.outside), (AMONG, "among", found.among)):
        if matches:
            chain = prefix + name
            yield f"add chain inet {table} {chain}\n"
            for match in matches:
                verdict = f"goto {LOG}{name}" if match.log else "accept"
                yield f"add rule inet {table} {chain} {_match(match)} {verdict}\n"
            yield f'add element inet {table} {chain_map} {{ "{name}" : jump {chain} }}\n'


def _match(match: Match) -> str:
    parts = [f"meta nfproto {FAMILY_NAME[match.family]}"]
    if match.addresses:
        told = [_range(each, IPv4Address if match.family == 4 else IPv6Address) for each in match.addresses]
        parts.append(f"ct original {ADDRESS_KEY[match.family]} daddr {_one_of(told)}")
    if match.protocol is not None:
        parts.append(f"meta l4proto {PROTOCOL_NAME[match.protocol]}")
    if match.ports:
        parts.append(f"ct original proto-dst {_one_of([_range(each, int) for each in match.ports])}")
    for what, wanted in (("type", match.icmp_type), ("code", match.icmp_code)):
        if wanted is not None and match.protocol is not None:
            parts.append(f"{PROTOCOL_NAME[match.protocol]} {what} {wanted}")
    return " ".join(parts)


def _range(bounds: Range, kind: type[IPv4Address] | type[IPv6Address] | type[int]) -> str:
    first, last = bounds
    return f"{kind(first)}" if first == last else f"{kind(first)}-{kind(last)}"


def _one_of(told: Sequence[str]) -> str:
    return told[0] if len(told) == 1 else f"{{ {', '.join(told)} }}"


def _refuse(match: str) -> str:
    """Rules that tell the container at once. TCP gets a reset: an ICMP error comes back while the kernel still sends
    the first packet, is taken for a passing trouble then, and the program waits a second for nothing.
    """
    return f"    {match} meta l4proto tcp reject with tcp reset\n    {match} reject with icmpx admin-prohibited\n"
