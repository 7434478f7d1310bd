"""An LRP from an image: it runs, or the answer has the registry's own words from three hops below."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cells.garden.images.documents import OCI_MANIFEST
from tests.chain.answers import well_formed
from tests.chain.awaited import process_of
from tests.chain.definitions import IMAGE, lrp
from tests.chain.installation import Installation, Node
from tests.fakes.image_files import as_directory, layout
from tests.fakes.registry import build
from tests.kernel.images import busybox, member, tar
from tests.kernel.registry import PASSWORD, USERNAME, RealRegistry, registry

pytestmark = [pytest.mark.chain, pytest.mark.kernel]

ACCOUNT = {"image_username": USERNAME, "image_password": PASSWORD}
SLEEP = "cat /etc/word && exec sleep 634525"


@pytest.fixture
async def private() -> AsyncIterator[RealRegistry]:
    """A registry with one image that only the account may pull."""
    image = build([tar(*busybox()), tar(member("etc/word", b"pulled\n", mode=0o644))], {"Env": ["WHO=the image"]})
    async with registry(account=True) as running:
        await running.push("shop/web:v1", image, OCI_MANIFEST)
        yield running


async def test_it_runs(one_cell: Installation, private: RealRegistry) -> None:
    rootfs = f"docker://{private.host}/shop/web#v1"
    answer = await one_cell.desire(lrp(rootfs=rootfs, script=SLEEP, **ACCOUNT))
    assert answer.status == 201, answer.body
    assert PASSWORD not in answer.body.decode()
    environment = Path(f"/proc/{await process_of('sleep', '634525')}/environ").read_bytes().decode()
    assert "WHO=the image" in environment
    assert PASSWORD not in environment
    (node,) = one_cell.nodes.values()
    instance = answer.json["actual_lrps"][0]["instance_guid"]
    assert [line.text async for line in node.garden.logs(instance)] == ["pulled"]


def bad(registry: RealRegistry) -> dict[str, tuple[dict[str, Any], str, str]]:
    """A change of the definition, the code, and who has to act."""
    rootfs = f"docker://{registry.host}/shop/web:v1"
    return {
        "no such tag": ({"rootfs": f"docker://{registry.host}/shop/web:v2", **ACCOUNT}, "image.not_found", "app"),
        "no account": ({"rootfs": rootfs}, "registry.denied", "app"),
        "wrong password": (
            {"rootfs": rootfs, **ACCOUNT, "image_password": "canary-5e1"},
            "registry.denied",
            "app",
        ),
        "nobody listens": ({"rootfs": "docker://127.0.0.1:1/web"}, "registry.unreachable", "dependency"),
        "inside": ({"rootfs": "docker://10.0.0.1/web"}, "registry.not_allowed", "caller"),
        "no default": ({"rootfs": "docker:///web"}, "image.not_allowed", "caller"),
    }


@pytest.mark.parametrize(
    "name", ["no such tag", "no account", "wrong password", "nobody listens", "inside", "no default"]
)
async def test_it_does_not(one_cell: Installation, private: RealRegistry, name: str) -> None:
    changes, code, fault = bad(private)[name]
    answer = await one_cell.desire(lrp(**changes))
    document = well_formed(answer)
    assert answer.status >= 500
    assert (document["code"], document["fault"], document["outcome"]) == (code, fault, "rolled_back"), document
    assert document["next"]
    if name == "no such tag":
        assert answer.hops == ["bbs", "auction", "rep", "garden", "registry"]
        assert "MANIFEST_UNKNOWN" in document["evidence"]["answer"]["text"]
    told = answer.body.decode() + str(await one_cell.failures()) + one_cell.log_text
    assert "canary-5e1" not in told
    assert PASSWORD not in told


PROCESS = {
    "Env": ["WHO=image", "BOTH=image", "PATH=/bin"],
    "User": "alice",
    "WorkingDir": "/srv/work",
    "Entrypoint": ["/bin/sh", "-c"],
    "Cmd": ["id -u; pwd; echo $WHO $BOTH; exec sleep 634526"],
}


async def cell_with(installation: Installation, directory: Path, process: dict[str, Any]) -> str:
    """Start a cell that has an image with this configuration; its rootfs."""
    image = build([tar(*busybox())], process)
    as_directory(directory / "web", layout((image, "v1")))
    await installation.start_cell(1, image_dirs=(str(directory),))
    return f"oci:{directory}/web:v1"


async def printed(node: Node, instance: str, count: int) -> list[str]:
    """Its first lines, as soon as they are there."""
    lines: list[str] = []
    async for line in node.garden.logs(instance, follow=True):
        lines.append(line.text)
        if len(lines) == count:
            break
    return lines


def silent(rootfs: str, **changes: Any) -> dict[str, Any]:
    """A definition that says nothing of its process."""
    run = changes.pop("run", {})
    return {**lrp(rootfs=rootfs), "action": {"run": run}, **changes}


async def test_the_image_says_what_its_process_is(installation: Installation, open_directory: Path) -> None:
    """Over HTTP: the definition is silent, and it runs as the image's user, there, with that environment."""
    rootfs = await cell_with(installation, open_directory, PROCESS)
    check = {"command": {"path": "/bin/sh", "args": ["-c", "test $(id -u) = 1001"]}}
    variables = [{"name": "BOTH", "value": "definition"}]
    definition = silent(rootfs, environment_variables=variables, check_definition={"checks": [check]})
    answer = await installation.desire(definition)
    assert answer.status == 201, answer.body
    instance = answer.json["actual_lrps"][0]
    assert instance["state"] == "RUNNING"
    (node,) = installation.nodes.values()
    assert await printed(node, instance["instance_guid"], 3) == ["1001", "/srv/work", "image definition"]
    pid = await process_of("sleep", "634526")
    assert Path(f"/proc/{pid}").stat().st_uid % 65_536 == 1001
    assert os.readlink(f"/proc/{pid}/cwd").endswith("/srv/work")
    container = (await installation.request("GET", "/v1/containers", url=node.url)).json["items"][0]
    path, *args = [*PROCESS["Entrypoint"], *PROCESS["Cmd"]]
    expected = {"path": path, "args": args, "cwd": "/srv/work", "user": "alice", "uid": 1001, "gid": 1001}
    assert container["process"] == expected


