"""What goes from the store, and what never does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cells.garden.images.collection import StoredLayer, chain_ids, plan_gc, with_parents


def layer(chain_id: str, parent: str = "", used_s: float = 0.0, size: int = 10) -> StoredLayer:
    return StoredLayer(chain_id, parent, f"sha256:{chain_id}", size, 1, used_s)


def test_chain_ids_are_those_of_the_image_specification() -> None:
    a, b = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    first, second = chain_ids([a, b])
    assert first == "a" * 64
    # printf 'sha256:aaa… sha256:bbb…' | sha256sum
    assert second == "ccd722928bd92476ba1745586fed6e45a102504185ad88cd89e01ff116fd146c"
    assert chain_ids([b, a])[1] != second
    assert chain_ids([a])[0] == first


def test_the_least_recently_used_goes_first() -> None:
    layers = [layer("old", used_s=1), layer("new", used_s=3), layer("middle", used_s=2)]
    assert [removal.chain_id for removal in plan_gc(layers, set(), 15)] == ["old", "middle"]
    [removal] = plan_gc(layers, set(), 25)
    assert removal.reason == "store has 30 bytes of 25; not in use, last used at 1"


def test_what_is_in_use_stays_with_all_below_it() -> None:
    layers = [layer("base"), layer("middle", "base"), layer("top", "middle"), layer("other", "base")]
    assert [removal.chain_id for removal in plan_gc(layers, {"top"}, 0)] == ["other"]
    assert with_parents({"top"}, layers) == {"top", "middle", "base"}


def test_nothing_goes_while_there_is_room() -> None:
    assert plan_gc([layer("a"), layer("b")], set(), 20) == ()


@st.composite
def stores(draw: st.DrawFn) -> list[StoredLayer]:
    layers: list[StoredLayer] = []
    for number in range(draw(st.integers(0, 12))):
        parent = draw(st.sampled_from(["", *(made.chain_id for made in layers)]))
        layers.append(layer(f"l{number}", parent, draw(st.integers(0, 5)), draw(st.integers(0, 100))))
    return layers


@given(stores(), st.data(), st.integers(0, 500))
def test_no_plan_takes_what_another_stands_on(layers: list[StoredLayer], data: st.DataObject, limit: int) -> None:
    names = [each.chain_id for each in layers]
    used = set(data.draw(st.lists(st.sampled_from(names), max_size=3))) if names else set()
    removed = [removal.chain_id for removal in plan_gc(layers, used, limit)]
    left = [each for each in layers if each.chain_id not in removed]
    assert len(set(removed)) == len(removed)
    assert with_parents(used, layers) <= {each.chain_id for each in left}
    assert all(not each.parent or each.parent in {other.chain_id for other in left} for each in left)
    # Over the limit only with what is in use; and nothing was removed that there was room for.
    kept = with_parents(used, layers)
    assert sum(each.disk_bytes for each in left) <= limit or all(each.chain_id in kept for each in left)
    sizes = {each.chain_id: each.disk_bytes for each in layers}
    before_last = sum(each.disk_bytes for each in left) + (sizes[removed[-1]] if removed else 0)
    assert not removed or before_last > limit
