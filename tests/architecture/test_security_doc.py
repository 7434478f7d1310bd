"""docs/security.md claims nothing that no test proves, and leaves out no test of tests/kernel/security."""

from __future__ import annotations

import ast
import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
SECURITY = CHECKOUT / "tests/kernel/security"


def names_of_tests(*paths: Path) -> set[str]:
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                found.add(node.name)
    return found


def rows() -> list[list[str]]:
    lines = (CHECKOUT / "docs/security.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| \d+ \|", line)]
    assert len(cells) > 20
    return cells


def named(row: list[str]) -> set[str]:
    return set(re.findall(r"`(test_\w+)`", row[2]))


def test_every_wall_of_ours_has_a_test() -> None:
    assert [row[1] for row in rows() if not named(row)] == []


def test_named_tests_exist() -> None:
    there = names_of_tests(*SECURITY.glob("test_*.py"), *SECURITY.parent.glob("test_*.py"))
    assert set().union(*map(named, rows())) - there == set()


def test_every_security_test_is_in_the_table() -> None:
    assert names_of_tests(*SECURITY.glob("test_*.py")) - set().union(*map(named, rows())) == set()


def test_rows_are_numbered_and_whole() -> None:
    assert [row[0] for row in rows()] == [str(number + 1) for number in range(len(rows()))]
    assert {len(row) for row in rows()} == {9}
