"""Where a container can connect to, and how it is told that it cannot. See also tests/kernel/test_network.py."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cells.garden.garden import Garden
from tests.kernel.containers import start, until_printed
from tests.kernel.security.probing import Ways, inside, table

pytestmark = pytest.mark.kernel

METADATA = "169.254.169.254"
PRIVATE = ("10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "224.0.0.1")
REFUSED = {"ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "EACCES"}


@pytest.mark.parametrize("user", ["root", "vcap"])
async def test_denied_addresses_are_refused_at_once(
    garden: Garden, each_way: Ways, host_address: str, user: str
) -> None:
    """Metadata, private networks, the host by each of its addresses, a neighbour: told, not timed out."""
    await start(garden, inside("peer", "httpd -p 8080 -h / && echo ready && exec sleep 600"))
    await until_printed(garden, "peer", "ready")
    peer = next(each for each in garden.containers() if each.handle == "peer").network.address
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = str(listener.getsockname()[1])
        tried = {METADATA: "80", peer: "8080", host_address: port, garden._host.addresses.gateway: port}
        tried |= dict.fromkeys(PRIVATE, "80")
        script = "probe connect " + " ".join(f"{address} {port}" for address, port in tried.items())
        for lines in (await each_way(script, user)).values():
            answers = table(lines)
            assert answers.keys() == tried.keys()
            assert {address: answer for address, answer in answers.items() if answer not in REFUSED} == {}


async def test_own_loopback_works(each_way: Ways) -> None:
    """The walls are not merely a network that is down."""
    script = "httpd -p 127.0.0.1:$((8000 + $$)) -h / ; probe connect 127.0.0.1 $((8000 + $$))"
    for lines in (await each_way(script)).values():
        assert lines == ["127.0.0.1 ok"]


async def test_network_cannot_be_reconfigured(each_way: Ways) -> None:
    script = """
        ip address add 198.18.9.9/32 dev eth0 2>/dev/null && echo address
        ip link set eth0 down 2>/dev/null && echo link
        ip link set eth0 address 02:00:00:00:00:01 2>/dev/null && echo hardware address
        ip route add 198.18.0.0/16 dev eth0 2>/dev/null && echo route
        ip neigh add 198.18.9.9 lladdr 02:00:00:00:00:01 dev eth0 2>/dev/null && echo neighbour
        iptables -L >/dev/null 2>&1 && echo tables
        true
    """
    assert set(map(tuple, (await each_way(script)).values())) == {()}


async def test_sockets_of_the_host_are_not_seen(each_way: Ways) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = f":{listener.getsockname()[1]:04X} "
        assert number in Path("/proc/net/tcp").read_text()
        for lines in (await each_way("cat /proc/net/tcp /proc/net/unix")).values():
            assert not [line for line in lines if number in line or "systemd" in line or "docker" in line]


async def test_ping_without_raw_sockets(each_way: Ways) -> None:
    for lines in (await each_way("probe sockets | grep -E '^(ping|raw|packet) '", "vcap")).values():
        assert table(lines) == {"ping": "ok", "raw": "EPERM", "packet": "EPERM"}
