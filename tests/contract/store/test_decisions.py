"""What a leader decided is there for everybody, until it, or one after it, decides anew."""

from bbs.store.decisions import LastRound
from tests.contract.store.conftest import Scene


async def tell(scene: Scene, epoch: int, document: bytes | None) -> None:
    await scene.store.run(scene.call, "tell", lambda tx: tx.decisions.tell(epoch, f"bbs-{epoch}", document))


async def last(scene: Scene) -> LastRound | None:
    return await scene.store.read(scene.call, "last", lambda tx: tx.decisions.last())


async def test_nobody_decided_yet(scene: Scene) -> None:
    assert await last(scene) is None


async def test_the_same_again_is_only_later(scene: Scene) -> None:
    await tell(scene, 1, b'{"valve":"1"}')
    first = await last(scene)
    assert first is not None
    assert (first.epoch, first.owner, first.document) == (1, "bbs-1", b'{"valve":"1"}')
    await tell(scene, 1, None)
    second = await last(scene)
    assert second is not None
    assert second.document == first.document
    assert second.decided_at > first.decided_at


async def test_who_led_before_is_not_heard_any_more(scene: Scene) -> None:
    await tell(scene, 2, b"{}")
    await tell(scene, 1, b'{"valve":"of yesterday"}')
    told = await last(scene)
    assert told is not None
    assert (told.epoch, told.document) == (2, b"{}")
