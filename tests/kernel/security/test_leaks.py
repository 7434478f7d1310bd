"""Nothing of the host leaks into a container, and the runtime that enters it cannot be taken over from there."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import shutil
from pathlib import Path

import pytest

from cells.garden.garden import Garden
from cells.garden.spec import ProcessSpec
from diego_py.errors import DiegoError, WorkingDirectoryInvalid
from tests.kernel.containers import SOON_S, call, start, until_printed
from tests.kernel.security.probing import Ways, inside, process
from tests.slowness import patient

pytestmark = pytest.mark.kernel

ENTRIES = 5
ROUNDS = round(patient(1000))
"""Of looking at every process: longer than all entries take."""


@pytest.mark.parametrize("user", ["root", "vcap"])
async def test_only_standard_descriptors_are_open(each_way: Ways, user: str) -> None:
    for lines in (await each_way("probe descriptors", user)).values():
        assert sorted(lines) == ["0", "1", "2"]


async def test_environment_has_nothing_of_the_cell(each_way: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELL_SECRET", "s3cr3t")
    for lines in (await each_way("env")).values():
        names = {line.partition("=")[0] for line in lines}
        assert names <= {"PATH", "HOME", "USER", "PWD", "SHLVL", "OLDPWD", "HOSTNAME", "_"}


@pytest.mark.parametrize("cwd", [*(f"/proc/self/fd/{fd}" for fd in (3, 5, 7, 8, 9)), "/link/to/descriptor"])
async def test_working_directory_is_no_descriptor_of_the_runtime(garden: Garden, probed: Path, cwd: str) -> None:
    """CVE-2024-21626: a directory that the runtime had open led to the host."""
    (probed / "link/to").mkdir(parents=True, exist_ok=True)
    link = probed / "link/to/descriptor"
    link.unlink(missing_ok=True)
    link.symlink_to("/proc/self/fd/7")
    with pytest.raises(DiegoError) as refused:
        await start(garden, inside("a", "ls", cwd=cwd))
    await garden.destroy(call(), "a")
    await start(garden, inside("a", "exec sleep 600"))
    with pytest.raises(DiegoError) as refused_inside:
        await garden.exec(call(), "a", ProcessSpec("/bin/ls", cwd=cwd), SOON_S)
    # By us: a runtime that would refuse it itself was not even asked.
    for caught in (refused, refused_inside):
        assert isinstance(caught.value.root, WorkingDirectoryInvalid)
        assert caught.value.root.evidence == {"cwd": cwd}


async def test_runtime_is_not_overwritten_by_those_it_enters(garden: Garden, probed: Path) -> None:
    """CVE-2019-5736: whoever comes in from outside shows its program in /proc/PID/exe."""
    programs = [Path(found).resolve() for name in ("runc", "conmon") if (found := shutil.which(name))]
    before = [_digest(path) for path in programs]
    await start(garden, inside("a", f"probe overwrite {ROUNDS}"))
    await until_printed(garden, "a", "watching")
    for _ in range(ENTRIES):
        with contextlib.suppress(DiegoError):  # The runtime itself, without a runtime's arguments.
            assert (await garden.exec(call(), "a", ProcessSpec("/bin/runtime-itself"), SOON_S)).status != 0
        await garden.exec(call(), "a", process("true"), SOON_S)
    ended = await garden.wait("a")
    found = re.fullmatch(r"seen (\d+) held (\d+) written (\d+)", ended.log_tail[-1])
    assert found is not None
    assert int(found[3]) == 0
    assert [_digest(path) for path in programs] == before


async def test_exec_goes_to_a_container_only_while_it_runs(garden: Garden, probed: Path) -> None:
    await start(garden, inside("a", "exit 0"))
    await garden.wait("a")
    with pytest.raises(DiegoError):
        await garden.exec(call(), "a", process("true"), SOON_S)


async def test_secrets_of_a_container_are_in_no_command_line(garden: Garden, probed: Path) -> None:
    """Every user of the host can read those."""
    secret = "canary-of-this-test"
    await start(garden, inside("a", "exec sleep 600", env=(("SECRET", secret),)))
    running = ProcessSpec("/bin/sh", ("-c", "sleep 0.2"), env=(("SECRET", secret),))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(garden.exec(call(), "a", running, SOON_S))
        while not task.done():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    assert secret.encode() not in path.read_bytes(), path
                except (FileNotFoundError, ProcessLookupError):
                    continue
            await asyncio.sleep(0)
    state = Path(garden.config.state_dir, "containers/a")
    for path in (*state.rglob("*.json"), state / "conmon.log", state / "runtime.log"):
        assert path.stat().st_mode & 0o077 == 0, path


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
