"""IPv6 of containers, in a garden on a network of its own: what the host's other users have must not change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from attrs import asdict

from cells.garden import processes

pytestmark = pytest.mark.kernel

SCENARIO = """
import asyncio, json, subprocess, sys, os
sys.path[:] = json.loads(sys.argv[1])
import msgspec
from cells.garden.children import become_subreaper
from cells.garden.config import GardenConfig
from cells.garden.garden import Garden
from cells.garden.spec import EgressRule
from diego_py.service.clock import SystemClock
from tests.kernel.containers import call, shell, spec, start, until_printed
from tests.kernel.outside import SERVE, answers, inside
from tests.slowness import patient

PUBLIC, LOCAL, LOCAL_TOO = "2001:db8:1::2", "fd55::2", "fd55::3"

def ip(*argv):
    subprocess.run(["ip", *argv], check=True)

def machine():
    # A process holds the other machine's network; it ends with its input.
    holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo ready; exec cat"], stdin=-1, stdout=-1, text=True)
    assert holder.stdout.readline() == "ready\\n"
    enter = ["nsenter", "-n", "-t", str(holder.pid)]
    ip("link", "set", "lo", "up")
    ip("link", "add", "up0", "type", "veth", "peer", "name", "up1", "netns", str(holder.pid))
    ip("link", "set", "up0", "up")
    ip("address", "add", "2001:db8:1::1/64", "dev", "up0", "nodad")
    def inner(*argv):
        subprocess.run([*enter, "ip", *argv], check=True)
    inner("link", "set", "lo", "up")
    inner("link", "set", "up1", "up")
    inner("address", "add", PUBLIC + "/64", "dev", "up1", "nodad")
    inner("route", "add", "default", "via", "2001:db8:1::1")
    for address in (LOCAL, LOCAL_TOO):
        inner("address", "add", address + "/128", "dev", "up1", "nodad")
        ip("route", "add", address + "/128", "via", PUBLIC)
    serve = SERVE.replace('create_server(("", port))', 'create_server(("", port), family=socket.AF_INET6)')
    serve = serve.replace("AF_INET,", "AF_INET6,")
    settings = json.dumps([[PUBLIC, LOCAL, LOCAL_TOO], [80, 8080], [53]])
    server = subprocess.Popen([*enter, "/usr/bin/python3", "-c", serve, settings], stdout=-1, text=True)
    assert server.stdout.readline() == "ready\\n"
    return [server, holder]

SEND = '''
import socket, sys
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
    sender.settimeout(float(sys.argv[3]))
    sender.bind((sys.argv[1], 0))
    sender.sendto(b"x", (sys.argv[2], 53))
    try:
        print(sender.recv(100).decode())
    except TimeoutError:
        print("silent")
'''

async def scenario(garden):
    found = {}
    rules = (EgressRule("tcp", (LOCAL,), ((80, 80),)), EgressRule("icmpv6", ("fd55::/64",), icmp_type=128, icmp_code=0))
    serve = "httpd -p 8080 -h /srv/www && echo ready && exec sleep 600"
    await start(garden, shell("peer", serve))
    await until_printed(garden, "peer", "ready")
    await start(garden, spec("a", "/bin/sleep", "600", egress=rules))
    peer, own = ({c.handle: c.network.address6 for c in garden.containers()}[name] for name in ("peer", "a"))
    asked = [("tcp", PUBLIC, 80), ("tcp", LOCAL, 80), ("tcp", LOCAL, 8080), ("tcp", LOCAL_TOO, 80),
             ("icmp", LOCAL_TOO, 0), ("tcp", peer, 8080), ("tcp", "fd77::1", 8080), ("tcp", "2001:db8:1::1", 8080)]
    found["answers"] = answers(garden, "a", asked)
    await garden.set_egress(call(), "a", (EgressRule("all", ("fd77::/64",)),))
    found["named"] = answers(garden, "a", [("tcp", peer, 8080), ("tcp", LOCAL, 80)])
    words = inside(garden, "a")
    subprocess.run([*words, "ip", "address", "add", "fd77::ffff/128", "dev", "eth0", "nodad"], check=True)
    def send(source):
        argv = [*words, "/usr/bin/python3", "-c", SEND, source, PUBLIC, str(patient(1))]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    found["sources"] = [send("fd77::ffff"), send(own)]
    await start(garden, shell("names", "cat /etc/hosts /etc/resolv.conf"))
    await garden.wait("names")
    found["etc"] = [line.text async for line in garden.logs("names")]
    found["address"] = {c.handle: c.network.address6 for c in garden.containers()}["names"]
    return found

async def main():
    become_subreaper()
    processes = machine()
    try:
        garden = Garden(msgspec.convert(json.loads(sys.argv[2]), GardenConfig), SystemClock())
        await garden.start()
        try:
            print(json.dumps(await scenario(garden)))
        finally:
            for container in garden.containers():
                await garden.destroy(call(), container.handle)
            await garden.close()
    finally:
        for process in processes:
            process.kill()
            process.wait()

asyncio.run(main())
"""


@pytest.fixture
def orphans(host_sweep: None) -> Iterator[None]:
    """What the garden's process leaves to this one, a subreaper, has ended or is about to: wait for all of it."""
    before = processes.children()
    yield
    for pid in processes.children() - before:
        os.waitpid(pid, 0)


@pytest.mark.usefixtures("orphans")
def test_ipv6(new_config: Callable[..., Any]) -> None:
    config = new_config(
        network6="fd77::/64", host_address="127.0.0.1", dns_servers=("fd55::3",), extra_hosts=("192.0.2.5 db",)
    )
    settings = json.dumps(msgspec.to_builtins(asdict(config)))
    argv = ["unshare", "-n", sys.executable, "-c", SCENARIO, json.dumps(sys.path), settings]
    finished = subprocess.run(argv, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    # Public; a rule's own, and beside it; a container, the gateway and the host.
    assert found["answers"] == ["open", "open", *["refused"] * 2, "open", *["refused"] * 3]
    assert found["named"] == ["open", "refused"]
    # The first is not its own and goes nowhere; out there its own one is the host's.
    assert found["sources"] == ["silent", "2001:db8:1::1"]
    assert f"{found['address']} names" in found["etc"]
    assert "192.0.2.5 db" in found["etc"]
    assert [line for line in found["etc"] if line.startswith("nameserver")] == ["nameserver fd55::3"]
