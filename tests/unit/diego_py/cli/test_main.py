"""The command line from end to end against a fake BBS: results, exit statuses, and JSON for errors too."""

import json
from pathlib import Path
from typing import Any

import pytest

from diego_py.cli.main import COMMANDS, run
from diego_py.errors import ContainerVanished, DatabaseUnavailable, DiegoError, NoCellFits, ProcessExited
from tests.unit.diego_py.cli.conftest import Command
from tests.unit.diego_py.clients.fake_bbs import FakeBbs

WEB = ("desire", "web", "--rootfs", "busybox", "--", "httpd", "-f")


def test_desire_from_flags(fake: FakeBbs, diego: Command) -> None:
    status, out, _ = diego(
        *("desire", "web", "--rootfs", "busybox", "--instances", "2", "--memory", "1G", "--port", "8080"),
        *("--env", "A=b=c", "--http-check", "8080/up", "--start-timeout", "1.5", "--tag", "gpu", "--user", "root"),
        *("--", "httpd", "-f", "--http-check"),
    )
    assert status == 0
    assert "✓ web: 2 instances running" in out
    assert "10.0.0.3:8080 = 192.0.2.1:61002" in out
    made = fake.definitions["web"]
    assert made.action.run is not None
    assert (made.action.run.path, made.action.run.args) == ("httpd", ("-f", "--http-check"))
    assert (made.memory_mb, made.start_timeout_ms, made.placement_tags) == (1024, 1500, ("gpu",))
    assert made.environment_variables[0].value.reveal() == "b=c"
    assert made.check_definition is not None
    assert made.check_definition.checks[0].http is not None
    assert made.check_definition.checks[0].http.path == "/up"


def test_deploy(fake: FakeBbs, diego: Command, tmp_path: Path) -> None:
    file = tmp_path / "web.json"
    action = {"run": {"path": "x", "user": "vcap"}}
    file.write_text(
        json.dumps({"process_guid": "web", "domain": "d", "rootfs": "preloaded:x", "instances": 2, "action": action})
    )
    status, out, _ = diego("deploy", "-f", str(file), "--max-in-flight", "5", "--if-match", '"e.1"')
    assert status == 0
    assert "✓ web: 2 instances running as deployed" in out
    method, path, headers = fake.seen[-1]
    assert (method, path) == ("PUT", "/v1/desired_lrps/web?max_in_flight=5")
    assert headers["If-Match"] == '"e.1"'
    assert headers["Idempotency-Key"]
    fake.fails = ProcessExited("exited with status 1")
    status, out, err = diego("deploy", "-f", str(file), "--strategy", "recreate")
    assert status == 11
    assert "exited with status 1" in err
    assert fake.seen[-1][1] == "/v1/desired_lrps/web?strategy=recreate&max_in_flight=1"


def test_drain(fake: FakeBbs, diego: Command) -> None:
    status, out, _ = diego("drain", "cell-1", "--timeout", "30")
    assert (status, out) == (0, "✓ cell-1 is empty: 3 instances moved\n")
    assert fake.seen[-1][:2] == ("POST", "/v1/cells/cell-1/evacuate?timeout_s=30")
    assert 30_000 < float(fake.seen[-1][2]["X-Budget-Ms"]) < 100_000
    status, out, _ = diego("drain", "cell-1", "--undo")
    assert (status, out) == (0, "✓ cell-1 takes work again\n")
    assert fake.seen[-1][:2] == ("POST", "/v1/cells/cell-1/readmit")
    fake.fails = NoCellFits("memory_mb 64 needed, 0 at most free on 1 cell(s)")
    status, _, err = diego("drain", "cell-1")
    assert status == 12
    assert "64 needed" in err


