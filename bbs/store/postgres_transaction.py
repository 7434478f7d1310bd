"""A transaction of Postgres: every table on the same connection."""

from __future__ import annotations

from datetime import datetime

import asyncpg
from attrs import define, field

from bbs.store.abandoned import PostgresAbandoned
from bbs.store.actual_lrps import PostgresActualLRPs
from bbs.store.cells import PostgresCells
from bbs.store.decisions import PostgresDecisions
from bbs.store.desired_lrps import PostgresDesiredLRPs
from bbs.store.deviations import PostgresDeviations
from bbs.store.domains import PostgresDomains
from bbs.store.failures import PostgresFailures
from bbs.store.idempotency import PostgresIdempotency
from bbs.store.labels import PostgresLabels
from bbs.store.leader import PostgresLeader
from bbs.store.lrps import PostgresLRPs
from bbs.store.tasks import PostgresTasks
from bbs.store.told_instances import PostgresToldInstances
from bbs.store.unchanged import PostgresUnchanged


@define
class PostgresTransaction:
    """What `transaction.Transaction` promises."""

    connection: asyncpg.Connection
    abandoned: PostgresAbandoned = field(init=False)
    actual_lrps: PostgresActualLRPs = field(init=False)
    cells: PostgresCells = field(init=False)
    decisions: PostgresDecisions = field(init=False)
    desired_lrps: PostgresDesiredLRPs = field(init=False)
    deviations: PostgresDeviations = field(init=False)
    domains: PostgresDomains = field(init=False)
    failures: PostgresFailures = field(init=False)
    idempotency: PostgresIdempotency = field(init=False)
    labels: PostgresLabels = field(init=False)
    leader: PostgresLeader = field(init=False)
    lrps: PostgresLRPs = field(init=False)
    tasks: PostgresTasks = field(init=False)
    told_instances: PostgresToldInstances = field(init=False)
    unchanged: PostgresUnchanged = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.abandoned = PostgresAbandoned(self.connection)
        self.actual_lrps = PostgresActualLRPs(self.connection)
        self.cells = PostgresCells(self.connection)
        self.decisions = PostgresDecisions(self.connection)
        self.desired_lrps = PostgresDesiredLRPs(self.connection)
        self.deviations = PostgresDeviations(self.connection)
        self.domains = PostgresDomains(self.connection)
        self.failures = PostgresFailures(self.connection)
        self.idempotency = PostgresIdempotency(self.connection)
        self.labels = PostgresLabels(self.connection)
        self.leader = PostgresLeader(self.connection)
        self.lrps = PostgresLRPs(self.connection)
        self.tasks = PostgresTasks(self.connection)
        self.told_instances = PostgresToldInstances(self.connection)
        self.unchanged = PostgresUnchanged(self.connection)

    NOW = "SELECT transaction_timestamp()"

    async def now(self) -> datetime:
        moment: datetime = await self.connection.fetchval(self.NOW)
        return moment
