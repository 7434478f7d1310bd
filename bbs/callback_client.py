"""The requests that a BBS sends to addresses its clients named: none to where only the BBS itself can reach.

What counts is the address that a connection is made to, after names were resolved: a name may lead anywhere, and
elsewhere a moment later. Redirects are not followed.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import aiohttp
from attrs import define, field, frozen

from diego_py.metadata_services import PUBLIC_NETWORKS

DENIED = (
    *PUBLIC_NETWORKS,
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "fe80::/10",
    "ff00::/8",
    "fd00:ec2::/32",
)
"""This host, its links, the metadata services of clouds (there, private, or of the public range), and nobody."""
CONNECT_TIMEOUT_S = 3.0


class AddressDenied(OSError):
    """A connection to this address is not made."""


@frozen
class Delivery:
    """What became of one request: the status that was answered, or why there was none."""

    status: int | None = None
    denied: bool = False
    reason: str = ""


def _networks(networks: Sequence[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(network) for network in networks)


@define
class CallbackClient:
    """Sends JSON. A part of the process."""

    deny: tuple[IPv4Network | IPv6Network, ...] = field(converter=_networks)
    timeout_s: float
    connections_max: int
    _session: aiohttp.ClientSession | None = field(default=None, init=False)

    async def start(self) -> None:
        """Connections are made when first used."""

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, url: str, body: bytes) -> Delivery:
        """Send `body` and wait for the status. Never raises for what the other side does or does not do."""
        try:
            async with self._connected().post(url, data=body, allow_redirects=False) as response:
                return Delivery(response.status)
        except aiohttp.ClientConnectorError as refused:
            denied = _is_denied(refused.os_error)
            return Delivery(denied=denied, reason="address denied" if denied else "cannot connect")
        except (aiohttp.InvalidURL, UnicodeError):  # the latter of a name such as `a..b`, from the resolver
            return Delivery(reason="no valid URL")
        except TimeoutError:
            return Delivery(reason="timed out")
        except (aiohttp.ClientError, ConnectionError):
            return Delivery(reason="connection broke")

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self.connections_max, force_close=True, socket_factory=self._socket, use_dns_cache=False
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers={"Content-Type": "application/json"},
                timeout=aiohttp.ClientTimeout(total=self.timeout_s, sock_connect=CONNECT_TIMEOUT_S),
                trust_env=False,
            )
        return self._session

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """A socket for one address that a name led to, at the moment of connecting. Raises AddressDenied."""
        family, kind, protocol, _, where = address
        if self.is_denied(str(where[0])):
            raise AddressDenied("the address of the callback is denied")
        return socket.socket(family, kind, protocol)

    def is_denied(self, text: str) -> bool:
        """Whether no connection may be made to this address; one of IPv4 counts as such in whatever clothes."""
        address = ip_address(text.partition("%")[0])
        inner = _inner(address) if isinstance(address, IPv6Address) else None
        return any(one in network for one in (address, inner) if one is not None for network in self.deny)


def _inner(address: IPv6Address) -> object:
    """The IPv4 address that an IPv6 address stands for: mapped, 6to4, or NAT64."""
    if address in ip_network("64:ff9b::/96"):
        return ip_address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour


def _is_denied(error: BaseException | None) -> bool:
    """Whether one of the addresses that were tried is denied; asyncio may tell of several in one."""
    if isinstance(error, BaseExceptionGroup):
        return any(_is_denied(one) for one in error.exceptions)
    if isinstance(error, AddressDenied):
        return True
    return error is not None and error.__cause__ is not None and _is_denied(error.__cause__)
