"""What transfers may take, and where they may go. Pure."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

from attrs import frozen

from cells.outbound import reach

GIBIBYTE = 1024**3


@frozen(kw_only=True)
class TransferSettings:
    """Of one cell."""

    directory: Path
    """The cache, and files on their way."""
    hosts: tuple[str, ...] = (reach.ANY,)
    """HOST[:PORT]; HOST may be `*.DOMAIN`, and PORT `*`. Whoever is named may be at any address; `*` is everybody else,
    at public ones."""
    deny_networks: tuple[str, ...] = ()
    """What counts as not public besides what the world agrees on."""
    proxy: str = ""
    """`http://HOST:PORT` by which everybody is reached who is not named; then it is the proxy that judges addresses."""
    ca_file: str = ""
    """PEM file of certificate authorities that are trusted besides the system's."""
    cache_bytes_max: int = 10 * GIBIBYTE
    download_bytes_max: int = 8 * GIBIBYTE
    upload_bytes_max: int = 8 * GIBIBYTE
    at_once_max: int = 5
    """Downloads of one cell, and uploads. Diego: 5 of each."""
    attempts_max: int = 4
    """Diego: 4."""
    silence_s: float = 10.0
    """Nothing came for so long: the connection counts as broken."""
    total_s: float = 600.0
    """One download or upload, all attempts together."""

    def __attrs_post_init__(self) -> None:
        """Raises ValueError for what names no host, no network or no proxy."""
        for text in self.hosts:
            reach.pattern_of(text)
        for network in self.deny_networks:
            ip_network(network)
        if self.proxy and not reach.is_proxy(self.proxy):
            raise ValueError(f"transfer_proxy {self.proxy!r}: http://HOST:PORT or https://HOST:PORT")

    @property
    def patterns(self) -> tuple[reach.Pattern, ...]:
        return tuple(reach.pattern_of(text) for text in self.hosts)

    @property
    def denied(self) -> tuple[reach.Network, ...]:
        return tuple(ip_network(network) for network in self.deny_networks)
