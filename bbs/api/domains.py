"""`/v1/domains`: which clients' desires are the whole truth, and until when. Diego: bbs domains."""

from __future__ import annotations

import attrs
from aiohttp import web
from attrs import define

from bbs.api.paging import PAGING, short_list
from bbs.store.domains import DomainFreshness
from bbs.store.transaction import Store
from diego_py.call import Call
from diego_py.errors import InvalidHeader, RequestFailed
from diego_py.http.server import Route, answer, decode, invalid_fields, read_json
from diego_py.models.fields import OUT_OF_RANGE, FieldError
from diego_py.models.identifiers import Domain

TTL_S_MAX = 2**32 - 1
DOMAIN_BYTES_MAX = 255


@attrs.frozen(kw_only=True)
class DomainTTL:
    """How long the domain stays fresh, in seconds; 0 for ever."""

    ttl_s: int


@attrs.frozen(kw_only=True)
class DomainPage:
    """The fresh domains."""

    items: tuple[DomainFreshness, ...]
    next_cursor: str | None


@define
class Domains:
    """Handlers of domains."""

    store: Store

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v1/domains", "list_domains", self.list, RequestFailed, gives=DomainPage, query=PAGING),
            Route("PUT", "/v1/domains/{domain}", "upsert_domain", self.upsert, RequestFailed, takes=DomainTTL),
        ]

    async def list(self, request: web.Request, call: Call) -> web.StreamResponse:
        """The fresh domains: only their surplus instances are ever stopped."""
        fresh = await self.store.read(call, "list_domains", lambda tx: tx.domains.list_fresh())
        return short_list(request, fresh, lambda item: (item.domain,), (str,))

    async def upsert(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Make a domain fresh for `ttl_s` seconds from now."""
        domain = request.match_info["domain"]
        ttl = decode(DomainTTL, await read_json(request)).ttl_s
        if not 0 <= ttl <= TTL_S_MAX:
            raise invalid_fields([FieldError("/ttl_s", OUT_OF_RANGE, f"must be between 0 and {TTL_S_MAX}")])
        if len(domain.encode()) > DOMAIN_BYTES_MAX:
            raise InvalidHeader(f"a domain has at most {DOMAIN_BYTES_MAX} bytes")
        await self.store.run(call, "upsert_domain", lambda tx: tx.domains.upsert(Domain(domain), ttl or None))
        return answer({"domain": domain, "ttl_s": ttl})
