"""What egress rules open, and that they open nothing else."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cells.garden.garden import Garden
from cells.garden.spec import EgressRule
from diego_py.errors import DiegoError, InvalidSpec
from tests.kernel.containers import call, shell, spec, start, until_printed
from tests.kernel.outside import PRIVATE, PRIVATE_TOO, PUBLIC, Outside, answers, inside

pytestmark = pytest.mark.kernel

WEB = EgressRule("tcp", (PRIVATE,), ((80, 80), (443, 443)))
METADATA = ("tcp", "169.254.169.254", 80)


async def sleeper(garden: Garden, handle: str = "a", **more: Any) -> None:
    await start(garden, spec(handle, "/bin/sleep", "600", **more))


async def web_server(garden: Garden, **more: Any) -> None:
    script = "httpd -p 8080 -h /srv/www && echo ready && exec sleep 600"
    await start(garden, shell("server", script, **more))
    await until_printed(garden, "server", "ready")


async def test_a_rule_opens_exactly_what_it_names(garden: Garden, outside: Outside) -> None:
    rules = (
        WEB,
        EgressRule("udp", (f"{PRIVATE_TOO}-{PRIVATE_TOO}",), ((53, 60),)),
        EgressRule("icmp", (PRIVATE + "/32",), icmp_type=8, icmp_code=0),
        EgressRule("icmp", (PRIVATE_TOO,), icmp_type=13),
    )
    await sleeper(garden, egress=rules)
    await sleeper(garden, "without")
    asked = {
        ("tcp", PRIVATE, 80): "open",
        ("tcp", PRIVATE, 443): "open",
        ("tcp", PRIVATE, 8080): "refused",
        ("tcp", PRIVATE_TOO, 80): "refused",
        ("udp", PRIVATE, 53): "refused",
        ("udp", PRIVATE_TOO, 53): "open",
        ("udp", PRIVATE_TOO, 5353): "refused",
        ("icmp", PRIVATE, 0): "open",
        ("icmp", PRIVATE_TOO, 0): "refused",
        ("tcp", PUBLIC, 8080): "open",
        METADATA: "refused",
    }
    with outside.serving():
        assert dict(zip(asked, answers(garden, "a", list(asked)), strict=True)) == asked
        private = [each for each in asked if each[1] != PUBLIC]
        assert set(answers(garden, "without", private)) == {"refused"}


async def test_everything_is_not_the_host_nor_the_other_containers(
    new_garden: Callable[..., Any], outside: Outside, host_address: str
) -> None:
    """A published port of the host is what it is on any other cell's host: a rule that covers it opens it."""
    garden, other = await new_garden(), await new_garden()
    for each in (garden, other):
        await web_server(each, ports=(8080,))
    await sleeper(garden, egress=(EgressRule("all", ("0.0.0.0/0",)),))
    (server,) = (each for each in garden.containers() if each.handle == "server")
    (elsewhere,) = other.containers()
    with socket.create_server(("0.0.0.0", 0)) as listener, outside.serving():
        asked = {
            ("tcp", PRIVATE, 8080): "open",
            ("tcp", host_address, server.network.ports[0].host_port): "open",
            ("tcp", host_address, elsewhere.network.ports[0].host_port): "open",
            ("tcp", host_address, listener.getsockname()[1]): "refused",
            ("tcp", garden._host.addresses.gateway, listener.getsockname()[1]): "refused",
            ("tcp", server.network.address, 8080): "refused",
            ("tcp", elsewhere.network.address, 8080): "refused",
        }
        assert dict(zip(asked, answers(garden, "a", list(asked)), strict=True)) == asked
        # Its own published port, by way of the host.
        own = ("tcp", host_address, server.network.ports[0].host_port)
        assert answers(garden, "server", [own]) == ["refused"]
        await garden.set_egress(call(), "server", (EgressRule("tcp", (host_address,), ((own[2], own[2]),)),))
        assert answers(garden, "server", [own]) == ["open"]


async def test_containers_reach_each_other_by_a_rule_within_their_network(garden: Garden) -> None:
    await web_server(garden)
    (server,) = garden.containers()
    address = server.network.address
    await sleeper(garden, "named", egress=(EgressRule("tcp", (address,), ((8080, 8080),)),))
    await sleeper(garden, "network", egress=(EgressRule("all", (garden.config.network,)),))
    await sleeper(garden, "wider", egress=(EgressRule("all", ("10.0.0.0/8",)),))
    asked = [("tcp", address, 8080), ("icmp", address, 0)]
    assert answers(garden, "named", asked) == ["open", "refused"]
    assert answers(garden, "network", asked) == ["open", "open"]
    assert answers(garden, "wider", asked) == ["refused", "refused"]


async def test_closed_by_default(new_garden: Callable[..., Any], outside: Outside) -> None:
    garden = await new_garden(egress_default="closed", dns_servers=(PRIVATE_TOO,))
    await sleeper(garden, egress=(EgressRule("tcp", (PUBLIC,), ((80, 80),)),))
    asked = {
        ("tcp", PUBLIC, 80): "open",
        ("tcp", PUBLIC, 443): "refused",
        ("udp", PUBLIC, 53): "refused",
        ("udp", PRIVATE_TOO, 53): "open",
        ("udp", PRIVATE_TOO, 5353): "refused",
        ("udp", PRIVATE, 53): "refused",
    }
    with outside.serving():
        assert dict(zip(asked, answers(garden, "a", list(asked)), strict=True)) == asked


