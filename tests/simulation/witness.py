"""Sees every commit and everything that happens on hosts, and knows what must never be (reliability: I1 to I22)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Set
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from attrs import define, evolve, field

from diego_py.call import Call
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState
from diego_py.models.task import TRANSITIONS as TASK_TRANSITIONS
from diego_py.models.task import Task, TaskState
from tests.contract.store.test_transitions import MOVES
from tests.simulation.garden import HostGarden
from tests.simulation.loop import SimulatedLoop
from tests.simulation.memory_store.engine import Change, MemoryDatabase, MemoryTransactionCore
from tests.simulation.memory_store.small_tables import LEADER

DEFECTS: Final = ("defect", "loop_defect", "owned_task_defect")
"""Log events that mean a mistake of ours, whatever the world does."""
DESIRED_AND_ACTUAL: Final = ("actual_lrps", "desired_lrps", "tasks")
LOSING: Final = ("lose_instance", "suspect_instance")
STALE_S: Final = 30.0
"""By how much a leader may be late who saw a presence or a domain end: longer than any stall and any round."""
UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MEBIBYTE: Final = 1024 * 1024
TASK_MOVES: Final = {(before, after) for (before, _), after in TASK_TRANSITIONS.items()}


class InvariantBroken(AssertionError):
    """What must never be, was."""


@define
class Witness:
    """Checks each change as it happens. The first thing that is wrong ends the run."""

    loop: SimulatedLoop
    database: MemoryDatabase
    hosts: dict[str, HostGarden] = field(factory=dict)
    memory_mb: dict[str, int] = field(factory=dict)
    broken: asyncio.Future[None] = field(init=False)
    story: list[str] | None = None
    """Everything that happened, if somebody wants to read it."""
    claims: set[tuple[str, str]] = field(factory=set, init=False)
    """Instance and cell of every claim that was ever committed."""
    ran: set[str] = field(factory=set, init=False)
    """Instances that were RUNNING in the database at some time."""
    effects: dict[str, set[str]] = field(factory=dict, init=False)
    """Tables of the desired and the actual state that each request has changed, by trace id."""
    started_for: set[str] = field(factory=set, init=False)
    """Trace ids of requests for which a user's process was begun."""
    called: set[tuple[str, int]] = field(factory=set, init=False)
    """Tasks whose client was called back, with the time of their creation."""
    apps_ended: set[str] = field(factory=set, init=False)
    """Instances whose app ended by itself."""
    _created_for: dict[str, str] = field(factory=dict, init=False)
    """Trace id of the request that made a task."""
    _came_back: dict[str, datetime] = field(factory=dict, init=False)
    """When a cell whose presence had run out reported again."""
    _revision_of: dict[str, int] = field(factory=dict, init=False)
    _task_of: dict[str, tuple[str, datetime]] = field(factory=dict, init=False)
    _begun: dict[tuple[str, datetime], str] = field(factory=dict, init=False)
    _key_of: dict[str, tuple[str, int]] = field(factory=dict, init=False)
    _cell_of: dict[str, str] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.broken = self.loop.create_future()
        self.database.witness = self.committed

    def fail(self, what: str) -> None:
        """Something is wrong."""
        self.tell(f"BROKEN {what}")
        if not self.broken.done():
            self.broken.set_exception(InvariantBroken(what))

    def callback_failed(self, loop: object, context: Mapping[str, Any]) -> None:
        """What asyncio has to complain of. A task whose process died has nobody to look at its end."""
        if "never retrieved" not in context["message"]:
            self.fail(f"{context['message']}: {context.get('exception')!r}")

    def tell(self, event: str) -> None:
        """Make an event part of the trace, and of the story."""
        self.loop.note(event)
        if self.story is not None:
            self.story.append(f"{self.loop.time() - 1_000:9.4f} {event}")

    def committed(self, transaction: MemoryTransactionCore, changes: list[Change]) -> None:
        """A transaction became everybody's."""
        self._fenced(transaction)
        rows = {
            before.lrp.modification_tag.epoch: before.lrp
            for table, _, before, _ in changes
            if table == "actual_lrps" and before is not None
        }
        reporting = {key for table, key, _, _ in changes if table == "cells"}  # reports share transactions
        for table, key, before, after in changes:
            if table in DESIRED_AND_ACTUAL:
                self.effects.setdefault(transaction.trace_id, set()).add(table)
            match table:
                case "actual_lrps":
                    was = before.lrp if after is None else rows.get(after.lrp.modification_tag.epoch)
                    self._row_changed(transaction, key, was, after and after.lrp, reporting)
                case "tasks":
                    self._task_changed(transaction, before and before.task, after and after.task)
                case "desired_lrps":
                    self.tell(f"commit {transaction.op} desired {key} {after and after.definition.instances}")
                case "abandoned_attempts":
                    self.tell(f"commit {transaction.op} {'abandoned' if after else 'forgotten'} {key}")
                case "leader" if before is not None and before.epoch != after.epoch:
                    self.tell(f"commit {transaction.op} leader {after.owner} epoch {after.epoch}")
                case "cells" if before is not None and before.expires_at <= self.database.clock.now():
                    self._came_back[key] = self.database.clock.now()

    def _fenced(self, transaction: MemoryTransactionCore) -> None:
        """Only the leader of the present epoch acts as a leader."""
        present = self.database.tables["leader"][LEADER].epoch
        if transaction.epoch is not None and transaction.epoch != present:
            self.fail(f"I8: {transaction.op} took effect for epoch {transaction.epoch}, and {present} leads")

    def _row_changed(
        self,
        transaction: MemoryTransactionCore,
        key: Any,
        before: ActualLRP | None,
        after: ActualLRP | None,
        reporting: Set[str],
    ) -> None:
        name = f"{key[0]}/{key[1]}"
        self._decided(transaction, name, before)
        if reporting:
            self._reported(reporting, before, after)
        if after is None:
            gone = before and f"{before.state} {before.instance_guid}"
            self.tell(f"commit {transaction.op} {name} removed {gone}")
            return
        self.tell(f"commit {transaction.op} {name} {after.state} {after.instance_guid} on {after.cell_id}")
        crashed = after.state is ActualLRPState.CRASHED and before is not None and before.state is not after.state
        if crashed and before is not None and before.instance_guid not in self.apps_ended:
            self.fail(f"I12: {transaction.op} made {name} CRASHED, and its app had not ended")
        if before is None:
            if after.state is not ActualLRPState.UNCLAIMED:
                self.fail(f"I3: {name} began as {after.state}")
        else:
            self._moved(name, before, after)
            self._waited(transaction, name, before)
        self._guid_used(name, key, after)

    def _task_changed(self, transaction: MemoryTransactionCore, before: Task | None, after: Task | None) -> None:
        if after is None:
            self.tell(f"commit {transaction.op} task removed {before and before.task_guid}")
            if before is not None and before.state is TaskState.RESOLVING and before.definition.completion_callback_url:
                if self._created_for.get(before.task_guid) == transaction.trace_id:
                    return  # its creation failed and is rolled back
                created_at = (before.created_at - UNIX_EPOCH) // timedelta(microseconds=1) * 1000
                if (before.task_guid, created_at) not in self.called:
                    self.fail(f"I5: the result of task {before.task_guid} is forgotten, and nobody was called back")
            return
        self.tell(f"commit {transaction.op} {after.task_guid} {after.state} {after.instance_guid} on {after.cell_id}")
        if before is not None and before.state is not after.state and (before.state, after.state) not in TASK_MOVES:
            self.fail(f"I3: task {after.task_guid} went from {before.state} to {after.state}")
        if before is None:
            self._created_for[after.task_guid] = transaction.trace_id
        if after.instance_guid is None:
            return
        self._task_of[after.instance_guid] = (after.task_guid, after.created_at)
        if after.state is TaskState.RUNNING and after.cell_id is not None:
            self.claims.add((after.instance_guid, after.cell_id))

    def _moved(self, name: str, before: ActualLRP, after: ActualLRP) -> None:
        if before.modification_tag == after.modification_tag:
            if evolve(after, failure=None) != evolve(before, failure=None):
                self.fail(f"I4: {name} changed without a new revision")
            return
        marked = before.state is after.state  # asked to end, routable or not, put aside as another presence
        if (before.state, after.state) not in MOVES and not marked:
            self.fail(f"I3: {name} went from {before.state} to {after.state}")
        if not before.modification_tag.succeeded_by(after.modification_tag):
            self.fail(f"I4: revision of {name} did not rise")
        if after.crash_count - before.crash_count not in (0, 1, 1 - before.crash_count, -before.crash_count):
            self.fail(f"I12: crashes of {name} went from {before.crash_count} to {after.crash_count}")

    def _decided(self, transaction: MemoryTransactionCore, name: str, before: ActualLRP | None) -> None:
        """What a leader decided by a row that has changed since is not done to it; no cell is lost that is there."""
        decided = transaction.decided
        if decided is None or before is None or before.modification_tag.epoch != decided.modification_tag.epoch:
            return
        if before.modification_tag != decided.modification_tag:
            self.fail(f"I19: {transaction.op} {name} was decided by revision {decided.modification_tag.index} of it")
        if transaction.op in LOSING and self.present_for_s(decided.cell_id) > STALE_S:
            self.fail(f"I20: {transaction.op} {name}, and {decided.cell_id} is there")

    def present_for_s(self, cell_id: str | None) -> float:
        """For how long a cell has had a presence; 0 if it has none."""
        cell, now = self.database.tables["cells"].get(cell_id), self.database.clock.now()
        if cell is None or cell.expires_at <= now:
            return 0.0
        back = self._came_back.get(str(cell_id))
        return float("inf") if back is None else (now - back).total_seconds()

    def _reported(self, cells: Set[str], before: ActualLRP | None, after: ActualLRP | None) -> None:
        """A cell's report changes what that cell has, or what waits for an instance that it has."""
        if before is None:
            return
        if before.cell_id is not None and before.cell_id not in cells:
            self.fail(f"I11: the report of {sorted(cells)} changed {before.instance_guid} on {before.cell_id}")
        if after is None or before.cell_id is not None:
            return
        if after.instance_guid != before.instance_guid or after.cell_id not in cells:
            self.fail(f"I11: the report of {sorted(cells)} made {after.instance_guid} of {before.instance_guid}")

    def _waited(self, transaction: MemoryTransactionCore, name: str, before: ActualLRP) -> None:
        """Nobody but a user starts an instance before its back-off is over."""
        if transaction.epoch is None or transaction.op not in ("retry_instance", "offer_instance"):
            return
        given_up = before.state is ActualLRPState.CRASHED and before.next_attempt_at is None
        if given_up or (before.next_attempt_at is not None and before.next_attempt_at > self.database.clock.now()):
            self.fail(f"I12: {transaction.op} {name}, which was to wait until {before.next_attempt_at}")

    def _guid_used(self, name: str, key: Any, after: ActualLRP) -> None:
        guid = after.instance_guid
        if guid is None:
            return
        self._revision_of[guid] = after.revision
        if self._key_of.setdefault(guid, (key[0], key[1])) != (key[0], key[1]):
            self.fail(f"I10: {guid} names {name} and {self._key_of[guid]}")
        if after.cell_id is not None:
            self.claims.add((guid, after.cell_id))
            if self._cell_of.setdefault(guid, after.cell_id) != after.cell_id:
                self.fail(f"I10: {guid} was on {self._cell_of[guid]} and is on {after.cell_id}")
        if after.state is ActualLRPState.RUNNING:
            self.ran.add(guid)

    def happened(self, cell_id: str, what: str, handle: str, call: Call) -> None:
        """Something happened on a host."""
        self.tell(f"host {cell_id} {what} {handle}")
        if what == "late":
            self.fail(f"I13: {cell_id} goes on with {handle}, and no time is left for it")
        if what == "run":
            self.started_for.add(call.trace_id)
        if what == "run" and (handle, cell_id) not in self.claims:
            self.fail(f"R4: {handle} runs on {cell_id}, which never had a claim of it")
        if what == "run" and handle in self._task_of:
            task = self._task_of[handle]
            if task in self._begun:
                self.fail(f"I2: task {task[0]} began as {self._begun[task]} and again as {handle} on {cell_id}")
            self._begun[task] = handle
        if what == "create":
            specs = self.hosts[cell_id].specs().values()
            taken_mb = sum(spec.limits.memory_bytes or 0 for spec in specs) / MEBIBYTE
            if taken_mb > self.memory_mb[cell_id]:
                self.fail(f"I9: {cell_id} has {self.memory_mb[cell_id]} MB and gave {taken_mb:.0f}")
            elsewhere = [cell for cell, host in self.hosts.items() if cell != cell_id and handle in host.specs()]
            if elsewhere:
                self.fail(f"I10: container {handle} on {cell_id} and {elsewhere}")

    def called_back(self, body: bytes) -> None:
        """A client was told that a task is completed."""
        told = msgspec.json.decode(body)
        self.tell(f"called back {told['task_guid']}")
        self.called.add((told["task_guid"], told["created_at"]))

    def containers_of(self, process_guid: str, since_s: float) -> list[tuple[int, int, str]]:
        """Index, revision and handle of the containers of an LRP in which a user process runs.

        Not those on hosts that had no presence at some time since: by the rules of presence they were gone.
        """
        seconds = self.loop.time() - since_s
        return [
            (self._key_of[handle][1], self._revision_of[handle], handle)
            for cell, host in self.hosts.items()
            for handle in host.running()
            if self._key_of.get(handle, ("", 0))[0] == process_guid and self.present_for_s(cell) > seconds
        ]


@define
class SimulatedLog:
    """As much of a structlog logger as the product uses; what tells of a defect ends the run."""

    name: str
    witness: Witness

    def info(self, event: str, **fields: Any) -> None:
        if self.witness.story is not None:
            self._tell(event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        if self.witness.story is not None:
            self._tell(event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._tell(event, fields)
        if event in DEFECTS:
            self.witness.fail(f"{self.name}: {event} {_plain(fields)}")

    def _tell(self, event: str, fields: Mapping[str, Any]) -> None:
        if self.witness.story is not None:
            self.witness.story.append(f"{self.witness.loop.time() - 1_000:9.4f}   {self.name} {event} {_plain(fields)}")


def _plain(fields: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value!r}" for name, value in fields.items() if name not in ("request_id", "trace_id"))
