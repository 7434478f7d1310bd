"""Transitions met with the database, in one way for all: lock the row, ask the state table, save with the reason.

(Signatures first; the bodies follow within minutes. Errors: DatabaseUnavailable, DatabaseConflict, Saturated and
BudgetSpent come framed as hop `postgres`; everything else below comes unframed and takes the frame of your own hop.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from attrs import define, frozen

from bbs.store.database import Database
from bbs.store.idempotency import IdempotencyKey, Replay
from diego_py.call import Call
from diego_py.chain import Problem
from diego_py.models.actual_lrp import ActualLRP, NetInfo
from diego_py.models.desired_lrp import DesiredLRP, DesiredLRPDefinition, DesiredLRPUpdate
from diego_py.models.work import CellReport, ClaimRequest
from diego_py.models.workload import ModificationTag
from diego_py.service.clock import Clock


def etag(tag: ModificationTag) -> str:
    """The ETag of a desired LRP, quoted, as If-Match brings it back: '"<epoch>.<index>"'."""


@frozen
class Desired:
    desired: DesiredLRP
    actuals: tuple[ActualLRP, ...]


@frozen
class Updated:
    before: DesiredLRP
    desired: DesiredLRP
    added: tuple[ActualLRP, ...]
    surplus: tuple[ActualLRP, ...]
    """Rows with index >= instances; still there, for the caller to stop and then `remove`."""


@frozen
class Removed:
    desired: DesiredLRP
    actuals: tuple[ActualLRP, ...]
    """CLAIMED and RUNNING rows, still there, for the caller to stop and then `remove`. The others are deleted."""


@frozen
class Restarted:
    before: ActualLRP
    after: ActualLRP


@frozen
class ReportOutcome:
    accepted: bool
    """False: the report is older than what is known; nothing was changed."""
    stop: tuple[str, ...] = ()
    acknowledged: tuple[str, ...] = ()
    started: tuple[ActualLRP, ...] = ()
    crashed: tuple[ActualLRP, ...] = ()
    vanished: tuple[ActualLRP, ...] = ()


@define
class Lifecycle:
    database: Database
    clock: Clock
    new_guid: Callable[[], str]

    # leader-only when `epoch` is given: NotLeader if a newer leader exists, and nothing is written

    async def desire(self, call: Call, definition: DesiredLRPDefinition, key: IdempotencyKey | None) -> Desired:
        """AlreadyExists, IdempotencyInFlight, IdempotencyMismatch. Rows are UNCLAIMED, each with a fresh guid to offer."""

    async def update(self, call: Call, process_guid: str, update: DesiredLRPUpdate, if_match: str | None, key: IdempotencyKey | None) -> Updated:
        """DesiredLRPNotFound, PreconditionFailed."""

    async def undesire(self, call: Call, process_guid: str, key: IdempotencyKey | None) -> Removed:
        """DesiredLRPNotFound."""

    async def add_missing(self, call: Call, process_guid: str, epoch: int | None) -> tuple[ActualLRP, ...]:
        """Insert the UNCLAIMED rows that a desired LRP lacks (convergence)."""

    async def offer(self, call: Call, row: ActualLRP, epoch: int | None = None) -> ActualLRP:
        """A new instance_guid. IllegalTransition if somebody else moved it since `row` was read."""

    async def claim(self, call: Call, process_guid: str, index: int, request: ClaimRequest) -> ActualLRP:
        """ClaimRefused."""

    async def start(self, call: Call, process_guid: str, index: int, instance_guid: str, cell_id: str, net_info: NetInfo, zone: str) -> ActualLRP:
        """ClaimRefused."""

    async def fail(self, call: Call, row: ActualLRP, problem: Problem, next_attempt_at: datetime | None, phase: str = "place") -> ActualLRP | None:
        """To UNCLAIMED with placement_error if the row still has row.instance_guid and is not RUNNING; else the row is
        left as it is. The document is stored in each case. Gives the row as it is now; None if it is gone."""

    async def crash(self, call: Call, process_guid: str, index: int, instance_guid: str, cell_id: str, problem: Problem) -> ActualLRP:
        """To CRASHED; next_attempt_at by Diego's back-off, None when it gave up (200). IllegalTransition if moved on."""

    async def record_failure(self, call: Call, problem: Problem, phase: str, row: ActualLRP | None = None) -> None: ...

    async def lose(self, call: Call, row: ActualLRP, epoch: int | None, problem: Problem) -> ActualLRP:
        """To UNCLAIMED with a fresh guid. IllegalTransition if the row moved since it was read (by modification tag)."""

    async def retry(self, call: Call, row: ActualLRP, epoch: int | None) -> ActualLRP:
        """CRASHED to UNCLAIMED with a fresh guid. IllegalTransition if the row moved since it was read."""

    async def restart(self, call: Call, process_guid: str, index: int) -> Restarted:
        """ActualLRPNotFound. The row is UNCLAIMED with a fresh guid; `before` says what to stop."""

    async def remove(self, call: Call, process_guid: str, index: int, instance_guid: str | None, epoch: int | None = None) -> bool:
        """Delete the row (with that instance_guid; None: whatever it has). False if there is none such."""

    async def report(self, call: Call, report: CellReport) -> ReportOutcome:
        """Presence and reconciliation of one cell, one transaction, on the reserved connections."""

    async def replay(self, call: Call, key: IdempotencyKey) -> Replay:
        """Replay(answer=None, resume=False): new key. IdempotencyInFlight, IdempotencyMismatch.
        Replay(resume=True): its first owner died in flight; the key is yours now: work on from the present state."""

    async def answered(self, call: Call, key: IdempotencyKey, status: int, headers: Mapping[str, str], body: bytes) -> None: ...
