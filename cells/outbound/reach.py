"""Where the cell goes for tenants. They choose the names, so by default only public addresses are connected to.

The address is judged, at the moment of connecting to it, and not the name, which may mean something else by then.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, TypeAlias

from attrs import frozen
from yarl import URL

from diego_py.image_reference import host_of
from diego_py.metadata_services import PUBLIC_NETWORKS

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
AddrInfo: TypeAlias = tuple[Any, ...]
"""Family, type, protocol, name and socket address, as getaddrinfo answers."""

ANY: Final = "*"
GLOBAL_6: Final = ip_network("2000::/3")
NAT64: Final = ip_network("64:ff9b::/96")
SPECIAL: Final = tuple(map(ip_network, PUBLIC_NETWORKS))
DISCARD_PORT: Final = 9
"""Nothing is sent there."""
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}|\*")


@frozen
class Pattern:
    """`HOST[:PORT]`; HOST may be `*.DOMAIN` or `*`, PORT may be `*`. Without a port: the scheme's own."""

    host: str
    port: str

    @property
    def names(self) -> bool:
        """Whether it names somebody, who may be anywhere; `*` is whoever has a public address."""
        return self.host != ANY

    def matches(self, url: URL) -> bool:
        host, port = url.host_subcomponent or "", str(url.port)
        if not (self.port in (ANY, port) or (not self.port and url.is_default_port())):
            return False
        return self.host in (ANY, host) or (self.host.startswith("*.") and host.endswith(self.host[1:]))


def pattern_of(text: str) -> Pattern:
    """Raises ValueError."""
    if text == ANY:
        return Pattern(ANY, ANY)
    host, colon, port = text.rpartition(":") if re.search(r":[^\]]*$", text) else (text, "", "")
    named = host.removeprefix("*.")
    if named != ANY and host_of(named) != named:
        raise ValueError(f"registry {text!r}: HOST[:PORT] in lower case; HOST may begin with *. and PORT be *")
    if colon and _PORT.fullmatch(port) is None:
        raise ValueError(f"registry {text!r}: the port is a number or *")
    return Pattern(host, port)


def is_proxy(text: str) -> bool:
    """Whether it is where a proxy can be, and nothing more: a password in it would be printed with the config."""
    try:
        url = URL(text)
    except ValueError:
        return False
    return url.scheme in ("http", "https") and bool(url.host) and url == url.origin()


def may_be_asked(url: URL, patterns: Iterable[Pattern]) -> bool:
    """Whether there is a pattern for it."""
    return any(pattern.matches(url) for pattern in patterns)


def is_named(url: URL, patterns: Iterable[Pattern]) -> bool:
    """Whether the operator named it, so that it may be at any address."""
    return any(pattern.names and pattern.matches(url) for pattern in patterns)


def is_loopback(host: str | None) -> bool:
    """Whether a host's name or address means this machine, whatever resolvers say."""
    if host == "localhost":
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False


def may_follow(here: URL, target: URL) -> bool:
    """Whether a server may send us from one address to another: never out of TLS, and never to this machine.

    Both would let a stranger's server reach what only this host can reach.
    """
    if target.scheme not in ("https", here.scheme) or target.host is None or target.user or target.password:
        return False
    return is_loopback(here.host) or not is_loopback(target.host)


class NotPublic(OSError):
    """A connection that is not made."""

    def __init__(self, kind: str) -> None:
        super().__init__(errno.EACCES, f"the address is {kind}")
        self.kind = kind


def public_socket(to: AddrInfo, denied: Sequence[Network]) -> socket.socket:
    """A socket to connect to this address with. Raises NotPublic, and OSError as it comes."""
    family, kind, protocol, _, address = to
    if reason := reason_against(address[0], denied):
        raise NotPublic(reason)
    return socket.socket(family, kind, protocol)


def reason_against(host: str, denied: Sequence[Network]) -> str:
    """What an address is that is not connected to: `loopback`, `private` and so on. Empty: it is, or it is a name."""
    try:
        found = ip_address(host.strip("[]"))
    except ValueError:
        return ""
    addresses = (found, *_within(found))
    for address in addresses:
        if reason := _kind_of(address):
            return reason
    if any(address in network for address in addresses for network in denied):
        return "denied"
    return "this host's own" if any(map(_is_ours, addresses)) else ""


def _kind_of(address: Address) -> str:
    if address.is_loopback or address.is_unspecified:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address.is_multicast:
        return "multicast"
    if address in NAT64 or (isinstance(address, IPv6Address) and address.ipv4_mapped is not None):
        return ""  # Of these the address within decides.
    if not address.is_global:
        return "private"
    if any(address in network for network in SPECIAL) or (address.version == 6 and address not in GLOBAL_6):
        return "reserved"
    return ""


def _within(address: Address) -> list[IPv4Address]:
    """IPv4 addresses that somebody on the way, or this kernel, may turn an IPv6 one into."""
    if isinstance(address, IPv4Address):
        return []
    teredo = address.teredo or ()
    nat64 = IPv4Address(int(address) & 0xFFFF_FFFF) if address in NAT64 else None
    return [inner for inner in (address.ipv4_mapped, address.sixtofour, *teredo, nat64) if inner is not None]


def _is_ours(address: Address) -> bool:
    """Whether it belongs to this host: the kernel would then speak from it, too."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), DISCARD_PORT))
        except OSError:
            return False  # There is no way to it; connecting will say so in the kernel's words.
        return ip_address(probe.getsockname()[0]) == address
