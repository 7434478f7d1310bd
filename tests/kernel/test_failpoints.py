"""kill -9 of the process that owns a garden at every side effect of every operation; the next garden goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from attrs import asdict, define, evolve

from cells.garden.cgroups import SANDBOXES
from cells.garden.config import GardenConfig
from cells.garden.garden import Garden
from cells.garden.network import links
from cells.garden.processes import strangers
from cells.garden.spec import ProcessSpec
from diego_py.embedded import host_sweep
from diego_py.service.clock import SystemClock
from tests.kernel.containers import SOON_S, call, cgroup_trees, every_runtime, shell, start
from tests.kernel.failpoints import HANDLE, SIDECAR, SIDECAR_SCRIPT, WAITS
from tests.orphans import reap_dead
from tests.slowness import patient

pytestmark = pytest.mark.kernel

OWNERS = 2
"""That die side by side: one for each processor of the smallest machine we test on."""
ANSWER_S = patient(10)
PHASES = {"open", "create", "run", "exec", "session", "launch", "attach", "stream in", "stream out"}
PHASES |= {"egress", "sidecar", "stop", "destroy", "close"}
KILLED = -9
SAMPLE = os.environ.get("DIEGO_FAILPOINTS", "3")
"""How many failpoints of each sweep, or `all` (CONTRIBUTING.md)."""
TIMEOUT_S = patient(3600 if SAMPLE == "all" else 120)


@pytest.fixture(autouse=True)
def orphans(host_sweep: None) -> Iterator[None]:
    """Helpers of a killed owner end as children of this process, which is a subreaper. They are nobody's fault."""
    yield
    reap_dead()


