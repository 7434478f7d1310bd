"""Whole installations of child processes, each in names of its own, and the host looked over after every test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import pytest

from diego_py.embedded.cluster import Cluster
from tests import orphans
from tests.cluster.site import Site
from tests.kernel.containers import make_busybox
from tests.slowness import patient

QUICK_BBS = {"presence_ttl_s": 30.0, "leader_ttl_s": 3.0, "convergence_interval_s": 0.2}
"""A presence outlasts a restart of its cell, and whatever a busy machine does to it."""
LOSES_CELLS = {**QUICK_BBS, "presence_ttl_s": 3.0}
QUICK_CELL = {"report_interval_s": 0.5, "graceful_stop_s": 2.0, "stop_grace_s": 2.0, "sandboxes_ready": 4}

TIMEOUT_S = 300.0
"""A whole installation takes a minute to begin with, when the machine is busy."""

NewSite: TypeAlias = Callable[..., Awaitable[Site]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("cluster") is not None:
            item.add_marker(pytest.mark.timeout(patient(TIMEOUT_S)))


@pytest.fixture(scope="session")
def image_root() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("makes real containers: needs root")
    root = Path(tempfile.mkdtemp(prefix="diego-images-", dir="/tmp"))
    root.chmod(0o711)
    make_busybox(root / "busybox")
    yield root
    shutil.rmtree(root)


@pytest.fixture
async def new_site(image_root: Path, open_directory: Path) -> AsyncIterator[NewSite]:
    """Starts a cluster with quick settings, unless told otherwise. In the end the host is as it was before."""
    async def make(
        cells: int = 2, bbs: dict[str, Any] | None = None, cell: dict[str, Any] | None = None, **more: Any
    ) -> Site:
        cluster = Cluster(
            open_directory,
            cells=cells,
            image_root=image_root,
            memory_mb=1024,
            bbs_settings=QUICK_BBS if bbs is None else bbs,
            cell_settings={**QUICK_CELL, **(cell or {})},
            durable=False,
            **more,
        )
        site = Site(cluster, session)
        made.push_async_callback(site.end)
        await cluster.start()
        return site

    with orphans.reaped():
        async with aiohttp.ClientSession() as session, AsyncExitStack() as made:
            yield make
    orphans.reap()


@pytest.fixture
async def site(new_site: NewSite) -> Site:
    return await new_site()
