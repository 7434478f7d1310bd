"""The garden's side of the zygote: one request each, and the holder that answers it. A dead zygote is replaced."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import sys
from collections.abc import Callable
from typing import Any

from attrs import define, field

from cells.garden import children
from cells.garden.network.pair import Link
from cells.garden.processes import Process, identify, kill
from diego_py.errors import DiegoError, NetworkFailed, SandboxFailed

MODULE = "cells.garden.sandboxes.zygote"
MESSAGE_BYTES_MAX = 4096
TIMEOUT_S = 20.0


@define
class Maker:
    """Has sandboxes made. `settle` is told the pid of each new zygote before it makes any."""

    settle: Callable[[int], None]
    user_limits: dict[str, int]
    """Files of /proc/sys/user, and what is written there for each new user namespace."""
    _zygote: asyncio.subprocess.Process | None = field(default=None, init=False)
    _socket: socket.socket | None = field(default=None, init=False)
    _starting: asyncio.Lock = field(factory=asyncio.Lock, init=False)
    _asked: int = field(default=0, init=False)
    _waiting: dict[int, asyncio.Future[Process]] = field(factory=dict, init=False)

    async def open(self) -> None:
        """Have a zygote, starting one when there is none or it died. Raises RuntimeMissing, OSError."""
        async with self._starting:
            if self._socket is not None:
                return
            await children.uninterrupted(self._start())

    async def _start(self) -> None:
        await self._reap()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._zygote = await children.spawn(
                    children.bound_to_us([sys.executable, "-I", "-m", MODULE]), stdin=theirs, start_new_session=True
                )
                await children.in_thread(self.settle, self._zygote.pid)
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self._socket = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._read)

    def ask(self, ids: tuple[int, int] | None, link: Link) -> asyncio.Future[Process]:
        """The holder of a new sandbox, later. Its failures are SandboxFailed and NetworkFailed."""
        answer: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
        if self._socket is None:
            answer.set_exception(_gone())
            return answer
        self._asked += 1
        self._waiting[self._asked] = answer
        try:
            request = {"number": self._asked, "ids": ids, "user_limits": self.user_limits, "link": link}
            self._socket.send(json.dumps(request).encode())
        except OSError:  # It died, and we are about to read that; or it has more to do than a socket holds.
            del self._waiting[self._asked]
            answer.set_exception(_gone())
        return answer

    async def have(self, ids: tuple[int, int] | None, link: Link) -> Process:
        """The same, waited for, by another zygote when this one dies meanwhile. Raises SandboxFailed, NetworkFailed."""
        for last in (False, True):
            await self.open()
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    return await self.ask(ids, link)
            except TimeoutError as stuck:
                raise SandboxFailed(f"no sandbox within {TIMEOUT_S:.0f} s") from stuck
            except SandboxFailed:
                if last or self._socket is not None:
                    raise
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """End the zygote; the sandboxes it made go on. Whoever still waits for one is told that it is gone."""
        async with self._starting:
            self._lose()
            await self._reap()

    async def _reap(self) -> None:
        """It ends with its socket, unless it is stuck in the kernel."""
        zygote, self._zygote = self._zygote, None
        if zygote is None:
            return
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await zygote.wait()
        except TimeoutError:
            zygote.kill()
            await zygote.wait()

    def _lose(self) -> None:
        connected, self._socket = self._socket, None
        if connected is not None:
            asyncio.get_running_loop().remove_reader(connected.fileno())
            connected.close()
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(_gone())

    def _read(self) -> None:
        assert self._socket is not None
        while True:
            try:
                data = self._socket.recv(MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._lose()
                return
            said = json.loads(data)
            answer = self._waiting.pop(said["number"])
            self._tell(answer, said)

    @staticmethod
    def _tell(answer: asyncio.Future[Process], said: dict[str, Any]) -> None:
        if "pid" not in said:
            if not answer.done():
                answer.set_exception(_refused(said))
            return
        holder = identify(said["pid"])
        if answer.done():
            kill(holder)  # Nobody waits for it any more.
        else:
            answer.set_result(holder)


def _gone() -> DiegoError:
    return SandboxFailed("the maker of sandboxes ended")


def _refused(said: dict[str, Any]) -> DiegoError:
    name = errno.errorcode.get(said["errno"], "?")
    if said["step"] == "connect":
        return NetworkFailed("connect a sandbox", evidence={"errno": name, "address": said["address"]})
    return SandboxFailed("hold namespaces", evidence={"errno": name, "at": said["at"]})
