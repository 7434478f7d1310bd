"""Ends of instances and of tasks, each with its failure document if it failed, on disk until a BBS has stored it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Generic, TypeVar

import structlog
from attrs import define, field

from cells.rep.disk import Disk
from diego_py import wire
from diego_py.models.identifiers import InstanceGuid
from diego_py.models.task_work import TaskEnd
from diego_py.models.work import EndedReport

End = TypeVar("End", EndedReport, TaskEnd)

REPORTS_MAX = 30
"""Documents carried by one report: at 64 KiB each at most, that bounds its body to 2 MiB. The rest go with the next."""
SUFFIX = ".json"
BOOK_MAX = 10_000
"""Beyond this the oldest ones are given up; only a BBS that was away for long lets it come to this."""


@define
class EndedBook(Generic[End]):
    """What still has to be told. The order is that of the ends."""

    kind: type[End]
    disk: Disk
    log: structlog.stdlib.BoundLogger
    _reports: dict[InstanceGuid, End] = field(factory=dict, init=False)

    def load(self) -> None:
        """Read what an earlier boot could not tell any more."""
        for name in self.disk.names():
            if not name.endswith(SUFFIX):
                continue
            try:
                report = wire.decode(self.kind, self.disk.read(name) or b"")
            except (wire.MalformedJSON, wire.InvalidFields) as malformed:
                self.log.error("ended_report_unreadable", path=name, error=str(malformed))
                self.disk.rename(name, name.removesuffix(SUFFIX) + ".unreadable")
                continue
            self._reports[report.instance_guid] = report

    async def add(self, report: End) -> None:
        """Keep `report` until it is acknowledged. A full disk costs its survival of a crash, not the report."""
        while len(self._reports) >= BOOK_MAX:
            oldest = next(iter(self._reports))
            self.log.error("ended_report_given_up", instance_guid=oldest)
            await self.acknowledge([oldest])
        self._reports[report.instance_guid] = report
        try:
            await asyncio.to_thread(self.disk.write, report.instance_guid + SUFFIX, wire.encode(report))
        except OSError as refused:
            self.log.error("ended_report_not_on_disk", instance_guid=report.instance_guid, errno=refused.errno)

    async def acknowledge(self, guids: Iterable[InstanceGuid]) -> None:
        """Forget what is stored elsewhere now. Unknown ones are ignored.

        What a disk does not give up is told once more by the next boot, which changes nothing.
        """
        for guid in guids:
            if self._reports.pop(guid, None) is not None:
                try:
                    await asyncio.to_thread(self.disk.remove, guid + SUFFIX)
                except OSError as refused:
                    self.log.error("ended_report_not_removed", instance_guid=guid, errno=refused.errno)

    def has(self, guid: InstanceGuid) -> bool:
        return guid in self._reports

    def reports(self) -> tuple[End, ...]:
        """The oldest ones, as many as one report carries."""
        return tuple(self._reports.values())[:REPORTS_MAX]

    def all(self) -> tuple[End, ...]:
        """Every one, the oldest first."""
        return tuple(self._reports.values())

    def __len__(self) -> int:
        return len(self._reports)
