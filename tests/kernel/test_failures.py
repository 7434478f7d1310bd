"""Each way a container can fail to come up: the chain says why, in the words of who knew, and nothing is left."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cells.garden import configuration, kernel
from cells.garden.garden import Garden
from cells.garden.network import links, nft_elements
from cells.garden.spec import ContainerSpec, Limits
from diego_py.chain import problem
from diego_py.errors import DiegoError, Outcome
from tests.kernel.containers import call, every_runtime, shell, spec, start
from tests.kernel.images import until

pytestmark = pytest.mark.kernel

FAILING: list[tuple[str, ContainerSpec, str, str]] = [
    ("no such file", spec("a", "/nope"), "runtime.exec_not_found", r"/nope.*[nN]o such file or directory"),
    ("not in PATH", spec("a", "nope"), "runtime.exec_not_found", r"executable file .*not found in \$PATH"),
    ("not executable", spec("a", "/etc/not-executable"), "runtime.exec_not_executable", "[pP]ermission denied"),
    ("a directory", spec("a", "/etc"), "runtime.exec_not_executable", ""),
    ("bad user", spec("a", "/bin/true", user="nobody-here"), "garden.user_not_found", "nobody-here"),
    ("bad group", spec("a", "/bin/true", user="vcap:nogroup"), "garden.user_not_found", "vcap:nogroup"),
    ("uid out of range", spec("a", "/bin/true", user="70000"), "garden.user_not_found", "70000"),
    ("directory is a file", spec("a", "/bin/true", cwd="/etc/passwd"), "runtime.working_directory", "ot a directory"),
    ("rootfs missing", spec("a", "/bin/true", rootfs="preloaded:none"), "garden.rootfs_not_found", "preloaded:none"),
    ("rootfs outside", spec("a", "/bin/true", rootfs="preloaded:../x"), "garden.rootfs_not_found", "../x"),
    ("rootfs unsafe", spec("a", "/bin/true", rootfs="preloaded:odd-dev"), "garden.rootfs_invalid", "/dev"),
    ("bad handle", spec("../a", "/bin/true"), "invalid_spec", "../a"),
    ("no ports left", spec("a", "/bin/true", ports=tuple(range(1, 200))), "garden.pool_exhausted", "host ports"),
    ("memory too small", shell("a", "true", limits=Limits(memory_bytes=4096)), "runtime.failed", ""),
]


async def fails(garden: Garden, wanted: ContainerSpec) -> DiegoError:
    """How creating it fails, after a look that nothing of it is there."""
    with pytest.raises(DiegoError) as failed:
        await garden.create(call(), wanted)
    assert garden.containers() == []
    assert not list(Path(garden.config.state_dir, "containers").iterdir())
    assert not list(Path(garden.config.state_dir, "runtime").iterdir())
    host = garden._host
    idle = host.sandboxes.idle
    taken = (host.sandboxes.id_slots.taken, host.addresses._pool.taken, host.ports.taken)
    assert taken == (len(idle), len(idle), 0)
    assert set(links.ours(garden.config.interface_prefix)) <= {host.link(place.address_number).name for place in idle}
    assert not host.cgroups.handles()
    return failed.value


async def test_destroy_beside_a_create_that_fails(garden: Garden) -> None:
    """Only one of them takes it away: numbers that are given back twice may be somebody else's by then."""

    async def destroy() -> None:
        await until(lambda: "a" in garden._boxes)
        await garden.destroy(call(), "a")

    async with asyncio.TaskGroup() as group:
        group.create_task(destroy())
        await fails(garden, spec("a", "/not/there"))


@every_runtime
@pytest.mark.parametrize(("wanted", "code", "words"), [case[1:] for case in FAILING], ids=[case[0] for case in FAILING])
async def test_the_innermost_cause_names_the_problem(
    garden: Garden, wanted: ContainerSpec, code: str, words: str
) -> None:
    error = await fails(garden, wanted)
    document = problem(error, call())
    assert document.code == code
    assert re.search(words, document.detail)
    assert document.chain[0].hop == "garden"
    if code.startswith("runtime."):
        assert [frame.hop for frame in document.chain] == ["garden", garden._host.runtime.name]
        assert document.outcome == Outcome.ROLLED_BACK
        assert document.evidence is not None
        assert any(re.search(words, entry["msg"]) for entry in document.evidence["runtime_log"])
    # The cell is as good as before.
    await start(garden, shell("a", "exit 0"))
    assert (await garden.wait("a")).status == 0


