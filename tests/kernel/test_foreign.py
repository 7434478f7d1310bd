"""Containers, processes, rules and namespaces of others on the same host, some as near to ours as they may be."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cells.garden import processes
from cells.garden.garden import Garden
from cells.garden.processes import Process
from cells.garden.spec import ProcessSpec
from diego_py.errors import DiegoError
from tests.kernel.containers import call, cgroup_trees, shell, start
from tests.kernel.failpoints import HALF, HANDLE, SIDECAR, WAITS
from tests.kernel.slot import CGROUP_PREFIX, HOST_LINK, LINK_PREFIX, STATE_PREFIX, TABLE_PREFIX
from tests.kernel.test_failpoints import KILLED, owners_of

pytestmark = pytest.mark.kernel

SLEEP = ["sleep", "600"]


@contextmanager
def container(home: Path, image: Path, name: str) -> Iterator[Process]:
    """A container of runc's that nobody but its starter knows, as a child of ours; it goes on after its starter."""
    bundle, pid_file, runc = home / name, home / f"{name}.pid", ["runc", "--root", str(home / "runc")]
    bundle.mkdir()
    subprocess.run([*runc, "spec", "--bundle", bundle], check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": SLEEP}
    config["root"]["path"] = str(image)
    config["linux"]["cgroupsPath"] = f"/{CGROUP_PREFIX}foreign/{name}"
    (bundle / "config.json").write_text(json.dumps(config))
    null = subprocess.DEVNULL
    argv = [*runc, "run", "--detach", "--pid-file", pid_file, "--bundle", bundle, name]
    subprocess.run(argv, check=True, stdin=null, stdout=null, stderr=null)
    init = processes.identify(int(pid_file.read_text()))
    try:
        yield init
    finally:
        subprocess.run([*runc, "delete", "--force", name], capture_output=True)
        processes.reap(init)
        for tree in cgroup_trees():
            if (tree / f"{CGROUP_PREFIX}foreign").is_dir():
                (tree / f"{CGROUP_PREFIX}foreign").rmdir()


@contextmanager
def extra(home: Path, name: str) -> Iterator[Process]:
    """One more process in that container, whose starter is gone: it is a child of ours, and a stray."""
    pid_file, null = home / "extra.pid", subprocess.DEVNULL
    argv = ["runc", "--root", str(home / "runc"), "exec", "--detach", "--pid-file", pid_file, name, *SLEEP]
    subprocess.run(argv, check=True, stdin=null, stdout=null, stderr=null)
    process = processes.identify(int(pid_file.read_text()))
    try:
        yield process
    finally:
        processes.kill(process)
        with suppress(ChildProcessError):
            os.waitpid(process.pid, 0)


@contextmanager
def namespace(name: str) -> Iterator[None]:
    """A network namespace with a name and links, one of them called nearly as ours are."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        pair = [f"{LINK_PREFIX}0n2", "type", "veth", "peer", f"{LINK_PREFIX}0n2p"]
        subprocess.run(["ip", "-n", name, "link", "add", *pair], check=True)
        yield
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@contextmanager
def table(family: str, name: str) -> Iterator[None]:
    subprocess.run(["nft", "add", "table", family, name], check=True)
    try:
        chain = "{ type filter hook forward priority 0; }"
        subprocess.run(["nft", f"add chain {family} {name} forward {chain}"], check=True)
        subprocess.run(["nft", f"add rule {family} {name} forward iifname {LINK_PREFIX}0n2 counter"], check=True)
        yield
    finally:
        subprocess.run(["nft", "delete", "table", family, name], check=True)


@contextmanager
def link(name: str) -> Iterator[None]:
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", name + "p"], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)


@contextmanager
def groups(name: str) -> Iterator[Process]:
    """Cgroups in every tree, beside those of the first garden, with a process in them."""
    sleeper = subprocess.Popen(SLEEP)
    made = [tree / name for tree in cgroup_trees() if (tree / "cgroup.procs").exists()]
    try:
        for path in made:
            path.mkdir()
            if (path / "pids.max").exists() or (path / "freezer.state").exists():
                (path / "cgroup.procs").write_text(str(sleeper.pid))
        yield processes.identify(sleeper.pid)
    finally:
        sleeper.kill()
        sleeper.wait()
        for path in made:
            path.rmdir()


@contextmanager
def mounted(directory: Path) -> Iterator[None]:
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "foreign", directory], check=True)
    try:
        (directory / "kept").touch()
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


@contextmanager
def reading(*paths: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody who looks at files, whether they are there or not."""
    reader = subprocess.Popen(["tail", "-f", "/dev/null", *paths], stderr=subprocess.DEVNULL)
    try:
        yield reader
    finally:
        reader.kill()
        reader.wait()


def said(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def others(host_sweep: None, tmp_path: Path, image_root: Path) -> Iterator[Callable[[], dict[str, object]]]:
    """Answers how they all are."""
    with ExitStack() as stack:
        init = stack.enter_context(container(tmp_path, image_root / "busybox", f"{STATE_PREFIX}foreign"))
        stray = stack.enter_context(extra(tmp_path, f"{STATE_PREFIX}foreign"))
        named = stack.enter_context(groups(f"{CGROUP_PREFIX}0x"))
        stack.enter_context(namespace(f"{CGROUP_PREFIX}ns"))
        tables = [("inet", f"{TABLE_PREFIX}0x"), ("ip", f"{TABLE_PREFIX}0")]
        for each in tables:
            stack.enter_context(table(*each))
        links = (f"{LINK_PREFIX}0nx", f"{LINK_PREFIX}0n2x", f"{HOST_LINK}x")
        for name in links:
            stack.enter_context(link(name))
        stack.enter_context(mounted(tmp_path / "mount"))

        def seen() -> dict[str, object]:
            return {
                "container, stray, process": [processes.is_alive(each) for each in (init, stray, named)],
                "namespaces": [os.readlink(f"/proc/{init.pid}/ns/{kind}") for kind in ("pid", "net", "mnt", "cgroup")],
                "cgroups": [Path(f"/proc/{each.pid}/cgroup").read_text() for each in (init, stray, named)],
                "network namespace": said("ip", "-n", f"{CGROUP_PREFIX}ns", "-brief", "link"),
                "tables": [said("nft", "--stateless", "list", "table", *each) for each in tables],
                "links": [said("ip", "-brief", "link", "show", name) for name in links],
                "mount": os.listdir(tmp_path / "mount"),
            }

        yield seen


async def test_a_runtime_that_failed_leaves_others_alone(
    others: Callable[[], dict[str, object]], garden: Garden
) -> None:
    """What it left to us is looked for among our children; a foreign container's processes may be there too."""
    before = others()
    await start(garden, shell("a", "exec sleep 600"))
    with pytest.raises(DiegoError):
        await garden.exec(call(), "a", ProcessSpec("/nope"), 20)
    with pytest.raises(DiegoError):
        await garden.open(call(), "a", ProcessSpec("/nope"))
    await garden._host.extras.clear()
    assert others() == before
    await garden.destroy(call(), "a")
    assert others() == before


async def test_a_restart_leaves_others_alone(
    others: Callable[[], dict[str, object]],
    new_garden: Callable[..., Any],
    new_config: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """One that adopts, and removes what is half-built, being destroyed, or of no container."""
    config = new_config()
    async with owners_of(config, tmp_path / "report") as owners:
        assert await owners.live("leave", None) == KILLED
        # Somebody looks at what the cell has of a container that is about to be removed.
        half = Path(config.state_dir, "containers", HALF)
        with reading(half / "exit/exec-x", half / "bundle/config.json") as reader:
            before = others()
            garden: Garden = await new_garden(config)
            assert {each.handle for each in garden.containers()} == {HANDLE, SIDECAR, WAITS}
            assert others() == before
            await garden.destroy(call(), HANDLE)
            await garden.destroy(call(), WAITS)
            assert others() == before
            assert reader.poll() is None
