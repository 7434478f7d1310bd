"""Diego's own wire: both directions of its messages, bulk reads, and changes from many clients, with and without TLS.

The rows of bulk reads are put into the tables. Desires go to simulated cells; claims and starts come from a silent
cell that is known.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import asyncpg
import msgspec
from attrs import asdict, define, field

from bbs.diego_api import codec
from bbs.diego_api.descriptors import MESSAGES
from bbs.labels import labels_of
from bbs.store import labels
from diego_py import wire
from diego_py.embedded import development_ca
from diego_py.embedded.cluster_layout import free_port
from diego_py.models.desired_lrp import DesiredLRPDefinition
from scripts.benchmarks import machine
from scripts.benchmarks.figures import table
from scripts.benchmarks.site import Site, site

LRPS = 10_000
CHANGES = 2_000
CLIENTS = 16
READS = 5
CELL = "silent"
NEVER_S = 3_600.0
REFUSED = 503
PAUSE_S = 0.05
PROTOBUF = {"Content-Type": "application/x-protobuf"}
DIEGO = {
    "desired LRPs read, ms": 336,
    "actual LRPs read, ms": 75,
    "desires a second": 1_024,
    "desires a second, mutual TLS": 680,
    "claims a second": 2_471,
    "starts a second": 2_104,
}
"""Diego's own, on a machine of two cores."""


@define
class Bench:
    """One installation, and a client of it."""

    site: Site
    session: aiohttp.ClientSession
    url: str
    tls: ssl.SSLContext | None = None
    figures: dict[str, float] = field(factory=dict)

    async def ask(self, path: str, body: bytes) -> bytes:
        """What is answered; a request that is told to come again does so."""
        while True:
            told = self.session.post(self.url + path, data=body, headers=PROTOBUF, ssl=self.tls or True)
            async with told as response:
                answer = await response.read()
            if response.status == 200 and answer[:1] != b"\x0a":
                return answer
            if response.status != REFUSED:
                raise RuntimeError(f"{path}: {response.status} {answer[:300]!r}")
            await asyncio.sleep(PAUSE_S)

    async def read(self, path: str, what: str) -> None:
        """The median of some reads, and what one costs the BBS."""
        before_s = self.site.cpu_s()["bbs"]
        await self.ask(path, b"")
        taken, cpu_s = [], self.site.cpu_s()["bbs"]
        self.figures[f"{what} read for the first time, CPU ms of the BBS"] = (cpu_s - before_s) * 1000
        for _ in range(READS):
            began_s = time.perf_counter()
            answer = await self.ask(path, b"")
            taken.append((time.perf_counter() - began_s) * 1000)
        self.figures[f"{what} read, ms"] = median(taken)
        self.figures[f"{what} read, CPU ms of the BBS"] = (self.site.cpu_s()["bbs"] - cpu_s) * 1000 / READS
        self.figures[f"{what} read, MB"] = len(answer) / 1e6

    async def change(self, requests: Iterator[tuple[str, bytes]], count: int, what: str) -> None:
        """So many changes by CLIENTS clients, each with one request under way."""

        async def client() -> None:
            for path, body in requests:
                await self.ask(path, body)

        cpu_s, began_s = self.site.cpu_s()["bbs"], time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(client())
        seconds = time.perf_counter() - began_s
        self.figures[what] = count / seconds
        self.figures[f"{what}, CPU ms of the BBS each"] = (self.site.cpu_s()["bbs"] - cpu_s) * 1000 / count


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench diego_wire", description=__doc__)
    parser.add_argument("--changes", type=int, default=CHANGES, help="Of each kind.")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON, and nothing else")
    parsed = parser.parse_args(arguments)
    facts = machine.facts_of_any()
    figures = _both_directions() | asyncio.run(_measured(parsed.changes))
    if parsed.json:
        print(json.dumps({"facts": facts, "figures": figures}, indent=2))
        return 0
    print("\n".join(f"{name}: {fact}" for name, fact in facts.items()))
    rows = [[name, f"{value:.4g}", f"{DIEGO[name]}" if name in DIEGO else ""] for name, value in figures.items()]
    print(table(["figure", "ours", "Diego's"], rows))
    return 0


