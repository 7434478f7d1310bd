"""The OCI runtime: runc, or another by path. conmon starts it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import math
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from attrs import define, field

from cells.garden import children, configuration, conmon, kernel, kernel_files, null_device, runtimes, sealed
from cells.garden.bundle.plan import Config
from cells.garden.conmon import Conmon
from cells.garden.depot import Directory, remove_tree
from cells.garden.monitor import gone
from cells.garden.processes import Process, identify
from cells.garden.release import release
from cells.garden.runtimes import RuntimeVersion
from diego_py.chain import clip
from diego_py.errors import (
    DiegoError,
    ExecNotExecutable,
    ExecNotFound,
    RuntimeFailed,
    RuntimeMissing,
    WorkingDirectoryInvalid,
)

EXEC_FIFO = "exec.fifo"
"""What a created process waits at; the way of runc and crun, not every runtime's."""
RUNC_COPY = "runc."
"""How files in the runtime's directory of a container begin at which runc mounts its own binary, read-only."""
NO_LOG = "none"
"""conmon still reads what the container writes, so it is never held up."""
EXIT_POLL_BYTES = 16
STDIN = ("--stdin", "--leave-stdin-open")
"""Input that stays open whoever comes and goes: conmon outlives us, and so shall what it is a client of."""


@define
class Runtime:
    """One runtime with its own state directory, so that two gardens never see each other's containers."""

    runtime_path: str
    conmon_path: str
    state: Path
    log_bytes_max: int
    timeout_s: float
    version: RuntimeVersion = field(init=False)
    program: str = field(init=False)
    """What is executed."""
    _sealed: int | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.version = runtimes.named_by(self.runtime_path)
        self.program = self.runtime_path

    def check(self) -> None:
        """Learn the runtime's name and version. Raises RuntimeMissing when a program is not there or not executable."""
        for path in (self.runtime_path, self.conmon_path):
            if shutil.which(path) is None:
                raise RuntimeMissing(f"find {path} on this host", evidence={"path": path})
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # What it cannot say is unknown, and told so.
            asked = [self.runtime_path, "--version"]
            said = subprocess.run(asked, capture_output=True, text=True, errors="replace", timeout=self.timeout_s)
            self.version = runtimes.parse(said.stdout, self.runtime_path)

    def seal(self, links: Path) -> None:
        """From now on execute a copy that nobody can write, if it is a runtime that makes one of itself; until `close`.

        It has a name in this directory. Raises OSError.
        """
        found = shutil.which(self.runtime_path)
        if found is not None and self.version.release != "call":
            self._sealed = sealed.copy(found)
        if self._sealed is not None:
            self.program = sealed.name(self._sealed, links / self.version.name)

    def close(self) -> None:
        if self._sealed is not None:
            os.close(self._sealed)
            self._sealed, self.program = None, self.runtime_path

    @property
    def name(self) -> str:
        """`runc`, `crun`, ...: whose words those are that come back."""
        return self.version.name

    def begin(self, handle: str, directory: Directory, keep_log: bool, stdin: bool = False) -> Conmon:
        """Have a conmon that waits with its container until `create`, or until it is given up.

        It takes as long to load as a bundle takes to make, so both are done at once. Raises RuntimeMissing.
        """
        program = shutil.which(self.program)
        if program is None:
            raise RuntimeMissing(f"find {self.program} on this host", evidence={"path": self.program})
        options = {
            "--api-version": "1",
            "--cid": handle,
            "--cuuid": handle,
            "--name": handle,
            "--runtime": program,
            "--bundle": str(directory.bundle),
            "--exit-dir": str(directory.exit),
            "--container-pidfile": str(directory.path / "init.pid"),
            "--conmon-pidfile": str(directory.path / "conmon.pid"),
            "--log-path": f"k8s-file:{directory.log}" if keep_log else NO_LOG,
            "--log-level": "error",
            "--log-size-max": str(self.log_bytes_max),
        }
        argv = [self.conmon_path, "--full-attach", "--no-sync-log", *(STDIN if stdin else ())]
        for name, value in options.items():
            argv += [name, value]
        for argument in self._globals(directory.runtime_log):
            argv += ["--runtime-arg", argument]
        return conmon.begin(argv, directory, self.version.release == "read")

    async def create(
        self, monitor: Conmon, directory: Directory, config: Config, limit_s: float = math.inf
    ) -> tuple[Process, Process]:
        """Create the container: all of it is there, the user process waits to be started.

        Answers (monitor, init). Must not be cancelled: nobody would then know the two. Raises RuntimeSilent after
        `limit_s` or `timeout_s`, RuntimeFailed and the kinds of it that `classify` knows.
        """
        try:
            said = await monitor.go(configuration.encode(config), min(limit_s, self.timeout_s))
        finally:
            null_device.take_back()
        pid = said.get("data", said.get("pid", -1))
        if not isinstance(pid, int) or pid <= 0:
            await gone(conmon.lasting(directory))
            raise self._failure("create", directory, str(said.get("message", "")))
        return conmon.lasting(directory), identify(pid)

    def _globals(self, log: Path) -> list[str]:
        return ["--root", str(self.state), "--log", str(log), "--log-format", "json"]

    async def start(self, handle: str, directory: Directory, init: Process) -> None:
        """Let the user process begin; returns when it was executed. Raises RuntimeFailed or a kind of it."""
        fifo, how = self.state / handle / EXEC_FIFO, self.version.release
        if how == "call" or not fifo.exists():
            await self._call("start", directory, [handle])
            return
        try:
            async with asyncio.timeout(self.timeout_s):
                begun = await release(fifo, init, how)
        except TimeoutError as timeout:
            raise RuntimeFailed(f"runtime start: nothing executed in {self.timeout_s:.0f} s") from timeout
        if not begun:
            raise RuntimeFailed("runtime start: the process ended before it began")

    async def delete(self, handle: str, directory: Directory, force: bool = False) -> None:
        """Have a container forgotten whose processes are gone, with `force` also one that was half created. Idempotent.

        What `forget` can do is left to that. Never with `force` on a running one: the runtime then polls in steps of
        100 ms.
        """
        if (force or self.version.release == "call") and (self.state / handle).exists():
            await children.in_thread(_unmount_own_copies, self.state / handle)
            await self._call("delete", directory, [*(["--force"] if force else []), handle])

    def forget(self, handle: str) -> None:
        """All that runc and crun do when they delete, but for the cgroups: no process for one directory. Idempotent."""
        state = self.state / handle
        if state.exists():
            _unmount_own_copies(state)
            remove_tree(str(state))

    async def _call(self, operation: str, directory: Directory, arguments: list[str]) -> None:
        log = directory.path / f"runtime-{operation}.log"
        argv = [self.program, *self._globals(log), operation, *arguments]
        try:
            finished = await children.run(argv, timeout_s=self.timeout_s)
        except TimeoutError as timeout:
            raise RuntimeFailed(f"runtime {operation}: no answer in {self.timeout_s:.0f} s") from timeout
        if finished.status != 0:
            raise failure(operation, runtime_log(log), finished.stderr)

    def exec_argv(self, handle: str, directory: Directory, name: str, *options: str) -> list[str]:
        """The command that runs one more process in the container, by the files NAME.json, .pid and .log."""
        base = directory.exit / name
        return [
            self.program,
            *self._globals(base.with_suffix(".log")),
            "exec",
            "--process",
            str(base.with_suffix(".json")),
            "--pid-file",
            str(base.with_suffix(".pid")),
            *options,
            handle,
        ]

    def _failure(self, operation: str, directory: Directory, message: str) -> DiegoError:
        stderr = ""
        with contextlib.suppress(OSError):
            stderr = (directory.path / "conmon.log").read_text(errors="replace")
        return failure(operation, runtime_log(directory.runtime_log), message or stderr, stderr)


