"""Ping, domains and cells on Diego's wire."""

from __future__ import annotations

from typing import Any

from attrs import define
from google.protobuf.message import Message

from bbs.api.domains import DOMAIN_BYTES_MAX
from bbs.diego_api import codec
from bbs.diego_api.descriptors import MESSAGES
from bbs.diego_api.endpoint import Endpoint
from bbs.diego_api.errors import invalid
from bbs.diego_api.requests import text_of
from bbs.store.transaction import Store
from diego_py.call import Call
from diego_py.models.identifiers import Domain


@define
class DiegoDomainsAndCells:
    """Handlers of ping, domains and cells."""

    store: Store

    def endpoints(self) -> list[Endpoint]:
        upsert = ("UpsertDomainRequest", "UpsertDomainResponse", self.upsert_domain)
        return [
            Endpoint("/v1/ping", "diego_ping", None, "PingResponse", self.ping),
            Endpoint("/v1/domains/list", "diego_list_domains", None, "DomainsResponse", self.list_domains),
            Endpoint("/v1/domains/upsert", "diego_upsert_domain", *upsert),
            Endpoint("/v1/cells/list.r1", "diego_list_cells", None, "CellsResponse", self.list_cells),
        ]

    async def ping(self, request: Any, call: Call) -> Message:
        """Whether requests can be served now."""
        await self.store.read(call, "ping", lambda tx: tx.now())
        return MESSAGES["PingResponse"](available=True)

    async def list_domains(self, request: Any, call: Call) -> Message:
        """The fresh ones."""
        fresh = await self.store.read(call, "list_domains", lambda tx: tx.domains.list_fresh())
        return MESSAGES["DomainsResponse"](domains=[item.domain for item in fresh])

    async def upsert_domain(self, request: Any, call: Call) -> None:
        """Fresh for so many seconds; 0 is for ever."""
        domain, ttl_s = text_of(request.domain, "domain"), request.ttl % 2**32
        if not 0 < len(domain.encode()) <= DOMAIN_BYTES_MAX:
            raise invalid("domain")
        await self.store.run(call, "upsert_domain", lambda tx: tx.domains.upsert(Domain(domain), ttl_s or None))

    async def list_cells(self, request: Any, call: Call) -> Message:
        """The live ones."""
        live = await self.store.read(call, "list_cells", lambda tx: tx.cells.list_live())
        return MESSAGES["CellsResponse"](cells=[codec.presence(record.presence) for record in live])
