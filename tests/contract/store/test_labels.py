"""What is told of instances besides their state, as it is stored."""

from __future__ import annotations

from bbs.labels import Labels, labels_of
from bbs.store.attempts import Start
from bbs.store.labels import encoded
from bbs.store.told_instances import Wanted
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.desired_lrp import DesiredLRPUpdate
from diego_py.models.workload import DynamicMetricTag, MetricTagValue
from tests.contract.store.conftest import NET_INFO, Scene, definition

TAGS = {"source_id": MetricTagValue(static="app"), "index": MetricTagValue(dynamic=DynamicMetricTag.INDEX)}
ROUTES = {"internal-router": [{"hostname": "a.apps.internal"}], "cf-router": []}
TOLD = Labels(internal_routes=[{"hostname": "told"}], metric_tags={"b": MetricTagValue(static="told")})


async def told(scene: Scene) -> list[bytes | None]:
    found = await scene.store.read(scene.call, "labels", lambda tx: tx.told_instances.list_page(Wanted()))
    return [row.labels for row in found]


async def rows(scene: Scene) -> list[ActualLRP]:
    return list(await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_of("app")))


async def running(scene: Scene) -> ActualLRP:
    (row,) = await rows(scene)
    assert row.instance_guid is not None
    return await scene.lifecycle.start(scene.call, Start("app", 0, row.instance_guid, "cell-1", NET_INFO))


async def test_an_lrp_says_it_of_its_instances_as_it_is_now(scene: Scene) -> None:
    wanted = definition(metric_tags=TAGS, routes=ROUTES)
    await scene.lifecycle.desire(scene.call, wanted)
    before = await running(scene)
    assert await told(scene) == [encoded(labels_of(wanted))]
    await scene.lifecycle.update(scene.call, "app", DesiredLRPUpdate(annotation="x", routes={**ROUTES, "tcp": [1]}))
    assert await rows(scene) == [before], "nothing that is told with instances changed"
    for change in (DesiredLRPUpdate(metric_tags={}), DesiredLRPUpdate(routes={})):
        tag = (await rows(scene))[0].modification_tag
        updated = await scene.lifecycle.update(scene.call, "app", change)
        assert await told(scene) == [encoded(labels_of(updated.desired.definition))]
        assert (await rows(scene))[0].modification_tag == tag.next()
    await scene.lifecycle.undesire(scene.call, "app")
    assert await told(scene) == [encoded(Labels())], "as it was last"


async def test_what_a_rep_told_is_kept_as_long_as_the_row_names_the_instance(scene: Scene) -> None:
    await scene.lifecycle.desire(scene.call, definition())
    row = await running(scene)
    assert row.instance_guid is not None
    guid = row.instance_guid
    for _ in range(2):
        await scene.store.run(scene.call, "tell", lambda tx: tx.labels.tell(guid, TOLD))
        assert await told(scene) == [encoded(TOLD)]
        assert [each.modification_tag for each in await rows(scene)] == [row.modification_tag.next()]
    await scene.store.run(scene.call, "tell", lambda tx: tx.labels.tell("nobody", TOLD))
    await running(scene)
    assert await told(scene) == [encoded(TOLD)]
    await scene.lifecycle.restart(scene.call, "app", 0, 0)
    (row,) = (await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_all()))
    assert row.instance_guid is not None
    await scene.lifecycle.start(scene.call, Start("app", 0, row.instance_guid, "cell-1", NET_INFO))
    assert await told(scene) == [encoded(Labels())]
