"""Files with content: in memory, the user's, readable, and more of them than a page."""

from __future__ import annotations

import pytest

from cells.executor.plan import HealthPlan, Workload
from cells.executor.steps.mounted_files import File, MountedFiles
from cells.garden.garden import Garden
from cells.garden.spec import ProcessSpec, TmpfsMount
from diego_py.errors import DiegoError, FilesNoSpace
from diego_py.secret import Secret
from tests.kernel.containers import SOON_S, call
from tests.kernel.test_programs import executor, idle

pytestmark = pytest.mark.kernel

BINDINGS = "/etc/cf-service-bindings"


async def test_files_of_a_definition(garden: Garden) -> None:
    container = await garden.create(call(), idle(mounts=(TmpfsMount(BINDINGS, 1 << 20),)))
    site = executor(garden).programs.site(container, _workload())
    files = (File("db/user/name", Secret("somebody")), File("large", Secret("é" * 100_000)))
    await MountedFiles(BINDINGS, files, "vcap").perform(call(), site)
    script = f"cd {BINDINGS}; cat db/user/name; echo; wc -c < large; stat -c '%a %U' db/user/name; df -P . | tail -n 1"
    told = await garden.exec(call(), "a", ProcessSpec("/bin/sh", ("-c", script), user="vcap"), SOON_S)
    name, size, mode, mounted = told.output.splitlines()
    assert (name, size, mode) == ("somebody", "200000", "444 vcap")
    assert mounted.split()[0] == "tmpfs"


async def test_no_more_than_there_is_memory_for(garden: Garden) -> None:
    container = await garden.create(call(), idle(mounts=(TmpfsMount(BINDINGS, 64 * 1024),)))
    site = executor(garden).programs.site(container, _workload())
    with pytest.raises(DiegoError) as caught:
        await MountedFiles(BINDINGS, (File("a", Secret("canary" * 100_000)),), "vcap").perform(call(), site)
    assert isinstance(caught.value.root, FilesNoSpace)
    assert "canary" not in str(caught.value.root.evidence)


def _workload() -> Workload:
    return Workload(health=HealthPlan(start_timeout_s=1.0))
