"""`python -m cells.garden.images.unpack_command KIND DIRECTORY < ARCHIVE`: unpack as the cell does; for other programs.

Exits with 0, or with 1 after one line of JSON on standard output: `code` and `detail` of what is wrong.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import cast, get_args

from cells.garden.images.unpack import Kind, UnpackLimits, extract
from diego_py.errors import DiegoError, UnpackFailed

LIMITS = UnpackLimits(bytes_max=64 * 1024**3, entries_max=2_000_000, cpu_s=3600, wall_s=7200.0)


def main(arguments: list[str]) -> int:
    kind, directory = arguments
    if kind not in get_args(Kind):
        raise SystemExit(f"kind {kind!r}: one of {', '.join(get_args(Kind))}")
    try:
        asyncio.run(extract(sys.stdin.fileno(), cast("Kind", kind), Path(directory), LIMITS))
    except DiegoError as refused:
        print(json.dumps({"code": refused.code, "detail": refused.message}))
        return 1
    except OSError as refused:
        print(json.dumps({"code": UnpackFailed.code, "detail": f"{directory}: {refused.strerror}"}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
