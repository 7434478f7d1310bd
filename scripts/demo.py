"""The demonstration of scripts/demo: each line is tried for real, measured, and ends the run when it is not so."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from attrs import define

from diego_py.cli import rootfs_busybox
from diego_py.clients.bbs import BbsClient
from diego_py.embedded.cluster import Cluster, ClusterError
from diego_py.errors import (
    DiegoError,
    ExecNotFound,
    NeverHealthy,
    NoCellFits,
    ProcessExited,
)
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence

PARENT = Path("/var/lib")
MOVED_WITHIN_S = 45.0
ADOPTED_WITHIN_S = 15.0
GREETING = "hello from the demo"
SERVE = (
    'mkdir -p /tmp/www && echo "$GREETING" > /tmp/www/index.html; trap "exit 0" TERM; '
    "httpd -f -p 8080 -h /tmp/www & wait"
)


class NotSo(Exception):
    """A line of the demonstration is not true."""


@define
class Demo:
    """One run."""

    cluster: Cluster
    bbs: BbsClient
    http: aiohttp.ClientSession

    @contextmanager
    def line(self, text: str) -> Iterator[list[str]]:
        """Print a line with its time; what the body appends is added. A failure ends the run."""
        began_s = time.monotonic()
        more: list[str] = []
        try:
            yield more
        except (NotSo, ClusterError, DiegoError, OSError, aiohttp.ClientError, KeyError) as reason:
            print(f"✗ {seconds(began_s)}  {text}: {type(reason).__name__}: {reason}", flush=True)
            raise NotSo(text) from reason
        print(f"✓ {seconds(began_s)}  {text}{': ' if more else ''}{'; '.join(more)}", flush=True)

    async def run(self) -> None:
        """The six promises, in order."""
        await self.web_server()
        await self.no_such_command()
        await self.too_large()
        await self.dies_at_once()
        await self.never_healthy()
        await self.cell_killed()
        await self.scale_and_delete()

    async def web_server(self) -> None:
        """1: one call, two instances, reachable at both of their addresses."""
        with self.line("two web servers run when the one request answers 201") as more:
            placed = await self.bbs.desire(lrp("web", SERVE, instances=2))
            check(len(placed.actual_lrps) == 2, "two instances in the answer")
            more.append(", ".join(f"{one.index} on {one.cell_id}" for one in placed.actual_lrps))
        with self.line("both answer at the container's address and at the host's") as more:
            for one in placed.actual_lrps:
                for url in urls(one):
                    check(await self.get(url) == GREETING, f"{url} says what its environment says")
                    more.append(url)

    async def no_such_command(self) -> None:
        """2: the whole chain down to the runtime's words, and nothing left."""
        before = {str(thing) for thing in self.cluster.leftovers()}
        with self.line("a start command that does not exist: 500 with the chain down to runc") as more:
            definition = lrp("typo", "")
            definition["action"]["run"] |= {"path": "/no/such/program", "args": []}
            error = await self.refused(definition, ExecNotFound, 500, "app", on_failure="rollback")
            hops = [frame["hop"] for frame in error.problem["chain"]]
            check(hops == ["bbs", "auction", "rep", "garden", "runc"], f"hops are {hops}")
            told = str(error.problem["evidence"].get("runtime_log"))
            check("/no/such/program" in told, "the runtime's own message is in the evidence")
            more += [" → ".join(hops), error.problem["detail"][-60:]]
        with self.line("and nothing of it is left on the host"):
            left = {str(thing) for thing in self.cluster.leftovers()} - before
            check(not left, f"left: {sorted(left)}")

    async def too_large(self) -> None:
        """3: need and have of every cell."""
        with self.line("more memory than any cell has: 503 with need and have of each cell") as more:
            definition = lrp("large", "true", memory_mb=999_999)
            error = await self.refused(definition, NoCellFits, 503, "capacity", on_failure="rollback")
            bids = error.problem["placement"]["bids"]
            check({bid["cell"] for bid in bids} == {"cell-1", "cell-2"}, "every cell is there")
            for bid in bids:
                short = bid["lacks"]["memory_mb"]
                check(short["need"] == 999_999 and short["have"] < 999_999, "need and have are numbers")
                more.append(f"{bid['cell']} needs {short['need']} MB, has {short['have']} MB")

    async def dies_at_once(self) -> None:
        """4a: exit status and last words."""
        with self.line("a process that exits with 3: 500 with its status and its last lines") as more:
            definition = lrp("dies", "echo cannot find my configuration; exit 3")
            error = await self.refused(definition, ProcessExited, 500, "app", on_failure="rollback")
            evidence = error.problem["evidence"]
            check(evidence["exit_status"] == 3, f"exit status is {evidence['exit_status']}")
            check("cannot find my configuration" in str(evidence["app_log_tail"]), "its last lines are there")
            more.append(f"exit status 3, said {evidence['app_log_tail']}")

    async def never_healthy(self) -> None:
        """4b: within its start timeout, with the last answer of the check."""
        with self.line(
            "one that never becomes healthy: 500 when its 2 s are over, with the check's last answer"
        ) as more:
            began_s = time.monotonic()
            definition = lrp("sick", "sleep 1000", start_timeout_ms=2_000)
            error = await self.refused(definition, NeverHealthy, 500, "app", on_failure="rollback")
            check(time.monotonic() - began_s < 4, "it took its start timeout and no longer")
            answer = error.problem["evidence"]["check"]["answer"]
            check(bool(answer), "the check's last answer is there")
            more.append(str(answer)[:80])

    async def cell_killed(self) -> None:
        """5: containers outlive their cell, are adopted, and move when it stays away."""
        first = {one.index: one for one in await self.bbs.actual_lrps("web")}
        victim = first[0]
        cell_id = str(victim.cell_id)
        with self.line(f"{cell_id} is killed with -9 and its container still serves"):
            await self.cluster.kill_cell(cell_id)
            for url in urls(victim):
                check(await self.get(url) == GREETING, f"{url} still serves")
        with self.line(f"{cell_id} comes back and adopts it") as more:
            await self.cluster.start_cell(cell_id)
            await self.until(lambda: self.is_running(0, cell_id, victim.instance_guid), ADOPTED_WITHIN_S)
            check(await self.get(urls(victim)[0]) == GREETING, "it serves after the adoption")
            more.append(f"same instance {str(victim.instance_guid)[:8]}, RUNNING, serving")
        with self.line(
            f"{cell_id} is killed for good with its containers: the instance runs on the other cell"
        ) as more:
            await self.cluster.kill_cell(cell_id)
            names = next(layout.names for layout in self.cluster.layouts if layout.cell_id == cell_id)
            left = await asyncio.to_thread(self.cluster.remove_cell, cell_id)
            check(not left, f"the containers of {names.state_dir.name} are gone: {left}")
            other = "cell-2" if cell_id == "cell-1" else "cell-1"
            await self.until(lambda: self.is_running(0, other, None), MOVED_WITHIN_S)
            await self.until(self.nobody_is_suspect, MOVED_WITHIN_S)
            moved = await self.bbs.actual_lrp("web", 0)
            check(await self.get(urls(moved)[0]) == GREETING, "it serves from there")
            more.append(f"RUNNING on {other} at {urls(moved)[0]}")

    async def scale_and_delete(self) -> None:
        """6: each answer is true when it comes, and nothing is left in the end."""
        for count in (5, 1):
            with self.line(f"scale to {count}") as more:
                await self.bbs.scale("web", count)
                running = await self.bbs.actual_lrps("web")
                check([one.state for one in running] == [ActualLRPState.RUNNING] * count, f"{count} are RUNNING")
                for one in running:
                    check(await self.get(urls(one)[0]) == GREETING, f"{one.index} serves")
                more.append(f"{count} RUNNING and serving")
        with self.line("delete"):
            await self.bbs.delete("web")
            check(not await self.bbs.actual_lrps(), "no instance is left")
        with self.line("no process, mount, veth, firewall element, cgroup or directory of ours is left"):
            left = self.cluster.leftovers()
            check(not left, f"left: {[str(thing) for thing in left]}")

    async def refused(
        self, definition: Mapping[str, Any], kind: type[DiegoError], status: int, fault: str, on_failure: Any
    ) -> DiegoError:
        """The error with which a request fails as it should."""
        try:
            await self.bbs.desire(definition, on_failure=on_failure)
        except DiegoError as error:
            told = error.problem
            check(error.find(kind) is not None, f"it is {told['code']}: {told['detail']}")
            check((told["status"], told["fault"]) == (status, fault), f"status {told['status']}, fault {told['fault']}")
            return error
        raise NotSo("it was not refused")

    async def is_running(self, index: int, cell_id: str, instance_guid: str | None) -> bool:
        """The instance is RUNNING there, as this very instance if one is named."""
        one = await self.bbs.actual_lrp("web", index)
        same = instance_guid is None or one.instance_guid == instance_guid
        return one.state is ActualLRPState.RUNNING and one.cell_id == cell_id and same

    async def nobody_is_suspect(self) -> bool:
        """Whether convergence has given up what was on the lost cell."""
        return all(one.presence is Presence.ORDINARY for one in await self.bbs.actual_lrps("web"))

    async def until(self, holds: Callable[[], Awaitable[bool]], within_s: float) -> None:
        """Look again and again. Raises TimeoutError."""
        deadline_s = time.monotonic() + within_s
        while not await holds():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"not so within {within_s:.0f} s")
            await asyncio.sleep(0.1)

    async def get(self, url: str) -> str:
        """What a web server says."""
        async with self.http.get(url, timeout=aiohttp.ClientTimeout(total=5)) as response:
            check(response.status == 200, f"{url} answers {response.status}")
            return (await response.text()).strip()