@define
class Owners:
    """Owners of one garden, one after the other."""

    config: GardenConfig
    report: Path
    _process: asyncio.subprocess.Process

    async def live(self, scenario: str, kill_at: int | None) -> int:
        """One owner's life; how it ended."""
        asked = {"config": msgspec.to_builtins(asdict(self.config)), "scenario": scenario}
        asked |= {"kill_at": kill_at, "report": str(self.report)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        return int(await self._process.stdout.readline())


@asynccontextmanager
async def owners_of(config: GardenConfig, report: Path) -> AsyncIterator[Owners]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.kernel.failpoints",
        stdin=pipe,
        stdout=pipe,
        stderr=None,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    try:
        yield Owners(config, report, process)
    except BaseException:
        await _clear_away(config)
        raise
    finally:
        process.stdin.close()
        await process.wait()


async def _clear_away(config: GardenConfig) -> None:
    """After a failure more may be left than the next garden, or the end of the test, expects."""
    parts = Path(config.state_dir), config.interface_prefix, config.nft_table, config.cgroup_parent
    await asyncio.to_thread(host_sweep.remove, host_sweep.CellNames(*parts))


def worth_dying_at(effects: list[str]) -> list[int]:
    """Numbers of side effects; of several equal ones in a row (a tree that is removed) the first and the last."""
    inner = zip(effects, effects[1:], effects[2:], strict=False)
    same = {number for number, (before, this, after) in enumerate(inner, start=2) if before == this == after}
    return [number for number in range(1, len(effects) + 1) if number not in same]


def chosen(numbers: list[int]) -> list[int]:
    """All, or as many as are asked for, by a seed that is printed."""
    if SAMPLE == "all":
        return numbers
    seed = int(os.environ.get("DIEGO_FAILPOINTS_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"a sample of {len(numbers)} failpoints; the same again: DIEGO_FAILPOINTS_SEED={seed}")
    return sorted(random.Random(seed).sample(numbers, min(int(SAMPLE), len(numbers))))


LIVES = {
    "prepared sandboxes": {"sandboxes_ready": 3},
    "no sandbox ready": {"sandboxes_ready": 0},
}
VOLUMES = {
    "subvolumes": {"sandboxes_ready": 0, "volumes_store_mb": 256},
    "images": {"sandboxes_ready": 0, "disk_driver": "loop"},
}


@pytest.mark.timeout(TIMEOUT_S)
@every_runtime
@pytest.mark.parametrize("settings", LIVES.values(), ids=LIVES.keys())
async def test_killed_at_every_side_effect(
    new_config: Callable[..., GardenConfig], tmp_path: Path, settings: dict[str, Any]
) -> None:
    await _killed_everywhere([new_config(**settings) for _ in range(OWNERS)], tmp_path, PHASES)


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("settings", VOLUMES.values(), ids=VOLUMES.keys())
async def test_killed_at_every_side_effect_on_volumes(
    new_config: Callable[..., GardenConfig], tmp_path: Path, settings: dict[str, Any]
) -> None:
    await _killed_everywhere([new_config(**settings) for _ in range(OWNERS)], tmp_path, {"open", "create", "destroy"})


@pytest.mark.timeout(TIMEOUT_S)
@every_runtime
async def test_killed_at_every_side_effect_of_a_restart(
    new_config: Callable[..., GardenConfig], tmp_path: Path
) -> None:
    """A garden that finds whole and half-built containers is killed half-way; the next one has them all the same."""
    await _killed_everywhere([new_config(sandboxes_ready=3) for _ in range(OWNERS)], tmp_path, {"restart"})


async def _killed_everywhere(configs: list[GardenConfig], tmp_path: Path, phases: set[str]) -> None:
    """In some phases, or at a sample of what they have."""
    scenario = _restarted if phases == {"restart"} else _lived
    async with contextlib.AsyncExitStack() as stack:
        all_owners = [
            await stack.enter_async_context(owners_of(config, tmp_path / f"effects-{number}"))
            for number, config in enumerate(configs)
        ]
        assert await scenario(all_owners[0], None) == 0
        effects: list[str] = json.loads(all_owners[0].report.read_text())
        assert phases <= {_phase(effect) for effect in effects} <= {*PHASES, "restart"}
        if scenario is _restarted:
            await _go_on(all_owners[0].config)
        numbers = chosen([number for number in worth_dying_at(effects) if _phase(effects[number - 1]) in phases])
        waiting = iter(numbers)
        found = await asyncio.gather(*(_sweep(owners, scenario, waiting, effects) for owners in all_owners))
        failures = [failure for each in found for failure in each]
        assert not failures, f"{len(failures)} of {len(numbers)}:\n" + "\n".join(failures)


def _phase(effect: str) -> str:
    return effect.partition(":")[0]


async def _lived(owners: Owners, number: int | None) -> int:
    return await owners.live("live", number)


async def _restarted(owners: Owners, number: int | None) -> int:
    assert await owners.live("leave", None) == KILLED
    return await owners.live("restart", number)


async def _sweep(
    owners: Owners, scenario: Callable[[Owners, int], Awaitable[int]], numbers: Iterator[int], effects: list[str]
) -> list[str]:
    failures = []
    for number in numbers:
        ended = await scenario(owners, number)
        try:
            assert ended in (KILLED, 0), f"the owner ended with {ended}"
            await _go_on(owners.config)
        except Exception as failure:
            said = "; ".join([f"{type(failure).__name__}: {failure}", *map(str, _causes(failure))])
            failures.append(f"{number}, {effects[number - 1]}: {said}")
            await _clear_away(owners.config)
    return failures


def _causes(failure: BaseException) -> Iterator[BaseException]:
    while (failure := failure.__cause__ or failure.__context__) is not None:  # type: ignore[assignment]
        yield failure


async def _go_on(config: GardenConfig) -> None:
    """The next garden has the whole container or nothing of it."""
    # With no sandbox ready: what is there then is a container's, or was left.
    garden = Garden(evolve(config, sandboxes_ready=0), SystemClock())
    found = {container.handle: container for container in await garden.start()}
    try:
        assert found.keys() in (set(), {HANDLE}, {HANDLE, SIDECAR}, {HANDLE, SIDECAR, WAITS})
        if WAITS in found:
            assert {found[handle].state for handle in (HANDLE, SIDECAR)} == {"running"}
            await garden.run(call(), WAITS)
            assert (await garden.wait(WAITS)).status == 8
            await garden.destroy(call(), WAITS)
        if not found:
            assert _left(config) == []
            await start(garden, shell(HANDLE, "exit 0", ports=(8080,)))
            assert (await garden.wait(HANDLE)).status == 0
        elif found[HANDLE].state == "exited":
            await garden.wait(HANDLE)
        else:
            if found[HANDLE].state == "created":
                await garden.run(call(), HANDLE)
            if await _answers(garden, found[HANDLE].network.ports[0].host_port):
                assert (await garden.exec(call(), HANDLE, ProcessSpec("/bin/true"), SOON_S)).status == 0
                await _go_on_beside(garden, found[SIDECAR].state if SIDECAR in found else None)
                assert _foreign(garden) == []
            assert (await garden.stop(call(), HANDLE, grace_s=SOON_S)).status == 3
        await garden.destroy(call(), HANDLE)
        assert _left(config) == []
    finally:
        await garden.close()


def _foreign(garden: Garden) -> list[int]:
    """Who is in a container and did not come from its own process: nobody is left to want it."""
    boxes, inside = garden._boxes.values(), garden._host.cgroups.processes
    return [pid for box in boxes for pid in strangers(inside(box.handle), box.init.pid, box.holder.pid)]


async def _go_on_beside(garden: Garden, state: str | None) -> None:
    """A container that goes on has its whole sidecar too, or can be given one."""
    if state is None:
        await garden.create(call(), shell(SIDECAR, SIDECAR_SCRIPT, sandbox_of=HANDLE))
    if state != "running":
        await garden.run(call(), SIDECAR)
    assert (await garden.exec(call(), SIDECAR, ProcessSpec("/bin/true"), SOON_S)).status == 0


async def _answers(garden: Garden, port: int) -> bool:
    """The container's server does through its published port, though it may just be starting.

    No, and rightly so, when the last garden had just told its process to end.
    """
    async with asyncio.timeout(ANSWER_S):
        while garden.activity(HANDLE) != "ended":
            with contextlib.suppress(OSError, IndexError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /index.html HTTP/1.0\r\n\r\n")
                answer = await reader.read()
                writer.close()
                assert answer.splitlines()[-1] == b"hello"
                return True
            await asyncio.sleep(0.01)
    return False


def _left(config: GardenConfig) -> list[str]:
    """What of any container of this garden is on the host."""
    state = Path(config.state_dir)
    places = [state / "containers", state / "runtime", *state.glob("volumes/*/")]
    found = [str(path) for place in places for path in place.iterdir()]
    groups = [path for tree in cgroup_trees() for path in Path(f"{tree}{config.cgroup_parent}").glob("*/")]
    found += [str(path) for path in groups if path.name != SANDBOXES]  # Of the garden; host_sweep looks into them.
    found += links.ours(config.interface_prefix)
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    kept = [f" {state}/{name} " for name in ("volumes", "containers", "runtime")]
    found += [line for line in mounts if f"{state}/" in line and not any(each in line for each in kept)]
    for kind, name in (("set", "sources"), ("map", "published")):
        listed = subprocess.run(
            ["nft", "list", kind, "inet", config.nft_table, name], check=True, capture_output=True, text=True
        ).stdout
        found += [name] if "elements" in listed else []
    return found
