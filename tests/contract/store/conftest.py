"""A database and a lifecycle of one test's own, and short ways to bring rows into a state."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pytest
from attrs import define, evolve

from bbs.lifecycle import Lifecycle
from bbs.store.attempts import Claim, Claimed, Start
from bbs.store.connections import DatabaseSettings
from bbs.store.database import Database
from bbs.store.desired_lrps import Filter
from bbs.store.transaction import Store, Transaction
from diego_py import chain
from diego_py.call import Call
from diego_py.chain import Problem
from diego_py.errors import DiegoError, ProcessExited
from diego_py.models.actions import Action, RunAction
from diego_py.models.actual_lrp import ActualLRP, NetInfo, PortMapping
from diego_py.models.cell import CellCapacity, CellPresence
from diego_py.models.desired_lrp import DesiredLRP, DesiredLRPDefinition
from diego_py.models.identifiers import CellId, Domain, InstanceGuid, ProcessGuid
from diego_py.models.work import AvailableResources, CellReport, InstanceReport, InstanceState
from diego_py.service.clock import SystemClock
from tests.contract.store.tampering import MemoryTampering, PostgresTampering, Tampering
from tests.simulation.memory_store.engine import MemoryDatabase
from tests.simulation.memory_store.store import MemoryStore

T = TypeVar("T")

NET_INFO = NetInfo(address="10.0.0.1", ports=(PortMapping(container_port=8080, host_port=61000),))
EXECUTABLE = Action(run=RunAction(path="/bin/app", user="vcap"))


def definition(guid: str = "app", instances: int = 1, **fields: Any) -> DesiredLRPDefinition:
    return DesiredLRPDefinition(
        process_guid=ProcessGuid(guid),
        domain=Domain("tests"),
        rootfs="preloaded:stack",
        instances=instances,
        action=EXECUTABLE,
        **fields,
    )


def report(
    cell: str = "cell-1", boot: str = "boot-1", sequence: int = 1, instances: Any = (), ended: Any = ()
) -> CellReport:
    return CellReport(
        presence=CellPresence(
            cell_id=CellId(cell),
            url="http://127.0.0.1:1800",
            zone="z1",
            capacity=CellCapacity(memory_mb=1024, disk_mb=1024, containers=10),
            boot_id=boot,
        ),
        sequence=sequence,
        available=AvailableResources(memory_mb=512, disk_mb=512, containers=5),
        instances=tuple(instances),
        ended=tuple(ended),
    )


def reported(row: ActualLRP, state: InstanceState = InstanceState.RUNNING, **fields: Any) -> InstanceReport:
    assert row.instance_guid is not None
    return InstanceReport(
        process_guid=row.process_guid,
        index=row.index,
        domain=row.domain,
        instance_guid=fields.pop("instance_guid", row.instance_guid),
        state=state,
        net_info=NET_INFO if state is InstanceState.RUNNING else None,
        **fields,
    )


def problem(call: Call, id: str, error: DiegoError | None = None) -> Problem:
    document = chain.problem(error or ProcessExited("process exited with status 1"), call, {"kind": "lrp"})
    return evolve(document, instance=f"/v1/failures/{id}")


def _claim(row: ActualLRP, cell: str, boot: str) -> Claim:
    assert row.instance_guid is not None
    return Claim(row.process_guid, row.index, row.instance_guid, cell, boot)


@define
class Scene:
    """A lifecycle on a store, and rows brought to where a test begins."""

    lifecycle: Lifecycle
    store: Store
    tampering: Tampering

    @property
    def call(self) -> Call:
        return Call.begin(SystemClock(), 10_000)

    async def cell(self, cell: str = "cell-1", boot: str = "boot-1") -> None:
        assert (await self.lifecycle.report(self.call, report(cell, boot, sequence=0))).accepted

    async def unclaimed(self, guid: str = "app", instances: int = 1) -> list[ActualLRP]:
        return list((await self.lifecycle.desire(self.call, definition(guid, instances))).actuals)

    async def claim(self, row: ActualLRP, cell: str = "cell-1", boot: str = "boot-1") -> ActualLRP:
        return (await self.lifecycle.claim(self.call, _claim(row, cell, boot))).row

    async def claim_all(self, asked: Sequence[tuple[ActualLRP, str, str]]) -> list[ActualLRP | DiegoError]:
        """Claim these rows, each for a cell and its boot, in one transaction: in this order."""
        told = await self.lifecycle.claim_all(self.call, [_claim(*one) for one in asked])
        return [one.row if isinstance(one, Claimed) else one for one in told]

    async def start(self, row: ActualLRP, cell: str = "cell-1") -> ActualLRP:
        assert row.instance_guid is not None
        key = (row.process_guid, row.index, row.instance_guid)
        return await self.lifecycle.start(self.call, Start(*key, cell, NET_INFO, "z1"))

    async def claimed(self, guid: str = "app") -> ActualLRP:
        await self.cell()
        return await self.claim((await self.unclaimed(guid))[0])

    async def running(self, guid: str = "app") -> ActualLRP:
        return await self.start(await self.claimed(guid))

    async def crashed(self, guid: str = "app") -> ActualLRP:
        row = await self.crash(await self.running(guid), f"crash-{guid}")
        assert row is not None
        return row

    async def crash(self, row: ActualLRP, failure: str, cell: str = "cell-1") -> ActualLRP | None:
        assert row.instance_guid is not None
        key = (row.process_guid, row.index, row.instance_guid)
        return await self.lifecycle.crash(self.call, *key, cell, problem(self.call, failure), gone=True)

    async def abandoned(self, guid: str = "app", first: int = 0) -> list[str | None]:
        """The names of the attempts that cells may have yet."""
        rows = await self.store.read(self.call, "list", lambda tx: tx.abandoned.list_of(guid, first))
        return [row.instance_guid for row in rows]

    async def row(self, guid: str = "app", index: int = 0) -> ActualLRP | None:
        return await self.store.read(self.call, "get", lambda tx: tx.actual_lrps.get(guid, index))

    async def age(self, seconds: float, guid: str = "app") -> None:
        """Let time pass for the rows of an LRP, by the database's clock."""
        await self.tampering.shift("actual_lrps", "since", -seconds, guid)


