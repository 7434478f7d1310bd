"""The BBS's words into garden's and back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from cells.garden.spec import PIDS_DEFAULT, Container, EgressRule, Limits, Network, Usage
from cells.rep import kept
from cells.rep.asked import asked_by
from cells.rep.instances import Identity
from diego_py import wire
from diego_py.errors import InvalidSpec, Outcome, UnsupportedField
from diego_py.models import supported, validation
from diego_py.models.actual_lrp import NetInfo, PortMapping
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.egress import ICMPInfo, SecurityGroupRule
from diego_py.models.fields import FieldError
from diego_py.models.task import TaskDefinition
from diego_py.models.task_work import TaskWork
from diego_py.models.work import Work

MEBIBYTE = 1024 * 1024
CPU_WEIGHT_DEFAULT = 100
ANY = -1
"""Diego's type or code of any ICMP message."""


Order = TypeVar("Order", Work, TaskWork)


def checked(work: Order) -> Order:
    """The work, if every field of it is within its limits and this release can execute it.

    Raises InvalidSpec or UnsupportedField. The BBS has asked the same; a guid also becomes a file name here.
    """
    refuse_invalid(validation.validate(work))
    refuse_unsupported(work.definition)
    return work


def refuse_invalid(bad: Sequence[FieldError]) -> None:
    """Raises InvalidSpec with these fields, if there are any."""
    if bad:
        errors = [wire.to_builtins(error) for error in bad]
        raise InvalidSpec(f"{len(bad)} invalid field(s)", outcome=Outcome.NOT_STARTED, errors=errors)


def refuse_unsupported(definition: DesiredLRPDefinition | TaskDefinition) -> None:
    """Raises UnsupportedField with what this release cannot execute."""
    if beyond := supported.unsupported(definition):
        errors = [wire.to_builtins(error) for error in beyond]
        raise UnsupportedField(f"{len(beyond)} unsupported field(s)", outcome=Outcome.NOT_STARTED, errors=errors)


def identity_of(work: Work) -> Identity:
    """Who the instance is and what it takes."""
    return Identity(
        process_guid=work.process_guid,
        index=work.index,
        domain=work.domain,
        instance_guid=work.instance_guid,
        resources=work.definition.resources,
        asked=asked_by(work.definition),
    )


def net_info_of(network: Network) -> NetInfo:
    """Where an instance can be reached, for the BBS."""
    ports = tuple(PortMapping(container_port=port.container_port, host_port=port.host_port) for port in network.ports)
    return NetInfo(
        address=network.host_address,
        ports=ports,
        instance_address=network.address,
        instance_ipv6_address=network.address6 or "",
    )


def describe(container: Container, usage: Usage) -> dict[str, object]:
    """A container for `GET /v1/containers`."""
    return {
        "handle": container.handle,
        "state": container.state,
        "created_at": container.created_at,
        "network": net_info_of(container.network),
        "memory_bytes": container.limits.memory_bytes,
        "usage": usage,
        "process": container.process,
        "properties": kept.shown(container.properties),
    }


def egress_of(rule: SecurityGroupRule) -> EgressRule:
    """A rule in garden's words: lists with commas taken apart, and Diego's -1, which is any, as None."""
    ports = tuple((port, port) for port in rule.ports)
    if rule.port_range is not None:
        ports = ((rule.port_range.start, rule.port_range.end),)
    icmp = rule.icmp_info or ICMPInfo(type=ANY, code=ANY)
    return EgressRule(
        protocol=rule.protocol.value,
        destinations=tuple(part.strip() for entry in rule.destinations for part in entry.split(",")),
        ports=ports,
        icmp_type=None if icmp.type == ANY else icmp.type,
        icmp_code=None if icmp.code == ANY else icmp.code,
        log=rule.log,
    )


def limits_of(definition: DesiredLRPDefinition | TaskDefinition) -> Limits:
    """Diego's 0 is garden's None: not limited by us. The number of processes always is."""
    return Limits(
        memory_bytes=definition.memory_mb * MEBIBYTE or None,
        cpu_weight=definition.cpu_weight or CPU_WEIGHT_DEFAULT,
        pids=definition.max_pids or PIDS_DEFAULT,
        disk_bytes=definition.disk_mb * MEBIBYTE or None,
        log_bytes_per_second=_log_rate(definition),
    )


def _log_rate(definition: DesiredLRPDefinition | TaskDefinition) -> int | None:
    """Diego's -1 is not limited."""
    limit = definition.log_rate_limit
    return None if limit is None or limit.bytes_per_second < 0 else limit.bytes_per_second
