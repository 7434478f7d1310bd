"""What it means when the cell's own disk refuses a file on its way."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diego_py.errors import NoSpace, TransfersBroken


@contextlib.contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """Around work with files of this directory. Raises NoSpace, TransfersBroken."""
    try:
        yield
    except OSError as refused:
        what = "keep a file on the disk of the cell"
        evidence: dict[str, Any] = {"errno": errno.errorcode.get(refused.errno or 0, "?")}
        if refused.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise TransfersBroken(what, evidence=evidence) from refused
        with contextlib.suppress(OSError):
            evidence["free_bytes"] = shutil.disk_usage(directory).free
        raise NoSpace(what, evidence=evidence) from refused
