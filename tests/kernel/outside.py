"""Another machine, made of a network namespace, and asking for addresses from inside a container."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from cells.garden.garden import Garden
from tests.kernel.slot import OUTSIDE_LINK, OUTSIDE_NETWORK, SLOT
from tests.slowness import patient

NAMESPACE = f"{OUTSIDE_LINK}-outside"
PUBLIC = OUTSIDE_NETWORK + ".2"
"""An address of that machine that no cell denies."""
PRIVATE, PRIVATE_TOO = f"172.31.{SLOT}.2", f"172.31.{SLOT}.3"
"""Addresses of it that a cell denies by default."""
ANSWERED = [80, 443, 8080]
"""TCP ports of all its addresses; UDP is answered at `ECHOED`."""
ECHOED = [53, 5353]

SERVE = """
import selectors, socket, sys, json
addresses, tcp, udp = json.loads(sys.argv[1])
selector = selectors.DefaultSelector()
for port in tcp:
    selector.register(socket.create_server(("", port)), 1, "tcp")
for here in ((address, port) for address in addresses for port in udp):
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    echo.bind(here)
    selector.register(echo, 1, "udp")
held = []
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        if key.data == "tcp":
            held.append(key.fileobj.accept()[0])
            selector.register(held[-1], 1, "held")
        elif key.data == "held":
            said = held[held.index(key.fileobj)].recv(100)
            key.fileobj.send(said) if said else selector.unregister(key.fileobj)
        else:
            said, asker = key.fileobj.recvfrom(100)
            key.fileobj.sendto(asker[0].encode(), asker)
"""

ASK = """
import json, os, socket, struct, sys
from concurrent.futures import ThreadPoolExecutor

def ask(question):
    kind, address, port = question
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    protocol, way = {
        "tcp": (0, socket.SOCK_STREAM),
        "udp": (0, socket.SOCK_DGRAM),
        "icmp": (socket.IPPROTO_ICMPV6 if ":" in address else socket.IPPROTO_ICMP, socket.SOCK_DGRAM),
    }[kind]
    with socket.socket(family, way, protocol) as asker:
        asker.settimeout(float(sys.argv[2]))
        try:
            asker.connect((address, port))
            if kind != "tcp":
                asker.send(struct.pack("!BBHHH", 128 if ":" in address else 8, 0, 0, 1, 1))
                asker.recv(100)
        except TimeoutError:
            return "silent"
        except OSError:
            return "refused"
        return "open"

with ThreadPoolExecutor(16) as pool:
    print(json.dumps(list(pool.map(ask, json.loads(sys.argv[1])))))
"""

Question = tuple[str, str, int]
"""tcp, udp or icmp; an address; a port."""


@frozen
class Outside:
    """The other machine. The host is its gateway."""

    def connect(self, address: str, port: int) -> str:
        """What a web server answers to it there."""
        url = f"http://{address}:{port}/index.html"
        argv = ["ip", "netns", "exec", NAMESPACE, "busybox", "wget", "-qO-", url]
        with contextlib.suppress(subprocess.TimeoutExpired):
            return subprocess.run(argv, capture_output=True, text=True, timeout=patient(2)).stdout
        return ""

    @contextmanager
    def serving(self) -> Iterator[None]:
        """It answers at its ports meanwhile: with the address of who asks, by UDP."""
        settings = json.dumps([[PUBLIC, PRIVATE, PRIVATE_TOO], ANSWERED, ECHOED])
        argv = ["ip", "netns", "exec", NAMESPACE, "/usr/bin/python3", "-c", SERVE, settings]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == "ready\n"
                yield
            finally:
                server.kill()

    @contextmanager
    def having(self, addresses: Sequence[str], asker: str) -> Iterator[None]:
        """It has these addresses too, for `asker` alone: everybody else of the host finds whoever else has them."""
        table, link = str(7000 + SLOT), OUTSIDE_LINK + "p"
        try:
            for address in addresses:
                subprocess.run(["ip", "-n", NAMESPACE, "address", "add", address + "/32", "dev", link], check=True)
                subprocess.run(["ip", "route", "add", address + "/32", "via", PUBLIC, "table", table], check=True)
            subprocess.run(["ip", "rule", "add", "from", asker, "lookup", table], check=True)
            yield
        finally:
            subprocess.run(["ip", "rule", "del", "from", asker, "lookup", table], capture_output=True)
            subprocess.run(["ip", "route", "flush", "table", table], capture_output=True)
            for address in addresses:
                removal = ["ip", "-n", NAMESPACE, "address", "del", address + "/32", "dev", link]
                subprocess.run(removal, capture_output=True)


@contextmanager
def machine() -> Iterator[Outside]:
    """Makes it, with its link to the host."""

    def ip(*argv: str) -> None:
        subprocess.run(["ip", *argv], check=True)

    ip("netns", "add", NAMESPACE)
    ip("link", "add", OUTSIDE_LINK, "type", "veth", "peer", "name", OUTSIDE_LINK + "p", "netns", NAMESPACE)
    ip("address", "add", OUTSIDE_NETWORK + ".1/24", "dev", OUTSIDE_LINK)
    ip("link", "set", OUTSIDE_LINK, "up")
    ip("-n", NAMESPACE, "address", "add", PUBLIC + "/24", "dev", OUTSIDE_LINK + "p")
    ip("-n", NAMESPACE, "link", "set", OUTSIDE_LINK + "p", "up")
    ip("-n", NAMESPACE, "route", "add", "default", "via", OUTSIDE_NETWORK + ".1")
    for address in (PRIVATE, PRIVATE_TOO):
        ip("-n", NAMESPACE, "address", "add", address + "/32", "dev", OUTSIDE_LINK + "p")
        ip("route", "add", address + "/32", "via", PUBLIC)
    try:
        yield Outside()
    finally:
        ip("netns", "del", NAMESPACE)
        Path("/run/netns").joinpath(NAMESPACE).unlink(missing_ok=True)
        subprocess.run(["ip", "link", "del", OUTSIDE_LINK], capture_output=True)


def answers(garden: Garden, handle: str, questions: Sequence[Question]) -> list[str]:
    """What becomes of each when it is asked on the container's own network: `open`, `refused` or `silent`."""
    # As the container's root: others may not open sockets for ping there.
    argv = [*inside(garden, handle), "-U", "/usr/bin/python3", "-c", ASK, json.dumps(questions), str(patient(0.7))]
    found: list[str] = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    return found


def inside(garden: Garden, handle: str) -> list[str]:
    """Words before a command of the host that shall run on the container's network."""
    init = Path(garden.config.state_dir, "containers", handle, "init.pid").read_text().strip()
    return ["nsenter", "-t", init, "-n"]
