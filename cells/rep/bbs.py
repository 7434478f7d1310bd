"""What a cell asks of the BBS. The client of `diego_py` is one answer, the simulation's another."""

from __future__ import annotations

from typing import Protocol

from diego_py.call import Call
from diego_py.models.identifiers import ProcessGuid
from diego_py.models.work import CellReport, ClaimRequest, ReportAnswer


class BBS(Protocol):
    """The two calls a cell makes."""

    async def claim(self, call: Call, process_guid: ProcessGuid, index: int, request: ClaimRequest) -> None:
        """Take the row of an instance. Raises ClaimRefused when it is not ours to take, ClaimLost when nobody said."""

    async def report(self, call: Call, report: CellReport) -> ReportAnswer:
        """Say what the cell has; returns what it must do."""