TALK = """
import socket, sys
with socket.create_connection((sys.argv[1], 80)) as talk:
    for line in sys.stdin:
        talk.send(b"x")
        print(len(talk.recv(10)), flush=True)
"""


async def test_rules_change_live_and_connections_stay(garden: Garden, outside: Outside) -> None:
    await sleeper(garden, egress=(WEB,))
    asked = [("tcp", PRIVATE, 80), ("tcp", PRIVATE, 8080)]
    argv = [*inside(garden, "a"), "/usr/bin/python3", "-c", TALK, PRIVATE]
    with outside.serving(), subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as talk:
        assert talk.stdin is not None
        assert talk.stdout is not None

        def still() -> None:
            print("go", file=talk.stdin, flush=True)
            assert talk.stdout is not None
            assert talk.stdout.readline() == "1\n"

        still()
        assert answers(garden, "a", asked) == ["open", "refused"]
        await garden.set_egress(call(), "a", (EgressRule("tcp", (PRIVATE,), ((8080, 8080),)),))
        assert answers(garden, "a", asked) == ["refused", "open"]
        still()
        await garden.set_egress(call(), "a", ())
        assert answers(garden, "a", asked) == ["refused", "refused"]
        still()
        talk.stdin.close()


async def test_rules_hold_over_a_restart(
    new_garden: Callable[..., Any], new_config: Callable[..., Any], outside: Outside
) -> None:
    config = new_config()
    first = await new_garden(config)
    await sleeper(first)
    await first.set_egress(call(), "a", (WEB,))
    await first.close()
    subprocess.run(["nft", "delete", "table", "inet", config.nft_table], check=True)
    second = await new_garden(config)
    with outside.serving():
        assert answers(second, "a", [("tcp", PRIVATE, 80), ("tcp", PRIVATE, 8080)]) == ["open", "refused"]
    await second.destroy(call(), "a")
    first._boxes.clear()


async def test_a_bad_rule_changes_nothing(garden: Garden) -> None:
    bad = EgressRule("all", ("nowhere",))
    with pytest.raises(DiegoError) as refused:
        await garden.create(call(), spec("a", "/bin/true", egress=(bad,)))
    assert refused.value.find(InvalidSpec) is not None
    assert garden.containers() == []
    await sleeper(garden, egress=(WEB,))
    before = table(garden)
    with pytest.raises(DiegoError):
        await garden.set_egress(call(), "a", (bad,))
    assert table(garden) == before
    await garden.destroy(call(), "a")
    assert "out_" not in table(garden)


async def test_create_and_destroy_without_a_table(garden: Garden) -> None:
    def delete() -> None:
        subprocess.run(["nft", "delete", "table", "inet", garden.config.nft_table], check=True)

    await sleeper(garden, egress=(WEB,))
    whole = table(garden)
    delete()
    await sleeper(garden, "b")
    assert whole.splitlines()[-3] in table(garden)
    delete()
    await garden.destroy(call(), "b")
    assert table(garden) == whole


def table(garden: Garden) -> str:
    """As nft tells it; nothing when there is none. 1.0.6 tells ports in another way in a set that it made itself."""
    argv = ["nft", "list", "table", "inet", garden.config.nft_table]
    text = subprocess.run(argv, check=False, capture_output=True, text=True).stdout
    return re.sub("0x([0-9a-f]+) .invalid type.", lambda found: str(int(found[1], 16)), text)


def test_both_ways_into_the_table_are_the_same() -> None:
    """What netlink requests make of rules, and what nft makes of our text, on a network of its own."""
    argv = ["unshare", "-n", sys.executable, "-c", SAME, json.dumps(sys.path)]
    finished = subprocess.run(argv, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert finished.returncode == 0, finished.stderr
    assert re.fullmatch(r"\d+ chains\n", finished.stdout)
    assert int(finished.stdout.split()[0]) > 5


SAME = """
import asyncio, json, re, subprocess, sys
sys.path[:] = json.loads(sys.argv[1])
from hypothesis import HealthCheck, given, settings
from cells.garden.network.firewall import Firewall
from cells.garden.network.nft_elements import Elements
from cells.garden.network.ruleset import Policy
from cells.garden.spec import Network, PortForward
from tests.unit.cells.garden.network.test_egress import CONTAINERS, rules

made = 0

def listed():
    text = subprocess.run(["nft", "list", "table", "inet", "t"], check=True, capture_output=True, text=True).stdout
    # Of a set of ports that came as text, nft 1.0.6 tells the numbers in another way.
    return re.sub("0x([0-9a-f]+) .invalid type.", lambda found: str(int(found[1], 16)), text)

@settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(rules, rules)
def same(before, after):
    asyncio.run(both(before, after))

async def both(before, after):
    global made
    firewall = Firewall(Policy("t", "cl", CONTAINERS, "192.0.2.1", log_group=7), "nft")
    network = Network("10.0.0.9", "192.0.2.1", (PortForward(80, 61001),), "fd00::9")
    await firewall.prepare([])
    empty = listed()
    await firewall.add(Elements("cl7", network, "handle", before))
    await firewall.set_egress(Elements("cl7", network, "handle", after))
    ours = listed()
    await firewall.restore()
    made += ours.count("chain out_")
    assert ours == listed()
    await firewall.remove(Elements("cl7", network))
    assert listed() == empty
    firewall.close()

same()
print(made, "chains")
"""