def definition(guid: str, **changes: Any) -> dict[str, Any]:
    """About 1.5 KB of message, as a platform sends it."""
    variables = [{"name": f"VARIABLE_{number}", "value": "v" * 40} for number in range(12)]
    route = [{"hostnames": [f"{guid}.apps.test"], "port": 8080, "protocol": "http1"}]
    rules = [
        {"protocol": "tcp", "destinations": ["10.0.0.0-10.255.255.255"], "ports": [443, 8443]},
        {"protocol": "udp", "destinations": ["10.0.0.2"], "ports": [53]},
    ]
    run = {"path": "/bin/sleep", "args": ["1000"], "user": "root", "env": [{"name": "LANG", "value": "C"}]}
    return {
        "process_guid": guid,
        "domain": "bench",
        "rootfs": "preloaded:busybox",
        "instances": 1,
        "environment_variables": variables,
        "action": {"codependent": {"actions": [{"run": run}]}},
        "memory_mb": 1,
        "ports": [8080],
        "routes": {"cf-router": route},
        "annotation": "1700000000.0",
        "egress_rules": rules,
        "metric_tags": {"source_id": {"static": guid}, "instance_id": {"dynamic": "INDEX"}},
        "check_definition": {"checks": [], "log_source": "HEALTH"},
        **changes,
    }


def model(guid: str, **changes: Any) -> DesiredLRPDefinition:
    return wire.convert(DesiredLRPDefinition, definition(guid, **changes))


def message(guid: str, **changes: Any) -> Any:
    stored = wire.to_builtins_revealed(model(guid, **changes))
    return MESSAGES["DesiredLRP"](**codec.outward(stored))


def _both_directions() -> dict[str, float]:
    """The messages alone, of LRPS definitions, in this process."""
    stored = wire.encode_revealed(model("app-0"))
    began_s = time.process_time()
    for _ in range(LRPS):
        body = MESSAGES["DesiredLRP"](**codec.outward(msgspec.json.decode(stored))).SerializeToString()
    written_s = time.process_time() - began_s
    began_s = time.process_time()
    for _ in range(LRPS):
        codec.model(DesiredLRPDefinition, codec.parse("DesiredLRP", body))
    read_s = time.process_time() - began_s
    return {
        "bytes of one LRP": len(body),
        "10,000 LRPs from the store to messages, CPU ms": written_s * 1000,
        "10,000 LRPs from messages to models, CPU ms": read_s * 1000,
    }


async def _measured(changes: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="diego-bench-tls-") as directory:
        files = development_ca.write(development_ca.Authority.make(), Path(directory))
        shown = ssl.create_default_context(cafile=files.authority)
        shown.load_cert_chain(f"{directory}/client.pem", f"{directory}/client.key")
        for tls, context in ((None, None), (asdict(files), shown)):
            port = free_port()
            settings = {
                "diego": {"listen_port": port, "tls": tls},
                "convergence_interval_s": NEVER_S,
                "presence_ttl_s": NEVER_S,
            }
            async with site(10, settings) as made, aiohttp.ClientSession() as session:
                url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
                figures |= await _of_one(Bench(made, session, url, context), changes, ", mutual TLS" if tls else "")
    return figures


async def _of_one(bench: Bench, changes: int, suffix: str) -> dict[str, float]:
    guids = [f"desired-{number}" for number in range(changes)]
    desires = (
        ("/v1/desired_lrp/desire.r2", MESSAGES["DesireLRPRequest"](desired_lrp=message(guid)).SerializeToString())
        for guid in guids
    )
    await bench.change(iter(list(desires)), changes, f"desires a second{suffix}")
    connection = await asyncpg.connect(bench.site.postgres.dsn)
    try:
        await _settled(connection)
        if suffix:
            return bench.figures
        await _report(bench.site)
        await connection.execute("DELETE FROM actual_lrps; DELETE FROM desired_lrps")
        await _claims_and_starts(bench, connection, changes)
        await connection.execute("DELETE FROM actual_lrps")
        await _fill(connection)
    finally:
        await connection.close()
    await bench.read("/v1/desired_lrps/list.r3", "desired LRPs")
    await bench.read("/v1/desired_lrp_scheduling_infos/list", "scheduling infos")
    await bench.read("/v1/actual_lrps/list", "actual LRPs")
    return bench.figures


