"""Configuration is strict, and a bad one names every bad setting."""

from pathlib import Path

import attrs
import pytest

from diego_py.secret import Secret
from diego_py.service.config import ConfigError, load

CANARY = "canary-31ef"


@attrs.frozen(kw_only=True)
class Range:
    low: int = 0
    high: int = 1

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low must not be above high")


@attrs.frozen(kw_only=True)
class Settings:
    id: str
    port: int = 8080
    range: Range = attrs.field(factory=Range)
    password: Secret = attrs.field(default=Secret(""), repr=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bbs.json"


def test_a_file_becomes_the_settings(path: Path) -> None:
    path.write_text('{"id": "bbs-1", "password": "s"}')
    assert load(Settings, path) == Settings(id="bbs-1", password=Secret("s"))


def test_every_bad_setting_is_named(path: Path) -> None:
    path.write_text(f'{{"port": "{CANARY}", "colour": 1, "password": 5}}')
    with pytest.raises(ConfigError) as caught:
        load(Settings, path)
    message = str(caught.value)
    assert all(name in message for name in ("/id", "/port", "/colour", "/password", str(path)))
    assert CANARY not in message


def test_settings_that_contradict_each_other_are_refused(path: Path) -> None:
    path.write_text('{"id": "bbs-1", "range": {"low": 2}}')
    with pytest.raises(ConfigError, match="low must not be above high"):
        load(Settings, path)


@pytest.mark.parametrize("text", ["", "{", "[]", f'{{"id": "{CANARY}",}}'])
def test_what_is_no_json_object_is_refused(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(Settings, path)
    assert CANARY not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        load(Settings, path)
    path.mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        load(Settings, path)
