"""A canary in every place that takes a secret: it reaches the process it is for, and nobody else ever sees it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.chain.awaited import process_of
from tests.chain.definitions import checked_by, lrp
from tests.chain.installation import Installation

pytestmark = [pytest.mark.chain, pytest.mark.kernel]

CANARY = "canary-7f3a9c"
SECRETS = {
    "environment_variables": [{"name": "PASSWORD", "value": f"{CANARY}-lrp"}],
    "run_env": [{"name": "TOKEN", "value": f"{CANARY}-action"}],
    "volume_mounted_files": [{"path": "db/password", "content": f"{CANARY}-file"}],
}
IMAGE = {"image_username": "somebody", "image_password": f"{CANARY}-image"}
WAITS = {"ports": [8080], "check_definition": checked_by(tcp={"port": 8080}), "start_timeout_ms": 500}

ENDS = {
    "runs": lrp(script="exec sleep 734523", **SECRETS),
    "exits": lrp(script="exit 3", **SECRETS),
    "never healthy": lrp(script="exec sleep 734523", **SECRETS, **WAITS),
    "exec not found": lrp(run_path="/bin/nope", run_args=[], **SECRETS),
    "no mount": lrp(rootfs="preloaded:unmountable", run_user="0:0", **SECRETS),
    "no fit": lrp(memory_mb=9_999, **SECRETS),
    "bad field": lrp(memory_mb=-1, **SECRETS),
    "no image": lrp(rootfs="docker://127.0.0.1:1/app", **SECRETS, **IMAGE),
    "unsupported": lrp(metrics_guid="m", **SECRETS, **IMAGE),
    "bad image": lrp(image_password=f"{CANARY}-image", **SECRETS),
    "bad secret": lrp(**{**SECRETS, "environment_variables": [{"name": "A=B", "value": CANARY}]}),
    "secret of a wrong type": lrp(image_password=[CANARY], **SECRETS),
}
"""How a request with secrets in it may end."""


def in_processes() -> list[str]:
    """Command lines with the canary in it, ours aside."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                line = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if CANARY in line:
                found.append(line)
    return found


async def watch_processes(until: asyncio.Event) -> list[str]:
    found: list[str] = []
    while not until.is_set():
        found += in_processes()
        await asyncio.sleep(0.01)
    return found


async def everything(installation: Installation) -> str:
    """All that the API tells, and all that was logged."""
    paths = ["/v1/desired_lrps", "/v1/desired_lrps/web", "/v1/actual_lrps", "/v1/actual_lrps/web/0", "/v1/failures"]
    paths += ["/v1/cells", "/metrics", "/readyz?verbose"]
    told = [(await installation.request("GET", path)).body.decode() for path in paths]
    told += [
        (await installation.request("GET", failure["document"]["instance"])).body.decode()
        for failure in await installation.failures()
    ]
    for node in installation.nodes.values():
        for path in ("/v1/state", "/v1/containers"):
            told.append((await installation.request("GET", path, url=node.url)).body.decode())
    return "\n".join([*told, installation.log_text])


@pytest.mark.parametrize("name", ENDS)
async def test_a_secret_is_never_told(one_cell: Installation, name: str) -> None:
    done = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch_processes(done))
        answer = await one_cell.desire(ENDS[name], Idempotency_Key="k")
        again = await one_cell.desire(ENDS[name], Idempotency_Key="k")
        patched = await one_cell.request(
            "PATCH", "/v1/desired_lrps/web", {"image_username": "other", "image_password": f"{CANARY}-new"}
        )
        dry_run = await one_cell.request("POST", "/v1/auctions/dry_run", ENDS[name])
        if name == "runs":
            assert answer.status == 201, answer.body
            pid = await process_of("sleep", "734523")
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode()
            assert f"PASSWORD={CANARY}-lrp" in environment
            assert f"TOKEN={CANARY}-action" in environment
            file = Path(f"/proc/{pid}/root/etc/cf-service-bindings/db/password")
            assert file.read_text() == f"{CANARY}-file"
        else:
            assert answer.status >= 400
        done.set()
    for told in (answer, again, patched, dry_run):
        assert CANARY not in told.body.decode()
        assert CANARY not in str(told.headers)
    assert CANARY not in await everything(one_cell)
    assert watching.result() == []


async def test_a_definition_that_is_read_again(one_cell: Installation) -> None:
    """The names of the variables are told, and that there is something."""
    await one_cell.desire(ENDS["runs"])
    stored = (await one_cell.request("GET", "/v1/desired_lrps/web")).json["definition"]
    (variable,) = stored["environment_variables"]
    assert variable["name"] == "PASSWORD"
    assert CANARY not in str(stored)
