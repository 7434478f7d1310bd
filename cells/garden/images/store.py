"""The unpacked layers of a cell: each is fetched and unpacked once, whoever asks for it, and kept while there is room.

Work on a layer belongs to the store. Who waits for it may go at any time; when the last one has, the work is ended and
cleaned up. What one asker's credentials or budget made fail, the others try with their own.
"""

from __future__ import annotations

import asyncio
import copy
import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import define, evolve, field

from cells.garden.children import in_thread, uninterrupted
from cells.garden.images.collection import Removal, StoredLayer, chain_ids, plan_gc
from cells.garden.images.held import HeldImages
from cells.garden.images.layer_files import PARTS_KEPT_S, LayerFiles
from cells.garden.images.source import Image, Layer, Source
from cells.garden.images.unpack import Unpacked, UnpackLimits, extract
from diego_py.call import Call
from diego_py.errors import (
    ArchiveCorrupt,
    ArchiveTooLarge,
    ArchiveUnsafe,
    ArchiveUnsupported,
    DiegoError,
    GardenFailed,
    ImageUnsupported,
    NoSpace,
    Outcome,
    ShuttingDown,
)
from diego_py.service.clock import Clock

LAYERS_MAX = 128
"""Of one image."""
FETCHED_AT_ONCE = 3
"""Layers of one image: a registry that is slow shall not hold up what comes from others."""
FETCHES_MAX = 48
"""Of all images; each has some megabytes in memory."""
PULL_TIMEOUT_S = 1800.0
"""For the work on one layer; whoever waits for it has a budget of their own."""
OF_THE_LAYER = (ArchiveCorrupt, ArchiveTooLarge, ArchiveUnsafe, ArchiveUnsupported)
"""Failures that are the same whoever asks."""


@define(eq=False)
class Pull:
    """The work on one layer. It is removed from the store before it ends."""

    chain_id: str
    work: asyncio.Future[Any]
    waiting: int = 0


