"""Rows of cells that cannot be asked, removed together; what the cells may have is remembered."""

from attrs import evolve

from bbs.store.gone import Gone, abandon
from bbs.store.transaction import Transaction
from diego_py.errors import DiegoError, NotLeader
from diego_py.models.identifiers import InstanceGuid
from tests.contract.store.conftest import Scene
from tests.contract.store.test_asides import leads


async def test_those_that_are_there_go_and_are_remembered(scene: Scene) -> None:
    one, two, three = [await scene.running(guid) for guid in ("one", "two", "three")]
    epoch = await leads(scene)
    other = evolve(two, instance_guid=InstanceGuid("another"))

    async def work(tx: Transaction) -> list[bool | DiegoError]:
        return await abandon(tx, [Gone(three, epoch + 1), Gone(one, epoch), Gone(other)])

    told = await scene.store.run(scene.call, "abandon", work)
    assert isinstance(told[0], NotLeader)
    assert told[1:] == [True, False]
    rows = await scene.store.read(scene.call, "list", lambda tx: tx.actual_lrps.list_all())
    assert [row.process_guid for row in rows] == ["three", "two"]
    assert await scene.abandoned("one") == [one.instance_guid]
    assert await scene.abandoned("two") == ["another"]
    assert await scene.abandoned("three") == []
