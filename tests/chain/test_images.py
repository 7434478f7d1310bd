"""An LRP from an image: it runs, or the answer has the registry's own words from three hops below."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cells.garden.images.documents import OCI_MANIFEST
from tests.chain.answers import well_formed
from tests.chain.awaited import process_of
from tests.chain.definitions import lrp
from tests.chain.installation import Installation
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
        "no default": ({"rootfs": "docker:///web"}, "image.not_allowed", "caller"),
    }


@pytest.mark.parametrize("name", ["no such tag", "no account", "wrong password", "nobody listens", "no default"])
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
