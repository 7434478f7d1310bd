"""The OCI configuration: what each rule puts in, and that nothing of it can be bent by a spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from cells.garden.bundle import RULES, Plan, build, capabilities, hostname, process, rlimits, seccomp
from cells.garden.spec import Limits
from cells.garden.users import Identity

ROOT = Identity(0, 0, (0,), "root", "/root")
USER = Identity(1000, 1000, (1000, 2000), "vcap", "/home/vcap")
PLAN = Plan(
    path="/bin/app",
    args=("-v", "x"),
    env=(("SECRET", "s3cr3t"),),
    cwd="/",
    identity=ROOT,
    hostname="h",
    rootfs="/state/rootfs",
    etc="/state/etc",
    first_id=1_048_576,
    namespaces={"user": "/proc/7/ns/user", "pid": "/proc/7/ns/pid"},
    cgroup_path="/diego/h",
    counters=("/sys/devices/system/cpu/cpu0/thermal_throttle",),
    limits=Limits(),
    nofile_max=20_000,
)


def test_the_whole_is_json_and_rules_do_not_change_what_they_are_given() -> None:
    before: dict[str, Any] = {"linux": {}}
    for rule in RULES:
        rule.apply(before, PLAN)
    assert before == {"linux": {}}
    assert json.loads(json.dumps(build(PLAN))) == build(PLAN)


def test_process() -> None:
    described = build(PLAN)["process"]
    assert described["args"] == ["/bin/app", "-v", "x"]
    assert described["noNewPrivileges"] is True
    assert described["terminal"] is False
    assert described["user"] == {"uid": 0, "gid": 0, "additionalGids": [0]}


def test_environment_has_defaults_that_can_be_overridden() -> None:
    assert set(process.environment(ROOT, ())) == {f"PATH={process.PATH_ROOT}", "HOME=/root", "USER=root"}
    given_twice = process.environment(USER, (("HOME", "/a"), ("X", "1"), ("X", "2")))
    assert set(given_twice) == {f"PATH={process.PATH_USER}", "HOME=/a", "USER=vcap", "X=2"}


def test_env_is_not_in_the_repr() -> None:
    assert "s3cr3t" not in repr(PLAN)


@pytest.mark.parametrize(("uid", "held"), [(0, 11), (1000, 0), (65_535, 0)])
def test_capabilities(uid: int, held: int) -> None:
    sets = capabilities.of(uid)
    assert len(sets["bounding"]) == 11
    assert len(sets["effective"]) == len(sets["permitted"]) == held
    assert sets["inheritable"] == sets["ambient"] == []


def test_capabilities_of_a_privileged_one() -> None:
    assert capabilities.of(0, ("CAP_BPF",))["effective"] == ["CAP_BPF"]
    assert capabilities.of(1000, ("CAP_BPF",))["effective"] == []
    assert capabilities.of(1000, ("CAP_BPF",))["bounding"] == ["CAP_BPF"]


@given(st.integers(0, 1 << 40), st.integers(1, 1 << 20))
def test_open_files_never_exceed_what_we_have(wanted: int, ours: int) -> None:
    nofile = rlimits.of(Limits(nofile=wanted), ours)[0]
    assert nofile["soft"] == nofile["hard"] == min(wanted, ours)


def test_every_namespace_is_its_own_and_ids_are_mapped() -> None:
    linux = build(PLAN)["linux"]
    assert {entry["type"] for entry in linux["namespaces"]} == {
        "pid",
        "network",
        "ipc",
        "uts",
        "mount",
        "cgroup",
        "user",
    }
    joined = {entry["type"]: entry["path"] for entry in linux["namespaces"] if "path" in entry}
    assert joined == PLAN.namespaces
    mapping = [{"containerID": 0, "hostID": 1_048_576, "size": 65_536}]
    assert linux["uidMappings"] == linux["gidMappings"] == mapping


def test_a_privileged_one_has_the_hosts_ids_and_no_filter() -> None:
    given = ("CAP_SYS_ADMIN", "CAP_KILL")
    ordinary = build(PLAN)
    config = build(evolve(PLAN, privileges=given, first_id=0, namespaces={"pid": "/proc/7/ns/pid"}))
    linux = config["linux"]
    assert {entry["type"] for entry in linux["namespaces"]} == {"pid", "network", "ipc", "uts", "mount", "cgroup"}
    gone = {"uidMappings", "gidMappings", "seccomp", "maskedPaths", "readonlyPaths"}
    assert set(ordinary["linux"]) - set(linux) == gone
    held = config["process"]["capabilities"]
    assert held["bounding"] == held["effective"] == held["permitted"] == list(given)
    assert held["inheritable"] == held["ambient"] == []
    assert config["process"]["noNewPrivileges"] is False
    kept = ("resources", "cgroupsPath", "sysctl", "rootfsPropagation")
    assert [linux[name] for name in kept] == [ordinary["linux"][name] for name in kept]
    assert config["mounts"] == ordinary["mounts"]


def test_limits() -> None:
    resources = build(evolve(PLAN, limits=Limits(memory_bytes=1 << 20, cpu_weight=50, pids=9)))["linux"]["resources"]
    assert resources["memory"] == {"limit": 1 << 20, "swap": 1 << 20}
    assert resources["cpu"] == {"shares": 512}
    assert resources["pids"] == {"limit": 9}
    free = build(PLAN)["linux"]["resources"]
    assert "memory" not in free
    assert (free["cpu"], free["pids"]) == ({"shares": 1024}, {"limit": 1024})
    assert build(evolve(PLAN, limits=Limits(cpu_weight=1)))["linux"]["resources"]["cpu"]["shares"] >= 2


@pytest.mark.parametrize(("millis", "quota_us"), [(2500, 250_000), (200, 20_000), (1, 1000)])
def test_a_hard_limit_of_the_processor(millis: int, quota_us: int) -> None:
    cpu = build(evolve(PLAN, limits=Limits(cpu_millis=millis)))["linux"]["resources"]["cpu"]
    assert cpu == {"shares": 1024, "quota": quota_us, "period": 100_000}


def test_cgroup_path_is_absolute() -> None:
    assert build(PLAN)["linux"]["cgroupsPath"].startswith("/")


def test_kernel_file_systems_cannot_be_written() -> None:
    mounts = {mount["destination"]: mount for mount in build(PLAN)["mounts"]}
    for path in ("/sys", "/sys/fs/cgroup"):
        assert "ro" in mounts[path]["options"]
    assert mounts["/etc/hosts"]["source"] == "/state/etc/hosts"
    assert {"nosuid", "nodev"} <= set(mounts["/etc/hosts"]["options"])


@given(st.text(max_size=200))
def test_hostname_is_short_and_plain(name: str) -> None:
    short = hostname.shorten(name)
    assert 1 <= len(short) <= 49
    assert short[0] not in "-."
    assert short.isascii()


def test_hostname_keeps_the_end() -> None:
    assert hostname.shorten("x" * 60 + "-end") == "x" * 45 + "-end"


def test_seccomp_refuses_unless_listed() -> None:
    policy = seccomp.policy()
    assert (policy["defaultAction"], policy["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    assert policy["architectures"] == ["SCMP_ARCH_X86_64"]
    free = set(policy["syscalls"][0]["names"])
    closed = (
        "bpf clone3 clone unshare setns mount umount2 keyctl add_key request_key userfaultfd perf_event_open socket"
    )
    closed += " io_uring_setup io_uring_enter io_uring_register open_by_handle_at kexec_load init_module reboot swapon"
    closed += (
        " pivot_root fsopen fsmount move_mount open_tree mount_setattr syslog acct settimeofday quotactl nfsservctl"
    )
    assert not free & set(closed.split())
    modern = "rseq close_range faccessat2 pidfd_open pidfd_send_signal futex_waitv membarrier landlock_restrict_self"
    modern += " epoll_pwait2 cachestat statmount mseal openat2 statx clone fchmodat2"
    assert set(modern.split()) - {"clone"} <= free


def test_seccomp_conditions() -> None:
    rules = [rule for rule in seccomp.policy()["syscalls"][1:]]
    by_name = {name: [rule for rule in rules if rule["names"] == [name]] for name in ("clone", "clone3", "socket")}
    (clone,) = by_name["clone"]
    assert clone["args"] == [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
    (clone3,) = by_name["clone3"]
    assert (clone3["action"], clone3["errnoRet"]) == ("SCMP_ACT_ERRNO", 38)
    families = {rule["args"][0]["value"] for rule in by_name["socket"]}
    assert families == {1, 2, 10, 16, 17}
    assert all(rule["args"][0]["op"] == "SCMP_CMP_EQ" for rule in by_name["socket"])


def test_seccomp_names_are_listed_once_and_sorted() -> None:
    groups = json.loads(Path(seccomp.__file__).with_name("seccomp.json").read_text())
    names = [name for group in groups.values() for name in group]
    assert len(names) == len(set(names))
    assert all(group == sorted(group) for group in groups.values())


def test_no_hostname_leaves_the_one_of_the_namespace() -> None:
    assert "hostname" in build(PLAN)
    assert "hostname" not in build(evolve(PLAN, hostname=""))
