"""create, run, wait, stop, destroy, and what each leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from cells.garden.garden import Garden
from cells.garden.spec import Limits, ProcessSpec
from diego_py.errors import ContainerNotFound, GardenFailed, HandleTaken, IllegalTransition
from tests.kernel.containers import (
    SOON_S,
    call,
    cgroups_of,
    every_runtime,
    move_below,
    output,
    shell,
    spec,
    start,
    until_printed,
)
from tests.kernel.slot import NETWORK_PREFIX
from tests.slowness import patient

pytestmark = pytest.mark.kernel

GRACE_S = patient(40)
TRAPS = "trap 'echo got TERM; exit 7' TERM; echo ready; while :; do sleep 0.05; done"


@every_runtime
async def test_exit_status_and_log(garden: Garden) -> None:
    wanted = shell("a", "echo out; echo err >&2; exit 3", properties={"owner": "me"})
    container = await garden.create(call(), wanted)
    assert (container.state, container.properties) == ("created", {"owner": "me"})
    await garden.run(call(), "a")
    ended = await garden.wait("a")
    assert (ended.status, ended.signal, ended.oom_killed) == (3, None, False)
    assert sorted(ended.log_tail) == ["err", "out"]
    assert ended.cgroup["pids_limit"] == 1024
    assert [c.state for c in garden.containers()] == ["exited"]
    assert await garden.wait("a") == ended
    await garden.destroy(call(), "a")
    assert garden.containers() == []
    lines = [line async for line in garden.logs("a")]
    assert {(line.stream, line.text) for line in lines} == {("stdout", "out"), ("stderr", "err")}


@every_runtime
async def test_the_user_process_begins_with_run(garden: Garden) -> None:
    await garden.create(call(), shell("a", "echo begun"))
    assert [line async for line in garden.logs("a")] == []
    await garden.run(call(), "a")
    await until_printed(garden, "a", "begun")


async def test_run_twice_is_refused(garden: Garden) -> None:
    await start(garden, spec("a", "/bin/sleep", "600"))
    with pytest.raises(IllegalTransition):
        await garden.run(call(), "a")


async def test_handle_is_unique(garden: Garden) -> None:
    await garden.create(call(), spec("a", "/bin/sleep", "600"))
    with pytest.raises(HandleTaken):
        await garden.create(call(), spec("a", "/bin/sleep", "600"))
    assert len(garden.containers()) == 1


async def test_many_waiters(garden: Garden) -> None:
    await start(garden, spec("a", "/bin/sleep", "0.1"))
    exits = await asyncio.gather(*(garden.wait("a") for _ in range(10)))
    assert {ended.status for ended in exits} == {0}


@every_runtime
async def test_stop_of_one_that_catches_term_waits_for_it(garden: Garden) -> None:
    await start(garden, shell("a", TRAPS))
    await until_printed(garden, "a", "ready")
    ended = await garden.stop(call(), "a", grace_s=SOON_S)
    assert ended.status == 7
    assert "got TERM" in ended.log_tail


async def test_stop_of_one_that_ignores_term_kills_after_grace(garden: Garden) -> None:
    await start(garden, shell("a", "trap '' TERM; echo ready; while :; do sleep 1; done"))
    await until_printed(garden, "a", "ready")
    began_s = time.monotonic()
    ended = await garden.stop(call(), "a", grace_s=0.3)
    assert (ended.signal, ended.oom_killed) == (signal.SIGKILL, False)
    assert 0.3 <= time.monotonic() - began_s < SOON_S


@every_runtime
async def test_stop_of_one_with_the_default_answer_does_not_wait(garden: Garden) -> None:
    await start(garden, spec("a", "/bin/sleep", "600"))
    began_s = time.monotonic()
    await garden.stop(call(), "a", grace_s=GRACE_S)
    assert time.monotonic() - began_s < GRACE_S


@every_runtime
async def test_stop_before_run_and_after_the_end(garden: Garden) -> None:
    await garden.create(call(), shell("a", "exit 4"))
    assert (await garden.stop(call(), "a", grace_s=1)).signal == signal.SIGKILL
    await start(garden, shell("b", "exit 4"))
    await garden.wait("b")
    assert (await garden.stop(call(), "b", grace_s=1)).status == 4


@every_runtime
async def test_destroy_of_a_running_one_tells_its_waiters(garden: Garden) -> None:
    await start(garden, spec("a", "/bin/sh", "-c", "echo here; exec sleep 600"))
    async for _ in garden.logs("a", follow=True):
        break
    waiter = asyncio.gather(garden.wait("a"))
    await garden.destroy(call(), "a")
    (ended,) = await waiter
    assert (ended.signal, ended.log_tail) == (signal.SIGKILL, ("here",))
    with pytest.raises(ContainerNotFound):
        await garden.wait("a")


async def test_destroy_together_and_again(garden: Garden) -> None:
    await start(garden, spec("a", "/bin/sleep", "600"))
    await asyncio.gather(*(garden.destroy(call(), "a") for _ in range(5)))
    await garden.destroy(call(), "a")
    assert garden.containers() == []


async def test_a_cancelled_destroy_is_finished(garden: Garden) -> None:
    """Whoever asked is gone, and a container of which half is left serves nobody."""
    for turns in range(0, 12, 2):
        await start(garden, spec("a", "/bin/sleep", "600"))
        async with asyncio.TaskGroup() as group:
            destroying = group.create_task(garden.destroy(call(), "a"))
            for _ in range(turns):
                await asyncio.sleep(0)
            destroying.cancel()
        # Not begun, or done.
        assert [container.state for container in garden.containers()] == (["running"] if turns == 0 else [])
        await garden.destroy(call(), "a")
        assert garden.containers() == []


async def test_destroy_of_a_frozen_one(garden: Garden) -> None:
    await start(garden, spec("a", "/bin/sleep", "600"))
    words = {"freezer.state": "FROZEN", "cgroup.freeze": "1"}
    files = [Path(place, name) for place in cgroups_of(garden, "a") for name in words]
    frozen = [file.write_text(words[file.name]) for file in files if file.exists()]
    assert frozen
    await garden.destroy(call(), "a")


@every_runtime
async def test_destroy_of_one_that_made_cgroups_below_its_own(garden: Garden) -> None:
    await start(garden, spec("a", "/bin/sleep", "600"))
    for place in cgroups_of(garden, "a"):
        Path(place, "left/over").mkdir(parents=True)
    await garden.destroy(call(), "a")


async def test_processes_in_cgroups_below_its_own_are_its_own(garden: Garden) -> None:
    """As a privileged container may move them."""
    await start(garden, shell("a", TRAPS))
    await until_printed(garden, "a", "ready")
    init = garden._box("a").init.pid
    move_below(garden, "a", init)
    assert init in garden._host.cgroups.processes("a")
    assert garden.activity("a") != "ended"
    assert (await garden.exec(call(), "a", ProcessSpec("/bin/true"), SOON_S)).status == 0
    assert (await garden.stop(call(), "a", grace_s=SOON_S)).status == 7


@every_runtime
async def test_create_destroy_many_at_once(garden: Garden) -> None:
    handles = [f"many-{i}" for i in range(10)]
    await asyncio.gather(*(start(garden, shell(handle, "exit 5")) for handle in handles))
    assert {(await garden.wait(handle)).status for handle in handles} == {5}
    await asyncio.gather(*(garden.destroy(call(), handle) for handle in handles))


async def test_numbers_are_used_again(garden: Garden) -> None:
    for i in range(2 * garden.config.id_slots):
        await garden.create(call(), spec(f"a{i}", "/bin/true", ports=(80,)))
        await garden.destroy(call(), f"a{i}")


@every_runtime
async def test_killed_monitor_does_not_hide_the_end(garden: Garden) -> None:
    await start(garden, spec("a", "/bin/sleep", "600"))
    state = Path(garden.config.state_dir, "containers/a")
    os.kill(int((state / "conmon.pid").read_text()), signal.SIGKILL)
    os.kill(int((state / "init.pid").read_text()), signal.SIGKILL)
    ended = await garden.wait("a")
    assert ended.signal in (None, signal.SIGKILL)


@every_runtime
async def test_cancelled_create_leaves_nothing(garden: Garden) -> None:
    for after_s in (0.0, 0.002, 0.01, 0.02, 0.03, 0.04):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patient(after_s)):
                await garden.create(call(), spec("a", "/bin/sleep", "600", ports=(80,)))
        await garden.destroy(call(), "a")
        assert garden.containers() == []


@every_runtime
async def test_environment_user_and_directory(garden: Garden) -> None:
    script = "id; pwd; echo $HOME $USER $PATH; echo $GIVEN $ADDRESS; hostname"
    wanted = shell(
        "who",
        script,
        user="vcap",
        env=(("GIVEN", "x y"),),
        hostname="h" * 60,
        network_env=lambda network: (("ADDRESS", network.address),),
    )
    lines = await output(garden, wanted)
    assert lines[0] == "uid=1000(vcap) gid=1000(vcap) groups=1000(vcap),2000(extra)"
    assert lines[1:3] == ["/home/vcap", "/home/vcap vcap /usr/local/bin:/usr/bin:/bin"]
    assert lines[3].startswith(f"x y {NETWORK_PREFIX}.0.")
    assert lines[4] == "h" * 49


@every_runtime
async def test_exec(garden: Garden) -> None:
    await start(garden, spec("a", "/bin/sleep", "600"))
    ok = await garden.exec(call(), "a", ProcessSpec("/bin/sh", ("-c", "echo yes; id -u"), user="vcap"), SOON_S)
    assert (ok.status, ok.output, ok.timed_out) == (0, "yes\n1000\n", False)
    bad = await garden.exec(call(), "a", ProcessSpec("/bin/sh", ("-c", "echo no >&2; exit 9")), SOON_S)
    assert (bad.status, bad.output) == (9, "no\n")
    much = await garden.exec(call(), "a", ProcessSpec("/bin/sh", ("-c", "yes | head -c 1000000")), SOON_S)
    assert len(much.output) == 64 * 1024
    with pytest.raises(GardenFailed) as failed:
        await garden.exec(call(), "a", ProcessSpec("/nope"), SOON_S)
    assert failed.value.root.code == "runtime.exec_not_found"


@every_runtime
async def test_exec_has_the_environment_of_the_container(garden: Garden) -> None:
    wanted = spec(
        "a", "/bin/sleep", "600", env=(("GREETING", "hi"),), network_env=lambda network: (("ADDRESS", network.address),)
    )
    container = await garden.create(call(), wanted)
    await garden.run(call(), "a")
    process = ProcessSpec("/bin/sh", ("-c", "echo $GREETING $ADDRESS $OWN $USER"), env=(("OWN", "x"),), user="vcap")
    told = await garden.exec(call(), "a", process, SOON_S)
    assert told.output == f"hi {container.network.address} x vcap\n"


@every_runtime
async def test_exec_that_times_out_is_killed_with_its_children(garden: Garden) -> None:
    await start(garden, spec("a", "/bin/sleep", "600"))
    process = ProcessSpec("/bin/sh", ("-c", "echo begun; sleep 77 & sleep 78"))
    late = await garden.exec(call(), "a", process, patient(0.5))
    assert (late.status, late.output, late.timed_out) == (None, "begun\n", True)
    left = await garden.exec(call(), "a", ProcessSpec("/bin/ps", ("-o", "args")), SOON_S)
    assert "sleep 77" not in left.output
    assert "sleep 78" not in left.output


@every_runtime
async def test_exec_that_times_out_before_it_began_is_killed(garden: Garden) -> None:
    await start(garden, spec("a", "/bin/sleep", "600"))
    for timeout_s in (0.0, 0.005, 0.01, 0.02):
        late = await garden.exec(call(), "a", ProcessSpec("/bin/sleep", ("77",)), timeout_s)
        assert late.timed_out
    left = await garden.exec(call(), "a", ProcessSpec("/bin/ps", ("-o", "args")), SOON_S)
    assert "sleep 77" not in left.output


async def test_log_follows_until_the_end_and_keeps_its_limit(garden: Garden) -> None:
    await start(garden, shell("a", "i=0; while [ $i -lt 50 ]; do echo line $i; i=$((i+1)); done"))
    texts = [line.text async for line in garden.logs("a", follow=True)]
    assert texts == [f"line {i}" for i in range(50)]
    assert [line.text async for line in garden.logs("a", tail=2)] == ["line 48", "line 49"]
    await start(garden, shell("b", "yes 0123456789 | head -c 3000000; echo; echo last"))
    await garden.wait("b")
    assert Path(garden.config.state_dir, "logs/b.log").stat().st_size <= 2 * garden.config.log_bytes_max
    assert [line.text async for line in garden.logs("b", tail=1)] == ["last"]


async def test_logs_of_nobody(garden: Garden) -> None:
    with pytest.raises(ContainerNotFound):
        garden.logs("nobody")


@every_runtime
async def test_two_gardens_do_not_disturb_each_other(new_garden: object) -> None:
    one, two = await new_garden(), await new_garden()  # type: ignore[operator]
    await start(one, spec("same", "/bin/sleep", "600"))
    await start(two, spec("same", "/bin/sleep", "600", limits=Limits(pids=50)))
    await one.destroy(call(), "same")
    assert [c.state for c in two.containers()] == ["running"]
    assert one.containers() == []