def test_desire_an_image(fake: FakeBbs, diego: Command) -> None:
    """What is not said is left to the image; of what is not one, the user is vcap and the command is missed."""
    assert diego("desire", "web", "--rootfs", "docker:///web", "--command-check", "true")[0] == 0
    made = fake.definitions["web"]
    assert made.action.run is not None
    assert made.check_definition is not None
    assert made.check_definition.checks[0].command is not None
    assert (made.action.run.path, made.action.run.args, made.action.run.user) == ("", (), "")
    assert made.check_definition.checks[0].command.user == ""
    assert diego("desire", "b", "--rootfs", "oci:/srv/web", "--user", "7:8", "--", "run", "x")[0] == 0
    run = fake.definitions["b"].action.run
    assert run is not None
    assert (run.path, run.args, run.user) == ("run", ("x",), "7:8")
    assert diego("desire", "c", "--rootfs", "busybox", "--", "run")[0] == 0
    run = fake.definitions["c"].action.run
    assert run is not None
    assert run.user == "vcap"
    status, _, err = diego("desire", "d", "--rootfs", "busybox")
    assert status == 2
    assert "COMMAND" in err


def test_desire_from_a_file(fake: FakeBbs, diego: Command, tmp_path: Path) -> None:
    file = tmp_path / "web.json"
    action = {"run": {"path": "httpd", "user": "vcap"}}
    body = {"process_guid": "web", "domain": "d", "rootfs": "preloaded:x", "action": action}
    file.write_text(json.dumps(body))
    assert diego("desire", "-f", str(file))[0] == 0
    assert fake.definitions["web"].domain == "d"
    file.write_text(json.dumps({**body, "colour": "red"}))
    status, _, err = diego("desire", "-f", str(file))
    assert status == 10
    assert "/colour: DesiredLRPDefinition has no such field" in err


@pytest.mark.parametrize(
    ("fails", "status"),
    [
        (ProcessExited("exited with status 3", evidence={"exit_status": 3, "app_log_tail": ["bye"]}), 11),
        (NoCellFits("no room", placement={"need": {"memory_mb": 1}, "bids": []}), 12),
        (ContainerVanished("gone"), 13),
        (DatabaseUnavailable("no connection"), 14),
    ],
)
def test_the_exit_status_says_whose_fault_it_is(fake: FakeBbs, diego: Command, fails: DiegoError, status: int) -> None:
    fake.fails = fails
    got, out, err = diego(*WEB)
    assert (got, out) == (status, "")
    assert err.startswith("✗ ")
    assert "└ auction bbs-1" in err


def test_json_holds_for_errors_too(fake: FakeBbs, diego: Command) -> None:
    fake.fails = ProcessExited("exited with status 3")
    status, out, err = diego("-o", "json", *WEB)
    assert (status, err) == (11, "")
    document = json.loads(out)
    assert (document["code"], document["status"]) == ("app.exited", 500)
    assert [frame["hop"] for frame in document["chain"]] == ["bbs", "auction", "rep"]


def test_the_output_may_be_chosen_after_the_command(diego: Command) -> None:
    diego(*WEB)
    status, out, _ = diego("ps", "-o", "json")
    assert status == 0
    assert json.loads(out)["actual_lrps"][0]["process_guid"] == "web"


def test_life_of_an_lrp(diego: Command) -> None:
    assert diego(*WEB)[0] == 0
    assert "web: 1 of 1 running" in diego("ps", "web")[1]
    assert diego("scale", "web", "3")[1].startswith("✓ web: 3 instance(s)")
    assert diego("stop", "web", "1")[1] == "✓ web/1 is stopped\n"
    assert diego("restart", "web")[1].startswith("✓ web: 3 restarted")
    assert diego("delete", "web")[1] == "✓ web is gone; 3 container(s) stopped\n"
    assert diego("ps")[1] == "nothing runs; diego desire -h\n"
    assert diego("delete", "web")[0] == 10


def test_cells_and_plan(diego: Command) -> None:
    assert "36 of 100" in diego("cells")[1]
    status, out, _ = diego("plan", "web", "--rootfs", "busybox", "--", "true")
    assert status == 12
    assert "✗ web/0 finds no cell" in out
    assert "… and 2 more instances" in diego("plan", "web", "--rootfs", "busybox", "--instances", "3", "--", "true")[1]


