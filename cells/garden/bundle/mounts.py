"""What is mounted over the root: kernel file systems, memory ones, what was asked for, and three files of our own."""

from __future__ import annotations

from cells.garden.bundle.plan import Bind, Config, Plan
from cells.garden.spec import TmpfsMount

TTY_GROUP = 5
MEMORY_FILES = "size=65536k"
PAUSE = "/dev/init"
"""Where an idle container has what it executes: in a file system of its own, so its image shows nothing of it."""
ETC = ("hosts", "hostname", "resolv.conf")

KERNEL: tuple[Config, ...] = (
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "noexec", "strictatime", "mode=755", MEMORY_FILES],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", f"gid={TTY_GROUP}"],
    },
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", MEMORY_FILES],
    },
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    {
        "destination": "/sys/fs/cgroup",
        "type": "cgroup",
        "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
    },
)


def apply(config: Config, plan: Plan) -> Config:
    own = [
        {
            "destination": f"/etc/{name}",
            "type": "bind",
            "source": f"{plan.etc}/{name}",
            "options": ["bind", "rw", "nosuid", "nodev", "noexec", "rprivate"],
        }
        for name in ETC
    ]
    if plan.pause:
        own.append({"destination": PAUSE, "type": "bind", "source": plan.pause, "options": _pause_options(plan)})
    given = [_bind(mount) if isinstance(mount, Bind) else _tmpfs(mount) for mount in plan.mounts]
    return {**config, "mounts": [*KERNEL, *given, *own]}


def _pause_options(plan: Plan) -> list[str]:
    """As the host's mount is: one with a user namespace may change no flag of it, and owns nothing of the file."""
    return ["bind", "private", *(("ro",) if plan.privileged else ())]


def _bind(mount: Bind) -> Config:
    options = ["bind", "nosuid", "nodev", "private", *mount.options]
    return {"destination": mount.destination, "type": "bind", "source": mount.source, "options": options}


def _tmpfs(mount: TmpfsMount) -> Config:
    options = ["nosuid", "nodev", f"mode={mount.mode:o}", f"size={mount.size_bytes}"]
    return {"destination": mount.destination, "type": "tmpfs", "source": "tmpfs", "options": options}
