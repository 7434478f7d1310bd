"""Which system calls a container may make: a list of what is allowed (seccomp.json), everything else is EPERM.

After moby's default policy. One architecture only: the 32-bit ones cost most of the compilation, at every start and
every exec, and open a second door (socketcall) to what is closed here. A privileged container may make every call.
"""

from __future__ import annotations

import errno
import json
from functools import cache
from pathlib import Path

from cells.garden.bundle.plan import Config, Plan

ALLOW = "SCMP_ACT_ALLOW"
REFUSE = "SCMP_ACT_ERRNO"

CLONE_NEW_NAMESPACES = 0x7E020000
"""NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""

FAMILIES = (1, 2, 10, 16, 17)
"""Sockets: unix, IPv4, IPv6, netlink, packet. The others load kernel modules on request, and two are worse: AF_VSOCK
leads out of a virtual machine past every network rule, AF_ALG is kernel crypto (CVE-2026-31431)."""

PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""Linux, its 32-bit address limit, UNAME26, both, and asking for the present one."""


def apply(config: Config, plan: Plan) -> Config:
    if plan.privileged:
        return config
    return {**config, "linux": {**config["linux"], "seccomp": policy()}}


@cache
def policy() -> Config:
    """The OCI `seccomp` object; the same for every container."""
    groups: dict[str, list[str]] = json.loads(Path(__file__).with_name("seccomp.json").read_text())
    names = sorted({name for group in groups.values() for name in group})
    return {
        "defaultAction": REFUSE,
        "defaultErrnoRet": errno.EPERM,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": names, "action": ALLOW},
            # ENOSYS, not EPERM: the flags of clone3 are in memory, where a filter cannot look; libc then uses clone.
            {"names": ["clone3"], "action": REFUSE, "errnoRet": errno.ENOSYS},
            {"names": ["clone"], "action": ALLOW, "args": [_masked(0, CLONE_NEW_NAMESPACES, 0)]},
            *({"names": ["personality"], "action": ALLOW, "args": [_equal(0, value)]} for value in PERSONALITIES),
            *({"names": ["socket"], "action": ALLOW, "args": [_equal(0, family)]} for family in FAMILIES),
        ],
    }


def _masked(index: int, mask: int, value: int) -> Config:
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def _equal(index: int, value: int) -> Config:
    return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}