def test_logs_keep_the_streams_apart(fake: FakeBbs, diego: Command) -> None:
    fake.lines = [{"at": "t", "stream": "stdout", "text": "out"}, {"at": "t", "stream": "stderr", "text": "err"}]
    assert diego("logs", "web") == (0, "out\n", "err\n")
    assert diego("logs", "web", "1", "-t")[1] == "t out\n"
    assert [json.loads(line)["text"] for line in diego("logs", "web", "-o", "json")[1].splitlines()] == ["out", "err"]


def stored(number: int) -> dict[str, Any]:
    document = {"title": f"failure {number}", "elapsed_ms": 1, "outcome": "unknown", "fault": "app", "chain": []}
    at = f"2026-01-02T03:04:0{number}Z"
    return {
        "id": f"f{number}",
        "created_at": at,
        "code": "c",
        "fault": "app",
        "cell_id": "cell-1",
        "phase": "run",
        "document": document,
    }


def test_explain_tells_where_it_stands_and_what_was_with_the_newest_last(fake: FakeBbs, diego: Command) -> None:
    fake.failures = [stored(2), stored(1)]
    diego(*WEB)
    out = diego("explain", "web")[1]
    assert out.startswith("web: 1 instance(s) desired\n  0  RUNNING on cell-1 since 2026-01-02 03:04:05 UTC")
    assert out.index("failure 1") < out.index("failure 2")
    diego("delete", "web")
    assert diego("explain", "web")[1].startswith("web is not desired any more\n")
    fake.failures = []
    assert diego("explain", "web")[0] == 10


def test_explain_tells_what_convergence_decided(fake: FakeBbs, diego: Command) -> None:
    of_web = {"process_guid": "web", "index": 0, "presence": "ORDINARY", "cell_id": "cell-1"}
    held = {**of_web, "decision": "held", "reason": "cell-1 drains; no room", "due_at": "2999-01-01T00:00:00Z"}
    other = {**of_web, "process_guid": "other", "decision": "place", "reason": "attempt 1 failed"}
    fake.decided = [held, other, {"process_guid": "web", "index": 3, "decision": "create", "reason": "it had no row"}]
    diego(*WEB)
    out = diego("explain", "web")[1]
    assert "     convergence: held: cell-1 drains; no room; due in " in out
    assert "attempt 1 failed" not in out
    assert "  3  create: it had no row" in out
    assert "convergence last looked 0s ago (bbs-1)" in out
    status, text, _ = diego("explain", "web", "-o", "json")
    assert status == 0
    assert [item["decision"] for item in json.loads(text)["decisions"]["items"]] == ["held", "create"]


def test_explain_of_a_task_and_of_a_cell(fake: FakeBbs, diego: Command) -> None:
    diego(*WEB)
    diego("task", "run", "job", "--rootfs", "b", "--detach", "--", "x")
    job = {"task_guid": "job", "cell_id": "cell-1", "decision": "held", "reason": "cell-1 disappeared; 2 of 2 did"}
    fake.decided = [job]
    assert "convergence: held: cell-1 disappeared" in diego("explain", "job")[1]
    out = diego("explain", "cell-1")[1]
    assert out.startswith("cell-1 takes work, seen ")
    assert "  web/0  RUNNING on cell-1" in out
    assert "convergence: held: cell-1 disappeared" in out


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--bbs", "http://127.0.0.1:1", "ps"]) == 13
    assert "cannot be reached" in capsys.readouterr().err


def test_a_wrong_command_line_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["desire", "web"]) == 2
    assert run(["nonsense"]) == 2
    assert run(["desire", "web", "--rootfs", "b", "--memory", "much", "--", "x"]) == 2
    capsys.readouterr()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_text(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert "Usage: diego" in capsys.readouterr().out
