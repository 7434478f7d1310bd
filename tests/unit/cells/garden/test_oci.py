"""What the runtime's words mean."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cells.garden.oci import Runtime, classify, failure, runtime_log
from diego_py.errors import DiegoError, ExecNotExecutable, ExecNotFound, RuntimeFailed, WorkingDirectoryInvalid

SAID = [
    ('exec: "/nope": stat /nope: no such file or directory', ExecNotFound),
    ('exec: "nope": executable file not found in $PATH', ExecNotFound),
    ('exec: "/etc/x": permission denied', ExecNotExecutable),
    ('exec: "/etc": is a directory', ExecNotExecutable),
    ("exec /bin/x: exec format error", ExecNotExecutable),
    ('chdir to cwd ("/root") set in config.json failed: permission denied', WorkingDirectoryInvalid),
    ("mkdir /etc/passwd: not a directory", WorkingDirectoryInvalid),
    ('error mounting "x" to rootfs at "/y": no such file or directory', RuntimeFailed),
    ("container init was OOM-killed (memory limit too low?)", RuntimeFailed),
    ("", RuntimeFailed),
    ("executable file `/nope` not found in $PATH: No such file or directory", ExecNotFound),
    ("executable file `nope` not found in $PATH: No such file or directory", ExecNotFound),
    ("open executable: Permission denied", ExecNotExecutable),
    ("open executable: Operation not permitted", ExecNotExecutable),
    ("chdir `/etc/passwd`: Not a directory", WorkingDirectoryInvalid),
    ("OOM: the memory limit could be too low: read from sync socket: Connection reset by peer", RuntimeFailed),
    ("open `/proc/x/ns/net`: No such file or directory", RuntimeFailed),
    ("exec failed: namespace path: lstat /proc/1/ns/user: no such file or directory", RuntimeFailed),
]


@pytest.mark.parametrize(("words", "kind"), SAID)
def test_classify(words: str, kind: type[DiegoError]) -> None:
    prefix = "runc create failed: unable to start container process: "
    if kind is RuntimeFailed:
        assert classify(words) is kind
    else:
        assert classify(prefix + words) is kind


def test_failure_speaks_in_the_runtimes_words_and_keeps_its_whole_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text('{"level":"warning","msg":"first"}\nnot json\n{"level":"error","msg":"exec: \\"x\\": not found"}\n')
    error = failure("create", runtime_log(path), "other words")
    assert error.message == 'runtime create: exec: "x": not found'
    assert error.evidence is not None
    assert [entry["msg"] for entry in error.evidence["runtime_log"]] == ["first", "not json", 'exec: "x": not found']
    assert error.evidence["stderr"]["text"] == "other words"


def test_silence_is_said_to_be_silence(tmp_path: Path) -> None:
    assert failure("start", runtime_log(tmp_path / "none"), "").message == "runtime start: the runtime gave no reason"


def test_the_sealed_copy_is_executed_until_close(tmp_path: Path) -> None:
    (links := tmp_path / "links").mkdir()
    program = shutil.copy("/bin/true", tmp_path / "runc")
    runtime = Runtime(program, "conmon", tmp_path / "state", log_bytes_max=0, timeout_s=1.0)
    runtime.seal(links)
    assert runtime.program == str(links / "runc")
    assert Path(runtime.program).read_bytes() == Path(program).read_bytes()
    runtime.close()
    assert runtime.program == program
