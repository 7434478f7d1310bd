"""What a twin makes of stored JSON is, byte for byte, what the model's own encoder writes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbs.store.twins import ENCODER, decoder_of
from diego_py import wire
from diego_py.models.actual_lrp import NetInfo
from diego_py.models.desired_lrp import DesiredLRP, DesiredLRPDefinition
from diego_py.models.task import TaskDefinition
from tests import strategies

CANARY = "canary-4711"
NOUNS = st.one_of(
    strategies.desired_lrp_definitions(),
    strategies.task_definitions(),
    strategies.net_infos,
    strategies.desired_lrps,
    strategies.tasks,
    strategies.actual_lrps(),
    strategies.cell_presences,
)


@given(NOUNS)
@settings(max_examples=100, deadline=None)
def test_it_tells_what_the_model_tells(noun: Any) -> None:
    read = decoder_of(type(noun)).decode(wire.encode_revealed(noun))
    assert ENCODER.encode(read) == wire.encode(noun)


@given(strategies.desired_lrp_definitions(), st.data())
@settings(max_examples=30, deadline=None)
def test_what_an_older_release_has_not_stored_has_its_default(whole: DesiredLRPDefinition, data: st.DataObject) -> None:
    stored = msgspec.json.decode(wire.encode_revealed(whole))
    optional = [field.name for field in attrs.fields(DesiredLRPDefinition) if field.default is not attrs.NOTHING]
    for name in data.draw(st.sets(st.sampled_from(optional))):
        del stored[name]
    body = msgspec.json.encode(stored)
    assert ENCODER.encode(decoder_of(DesiredLRPDefinition).decode(body)) == wire.encode(
        wire.decode(DesiredLRPDefinition, body)
    )


def test_a_secret_is_not_even_kept() -> None:
    stored = wire.encode_revealed(
        {"process_guid": "a", "domain": "d", "rootfs": "preloaded:x", "action": {}, "image_password": CANARY}
    )
    read = decoder_of(DesiredLRPDefinition).decode(stored)
    assert CANARY not in repr(read)
    assert CANARY not in read.image_password.reveal()


@pytest.mark.parametrize("noun", [DesiredLRP, TaskDefinition, NetInfo])
def test_what_is_no_such_noun_is_a_defect(noun: type[Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        decoder_of(noun).decode(b'{"definition": 7, "action": 7, "address": 7}')


def test_nothing_else_becomes_json() -> None:
    with pytest.raises(TypeError):
        ENCODER.encode({"a": datetime})