@define
class Store:
    """`in_use` tells the top layers of all containers. `prepare` first; `close` leaves the layers."""

    files: LayerFiles
    limits: UnpackLimits
    bytes_max: int
    clock: Clock
    in_use: Callable[[], set[str]]
    held: HeldImages = field(factory=HeldImages, init=False)
    """By which names what is here was used; those of an earlier process are known for containers that run."""
    _stored: dict[str, StoredLayer] = field(factory=dict, init=False)
    _pulls: dict[str, Pull] = field(factory=dict, init=False)
    _ending: dict[str, asyncio.Future[Any]] = field(factory=dict, init=False)
    _pins: Counter[str] = field(factory=Counter, init=False)
    """Layers of images that are just being put together: no container speaks for them yet."""
    _fetching: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(FETCHES_MAX), init=False)
    _unpacking: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(os.cpu_count() or 1), init=False)
    _closed: bool = field(default=False, init=False)

    async def prepare(self) -> tuple[Removal, ...]:
        """Take up what is whole on disk, remove what is not, then make room. Raises OSError."""
        self._closed = False
        self._stored = {layer.chain_id: layer for layer in await in_thread(self.files.prepare)}
        return await self.collect()

    @property
    def layers(self) -> tuple[StoredLayer, ...]:
        return tuple(self._stored.values())

    def images(self) -> tuple[str, ...]:
        """Names of images that are here, the one used last first."""
        return self.held.names(self._stored)

    async def have(self, call: Call, image: Image, source: Source) -> tuple[str, ...]:
        """Return when all layers of the image are here: their chain ids, the lowest first.

        They stay until the caller yields, so what uses them must be found by `in_use` by then. Raises what
        `Source.fetch` and `extract` do, ImageUnsupported for too many layers, NoSpace, ShuttingDown.
        """
        if not 0 < len(image.layers) <= LAYERS_MAX:
            raise ImageUnsupported(f"use an image of {len(image.layers)} layers; there can be 1 to {LAYERS_MAX}")
        for layer in image.layers:
            if layer.size > self.limits.archive_bytes_max:
                told = f"fetch layer {layer.digest} of {layer.size} bytes: at most {self.limits.bytes_max} unpacked"
                raise ArchiveTooLarge(told, evidence={"limit": "layer_bytes_max"})
        chain = chain_ids([layer.diff_id for layer in image.layers])
        self._pins.update(chain)
        try:
            try:
                await self._bring(call, image, chain, source)
            except NoSpace:
                # The disk has less than our limit. What nobody uses is worth less than what somebody waits for.
                if not await self.collect(full=True):
                    raise
                await self._bring(call, image, chain, source)
        except OSError as refused:
            raise self._translated(refused) from refused
        finally:
            self._pins.subtract(chain)
            self._pins += Counter()  # Forgets those that nobody pins.
        return chain

    async def _bring(self, call: Call, image: Image, chain: tuple[str, ...], source: Source) -> None:
        try:
            missing = any(chain_id not in self._stored for chain_id in chain)
            if missing:
                await self.collect()
            while not await self._pulled(call, image.layers, chain, source):
                pass
            self._use(chain)
            if missing:
                await self.collect()
        except OSError as refused:
            raise self._translated(refused) from refused

    def paths(self, chain: Sequence[str]) -> tuple[Path, ...]:
        """The unpacked layers, without those that a higher one hides altogether: overlayfs would show them."""
        shown: list[str] = []
        for chain_id in chain:
            shown = [chain_id] if self.files.hides_all_below(chain_id) else [*shown, chain_id]
        return tuple(self.files.tree(chain_id) for chain_id in shown)

    async def collect(self, full: bool = False) -> tuple[Removal, ...]:
        """Remove what the limit has no room for. Returns the decisions; they are also in `removals.jsonl`.

        `full`: the disk has no room for anything; all goes that nobody uses.
        """
        used = {*self.in_use(), *self._pins, *self._pulls}
        retired: list[Removal] = []
        try:
            limit_bytes, why = (0, "the disk is full") if full else (self.bytes_max, "")
            for removal in plan_gc(self.layers, used, limit_bytes, why):  # No await: the plan is of this moment.
                self.files.retire(removal.chain_id)
                del self._stored[removal.chain_id]
                retired.append(removal)
        finally:
            await in_thread(self.files.remove, retired)
        await in_thread(self.files.prune_parts, {*self._pulls, *self._pins}, 0.0 if full else PARTS_KEPT_S)
        return tuple(retired)

    async def close(self) -> None:
        """End all work. Whoever waits for it is told so."""
        self._closed = True
        for pull in list(self._pulls.values()):
            self._end(pull)
        while self._ending:
            await asyncio.wait(list(self._ending.values()))

    def _use(self, chain: Sequence[str]) -> None:
        now_s = self.clock.now().timestamp()
        for chain_id in chain:
            self._stored[chain_id] = evolve(self._stored[chain_id], last_used_s=now_s)
            self.files.touch(chain_id, now_s)

    # Pulls

    async def _pulled(self, call: Call, layers: Sequence[Layer], chain: tuple[str, ...], source: Source) -> bool:
        """Wait for what is missing; False when another asker's work failed and ours has to be tried."""
        joined: list[Pull] = []
        ours: set[str] = set()
        slots = asyncio.Semaphore(FETCHED_AT_ONCE)
        try:
            for number, chain_id in enumerate(chain):
                if chain_id in self._stored:
                    continue
                if chain_id not in self._pulls:
                    ours.add(chain_id)
                    self._begin(call, layers[number], chain[: number + 1], source, slots)
                pull = self._pulls[chain_id]
                pull.waiting += 1
                joined.append(pull)
            if joined:
                await asyncio.wait([pull.work for pull in joined], return_when=asyncio.FIRST_EXCEPTION)
            for pull in joined:
                error = _failure(pull.work)
                if isinstance(error, asyncio.CancelledError):
                    raise self._stopping()  # Nobody else ends what we wait for.
                if isinstance(error, OF_THE_LAYER) or (error is not None and pull.chain_id in ours):
                    raise _own(error)
                if error is not None:
                    return False
        finally:
            left = [self._leave(pull) for pull in joined]
            await uninterrupted(_ended([work for work in left if work is not None]))
        return True

    def _stopping(self) -> ShuttingDown:
        return ShuttingDown("fetch an image: this cell is stopping", outcome=Outcome.ROLLED_BACK, retry_after_s=1.0)

    def _begin(
        self, call: Call, layer: Layer, chain: tuple[str, ...], source: Source, slots: asyncio.Semaphore
    ) -> None:
        if self._closed:
            raise self._stopping()
        chain_id = chain[-1]
        below = self._pulls.get(chain[-2]) if len(chain) > 1 else None
        call = call.with_budget(PULL_TIMEOUT_S * 1000)
        work = self._pull(call, layer, chain, source, slots, below.work if below is not None else None)
        # Owned by the store: ended by the last one who leaves, or by `close`; its failure is told to all who wait.
        self._pulls[chain_id] = Pull(chain_id, asyncio.gather(work))

    def _leave(self, pull: Pull) -> asyncio.Future[Any] | None:
        """Wait no longer. The last one ends the work; what is returned is then its end."""
        pull.waiting -= 1
        if pull.waiting > 0 or self._pulls.get(pull.chain_id) is not pull:
            return None
        return self._end(pull)

    def _end(self, pull: Pull) -> asyncio.Future[Any] | None:
        del self._pulls[pull.chain_id]
        if pull.work.done():
            return None
        pull.work.cancel()
        self._ending[pull.chain_id] = pull.work
        pull.work.add_done_callback(lambda _: self._ending.pop(pull.chain_id, None))
        return pull.work

    async def _pull(
        self,
        call: Call,
        layer: Layer,
        chain: tuple[str, ...],
        source: Source,
        slots: asyncio.Semaphore,
        below: asyncio.Future[Any] | None,
    ) -> None:
        chain_id = chain[-1]
        while (earlier := self._ending.get(chain_id)) is not None:
            await asyncio.wait([earlier])
        try:
            async with slots, self._fetching:
                await source.fetch(call, layer, self.files.blob(chain_id))
            tree = await in_thread(self.files.begin, chain_id)
            async with self._unpacking:
                blob = os.open(self.files.blob(chain_id), os.O_RDONLY | os.O_CLOEXEC)
                try:
                    unpacked = await extract(blob, "layer", tree, self.limits)
                finally:
                    os.close(blob)
            if unpacked.diff_id != layer.diff_id:
                raise ArchiveCorrupt(
                    f"unpack layer {layer.digest}: its content is not what the image's configuration says",
                    evidence={"announced": layer.diff_id, "found": unpacked.diff_id},
                )
            if below is not None:
                await asyncio.wait([below])
            if len(chain) > 1 and chain[-2] not in self._stored:
                raise GardenFailed(f"unpack layer {layer.digest}: the layer below it is not there")
            await uninterrupted(self._finish(chain, unpacked))
        except OSError as refused:
            raise self._translated(refused) from refused
        finally:
            await in_thread(self.files.discard, chain_id)

    async def _finish(self, chain: tuple[str, ...], unpacked: Unpacked) -> None:
        """What is in its place on disk must also be known: nobody else would put it there again, or remove it."""
        self._stored[chain[-1]] = await in_thread(self.files.finish, chain[-1], chain[-2::-1], unpacked)

    def _translated(self, refused: OSError) -> DiegoError:
        what = errno.errorcode.get(refused.errno or 0, "?")
        if refused.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(self.files.root)
            return NoSpace("store a layer: no space left", evidence={"errno": what, "free_bytes": free.free})
        return GardenFailed("store a layer", outcome=Outcome.ROLLED_BACK, evidence={"errno": what})


async def _ended(works: Sequence[asyncio.Future[Any]]) -> None:
    if works:
        await asyncio.wait(works)
    for work in works:
        _failure(work)


def _failure(work: asyncio.Future[Any]) -> BaseException | None:
    """How it failed, if it ended and did; having been ended is a failure too."""
    if not work.done():
        return None
    return asyncio.CancelledError() if work.cancelled() else work.exception()


def _own(error: BaseException) -> BaseException:
    """A copy: each of those who get it adds their own frame."""
    if not isinstance(error, DiegoError):
        return error
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    own.frame = error.frame
    return own
