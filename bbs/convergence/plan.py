"""What is not as desired, and what to do about it, as data with a reason for each. Pure: planned from one snapshot."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from datetime import datetime, timedelta

from attrs import field, frozen

from diego_py.models.actual_lrp import ActualLRP, ActualLRPState, Presence
from diego_py.models.desired_lrp import SchedulingInfo, UpdateStrategy
from diego_py.models.identifiers import CellId, Domain, ProcessGuid

STOP_PATIENCE_S = 30.0
"""Who deletes or scales down stops the containers himself; when a row is still there after so long, he died."""
STALE_UNCLAIMED_S = 30.0
"""An UNCLAIMED row that nobody moved for this long belongs to a BBS that died (Diego's stale time). So does a row that
is EVACUATING beside one that runs or waits for this long."""
ROWS_AT_ONCE = 500
"""Rows that are read, or planned for, without a pause."""
MASS_LOSS_FRACTION = 0.5
"""When more than this part of several cells vanishes at once, it is the network or ourselves: nothing is replaced."""

PLACED = (ActualLRPState.CLAIMED, ActualLRPState.RUNNING)
Key = tuple[ProcessGuid, int]


@frozen
class Snapshot:
    """One consistent reading of the database. An incomplete one is an error, never a smaller plan.

    What is not here is as desired: an ordinary row that no one asked to stop, desired, on a live cell that does not
    drain, and alone at its index; or one that was offered so lately that whoever offered it is at it. So every row of
    an index is here, or none.
    """

    now: datetime
    desired: Mapping[ProcessGuid, SchedulingInfo]
    """Of every row that is here."""
    actuals: tuple[ActualLRP, ...]
    live_cells: frozenset[CellId]
    known_cells: frozenset[CellId]
    """Live ones and those whose presence ran out and that were not removed."""
    fresh_domains: frozenset[Domain]
    may_lose_cells: bool
    """Whether this leader has watched for a whole presence TTL, so that a missing presence means something."""
    draining_cells: frozenset[CellId] = frozenset()
    late_cells: frozenset[CellId] = frozenset()
    """Live ones that have not reported for more than half of the time that a presence lasts."""
    mass_lost: bool = False
    """Whether more than half of the cells were missing at once within the last presence TTL: those that are there come
    back one after the other, and each has a whole TTL for that."""
    whole: frozenset[ProcessGuid] | None = None
    """The LRPs of which every row is here: an index without one has none. None: of all."""
    offered_since: datetime | None = None
    """Since when the first of those waits that are left to whoever offered them; None: there are none."""
    presence_ends_at: datetime | None = None
    """When the first of the live cells' presences runs out, unless it is renewed."""
    placing: Mapping[Key, CellId] = field(factory=dict)
    """What the leader's own BBS is having started just now, and where."""


@frozen
class Step:
    """One repair: the row and why."""

    row: ActualLRP
    reason: str
    due_at: datetime | None = None
    """When something is done about it, if nothing happens before."""


@frozen
class Missing:
    """An index that has no row at all."""

    process_guid: ProcessGuid
    index: int


@frozen
class Plan:
    """Buckets in the order in which they are applied."""

    suspect: tuple[Step, ...] = ()
    """Ran on a cell that vanished: serve beside their replacements, which are placed."""
    lose: tuple[Step, ...] = ()
    """Vanished with their cell, and are placed again."""
    recall: tuple[Step, ...] = ()
    """Beside a replacement that did not come to run: the instance again."""
    settle: tuple[Step, ...] = ()
    """Beside a replacement that runs: to be stopped."""
    drop: tuple[Step, ...] = ()
    """The same on a cell that is gone: only the row is there to be removed."""
    move: tuple[Step, ...] = ()
    """Run on cells that are being emptied: to be replaced elsewhere before they stop there."""
    recreate: tuple[Step, ...] = ()
    """The same of LRPs that never have two instances of an index: to be stopped there first."""
    retry: tuple[Step, ...] = ()
    place: tuple[Step, ...] = ()
    create: tuple[Missing, ...] = ()
    stop: tuple[Step, ...] = ()
    held: tuple[Step, ...] = ()
    """Rows that need something that is not done now, and why not."""
    valve: str = ""
    wake_at: datetime | None = None
    """When something falls due or a presence runs out, if nothing happens before."""

    @property
    def empty(self) -> bool:
        beside = self.suspect or self.recall or self.settle or self.drop
        moved = self.move or self.recreate
        return not (beside or moved or self.lose or self.retry or self.place or self.create or self.stop)


def in_pieces(snapshot: Snapshot) -> Generator[None, None, Plan]:
    """The repairs that this snapshot calls for.

    Interrupted after every few rows: when very much deviates, others must get their turn.
    """
    planner = _Planner(snapshot)
    for number, row in enumerate(snapshot.actuals, 1):
        planner.look_at(row)
        if number % ROWS_AT_ONCE == 0:
            yield
    return planner.plan()


@frozen
class _Planner:
    """One pass over the rows."""

    snapshot: Snapshot
    ordinary: dict[Key, ActualLRP] = field(init=False)
    beside: dict[Key, list[ActualLRP]] = field(init=False, factory=dict)
    mass_loss: str = field(init=False)
    valve: str = field(init=False)
    buckets: dict[str, list[Step]] = field(init=False, factory=dict)
    waits: list[datetime] = field(init=False, factory=list)
    recalled: set[Key] = field(init=False, factory=set)
    recreated: set[ProcessGuid] = field(init=False, factory=set)

    @ordinary.default
    def _find_ordinary(self) -> dict[Key, ActualLRP]:
        return {_key(row): row for row in self.snapshot.actuals if row.presence is Presence.ORDINARY}

    @mass_loss.default
    def _find_mass_loss(self) -> str:
        snapshot = self.snapshot
        return mass_loss(snapshot.known_cells, snapshot.live_cells, snapshot.late_cells, snapshot.mass_lost)

    @valve.default
    def _find_valve(self) -> str:
        return why_held(self.mass_loss, self.snapshot.may_lose_cells)

    def __attrs_post_init__(self) -> None:
        for row in self.snapshot.actuals:
            if row.presence is not Presence.ORDINARY:
                self.beside.setdefault(_key(row), []).append(row)

    def plan(self) -> Plan:
        vanished = self.snapshot.known_cells - self.snapshot.live_cells
        ends_at, offered_since = self.snapshot.presence_ends_at, self.snapshot.offered_since
        if offered_since is not None:
            self.waits.append(_stale(offered_since))
        return Plan(
            **{name: tuple(steps) for name, steps in self.buckets.items()},
            create=tuple(self._missing()),
            valve=self.valve if vanished else "",
            wake_at=min([*self.waits, *([ends_at] if ends_at is not None else [])], default=None),
        )

    def look_at(self, row: ActualLRP) -> None:
        """Put one row into the bucket that it belongs in, if into any."""
        desired = self.snapshot.desired.get(row.process_guid)
        if row.stop_asked_at is not None:
            due_at = row.stop_asked_at + timedelta(seconds=STOP_PATIENCE_S)
            told = f"somebody asked for its end at {row.stop_asked_at.isoformat(timespec='seconds')}"
            self._put("stop" if self._has_passed(due_at) else "held", row, told, due_at)
        elif desired is None or row.index >= desired.instances:
            why = "no desired LRP" if desired is None else f"only {desired.instances} instance(s) desired"
            fresh = row.domain in self.snapshot.fresh_domains
            self._put("stop" if fresh else "held", row, why if fresh else f"{why}; domain {row.domain} is not fresh")
        elif row.presence is not Presence.ORDINARY:
            self._look_beside(row)
        elif row.state in PLACED:
            self._look_placed(row)
        elif (serving := self._to_recall(row)) is not None:
            self._put("held", row, f"instance {serving.instance_guid} serves on {serving.cell_id} and is recalled")
        elif self.mass_loss and self._may_come_back(row):
            self._put("held", row, f"what it replaces may serve yet; {self.mass_loss}")
        elif row.state is ActualLRPState.CRASHED:
            self._when_due("retry", row, f"crashed {row.crash_count} time(s)")
        elif row.next_attempt_at is not None:
            self._when_due("place", row, f"attempt {row.attempts} failed")
        else:
            self._look_offered(row)

    def _look_offered(self, row: ActualLRP) -> None:
        """No cell has it, and nothing failed: is nobody at it? As long as it is young, whoever offered it is."""
        if not self._has_passed(_stale(row.since)):
            return
        if (cell_id := self._begun_on(row)) is not None:
            self._put("held", row, f"this BBS is having it started on {cell_id}")
        else:
            self._put("place", row, f"unclaimed for over {STALE_UNCLAIMED_S:.0f} s")

    def _begun_on(self, row: ActualLRP) -> CellId | None:
        """The cell that our own BBS has asked for it, or is about to, as long as that one reports."""
        snapshot = self.snapshot
        cell_id = snapshot.placing.get(_key(row))
        return cell_id if cell_id in snapshot.live_cells - snapshot.late_cells else None

    def _look_placed(self, row: ActualLRP) -> None:
        """A cell has it: is that cell there?"""
        if row.cell_id in self.snapshot.live_cells:
            if row.cell_id in self.snapshot.draining_cells:
                self._look_draining(row)
            return
        reason = f"cell {row.cell_id} has no presence"
        if self.valve:
            self._put("held", row, f"{reason}; {self.valve}")
        elif row.state is ActualLRPState.RUNNING and not self.beside.get(_key(row)):
            self._put("suspect", row, reason)
        else:
            self._put("lose", row, reason)

    def _look_draining(self, row: ActualLRP) -> None:
        """Its cell is to be empty. Whoever asked for that may be at it, too: then the one who is first moves it."""
        reason, desired = f"cell {row.cell_id} drains", self.snapshot.desired[row.process_guid]
        if row.state is not ActualLRPState.RUNNING:
            self._put("held", row, f"{reason}; it is moved when it runs")
        elif self.beside.get(_key(row)):
            self._put("held", row, f"{reason}; an earlier instance still serves beside it")
        elif desired.update_strategy is UpdateStrategy.ROLLING:
            self._put("move", row, reason)
        elif self._is_whole(desired):
            self._put("recreate", row, reason)
        else:
            self._put("held", row, f"{reason}; RECREATE, and another instance does not run")

    def _is_whole(self, desired: SchedulingInfo) -> bool:
        """Whether all instances of an LRP run, and go on running in this plan."""
        guid, live = desired.process_guid, self.snapshot.live_cells
        if guid in self.recreated or not self._is_here(guid):
            return False
        rows = [self.ordinary.get((guid, index)) for index in range(desired.instances)]
        return all(row is not None and row.state is ActualLRPState.RUNNING and row.cell_id in live for row in rows)

    def _is_here(self, guid: ProcessGuid) -> bool:
        """Whether every row of an LRP was read."""
        return self.snapshot.whole is None or guid in self.snapshot.whole

    def _look_beside(self, row: ActualLRP) -> None:
        """One that serves until its replacement runs."""
        ordinary, live = self.ordinary.get(_key(row)), row.cell_id in self.snapshot.live_cells
        if ordinary is not None and _serves(ordinary, self.snapshot):
            if not live:
                self._put("drop", row, f"its replacement runs on {ordinary.cell_id}")
            elif row.presence is Presence.SUSPECT or self._has_passed(_stale(ordinary.since)):
                self._put("settle", row, f"its replacement runs on {ordinary.cell_id}")
        elif not live and row.presence is Presence.EVACUATING and not self.valve:
            self._put("drop", row, f"cell {row.cell_id} has no presence")
        elif not live:
            self._put("held", row, f"cell {row.cell_id} has no presence; it may serve until its replacement runs")
        elif (ordinary is not None and ordinary.state in PLACED) or self._is_recalled(_key(row)):
            self._put("held", row, "it serves until its replacement runs")
        elif row.presence is Presence.SUSPECT:
            self._put("recall", row, f"cell {row.cell_id} is back")
        elif row.cell_id in self.snapshot.draining_cells:
            self._put("held", row, f"cell {row.cell_id} drains; it serves until its replacement runs")
        elif ordinary is None or self._has_passed(_stale(ordinary.since)):
            self._put("recall", row, "its replacement did not come to run")

    def _to_recall(self, row: ActualLRP) -> ActualLRP | None:
        """What serves in place of this row and takes it back, now or soon; then it is not placed any more."""
        for other in self.beside.get(_key(row), ()):
            if other.cell_id not in self.snapshot.live_cells or other.stop_asked_at is not None:
                continue
            if other.presence is Presence.SUSPECT or other.cell_id not in self.snapshot.draining_cells:
                return other
        return None

    def _may_come_back(self, row: ActualLRP) -> bool:
        """Whether one whose cell vanished is beside this row: it was taken for lost before the others were missing."""
        return any(other.presence is Presence.SUSPECT for other in self.beside.get(_key(row), ()))

    def _when_due(self, bucket: str, row: ActualLRP, reason: str) -> None:
        if row.next_attempt_at is None:
            self._put("held", row, f"{reason}; given up")
        elif self._has_passed(row.next_attempt_at):
            self._put(bucket, row, reason)
        else:
            at = row.next_attempt_at.isoformat(timespec="seconds")
            self._put("held", row, f"{reason}; next attempt at {at}", row.next_attempt_at)

    def _has_passed(self, at: datetime) -> bool:
        """Whether it is time; if not, this is one of the times to look again at."""
        if at > self.snapshot.now:
            self.waits.append(at)
        return at <= self.snapshot.now

    def _missing(self) -> Iterator[Missing]:
        for guid, desired in self.snapshot.desired.items():
            if not self._is_here(guid):
                continue
            for index in range(desired.instances):
                if (guid, index) not in self.ordinary and not self._is_recalled((guid, index)):
                    yield Missing(guid, index)

    def _is_recalled(self, key: Key) -> bool:
        return key in self.recalled

    def _put(self, bucket: str, row: ActualLRP, reason: str, due_at: datetime | None = None) -> None:
        due_at = due_at if bucket == "held" else None
        if bucket == "recall":
            self.recalled.add(_key(row))
        elif bucket == "recreate":
            self.recreated.add(row.process_guid)
        self.buckets.setdefault(bucket, []).append(Step(row, reason, due_at))


def _key(row: ActualLRP) -> Key:
    return row.process_guid, row.index


def _serves(row: ActualLRP, snapshot: Snapshot) -> bool:
    """Requests may come to it, and its cell is there."""
    return row.state is ActualLRPState.RUNNING and row.routable and row.cell_id in snapshot.live_cells


def _stale(since: datetime) -> datetime:
    return since + timedelta(seconds=STALE_UNCLAIMED_S)


def stale_at(now: datetime) -> datetime:
    """What has been as it is since then, or for longer, is stale."""
    return now - timedelta(seconds=STALE_UNCLAIMED_S)


def mass_loss(known: frozenset[CellId], live: frozenset[CellId], late: frozenset[CellId], recently: bool) -> str:
    """Why so many cells are missing at once that it is not they who fail, or an empty string. reliability rule R11.

    Presences run out one after the other although all cells were cut off at once: those that are late count with them.
    """
    lost = (known - live) | late
    if len(lost) > 1 and len(lost) > MASS_LOSS_FRACTION * len(known):
        return f"{len(lost)} of {len(known)} cells vanished at once"
    return "most cells vanished at once less than a presence TTL ago" if recently else ""


def why_held(mass_loss: str, may_lose_cells: bool) -> str:
    """Why no cell may be declared lost now, or an empty string."""
    return mass_loss or ("" if may_lose_cells else "this leader has not watched for a whole presence TTL yet")
