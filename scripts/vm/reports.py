"""A plugin of pytest for a run that takes long: a failure is told when it happens, and how long each file took."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest


class Reports:
    """Looks at what the tests report."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self.terminal = terminal
        self.tests: Counter[str] = Counter()
        self.seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = report.location[0]
        self.tests[file] += report.when == "setup"
        self.seconds[file] += report.duration  # Set up and taken down included.
        if report.failed:
            self.terminal.write_line(f"\n{report.nodeid}, {report.when}:\n{report.longreprtext}")

    def pytest_terminal_summary(self) -> None:
        self.terminal.section("seconds of each file")
        for file, seconds in sorted(self.seconds.items(), key=lambda item: -item[1]):
            self.terminal.write_line(f"{seconds:7.0f} s  {self.tests[file]:4} tests  {file}")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    assert terminal is not None
    config.pluginmanager.register(Reports(terminal))