async def _settled(connection: asyncpg.Connection) -> None:
    """What was desired runs, or was refused: the next figure is not about that."""
    under_way = "SELECT count(*) FROM actual_lrps WHERE state = 'CLAIMED' OR state = 'UNCLAIMED' AND attempts = 0"
    while True:
        if not await connection.fetchval(under_way):
            return
        await asyncio.sleep(PAUSE_S)


async def _claims_and_starts(bench: Bench, connection: asyncpg.Connection, changes: int) -> None:
    await connection.executemany(ACTUAL, _rows(changes, "UNCLAIMED"))
    keys = [({"process_guid": f"app-{number:05}", "domain": "bench"}, _instance(number)) for number in range(changes)]
    net_info = {"address": "192.0.2.1", "ports": [{"container_port": 8080, "host_port": 61000}]}
    claims = [
        MESSAGES["ClaimActualLRPRequest"](process_guid=key["process_guid"], actual_lrp_instance_key=instance)
        for key, instance in keys
    ]
    starts = [
        MESSAGES["StartActualLRPRequest"](
            actual_lrp_key=key, actual_lrp_instance_key=instance, actual_lrp_net_info=net_info
        )
        for key, instance in keys
    ]
    for path, messages, what in (("claim", claims, "claims"), ("start.r1", starts, "starts")):
        bodies = [(f"/v1/actual_lrps/{path}", each.SerializeToString()) for each in messages]
        await bench.change(iter(bodies), changes, f"{what} a second")


ACTUAL = """
    INSERT INTO actual_lrps (process_guid, index, presence, domain, state, instance_guid, cell_id, net_info, since,
                             crash_count, attempts, routable, availability_zone, tag_epoch, tag_index, revision)
    VALUES ($1, 0, 'ORDINARY', 'bench', $2, $3, $4, $5, now(), 0, 0, $6, 'z1', $3, 3, 0)
"""
DESIRED = """
    INSERT INTO desired_lrps (process_guid, domain, instances, memory_mb, disk_mb, rootfs, placement_tags, definition,
                              labels, tag_epoch, tag_index, created_at, updated_at)
    VALUES ($1, 'bench', 1, 1, 0, 'preloaded:busybox', '{}', $2, $3, $1, 0, now(), now())
"""


def _instance(number: int) -> dict[str, str]:
    return {"instance_guid": f"instance-{number:05}-0123456789abcdef", "cell_id": CELL}


def _rows(count: int, state: str) -> Iterator[tuple[Any, ...]]:
    ports = [{"container_port": 8080, "host_port": 61000}, {"container_port": 2222, "host_port": 61001}]
    net_info = msgspec.json.encode({"address": "192.0.2.1", "ports": ports, "instance_address": "10.255.0.1"})
    running = state == "RUNNING"
    for number in range(count):
        guid = _instance(number)["instance_guid"]
        placed = (CELL, net_info) if running else (None, None)
        yield f"app-{number:05}", state, guid, *placed, running


async def _fill(connection: asyncpg.Connection) -> None:
    whole = [model(f"app-{number:05}") for number in range(LRPS)]
    rows = [(lrp.process_guid, wire.encode_revealed(lrp), labels.encoded(labels_of(lrp))) for lrp in whole]
    await connection.executemany(DESIRED, rows)
    await connection.executemany(ACTUAL, _rows(LRPS, "RUNNING"))
    await connection.execute("ANALYZE")


async def _report(site: Site) -> None:
    """Make the silent cell known."""
    room = {"memory_mb": 1, "disk_mb": 1, "containers": 1}
    presence = {"cell_id": CELL, "url": "http://192.0.2.1:1800", "capacity": room, "boot_id": "boot"}
    report = {"presence": presence, "sequence": 1, "available": room}
    (await site.request("POST", f"/v1/cells/{CELL}/report", report)).expect(200)
