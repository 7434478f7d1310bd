"""What can reach a container, and what a container can reach."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cells.garden.garden import Garden
from cells.garden.spec import EgressRule
from tests.kernel.containers import call, output, shell, spec, start, until_printed
from tests.kernel.outside import NAMESPACE, Outside, answers, inside
from tests.kernel.slot import OUTSIDE_NETWORK
from tests.slowness import patient

pytestmark = pytest.mark.kernel

PORT = 8080
METADATA = "169.254.169.254"
DENIED = (METADATA, "168.63.129.16", "192.0.0.192", "100.100.100.200", "10.0.0.1", "172.16.0.1", "192.168.0.1")


async def serve(garden: Garden, handle: str) -> int:
    """A web server in a container; its host port."""
    script = f"httpd -p {PORT} -h /srv/www && echo ready && exec sleep 600"
    await start(garden, shell(handle, script, ports=(PORT,)))
    await until_printed(garden, handle, "ready")
    (container,) = (c for c in garden.containers() if c.handle == handle)
    return container.network.ports[0].host_port


async def ask(address: str, port: int) -> bytes:
    """The last line of what is answered there."""
    async with asyncio.timeout(patient(5)):
        reader, writer = await asyncio.open_connection(address, port)
        writer.write(b"GET /index.html HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer.splitlines()[-1]


def attempt(address: str, port: int) -> str:
    """Shell: try to connect, say whether that went."""
    return f"nc -w {patient(1):.0f} {address} {port} </dev/null >/dev/null 2>&1 && echo reached {address}; "


@contextmanager
def listening(address: str) -> Iterator[int]:
    with socket.create_server((address, 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("address", ["127.0.0.1", "host", "container"])
async def test_published_port_is_reached_from_the_host(garden: Garden, host_address: str, address: str) -> None:
    host_port = await serve(garden, "a")
    container = garden.containers()[0].network.address
    where = {"host": (host_address, host_port), "container": (container, PORT)}.get(address, (address, host_port))
    assert await ask(*where) == b"hello"


async def test_published_port_is_reached_from_elsewhere(
    garden: Garden, host_address: str, outside: Outside
) -> None:
    host_port = await serve(garden, "a")
    assert outside.connect(host_address, host_port) == "hello\n"


async def test_container_address_is_not_reached_from_elsewhere(
    garden: Garden, outside: Outside
) -> None:
    await serve(garden, "a")
    assert outside.connect(garden.containers()[0].network.address, PORT) == ""


ACCEPT_ONE = """
import socket
with socket.create_server(("0.0.0.0", 7777)) as server:
    print("ready", flush=True)
    print(server.accept()[1][0], flush=True)
