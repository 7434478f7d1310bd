"""What a privileged container has that others have not, and whether the cell makes any."""

from __future__ import annotations

from pathlib import Path

from cells.garden.runtimes import RuntimeVersion
from diego_py.errors import Outcome, PrivilegedRefused

STATUS = Path("/proc/self/status")
BOUNDING = "CapBnd:"
NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
"""By the kernel's number. One that a later kernel adds has no name here, and is given to nobody."""


def of_this_process(status: Path = STATUS) -> tuple[str, ...]:
    """The capabilities that this process and what it executes can have. Raises OSError."""
    held = next(line for line in status.read_text().splitlines() if line.startswith(BOUNDING))
    mask = int(held.removeprefix(BOUNDING), 16)
    return tuple(name for number, name in enumerate(NAMES) if mask & 1 << number)


def refusal(allowed: bool, version: RuntimeVersion) -> PrivilegedRefused | None:
    """Why no privileged container may be made, ready to be raised; None when they may."""
    if not allowed:
        return PrivilegedRefused(
            "the cell's configuration does not allow privileged containers (allow_privileged)",
            outcome=Outcome.NOT_STARTED,
            evidence={"reason": "not_allowed"},
        )
    why = version.shortcoming()
    if why is None:
        return None
    # Nothing but the runtime's own care keeps root of such a container from becoming root of the host by its bugs.
    return PrivilegedRefused(
        f"privileged containers need a runtime without known holes: {why}",
        outcome=Outcome.NOT_STARTED,
        evidence={"reason": "runtime", "runtime": version.name, "version": version.text},
    )
