"""Which capabilities a privileged container can have, and when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from cells.garden import privileges
from cells.garden.bundle import capabilities
from cells.garden.runtimes import RuntimeVersion

SAFE, OLD = RuntimeVersion("runc", (1, 4, 0), "1.4.0"), RuntimeVersion("runc", (1, 1, 5), "1.1.5")


@pytest.mark.parametrize(
    ("mask", "names"),
    [
        ("0000000000000000", ()),
        ("0000000000000021", ("CAP_CHOWN", "CAP_KILL")),
        ("0000010000200000", ("CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE")),
        ("ffffffffffffffff", privileges.NAMES),
    ],
)
def test_names_of_a_mask(tmp_path: Path, mask: str, names: tuple[str, ...]) -> None:
    (tmp_path / "status").write_text(f"Name:\tx\nCapEff:\t0000000000000000\nCapBnd:\t{mask}\n")
    assert privileges.of_this_process(tmp_path / "status") == names


def test_every_name_is_there_once() -> None:
    assert len(set(privileges.NAMES)) == len(privileges.NAMES) == 41
    assert set(capabilities.ROOT) < set(privileges.NAMES)


@pytest.mark.parametrize(
    ("allowed", "version", "reason"),
    [
        (False, SAFE, "not_allowed"),
        (False, OLD, "not_allowed"),
        (True, OLD, "runtime"),
        (True, RuntimeVersion("runsc"), "runtime"),
    ],
)
def test_refused(allowed: bool, version: RuntimeVersion, reason: str) -> None:
    refused = privileges.refusal(allowed, version)
    assert refused is not None
    assert refused.evidence is not None
    assert refused.evidence["reason"] == reason


def test_allowed() -> None:
    assert privileges.refusal(True, SAFE) is None
