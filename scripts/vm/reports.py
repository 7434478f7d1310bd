"""A plugin of pytest for a run that takes long: a failure is told when it happens, and at the end how each file did."""

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

    def pytest_terminal_summary(self) -> None:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for test, outcome in self.worst.items():
            counts[_file(test)][outcome] += 1
        self.terminal.section("each file")
        for file in self.broken:
            self.terminal.write_line(f"failed  {file}: not read")
        for file, of in sorted(counts.items(), key=lambda item: -self.seconds[item[0]]):
            told = ", ".join(f"{of[outcome]} {outcome}" for outcome in OUTCOMES if of[outcome])
            result = "failed" if of["failed"] else "passed" if of["passed"] else "skipped"
            self.terminal.write_line(f"{result:7} {self.seconds[file]:6.0f} s  {file}: {told}")
        self.terminal.write_line(f"{'':7} {sum(self.seconds.values()):6.0f} s  all {len(counts)} files")


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    assert terminal is not None
    config.pluginmanager.register(Reports(terminal))
