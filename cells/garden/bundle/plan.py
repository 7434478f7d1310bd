"""All that the rules of the bundle need to know of one container. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from cells.garden.spec import Env, Limits, TmpfsMount
from cells.garden.users import Identity

Config = dict[str, Any]
"""An OCI runtime configuration, as JSON will have it."""


@frozen
class Bind:
    """A directory or file of the host, prepared, and where the container has it."""

    source: str
    destination: str
    options: tuple[str, ...]


@frozen
class Plan:
    """One container, every choice made: names are numbers, paths are absolute."""

    path: str
    args: tuple[str, ...]
    env: Env = field(repr=False)
    cwd: str
    identity: Identity
    hostname: str
    """Empty: the one that its uts namespace has."""
    rootfs: str
    etc: str
    """Directory of the host with the container's own hosts, hostname and resolv.conf."""
    first_id: int
    """The host's id that is the container's root."""
    namespaces: Mapping[str, str]
    """Those that exist already, by OCI type: paths to join. The others are new."""
    cgroup_path: str
    counters: tuple[str, ...]
    """Where this host's processors count how often they were too hot: others' work shows in it."""
    limits: Limits
    nofile_max: int
    """The cell's own hard limit: nobody below it can be given more."""
    mounts: tuple[Bind | TmpfsMount, ...] = ()
    apparmor_profile: str | None = None
    """None: the host has no AppArmor, or the cell names no profile."""
    privileges: tuple[str, ...] | None = None
    """The capabilities of a privileged container's root. None: it is an ordinary one."""
    pause: str = ""
    """The host's path of what an idle container executes. Empty: this is none."""

    @property
    def privileged(self) -> bool:
        return self.privileges is not None
