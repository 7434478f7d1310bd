"""A plugin of pytest for a run that takes long: failures are told when they happen, files when they are done."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

OUTCOMES = ("passed", "failed", "skipped")


class Reports:
    """Looks at what the tests report."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self.terminal = terminal
        self.worst: dict[str, str] = {}
        """How each test did: it failed when its setting up, itself, or its taking down did."""
        self.seconds: dict[str, float] = defaultdict(float)
        self.current = ""
        self.broken: list[str] = []
        """Files that could not be read as tests."""

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken.append(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[_file(report.nodeid)] += report.duration  # Set up and taken down included.
        before = self.worst.get(report.nodeid, "passed")
        self.worst[report.nodeid] = max(before, report.outcome, key=("passed", "skipped", "failed").index)
        if report.failed:
            self.terminal.write_line(f"\n{report.nodeid}, {report.when}:\n{report.longreprtext}")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if self.current and _file(nodeid) != self.current:
            self.terminal.write_line("\n" + self._line(self.current))
        self.current = _file(nodeid)

    def pytest_terminal_summary(self) -> None:
        self.terminal.section("each file")
        for file in self.broken:
            self.terminal.write_line(f"failed  {file}: not read")
        for file in sorted(self.seconds, key=lambda file: -self.seconds[file]):
            self.terminal.write_line(self._line(file))
        self.terminal.write_line(f"{'':7} {sum(self.seconds.values()):6.0f} s  all {len(self.seconds)} files")

    def _line(self, file: str) -> str:
        of = Counter(outcome for test, outcome in self.worst.items() if _file(test) == file)
        told = ", ".join(f"{of[outcome]} {outcome}" for outcome in OUTCOMES if of[outcome])
        result = "failed" if of["failed"] else "passed" if of["passed"] else "skipped"
        return f"{result:7} {self.seconds[file]:6.0f} s  {file}: {told}"


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    assert terminal is not None
    config.pluginmanager.register(Reports(terminal))
