"""The process that holds a sandbox's namespaces: PID 1 of them, with nothing in it, able to do nothing.

Runs in the zygote, a process with one thread: after `clone` the child is a copy of it and must end or be executed.
"""

from __future__ import annotations

import os
import signal
from typing import NamedTuple, NoReturn

from cells.garden import kernel

NAMESPACES = kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
NOBODY = 65_535
"""The last id of a range: no process of an image is likely to have it, so none can change this one's limits."""
WHY_BYTES_MAX = 256
NAME = "sandbox"


class Wanted(NamedTuple):
    """What kind of holder."""

    label: str
    """Tells `ps` which one it is; seen from inside too."""
    ids: tuple[int, int] | None
    """The first of the host's ids that are its own, and how many; None: it has no user namespace."""
    user_limits: dict[str, int]
    """Files of /proc/sys/user, and what is written there for its user namespace."""


class Ground(NamedTuple):
    """What all holders are made from, as descriptors."""

    program: int
    """What each executes."""
    nowhere: int
    """A mount namespace with an empty root."""
    home: int
    """The mount namespace that is our own."""
    settings: int
    """/proc/sys/user: how a process without /proc finds it."""


def make(wanted: Wanted, ground: Ground) -> int:
    """A holder, and its pid. Raises OSError."""
    ready, go = os.pipe2(os.O_CLOEXEC)
    told, tell = os.pipe2(os.O_CLOEXEC)
    try:
        kernel.setns(ground.nowhere, kernel.CLONE_NEWNS)
        try:
            pid = kernel.clone(NAMESPACES | (kernel.CLONE_NEWUSER if wanted.ids is not None else 0))
            if pid == 0:
                os.close(go)  # Or it would wait for itself when we die.
                _become(wanted, ready, tell, ground)
        finally:
            kernel.setns(ground.home, kernel.CLONE_NEWNS)
        os.close(tell)
        tell = -1
        try:
            if wanted.ids is not None:
                first_id, count = wanted.ids
                for name in ("uid_map", "gid_map"):
                    _write(f"/proc/{pid}/{name}", f"0 {first_id} {count}")
            os.write(go, b".")
            # Nothing but the end of the pipe: it was executed. Else why not.
            if why := os.read(told, WHY_BYTES_MAX):
                number, _, step = why.decode().partition(" ")
                raise OSError(int(number), os.strerror(int(number)), step)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            raise
        return pid
    finally:
        for fd in (ready, go, told, tell):
            if fd >= 0:
                os.close(fd)


def _become(wanted: Wanted, ready: int, tell: int, ground: Ground) -> NoReturn:
    """The child: wait until it has ids, put away all it has, execute the program."""
    step = "wait"
    try:
        if not os.read(ready, 1):
            os._exit(1)
        os.setsid()
        if wanted.ids is not None:
            step = "limit the user namespace"
            for name, limit in wanted.user_limits.items():
                _write(name, str(limit), ground.settings)
        step = "drop capabilities"
        kernel.drop_bounding_capabilities()
        kernel.forbid_new_privileges()
        step = "change ids"
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        step = "execute"
        for fd in range(3):
            os.close(fd)
        os.execve(ground.program, [NAME, wanted.label], {})
    except OSError as refused:
        os.write(tell, f"{refused.errno} {step}".encode())
    finally:
        os._exit(1)


def _write(path: str, value: str, directory: int | None = None) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(fd, value.encode())
    except OSError as refused:
        raise OSError(refused.errno, refused.strerror, path) from refused
    finally:
        os.close(fd)