def lrp(guid: str, script: str, **changes: Any) -> dict[str, Any]:
    """A definition as it stands in JSON: a shell script with an HTTP check on port 8080."""
    return {
        "process_guid": guid,
        "domain": "demo",
        "rootfs": f"preloaded:{rootfs_busybox.NAME}",
        "memory_mb": 64,
        "ports": [8080],
        "environment_variables": [{"name": "GREETING", "value": GREETING}],
        "action": {"run": {"path": "sh", "args": ["-c", script], "user": "vcap"}},
        "check_definition": {"checks": [{"http": {"port": 8080}}]},
        "start_timeout_ms": 20_000,
        **changes,
    }


def urls(instance: ActualLRP) -> list[str]:
    """At the container's own address, and at the host's."""
    net_info = instance.net_info
    check(net_info is not None and len(net_info.ports) == 1, "the instance has its addresses")
    assert net_info is not None
    port = net_info.ports[0]
    inside = f"http://{net_info.instance_address}:{port.container_port}/"
    return [inside, f"http://{net_info.address}:{port.host_port}/"]


def check(so: bool, what: str) -> None:
    """Raises NotSo."""
    if not so:
        raise NotSo(what)


def seconds(began_s: float) -> str:
    return f"{time.monotonic() - began_s:6.2f} s"


