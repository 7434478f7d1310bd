"""What the tables can do, whatever keeps them: Postgres, or the memory of a simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from bbs.labels import Labels
from bbs.store import desired_lrps, failures, tasks
from bbs.store.actual_lrps import Key, Locked, RemovedRow, RowKey
from bbs.store.cells import Boot, CellMark, CellRecord
from bbs.store.decisions import LastRound
from bbs.store.desired_lrps import Reach, StoredLRP
from bbs.store.domains import DomainFreshness
from bbs.store.failures import Document, FailureRecord
from bbs.store.idempotency import IdempotencyKey, KeyRecord, StoredAnswer
from bbs.store.tasks import LockedTask
from bbs.store.told_instances import Mark, ToldInstance, Wanted
from bbs.store.unchanged import Change
from bbs.task_status import Claim, TaskStatus
from diego_py.models.actual_lrp import ActualLRP, Presence
from diego_py.models.desired_lrp import DesiredLRP, DesiredLRPDefinition, SchedulingInfo
from diego_py.models.identifiers import CellId, InstanceGuid
from diego_py.models.task import Task, TaskRequest
from diego_py.models.work import CellReport, Heartbeat


class ActualLRPTable(Protocol):
    """One row an instance. Which row may become which is decided elsewhere, never here."""

    async def insert_unclaimed(
        self,
        process_guid: str,
        domain: str,
        indices: Sequence[int],
        instance_guids: Sequence[str | None],
        tag_epochs: Sequence[str],
        revision: int,
    ) -> list[ActualLRP]:
        """Add UNCLAIMED rows, with the instance_guid each is offered under if one is given. Existing rows stay."""

    async def get(self, process_guid: str, index: int, presence: str = "ORDINARY") -> ActualLRP | None:
        """One row with the document of its failure."""

    async def lock(self, process_guid: str, index: int, presence: str = "ORDINARY") -> Locked | None:
        """A row, locked until the transaction ends; without the document of its failure."""

    async def lock_many(self, keys: Sequence[Key]) -> list[Locked]:
        """The ordinary rows of these keys that there are, each as `lock` gives it, locked in order of their keys."""

    async def list_of(self, process_guid: str) -> list[ActualLRP]:
        """Every row of one LRP, without documents."""

    async def list_of_cell(self, cell_id: str) -> list[ActualLRP]:
        """Every row that a cell has claimed."""

    async def list_concerning(self, cell_ids: Sequence[str], instance_guids: Sequence[str]) -> list[ActualLRP]:
        """Every row that these cells have claimed, and every row of these instances wherever they are."""

    async def list_all(self) -> list[ActualLRP]:
        """Every row, without documents."""

    async def list_of_keys(self, keys: Sequence[Key]) -> list[ActualLRP]:
        """Every row of these keys, in order."""

    async def save(self, row: ActualLRP, failure_id: str | None) -> None:
        """Write a row that this transaction has locked."""

    async def save_many(self, changes: Sequence[tuple[ActualLRP, str | None]]) -> None:
        """Write rows that this transaction has locked, each with the id of its failure."""

    async def ask_stop(self, process_guid: str, first: int) -> None:
        """Mark the rows of an LRP from index `first` on as to be stopped, and the others as not."""

    async def close(self, row: ActualLRP) -> None:
        """Mark the row of this very instance as to be stopped and as not routable, which no report changes back."""

    async def move_many(self, changes: Sequence[tuple[ActualLRP, Presence, str | None]]) -> None:
        """Make rows that this transaction has locked ones of another presence; there must be none of those.

        Each with the id of its failure from now on.
        """

    async def insert_many(self, rows: Sequence[tuple[ActualLRP, str | None]]) -> None:
        """Add whole rows, each with the id of its failure; there must be none of their keys."""

    async def delete(
        self, process_guid: str, index: int, instance_guid: str | None, presence: str = "ORDINARY"
    ) -> bool:
        """Remove a row if it is of this instance; None: of whichever. False if there is none such."""

    async def delete_many(self, rows: Sequence[ActualLRP]) -> set[RowKey]:
        """Remove those that are still of these instances. Gives the keys of the removed."""

    async def remove(
        self, process_guid: str, index: int, instance_guid: str | None, presence: str = "ORDINARY"
    ) -> RemovedRow:
        """The same for an instance that is gone: it counts as abandoned no more. Says what is left of its LRP."""


class UnchangedRows(Protocol):
    """Rows of instances that are as their writer saw them last. Which may become which is decided elsewhere."""

    async def save(self, changes: Sequence[Change]) -> dict[Key, datetime]:
        """Write those that are still as they were, as of now; one change of an index, at most.

        Gives since when each of them is what it became.
        """


class ToldInstances(Protocol):
    """Instances with all that is told of them, put together over several tables."""

    async def list_marks(self, wanted: Wanted, limit: int | None = None) -> list[Mark]:
        """At most `limit` instances in order. Two with the same version are told alike, also after a backup was
        restored."""

    async def list_page(self, wanted: Wanted, limit: int | None = None) -> list[ToldInstance]:
        """The same with all that is told, each as of one moment."""


class LabelTable(Protocol):
    """What is told of instances besides their state: what their LRP says, or else what their rep told, which counts."""

    async def tell(self, instance_guid: str, labels: Labels) -> None:
        """Keep what a rep told of an instance for as long as a row names it. The tag of that rises if it is news."""

    async def changed(self, process_guid: str) -> None:
        """The LRP says something else: raise the tags of its RUNNING instances."""


class Deviations(Protocol):
    """Instances that may need something, found over several tables. Only together, in one snapshot, are they all."""

    async def uneven(self) -> list[str]:
        """The LRPs of which an index that is desired has no ordinary row, or that have a row which is not desired.

        Reads every row; nothing else that convergence looks for does.
        """

    async def emptied(self) -> list[str]:
        """The LRPs with a row on a draining cell that never have two instances of an index."""

    async def keys(self, process_guids: Sequence[str], stale: datetime) -> list[Key]:
        """Every key, in order, of which something may be to do: of these LRPs all; of others those with a row that no
        cell has, that is to be stopped, that is beside another one, or whose cell drains or has no presence as of the
        beginning of the transaction. But a row that was offered after `stale`, and of which nothing failed, is left to
        whoever offered it."""

    async def offered_since(self, stale: datetime) -> datetime | None:
        """Since when the first of these waits that are left to whoever offered them."""


class AbandonedTable(Protocol):
    """Instances that a cell claimed and that no row names any more, until it is known that they are gone."""

    async def insert_many(self, rows: Sequence[ActualLRP]) -> None:
        """Remember the claimed instances of rows; those that are there already stay."""

    async def list_of(self, process_guid: str, first: int = 0) -> list[ActualLRP]:
        """Those of an LRP from index `first` on, on cells whose presence lasts, as CLAIMED rows."""

    async def settle(self, cell_ids: Sequence[str], reported: Sequence[str], older_than_s: float) -> None:
        """Forget those of these cells that are not named, unless they are so young that they could not be yet."""

    async def prune(self) -> None:
        """Forget those that are older than a day on cells that are gone."""


class DesiredLRPTable(Protocol):
    """What clients sent, and what decisions are made by."""

    async def get(self, process_guid: str, *, for_update: bool = False) -> DesiredLRP | None:
        """One, locked until the transaction ends if asked for."""

    async def share_many(self, process_guids: Sequence[str]) -> list[Reach]:
        """Of those of these that there are, which nobody changes or removes until the transaction ends."""

    async def list_stored(
        self, wanted: desired_lrps.Filter, after: str | None = None, limit: int = 500
    ) -> list[StoredLRP]:
        """At most `limit`, in order of process_guid, from the one behind `after` on; definitions as they are stored."""

    async def list_scheduling_infos(self, process_guids: Sequence[str]) -> list[SchedulingInfo]:
        """Those of these that there are, without their definitions."""

    async def update(self, definition: DesiredLRPDefinition, revision: int) -> DesiredLRP | None:
        """Replace the definition and raise the tag; None if there is no such row. Lock and compare the row before."""


class LRPTable(Protocol):
    """Desired LRPs together with their rows. Each change is one statement."""

    async def desire(
        self,
        definition: DesiredLRPDefinition,
        tag_epoch: str,
        instance_guids: Sequence[str],
        tag_epochs: Sequence[str],
    ) -> tuple[DesiredLRP, list[ActualLRP]]:
        """Store a new one, and UNCLAIMED rows, each with the instance_guid it is offered under. Existing rows stay.

        Raises AlreadyExists, and StillBeingDeleted while a row of it is to be stopped.
        """

    async def undesire(self, process_guid: str) -> list[ActualLRP]:
        """Remove one with the rows that no cell has, and mark the others as to be stopped.

        Gives these, and the abandoned attempts as `AbandonedTable.list_of` does. Raises DesiredLRPNotFound.
        """


class CellTable(Protocol):
    """What each cell said last, and until when it counts as live by the database's clock alone."""

    async def upsert(self, reports: Sequence[CellReport], ttl_s: float) -> dict[CellId, int | None]:
        """Take up a report of each of these cells and renew the presence, and keep the rows locked, in order.

        Gives the fingerprint of what we have of each cell, as it was before: its instances with their tags, and its
        tasks. None when attempts are still to be settled there. Without those whose report is out of date, or of
        another home than a live cell of this id has.

        Out of date is a lower sequence of the same boot, and anything of the boot that the present one replaced, for as
        long as the present one is live. A boot that is not known replaces the present one at once: the cell restarted.
        """

    async def settle(self, fingerprints: Mapping[CellId, int]) -> None:
        """The last report of each of these cells, whose rows are locked, and what the fingerprint is of agree."""

    async def renew(self, beats: Sequence[tuple[CellId, Heartbeat]], ttl_s: float) -> set[CellId]:
        """Renew the presence of those that are as their last whole report said, if what we have of them is as it was
        when both agreed. One heartbeat of each cell; those that are older than the last word are not among them."""

    async def list_marks(self) -> list[CellMark]:
        """Every cell, without its presence, in order; each as it was when the transaction began."""

    async def list_many(self, cell_ids: Sequence[str]) -> list[CellRecord]:
        """Those of these that there are and whose presence lasts."""

    async def list_live(self) -> list[CellRecord]:
        """The cells whose presence lasts."""

    async def list_all(self) -> list[CellRecord]:
        """Every cell that was seen and not deleted since."""

    async def get(self, cell_id: str) -> CellRecord | None:
        """One, live or not."""

    async def is_live(self, cell_id: str, boot_id: str) -> bool:
        """Whether this boot of the cell is the present one and its presence lasts."""

    async def live_of(self, boots: Sequence[Boot]) -> set[Boot]:
        """Those of these cells that are live, each with its boot, or with whichever."""

    async def expire(self, cell_id: str) -> bool:
        """End the presence now: the cell says goodbye, or is known to be gone. False if it is not known."""

    async def delete(self, cell_id: str) -> bool:
        """Forget a cell. False if it is not known."""


