"""Hosts as network namespaces on one switch, and what can go wrong between them. Nothing of it is in the host's own
namespace, so taking the namespaces away takes everything away.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from tests.chaos.harms import Harms

PREFIX = "198.18.0"
"""From the range for benchmarks (RFC 2544): nobody's network."""
NAMESPACES = Path("/run/netns")
TABLE = "inet chaos"
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


@frozen
class Host:
    """One machine: what runs in its namespace reaches the others by their addresses."""

    name: str
    namespace: str
    address: str

    @property
    def path(self) -> Path:
        return NAMESPACES / self.namespace

    def command(self, *argv: str) -> tuple[str, ...]:
        """`argv` as a process of this host; only the network differs from ours."""
        return ("nsenter", f"--net={self.path}", "--", *argv)

    def socket(self, address_info: Sequence[Any]) -> socket.socket:
        """A socket of this host, for aiohttp's `socket_factory`: it stays one wherever it is used."""
        with _entered(self.path):
            return socket.socket(*address_info[:3])


@define
class Network:
    """The switch and the hosts. `cut` and its kin hold until `heal`."""

    tag: str
    harms: Harms = field(factory=Harms)
    hosts: dict[str, Host] = field(factory=dict, init=False)

    @property
    def _switch(self) -> str:
        return f"chaos-{self.tag}-switch"

    def build(self, *names: str) -> None:
        """Make the switch and these hosts."""
        lines = [f"netns add {self._switch}"]
        lines += [f"-n {self._switch} link add switch type bridge", f"-n {self._switch} link set switch up"]
        for number, name in enumerate(names, start=1):
            host = self.hosts[name] = Host(name, f"chaos-{self.tag}-{name}", f"{PREFIX}.{number}")
            lines += [
                f"netns add {host.namespace}",
                f"-n {self._switch} link add port{number} type veth peer name uplink netns {host.namespace}",
                f"-n {self._switch} link set port{number} master switch up",
                f"-n {host.namespace} address add {host.address}/24 dev uplink",
                f"-n {host.namespace} link set uplink up",
                f"-n {host.namespace} link set lo up",
            ]
        for line in lines:
            _run("ip", *line.split())

    def remove(self) -> None:
        """Take all of it away; the processes in it must have ended. Idempotent."""
        for namespace in (*(host.namespace for host in self.hosts.values()), self._switch):
            if (NAMESPACES / namespace).exists():
                _run("ip", "netns", "delete", namespace)
        self.hosts.clear()

    def cut(self, one: str, other: str) -> None:
        """Neither hears the other any more; packets vanish without a word."""
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def cut_one_way(self, source: str, target: str) -> None:
        """What `source` sends to `target` vanishes; the other way is open."""
        self._add(source, "output", f"ip daddr {self.hosts[target].address} drop")

    def lose_replies(self, server: str, client: str) -> None:
        """Connections are made and requests arrive, and no answer does: it was done, and the client does not know."""
        self._add(server, "output", f"ip daddr {self.hosts[client].address} tcp flags & psh == psh drop")

    def lose_requests(self, client: str, server: str) -> None:
        """Connections are made and requests do not arrive until `heal`: the kernel sends them again then."""
        self._add(client, "output", f"ip daddr {self.hosts[server].address} tcp flags & psh == psh drop")

    def lose_packets(self, name: str, percent: int) -> None:
        """So many of a hundred that leave `name` vanish, at random."""
        self._add(name, "output", f"oifname uplink numgen random mod 100 < {percent} drop")

    def refuse(self, client: str, server: str) -> None:
        """Every connection from `client` is reset."""
        self._add(server, "input", f"ip saddr {self.hosts[client].address} meta l4proto tcp reject with tcp reset")

    def heal(self) -> None:
        """All is as it was."""
        for host in self.hosts.values():
            subprocess.run(host.command("nft", "delete", "table", *TABLE.split()), check=False, capture_output=True)

    def _add(self, name: str, hook: str, rule: str) -> None:
        self.harms.begin()
        chain = f"add chain {TABLE} {hook} {{ type filter hook {hook} priority -300; }}"
        script = f"add table {TABLE}\n{chain}\nadd rule {TABLE} {hook} {rule}\n"
        _run(*self.hosts[name].command("nft", "-f", "-"), said=script)


@contextmanager
def _entered(namespace: Path) -> Iterator[None]:
    """This thread in another network namespace; nothing may be awaited meanwhile."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _set_namespace(namespace.open)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


def _set_namespace(opened: Callable[[], Any]) -> None:
    with opened() as file:
        _setns(file.fileno())


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _run(*argv: str, said: str = "") -> None:
    done = subprocess.run(argv, input=said, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}{said}"
