"""Changes to the network of a container that runs."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from cells.garden.box import Box
from cells.garden.host import Host
from cells.garden.network import egress
from cells.garden.spec import EgressRule
from diego_py.errors import ContainerNotFound, InvalidSpec, NetworkFailed

Rules = Sequence[EgressRule]


async def set_egress(host: Host, box: Box, rules: Rules) -> None:
    """Change what a container may reach, in one step. Raises ContainerNotFound, InvalidSpec, NetworkFailed."""
    egress.check(rules)
    if box.main is not None:
        wrong = {"pointer": "/egress", "detail": f"is that of {box.main.handle}"}
        raise InvalidSpec(f"change egress of the sidecar {box.handle}", errors=[wrong])
    async with box.lock:
        if box.record.phase == "destroying":
            raise ContainerNotFound(f"find container {box.handle}")
        before = box.record.egress
        box.record = evolve(box.record, egress=tuple(rules))
        host.depot.save(box.record)
        try:
            await host.firewall.set_egress(box.elements)
        except NetworkFailed:
            box.record = evolve(box.record, egress=before)
            host.depot.save(box.record)
            raise
