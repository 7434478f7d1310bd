"""What a simulation answers beside its cells: how many there are, and the loss of some of their hosts."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web
from attrs import define, frozen

from cells.app import Cell
from cells.simulated.listeners import CellListener
from diego_py.call import Call
from diego_py.errors import CellNotFound, RepFailed
from diego_py.http.server import Route, answer, decode, read_json
from diego_py.models.work import InstanceState


@frozen(kw_only=True)
class Lost:
    """Cells that are lost, all of them; those that are not named are back."""

    cells: tuple[str, ...] = ()


@frozen(kw_only=True)
class SimulationState:
    """What the cells have, all together."""

    cells: int
    lost: int
    instances: int
    running: int
    overcommitted: tuple[str, ...]
    """Cells that have given away more than they have: none."""


@define
class SimulationRoutes:
    """The handlers."""

    cells: Mapping[str, Cell]
    listeners: Mapping[str, CellListener]

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v1/simulation", "simulation_state", self.state, RepFailed, counted=False),
            Route("PUT", "/v1/simulation/lost", "lose_cells", self.lose, RepFailed, counted=False),
        ]

    async def state(self, request: web.Request, call: Call) -> web.StreamResponse:
        """What the cells themselves know."""
        books = {name: cell.sync.books for name, cell in self.cells.items()}
        instances = [instance for each in books.values() for instance in each.instances]
        left = {name: each.reservations.available() for name, each in books.items()}
        return answer(
            SimulationState(
                cells=len(self.cells),
                lost=sum(listener.lost for listener in self.listeners.values()),
                instances=len(instances),
                running=sum(instance.state is InstanceState.RUNNING for instance in instances),
                overcommitted=tuple(n for n, room in left.items() if min(room.memory_mb, room.containers) < 0),
            )
        )

    async def lose(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Have just these cells lost, as if their hosts had died; they come back with all they had."""
        lost = decode(Lost, await read_json(request)).cells
        if unknown := set(lost) - self.listeners.keys():
            raise CellNotFound(f"no simulated cell {min(unknown)[:200]} here")
        for name, listener in self.listeners.items():
            listener.lost = name in lost
        return answer(Lost(cells=lost))
