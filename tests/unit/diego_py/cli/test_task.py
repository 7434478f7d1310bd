"""`diego task` from end to end against a fake BBS: results, chains, exit statuses; and the client's methods."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import diego_py
from diego_py.cli import tasks
from diego_py.errors import NoCellFits, ProcessExited, TaskNotFound
from diego_py.models.task import TaskState
from tests.unit.diego_py.cli.conftest import Command
from tests.unit.diego_py.clients.fake_bbs import FakeBbs, serving
from tests.unit.diego_py.clients.fake_tasks import NOW

JOB = ("task", "run", "job", "--rootfs", "busybox", "--", "echo", "hello")
REQUEST: dict[str, Any] = {
    "task_guid": "job",
    "domain": "d",
    "definition": {"rootfs": "preloaded:x", "action": {"run": {"path": "x", "user": "vcap"}}},
}


def test_run_gives_the_result(fake: FakeBbs, diego: Command) -> None:
    fake.of_tasks.result = "42"
    status, out, _ = diego(*JOB[:5], "--memory", "64", "--env", "A=b", "--result-file", "/tmp/r", *JOB[5:])
    assert status == 0
    assert out.splitlines() == ["✓ job completed on cell-1", "42"]
    assert fake.of_tasks.asked == ["POST /v1/tasks?on_failure=keep&until=completed"]
    made = fake.of_tasks.tasks["job"].definition
    assert made.action.run is not None
    assert (made.action.run.path, made.action.run.args) == ("echo", ("hello",))
    assert (made.memory_mb, made.result_file) == (64, "/tmp/r")
    status, out, _ = diego("task", "run", "-d", "--on-failure", "rollback", *JOB[2:])
    assert (status, out) == (0, "✓ job runs on cell-1\n")
    assert fake.of_tasks.asked[-1] == "POST /v1/tasks?on_failure=rollback"


def test_run_draws_the_chain(fake: FakeBbs, diego: Command) -> None:
    fake.of_tasks.fails = ProcessExited("exited with status 3")
    status, out, err = diego(*JOB)
    assert status == 11
    assert out == ""
    assert "exited with status 3" in err
    assert "cell-1" in err
    fake.of_tasks.fails = NoCellFits("no room")
    status, out, _ = diego("-o", "json", *JOB)
    assert (status, json.loads(out)["code"]) == (12, "auction.no_cell_fits")


def test_run_from_a_file(fake: FakeBbs, diego: Command, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps(REQUEST))
    assert diego("task", "run", "-f", str(file))[0] == 0
    assert fake.of_tasks.tasks["job"].domain == "d"
    assert diego("task", "run", "-f", str(file), "--rootfs", "x")[0] == 2
    assert diego("task", "run", "job")[0] == 2
    file.write_text(json.dumps({**REQUEST, "task_guid": "no spaces"}))
    status, _, err = diego("task", "run", "-f", str(file))
    assert status == 10
    assert "/task_guid" in err


def test_list_show_cancel_delete(diego: Command) -> None:
    assert "there is no task" in diego("task", "list")[1]
    diego("task", "run", "-d", *JOB[2:])
    listed = diego("task", "list", "--state", "running")[1]
    assert listed.splitlines()[1].split()[:3] == ["job", "default", "RUNNING"]
    assert "job: RUNNING on cell-1 since 2026-01-02 03:04:05 UTC" in diego("task", "show", "job")[1]
    assert diego("task", "cancel", "job")[1] == "✓ job is cancelled\n"
    assert "COMPLETED (failed)" in diego("task", "list")[1]
    assert diego("task", "delete", "job")[1] == "✓ job is gone\n"
    status, _, err = diego("task", "show", "job")
    assert status == 10
    assert "diego task list" in err


def test_show_tells_what_became_of_a_task_that_is_gone(fake: FakeBbs, diego: Command) -> None:
    document = {"code": "c", "title": "t", "detail": "it was so", "fault": "app", "chain": [], "status": 500}
    fake.failures = [{"id": "f1", "created_at": NOW.isoformat(), "code": "c", "fault": "app", "document": document}]
    status, out, _ = diego("task", "show", "job")
    assert status == 0
    assert "task job is gone" in out
    assert "it was so" in out
    assert fake.seen[-1][1].startswith("/v1/failures?task_guid=job")


def test_what_a_row_says(fake: FakeBbs, diego: Command) -> None:
    diego(*JOB)
    done = fake.of_tasks.tasks["job"]
    waits = evolve(done, state=TaskState.PENDING, cell_id=None)
    assert tasks.told(waits, NOW) == ""
    later = evolve(waits, next_attempt_at=NOW + timedelta(seconds=30))
    assert tasks.told(later, NOW) == "waits"
    assert tasks.told(evolve(later, rejection_reason="no\n room"), NOW) == "no room; next attempt in 30s"
    assert tasks.told(evolve(done, failed=True, failure_reason="it\nended"), NOW) == "it ended"
    assert tasks.row(evolve(done, result="x" * 100), NOW)[-1] == "x" * 72 + "…"


def test_from_python(fake: FakeBbs) -> None:
    fake.of_tasks.result = "42"
    with serving(fake) as url, diego_py.connect(url) as bbs:
        assert bbs.run_task(REQUEST, until_completed=True).result == "42"
        assert bbs.task("job").state is TaskState.COMPLETED
        assert [task.task_guid for task in bbs.tasks()] == ["job"]
        assert bbs.cancel_task("job").failed
        assert bbs.delete_task("job").task_guid == "job"
        with pytest.raises(TaskNotFound):
            bbs.task("job", until_completed=True)
