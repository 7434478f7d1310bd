"""How garden starts helper processes and keeps hold of them. Never forks this process: every child is spawned."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

from attrs import frozen

from cells.garden.monitor import dead
from cells.garden.processes import identify
from diego_py.errors import RuntimeMissing

T = TypeVar("T")

OUTPUT_BYTES_MAX = 64 * 1024
_SETPRIV = shutil.which("setpriv")


@frozen
class Finished:
    """A helper that ended: its status (negative: the signal) and what it wrote."""

    status: int
    stdout: str
    stderr: str
    pid: int = 0


def become_subreaper(name: str | None = None) -> None:
    """Make orphans below this process (conmon, which forks twice) its children, and give it a name `ps` shows.

    Without this they go to PID 1, which may reap them late; monitors then look alive for seconds after their end.
    """
    import prctl

    prctl.set_child_subreaper(1)
    if name is not None:
        prctl.set_name(name)
        prctl.set_proctitle(name)


def bound_to_us(argv: Sequence[str], capabilities: Sequence[str] | None = None) -> list[str]:
    """`argv` such that it dies with this process and never has more than `capabilities` (lower case, without CAP_).

    Costs one more exec (half a millisecond). Only for helpers that must not outlive us; conmon must.
    """
    if _SETPRIV is None:
        return list(argv)
    bound = [_SETPRIV, "--pdeathsig", "KILL"]
    if capabilities is not None:
        kept = "-all" + "".join(f",+{name}" for name in capabilities)
        bound += ["--bounding-set", kept, "--inh-caps", kept]
    return [*bound, *argv]


async def run(argv: Sequence[str], *, stdin: bytes | None = None, timeout_s: float, cwd: str | None = None) -> Finished:
    """Run a helper to its end; it is killed after `timeout_s`. A cancelled caller still waits for the end.

    Raises RuntimeMissing when it cannot be executed and TimeoutError when it had to be killed.
    """
    return await uninterrupted(_run(argv, stdin, timeout_s, cwd))


async def _run(argv: Sequence[str], stdin: bytes | None, timeout_s: float, cwd: str | None) -> Finished:
    child = await spawn(
        argv,
        stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await child.communicate(stdin)
    except TimeoutError:
        child.kill()
        await child.wait()
        raise
    assert child.returncode is not None
    return Finished(child.returncode, out.decode(errors="replace"), err.decode(errors="replace"), child.pid)


async def spawn(argv: Sequence[str], **how: Any) -> asyncio.subprocess.Process:
    """Start a helper. Raises RuntimeMissing when the program is not there or cannot be executed."""
    with _found(argv):
        return await asyncio.create_subprocess_exec(*argv, **how)


def begin(argv: Sequence[str], **how: Any) -> subprocess.Popen[bytes]:
    """The same at once, for one that is not waited for on the way: it blocks as long, which is until it was executed.

    Without what asyncio has for its children it takes one turn of the loop less, and a part of the time.
    """
    with _found(argv):
        return subprocess.Popen(argv, **how)


async def ended(child: subprocess.Popen[bytes]) -> None:
    """Return when such a child has ended, and is reaped."""
    if child.poll() is None:
        await dead(identify(child.pid))
        child.wait()


@contextlib.contextmanager
def _found(argv: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, PermissionError, NotADirectoryError) as missing:
        raise RuntimeMissing(f"execute {argv[0]}", evidence={"path": argv[0]}) from missing


async def uninterrupted(work: Awaitable[T]) -> T:
    """Await `work` to its end even when the caller is cancelled meanwhile; the cancellation is delivered after it.

    A half-done mount or runtime call cannot be undone while it still goes on.
    """
    inner: asyncio.Future[tuple[T]] = asyncio.gather(work)
    try:
        return (await asyncio.shield(inner))[0]
    except asyncio.CancelledError:
        while not inner.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([inner])
        if not inner.cancelled():
            inner.exception()
        raise


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """A blocking call in a worker thread, waited for even when the caller is cancelled."""
    return await uninterrupted(asyncio.to_thread(function, *args))


async def together(*works: Awaitable[Any]) -> list[Any]:
    """Run `works` at the same time and wait for all of them; then raise the first failure, if there is one.

    Others are not cancelled: each has side effects of its own that undo must find finished.
    """
    results = await asyncio.gather(*works, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
