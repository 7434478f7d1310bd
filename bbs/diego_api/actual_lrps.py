"""Instances on Diego's wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import Factory, define, field

from bbs.diego_api import codec
from bbs.diego_api.endpoint import Endpoint
from bbs.diego_api.errors import invalid
from bbs.diego_api.instance_lists import InstanceLists
from bbs.diego_api.instances import WITHOUT_CELL, groups
from bbs.diego_api.requests import guid_of, guids_of, index_of, text_of
from bbs.placement import Placement
from bbs.store.told_instances import Wanted
from bbs.store.transaction import Store
from diego_py.call import Call
from diego_py.errors import ActualLRPNotFound
from diego_py.service.run import OwnedTasks


@define
class DiegoActualLRPs:
    """Handlers of instances."""

    store: Store
    placement: Placement
    tasks: OwnedTasks
    lists: InstanceLists = field(default=Factory(lambda self: InstanceLists(self.store), takes_self=True), init=False)

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
        guid = text_of(request.process_guid, "process_guid")
        wanted = Wanted(
            process_guids=[guid] if guid else None,
            domain=text_of(request.domain, "domain") or None,
            cell_id=text_of(request.cell_id, "cell_id") or None,
        )
        index = index_of(request.index) if request.HasField("index") else None
        parts = [
            _rows([item for mark, item in page if index is None or mark.place[1] == index])
            async for page in self.lists.pages(call, wanted)
        ]
        return b"".join(parts)

    async def list_by_process_guids(self, request: Any, call: Call) -> bytes:
        """Rows of these LRPs, which must be named."""
        guids = guids_of(request.process_guids)
        if not guids:
            raise invalid("process_guids")
        pages = self.lists.pages(call, Wanted(process_guids=guids))
        return b"".join([_rows([item for _, item in page]) async for page in pages])

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

    async def list_groups(self, request: Any, call: Call) -> bytes:
        wanted = Wanted(
            domain=text_of(request.domain, "domain") or None, cell_id=text_of(request.cell_id, "cell_id") or None
        )
        return codec.repeated("ActualLRPGroupsResponse", "actual_lrp_groups", await self._groups(call, wanted))

    async def list_groups_by_guid(self, request: Any, call: Call) -> bytes:
        groups = await self._groups(call, Wanted(process_guids=[guid_of(request)]))
        return codec.repeated("ActualLRPGroupsResponse", "actual_lrp_groups", groups)

    async def get_group(self, request: Any, call: Call) -> bytes:
        guid, index = guid_of(request), index_of(request.index)
        groups = await self._groups(call, Wanted(process_guids=[guid]), index)
        if not groups:
            raise ActualLRPNotFound(f"no instance {guid}/{index}")
        return codec.repeated("ActualLRPGroupResponse", "actual_lrp_group", groups)

    async def _groups(self, call: Call, wanted: Wanted, index: int | None = None) -> list[bytes]:
        items = [item async for page in self.lists.pages(call, wanted) for item in page]
        return groups(item for item in items if index is None or item[0].place[1] == index)


def _rows(items: Sequence[bytes]) -> bytes:
    return codec.repeated("ActualLRPsResponse", "actual_lrps", items)
