"""A plugin of pytest that tells how long the tests of each file took, setting up and taking down included."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest


class FileTimes:
    """Adds up what the tests report."""

    def __init__(self) -> None:
        self.tests: Counter[str] = Counter()
        self.seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = report.location[0]
        self.tests[file] += report.when == "setup"
        self.seconds[file] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("seconds of each file")
        for file, seconds in sorted(self.seconds.items(), key=lambda item: -item[1]):
            terminalreporter.write_line(f"{seconds:7.0f} s  {self.tests[file]:4} tests  {file}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(FileTimes())
