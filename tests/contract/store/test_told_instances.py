"""Instances with all that is told of them: pages, filters, labels and documents; and that a version is of all of it."""

from __future__ import annotations

from typing import Any

from bbs.labels import Labels, labels_of
from bbs.store import labels
from bbs.store.told_instances import Mark, ToldInstance, Wanted
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.desired_lrp import DesiredLRPUpdate
from diego_py.models.workload import MetricTagValue
from tests.contract.store.conftest import Scene, definition, problem
from tests.simulation.memory_store.told_instances import told

TAGS = {"source_id": MetricTagValue(static="app")}
OF_REP = Labels(internal_routes=[{"hostname": "told"}], metric_tags={"b": MetricTagValue(static="told")})


async def marks(scene: Scene, limit: int | None = None, **wanted: Any) -> list[Mark]:
    return await scene.store.read(scene.call, "list", lambda tx: tx.told_instances.list_marks(Wanted(**wanted), limit))


async def page(scene: Scene, limit: int | None = None, **wanted: Any) -> list[ToldInstance]:
    """With the same marks, as they are asked for alone."""
    rows = await scene.store.read(scene.call, "list", lambda tx: tx.told_instances.list_page(Wanted(**wanted), limit))
    assert [row.mark for row in rows] == await marks(scene, limit, **wanted)
    return rows


async def only(scene: Scene) -> ToldInstance:
    (row,) = await page(scene)
    return row


def same(row: ToldInstance, lrp: ActualLRP | None, *besides: Any) -> bool:
    """Whether the row is this instance, with these labels, tags and document."""
    assert lrp is not None
    expected = told(lrp, *besides)
    return row[1:] == expected[1:] and row.mark[:2] == expected.mark[:2]


async def test_pages_are_whole_and_in_order(scene: Scene) -> None:
    for guid in ("b", "A", "a", "a-1"):
        await scene.unclaimed(guid, instances=3)
    whole = await page(scene)
    places = [(g, i, "ORDINARY") for g in ("A", "a", "a-1", "b") for i in range(3)]
    assert [row.mark.place for row in whole] == places
    paged: list[ToldInstance] = []
    while some := await page(scene, 5, after=paged[-1].mark.place if paged else None):
        paged += some
    assert paged == whole
    assert await page(scene, after=places[1], until=places[4]) == whole[2:5]
    assert await page(scene, until=places[4], process_guids=["a", "b"]) == whole[3:5]


async def test_filters(scene: Scene) -> None:
    running = await scene.running("runs")
    await scene.unclaimed("waits")
    of_cell = {"cell_id": "cell-1"}
    for wanted in ({"process_guids": ["runs", "none"]}, of_cell, {**of_cell, "domain": "tests"}):
        (row,) = await page(scene, **wanted)
        assert same(row, running, labels_of(definition("runs")))
    assert await page(scene, cell_id="cell-1", domain="other") == []
    assert await page(scene, process_guids=[]) == []
    assert len(await page(scene, domain="tests")) == 2


async def test_an_instance_in_each_state(scene: Scene) -> None:
    """With what it is told with: labels while it runs, and a document and tags if it failed."""
    await scene.cell()
    wanted = definition(metric_tags=TAGS, placement_tags=("a", "b"))
    (row,) = (await scene.lifecycle.desire(scene.call, wanted)).actuals
    assert same(await only(scene), row)
    failed = await scene.lifecycle.fail(scene.call, row, problem(scene.call, "f1"))
    document = await scene.store.read(scene.call, "get", lambda tx: tx.failures.get_document("f1"))
    assert same(await only(scene), failed, None, ["a", "b"], document)
    assert failed is not None
    row = await scene.claim(await scene.lifecycle.offer(scene.call, failed))
    assert same(await only(scene), row)
    row = await scene.start(row)
    assert same(await only(scene), row, labels_of(wanted))
    crashed = await scene.crash(row, "f2")
    document = await scene.store.read(scene.call, "get", lambda tx: tx.failures.get_document("f2"))
    assert same(await only(scene), crashed, None, None, document)


async def test_labels_are_those_of_the_lrp_as_it_is_now_and_as_it_was_last(scene: Scene) -> None:
    await scene.cell()
    (row,) = (await scene.lifecycle.desire(scene.call, definition(metric_tags=TAGS))).actuals
    await scene.start(await scene.claim(row))
    assert (await only(scene)).labels == labels.encoded(Labels(metric_tags=TAGS))
    before = (await only(scene)).mark
    await scene.lifecycle.update(scene.call, "app", DesiredLRPUpdate(routes={"internal-router": [{"hostname": "a"}]}))
    changed = Labels(internal_routes=[{"hostname": "a"}], metric_tags=TAGS)
    assert (await only(scene)).labels == labels.encoded(changed)
    assert (await only(scene)).mark.version != before.version
    await scene.lifecycle.undesire(scene.call, "app")
    assert (await only(scene)).labels == labels.encoded(changed), "until its container is gone"


async def test_what_a_rep_told_counts_also_once_the_lrp_is_removed(scene: Scene) -> None:
    running = await scene.running()
    guid = str(running.instance_guid)
    await scene.store.run(scene.call, "tell", lambda tx: tx.labels.tell(guid, OF_REP))
    assert (await only(scene)).labels == labels.encoded(OF_REP)
    await scene.lifecycle.undesire(scene.call, "app")
    assert (await only(scene)).labels == labels.encoded(OF_REP)


async def test_a_version_is_of_all_that_is_told(scene: Scene) -> None:
    """Also of what comes from other tables; and of nothing else."""
    row = await scene.running()
    versions = [(await only(scene)).mark.version]
    assert versions == [(await only(scene)).mark.version]
    await scene.lifecycle.update(scene.call, "app", DesiredLRPUpdate(annotation="not told with instances"))
    assert versions == [(await only(scene)).mark.version]
    await scene.lifecycle.update(scene.call, "app", DesiredLRPUpdate(metric_tags=TAGS))
    versions.append((await only(scene)).mark.version)
    await scene.store.run(scene.call, "tell", lambda tx: tx.labels.tell(str(row.instance_guid), OF_REP))
    versions.append((await only(scene)).mark.version)
    await scene.crash(row, "f1")
    versions.append((await only(scene)).mark.version)
    assert len(set(versions)) == 4
