"""The AppArmor profile that containers run under, where the host has AppArmor. Loading it is the operator's part."""

from __future__ import annotations

import contextlib
from pathlib import Path

from attrs import frozen

from diego_py.errors import AppArmorProfileMissing

MODULE = Path("/sys/module/apparmor/parameters/enabled")
LOADED = Path("/sys/kernel/security/apparmor/profiles")


@frozen
class Confinement:
    """What the configuration asked for, met with what the host has."""

    profile: str | None = None
    """To be applied; None when there is none."""
    warning: str | None = None


def choose(wanted: str, module: Path = MODULE, loaded: Path = LOADED) -> Confinement:
    """The profile `wanted`, if this kernel knows AppArmor; empty is no wish.

    Raises AppArmorProfileMissing when the kernel knows AppArmor and not this profile.
    """
    if not wanted:
        return Confinement()
    if _read(module).strip() != "Y":
        return Confinement(warning=f"apparmor_profile {wanted} is not applied: this host has no AppArmor")
    # One line a profile: "name (mode)".
    names = {line.rpartition(" (")[0] for line in _read(loaded).splitlines()}
    if wanted not in names:
        raise AppArmorProfileMissing(f"find AppArmor profile {wanted!r}", evidence={"profile": wanted})
    return Confinement(profile=wanted)


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""
