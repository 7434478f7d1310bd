"""The instances that this cell has, and the table of their states. Diego: executor/resources.go."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final

from attrs import define, field, frozen

from cells.rep.asked import NOTHING, Asked
from diego_py.models.actual_lrp import NetInfo
from diego_py.models.identifiers import Domain, InstanceGuid, ProcessGuid
from diego_py.models.transitions import next_state
from diego_py.models.work import InstanceReport, InstanceState
from diego_py.models.workload import Resources


class InstanceEvent(StrEnum):
    """What happens to an instance on its cell."""

    CLAIM = "CLAIM"
    """The BBS gave us the row."""
    START = "START"
    """Healthy for the first time."""
    FAIL = "FAIL"
    """Its start failed; what was done is being undone."""
    STOP = "STOP"
    """Somebody asked for its end."""
    END = "END"
    """It ended on its own."""


TRANSITIONS: Final[Mapping[tuple[InstanceState, InstanceEvent], InstanceState]] = {
    (InstanceState.RESERVED, InstanceEvent.CLAIM): InstanceState.CREATED,
    (InstanceState.CREATED, InstanceEvent.START): InstanceState.RUNNING,
    (InstanceState.RESERVED, InstanceEvent.FAIL): InstanceState.STOPPING,
    (InstanceState.CREATED, InstanceEvent.FAIL): InstanceState.STOPPING,
    (InstanceState.RESERVED, InstanceEvent.STOP): InstanceState.STOPPING,
    (InstanceState.CREATED, InstanceEvent.STOP): InstanceState.STOPPING,
    (InstanceState.RUNNING, InstanceEvent.STOP): InstanceState.STOPPING,
    (InstanceState.STOPPING, InstanceEvent.STOP): InstanceState.STOPPING,
    (InstanceState.CREATED, InstanceEvent.END): InstanceState.STOPPING,
    (InstanceState.RUNNING, InstanceEvent.END): InstanceState.STOPPING,
}


def transition(state: InstanceState, event: InstanceEvent) -> InstanceState:
    """The state after `event`. Raises IllegalTransition if the table does not have the pair."""
    return next_state(TRANSITIONS, state, event)


@frozen(kw_only=True)
class Identity:
    """Which attempt at which instance this is, and what it takes of the cell."""

    process_guid: ProcessGuid
    index: int
    domain: Domain
    instance_guid: InstanceGuid
    resources: Resources
    asked: Asked = NOTHING

    def subject(self) -> dict[str, object]:
        """As failure documents name it."""
        return {
            "kind": "lrp",
            "guid": self.process_guid,
            "index": self.index,
            "domain": self.domain,
            "instance_guid": self.instance_guid,
        }


@define(eq=False)
class Instance:
    """One entry of the table. Its state changes by `happen` only."""

    identity: Identity
    state: InstanceState = InstanceState.RESERVED
    net_info: NetInfo | None = None
    routable: bool = True
    """Once RUNNING: its readiness checks pass, or it has none."""
    egress_version: int = 0
    """Of the LRP whose rules hold, as far as this process was told."""
    reopening: asyncio.Lock = field(factory=asyncio.Lock)
    """Held while its rules change."""
    stop_asked: asyncio.Future[None] = field(factory=lambda: asyncio.get_running_loop().create_future())
    """Done when somebody wants the end of an instance that is still starting."""
    watching: asyncio.Task[None] | None = None
    """Waits for its end and does what follows; its container has no other owner then."""
    _told: InstanceReport | None = None

    @property
    def guid(self) -> InstanceGuid:
        return self.identity.instance_guid

    def happen(self, event: InstanceEvent) -> None:
        """Move to the next state. Raises IllegalTransition."""
        self.state = transition(self.state, event)

    def ask_to_stop(self) -> None:
        """Somebody wants its end. Idempotent."""
        if not self.stop_asked.done():
            self.stop_asked.set_result(None)

    def report(self) -> InstanceReport:
        """As the cell tells the BBS of it; the same object for as long as nothing changes."""
        told, routable = self._told, self.routable and self.state is InstanceState.RUNNING
        if told is None or told.state is not self.state or (told.net_info, told.routable) != (self.net_info, routable):
            told = self._told = self._report(routable)
        return told

    def _report(self, routable: bool) -> InstanceReport:
        identity = self.identity
        return InstanceReport(
            process_guid=identity.process_guid,
            index=identity.index,
            domain=identity.domain,
            instance_guid=identity.instance_guid,
            state=self.state,
            memory_mb=identity.resources.memory_mb,
            disk_mb=identity.resources.disk_mb,
            net_info=self.net_info,
            routable=routable,
        )


@define
class Instances:
    """The table, by instance guid."""

    _all: dict[InstanceGuid, Instance] = field(factory=dict, init=False)

    def add(self, instance: Instance) -> None:
        """Enter an instance that is not there."""
        assert instance.guid not in self._all
        self._all[instance.guid] = instance

    def get(self, guid: InstanceGuid) -> Instance | None:
        return self._all.get(guid)

    def remove(self, guid: InstanceGuid) -> None:
        """Forget an instance whose container is gone. Idempotent."""
        self._all.pop(guid, None)

    def __iter__(self) -> Iterator[Instance]:
        return iter(list(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)
