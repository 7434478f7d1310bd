"""The cell's table is put back, whole, whatever somebody did to it; and what egress rules log is told."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cells.garden.garden import Garden
from cells.garden.network.events import EgressLogged, FirewallNotRestored, FirewallRestored, NetworkEvent
from cells.garden.network.nft_rules import LOG_BURST, LOG_PER_SECOND
from cells.garden.spec import EgressRule
from tests.kernel.containers import call
from tests.kernel.outside import PRIVATE, Outside, answers
from tests.kernel.test_egress import WEB, sleeper, table
from tests.slowness import patient

pytestmark = pytest.mark.kernel

DAMAGES = {
    "table deleted": ["delete table inet {table}"],
    "chain emptied": ["flush chain inet {table} through"],
    "rule added": ["insert rule inet {table} to_host accept"],
    "element added": ["add element inet {table} published {{ 1 : 10.0.0.1 . 1 }}"],
    "container opened": ["add rule inet {table} out_{link} accept"],
    "replaced by another": ["delete table inet {table}", "add table inet {table}"],
}


class Heard:
    """What a garden told, to wait for."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[NetworkEvent] = asyncio.Queue()

    async def next(self) -> NetworkEvent:
        async with asyncio.timeout(patient(30)):
            return await self.events.get()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def told(new_garden: Callable[..., Any], heard: Heard) -> Garden:
    """A garden that tells."""
    garden: Garden = await new_garden(tell=heard.events.put_nowait)
    return garden


def nft(*lines: str) -> None:
    subprocess.run(["nft", "-f", "-"], input="".join(line + "\n" for line in lines), text=True, check=True)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damage_is_undone_at_once(told: Garden, heard: Heard, damage: str) -> None:
    await sleeper(told, egress=(WEB,))
    whole = table(told)
    names = {"table": told.config.nft_table, "link": told._boxes["a"].interface}
    nft(*(line.format(**names) for line in DAMAGES[damage]))
    assert table(told) != whole
    assert await heard.next() == FirewallRestored("somebody changed the table")
    assert table(told) == whole
    # Our own changes are not taken for somebody's.
    await told.destroy(call(), "a")
    await asyncio.sleep(0)
    assert heard.events.empty()


async def test_tables_of_others_are_nothing_to_us(told: Garden, heard: Heard) -> None:
    other = told.config.nft_table + "x"
    nft(f"add table inet {other}", f"add chain inet {other} c", f"delete table inet {other}")
    await sleeper(told)
    nft(f"delete table inet {told.config.nft_table}")
    assert await heard.next() == FirewallRestored("somebody changed the table")
    assert heard.events.empty()


async def test_a_table_that_cannot_be_put_back_is_told_and_tried_again(
    told: Garden, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cells.garden.network.guard.PAUSE_S", 0.01)
    whole = table(told)
    monkeypatch.setattr(told._host.firewall, "nft_path", "/bin/false")
    nft(f"delete table inet {told.config.nft_table}")
    failed = await heard.next()
    assert isinstance(failed, FirewallNotRestored)
    assert failed.evidence["status"] == 1
    monkeypatch.undo()
    while (event := await heard.next()) == failed:
        pass
    assert event == FirewallRestored("somebody changed the table")
    assert table(told) == whole


async def test_lost_messages_are_taken_for_the_worst(told: Garden, heard: Heard) -> None:
    guard = told._host.guard
    assert guard._socket is not None
    guard._socket.setsockopt(1, 8, 1)  # SO_RCVBUF: as little as can be
    other = told.config.nft_table + "x"
    flood = [f"add chain inet {other} c{number}" for number in range(200)]
    nft(f"add table inet {other}", *flood, f"delete table inet {other}")
    assert await heard.next() == FirewallRestored("messages were lost")


async def test_logged_packets_are_told_with_their_container(told: Garden, heard: Heard, outside: Outside) -> None:
    rules = (
        EgressRule("tcp", (PRIVATE,), ((80, 80),), log=True),
        EgressRule("tcp", (PRIVATE,), ((443, 443),)),
        EgressRule("icmp", (PRIVATE,), icmp_type=8, log=True),
    )
    await sleeper(told, "some-handle", egress=rules)
    (container,) = told.containers()
    with outside.serving():
        assert answers(told, "some-handle", [("tcp", PRIVATE, 443), ("tcp", PRIVATE, 80)]) == ["open", "open"]
        web = await heard.next()
        assert answers(told, "some-handle", [("icmp", PRIVATE, 0)]) == ["open"]
        ping = await heard.next()
        assert isinstance(web, EgressLogged)
        assert (web.handle, web.protocol, web.destination_port) == ("some-handle", "tcp", 80)
        assert (web.source, web.destination) == (container.network.address, PRIVATE)
        assert isinstance(ping, EgressLogged)
        assert (ping.protocol, ping.icmp_type, ping.icmp_code) == ("icmp", 8, 0)
        # Whoever makes many connections has all of them, and is told of by some.
        began_s = time.monotonic()
        assert answers(told, "some-handle", [("tcp", PRIVATE, 80)] * 100) == ["open"] * 100
        most = LOG_BURST + LOG_PER_SECOND * (time.monotonic() - began_s) + 1
    told._host.packet_log._read()
    assert 10 <= heard.events.qsize() <= most


async def test_two_gardens_have_a_group_each(told: Garden, new_garden: Callable[..., Any], heard: Heard) -> None:
    other = await new_garden()
    other._host.packet_log.close()
    # The same name asks for the same group first.
    other._host.packet_log.open(told.config.nft_table)
    assert other._host.packet_log.group == told._host.packet_log.group + 1


FLUSH = """
import asyncio, json, os, socket, subprocess, sys
sys.path[:] = json.loads(sys.argv[1])
from ipaddress import IPv4Network
from cells.garden.network.firewall import Firewall
from cells.garden.network.guard import Guard
from cells.garden.network.nft_elements import Elements
from cells.garden.network.ruleset import Policy
from cells.garden.spec import EgressRule, Network

def listed():
    return subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout

async def main():
    firewall = Firewall(Policy("t", "cl", (IPv4Network("10.0.0.0/24"),), "192.0.2.1", log_group=7), "nft")
    events = asyncio.Queue()
    guard = Guard(firewall, events.put_nowait)
    guard.open()
    rules = (EgressRule("tcp", ("10.1.0.0/16", "10.3.0.0/16"), ((80, 80), (443, 443))),)
    await firewall.prepare([])
    for number in range(2, 102):
        await firewall.add(Elements(f"cl{number}", Network(f"10.0.0.{number}", "192.0.2.1"), "handle", rules))
    await firewall.restore()
    whole = listed()
    assert events.empty()
    for _ in range(2):
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        print(await asyncio.wait_for(events.get(), float(sys.argv[2])))
        assert listed() == whole
    await guard.close()
    firewall.close()

asyncio.run(main())
"""


def test_flushed_ruleset_comes_back_with_all_containers() -> None:
    """On a network of its own: nobody else's rules are flushed."""
    argv = ["unshare", "-n", sys.executable, "-c", FLUSH, json.dumps(sys.path), str(patient(30))]
    finished = subprocess.run(argv, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("somebody changed the table") == 2
