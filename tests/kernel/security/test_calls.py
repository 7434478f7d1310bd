"""What the kernel answers to calls: each by name, every number there is, and every family of sockets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kernel.security.probing import Ways, table

pytestmark = pytest.mark.kernel

USERS = ("root", "vcap")
REFUSED = ("EPERM", "ENOSYS")
ALLOWED = {"clone nothing new": "ok", "clone3": "ENOSYS", "32-bit call": "killed", "x32 call": "killed"}
"""clone3 does not exist, so that a libc uses clone, whose flags a filter can see; other doors are fatal."""
SOCKETS = {"unix": "ok", "ipv4": "ok", "netlink": "ok", "ping": "ok"}
OPTIONAL_SOCKETS = {"ipv6"}
"""Allowed; whether it is there is up to the kernel."""
BLOCKED: dict[str, str] = json.loads(Path(__file__).with_name("blocked_calls.json").read_text())


@pytest.mark.parametrize("user", USERS)
async def test_dangerous_calls_are_refused(each_way: Ways, user: str) -> None:
    for lines in (await each_way("probe calls", user)).values():
        answers = table(lines)
        assert len(answers) > 40
        assert {name: answer for name, answer in answers.items() if answer != "EPERM"} == ALLOWED


@pytest.mark.parametrize("user", USERS)
async def test_every_number(each_way: Ways, user: str) -> None:
    """None of the list gets through, nor any number that the list's author could not know of."""
    # With a standard input of its own: some of the calls would change what descriptor 0 leads to.
    for lines in (await each_way(": >/tmp/$$; probe every-number </tmp/$$", user)).values():
        answers = {int(number): answer for number, answer in table(lines).items()}
        assert len(answers) == 512
        through = {name: answers[int(number)] for number, name in BLOCKED.items()}
        assert {name: answer for name, answer in through.items() if answer not in REFUSED} == {}
        newest = max(map(int, BLOCKED))
        assert {answers[number] for number in range(newest + 1, 512)} <= {"ENOSYS", "EPERM"}
        # And the other way: a filter that refuses everything would pass all of the above.
        open_to_all = sum(answer not in REFUSED for answer in answers.values())
        assert open_to_all > 250


@pytest.mark.parametrize("user", USERS)
async def test_only_harmless_families_of_sockets(each_way: Ways, user: str) -> None:
    for lines in (await each_way("probe sockets", user)).values():
        answers = {name: answer for name, answer in table(lines).items() if name not in OPTIONAL_SOCKETS}
        assert {name: answer for name, answer in answers.items() if answer != "EPERM"} == SOCKETS
        assert {"raw", "packet", "vsock", "alg"} < answers.keys()


async def test_keyrings_are_closed(each_way: Ways) -> None:
    script = "probe calls | grep -E '^(keyctl|add_key|request_key) '; cat /proc/keys; echo x >/proc/keys; echo end"
    for lines in (await each_way(script)).values():
        assert lines == ["keyctl EPERM", "add_key EPERM", "request_key EPERM", "end"]


async def test_kernel_log_is_closed(each_way: Ways) -> None:
    for lines in (await each_way("dmesg >/dev/null 2>&1 || echo refused; probe read /proc/kmsg")).values():
        assert lines == ["refused", "/proc/kmsg EACCES"]
