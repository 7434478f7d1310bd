"""A whole installation with a machine for each process: Postgres, BBSes and cells, each in its network namespace."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from attrs import define, field, frozen

from diego_py.embedded import host_sweep
from diego_py.embedded.cluster_layout import CellLayout, cell_layout, cell_settings, claim_slot, release_slot
from tests.chain.answers import Answer
from tests.chain.awaited import until
from tests.chaos import audit, clocks
from tests.chaos.harms import Harms
from tests.chaos.member import Member
from tests.chaos.network import Host, Network
from tests.chaos.postgres import ClockedPostgres
from tests.kernel.containers import make_busybox

CLIENT, POSTGRES = "client", "postgres"
POSTGRES_PORT, BBS_PORT, CELL_PORT = 5432, 8889, 1800
MEMORY_MB = 1024
DISK_MB = 256
ANSWER_TIMEOUT_S = 90.0
DIEGO = Path(sys.executable).parent / "diego"


@frozen
class Timing:
    """How patient an installation is. Bounds of faults are counted in these."""

    presence_ttl_s: float
    leader_ttl_s: float
    convergence_interval_s: float
    report_interval_s: float

    def of_bbs(self) -> dict[str, Any]:
        names = ("presence_ttl_s", "leader_ttl_s", "convergence_interval_s")
        return {name: getattr(self, name) for name in names}


QUICK = Timing(presence_ttl_s=3.0, leader_ttl_s=3.0, convergence_interval_s=0.2, report_interval_s=0.5)
PRODUCTION = Timing(presence_ttl_s=15.0, leader_ttl_s=15.0, convergence_interval_s=1.0, report_interval_s=5.0)
"""The defaults of the products' settings."""