class DomainTable(Protocol):
    """Until when a client vouches for its part of the desired state."""

    async def upsert(self, domain: str, ttl_s: float | None) -> None:
        """Make a domain fresh for so many seconds from now; None is for ever."""

    async def list_fresh(self) -> list[DomainFreshness]:
        """The domains that are fresh now."""

    async def prune(self) -> None:
        """Forget domains that nobody made fresh for a day."""


class FailureTable(Protocol):
    """Failure documents as they were answered."""

    async def insert(self, document: Document, phase: str, row: ActualLRP | Task | None) -> None:
        """Store a document about an instance, a task, or neither; one that is there already stays."""

    async def insert_many(self, found: Sequence[tuple[Document, str, ActualLRP | Task | None]]) -> None:
        """The same for many: document, phase and row of each."""

    async def get(self, id: str) -> FailureRecord | None:
        """One, with its columns."""

    async def get_document(self, id: str) -> bytes | None:
        """The document, byte for byte as it was answered."""

    async def list_page(
        self, wanted: failures.Filter, after: tuple[datetime, str] | None = None, limit: int = 500
    ) -> list[FailureRecord]:
        """At most `limit`, the newest first, from the one behind `after` (as `cursor_of` tells) on."""

    async def last_on_a_cell(self, process_guid: str, index: int) -> tuple[CellId, InstanceGuid] | None:
        """Where the instance failed last, and as which attempt."""

    async def prune(self) -> None:
        """Forget what is older than 30 days, a bounded number at a time."""


