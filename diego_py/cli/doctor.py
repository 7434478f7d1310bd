"""`diego doctor`: whether this machine can be a cell, and what to do where it cannot."""

from __future__ import annotations

import click
from attrs import asdict

from diego_py.cli import doctor_checks
from diego_py.cli.lines import BAD, DIM, GOOD, Line
from diego_py.cli.session import EXIT_STATUS, Session, with_session

STYLES = {"ok": GOOD, "warn": "", "fail": BAD}
MARKS = {"ok": "✓", "warn": "!", "fail": "✗"}


@click.command()
@with_session
@click.pass_context
def doctor(context: click.Context, /, session: Session) -> None:
    """Check whether this machine can be a cell. Changes nothing; exit status 13 when something is missing."""
    findings = doctor_checks.run_all()
    width = max(len(finding.name) for finding in findings)
    lines: list[Line] = []
    for finding in findings:
        text = f"{MARKS[finding.verdict]} {finding.name.ljust(width)}  {finding.found}"
        lines.append(Line(text, STYLES[finding.verdict]))
        if finding.fix:
            lines.append(Line(f"  {' ' * width}  → {finding.fix}", DIM))
    session.say({"items": [asdict(finding) for finding in findings]}, lines)
    if any(finding.verdict == "fail" for finding in findings):
        context.exit(EXIT_STATUS["platform"])