@define
class Fleet:
    """Built in `directory`, over `network`; `start` it, harm it, `stop` it."""

    directory: Path
    image_root: Path
    network: Network
    timing: Timing
    bbs_count: int = 2
    cell_count: int = 2
    bbs_settings: Mapping[str, Any] = field(factory=dict)
    cell_settings: Mapping[str, Any] = field(factory=dict)
    bbses: dict[str, Member] = field(factory=dict, init=False)
    cells: dict[str, Member] = field(factory=dict, init=False)
    layouts: dict[str, CellLayout] = field(factory=dict, init=False)
    _postgres: ClockedPostgres = field(init=False)
    _relay: Member = field(init=False)
    _session: aiohttp.ClientSession = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._postgres = ClockedPostgres(self.directory)

    async def start(self) -> None:
        """Returns when every BBS is ready and knows every cell."""
        bbs_names = [f"bbs-{number}" for number in range(1, self.bbs_count + 1)]
        slot = claim_slot(self.directory)
        layouts = [cell_layout(self.directory, slot, number) for number in range(1, self.cell_count + 1)]
        self.layouts = {layout.cell_id: layout for layout in layouts}
        self.network.build(CLIENT, POSTGRES, *bbs_names, *self.layouts)
        # The other end of the client's connections is watched by no one: the fault is what is tested, not the pool.
        connector = aiohttp.TCPConnector(socket_factory=self.network.hosts[CLIENT].socket, force_close=True, limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        )
        (self.directory / "logs").mkdir()
        await self._postgres.start()
        self._relay = self._postgres_relay()
        await self._relay.start()
        for name in bbs_names:
            self.bbses[name] = self._bbs(name)
        for layout in layouts:
            self.cells[layout.cell_id] = self._cell(layout)
        # One after the other: the first one migrates, and the cells find both.
        for member in self.bbses.values():
            await member.start()
        for member in self.cells.values():
            await member.start()
        for member in self.bbses.values():
            await self.ready(member)
        for member in self.cells.values():
            await self.live(member.name)

    async def stop(self) -> list[str]:
        """End everything and take it away. Returns what is left on the host, and who had ended of itself: nothing."""
        self.network.heal()
        left = [ended for member in (*self.cells.values(), *self.bbses.values()) if (ended := await member.stop())]
        await self._session.close()
        if self._relay.process is not None:
            await self._relay.kill()
        self.thaw_postgres()
        await self._postgres.stop()
        for layout in self.layouts.values():
            left += [str(thing) for thing in await asyncio.to_thread(host_sweep.remove, layout.names)]
        self.network.remove()
        clocks.sweep()
        if not left:
            release_slot(self.directory)
        return left

    async def request(
        self, method: str, path: str, body: object = None, member: str = "bbs-1", **headers: str
    ) -> Answer:
        """One request from the client's host to a BBS or a cell."""
        url = (self.bbses | self.cells)[member].url
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._session.request(method, url + path, json=body, headers=named) as response:
            return Answer(response.status, response.headers.copy(), await response.read())

    async def get(self, url: str) -> Answer:
        """Ask an app, from the client's host."""
        async with self._session.get(url) as response:
            return Answer(response.status, response.headers.copy(), await response.read())

    async def command(self, member: str, *words: str) -> asyncio.subprocess.Process:
        """`diego` with these words on the client's host, over one BBS; its output ends in a pipe."""
        argv = self.network.hosts[CLIENT].command(str(DIEGO), "--bbs", self.bbses[member].url, *words)
        return await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )

    async def ask_and_leave(self, path: str, body: object, member: str) -> None:
        """Send a POST from the client's host and hang up as soon as it has left."""
        host, payload = self.bbses[member].host, json.dumps(body).encode()
        here = self.network.hosts[CLIENT].socket((socket.AF_INET, socket.SOCK_STREAM, 0))
        here.setblocking(False)
        with here:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(here, (host.address, BBS_PORT))
            head = f"POST {path} HTTP/1.1\r\nHost: {host.address}\r\nContent-Length: {len(payload)}\r\n\r\n"
            await loop.sock_sendall(here, head.encode() + payload)

    async def ready(self, member: Member) -> None:
        """Return when this member answers that it is ready."""
        await until(f"{member.name} is ready", lambda: self._says_ready(member.name), 60)

    async def live(self, cell_id: str) -> None:
        """Return when a BBS counts the cell as live."""
        await until(f"{cell_id} is live", lambda: self._is_live(cell_id), 60)

    async def leader(self) -> str:
        """Which BBS leads now by the database; empty when none does."""
        async with self.database() as connection:
            row = await connection.fetchrow("SELECT owner FROM leader WHERE expires_at > clock_timestamp()")
        return row["owner"].partition(":")[0] if row else ""

    async def epoch(self) -> int:
        async with self.database() as connection:
            return int(await connection.fetchval("SELECT epoch FROM leader"))

    @contextlib.asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection that no cut touches."""
        connection = await asyncpg.connect(self._postgres.dsn, timeout=10)
        try:
            yield connection
        finally:
            await connection.close()

    @property
    def harms(self) -> Harms:
        return self.network.harms

    async def kill_postgres(self) -> None:
        """SIGKILL the postmaster; returns when all of the server is dead."""
        self.harms.begin()
        os.kill(self._postgres.pid, signal.SIGKILL)
        await self._postgres.wait()
        await self._postgres.stop()

    async def start_postgres(self, clock: bool = False) -> None:
        """With a clock of its own, which `set_clock` sets, or with the machine's."""
        if clock:
            self.set_clock(POSTGRES, "+0")
        self._postgres.clock = self._clock(POSTGRES) if clock else None
        await self._postgres.start()

    def freeze_postgres(self) -> None:
        self.harms.begin()
        for pid in self._postgres_processes():
            os.kill(pid, signal.SIGSTOP)

    def thaw_postgres(self) -> None:
        for pid in self._postgres_processes():
            os.kill(pid, signal.SIGCONT)

    async def lose_cell(self, cell_id: str) -> None:
        """Take away what a killed cell left running, as if its machine had died."""
        assert self.cells[cell_id].process is None
        left = await asyncio.to_thread(host_sweep.remove, self.layouts[cell_id].names)
        assert left == [], [str(thing) for thing in left]

    def wipe_state(self, cell_id: str) -> None:
        """Remove what the state directory of a killed cell holds, as far as `rm -rf` can: mounts are in its way."""
        assert self.cells[cell_id].process is None
        home = self.layouts[cell_id].state_dir
        kept = self._wiped_logs(cell_id)
        kept.mkdir(parents=True, exist_ok=True)
        # What processes wrote that they were there is ours: the cell loses its logs, the test does not.
        (home / "logs").rename(kept / str(len(list(kept.iterdir()))))
        subprocess.run(("rm", "-rf", *map(str, home.iterdir())), check=False, capture_output=True)

    async def delete_container(self, cell_id: str, handle: str) -> None:
        """Delete a container behind the cell's back, by the runtime's own command."""
        self.harms.begin()
        state = self.layouts[cell_id].state_dir / "runtime"
        argv = ("runc", "--root", str(state), "delete", "--force", handle)
        command = self.cells[cell_id].host.command(*argv)
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        _, said = await process.communicate()
        assert process.returncode == 0, said

    def set_clock(self, member: str, offset: str) -> None:
        """What the clock of a BBS, or of Postgres if it has one, shows from now on, such as `+1h`.

        Its monotonic clock stays.
        """
        self.harms.begin()
        path = self._clock(member)
        fresh = path.with_suffix(".new")
        fresh.write_text(offset + "\n")
        fresh.rename(path)

    def set_memory(self, cell_id: str, memory_mb: int) -> int:
        """What the cell has from its next start on; gives what it had."""
        config = self.directory / f"{cell_id}.json"
        settings = json.loads(config.read_text())
        before, settings["memory_mb"] = int(settings["memory_mb"]), memory_mb
        config.write_text(json.dumps(settings))
        return before

    def containers_on_host(self) -> dict[str, set[str]]:
        """Handles of the containers that each cell's machine really has, whether the cell answers or not."""
        return {cell_id: _handles(layout) for cell_id, layout in self.layouts.items()}

    def witnesses(self, mark: str) -> Counter[str]:
        """How often each word behind `mark` was written by a process of a container, on whichever cell."""
        found: Counter[str] = Counter()
        for layout in self.layouts.values():
            logs = (layout.state_dir / "logs", *self._wiped_logs(layout.cell_id).glob("*"))
            for log in (path for directory in logs for path in directory.glob("*.log*")):
                words = (line.partition(f"{mark} ") for line in log.read_text(errors="replace").splitlines())
                found.update(rest.split()[0] for _, seen, rest in words if seen)
        return found

    def log_lines(self) -> list[tuple[str, dict[str, Any]]]:
        """What every BBS and cell has logged, with its name."""
        lines = []
        for member in (*self.bbses.values(), *self.cells.values()):
            for line in member.log_path.read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    lines.append((member.name, json.loads(line)))
        return lines

    async def _says_ready(self, name: str) -> bool:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            return (await self.request("GET", "/readyz", member=name)).status == 200
        return False

    async def _is_live(self, cell_id: str) -> bool:
        for name, member in self.bbses.items():
            if member.process is not None:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    answer = await self.request("GET", "/v1/cells", member=name)
                    return answer.status == 200 and any(
                        cell["cell_id"] == cell_id and cell["live"] for cell in answer.json["items"]
                    )
        return False

    def _postgres_processes(self) -> list[int]:
        try:
            postmaster = self._postgres.pid
        except Exception:
            return []
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        return [postmaster, *map(int, children)]

    def _postgres_relay(self) -> Member:
        """The server listens on a unix socket only; this is its address on its host."""
        host = self.network.hosts[POSTGRES]
        socket_path = f"{self._postgres.home / 'socket'}/.s.PGSQL.{POSTGRES_PORT}"
        listen = f"TCP-LISTEN:{POSTGRES_PORT},bind={host.address},fork,reuseaddr,backlog=128"
        argv = ("socat", listen, f"UNIX-CONNECT:{socket_path}")
        return Member(POSTGRES, host, "", argv, self.directory / "logs" / "relay.log", self.harms)

    def _bbs(self, name: str) -> Member:
        host = self.network.hosts[name]
        dsn = f"postgresql://postgres@{self.network.hosts[POSTGRES].address}:{POSTGRES_PORT}/postgres?sslmode=disable"
        settings = {"dsn": dsn, "id": name, "listen_host": host.address, "listen_port": BBS_PORT}
        settings |= self.timing.of_bbs() | dict(self.bbs_settings)
        self.set_clock(name, "+0")
        env = clocks.environment(self._clock(name)) if clocks.FAKETIME.exists() else {}
        return self._member(name, "bbs", host, BBS_PORT, settings, env)

    def _cell(self, layout: CellLayout) -> Member:
        layout.state_dir.mkdir(parents=True)
        for path in (layout.state_dir.parent, layout.state_dir):
            path.chmod(0o711)
        host = self.network.hosts[layout.cell_id]
        settings = {
            **cell_settings(layout, self.image_root, MEMORY_MB, DISK_MB),
            "listen_host": host.address,
            "listen_port": CELL_PORT,
            "address": host.address,
            "bbs_urls": [member.url for member in self.bbses.values()],
            "report_interval_s": self.timing.report_interval_s,
            "graceful_stop_s": 2.0,
            "stop_grace_s": 2.0,
            "sandboxes_ready": 1,
            **self.cell_settings,
        }
        return self._member(layout.cell_id, "cells", host, CELL_PORT, settings, {})

    def _member(
        self, name: str, package: str, host: Host, port: int, settings: dict[str, Any], env: dict[str, str]
    ) -> Member:
        config = self.directory / f"{name}.json"
        config.write_text(json.dumps(settings))
        config.chmod(0o600)
        argv = (sys.executable, "-m", package, "--config", str(config))
        log = self.directory / "logs" / f"{name}.log"
        return Member(name, host, f"http://{host.address}:{port}", argv, log, self.harms, env)

    def _wiped_logs(self, cell_id: str) -> Path:
        return self.directory / "wiped" / cell_id

    def _clock(self, name: str) -> Path:
        return self.directory / f"{name}.clock"


def _handles(layout: CellLayout) -> set[str]:
    """A container that exists has a cgroup."""
    parents = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]
    below = [parent / layout.names.cgroup_parent.lstrip("/") for parent in parents]
    found = {path.name for parent in below if parent.is_dir() for path in parent.iterdir() if path.is_dir()}
    return found - {host_sweep.SANDBOXES}


@contextlib.asynccontextmanager
async def installed(directory: Path, timing: Timing, **settings: Any) -> AsyncIterator[Fleet]:
    """A fleet that runs, in an empty directory, and afterwards a host as it was before."""
    directory.chmod(0o711)
    image_root = directory / "images"
    image_root.mkdir(mode=0o711)
    make_busybox(image_root / "busybox")
    fleet = Fleet(directory, image_root, Network(str(os.getpid())), timing, **settings)
    try:
        await fleet.start()
        async with fleet.database() as connection:
            await audit.watch(connection)
        yield fleet
    finally:
        left = await fleet.stop()
    assert left == []
