"""Instances on Diego's wire."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from attrs import define
from google.protobuf.message import Message

from bbs.diego_api import codec
from bbs.diego_api.descriptors import MESSAGES
from bbs.diego_api.endpoint import Endpoint
from bbs.diego_api.errors import invalid
from bbs.diego_api.instances import WITHOUT_CELL, Besides, groups, instance
from bbs.diego_api.pages import PAGE, pages
from bbs.diego_api.requests import guid_of, guids_of, index_of, text_of
from bbs.placement import Placement
from bbs.store import actual_lrps
from bbs.store.transaction import Store, Transaction
from diego_py.call import Call
from diego_py.errors import ActualLRPNotFound
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState
from diego_py.service.run import OwnedTasks


@define
class DiegoActualLRPs:
    """Handlers of instances."""

    store: Store
    placement: Placement
    tasks: OwnedTasks

    def endpoints(self) -> list[Endpoint]:
        path = "/v1/actual_lrps"
        return [
            Endpoint(
                f"{path}/list", "diego_list_actual_lrps", "ActualLRPsRequest", "ActualLRPsResponse", self.list_rows
            ),
            Endpoint(
                f"{path}/list_by_process_guids",
                "diego_list_actual_lrps_by_guids",
                "ActualLRPsByProcessGuidsRequest",
                "ActualLRPsResponse",
                self.list_by_process_guids,
            ),
            Endpoint(
                f"{path}/retire",
                "diego_retire_actual_lrp",
                "RetireActualLRPRequest",
                "ActualLRPLifecycleResponse",
                self.retire,
            ),
            Endpoint(
                "/v1/actual_lrp_groups/list",
                "diego_list_groups",
                "ActualLRPGroupsRequest",
                "ActualLRPGroupsResponse",
                self.list_groups,
            ),
            Endpoint(
                "/v1/actual_lrp_groups/list_by_process_guid",
                "diego_list_groups_by_guid",
                "ActualLRPGroupsByProcessGuidRequest",
                "ActualLRPGroupsResponse",
                self.list_groups_by_guid,
            ),
            Endpoint(
                "/v1/actual_lrp_groups/get_by_process_guid_and_index",
                "diego_get_group",
                "ActualLRPGroupByProcessGuidAndIndexRequest",
                "ActualLRPGroupResponse",
                self.get_group,
            ),
        ]

    async def list_rows(self, request: Any, call: Call) -> bytes:
        """Rows of every presence; filters are ANDed."""
        wanted = actual_lrps.Filter(
            process_guid=text_of(request.process_guid, "process_guid") or None,
            domain=text_of(request.domain, "domain") or None,
            cell_id=text_of(request.cell_id, "cell_id") or None,
        )
        index = index_of(request.index) if request.HasField("index") else None
        parts = [
            await self._response(call, [row for row in page if index is None or row.index == index])
            async for page in pages(partial(self._page, call, wanted), _place_of)
        ]
        return b"".join(parts)

    async def list_by_process_guids(self, request: Any, call: Call) -> bytes:
        """Rows of these LRPs, which must be named."""
        guids = guids_of(request.process_guids)
        if not guids:
            raise invalid("process_guids")
        return await self._response(call, await self._rows_of(call, sorted(set(guids))))

    async def retire(self, request: Any, call: Call) -> None:
        """Begin to stop an instance; as long as it is desired, a new one is made."""
        if not request.HasField("actual_lrp_key"):
            raise invalid("actual_lrp_key")
        guid, index = guid_of(request.actual_lrp_key), index_of(request.actual_lrp_key.index)
        row = await self.store.read(call, "get_actual_lrp", lambda tx: tx.actual_lrps.get(guid, index))
        if row is None:
            raise ActualLRPNotFound(f"no instance {guid}/{index}")
        if row.state in WITHOUT_CELL:
            await self.placement.stop(call, row)
        else:
            self.tasks.begin(self.placement.stop(call, row), f"retire {guid}/{index}")

    async def list_groups(self, request: Any, call: Call) -> Message:
        wanted = actual_lrps.Filter(
            domain=text_of(request.domain, "domain") or None, cell_id=text_of(request.cell_id, "cell_id") or None
        )
        rows = [row async for page in pages(partial(self._page, call, wanted), _place_of) for row in page]
        return await self._groups(call, rows)

    async def list_groups_by_guid(self, request: Any, call: Call) -> Message:
        return await self._groups(call, await self._rows_of(call, [guid_of(request)]))

    async def get_group(self, request: Any, call: Call) -> Message:
        guid, index = guid_of(request), index_of(request.index)
        rows = [row for row in await self._rows_of(call, [guid]) if row.index == index]
        if not rows:
            raise ActualLRPNotFound(f"no instance {guid}/{index}")
        groups: Any = await self._groups(call, rows)
        return MESSAGES["ActualLRPGroupResponse"](actual_lrp_group=groups.actual_lrp_groups[0])

    async def _groups(self, call: Call, rows: Sequence[ActualLRP]) -> Message:
        told = groups(rows, await self._besides(call, rows))
        return MESSAGES["ActualLRPGroupsResponse"](actual_lrp_groups=told)

    async def _page(
        self, call: Call, wanted: actual_lrps.Filter, after: actual_lrps.Cursor | None
    ) -> Sequence[ActualLRP]:
        return await self.store.read(
            call, "list_actual_lrps", lambda tx: tx.actual_lrps.list_page(wanted, after, PAGE, with_failure=True)
        )

    async def _rows_of(self, call: Call, guids: Sequence[str]) -> list[ActualLRP]:
        async def look(tx: Transaction) -> list[ActualLRP]:
            return [row for guid in guids for row in await tx.actual_lrps.list_of(guid, with_failure=True)]

        return await self.store.read(call, "list_actual_lrps", look)

    async def _response(self, call: Call, rows: Sequence[ActualLRP]) -> bytes:
        besides = await self._besides(call, rows)
        return codec.listed("ActualLRPsResponse", "actual_lrps", (instance(row, besides) for row in rows))

    async def _besides(self, call: Call, rows: Sequence[ActualLRP]) -> Besides:
        """What is told of these instances and is not in their rows."""
        running = sorted({row.process_guid for row in rows if row.state is ActualLRPState.RUNNING})
        without_place = sorted({row.process_guid for row in rows if row.placement_error is not None})

        async def look(tx: Transaction) -> Besides:
            asked = {guid: await tx.desired_lrps.get(guid) for guid in without_place}
            return Besides(
                of_lrps=await tx.labels.of_lrps(running),
                told=await tx.labels.told(running),
                placement_tags={guid: lrp.definition.placement_tags for guid, lrp in asked.items() if lrp is not None},
            )

        return await self.store.read(call, "list_labels", look) if running or without_place else Besides()


def _place_of(row: ActualLRP) -> actual_lrps.Cursor:
    return (row.process_guid, row.index, row.presence.value)
