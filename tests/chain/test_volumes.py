"""Volumes of the driver `local`, from the request to the file on the disk of the cell; and drivers that nobody has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chain.answers import well_formed
from tests.chain.awaited import until_true
from tests.chain.definitions import lrp
from tests.chain.installation import Installation

pytestmark = [pytest.mark.chain, pytest.mark.kernel]


async def test_a_directory_of_the_cell_and_drivers_that_are_missing(installation: Installation, tmp_path: Path) -> None:
    top = tmp_path / "volumes"
    (top / "shop").mkdir(parents=True)
    for directory in (top, *top.parents[:2]):
        directory.chmod(0o755)

    def mounting(guid: str, driver: str, path: str, mode: str = "rw") -> dict[str, object]:
        mount = {"driver": driver, "container_dir": "/data", "mode": mode, "shared": {"volume_id": path}}
        return lrp(guid, script="echo here > /data/file; exec sleep 1000", volume_mounts=[mount])

    await installation.start_cell(1, bind_source_dirs=(str(top),))
    await installation.start_cell(2)
    answer = await installation.desire(mounting("web", "local", str(top / "shop")))
    assert answer.status == 201, answer.body
    assert answer.json["actual_lrps"][0]["cell_id"] == "cell-1", "the other one has no volumes"
    await until_true("the file is on the disk", lambda: (top / "shop" / "file").exists())
    missing = await installation.desire(mounting("nfs", "nfs", "share"))
    assert (missing.status, well_formed(missing)["code"]) == (503, "auction.no_cell_fits")
    assert "lacks the volume drivers nfs" in well_formed(missing)["detail"]
    outside = await installation.desire(mounting("outside", "local", "/etc"))
    assert well_formed(outside)["code"] == "garden.bind_refused"