async def all_desired(tx: Transaction) -> list[DesiredLRP]:
    """All that there are, in order of process_guid."""
    stored = await tx.desired_lrps.list_stored(Filter())
    found = [await tx.desired_lrps.get(each.process_guid) for each in stored]
    return [each for each in found if each is not None]


def guids() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"guid-{next(numbers)}"


@pytest.fixture(params=[pytest.param("postgres", marks=pytest.mark.store), "memory"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """Where Postgres is; None for the store in memory."""
    return request.getfixturevalue("database_dsn") if request.param == "postgres" else None


@pytest.fixture
async def scene(dsn: str | None) -> AsyncIterator[Scene]:
    """The same on both stores: what a test asserts here is what the simulation relies on."""
    clock = SystemClock()
    if dsn is None:
        memory = MemoryDatabase(clock)
        store = MemoryStore(memory, clock)
        yield Scene(Lifecycle(store, clock, guids()), store, MemoryTampering(memory))
        return
    database = Database(dsn, clock, DatabaseSettings(connections_max=10))
    await database.start()
    yield Scene(Lifecycle(database, clock, guids()), database, PostgresTampering(database))
    await database.stop()


async def outcomes(works: list[Coroutine[Any, Any, T]]) -> list[T | DiegoError]:
    """Run all side by side; an error of ours is a result like any other."""

    async def outcome(work: Coroutine[Any, Any, T]) -> T | DiegoError:
        try:
            return await work
        except DiegoError as error:
            return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(outcome(work)) for work in works]
    return [task.result() for task in tasks]


def instance_guid(text: str) -> InstanceGuid:
    return InstanceGuid(text)
