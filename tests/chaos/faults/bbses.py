"""Faults of BBSes and of their clients."""

from __future__ import annotations

import asyncio

from tests.chain.answers import Answer, well_formed
from tests.chain.definitions import lrp
from tests.chaos.faults.scene import BUDGET_MS, MARGIN_S, QUICK_S, Scene, cut, fault


@fault("SIGKILL of the leading BBS; it comes back", always=True)
async def leader_killed(scene: Scene) -> None:
    old = await scene.leader()
    await scene.fleet.bbses[old].kill()
    async with scene.within("another one leads", scene.timing.leader_ttl_s + MARGIN_S):
        await scene.leader(but_not=old)
    await scene.fleet.bbses[old].start()
    await scene.fleet.ready(scene.fleet.bbses[old])


@fault("SIGTERM of the leading BBS under load")
async def leader_stopped(scene: Scene) -> None:
    for _ in range(scene.repeats):
        old = await scene.leader()
        async with asyncio.TaskGroup() as group:
            ending = group.create_task(scene.fleet.bbses[old].terminate())
            async with scene.within("another one leads", QUICK_S):
                await scene.leader(but_not=old)
        assert ending.result() == 0
        await scene.fleet.bbses[old].start()
        await scene.fleet.ready(scene.fleet.bbses[old])


@fault("SIGSTOP of the leading BBS until another one leads, then SIGCONT: it must not write as the leader", always=True)
async def leader_frozen(scene: Scene) -> None:
    old = await scene.leader()
    epoch = await scene.fleet.epoch()
    scene.fleet.bbses[old].freeze()
    try:
        async with scene.within("another one leads", scene.timing.leader_ttl_s + MARGIN_S):
            await scene.leader(but_not=old)
    finally:
        scene.fleet.bbses[old].thaw()
    async with scene.within("the old one answers again", MARGIN_S):
        await scene.fleet.ready(scene.fleet.bbses[old])
    assert await scene.fleet.epoch() > epoch


@fault("the leading BBS is frozen and thawed again and again")
async def leader_flaps(scene: Scene) -> None:
    first = await scene.fleet.epoch()
    flaps = 4
    for _ in range(flaps):
        member = scene.fleet.bbses[await scene.leader()]
        member.freeze()
        await asyncio.sleep(scene.timing.leader_ttl_s / 3)
        member.thaw()
        await scene.fleet.ready(member)
    assert await scene.fleet.epoch() - first <= flaps


@fault("the leading BBS is cut off from Postgres only", always=True)
async def bbs_cut_from_postgres(scene: Scene) -> None:
    old = await scene.leader()
    with cut(scene, old, "postgres"):
        async with scene.within("it says so to its clients", 8.0):
            answer = await scene.create("cut-off", old, budget_ms=BUDGET_MS)
        assert answer.status in (503, 504), answer.body
        assert well_formed(answer)["origin"] == "postgres", answer.body
        async with scene.within("another one leads", scene.timing.leader_ttl_s + MARGIN_S):
            await scene.leader(but_not=old)
    await scene.fleet.ready(scene.fleet.bbses[old])
    await scene.delete("cut-off")


@fault("a client sends the same request with one key many times, to every BBS", always=True)
async def one_key_many_times(scene: Scene) -> None:
    body = lrp("same", memory_mb=16)

    async def ask(number: int) -> Answer:
        member = [*scene.fleet.bbses][number % len(scene.fleet.bbses)]
        while True:
            answer = await scene.fleet.request("POST", "/v1/desired_lrps", body, member, Idempotency_Key="same")
            if answer.status != 409:
                return answer
            assert answer.json["code"] == "idempotency_in_flight", answer.body

    answers = await asyncio.gather(*(ask(number) for number in range(12)))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body for answer in answers}) == 1
    await scene.delete("same")


@fault("a client hangs up as soon as it has asked", always=True)
async def client_gone(scene: Scene) -> None:
    await scene.fleet.ask_and_leave("/v1/desired_lrps", lrp("gone", memory_mb=16), await scene.follower())
    async with scene.within("what it asked for runs", MARGIN_S):
        await scene.running("gone", 1, 60)
    await scene.delete("gone")
