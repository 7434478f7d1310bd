"""Transactions as everybody sees them who is not the store itself: tables to work on, and a store to begin them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol, TypeVar

from bbs.store.tables import (
    AbandonedTable,
    ActualLRPTable,
    CellTable,
    DecisionTable,
    DesiredLRPTable,
    Deviations,
    DomainTable,
    FailureTable,
    IdempotencyTable,
    LabelTable,
    LeaderTable,
    LRPTable,
    TaskTable,
    ToldInstances,
    UnchangedRows,
)
from diego_py.call import Call

T = TypeVar("T")


class Transaction(Protocol):
    """The tables in one transaction, read committed: each statement sees what was committed before it, and our own."""

    @property
    def abandoned(self) -> AbandonedTable: ...

    @property
    def actual_lrps(self) -> ActualLRPTable: ...

    @property
    def cells(self) -> CellTable: ...

    @property
    def decisions(self) -> DecisionTable: ...

    @property
    def desired_lrps(self) -> DesiredLRPTable: ...

    @property
    def deviations(self) -> Deviations: ...

    @property
    def domains(self) -> DomainTable: ...

    @property
    def failures(self) -> FailureTable: ...

    @property
    def idempotency(self) -> IdempotencyTable: ...

    @property
    def labels(self) -> LabelTable: ...

    @property
    def leader(self) -> LeaderTable: ...

    @property
    def lrps(self) -> LRPTable: ...

    @property
    def tasks(self) -> TaskTable: ...

    @property
    def told_instances(self) -> ToldInstances: ...

    @property
    def unchanged(self) -> UnchangedRows: ...

    async def now(self) -> datetime:
        """When this transaction began, by the store's clock: the only one that presences and leases go by."""


class Store(Protocol):
    """Begins transactions. What it fails itself comes as hop `postgres` of the chain."""

    async def run(
        self,
        call: Call,
        op: str,
        work: Callable[[Transaction], Awaitable[T]],
        *,
        reserved: bool = False,
        single: bool = False,
    ) -> T:
        """`work` in one transaction, done again up to twice when the store undid it: it must be repeatable.

        `reserved`: for presence and leadership, which get through when requests take all that the store can do.
        `single`: it is one statement, and that a transaction of its own: one way to the store and back, not three.
        Raises what `work` raises, after undoing it; DatabaseUnavailable, DatabaseConflict, Saturated, BudgetSpent.
        """

    async def read(
        self, call: Call, op: str, work: Callable[[Transaction], Awaitable[T]], *, reserved: bool = False
    ) -> T:
        """`work`, which only reads; each of its statements may see a newer state than the one before."""

    async def snapshot(self, call: Call, op: str, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """`work`, which only reads, all of it from one and the same state."""
