"""Every class of the tree says what a program and an operator need, and the page of codes says the same."""

import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diego_py import errors
from diego_py.chain import Problem
from diego_py.errors import (
    BudgetSpent,
    CallerError,
    DiegoError,
    Fault,
    InsufficientResources,
    InvalidSpec,
    PlacementFailed,
    RepFailed,
    registry,
)

CHECKOUT = Path(__file__).resolve().parents[3]
GENERATE_DOCS = CHECKOUT / "scripts" / "generate-docs"
ALL = [kind for kind in registry().values() if kind.__module__.split(".")[0] in ("diego_py", "bbs", "cells")]
PLACEHOLDERS = {"process_guid", "task_guid"}
HOP_REFUSALS = {"rep.insufficient_resources", "rep.claim_refused", "rep.handle_taken", "rep.stale_epoch", "not_leader"}
"""What one hop refuses another with 409; a caller sees them as 500 or 503, since the chain was entered then."""

every_class = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.code)


def exported() -> set[type[DiegoError]]:
    found = (getattr(errors, name) for name in errors.__all__)
    return {item for item in found if inspect.isclass(item) and issubclass(item, DiegoError)}


def test_every_exported_class_is_registered_under_its_own_code() -> None:
    assert exported() - {DiegoError} == set(ALL)
    assert all(registry()[kind.code] is kind for kind in ALL)
    assert list(registry()) == sorted(registry())


@every_class
def test_a_class_says_everything(kind: type[DiegoError]) -> None:
    assert "code" in kind.__dict__, "a class inherits no code"
    assert "title" in kind.__dict__, "a class inherits no title"
    assert re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?", kind.code)
    assert kind.title[0].isupper()
    assert not kind.title.endswith(".")
    assert kind.__doc__
    assert kind.fault in Fault
    assert kind.next
    assert all(step.do for step in kind.next)


@every_class
def test_the_status_follows_the_rules(kind: type[DiegoError]) -> None:
    assert kind.status in {400, 404, 405, 409, 412, 413, 415, 422, 500, 502, 503, 504}
    if kind.status < 500:
        assert kind.fault is Fault.CALLER or kind.code in HOP_REFUSALS
    if issubclass(kind, CallerError):
        assert kind.status < 500
        assert kind.fault is Fault.CALLER
    if kind.fault is Fault.APP:
        assert kind.status == 500
        assert not kind.elsewhere, "an app that fails here fails on every cell"
    if kind.status in (503, 504):
        assert kind.retryable


@every_class
def test_commands_name_only_what_a_subject_has(kind: type[DiegoError]) -> None:
    for step in kind.next:
        assert set(re.findall(r"\{(\w+)\}", step.run or "")) <= PLACEHOLDERS
        assert step.run is None or step.run.startswith(("diego ", "python -m "))


@every_class
def test_every_class_is_made_in_the_same_way(kind: type[DiegoError]) -> None:
    error = kind("try it", evidence={"a": 1}, retry_after_s=2.0, attempts=[BudgetSpent("first")])
    assert str(error) == error.message == "try it"
    assert error.evidence == {"a": 1}
    assert isinstance(error.attempts, tuple)
    assert error.frame is None
    assert not error.finished


def test_a_code_belongs_to_one_class() -> None:
    before = registry()
    with pytest.raises(TypeError, match=r"'rep\.work_failed' belongs to RepFailed, not to Impostor"):
        type("Impostor", (DiegoError,), {"code": "rep.work_failed"})
    assert registry() == before


def test_find_and_root_walk_the_causes() -> None:
    full = InsufficientResources("reserve 512 MB")
    rep, outer = RepFailed("run it"), PlacementFailed("place web/0")
    rep.__cause__, outer.__cause__ = full, rep
    full.__cause__ = OSError("not ours")
    assert list(outer.links()) == [outer, rep, full]
    assert outer.root is full
    assert outer.find(RepFailed) is rep
    assert outer.find(InsufficientResources) is full
    assert outer.find(DiegoError) is outer
    assert outer.find(InvalidSpec) is None
    assert full.root is full


def test_a_document_from_below_does_not_finish_an_error(problem: Problem) -> None:
    error = RepFailed("run it")
    error.problem = {"code": "rep.work_failed"}
    assert not error.finished
    error.problem = problem
    assert error.finished


@pytest.fixture
def problem() -> Problem:
    return Problem("", "", 500, "", "", "", "", "", False, "", "", 0, 0, ())


def generated() -> dict[str, Any]:
    return runpy.run_path(str(GENERATE_DOCS))


def test_the_page_of_codes_is_what_the_registry_says() -> None:
    checked = subprocess.run([sys.executable, GENERATE_DOCS, "--check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_stale_page_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = generated()["main"]
    page = tmp_path / "errors.md"
    states, description = tmp_path / "states.md", tmp_path / "openapi.json"
    main.__globals__.update(ERRORS_PAGE=page, STATES_PAGE=states, OPENAPI=description, CHECKOUT=tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate-docs", "--check"])
    assert main() == 1
    monkeypatch.setattr(sys, "argv", ["generate-docs"])
    assert main() == 0
    monkeypatch.setattr(sys, "argv", ["generate-docs", "--check"])
    assert main() == 0
    page.write_text(page.read_text() + "\n")
    assert main() == 1


@every_class
def test_the_page_has_a_section_for_each_code(kind: type[DiegoError]) -> None:
    page = (CHECKOUT / "docs" / "errors.md").read_text()
    section = page.split(f"## `{kind.code}`\n", 1)[1].split("\n## ", 1)[0]
    assert kind.title in section
    assert " ".join((kind.__doc__ or "").split()) in section
    assert f"- Status: {kind.status}\n" in section
    assert f"(`{kind.fault}`)" in section
    assert all(step.do in section for step in kind.next)
