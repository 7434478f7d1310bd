"""What the cell knows of itself, in one place for all parts of the rep. Only the event loop's thread touches it."""

from __future__ import annotations

import asyncio

from attrs import define, field

from cells.rep.ended import EndedBook
from cells.rep.instances import Identity, Instance, Instances
from cells.rep.reservations import Reservations
from cells.rep.tasks import CellTask, CellTaskEvent, CellTasks, TaskIdentity
from diego_py.models.identifiers import InstanceGuid
from diego_py.models.task_work import TaskEnd
from diego_py.models.work import EndedReport


@define
class Books:
    """Resources, instances, tasks, and ends still to be told. Each and its reservation come and go together."""

    reservations: Reservations
    instances: Instances
    ended: EndedBook[EndedReport]
    tasks: CellTasks
    task_ends: EndedBook[TaskEnd]
    changed: asyncio.Event = field(factory=asyncio.Event)
    """Set whenever the BBS should hear of something soon."""

    def reserve(self, identity: Identity) -> Instance:
        """Enter a new instance, if there is room. Atomic: nothing is awaited between the look and the entry.

        Raises InsufficientResources.
        """
        self.reservations.reserve(identity.instance_guid, identity.resources)
        return self._enter(identity)

    def adopt(self, identity: Identity) -> Instance:
        """Enter an instance whose container is there already, room or not."""
        self.reservations.adopt(identity.instance_guid, identity.resources)
        return self._enter(identity)

    def reserve_task(self, identity: TaskIdentity, claim_id: str) -> CellTask:
        """Enter a new task, if there is room. Atomic, as `reserve`. Raises InsufficientResources."""
        self.reservations.reserve(identity.instance_guid, identity.resources)
        return self._enter_task(identity, claim_id)

    def adopt_task(self, identity: TaskIdentity, claim_id: str) -> CellTask:
        """Enter a task whose container is there already, room or not."""
        self.reservations.adopt(identity.instance_guid, identity.resources)
        return self._enter_task(identity, claim_id)

    def identity(self, guid: InstanceGuid) -> Identity | TaskIdentity | None:
        """Whose attempt this is; None when nothing of it is here."""
        found = self.instances.get(guid) or self.tasks.get(guid)
        return None if found is None else found.identity

    def failed_tasks(self) -> set[InstanceGuid]:
        """Those that failed, and whose end is still to be told."""
        return {end.instance_guid for end in self.task_ends.all() if end.failed}

    def forget(self, guid: InstanceGuid) -> None:
        """The container is gone: give back what it took. Idempotent."""
        if (task := self.tasks.get(guid)) is not None:
            task.happen(CellTaskEvent.VANISH)
        self.reservations.release(guid)
        self.instances.remove(guid)
        self.tasks.remove(guid)

    def _enter(self, identity: Identity) -> Instance:
        instance = Instance(identity)
        self.instances.add(instance)
        return instance

    def _enter_task(self, identity: TaskIdentity, claim_id: str) -> CellTask:
        task = CellTask(identity, claim_id)
        self.tasks.add(task)
        return task
