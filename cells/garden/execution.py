"""One more process in a running container: a command check. It ends, or is killed with all it started."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from pathlib import Path

from cells.garden import children, directories, oci, processes, users
from cells.garden.box import Box
from cells.garden.bundle import process as process_rule
from cells.garden.bundle import rlimits
from cells.garden.depot import Directory
from cells.garden.files import copying
from cells.garden.host import Host, network_environment
from cells.garden.spec import ContainerSpec, Env, ExecResult, ProcessSpec
from diego_py.errors import RuntimeFailed

READ_BYTES = 16 * 1024
SHARED_ENVIRONMENT = "environment.json"
EXEC_NAME_BYTES = 8
LOOK_S = 0.02
"""Between two looks whether an extra process that has to be killed is there by now."""


async def execute(host: Host, box: Box, process: ProcessSpec, timeout_s: float) -> ExecResult:
    """Run it to its end. Raises UserNotFound, RuntimeFailed and its kinds."""
    base = await describe(host, box, process)
    try:
        with box.runtimes.one():
            return await _run(host, box, base, timeout_s)
    finally:
        forget(base)


async def describe(host: Host, box: Box, process: ProcessSpec, env: Env | None = None) -> Path:
    """Write for the runtime what to run; answers the path of that file, less its suffix.

    `env` is what the process's own is added to; None: that of the container's own process. Its working directory is
    there then. Raises UserNotFound, WorkingDirectoryInvalid, ImageHasNoCommand.
    """
    # Not a number: the files of one that an earlier garden began may still be there, and a runtime wants its own new.
    base = box.directory.exit / f"exec-{secrets.token_hex(EXEC_NAME_BYTES)}"
    root = str(box.directory.rootfs)
    identity = users.look_up(root, process.user or box.record.image.user)
    cwd = directories.chosen(root, process.cwd or box.record.image.cwd or None, identity)
    if not users.is_directory(root, cwd):
        await copying.make_directory(host, box, cwd, identity)
    described = process_rule.describe(
        identity,
        box.record.image.command(process.path, process.args),
        (*(_environment(box.directory) if env is None else env), *process.env),
        cwd,
        rlimits.of(box.record.limits, host.nofile_max, process.nofile),
        host.apparmor.profile,
        host.privileges_of(box.record),
    )
    if process.terminal is not None:
        described = process_rule.with_terminal(described, process.terminal)
    _write(base.with_suffix(".json"), described)
    return base


def forget(base: Path) -> None:
    """Remove all files of an extra process."""
    for suffix in (".json", ".pid", ".log"):
        base.with_suffix(suffix).unlink(missing_ok=True)


def keep_shared_environment(spec: ContainerSpec, box: Box) -> None:
    """Remember what all processes get of a container whose own process gets more than that."""
    if spec.own_env:
        _write(box.directory.bundle / SHARED_ENVIRONMENT, [*spec.env, *network_environment(spec, box)])


def shared_environment(directory: Directory) -> list[tuple[str, str]]:
    """What every process of the container gets, without what its own process alone does."""
    with contextlib.suppress(FileNotFoundError):
        return [(name, value) for name, value in json.loads((directory.bundle / SHARED_ENVIRONMENT).read_bytes())]
    return _environment(directory)


def _environment(directory: Directory) -> list[tuple[str, str]]:
    """What the container's own process was given, but for what belongs to its user, and so is not given."""
    config = json.loads((directory.bundle / "config.json").read_bytes())
    given = (entry.partition("=") for entry in config["process"]["env"])
    own = (process_rule.PATH_ROOT, process_rule.PATH_USER)
    return [(name, value) for name, _, value in given if name not in ("HOME", "USER") and value not in own]


async def _run(host: Host, box: Box, base: Path, timeout_s: float) -> ExecResult:
    argv = children.bound_to_us(host.runtime.exec_argv(box.handle, box.directory, base.name))
    child = await children.spawn(
        argv,
        stdin=asyncio.subprocess.PIPE,  # Not /dev/null, which is the host's: see null_device.
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        process_group=0,
    )
    assert child.stdin is not None
    child.stdin.close()
    output = bytearray()
    timed_out = False
    try:
        async with asyncio.timeout(timeout_s):
            await _drain(child, output)
            await child.wait()
    except TimeoutError:
        timed_out = True
    finally:
        if child.returncode is None:
            await children.uninterrupted(_kill(host, box, base, child))
    text = output.decode(errors="replace")
    log = oci.runtime_log(base.with_suffix(".log"))
    if not timed_out and any(entry.get("level") in ("error", "fatal") for entry in log):
        await host.extras.clear(child.pid)
        raise oci.failure("exec", log, text)
    return ExecResult(None if timed_out else child.returncode, text, timed_out)


async def _drain(child: asyncio.subprocess.Process, output: bytearray) -> None:
    """Read all it writes, keep what we may: a full pipe would stop it."""
    assert child.stdout is not None
    while chunk := await child.stdout.read(READ_BYTES):
        output += chunk[: children.OUTPUT_BYTES_MAX - len(output)]


async def _kill(host: Host, box: Box, base: Path, child: asyncio.subprocess.Process) -> None:
    """Kill the process and its children; they share its session. The runtime, which waits for it, ends by itself.

    The runtime may still be about to start it: then we look again until there is something to kill.
    """
    try:
        async with asyncio.timeout(host.config.runtime_timeout_s), asyncio.TaskGroup() as group:
            ending = group.create_task(_end_of(child))
            while not ending.done():
                _kill_session(host, box, base)
                await asyncio.wait([ending], timeout=LOOK_S)
    except TimeoutError as stuck:
        child.kill()
        await child.wait()
        raise RuntimeFailed("end an extra process that timed out") from stuck


async def _end_of(child: asyncio.subprocess.Process) -> None:
    await _drain(child, bytearray())
    await child.wait()


def _kill_session(host: Host, box: Box, base: Path) -> None:
    with contextlib.suppress(OSError, ValueError):  # No pid yet, or half of one.
        pid = int(base.with_suffix(".pid").read_text())
        found = processes.stat(pid)
        # With runc it leads its session; with crun the session's leader was a process in between.
        session = found.session if found is not None else pid
        processes.kill_session(host.cgroups.processes(box.handle), session)


def _write(path: Path, described: object) -> None:
    """For the runtime only: the environment is in it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w") as file:
        json.dump(described, file)
