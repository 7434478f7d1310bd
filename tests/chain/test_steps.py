"""Setup, several processes, downloads: what runs, what is told, and what each failure leaves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.chain.awaited import until
from tests.chain.definitions import SLEEP, lrp
from tests.chain.expected import Expected, failed
from tests.chain.installation import Installation
from tests.unit.cells.executor.transfers.file_server import Answer, FileServer, tgz

pytestmark = [pytest.mark.chain, pytest.mark.kernel]

TO_EXECUTOR = ("bbs", "auction", "rep", "executor")


def run(script: str, **more: Any) -> dict[str, Any]:
    return {"run": {"path": "/bin/sh", "args": ["-c", script], "user": "root", **more}}


def download(url: str, **more: Any) -> dict[str, Any]:
    return {"download": {"from": url, "to": "/srv", "user": "root", **more}}


SEVERAL = {"parallel": {"actions": [run(f"echo one; {SLEEP}", log_source="ONE"), run(f"cat /made; {SLEEP}")]}}
MISSING = {"parallel": {"actions": [run("exit 0"), {"run": {"path": "/bin/nope", "user": "root"}}]}}


async def test_setup_several_processes_and_a_sidecar(one_cell: Installation) -> None:
    sidecar = {"action": run(f"echo beside $CF_INSTANCE_INDEX; {SLEEP}", log_source="SIDE"), "memory_mb": 8}
    definition = lrp(action=SEVERAL, setup=run("echo set up > /made"), sidecars=[sidecar], log_source="APP")
    answer = await one_cell.desire(definition)
    assert answer.status == 201, answer.body
    row = await one_cell.row("web")
    assert row["routable"]
    (node,) = one_cell.nodes.values()
    wanted = {("ONE", "one"), ("APP", "set up"), ("SIDE", "beside 0"), ("APP", "Exit status 0")}

    async def told() -> bool:
        logs = await one_cell.request("GET", f"/v1/instances/{row['instance_guid']}/logs", url=node.url)
        return wanted <= {(line.get("source"), line["text"]) for line in map(json.loads, logs.body.splitlines())}

    await until("every process has said what it does", told)
    assert (await one_cell.delete("web")).status == 200
    assert one_cell.left() == []


SETUP_FAILS = lrp("setup", setup=run("echo no >&2; exit 4"))
EXITED = Expected(code="app.exited", hops=TO_EXECUTOR, evidence=("exit_status",), state="CRASHED")
NOT_EXECUTED = Expected(
    code="runtime.exec_not_found", hops=(*TO_EXECUTOR, "garden", "runc"), evidence=("runtime_log",)
)
NOT_ALLOWED = Expected(code="transfer.not_allowed", hops=TO_EXECUTOR)


async def test_what_fails_leaves_nothing_and_only_the_apps_own_end_is_a_crash(one_cell: Installation) -> None:
    document = await failed(one_cell, await one_cell.desire(SETUP_FAILS), EXITED, "setup")
    assert (document["evidence"]["exit_status"], document["evidence"]["app_log_tail"]) == (4, ["no"])
    await failed(one_cell, await one_cell.desire(lrp("missing", action=MISSING)), NOT_EXECUTED, "missing")
    from_here = lrp("from-here", setup=download("http://127.0.0.1:1/a"))
    document = await failed(one_cell, await one_cell.desire(from_here), NOT_ALLOWED, "from-here")
    assert document["evidence"]["address"] == "loopback"


async def test_downloads(installation: Installation) -> None:
    async with FileServer() as server:
        await installation.start_cell(transfer_hosts=(server.host,))
        server.answers["/a"] = Answer(tgz({"index.html": b"downloaded"}))
        mismatch = {"checksum_algorithm": "sha1", "checksum_value": "00"}
        for path, fields, code in (("/none", {}, "not_found"), ("/a", mismatch, "checksum_mismatch")):
            answer = await installation.desire(lrp(code, setup=download(server.url(path), **fields)))
            await failed(installation, answer, Expected(code=f"download.{code}", hops=TO_EXECUTOR), code)
        look = {"path": "/bin/grep", "args": ["downloaded", "/srv/index.html"], "user": "root"}
        check = {"checks": [{"command": look}]}
        action = {"serial": {"actions": [download(server.url("/a")), run(SLEEP)]}}
        answer = await installation.desire(lrp(action=action, check_definition=check))
        assert answer.status == 201, answer.body
        assert (await installation.delete("web")).status == 200
