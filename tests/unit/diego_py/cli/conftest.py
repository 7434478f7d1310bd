"""The command line against a fake BBS, run in the test's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from diego_py.cli.main import run
from tests.unit.diego_py.clients.fake_bbs import FakeBbs, serving

Command = Callable[..., tuple[int, str, str]]
"""`diego` with these arguments: its exit status, and what it wrote to stdout and stderr."""


@pytest.fixture
def fake() -> FakeBbs:
    return FakeBbs()


@pytest.fixture
def diego(fake: FakeBbs, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    with serving(fake) as url:

        def command(*arguments: str) -> tuple[int, str, str]:
            status = run(["--bbs", url, *arguments])
            said = capsys.readouterr()
            return status, said.out, said.err

        yield command