class TaskTable(Protocol):
    """One row a task. Which row may become which is decided elsewhere, never here."""

    async def insert(self, request: TaskRequest, instance_guid: str) -> Task:
        """Store a PENDING one, offered under this name. Raises TaskExists."""

    async def get(self, task_guid: str) -> Task | None:
        """One, with the document of its failure."""

    async def lock(self, task_guid: str) -> LockedTask | None:
        """One, locked until the transaction ends; without the document of its failure."""

    async def list_page(
        self, wanted: tasks.Filter, after: str | None = None, limit: int = 500, *, with_failure: bool = False
    ) -> list[Task]:
        """At most `limit` in order of task_guid, from the one behind `after` on."""

    async def list_statuses(self) -> list[TaskStatus]:
        """Every one, without its definition, in order of task_guid; but for those that run on a cell whose presence
        lasts as of the beginning of the transaction."""

    async def list_concerning(
        self, cell_id: str, instance_guids: Sequence[str]
    ) -> list[tuple[TaskStatus, Claim | None]]:
        """Every one that runs on a cell, and every one of these attempts wherever it is, in order of task_guid."""

    async def cells_with_any(self, cell_ids: Sequence[str]) -> set[str]:
        """Those of these cells that a task runs on."""

    async def save(self, row: Task, claim: Claim | None, failure_id: str | None) -> None:
        """Write a row that this transaction has locked."""

    async def delete(self, task_guid: str) -> bool:
        """Remove one. False if it is not there."""


