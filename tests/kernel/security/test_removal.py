"""Whatever a container leaves, destroy takes away, and nothing of anybody else's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cells.garden import demolition, processes
from cells.garden.garden import Garden
from cells.garden.spec import Limits
from diego_py.errors import ContainerStuck, DiegoError
from tests.kernel.containers import call, cgroup_trees, output, start, until_printed
from tests.kernel.security.probing import inside
from tests.kernel.slot import CGROUP_PREFIX, LINK_PREFIX, TABLE_PREFIX
from tests.slowness import patient

pytestmark = pytest.mark.kernel

SOON_S = patient(60)
LEFT = {
    "ignores signals": "trap '' TERM INT HUP QUIT; echo ready; while :; do sleep 1; done",
    "fork bomb at its limit": "(while :; do sleep 600 & done); echo ready; exec sleep 600",
    "deep tree": "mkdir /srv/deep; cd /srv/deep; probe deep 10000; echo ready; exec sleep 600",
    "huge directory": "mkdir /srv/huge; cd /srv/huge; seq 20000 | xargs touch; echo ready; exec sleep 600",
    "odd names": "cd /srv; touch -- -rf ' ' '*' \"$(printf 'a\\nb\\377')\"; echo ready; exec sleep 600",
    "may not be entered": "mkdir -p /srv/a/b; touch /srv/a/b/c; chmod 0 /srv/a/b /srv/a; echo ready; exec sleep 600",
}


@pytest.mark.parametrize("what", LEFT)
async def test_destroy_survives(garden: Garden, probed: Path, what: str) -> None:
    await start(garden, inside("a", LEFT[what], limits=Limits(pids=60)))
    await until_printed(garden, "a", "ready")
    begun = time.monotonic()
    await garden.destroy(call(), "a")
    assert time.monotonic() - begun < SOON_S
    assert garden.containers() == []


async def test_destroy_thaws_what_is_frozen(garden: Garden, probed: Path) -> None:
    await start(garden, inside("a", "echo ready; exec sleep 600"))
    await until_printed(garden, "a", "ready")
    state, value = _freezer(garden._host.cgroups.path("a"))
    state.write_text(value)
    await garden.destroy(call(), "a")
    assert garden.containers() == []


async def test_destroy_survives_mounts_of_the_host(garden: Garden, probed: Path) -> None:
    """Over and below the container's root, one of them busy, and one in its own view."""
    await start(garden, inside("a", "mkdir /srv/one /srv/two; echo ready; exec sleep 600"))
    await until_printed(garden, "a", "ready")
    box = garden._boxes["a"]
    root = box.directory.rootfs
    subprocess.run(["mount", "-t", "tmpfs", "busy", root / "srv/one"], check=True)
    subprocess.run(["nsenter", "-t", str(box.init.pid), "-m", "mount", "-t", "tmpfs", "x", "/srv/two"], check=True)
    with open(root / "srv/one/open", "w"):
        await garden.destroy(call(), "a")
    assert garden.containers() == []


@pytest.mark.parametrize("flag", ["+i", "+a"])
async def test_destroy_survives_what_nobody_may_change(garden: Garden, probed: Path, flag: str) -> None:
    """A privileged container's root can forbid it, and an operator: here from outside, in the container's own view."""
    await start(garden, inside("a", "mkdir /srv/d; echo x >/srv/d/x; echo ready; exec sleep 600"))
    await until_printed(garden, "a", "ready")
    top = Path("/proc", str(garden._boxes["a"].init.pid), "root")
    if subprocess.run(["chattr", flag, top / "srv/d/x", top / "srv/d", top / "srv"], capture_output=True).returncode:
        pytest.skip("this file system has no immutable files")
    await garden.destroy(call(), "a")
    assert garden.containers() == []
    assert os.listdir(garden._host.volumes.root) == []


