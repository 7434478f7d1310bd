"""Who a process is: ids that no other container has, eleven capabilities or none, nothing gained by exec."""

from __future__ import annotations

from pathlib import Path

import pytest

from cells.garden.garden import Garden
from diego_py.errors import DiegoError, UserNotFound
from tests.kernel.containers import SOON_S, call, output, start, until_printed
from tests.kernel.security.probing import Ways, inside, process, status

pytestmark = pytest.mark.kernel

IDS = 65_536
ELEVEN = "00000000800405fb"
NONE = "0" * 16
INTRUDER = "intruder:x:0:0:intruder:/:/bin/sh\n"


async def test_root_is_an_id_of_its_own_on_the_host(garden: Garden, each_way: Ways) -> None:
    for lines in (await each_way("cat /proc/self/uid_map /proc/self/gid_map")).values():
        for first, host, count in (line.split() for line in lines):
            assert (int(first), int(count)) == (0, IDS)
            assert int(host) >= garden.config.id_base >= IDS


async def test_two_containers_share_no_id(garden: Garden, probed: Path) -> None:
    bases = []
    for handle in ("one", "two"):
        await start(garden, inside(handle, "cat /proc/self/uid_map; exec sleep 600"))
        init = Path(garden.config.state_dir, "containers", handle, "init.pid").read_text()
        bases.append(int(Path(f"/proc/{init}/uid_map").read_text().split()[1]))
    assert abs(bases[0] - bases[1]) >= IDS


async def test_inotify_of_one_container_is_no_others_loss(garden: Garden, probed: Path) -> None:
    """The host counts them for each user; the same user of two containers is two users of the host."""
    await start(garden, inside("greedy", "probe watches hold", user="vcap"))
    await until_printed(garden, "greedy", "instances")
    (line,) = await output(garden, inside("modest", "probe watches", user="vcap"))
    assert int(line.split()[1]) > 10


@pytest.mark.parametrize("user", ["root", "vcap"])
async def test_capabilities(each_way: Ways, user: str) -> None:
    held = ELEVEN if user == "root" else NONE
    for lines in (await each_way("cat /proc/self/status", user)).values():
        seen = status(lines)
        assert (seen["CapEff"], seen["CapPrm"], seen["CapBnd"]) == (held, held, ELEVEN)
        assert (seen["CapInh"], seen["CapAmb"]) == (NONE, NONE)


@pytest.mark.parametrize("user", ["root", "vcap"])
async def test_no_new_privileges_and_a_filter(each_way: Ways, user: str) -> None:
    for lines in (await each_way("cat /proc/self/status", user)).values():
        seen = status(lines)
        assert (seen["NoNewPrivs"], seen["Seccomp"], seen["Seccomp_filters"]) == ("1", "2", "1")


async def test_setuid_program_gives_nothing(each_way: Ways) -> None:
    script = "ls -l /bin/probe-as-root | cut -c4; probe-as-root user; grep CapEff /proc/self/status"
    for lines in (await each_way(script, "vcap")).values():
        assert lines[:2] == ["s", "real 1000 effective 1000"]
        assert lines[2].split() == ["CapEff:", NONE]


async def test_users_come_from_the_container_only(garden: Garden, probed: Path, image_root: Path) -> None:
    """An /etc/passwd that leads out of the image, by any kind of symlink, is looked for inside of it."""
    outside = image_root / "passwd-of-the-host"
    outside.write_text(INTRUDER)
    passwd = probed / "etc/passwd"
    kept = passwd.read_text()
    try:
        for target in (str(outside), "../../passwd-of-the-host", f"/proc/1/root{outside}"):
            passwd.unlink()
            passwd.symlink_to(target)
            with pytest.raises(UserNotFound):
                await garden.create(call(), inside("a", "true", user="intruder"))
    finally:
        passwd.unlink()
        passwd.write_text(kept)
    script = f"rm /etc/passwd; ln -s {outside} /etc/passwd; echo swapped; exec sleep 600"
    await start(garden, inside("a", script))
    await until_printed(garden, "a", "swapped")
    with pytest.raises(DiegoError) as refused:
        await garden.exec(call(), "a", process("true", "intruder"), SOON_S)
    assert refused.value.find(UserNotFound) is not None


async def test_root_of_a_container_is_nobody_on_the_host(garden: Garden, probed: Path) -> None:
    """What it makes belongs, on the host, to an id without a name; a file of the host's root is nobody's inside."""
    await start(garden, inside("a", "echo x > /made; stat -c '%u %g' /made; exec sleep 600"))
    await until_printed(garden, "a", "0 0")
    made = (garden._boxes["a"].directory.upper / "made").stat()
    assert made.st_uid == made.st_gid >= garden.config.id_base
    seen = await garden.exec(call(), "a", process("stat -c '%u %g' /dev/null"), SOON_S)
    assert seen.output == "65534 65534\n"
