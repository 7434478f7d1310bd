"""One installation for each test, and a look at the host after it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cells.garden import children
from tests.chain.installation import Installation
from tests.fakes.cell_fixtures import bbs as bbs
from tests.fakes.cell_fixtures import cell as cell
from tests.fakes.cell_fixtures import garden as garden
from tests.fakes.cell_fixtures import log as log
from tests.kernel.containers import make_busybox


@pytest.fixture(scope="session")
def image_root() -> Iterator[Path]:
    """`busybox`, a whole small image, and `unmountable`, whose file system takes no shifted ids."""
    if os.geteuid() != 0:
        pytest.skip("makes real containers: needs root")
    children.become_subreaper()
    root = Path(tempfile.mkdtemp(prefix="diego-images-", dir="/tmp"))
    root.chmod(0o711)
    make_busybox(root / "busybox")
    (root / "unmountable").symlink_to("/proc")
    yield root
    shutil.rmtree(root)


@pytest.fixture
async def installation(
    image_root: Path, open_directory: Path, database_dsn: str
) -> AsyncIterator[Installation]:
    """A BBS without cells. In the end nothing of any container is left, and no process met a defect."""
    async with Installation(open_directory, image_root, database_dsn) as made:
        await made.start_bbs()
        yield made
        await in_order(made)


async def in_order(installation: Installation) -> None:
    """Delete what is desired; then nothing is left on the host, and no process has met a defect."""
    for lrp in (await installation.request("GET", "/v1/desired_lrps")).json["items"]:
        deleted = await installation.delete(lrp["definition"]["process_guid"])
        assert deleted.status == 200, deleted.body
    for task in (await installation.request("GET", "/v1/tasks")).json["items"]:
        if task["state"] in ("PENDING", "RUNNING"):
            cancelled = await installation.request("POST", f"/v1/tasks/{task['task_guid']}/cancel", {})
            assert cancelled.status in (200, 409), cancelled.body  # it may have ended in between
    assert installation.left() == []
    assert installation.defects() == []
    assert not installation.process.failed


@pytest.fixture
async def one_cell(installation: Installation) -> Installation:
    await installation.start_cell(1)
    return installation


@pytest.fixture
async def two_cells(installation: Installation) -> Installation:
    await installation.start_cell(1)
    await installation.start_cell(2)
    return installation
