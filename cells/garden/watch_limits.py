"""How many inotify instances and watches a container may have, so that one cannot use up everybody's.

The kernel counts them for a user of a user namespace and again for the user who made that namespace, which is root: all
containers and the host's own root together are held to what the host allows one user. So each namespace gets a limit of
its own, and the host one that has room for all of them.
"""

from __future__ import annotations

from pathlib import Path

from diego_py.errors import GardenFailed

PER_CONTAINER = {"instances": 128, "watches": 8192}
"""What the kernel itself gives one user, as long as nobody changes it."""
HOST = Path("/proc/sys/fs/inotify")


def of_namespace() -> dict[str, int]:
    """What a process with CAP_SYS_RESOURCE in its user namespace writes to files of /proc/sys/user there."""
    return {f"max_inotify_{what}": limit for what, limit in PER_CONTAINER.items()}


def make_room(containers: int) -> None:
    """Raise the host's limits so that so many containers and one more user fit. Raises GardenFailed."""
    for what, limit in PER_CONTAINER.items():
        path = HOST / f"max_user_{what}"
        needed = (containers + 1) * limit
        try:
            if int(path.read_text()) < needed:
                path.write_text(str(needed))
        except OSError as refused:
            raise GardenFailed(f"raise {path.name} of this host to {needed}", evidence={"path": str(path)}) from refused
