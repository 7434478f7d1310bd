"""What a cell answers over HTTP: the chain hop by hop, the status, and nothing left behind."""

import asyncio
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import aiohttp
import pytest

from cells.app import Cell
from cells.garden.spec import LogLine
from diego_py import wire
from diego_py.errors import (
    ClaimRefused,
    DestroyFailed,
    DiegoError,
    ExecNotFound,
    InsufficientResources,
    NeverHealthy,
    Outcome,
    RuntimeFailed,
)
from diego_py.models.checks import Check, TCPCheck
from diego_py.models.work import CellReport
from tests.fakes.bbs import FakeBBS
from tests.fakes.cell import CELL_ID, call, client_of, url_of, work
from tests.fakes.garden import FakeGarden
from tests.slowness import patient

pytestmark = pytest.mark.chain


def from_runc(kind: type[DiegoError], op: str) -> DiegoError:
    """`kind` as it arrives from the runtime's hop."""
    try:
        with call().hop("runc", CELL_ID, op, RuntimeFailed):
            raise kind(f"{op} it", evidence={"stderr": "no such file"})
    except DiegoError as error:
        return error


async def refused(cell: Cell, **of_work: object) -> DiegoError:
    async with client_of() as client:
        with pytest.raises(DiegoError) as caught:
            await client.run(call(), CELL_ID, url_of(cell), work(**of_work), 1)  # type: ignore[arg-type]
    return caught.value


def hops(error: DiegoError) -> list[tuple[str, str]]:
    return [(link.frame.hop, link.code) for link in error.links() if link.frame is not None]


async def test_create_fails(cell: Cell, garden: FakeGarden) -> None:
    garden.failures["create"] = from_runc(RuntimeFailed, "create")
    error = await refused(cell)
    assert hops(error) == [("rep", "rep.work_failed"), ("garden", "garden.failed"), ("runc", "runtime.failed")]
    assert error.outcome is Outcome.ROLLED_BACK
    assert garden.containers() == []


async def test_start_fails(cell: Cell, garden: FakeGarden) -> None:
    garden.failures["run"] = from_runc(ExecNotFound, "start")
    error = await refused(cell)
    assert hops(error) == [
        ("rep", "rep.work_failed"),
        ("executor", "executor.start_failed"),
        ("garden", "garden.failed"),
        ("runc", "runtime.exec_not_found"),
    ]
    assert error.root.evidence == {"stderr": "no such file"}
    assert garden.containers() == []


async def test_process_exits(cell: Cell, garden: FakeGarden) -> None:
    error = await refused(cell, script="echo oops; exit 3")
    assert hops(error) == [("rep", "rep.work_failed"), ("executor", "app.exited")]
    assert error.root.message == "exited with status 3"
    assert error.root.evidence is not None
    assert error.root.evidence["app_log_tail"] == ["oops"]


async def test_never_healthy(cell: Cell, garden: FakeGarden) -> None:
    checks = (Check(tcp=TCPCheck(port=1)),)
    error = await refused(cell, script="echo up; sleep 9", checks=checks, start_timeout_ms=150)
    assert hops(error) == [("rep", "rep.work_failed"), ("executor", "app.never_healthy")]
    root = error.root
    assert isinstance(root, NeverHealthy)
    assert root.evidence is not None
    check = root.evidence["check"]
    assert check["attempts"] >= 2
    assert {key: check[key] for key in ("kind", "target", "answer", "elapsed_ms")} == {
        "kind": "tcp",
        "target": "127.0.0.1:1",
        "answer": "connect: Connection refused",
        "elapsed_ms": 150,
    }
    assert root.evidence["app_log_tail"] == ["up"]
    assert garden.containers() == []


async def test_claim_refused(cell: Cell, bbs: FakeBBS, garden: FakeGarden) -> None:
    bbs.refusal = ClaimRefused("the row is another's")
    error = await refused(cell)
    assert hops(error) == [("rep", "rep.work_failed"), ("bbs", "rep.claim_refused")]
    assert error.find(ClaimRefused) is not None
    assert "run" not in garden.ops()


async def test_undo_fails(cell: Cell, garden: FakeGarden) -> None:
    garden.failures["destroy"] = DestroyFailed("unmount the root")
    error = await refused(cell, script="exit 3")
    assert hops(error) == [("rep", "rep.work_failed"), ("executor", "app.exited")]
    assert error.outcome is Outcome.PARTIAL
    assert error.root.evidence is not None
    assert error.root.evidence["left"][0]["handle"] == "i-1"
    del garden.failures["destroy"]


