"""The tasks that this cell has, and the table of their states. Diego: executor/resources.go."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final

from attrs import define, field, frozen

from cells.rep.asked import NOTHING, Asked
from diego_py.models.identifiers import Domain, InstanceGuid, TaskGuid
from diego_py.models.task_work import CellTaskState, TaskReport
from diego_py.models.transitions import next_state
from diego_py.models.workload import Resources


class CellTaskEvent(StrEnum):
    """What happens to a task on its cell."""

    CLAIM = "CLAIM"
    """The BBS gave us the row."""
    START = "START"
    """A process of it was started, or all of it was done already."""
    FAIL = "FAIL"
    """Its start failed; what was done is being undone."""
    STOP = "STOP"
    """Somebody asked for its end, or nobody can take it up after a restart of the cell."""
    END = "END"
    """It ended on its own."""
    VANISH = "VANISH"
    """Its container is gone."""


TRANSITIONS: Final[Mapping[tuple[CellTaskState, CellTaskEvent], CellTaskState]] = {
    (CellTaskState.RESERVED, CellTaskEvent.CLAIM): CellTaskState.CREATED,
    (CellTaskState.CREATED, CellTaskEvent.START): CellTaskState.RUNNING,
    (CellTaskState.RESERVED, CellTaskEvent.FAIL): CellTaskState.STOPPING,
    (CellTaskState.CREATED, CellTaskEvent.FAIL): CellTaskState.STOPPING,
    (CellTaskState.RESERVED, CellTaskEvent.STOP): CellTaskState.STOPPING,
    (CellTaskState.CREATED, CellTaskEvent.STOP): CellTaskState.STOPPING,
    (CellTaskState.RUNNING, CellTaskEvent.STOP): CellTaskState.STOPPING,
    (CellTaskState.STOPPING, CellTaskEvent.STOP): CellTaskState.STOPPING,
    (CellTaskState.RUNNING, CellTaskEvent.END): CellTaskState.STOPPING,
    (CellTaskState.STOPPING, CellTaskEvent.VANISH): CellTaskState.COMPLETED,
}


def transition(state: CellTaskState, event: CellTaskEvent) -> CellTaskState:
    """The state after `event`. Raises IllegalTransition if the table does not have the pair."""
    return next_state(TRANSITIONS, state, event)


@frozen(kw_only=True)
class TaskIdentity:
    """Which attempt at which task this is, and what it takes of the cell."""

    task_guid: TaskGuid
    domain: Domain
    instance_guid: InstanceGuid
    resources: Resources
    asked: Asked = NOTHING

    def subject(self) -> dict[str, object]:
        """As failure documents name it."""
        return {
            "kind": "task",
            "guid": self.task_guid,
            "domain": self.domain,
            "instance_guid": self.instance_guid,
        }


@define(eq=False)
class CellTask:
    """One entry of the table. Its state changes by `happen` only."""

    identity: TaskIdentity
    claim_id: str
    """Of this one start; with it the BBS tells it from any other one of the same instance_guid."""
    state: CellTaskState = CellTaskState.RESERVED
    begun: bool = False
    """Whether a process of it may have run. Set before the first one is started."""
    was_claimed: bool = False
    """Whether its claim was sent: then the row may be ours, whatever was answered."""
    stop_asked: asyncio.Event = field(factory=asyncio.Event)
    """Set when somebody wants the end of a task that is still starting."""
    watching: asyncio.Task[None] | None = None
    """Waits for its end and does what follows; its container has no other owner then."""

    def subject(self) -> dict[str, object]:
        """As failure documents name it."""
        return {**self.identity.subject(), "claim_id": self.claim_id}

    @property
    def guid(self) -> InstanceGuid:
        return self.identity.instance_guid

    def happen(self, event: CellTaskEvent) -> None:
        """Move to the next state. Raises IllegalTransition."""
        self.state = transition(self.state, event)

    def report(self) -> TaskReport:
        """As the cell tells the BBS of it."""
        identity = self.identity
        return TaskReport(
            task_guid=identity.task_guid,
            domain=identity.domain,
            instance_guid=identity.instance_guid,
            state=self.state,
            memory_mb=identity.resources.memory_mb,
            disk_mb=identity.resources.disk_mb,
        )


@define
class CellTasks:
    """The table, by instance guid."""

    _all: dict[InstanceGuid, CellTask] = field(factory=dict, init=False)

    def add(self, task: CellTask) -> None:
        """Enter a task that is not there."""
        assert task.guid not in self._all
        self._all[task.guid] = task

    def get(self, guid: InstanceGuid) -> CellTask | None:
        return self._all.get(guid)

    def remove(self, guid: InstanceGuid) -> None:
        """Forget a task whose container is gone. Idempotent."""
        self._all.pop(guid, None)

    def __iter__(self) -> Iterator[CellTask]:
        return iter(list(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)