def failure(operation: str, log: list[dict[str, Any]], message: str, stderr: str = "") -> DiegoError:
    """The error for what the runtime said. Its own words are the detail, its whole log is evidence."""
    errors = [str(entry.get("msg", "")) for entry in log if entry.get("level") in ("error", "fatal")]
    words = (errors[-1] if errors else message).strip() or "the runtime gave no reason"
    evidence = {"runtime_log": log, "stderr": clip(stderr or message)}
    return classify(words)(f"runtime {operation}: {words}", evidence=evidence)


def classify(words: str) -> type[DiegoError]:
    """What kind of failure the runtime's words mean. Pure.

    The working directory first: its messages also say "no such file" and "permission denied". runc has its errors from
    Go, crun from libc, which begins them with a capital; for a directory crun says "open executable: Operation not
    permitted".
    """
    words = words.lower()
    if re.search(r"chdir (to cwd|`)|current working directory|mkdir .*: (not a directory|file exists)", words):
        return WorkingDirectoryInvalid
    if not re.search(r"\bexec\b|starting container process|executable", words) or "namespace path" in words:
        return RuntimeFailed
    if re.search(r"executable file .*not found|no such file or directory|not found", words):
        return ExecNotFound
    if re.search(r"permission denied|exec format error|is a directory|open executable: operation not permitted", words):
        return ExecNotExecutable
    return RuntimeFailed


def runtime_log(path: Path) -> list[dict[str, Any]]:
    """The runtime's own log, one JSON object a line; a line that is none is kept as a message."""
    entries: list[dict[str, Any]] = []
    try:
        text = path.read_text(errors="replace")[-children.OUTPUT_BYTES_MAX :]
    except OSError:
        return entries
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"msg": line}
        entries.append(entry if isinstance(entry, dict) else {"msg": line})
    return entries


def exit_status(directory: Directory, handle: str) -> int | None:
    """What conmon wrote when the container ended; None when it did not."""
    try:
        text = kernel_files.read(f"{directory.exit}/{handle}")[:EXIT_POLL_BYTES].strip()
    except OSError:
        return None
    return int(text) if re.fullmatch(r"[0-9]{1,3}", text) else None


def _unmount_own_copies(state: Path) -> None:
    """Take away where runc mounted its own binary: it does so for a moment at each start, and may die in that moment.

    Until then nobody can remove its directory. Raises OSError.
    """
    for name in os.listdir(state):
        if not name.startswith(RUNC_COPY):
            continue
        try:
            kernel.umount(f"{state}/{name}", kernel.MNT_DETACH)
        except OSError as refused:
            if refused.errno not in (errno.EINVAL, errno.ENOENT):  # Nothing is mounted there, or it went by itself.
                raise
