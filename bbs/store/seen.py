"""Instances as this process stored them last: what becomes of one is decided without reading it again.

Only a guess, since others change rows too: the store compares as it writes (`UnchangedRows`), and what is not as it was
seen is left to the ordinary transaction, which alone refuses anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from attrs import define, evolve, field, frozen

from bbs.store import attempts
from bbs.store.actual_lrps import Key
from bbs.store.attempts import Claim, Claimed, Start
from bbs.store.desired_lrps import Reach
from bbs.store.desires import Desired
from bbs.store.transaction import Store
from bbs.store.unchanged import Change, Terms
from diego_py.call import Call
from diego_py.models.actual_lrp import ActualLRP, ActualLRPState
from diego_py.models.work import EgressChange
from diego_py.models.workload import ModificationTag

Item = TypeVar("Item", Claim, Start)

SEEN_MAX = 16_384
"""Instances on their way to RUNNING; beyond that the first ones are forgotten."""


@frozen
class Seen:
    """A row, and what was desired when it was stored."""

    row: ActualLRP
    desired: ModificationTag
    reach: Reach


@define
class SeenRows:
    """Rows on their way to RUNNING that no failure explains, by instance_guid."""

    store: Store
    most: int = SEEN_MAX
    _rows: dict[str, Seen] = field(factory=dict, init=False)

    def stored(self, made: Desired) -> None:
        """A new LRP and its rows."""
        definition, tag = made.desired.definition, made.desired.modification_tag
        egress = EgressChange(egress_rules=definition.egress_rules, version=tag.index)
        reach = Reach(definition.process_guid, made.desired.revision, egress)
        for row in made.actuals[: self.most]:
            if row.instance_guid is not None:
                self._rows[row.instance_guid] = Seen(row, tag, reach)
        while len(self._rows) > self.most:
            del self._rows[next(iter(self._rows))]

    async def claim(self, call: Call, claims: Sequence[Claim]) -> Sequence[Claimed | None]:
        """Make those claims that are of rows as they were seen, in one statement; None for each of the others."""

        def change(seen: Seen, item: Claim) -> Change | None:
            after = attempts.claimed(seen.row, item, True, seen.row.since)
            return _change(seen, after, Terms(item.boot_id, seen.desired))

        made = await self._saved(call, "claim_instance", claims, change)
        self._rows.update(made)
        return [
            None if (seen := made.get(item.instance_guid)) is None else Claimed(seen.row, seen.reach) for item in claims
        ]

    async def start(self, call: Call, starts: Sequence[Start]) -> Sequence[ActualLRP | None]:
        """The same of starts."""

        def change(seen: Seen, item: Start) -> Change | None:
            return _change(seen, attempts.started(seen.row, item, seen.row.since), None)

        made = await self._saved(call, "start_instance", starts, change)
        return [None if (seen := made.get(item.instance_guid)) is None else seen.row for item in starts]

    async def _saved(
        self, call: Call, op: str, items: Sequence[Item], change: Callable[[Seen, Item], Change | None]
    ) -> Mapping[str, Seen]:
        """What those became that were as they were seen, by instance_guid. What was seen is seen no more."""
        asked = Counter(_key(item) for item in items)
        seen: dict[str, Seen] = {}
        changes: dict[str, Change] = {}
        for item in items:
            one = self._seen(item)
            # Several who ask for the same index take turns. They may be attempts of a row that went and of the one that
            # came after it: what was saved is told by its index, and would be true of both.
            if one is None or asked[_key(item)] > 1:
                continue
            del self._rows[item.instance_guid]
            if (made := change(one, item)) is not None:
                seen[item.instance_guid], changes[item.instance_guid] = one, made
        if not changes:
            return {}
        ordered = list(changes.values())
        saved = await self.store.run(call, op, lambda tx: tx.unchanged.save(ordered), single=True)
        return {
            guid: Seen(evolve(made.row, since=saved[_key(made.row)]), seen[guid].desired, seen[guid].reach)
            for guid, made in changes.items()
            if _key(made.row) in saved
        }

    def _seen(self, item: Claim | Start) -> Seen | None:
        seen = self._rows.get(item.instance_guid)
        return seen if seen is not None and _key(seen.row) == _key(item) else None


def _change(seen: Seen, after: object, claim: Terms | None) -> Change | None:
    """What is to be written; None for what is refused, and for what is so already: the row itself has to tell."""
    if not isinstance(after, ActualLRP) or after is seen.row or seen.row.state is ActualLRPState.RUNNING:
        return None
    return Change(after, claim)


def _key(of: ActualLRP | Claim | Start) -> Key:
    return of.process_guid, of.index
