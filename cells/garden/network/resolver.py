"""How containers find names: what their resolv.conf says, and which name servers the firewall opens for it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from attrs import frozen

HOST_FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
"""The second has the real servers when the first names one that listens on the loopback only."""


@frozen
class Resolver:
    """Settings of resolv.conf(5)."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def text(self) -> str:
        """As a file."""
        lines = [f"nameserver {server}" for server in self.servers]
        others = (("search", self.search), ("options", self.options))
        lines += [f"{name} {' '.join(words)}" for name, words in others if words]
        return "".join(line + "\n" for line in lines)


def chosen(configured: Resolver, has_ipv6: bool) -> Resolver:
    """Each setting as configured, or else as the host has it. The host's files are read once, when the cell starts."""
    host = next((found for path in HOST_FILES if (found := read(path, has_ipv6)).servers), Resolver())
    return Resolver(
        servers=configured.servers or host.servers,
        search=configured.search or host.search,
        options=configured.options or host.options,
    )


def read(path: Path, has_ipv6: bool) -> Resolver:
    """The host's settings, but for servers that a container cannot reach; empty when there is no such file."""
    text = ""
    with contextlib.suppress(OSError):
        text = path.read_text(errors="replace")
    servers: list[str] = []
    words: dict[str, tuple[str, ...]] = {"search": (), "options": ()}
    for line in text.splitlines():
        name, *given = line.partition("#")[0].partition(";")[0].split() or [""]
        if name == "nameserver" and _usable(given, has_ipv6):
            servers.append(given[0])
        elif name in words:
            words[name] = tuple(given)
        elif name == "domain":
            words["search"] = tuple(given)
    return Resolver(tuple(servers), words["search"], words["options"])


def _usable(given: Sequence[str], has_ipv6: bool) -> bool:
    try:
        address = ip_address(given[0])
    except (IndexError, ValueError):
        return False
    return not address.is_loopback and (address.version == 4 or (has_ipv6 and not address.is_link_local))