"""


async def test_containers_reach_what_is_not_denied(garden: Garden, outside: Outside) -> None:
    argv = ["ip", "netns", "exec", NAMESPACE, "/usr/bin/python3", "-c", ACCEPT_ONE]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        assert await output(garden, shell("a", attempt(OUTSIDE_NETWORK + ".2", 7777) + "true")) == [
            f"reached {OUTSIDE_NETWORK}.2"
        ]
        # Masqueraded: out there the container is the host.
        assert listener.stdout.readline() == OUTSIDE_NETWORK + ".1\n"


async def test_container_cannot_reach_the_host(garden: Garden, host_address: str) -> None:
    with listening("0.0.0.0") as port:
        uplink = _uplink_address()
        tried = [garden._host.addresses.gateway, host_address, uplink]
        script = "".join(attempt(address, port) for address in tried) + "echo done"
        assert await output(garden, shell("a", script)) == ["done"]


async def test_container_cannot_reach_private_and_metadata_addresses(garden: Garden, outside: Outside) -> None:
    """Somebody is there: with a rule that opens everything they answer."""
    await start(garden, spec("a", "/bin/sleep", "600"))
    asked = [("tcp", address, 80) for address in DENIED]
    with outside.having(DENIED, garden.containers()[0].network.address), outside.serving():
        assert answers(garden, "a", asked) == ["refused"] * len(asked)
        await garden.set_egress(call(), "a", (EgressRule("tcp", ("0.0.0.0/0",)),))
        assert answers(garden, "a", asked) == ["open"] * len(asked)


async def test_a_denial_is_told_at_once(garden: Garden) -> None:
    uptime = "cut -d. -f1 /proc/uptime"
    before, after = await output(
        garden, shell("a", f"{uptime}; nc -w {patient(20):.0f} {METADATA} 80 </dev/null 2>/dev/null; {uptime}")
    )
    assert int(after) - int(before) <= patient(1)


async def test_containers_cannot_reach_each_other(new_garden: Callable[..., Any], host_address: str) -> None:
    """Not of the same cell nor of another one on the host, not by address nor by published port."""
    one, two = await new_garden(), await new_garden(deny_networks=())
    own, other = await serve(one, "own"), await serve(two, "other")
    addresses = [one.containers()[0].network.address, two.containers()[0].network.address]
    tried = [(address, PORT) for address in addresses]
    tried += [(host_address, own), (host_address, other), (one._host.addresses.gateway, own)]
    script = "".join(attempt(*each) for each in tried) + "echo done"
    assert await output(one, shell("a", script)) == ["done"]
    assert await output(two, shell("b", script)) == ["done"]
    assert await ask("127.0.0.1", own) == b"hello"
    assert await ask("127.0.0.1", other) == b"hello"


SEND_FROM = """
import socket, sys
source, target, port = sys.argv[1:]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.bind((source, 0))
    sender.sendto(b"x", (target, int(port)))
"""


async def test_spoofed_source_is_dropped(garden: Garden) -> None:
    """A packet with a foreign source address, sent on the container's own link by somebody with more rights."""
    await start(garden, spec("a", "/bin/sleep", "600"))
    on_link = inside(garden, "a")
    subprocess.run([*on_link, "ip", "address", "add", "198.18.9.9/32", "dev", "eth0"], check=True)
    own, gateway = garden.containers()[0].network.address, garden._host.addresses.gateway
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("0.0.0.0", 0))
        port = str(receiver.getsockname()[1])
        # The host is opened for this one test, and the table not looked after: only the check of the source stands
        # between.
        await garden._host.guard.close()
        opening = ["inet", garden.config.nft_table, "to_host", "udp", "dport", port, "accept"]
        subprocess.run(["nft", "insert", "rule", *opening], check=True)
        receiver.settimeout(patient(5))
        for source in ("198.18.9.9", own):
            subprocess.run([*on_link, "/usr/bin/python3", "-c", SEND_FROM, source, gateway, port], check=True)
        # Sent second, received first and alone: the spoofed one was dropped.
        assert receiver.recvfrom(10)[1][0] == own
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiver.recvfrom(10)


async def test_numbers_of_a_port_that_is_in_use_are_passed_over(garden: Garden) -> None:
    first = garden.config.port_first
    with socket.create_server(("0.0.0.0", first)):
        container = await garden.create(call(), spec("a", "/bin/true", ports=(80, 81)))
    assert [port.host_port for port in container.network.ports] == [first + 1, first + 2]


async def test_ping_and_low_ports_need_no_capability(garden: Garden) -> None:
    lines = await output(
        garden, shell("a", "cat /proc/sys/net/ipv4/ping_group_range; ping -c 1 127.0.0.1 | tail -1", user="vcap")
    )
    assert lines[0].split() == ["0", "65535"]


async def test_names(garden: Garden) -> None:
    await garden.create(call(), shell("a", "cat /etc/hosts /etc/resolv.conf; hostname"))
    await garden.run(call(), "a")
    await garden.wait("a")
    text = [line.text async for line in garden.logs("a")]
    assert "127.0.0.1 localhost" in text
    assert f"{garden.containers()[0].network.address} a" in text
    assert not any(line.startswith("nameserver 127.") for line in text)


def _uplink_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        address: str = probe.getsockname()[0]
        return address