async def test_no_room_is_a_409_of_the_cell(cell: Cell) -> None:
    error = await refused(cell, memory_mb=4096)
    assert hops(error) == [("rep", "rep.insufficient_resources")]
    assert isinstance(error, InsufficientResources)
    assert error.outcome is Outcome.NOT_STARTED
    assert error.problem["status"] == 409
    assert error.problem["placement"]["have"] == {"memory_mb": 1024, "disk_mb": 1024, "containers": 4}


async def test_success_tells_the_timing(cell: Cell) -> None:
    async with client_of() as client:
        with call().hop("bbs", "bbs-1", "test", DiegoError) as outer:
            await client.run(outer, CELL_ID, url_of(cell), work(), 1)
        assert outer.here is not None
        names = [hop.name for hop in outer.here.critical_path()]
        assert names[:2] == ["bbs", "rep"]
        assert names[-2:] == ["executor", "garden"]
        stopped = await client.stop(call(), CELL_ID, url_of(cell), "i-1")  # type: ignore[arg-type]
        assert stopped.existed


async def test_state_drain_and_containers(cell: Cell, garden: FakeGarden) -> None:
    async with aiohttp.ClientSession(url_of(cell)) as http:
        state = wire.decode(CellReport, await (await http.get("/v1/state")).read())
        assert state.presence.url == url_of(cell)
        assert state.presence.rootfs_provider_list[0].properties == ("base",)
        assert not state.presence.draining
        drained = await http.post("/v1/drain", json={"draining": True})
        assert await drained.json() == {"draining": True, "instances": 0, "tasks": 0}
        assert isinstance(await refused(cell), DiegoError)
        await http.post("/v1/drain", json={"draining": False})
        async with client_of() as client:
            await client.run(call(), CELL_ID, url_of(cell), work(), 1)
        listed = await (await http.get("/v1/containers")).json()
        assert [(item["handle"], item["state"]) for item in listed["items"]] == [("i-1", "running")]
        assert listed["items"][0]["usage"]["memory_limit_bytes"] == 128 << 20
        assert (await http.get("/readyz")).status == 200
        told = await (await http.get("/readyz?verbose")).json()
        assert told["about"]["disk_limits"] == garden.disk_limits()


async def test_logs_also_after_destroy(cell: Cell, garden: FakeGarden) -> None:
    async with client_of() as client, aiohttp.ClientSession(url_of(cell)) as http:
        await client.run(call(), CELL_ID, url_of(cell), work(script="echo one; echo two; sleep 9"), 1)
        following = await http.get("/v1/instances/i-1/logs?tail=1&follow=true")
        assert following.content_type == "application/x-ndjson"
        assert wire.parse(await following.content.readline())["text"] == "two"
        garden.write("i-1", "three")
        assert wire.parse(await following.content.readline())["text"] == "three"
        await client.stop(call(), CELL_ID, url_of(cell), "i-1")  # type: ignore[arg-type]
        assert await following.content.readline() == b""
        later = await http.get("/v1/instances/i-1/logs?tail=2")
        assert [wire.parse(line)["text"] for line in (await later.read()).splitlines()] == ["two", "three"]
        for path, status in (("never/logs", 404), ("i-1/logs?tail=x", 400), ("i-1/logs?follow=1", 400)):
            answered = await http.get(f"/v1/instances/{path}")
            assert answered.status == status
            assert (await answered.json())["chain"][0]["hop"] == "rep"


async def test_a_log_is_followed_as_long_as_somebody_reads(
    cell: Cell, garden: FakeGarden, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = asyncio.Event()

    async def silent(garden: FakeGarden, handle: str, tail: int, follow: bool) -> AsyncIterator[LogLine]:
        try:
            yield LogLine(datetime.now(UTC), "stdout", "last words for now")
            await asyncio.Event().wait()
        finally:
            left.set()

    monkeypatch.setattr(FakeGarden, "logs", silent)
    async with aiohttp.ClientSession(url_of(cell)) as http:
        following = await http.get("/v1/instances/i-1/logs?follow=true")
        assert wire.parse(await following.content.readline())["text"] == "last words for now"
        following.close()
        async with asyncio.timeout(patient(30)):
            await left.wait()


async def test_secrets_stay_inside(cell: Cell, garden: FakeGarden, log: StringIO, tmp_path: Path) -> None:
    error = await refused(cell, script="exit 3")
    assert "canary" not in str(error.problem)
    async with client_of() as client, aiohttp.ClientSession(url_of(cell)) as http:
        await client.run(call(), CELL_ID, url_of(cell), work("i-2"), 1)
        assert "canary" not in await (await http.get("/v1/containers")).text()
        assert "canary" not in await (await http.get("/v1/state")).text()
    assert "canary" not in log.getvalue()
    assert [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("rep")] == [0o700]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]

