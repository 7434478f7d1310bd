"""Lists of instances: what has not changed since it was told last is told again without being read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from typing import Final

from attrs import define, evolve, field

from bbs.diego_api import codec
from bbs.diego_api.encoded import Encoded
from bbs.diego_api.instances import Item, instance
from bbs.diego_api.pages import PAGE, pages
from bbs.store.actual_lrps import Cursor
from bbs.store.told_instances import Mark, ToldInstance, Wanted
from bbs.store.transaction import Store, Transaction
from diego_py.call import Call

_OP: Final = "list_actual_lrps"
_encode: Final = codec.encoder("ActualLRPsResponse", "actual_lrps")


@define
class InstanceLists:
    """Instances as Diego tells them."""

    store: Store
    _encoded: Encoded[Cursor, int] = field(factory=Encoded, init=False)

    async def pages(self, call: Call, wanted: Wanted) -> AsyncIterator[list[Item]]:
        """Instances in order, some at a time: those of one LRP in a page are of one moment."""
        if self._encoded.is_empty():
            async for rows in pages(partial(self._rows, call, wanted), lambda row: row.mark.place):
                yield list(self._told(rows))
            return
        last = False
        while not last:
            marks = await self.store.read(call, _OP, partial(_marks, wanted))
            last = len(marks) < PAGE
            until = None if last else marks[-1].place
            yield await self._known_or_read(call, evolve(wanted, until=until), marks)
            wanted = evolve(wanted, after=until)

    async def _rows(self, call: Call, wanted: Wanted, after: Cursor | None) -> Sequence[ToldInstance]:
        behind = evolve(wanted, after=after)
        return await self.store.read(call, _OP, lambda tx: tx.told_instances.list_page(behind, PAGE))

    async def _known_or_read(self, call: Call, wanted: Wanted, marks: Sequence[Mark]) -> list[Item]:
        found = [(mark, self._encoded.get(mark.place, mark.version)) for mark in marks]
        known = [(mark, item) for mark, item in found if item is not None]
        if len(known) == len(marks):
            return known
        changed = {mark.place[0] for mark, item in found if item is None}
        same = [item for item in known if item[0].place[0] not in changed]
        # All of such an LRP in one statement: of rows that took each other's place meanwhile all are told, or none.
        again = evolve(wanted, process_guids=sorted(changed))
        rows = await self.store.read(call, _OP, lambda tx: tx.told_instances.list_page(again))
        return sorted([*same, *self._told(rows)])

    def _told(self, rows: Iterable[ToldInstance]) -> Iterable[Item]:
        for row in rows:
            item = self._encoded.get(row.mark.place, row.mark.version)
            if item is None:
                item = _encode(instance(row))
                self._encoded.keep(row.mark.place, row.mark.version, item)
            yield row.mark, item


async def _marks(wanted: Wanted, tx: Transaction) -> Sequence[Mark]:
    return await tx.told_instances.list_marks(wanted, PAGE)
