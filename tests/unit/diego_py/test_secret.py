import copy
import json
import logging
import pickle

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diego_py.models.actions import Action, EnvironmentVariable, RunAction
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.identifiers import Domain, ProcessGuid
from diego_py.models.image import VolumeMountedFile
from diego_py.secret import REDACTED, Secret

CANARY = "canary-7f3a"


def test_every_text_of_a_secret_is_redacted() -> None:
    secret = Secret(CANARY)
    for text in (
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>30}",
        f"{secret:>10}",
        f"{[secret]}",
    ):
        assert CANARY not in text
        assert REDACTED in text
    assert secret.reveal() == CANARY


def test_a_pickled_secret_has_lost_its_text() -> None:
    pickled = pickle.dumps(Secret(CANARY))
    assert CANARY.encode() not in pickled
    assert pickle.loads(pickled).reveal() == REDACTED


def test_copies_keep_the_text() -> None:
    assert copy.deepcopy(Secret(CANARY)).reveal() == copy.copy(Secret(CANARY)).reveal() == CANARY


def test_a_secret_is_not_a_string_to_encoders() -> None:
    assert not isinstance(Secret(CANARY), str)
    with pytest.raises(TypeError):
        json.dumps(Secret(CANARY))
    with pytest.raises(TypeError, match="wraps a str") as failure:
        Secret(Secret(CANARY))  # type: ignore[arg-type]
    assert CANARY not in str(failure.value)


def test_a_secret_does_not_change() -> None:
    secret = Secret(CANARY)
    with pytest.raises(AttributeError):
        secret._text = "other"
    with pytest.raises(AttributeError):
        del secret._text


@given(st.text(), st.text())
def test_secrets_compare_by_text(left: str, right: str) -> None:
    assert (Secret(left) == Secret(right)) is (left == right)
    assert hash(Secret(left)) == hash(Secret(left))
    assert Secret(left) != left
    assert bool(Secret(left)) is bool(left)


def test_a_definition_prints_none_of_its_secrets(caplog: pytest.LogCaptureFixture) -> None:
    variable = EnvironmentVariable(name="TOKEN", value=Secret(CANARY))
    definition = DesiredLRPDefinition(
        process_guid=ProcessGuid("p"),
        domain=Domain("d"),
        rootfs="preloaded:x",
        action=Action(run=RunAction(path="/x", user="root", env=(variable,))),
        environment_variables=(variable,),
        routes={"diego-ssh": {"private_key": CANARY}},
        image_username="u",
        image_password=Secret(CANARY),
        volume_mounted_files=(VolumeMountedFile(path="f", content=Secret(CANARY)),),
    )
    logging.getLogger(__name__).warning("%s %r", definition, attrs.asdict(definition)["image_password"])
    assert CANARY not in repr(definition)
    assert CANARY not in caplog.text
    assert "TOKEN" in repr(definition)