async def main() -> int:
    """Start a cluster, show it, take all of it away. Returns the exit status."""
    began_s = time.monotonic()
    state_dir = Path(tempfile.mkdtemp(prefix="diego-demo-", dir=PARENT))
    cluster = Cluster(
        state_dir,
        cells=2,
        image_root=state_dir / "rootfs",
        memory_mb=1_000,
        durable=False,
        cell_settings={"disk_mb": 10_000},
    )
    so = False
    try:
        rootfs_busybox.add(cluster.image_root)
        async with cluster, BbsClient(cluster.url) as bbs, aiohttp.ClientSession() as http:
            print(f"✓ {seconds(began_s)}  Postgres, a BBS and two cells run", flush=True)
            await Demo(cluster, bbs, http).run()
            so = True
    except (NotSo, ClusterError) as reason:
        print(f"{reason}\n" + "".join(log_end(cluster, name) for name in ("bbs", "cell-1", "cell-2")), file=sys.stderr)
    finally:
        left = await cluster.purge()
        shutil.rmtree(state_dir, ignore_errors=True)
    if left:
        print(f"✗ left on the host: {[str(thing) for thing in left]}")
    so = so and not left
    print(
        f"{'✓' if so else '✗'} {seconds(began_s)}  {'all of it is so' if so else 'NOT so'}, and cleaned up", flush=True
    )
    return 0 if so else 1


def log_end(cluster: Cluster, name: str) -> str:
    """The last lines of a process's log, for whoever has to find out."""
    return f"--- the end of {name}'s log\n{cluster.log_tail(name)[-1500:]}\n"


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
