"""User namespaces by id range: the kernel wants one to shift the ids of a mount, and the container lives in it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from attrs import define, field

from cells.garden import watch_limits
from cells.garden.children import spawn, uninterrupted
from cells.garden.pools import IDS_PER_SLOT

PREWARMED = 8


@define
class UserNamespaces:
    """One namespace an id slot, made once and kept: a descriptor costs nothing, making one costs milliseconds."""

    id_base: int
    _fds: dict[int, int] = field(factory=dict, init=False)
    _making: dict[int, asyncio.Lock] = field(factory=dict, init=False)

    async def get(self, slot: int) -> int:
        """The namespace of a slot, as a descriptor that stays ours. Raises OSError, RuntimeMissing."""
        if slot not in self._fds:
            async with self._making.setdefault(slot, asyncio.Lock()):
                if slot not in self._fds:
                    self._fds[slot] = await uninterrupted(make(self.id_base + slot * IDS_PER_SLOT))
            del self._making[slot]
        return self._fds[slot]

    def path(self, slot: int) -> str:
        """Where a runtime finds the namespace of a slot, for as long as this process lives. After `get`."""
        return f"/proc/{os.getpid()}/fd/{self._fds[slot]}"

    async def prewarm(self, slots: int = PREWARMED) -> None:
        """Make the first so many ahead of need. Raises OSError, RuntimeMissing."""
        for slot in range(slots):
            await self.get(slot)

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()


async def make(first_id: int) -> int:
    """A user namespace whose 65,536 ids begin at `first_id` of the host.

    Somebody must be in it while its maps are written: `cat` in a new namespace, which it limits before. Its answer to
    our first byte says that it is there; it ends with its input, and the descriptor keeps the namespace.
    """
    pipe = asyncio.subprocess.PIPE
    limit_then_wait = f"{watch_limits.script()} && exec cat"
    argv = ["unshare", "--user", "--keep-caps", "sh", "-c", limit_then_wait]
    holder = await spawn(argv, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL)
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        holder.stdin.write(b".")
        if await holder.stdout.read(1) != b".":
            raise OSError(0, "unshare --user did not start", "user namespace")
        mapping = f"0 {first_id} {IDS_PER_SLOT}\n"
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{holder.pid}/{name}").write_text(mapping)
        return os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        holder.stdin.close()
        await holder.wait()