async def test_what_the_definition_says_counts(installation: Installation, open_directory: Path) -> None:
    """Arguments take the place of the image's command, a path that of its entry point and command; not only where the
    process is the container's own."""
    rootfs = await cell_with(installation, open_directory, PROCESS)
    (node,) = installation.nodes.values()
    stays = "exec sleep 634527"
    beside = {"action": {"run": {"path": "sleep", "args": ["634530"]}}}
    cases = [
        ({"args": [f"id -u; pwd; {stays}"]}, {}, ["1001", "/srv/work"]),
        ({"args": [f"id -u; pwd; {stays}"]}, {"sidecars": [beside]}, ["1001", "/srv/work"]),
        ({"path": "sh", "args": ["-c", f"id -u; pwd; {stays}"], "user": "7:8", "dir": "/tmp"}, {}, ["7", "/tmp"]),
    ]
    for run, more, expected in cases:
        answer = await installation.desire(silent(rootfs, run=run, **more))
        assert answer.status == 201, answer.body
        instance = answer.json["actual_lrps"][0]["instance_guid"]
        assert await printed(node, instance, 2) == expected
        await installation.delete("web")


async def test_nobody_says_what_to_execute(installation: Installation, open_directory: Path) -> None:
    rootfs = await cell_with(installation, open_directory, {"Env": ["PATH=/bin"]})
    answer = await installation.desire(silent(rootfs))
    document = well_formed(answer)
    assert (answer.status, document["code"], document["fault"]) == (500, "image.no_command", "app")
    assert document["outcome"] == "rolled_back"
    await installation.delete("web")
    answer = await installation.desire(silent(rootfs, run={"path": "sleep", "args": ["634528"]}))
    assert answer.status == 201, answer.body
    pid = await process_of("sleep", "634528")
    assert Path(f"/proc/{pid}").stat().st_uid % 65_536 == 0
    assert Path(f"/proc/{pid}").stat().st_uid != 0


async def test_a_directory_of_the_cell_says_nothing(one_cell: Installation) -> None:
    answer = await one_cell.desire(silent(IMAGE))
    document = well_formed(answer)
    assert (answer.status, document["code"]) == (422, "invalid_spec")
    assert [(error["pointer"], error["code"]) for error in document["errors"]] == [
        ("/action/run/path", "required"),
        ("/action/run/user", "required"),
    ]


async def test_a_reference_that_makes_no_sense_is_refused_at_once(one_cell: Installation) -> None:
    answer = await one_cell.desire(lrp(rootfs="docker://somebody:canary-5e1@registry.example/web"))
    document = well_formed(answer)
    assert (answer.status, document["code"]) == (422, "invalid_spec")
    assert [error["pointer"] for error in document["errors"]] == ["/rootfs"]
    assert "canary-5e1" not in answer.body.decode()


async def test_a_cell_without_image_directories_is_not_asked_for_one(one_cell: Installation) -> None:
    answer = await one_cell.desire(lrp(rootfs="oci:/srv/images/web"))
    document = well_formed(answer)
    assert (answer.status, document["code"]) == (503, "auction.no_cell_fits")
    assert document["placement"]["bids"][0]["verdict"] == "rootfs"