async def test_a_stuck_process_is_told_and_blocks_nobody(
    garden: Garden, probed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the kernel does not let die: frozen where garden does not thaw."""
    freezer = Path("/sys/fs/cgroup/freezer")
    if not freezer.exists():
        pytest.skip("with cgroup v2 a frozen process can be killed")
    monkeypatch.setattr(demolition, "KILL_TIMEOUT_S", 1.0)
    await start(garden, inside("stuck", "echo ready; exec sleep 600"))
    await until_printed(garden, "stuck", "ready")
    init = garden._boxes["stuck"].init.pid
    foreign = freezer / f"{CGROUP_PREFIX}stuck"
    foreign.mkdir()
    try:
        (foreign / "cgroup.procs").write_text(str(init))
        (foreign / "freezer.state").write_text("FROZEN")
        told, printed = await asyncio.gather(
            garden.destroy(call(), "stuck"), output(garden, inside("other", "echo works")), return_exceptions=True
        )
        assert printed == ["works"]
        assert isinstance(told, DiegoError)
        failed = told.find(ContainerStuck)
        assert failed is not None
        assert {"pid": init, "state": "D"}.items() <= failed.evidence["waiting"][0].items()
        assert [container.handle for container in garden.containers()] == ["stuck"]
    finally:
        (foreign / "freezer.state").write_text("THAWED")
        await garden.destroy(call(), "stuck")
        foreign.rmdir()
    assert garden.containers() == []


@pytest.fixture
def foreign(probed: Path, tmp_path: Path) -> Iterator[Callable[[], dict[str, bool]]]:
    """Things of others, with names as near to ours as they may be; answers which of them are there."""
    table, link, group = f"{TABLE_PREFIX}0x", f"{LINK_PREFIX}0nx", f"{CGROUP_PREFIX}0x"
    image = tmp_path / "disk"
    image.write_bytes(b"\0" * (1 << 20))
    groups = [tree / group for tree in cgroup_trees() if (tree / "cgroup.procs").exists()]
    container = f"foreign-{CGROUP_PREFIX}0"
    runc = ["runc", "--root", str(tmp_path / "runc")]
    bundle = tmp_path / "bundle"
    pid = tmp_path / "pid"
    bundle.mkdir()
    subprocess.run([*runc, "spec", "--bundle", bundle], check=True)
    spec = (bundle / "config.json").read_text()
    spec = spec.replace('"terminal": true', '"terminal": false').replace('"sh"', '"/bin/sleep", "600"')
    (bundle / "config.json").write_text(spec.replace('"path": "rootfs"', f'"path": "{probed}"'))
    null = subprocess.DEVNULL
    try:
        subprocess.run(["nft", "add", "table", "inet", table], check=True)
        subprocess.run(["ip", "link", "add", link, "type", "veth", "peer", link + "p"], check=True)
        for path in groups:
            path.mkdir()
        subprocess.run(
            [*runc, "run", "-d", "--pid-file", pid, "-b", bundle, container],
            check=True,
            stdin=null,
            stdout=null,
            stderr=null,
        )
        loop = subprocess.run(
            ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
        ).stdout.strip()

        def there() -> dict[str, bool]:
            def says(text: str, *argv: str) -> bool:
                return text in subprocess.run(argv, capture_output=True, text=True).stdout

            return {
                "table": says(table, "nft", "list", "tables"),
                "link": Path("/sys/class/net", link).exists(),
                "cgroups": all(path.is_dir() for path in groups),
                "loop device": says(str(image), "losetup", "--list"),
                "container": says('"running"', *runc, "state", container),
            }

        yield there
    finally:
        subprocess.run([*runc, "delete", "--force", container], capture_output=True)
        processes.reap(processes.identify(int(pid.read_text())))
        subprocess.run(["losetup", "--detach", loop], check=True)
        subprocess.run(["nft", "delete", "table", "inet", table], check=True)
        subprocess.run(["ip", "link", "del", link], check=True)
        for path in groups:
            path.rmdir()


async def test_foreign_things_are_never_touched(
    new_garden: Callable[..., Any], new_config: Callable[..., Any], foreign: Callable[[], dict[str, bool]]
) -> None:
    """Through all of garden's life: start, create, run, a restart that finds a half-built one, destroy."""
    config = new_config()
    assert all(foreign().values()), foreign()
    first = await new_garden(config)
    await start(first, inside("a", "exec sleep 600", ports=(8080,)))
    await first.close()
    half_built = Path(config.state_dir, "containers/half")
    half_built.mkdir()
    (half_built / "state.json").write_text("{")
    second = await new_garden(config)
    first._boxes.clear()
    assert not half_built.exists()
    await second.destroy(call(), "a")
    subprocess.run(["nft", "delete", "table", "inet", config.nft_table], check=True)
    for tree in second._host.cgroups.trees:
        with contextlib.suppress(OSError):
            Path(tree.mount + second._host.cgroups.parent).rmdir()
    assert all(foreign().values()), foreign()
    await second._host.firewall.prepare([])
    second._host.cgroups.prepare()


def _freezer(path: str) -> tuple[Path, str]:
    """The file that freezes a cgroup, and what to write."""
    v1 = Path(f"/sys/fs/cgroup/freezer{path}/freezer.state")
    if v1.exists():
        return v1, "FROZEN"
    return next(Path("/sys/fs/cgroup").glob(f"**{path}/cgroup.freeze")), "1"


CYCLES = int(os.environ.get("CYCLES", "60"))
"""CI runs few. The whole: `CYCLES=1000 .venv/bin/pytest -s -k nothing_grows tests/kernel/security`."""


async def test_nothing_grows_by_create_and_destroy(new_garden: Callable[..., Any], probed: Path) -> None:
    """After many containers the host and this process have what they had after the first few; see also host_sweep."""
    garden: Garden = await new_garden(sandboxes_ready=0)  # Those that are made ahead come and go at times of their own.

    async def cycle(number: int) -> None:
        await start(garden, inside(f"c{number}", "exit 0", ports=(8080,)))
        await garden.wait(f"c{number}")
        await garden.destroy(call(), f"c{number}")

    for number in range(4):
        await cycle(number)
    before, begun = _host(garden), time.monotonic()
    for number in range(CYCLES):
        await cycle(number)
    seconds = time.monotonic() - begun
    assert _host(garden) == before
    print(f"{CYCLES} cycles, {1000 * seconds / CYCLES:.0f} ms each; as before: {before}")


def _host(garden: Garden) -> dict[str, int]:
    """How many of each kind there are that a container could leave."""
    config = garden.config
    state = Path(config.state_dir)
    listed = subprocess.run(["nft", "list", "table", "inet", config.nft_table], check=True, capture_output=True).stdout
    tasks = list(Path("/proc/self/task").iterdir())
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": max(len(tasks), 32),
        "children": sum(len((task / "children").read_text().split()) for task in tasks),
        "mounts": sum(config.state_dir in line for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        "links": sum(path.name.startswith(config.interface_prefix) for path in Path("/sys/class/net").iterdir()),
        "bytes of the table": len(listed),
        "cgroups": sum(len(list(Path(f"{tree}{config.cgroup_parent}").glob("**/"))) for tree in cgroup_trees()),
        "files but logs": sum("logs" not in path.relative_to(state).parts for path in state.rglob("*")),
        "loop devices": sum(bool(path.read_text().count(config.state_dir)) for path in _backing_files()),
        "numbers taken": garden._host.sandboxes.id_slots.taken + garden._host.ports.taken,
    }


def _backing_files() -> Iterator[Path]:
    yield from Path("/sys/block").glob("loop*/loop/backing_file")