@every_runtime
async def test_a_broken_program_ends_at_once(garden: Garden) -> None:
    """The runtime has handed over before the kernel refuses the format: a start that went well, and an end."""
    await start(garden, spec("a", "/bin/not-a-program"))
    ended = await garden.wait("a")
    assert ended.status not in (0, None)


async def test_a_depot_that_is_full(garden: Garden, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that was begun early, and waits for its configuration, ends without one."""

    def full(directory: Path, text: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(configuration, "write", full)
        await fails(garden, spec("a", "/bin/true"))
    await start(garden, shell("a", "exit 0"))
    assert (await garden.wait("a")).status == 0


async def test_mount_failing(garden: Garden, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device", "/somewhere")

    monkeypatch.setattr(kernel, "mount", refuse)
    error = await fails(garden, spec("a", "/bin/true"))
    assert error.root.code == "garden.mount_failed"
    assert error.root.evidence == {"errno": "ENOSPC", "at": "/somewhere"}


@pytest.mark.parametrize("change", [{"mtu": 70_000}, {"gateway": "255.255.255.255"}], ids=["at once", "half-way"])
async def test_network_failing(new_garden: Callable[..., Any], change: dict[str, Any]) -> None:
    garden = await new_garden(sandboxes_ready=0)
    link_of = garden._host.sandboxes.link_of
    garden._host.sandboxes.link_of = lambda number: link_of(number)._replace(**change)
    error = await fails(garden, spec("a", "/bin/true", ports=(80,)))
    assert (error.root.code, error.outcome) == ("garden.network_failed", Outcome.ROLLED_BACK)
    assert error.root.evidence["errno"].startswith("E")
    garden._host.sandboxes.link_of = link_of
    await start(garden, shell("a", "exit 0"))


async def test_firewall_failing(garden: Garden, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(nft_elements, "transact", refuse)
    monkeypatch.setattr(garden._host.firewall, "nft_path", "/bin/false")
    with pytest.raises(DiegoError) as failed:
        await garden.create(call(), spec("a", "/bin/true"))
    # Removing the elements fails as well: the container stays listed, and the error says so.
    assert (failed.value.root.code, failed.value.outcome) == ("garden.network_failed", Outcome.PARTIAL)
    assert [container.handle for container in garden.containers()] == ["a"]
    monkeypatch.undo()
    await garden.destroy(call(), "a")
    assert garden.containers() == []


@pytest.mark.parametrize("program", ["runtime_path", "conmon_path"])
async def test_missing_program_at_start(
    new_garden: Callable[..., Any], new_config: Callable[..., Any], program: str
) -> None:
    with pytest.raises(DiegoError) as failed:
        await new_garden(**{program: "/nowhere/program"})
    assert failed.value.code == "runtime.missing"
    assert "/nowhere/program" in failed.value.message


@pytest.mark.parametrize("program", ["program", "conmon_path"])
async def test_program_that_vanishes(garden: Garden, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garden._host.runtime, program, "/nowhere/program")
    with pytest.raises(DiegoError) as failed:
        await garden.create(call(), spec("a", "/bin/true"))
    assert failed.value.root.code == "runtime.missing"
    assert garden.containers() == []


async def test_runtime_that_says_nothing(garden: Garden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garden._host.runtime, "conmon_path", "/bin/false")
    error = await fails(garden, spec("a", "/bin/true"))
    assert error.root.code == "runtime.failed"


async def test_closed_state_directory(new_garden: Callable[..., Any], new_config: Callable[..., Any]) -> None:
    config = new_config()
    Path(config.state_dir).chmod(0o711)
    closed = Path(config.state_dir, "closed")
    closed.mkdir(mode=0o700)
    with pytest.raises(DiegoError) as failed:
        await new_garden(new_config(state_dir=str(closed / "state")))
    assert str(closed) in failed.value.message


@pytest.mark.parametrize("budget_ms", [10, 52, 56, 60, 65])
async def test_budget_that_runs_out(garden: Garden, budget_ms: float) -> None:
    """50 ms of a budget are kept for the answer, so all of these are too short."""
    with pytest.raises(DiegoError) as failed:
        await garden.create(call(budget_ms), spec("a", "/bin/true", ports=(80,)))
    assert failed.value.root.code == "budget_spent"
    assert garden.containers() == []
    assert not list(Path(garden.config.state_dir, "containers").iterdir())


async def test_what_runc_mounted_as_it_died_goes_with_the_container(garden: Garden) -> None:
    await garden.create(call(), shell("a", "exit 0"))
    left = Path(garden.config.state_dir, "runtime/a/runc.Xa3Bc9")
    left.touch()
    subprocess.run(["mount", "--bind", "/bin/busybox", left], check=True)
    await garden.destroy(call(), "a")
    assert not left.parent.exists()