class IdempotencyTable(Protocol):
    """One row an Idempotency-Key."""

    async def insert(self, key: IdempotencyKey, in_flight_s: float) -> bool:
        """Store a key as in flight, over an answer that ran out. False if it is there already.

        Waits for another transaction that stores the same key.
        """

    async def get(self, key: str) -> KeyRecord | None:
        """What is stored under a key."""

    async def take_over(self, key: IdempotencyKey, in_flight_s: float) -> bool:
        """Make a key ours whose owner's time is over. False if it is not in flight, or not over."""

    async def answered(self, key: IdempotencyKey, answer: StoredAnswer) -> bool:
        """Store what was answered, in place of what the same owner stored before.

        False if the key had no effect to store, or belongs to another owner by now.
        """

    async def prune(self) -> None:
        """Forget keys a day after they ran out."""


class DecisionTable(Protocol):
    """The one row that says what the convergence leader decided in its last round."""

    async def tell(self, epoch: int, owner: str, document: bytes | None) -> None:
        """Replace what was decided before, as of now; None: it is the same as before. Nothing if a later epoch told."""

    async def last(self) -> LastRound | None:
        """What was told last; None before anybody did."""


class LeaderTable(Protocol):
    """The one row that says which BBS converges, and in which epoch."""

    async def acquire_or_renew(self, owner: str, ttl_s: float) -> int | None:
        """The epoch in which `owner` leads for the next `ttl_s` seconds; None if another one leads.

        The epoch rises when the lead changes hands or had run out. `owner` must be of one process, not of one host: a
        process that starts again under the same owner goes on in the same epoch.
        """

    async def hold_epoch(self) -> int:
        """The present epoch, which stays the present one until this transaction ends.

        A plain SELECT would not do: a takeover could commit between it and our own commit.
        """

    async def release(self, owner: str, epoch: int) -> None:
        """Give up the lead, so that another BBS need not wait for it to run out."""
