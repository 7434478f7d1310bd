"""What is told of processes that do not go."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cells.garden import stuck


def test_one_that_nobody_reaps_is_told_with_its_parent() -> None:
    """It keeps its namespace, and so its container, from going, and no signal changes that."""
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        (told,) = stuck.by_processes([child.pid])["waiting"]
        parent = Path("/proc/self/comm").read_text().strip()
        assert (told["pid"], told["state"], told["name"]) == (child.pid, "Z", "true")
        assert told["parent"] == f"{os.getpid()} {parent}"
        child.wait()
        assert stuck.by_processes([child.pid]) == {"waiting": [], "mounts": []}
