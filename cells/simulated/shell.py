"""What a simulated process does: `/bin/sh -c SCRIPT` of a few statements, and everything else just runs. Pure.

Understood are `echo TEXT`, `echo TEXT > /FILE`, `exit N`, `kill -N $$`, `sleep N` (which never ends by itself) and
`trap '' TERM`, separated by `;`. A script with anything else runs on from there until it is stopped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from attrs import define, field

FOREVER: Final = None
SHELLS: Final = ("/bin/sh", "sh")


@define
class Script:
    """What a process of the user does: lines it writes, and how it ends (None: not by itself)."""

    lines: list[str] = field(factory=list)
    files: dict[str, bytes] = field(factory=dict)
    status: int | None = FOREVER
    ignores_term: bool = False
    beyond: str = ""
    """The first statement that is not understood."""


def read(path: str, args: Sequence[str]) -> Script:
    """What this command does."""
    if path not in SHELLS or len(args) < 2 or args[0] != "-c":
        return Script(beyond=path)
    script = Script(status=0)
    for part in args[1].split(";"):
        if not _goes_on(script, part.strip()):
            break
    return script


def _goes_on(script: Script, statement: str) -> bool:
    """Carry out one statement; False when none comes after it."""
    if found := re.fullmatch(r"echo (.*) > (/\S+)", statement):
        script.files[found[2]] = f"{found[1]}\n".encode()
    elif statement.startswith("echo "):
        script.lines.append(statement.removeprefix("echo "))
    elif statement == "trap '' TERM":
        script.ignores_term = True
    elif found := re.fullmatch(r"kill -(\d+) \$\$", statement):
        script.status = 128 + int(found[1])
        return False
    elif found := re.fullmatch(r"exit (\d+)", statement):
        script.status = int(found[1])
        return False
    else:
        script.status = FOREVER
        script.beyond = "" if statement.startswith("sleep ") else statement
        return False
    return True
