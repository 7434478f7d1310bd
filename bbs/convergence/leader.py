"""One BBS at a time converges: a row with an epoch, renewed by the database's clock."""

from __future__ import annotations

from attrs import define, field

from bbs.store.transaction import Store
from diego_py.call import Call
from diego_py.service.clock import Clock


@define
class Leadership:
    """This BBS's claim to lead, and for how long it has led."""

    store: Store
    clock: Clock
    owner: str
    ttl_s: float
    _epoch: int | None = field(default=None, init=False)
    _since_s: float = field(default=0.0, init=False)

    async def start(self) -> None:
        """Nothing to do: each round of convergence acquires or renews."""

    async def held(self, call: Call) -> int | None:
        """The epoch if this BBS leads now, else None. Renews the claim."""
        epoch = await self.store.run(
            call, "lead", lambda tx: tx.leader.acquire_or_renew(self.owner, self.ttl_s), reserved=True
        )
        if epoch != self._epoch:
            self._epoch, self._since_s = epoch, self.clock.monotonic()
        return epoch

    def led_for_s(self) -> float:
        """Seconds since this BBS came to lead under the present epoch; 0 when it does not lead."""
        return 0.0 if self._epoch is None else self.clock.monotonic() - self._since_s

    async def stop(self) -> None:
        """Hand over at once, so that another BBS need not wait for the claim to run out."""
        if self._epoch is None:
            return
        call = Call.begin(self.clock, 2_000)
        epoch, self._epoch = self._epoch, None
        await self.store.run(call, "resign", lambda tx: tx.leader.release(self.owner, epoch), reserved=True)
