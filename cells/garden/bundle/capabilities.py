"""Capabilities: eleven for the container's root (a privileged one's has what is given), none for any other user.

Inheritable and ambient are empty for both, so nothing is gained through exec; the bounding set is the same, for a
process that is root may become somebody else and come back.
"""

from __future__ import annotations

from cells.garden.bundle.plan import Config

ROOT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)


def of(uid: int, given: tuple[str, ...] = ROOT) -> Config:
    """The OCI `capabilities` of a process of this user; `given` are those of root."""
    held = list(given) if uid == 0 else []
    return {"bounding": list(given), "effective": held, "permitted": held, "inheritable": [], "ambient": []}
