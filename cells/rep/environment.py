"""The environment of a process. Diego: rep/conversion_helpers.go and executor/depot/transformer. Pure.

Weakest first: INSTANCE_* and CF_INSTANCE_GUID/INDEX, the LRP's variables, those of a process itself, the addresses.
PORT is not ours: as in Diego it comes from the client, which knows which port the process shall listen on.
"""

from __future__ import annotations

import json

from cells.garden.spec import Env, Network
from diego_py.models.actions import EnvironmentVariable
from diego_py.models.identifiers import InstanceGuid


def container_env(
    instance_guid: InstanceGuid,
    index: int,
    lrp: tuple[EnvironmentVariable, ...],
) -> Env:
    """What every process gets and is known before the container has an address. Each name once."""
    values = {
        "INSTANCE_GUID": instance_guid,
        "INSTANCE_INDEX": str(index),
        "CF_INSTANCE_GUID": instance_guid,
        "CF_INSTANCE_INDEX": str(index),
    }
    return _with(values, lrp)


def task_env(task: tuple[EnvironmentVariable, ...]) -> Env:
    """The same for a task, which is no instance of anything."""
    return _with({}, task)


def network_env(network: Network) -> Env:
    """The addresses of an instance. Without ports CF_INSTANCE_PORT and CF_INSTANCE_ADDR are set and empty."""
    published = [port for port in network.ports if port.host_port]
    first = str(published[0].host_port) if published else ""
    values = [
        ("CF_INSTANCE_IP", network.host_address),
        ("CF_INSTANCE_INTERNAL_IP", network.address),
        ("CF_INSTANCE_PORTS", _ports(network)),
    ]
    if network.address6 is not None:
        values.append(("CF_INSTANCE_INTERNAL_IPV6", network.address6))
    if published or not network.ports:
        values.append(("CF_INSTANCE_PORT", first))
        values.append(("CF_INSTANCE_ADDR", f"{network.host_address}:{first}" if first else ""))
    return tuple(values)


def _with(values: dict[str, str], stronger: tuple[EnvironmentVariable, ...]) -> Env:
    return tuple({**values, **{variable.name: variable.value.reveal() for variable in stronger}}.items())


def _ports(network: Network) -> str:
    """As Diego writes it: `external` is left out where no port of the host leads there."""
    listed = [
        {"external": port.host_port, "internal": port.container_port}
        if port.host_port
        else {"internal": port.container_port}
        for port in network.ports
    ]
    return json.dumps(listed, separators=(",", ":"))
