"""One socket for all simulated cells: the cell NAME is at /cells/NAME. A lost one hangs up on whoever asks it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from aiohttp import web
from attrs import define, field

from diego_py.call import Call
from diego_py.errors import CellNotFound, HopUnreachable, Outcome
from diego_py.http.client import Answer, HopClient, Peer
from diego_py.http.server import HopServer, Route

Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]

PATH: Final = "/cells/{simulated_cell}"


@define
class CellListener:
    """What one cell answers. `port` is that of all."""

    server: HopServer
    routes: Sequence[Route]
    socket: SharedSocket
    port: int = 0
    lost: bool = False
    """As if its host had died: it answers nobody, and reaches nobody."""
    _serve: dict[str, Serve] = field(factory=dict, init=False)

    @property
    def url(self) -> str:
        return f"http://{self.socket.host}:{self.socket.port}/cells/{self.server.id}"

    async def start(self) -> None:
        self._serve = {route.op: self.server.serve(route) for route in self.routes}
        self.port = self.socket.port
        self.socket.cells[self.server.id] = self

    async def stop(self) -> None:
        self.socket.cells.pop(self.server.id, None)

    async def answer(self, op: str, request: web.Request) -> web.StreamResponse:
        if self.lost:
            assert request.transport is not None
            request.transport.abort()
            raise ConnectionResetError("the cell is lost")
        return await self._serve[op](request)


@define
class SharedSocket:
    """Finds the cell that a path names."""

    host: str
    port: int = 0
    """Known once the process listens."""
    cells: dict[str, CellListener] = field(factory=dict, repr=False)

    def add_to(self, application: web.Application, routes: Sequence[Route], server: HopServer) -> None:
        """Serve these routes of every cell; what is no cell is answered by the server of the process."""
        for route in routes:
            missing = server.serve(Route(route.method, PATH + route.path, route.op, _no_cell, route.fails_as))
            application.router.add_route(route.method, PATH + route.path, self._to_cell(route.op, missing))

    def _to_cell(self, op: str, missing: Serve) -> Serve:
        async def serve(request: web.Request) -> web.StreamResponse:
            cell = self.cells.get(request.match_info["simulated_cell"])
            return await missing(request) if cell is None else await cell.answer(op, request)

        return serve


async def _no_cell(request: web.Request, call: Call) -> web.StreamResponse:
    raise CellNotFound(f"no simulated cell {request.match_info['simulated_cell'][:200]} here")


@define
class CellClient(HopClient):
    """What a cell reaches BBSes by: connections that all cells share, and that a lost one does not have."""

    shared: HopClient = field(kw_only=True)
    is_lost: Callable[[], bool] = field(kw_only=True)

    async def request(
        self,
        call: Call,
        peer: Peer,
        method: str,
        path: str,
        body: bytes | None = None,
        op: str | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> Answer:
        if self.is_lost():
            raise HopUnreachable(f"connect to {peer.url}: the cell is lost", outcome=Outcome.NOT_STARTED)
        return await self.shared.request(call, peer, method, path, body, op, extra)

    async def close(self) -> None:
        """The connections are those of all."""
