"""The BBS's words become garden's, and come back after a restart."""

from typing import Any

import pytest

from cells.garden.spec import PIDS_DEFAULT, EgressRule, Network, PortForward
from cells.rep.translate import net_info_of
from diego_py.models.actions import Action, ResourceLimits, RunAction
from diego_py.models.checks import Check, HTTPCheck
from diego_py.models.egress import EgressProtocol, ICMPInfo, PortRange, SecurityGroupRule
from diego_py.models.workload import LogRateLimit
from tests.fakes.cell import plan_of, work

CHECK = Check(http=HTTPCheck(port=8080, path="/health"))


def test_zero_is_not_limited() -> None:
    plan = plan_of(work(memory_mb=0, disk_mb=0), 60.0)
    assert plan.spec.limits.memory_bytes is None
    assert plan.spec.limits.disk_bytes is None
    assert plan.spec.limits.pids == PIDS_DEFAULT
    assert plan.spec.limits.cpu_weight == 100
    assert plan.spec.limits.nofile is None
    assert plan.spec.cwd is None
    assert plan.workload.health.start_timeout_s == 60.0


def test_limits() -> None:
    run = RunAction(path="/bin/a", args=("b",), user="app", dir="/srv", resource_limits=ResourceLimits(nofile=99))
    sizes = {"memory_mb": 64, "disk_mb": 9, "max_pids": 7, "cpu_weight": 20}
    asked = work(**sizes, start_timeout_ms=1500, action=Action(run=run), ports=(1, 2))
    plan = plan_of(asked, 60.0)
    limits = plan.spec.limits
    assert (limits.memory_bytes, limits.pids, limits.cpu_weight, limits.nofile) == (64 * 1024 * 1024, 7, 20, 99)
    assert (limits.disk_bytes, limits.disk_inodes) == (9 * 1024 * 1024, None)
    assert (plan.spec.handle, plan.spec.path, plan.spec.args, plan.spec.user) == ("i-1", "/bin/a", ("b",), "app")
    assert (plan.spec.cwd, plan.spec.ports, plan.workload.health.start_timeout_s) == ("/srv", (1, 2), 1.5)


@pytest.mark.parametrize(("asked", "given"), [(None, None), (-1, None), (0, 0), (500, 500)])
def test_log_rate(asked: int | None, given: int | None) -> None:
    limit = None if asked is None else LogRateLimit(bytes_per_second=asked)
    plan = plan_of(work(log_rate_limit=limit), 60.0)
    assert plan.spec.limits.log_bytes_per_second == given


@pytest.mark.parametrize("suppressed", [False, True])
def test_suppressed_output_is_of_the_process_not_of_the_container(suppressed: bool) -> None:
    run = RunAction(path="/bin/a", user="b", suppress_log_output=suppressed)
    plan = plan_of(work(action=Action(run=run)), 60.0)
    assert (plan.spec.silent, plan.spec.limits.log_bytes_per_second) == (suppressed, None)


def test_net_info() -> None:
    info = net_info_of(Network("10.254.0.2", "192.0.2.1", (PortForward(8080, 61001),)))
    assert (info.address, info.instance_address) == ("192.0.2.1", "10.254.0.2")
    assert [(port.container_port, port.host_port) for port in info.ports] == [(8080, 61001)]


def rule(protocol: EgressProtocol, *destinations: str, **more: Any) -> SecurityGroupRule:
    return SecurityGroupRule(protocol=protocol, destinations=destinations, **more)


@pytest.mark.parametrize("privileged", [False, True])
def test_privileged(privileged: bool) -> None:
    assert plan_of(work(privileged=privileged), 60.0).spec.privileged is privileged


def test_egress_rules() -> None:
    rules = (
        rule(EgressProtocol.TCP, "10.0.0.1, 10.0.0.8/29", "fd00::1", ports=(80, 443)),
        rule(EgressProtocol.UDP, "10.0.0.1-10.0.0.9", port_range=PortRange(start=53, end=60), log=True),
        rule(EgressProtocol.ICMP, "0.0.0.0/0", icmp_info=ICMPInfo(type=8, code=-1)),
        rule(EgressProtocol.ALL, "::/0"),
    )
    assert plan_of(work(egress_rules=rules), 60.0).spec.egress == (
        EgressRule("tcp", ("10.0.0.1", "10.0.0.8/29", "fd00::1"), ((80, 80), (443, 443))),
        EgressRule("udp", ("10.0.0.1-10.0.0.9",), ((53, 60),), log=True),
        EgressRule("icmp", ("0.0.0.0/0",), icmp_type=8),
        EgressRule("all", ("::/0",)),
    )
